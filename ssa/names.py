"""Host names in one canonical form, for the resolver, for SNI and for the check of the certificate."""

from __future__ import annotations

import functools
import ipaddress
import re
from ipaddress import IPv4Address, IPv6Address

Host = str | IPv4Address | IPv6Address

_MAX_NAME = 253  # characters of a DNS name (RFC 1035, section 2.3.4), without the root's dot
_MAX_TYPED = 1024  # characters: conversion is slow, so longer names are refused before it
# Letters, digits and hyphens (RFC 952, RFC 1123), and the underscore, which private networks use.
_LABEL = re.compile(r"[a-z0-9_-]{1,63}")
# A name with such a last label is an address in a form of inet_aton(3), and the resolver would take it as one.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")


@functools.lru_cache(maxsize=256)  # a handshake asks three times, and most programs connect to few names
def normalise(host: str) -> Host:
    """A host name or an address in the canonical form in which a certificate is checked for it.

    An address becomes an object of `ipaddress` (a zone such as ``%eth0`` is dropped: it is no part of the peer's
    identity); a DNS name becomes A-labels (IDNA 2008 with the mapping of UTS 46), lower case, without the root's
    dot. The text of a result is accepted again, and gives the same result.

    Raises:
        ValueError: `host` is neither, or an address in a spelling that only some resolvers know, such as ``127.1``.
    """
    try:
        return _address(host)
    except ValueError:
        pass
    if len(host) > _MAX_TYPED:
        raise ValueError(f"host name of {len(host)} characters, at most {_MAX_NAME} are allowed")
    name = (host if host.isascii() else _a_labels(host)).lower().removesuffix(".")
    if not is_dns_name(name):
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
    """The name with A-labels in place of the labels that are not ASCII. Labels in ASCII stay as they are."""
    import idna  # late: its tables are large, and most names need none of them

    try:
        labels = idna.uts46_remap(host, std3_rules=False).split(".")
        return ".".join(label if label.isascii() else idna.alabel(label).decode("ascii") for label in labels)
    except UnicodeError as failure:  # idna.IDNAError is one
        what = ascii(str(failure))[1:-1]
        raise ValueError(
            f"{host!a} is no host name: IDNA 2008 forbids it: {what}; if the name exists all the same, write it as "
            "A-labels (xn--...)"
        ) from failure


def is_dns_name(name: str) -> bool:
    """True for labels of letters, digits, hyphens and underscores, 1 to 63 characters each, 253 with the dots."""
    return len(name) <= _MAX_NAME and all(map(_LABEL.fullmatch, name.split(".")))
