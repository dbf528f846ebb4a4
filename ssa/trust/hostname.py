"""Names: what the caller asked for, what the certificate presents, and whether they are the same (RFC 9525).

A DNS name is compared with the dNSName entries of subjectAltName, an address with the iPAddress entries, and
nothing with the common name, which RFC 9525 forbids. A wildcard is one whole leftmost label over at least two
others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssa.errors import error, printable
from ssa.names import is_dns_name
from ssa.trust.extensions import AlternativeNames

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from ssa.names import Host
    from ssa.trust.case import Case
    from ssa.trust.certificate import Certificate

_SHOWN_NAMES = 6  # in a message


def matches(pattern: str, name: str) -> bool:
    """Whether a dNSName of a certificate stands for this name, which `normalise` returned (RFC 9525, section 6.3)."""
    pattern = pattern.lower() if pattern.isascii() else ""
    if not pattern.startswith("*."):
        return pattern == name  # which is well formed, so an ill-formed pattern equals no name
    parent = pattern[2:]
    # "*.com" would stand for everybody's names; "*.*.example.com" and "*.-_" fail as ill-formed.
    label, _, rest = name.partition(".")
    return "." in parent and is_dns_name(parent) and rest == parent and label != ""


def check(case: Case, certificate: Certificate) -> str:
    """Hold the leaf's names against the host. Returns the entry that matched; raises HOSTNAME_MISMATCH."""
    names = certificate.extension_untrusted(AlternativeNames)
    if names is None:
        raise error(
            "HOSTNAME_MISMATCH",
            f"leaf {certificate.name} has no subjectAltName; its CN is not used (RFC 9525), expected {case.host}",
        )
    dns, addresses, _ = names
    found = _match_address(case.host, addresses) if not isinstance(case.host, str) else _match_dns(case.host, dns)
    if found is None:
        presented = _list([f"DNS {name}" for name in dns] + [f"IP {address}" for address in addresses])
        raise error("HOSTNAME_MISMATCH", f"leaf {certificate.name} is for {presented}, expected {_kind(case.host)}")
    return found


def _match_dns(host: str, names: tuple[str, ...]) -> str | None:
    return next((f"DNS {printable(name)}" for name in names if matches(name, host)), None)


def _match_address(host: Host | None, addresses: tuple[IPv4Address | IPv6Address, ...]) -> str | None:
    return f"IP {host}" if host is not None and host in addresses else None


def _kind(host: Host | None) -> str:
    return f"{'DNS' if isinstance(host, str) else 'IP'} {host}"


def _list(names: list[str]) -> str:
    shown = ", ".join(printable(name, 80) for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return (f"{shown} and {more} more" if more > 0 else shown) or "neither a DNS name nor an address"
