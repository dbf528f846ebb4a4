"""Compares the name that the caller asked for with the names in the certificate (RFC 9525).

A DNS name is compared with the dNSName entries of subjectAltName, an address with the iPAddress entries. The common
name is never used: RFC 9525 forbids it. A wildcard stands for one whole label, the leftmost, above at least two others.
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
    """True if a certificate's dNSName matches a name that `normalise` returned (RFC 9525, section 6.3)."""
    pattern = pattern.lower() if pattern.isascii() else ""
    if not pattern.startswith("*."):
        return pattern == name  # the name is well formed, so a malformed pattern equals none
    parent = pattern[2:]
    # "*.com" would match everybody's names. "*.*.example.com" and "*.-_" are malformed.
    label, _, rest = name.partition(".")
    return "." in parent and is_dns_name(parent) and rest == parent and label != ""


def check(case: Case, certificate: Certificate) -> str:
    """Compare the leaf's names with the host. Returns the entry that matched; raises HOSTNAME_MISMATCH."""
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
