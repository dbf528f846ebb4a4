"""Adds to the error of a failed handshake the step at which it failed, and the settings that may be the cause. Pure."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ssa import errors
from ssa.policy.schema import SETTINGS, Policy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ssa.handshake.engine import Engine

_VERSIONS = ("min_version", "max_version")
_LISTS = ("ciphersuites", "ciphers", "groups", "signature_algorithms")

# The settings that may be the reason why the two ends share nothing, by the alert that the peer sent.
_BY_ALERT = {
    "protocol_version": _VERSIONS,
    "handshake_failure": (*_VERSIONS, *_LISTS),
    "insufficient_security": (*_VERSIONS, *_LISTS),
    "illegal_parameter": _LISTS,
    "missing_extension": _LISTS,
}
# The settings that may be the reason, by the row of `ssa.errors.REASONS` that we found ourselves.
_BY_REASON = {
    "UNSUPPORTED_VERSION": _VERSIONS,
    "NO_COMMON_CIPHER": (*_VERSIONS, *_LISTS),
    "NO_COMMON_GROUP": ("groups",),
    "NO_COMMON_SIGNATURE": ("signature_algorithms",),
}


def narrowed(policy: Policy, names: tuple[str, ...]) -> str:
    """Names the settings that allow less than ssa's default does, with what they allow."""
    return "; ".join(filter(None, (_narrowed(policy, name) for name in names)))


def _narrowed(policy: Policy, name: str) -> str:
    value, default = getattr(policy, name), getattr(Policy.default(), name)
    if name in _VERSIONS:
        return "" if value == default else f"{name}: {value.label}"
    missing = [one for one in default if one not in value]
    left, gone = (", ".join(SETTINGS[name].show(values).split("\n")) for values in (value, missing))
    if not missing:
        return ""
    return f"{name}: {left}" if len(value) <= _FEW or len(value) <= len(missing) else f"{name} without {gone}"


_FEW = 4  # names, that are shown


@contextlib.contextmanager
def explaining(engine: Engine, policy: Policy, withheld: Callable[[], str] = str) -> Iterator[None]:
    """Add the step of the handshake, and a possible cause on our side, to an `ssa.HandshakeError` of the block.

    `withheld` returns what the policy allows and this kernel cannot do, where data_path is ktls.
    """
    try:
        yield
    except errors.HandshakeError as exc:
        if exc.reason in _BY_REASON and engine.hello is not None and (cause := engine.hello.lacks(policy)):
            reason, words = cause
            raise errors.error(reason, f"{words} ({engine.at})", exc.alert) from exc
        raise errors.error(exc.reason, _explained(exc, engine, policy, withheld), exc.alert) from exc


def _explained(exc: errors.SSAError, engine: Engine, policy: Policy, withheld: Callable[[], str]) -> str:
    words = f"{exc.detail} ({engine.at})" if exc.detail else engine.at
    suspects = _BY_REASON.get(exc.reason) or (_BY_ALERT.get(exc.alert or "", ()) if exc.reason == "PEER_ALERT" else ())
    if engine.presented is not None:  # what they share was settled by then
        suspects = ()
    if suspects and (settings := narrowed(policy, suspects)):
        words += f"; what is offered is narrower than ssa's default: {settings}"
    if exc.alert == "handshake_failure" and (missing := withheld()):
        words += f"; not offered, as data_path is ktls and this kernel cannot: {missing}"
    return words
