"""Narrows the policy by a request. A request may tighten settings; one that would loosen a setting is refused.

Pure: `narrow` goes through the fields of the request, and each setting's row says how it is narrowed.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from ssa.errors import error
from ssa.policy.schema import SETTINGS, BadValue, Loosening
from ssa.suites import BY_OPENSSL_NAME, SUITES

if TYPE_CHECKING:
    from ssa.policy.hosts import Pattern
    from ssa.policy.pins import Pin
    from ssa.policy.schema import Policy
    from ssa.suites import Suite, TLSVersion


@dataclass(frozen=True, slots=True)
class Narrowing:
    """The wishes of an application; None for no wish. Each field but the last is the setting of that name."""

    min_version: TLSVersion | None = None
    max_version: TLSVersion | None = None
    ciphersuites: tuple[Suite, ...] | None = None
    ciphers: tuple[Suite, ...] | None = None
    groups: tuple[str, ...] | None = None
    signature_algorithms: tuple[str, ...] | None = None
    min_rsa_bits: int | None = None
    verify_depth: int | None = None
    trust_store: str | None = None
    client_auth: str | None = None
    pinned_keys: tuple[Pin, ...] | None = None
    allowed_hosts: tuple[Pattern, ...] | None = None
    denied_hosts: tuple[Pattern, ...] | None = None
    alpn: tuple[str, ...] | None = None
    handshake_timeout: float | None = None
    session_ttl: int | None = None
    session_tickets: str | None = None
    data_path: str | None = None
    truncation: str | None = None
    coercion: str | None = None
    disabled: tuple[str, ...] = ()  # suites that must not be used, by IANA's or OpenSSL's names


_NOTHING = Narrowing()


def narrow(policy: Policy, request: Narrowing) -> Policy:
    """The policy for one request. It is never looser than `policy`.

    Raises:
        SSAError: POLICY_DENIED names the setting that the request would loosen. BAD_VALUE: it names a suite that does
            not exist.
    """
    if request == _NOTHING:
        return policy
    values = {name: _narrow_setting(policy, name, asked) for name, asked in _opinions(request).items()}
    values.update(_without(policy, values, request.disabled))
    try:
        return policy.with_values(values) if values else policy
    except BadValue as bad:
        raise error("POLICY_DENIED", str(bad)) from None


def _opinions(request: Narrowing) -> dict[str, Any]:
    """The settings that the request has a wish for."""
    asked = {field.name: getattr(request, field.name) for field in fields(request) if field.name in SETTINGS}
    return {name: value for name, value in asked.items() if value is not None}


def _narrow_setting(policy: Policy, name: str, asked: Any) -> Any:
    try:
        return SETTINGS[name].narrow(getattr(policy, name), asked)
    except Loosening as loosening:
        raise error("POLICY_DENIED", f"{name}: {loosening}") from None


def _without(policy: Policy, values: dict[str, Any], disabled: tuple[str, ...]) -> dict[str, tuple[Suite, ...]]:
    """The lists of suites that change when the disabled suites are left out. Raises POLICY_DENIED for an empty list."""
    unwanted = {_suite_untrusted(name) for name in disabled}
    changed = {}
    for name in ("ciphersuites", "ciphers"):
        before: tuple[Suite, ...] = values.get(name, getattr(policy, name))
        after = tuple(suite for suite in before if suite not in unwanted)
        if not after:
            raise error("POLICY_DENIED", f"{name}: the request disables every suite that the policy allows")
        if after != before:
            changed[name] = after
    return changed


def _suite_untrusted(name: str) -> Suite:
    suite = SUITES.get(name) or BY_OPENSSL_NAME.get(name)
    if suite is None:
        raise error("BAD_VALUE", f"{ascii(name)[:80]} is not a cipher suite that the kernel can do")
    return suite
