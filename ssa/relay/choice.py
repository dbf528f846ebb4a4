"""Decides when the relay is used: on the conditions that are named here, never because something failed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssa.errors import error

if TYPE_CHECKING:
    from ssa.ktls.probe import Capabilities
    from ssa.suites import Suite


def reason_for(data_path: str, kernel: Capabilities, *, asked: bool = False) -> str:
    """The reason why every connection under this setting is relayed; empty if it depends on the connection.

    `asked` is true where the program asked for the relay, which the policy allows.
    """
    if asked:
        return "a program asked for it"
    if data_path == "relay":
        return "the policy's data_path says so"
    return kernel.reason and f"this kernel has no TLS: {kernel.reason}"


def reason_for_suite(suite: Suite, kernel: Capabilities) -> str:
    """The reason why a connection with this suite is relayed; empty if the kernel offers the suite."""
    return "" if kernel.offers(suite) else f"this kernel does not offer {suite.version.label} with {suite.aead.name}"


def reason_for_limit(largest: int, data_path: str, kernel: Capabilities) -> str:
    """The reason why a connection whose records may have `largest` bytes of content is relayed; empty if it is not.

    `largest` is 0 for as many as TLS allows. Raises `ssa.PolicyError` where data_path is ktls, and this kernel cannot.
    """
    if not largest or kernel.limits:
        return ""
    why = "this kernel cannot keep records as short as a client asked for (max_fragment_length)"
    if data_path == "ktls":
        raise error("POLICY_DENIED", f"data_path is ktls, and {why}: {largest} bytes")
    return why
