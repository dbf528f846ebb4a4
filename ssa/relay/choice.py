"""Which data path: the relay is taken on named conditions, never because something failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssa.errors import error

if TYPE_CHECKING:
    from ssa.ktls.probe import Capabilities
    from ssa.suites import Suite


def reason_for(data_path: str, kernel: Capabilities, *, asked: bool = False) -> str:
    """Why every connection under this setting goes by the relay; empty where the kernel is to be asked.

    `asked`: the program asked for the relay, which the policy allows.
    """
    if asked:
        return "a program asked for it"
    if data_path == "relay":
        return "the policy's data_path says so"
    return kernel.reason and f"this kernel has no TLS: {kernel.reason}"


def reason_for_suite(suite: Suite, kernel: Capabilities) -> str:
    """Why a connection with this suite goes by the relay; empty where the kernel can do it."""
    return "" if kernel.offers(suite) else f"this kernel does not offer {suite.version.label} with {suite.aead.name}"


def reason_for_limit(largest: int, data_path: str, kernel: Capabilities) -> str:
    """Why a connection whose peer wants no longer records goes by the relay; empty where the kernel can do it.

    Raises `ssa.PolicyError` where the policy leaves it to the kernel, and this one cannot.
    """
    if not largest or kernel.limits:
        return ""
    why = "this kernel cannot keep records as short as a client asked for (max_fragment_length)"
    if data_path == "ktls":
        raise error("POLICY_DENIED", f"data_path is ktls, and {why}: {largest} bytes")
    return why
