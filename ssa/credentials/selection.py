"""Chooses the credentials for the name that a client asks for (SNI, RFC 6066, section 3). No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssa.names import normalise

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ssa.credentials.credential import Credential


def choose(credentials: Sequence[Credential], server_name: str | None) -> tuple[Credential, ...]:
    """The credentials for a client that asks for this name, or for none: at most one of each kind of key.

    A full name wins over a wildcard. If nothing matches, the first credential counts, and those of other kinds of key
    that share a name with it.
    """
    return _one_of_each_kind(_named(credentials, server_name) or _default(credentials))


def matches(credentials: Sequence[Credential], server_name: str | None) -> bool:
    """True if one of the credentials is for this name. False if the name would be served by default only."""
    return bool(_named(credentials, server_name))


def _named(credentials: Sequence[Credential], server_name: str | None) -> list[Credential]:
    try:
        name = normalise(server_name or "")
    except ValueError:
        return []
    whole = [credential for credential in credentials if str(name) in credential.hostnames]
    if whole or not isinstance(name, str):
        return whole
    # A wildcard stands for the whole leftmost label (RFC 9525, section 6.3), so only one wildcard matches a name.
    wildcard = f"*.{name.partition('.')[2]}"
    return [credential for credential in credentials if wildcard in credential.hostnames]


def _default(credentials: Sequence[Credential]) -> list[Credential]:
    first = credentials[:1]
    names = {name for credential in first for name in credential.hostnames}
    return [*first, *(credential for credential in credentials[1:] if names.intersection(credential.hostnames))]


def _one_of_each_kind(credentials: Iterable[Credential]) -> tuple[Credential, ...]:
    by_kind: dict[str, Credential] = {}
    for credential in credentials:
        by_kind.setdefault(credential.kind, credential)
    return tuple(by_kind.values())
