"""Narrows each setting by a request. A function takes the policy's value and the request's; its result counts.

A request may tighten the policy. One that asks for less than the policy demands is refused: `Loosening`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from ssa.policy.parsers import CLIENT_AUTHS, DATA_PATHS, SESSION_TICKETS, TRUNCATIONS, quoted

if TYPE_CHECKING:
    from ssa.suites import TLSVersion

T = TypeVar("T")


class Loosening(ValueError):
    """A request asked for less than the policy demands. The message says what the policy allows."""


def narrow_min_version(policy: TLSVersion, asked: TLSVersion) -> TLSVersion:
    """The request's minimum, which may not be below the policy's."""
    if asked < policy:
        raise Loosening(f"{asked.label} asked for, the policy's minimum is {policy.label}")
    return asked


def narrow_max_version(policy: TLSVersion, asked: TLSVersion) -> TLSVersion:
    """The request's maximum, which may not be above the policy's."""
    if asked > policy:
        raise Loosening(f"{asked.label} asked for, the policy's maximum is {policy.label}")
    return asked


def narrow_bits(policy: int, asked: int) -> int:
    """The request's minimum, which may not be below the policy's."""
    if asked < policy:
        raise Loosening(f"{asked} bits asked for, the policy's minimum is {policy}")
    return asked


def narrow_depth(policy: int, asked: int) -> int:
    """The request's maximum, which may not be above the policy's."""
    if asked > policy:
        raise Loosening(f"{asked} asked for, the policy's maximum is {policy}")
    return asked


def narrow_seconds(policy: float, asked: float) -> float:
    """The shorter time. A request for a longer one loosens nothing: it says how long the caller would wait."""
    return min(policy, asked)


def narrow_ttl(policy: int, asked: int) -> int:
    """The request's lifetime, which may not be above the policy's."""
    if asked > policy:
        raise Loosening(f"{asked} seconds asked for, the policy's maximum is {policy}")
    return asked


def narrow_list(policy: tuple[T, ...], asked: tuple[T, ...]) -> tuple[T, ...]:
    """The values that both lists have, in the policy's order. There has to be one."""
    common = tuple(value for value in policy if value in asked)
    if not common:
        raise Loosening("the policy allows none of the values asked for")
    return common


def narrow_alpn(policy: tuple[str, ...], asked: tuple[str, ...]) -> tuple[str, ...]:
    """The protocols that both lists have, in the request's order. There has to be one; an empty list allows all."""
    if not policy or not asked:
        return asked or policy
    common = tuple(name for name in asked if name in policy)
    if not common:
        raise Loosening(f"{', '.join(asked)} asked for, the policy allows {', '.join(policy)}")
    return common


def narrow_data_path(policy: str, asked: str) -> str:
    """The request's data path, which has to be the policy's unless the policy allows both."""
    if policy not in (asked, DATA_PATHS[0]):
        raise Loosening(f"{asked} asked for, the policy allows {policy}")
    return asked


def narrow_client_auth(policy: str, asked: str) -> str:
    """The later of `CLIENT_AUTHS`. A request for the earlier one loosens nothing: the policy's counts."""
    return max(policy, asked, key=CLIENT_AUTHS.index)


def narrow_tickets(policy: str, asked: str) -> str:
    """The later of `SESSION_TICKETS`. Raises `Loosening`."""
    if SESSION_TICKETS.index(asked) < SESSION_TICKETS.index(policy):
        raise Loosening(f"{asked} asked for, the policy says {policy}")
    return asked


def narrow_truncation(policy: str, asked: str) -> str:
    """The later of `TRUNCATIONS`. Raises `Loosening`."""
    if TRUNCATIONS.index(asked) < TRUNCATIONS.index(policy):
        raise Loosening(f"{asked} asked for, the policy says {policy}")
    return asked


def narrow_never(policy: str, asked: str) -> str:
    """The policy's value. A request for another one is refused."""
    if asked != policy:
        raise Loosening(f"{quoted(asked)} asked for, only the administrator sets this")
    return policy
