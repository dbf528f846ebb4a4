"""Names: what the caller asked for, what the certificate presents, and whether they are the same (RFC 9525).

A DNS name is compared with the dNSName entries of subjectAltName, an address with the iPAddress entries, and
nothing with the common name, which RFC 9525 forbids. A wildcard is one whole leftmost label over at least two
others.
"""

from __future__ import annotations

import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

import idna
from cryptography import x509

from ssa.errors import error
from ssa.trust.certificate import printable

if TYPE_CHECKING:
    from ssa.trust.case import Case
    from ssa.trust.certificate import Certificate

Host = str | IPv4Address | IPv6Address

_MAX_NAME = 253  # characters of a DNS name (RFC 1035, section 2.3.4), without the root's dot
_MAX_TYPED = 1024  # characters looked at before conversion, which is slow on long nonsense
# Letters, digits, hyphens (RFC 952, RFC 1123), and the underscore that private networks use.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
# A name that ends like this is an address in one of inet_aton's spellings: the resolver would take it as one.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_SHOWN_NAMES = 6  # in a message


def normalise(host: str) -> Host:
    """The name or address that a certificate is held against, in its one canonical form.

    An address becomes an object of `ipaddress` (a zone such as ``%eth0`` is dropped: it is no part of the peer's
    identity); a DNS name becomes A-labels (IDNA 2008 with the mapping of UTS 46), lower case, without the root's
    dot. What it returns, as text, it accepts again.

    Raises:
        ValueError: it is neither, or an address in a spelling that only some resolvers know, such as ``127.1``.
    """
    try:
        return _address(host)
    except ValueError:
        pass
    if len(host) > _MAX_TYPED:
        raise ValueError(f"host name of {len(host)} characters, at most {_MAX_NAME} are allowed")
    name = (host if host.isascii() else _a_labels(host)).lower().removesuffix(".")
    if not _is_dns_name(name):
        raise ValueError(f"{host!a} is no host name")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        raise ValueError(f"{host!a} is neither a host name nor an address in dotted form")
    return name


def _address(host: str) -> IPv4Address | IPv6Address:
    address = ipaddress.ip_address(host)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return IPv6Address(address.packed)
    return address


def _a_labels(host: str) -> str:
    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except UnicodeError as failure:  # idna.IDNAError is one
        raise ValueError(f"{host!a} is no host name: {failure}") from failure


def _is_dns_name(name: str) -> bool:
    return len(name) <= _MAX_NAME and all(map(_LABEL.fullmatch, name.split(".")))


def matches(pattern: str, name: str) -> bool:
    """Whether a dNSName of a certificate stands for this name, which `normalise` returned (RFC 9525, section 6.3)."""
    pattern = pattern.lower() if pattern.isascii() else ""
    if not pattern.startswith("*."):
        return pattern == name  # which is well formed, so an ill-formed pattern equals no name
    parent = pattern[2:]
    # "*.com" would stand for everybody's names; "*.*.example.com" and "*.-_" fail as ill-formed.
    label, _, rest = name.partition(".")
    return "." in parent and _is_dns_name(parent) and rest == parent and label != ""


def check(case: Case, certificate: Certificate) -> str:
    """Hold the leaf's names against the host. Returns the entry that matched; raises HOSTNAME_MISMATCH."""
    names = certificate.extension_untrusted(x509.SubjectAlternativeName)
    if names is None:
        raise error(
            "HOSTNAME_MISMATCH",
            f"leaf {certificate.name} has no subjectAltName; its CN is not used (RFC 9525), expected {case.host}",
        )
    dns = names.get_values_for_type(x509.DNSName)
    addresses = names.get_values_for_type(x509.IPAddress)
    found = _match_address(case.host, addresses) if not isinstance(case.host, str) else _match_dns(case.host, dns)
    if found is None:
        presented = _list([f"DNS {name}" for name in dns] + [f"IP {address}" for address in addresses])
        raise error("HOSTNAME_MISMATCH", f"leaf {certificate.name} is for {presented}, expected {_kind(case.host)}")
    return found


def _match_dns(host: str, names: list[str]) -> str | None:
    return next((f"DNS {printable(name)}" for name in names if matches(name, host)), None)


def _match_address(host: Host | None, addresses: list[x509.general_name._IPAddressTypes]) -> str | None:
    return f"IP {host}" if host is not None and host in addresses else None


def _kind(host: Host | None) -> str:
    return f"{'DNS' if isinstance(host, str) else 'IP'} {host}"


def _list(names: list[str]) -> str:
    shown = ", ".join(printable(name, 80) for name in names[:_SHOWN_NAMES])
    more = len(names) - _SHOWN_NAMES
    return (f"{shown} and {more} more" if more > 0 else shown) or "neither a DNS name nor an address"
