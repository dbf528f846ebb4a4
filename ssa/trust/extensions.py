"""The extensions of a certificate that are judged (RFC 5280, section 4.2.1), each as far as it is. Pure.

Each class reads its own value: `read_untrusted` takes the DER and raises ValueError.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, Protocol, Self

from ssa.trust import der

_DNS, _IP = 0x82, 0x87  # GeneralName: dNSName [2], iPAddress [7]
_PERMITTED, _EXCLUDED = 0xA0, 0xA1  # NameConstraints
_OTHERS = {0x81: "email", 0x86: "URI"}  # rfc822Name [1], uniformResourceIdentifier [6]: only to be shown
_ADDRESSES = (4, 16)  # bytes


class Extension(Protocol):
    """One kind of extension."""

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """The extension of these bytes, DER. Raises ValueError."""


class BasicConstraints(NamedTuple):
    """Section 4.2.1.9. OpenSSL holds a path against the length; a length without CA means nothing."""

    ca: bool

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read its value, DER. Raises ValueError."""
        parts = der.sequence_untrusted(value)
        ca = False
        if parts and parts[0].tag == der.BOOLEAN:
            ca = der.boolean_untrusted(parts.pop(0).body)
        if parts:
            der.integer_untrusted(der.body_untrusted(parts.pop(0), der.INTEGER))
        if parts:
            raise ValueError("more than two parts")
        return cls(ca)


class KeyUsage(NamedTuple):
    """Section 4.2.1.3."""

    digital_signature: bool
    key_encipherment: bool
    key_agreement: bool
    key_cert_sign: bool

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read its value, DER. Raises ValueError."""
        bits = der.bits_untrusted(der.one_untrusted(value, der.BIT_STRING))
        first = bits[0] if bits else 0
        return cls(*(bool(first & 0x80 >> place) for place in (0, 2, 4, 5)))


class ExtendedKeyUsage(NamedTuple):
    """Section 4.2.1.12."""

    purposes: tuple[str, ...]

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read its value, DER. Raises ValueError."""
        parts = der.sequence_untrusted(value)
        return cls(tuple(der.oid_untrusted(der.body_untrusted(part, der.OID)) for part in parts))


class AlternativeNames(NamedTuple):
    """Section 4.2.1.6. Other kinds of names are passed over, and so is an address that is none: it matches nothing."""

    dns: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...]
    others: tuple[str, ...]  # for people: each with its kind

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read its value, DER. Raises ValueError."""
        names = der.sequence_untrusted(value)
        return cls(
            tuple(_text(name.body) for name in names if name.tag == _DNS),
            tuple(
                ipaddress.ip_address(name.body) for name in names if name.tag == _IP and len(name.body) in _ADDRESSES
            ),
            tuple(f"{_OTHERS[name.tag]}:{_text(name.body)}" for name in names if name.tag in _OTHERS),
        )


def _text(name: bytes) -> str:
    r"""An IA5String; what is not ASCII in it, so that it matches nothing, as ``\xd1``."""
    return name.decode("ascii", "backslashreplace")


class Block(NamedTuple):
    """Addresses that have some bits in common."""

    address: bytes
    mask: bytes

    def __contains__(self, host: object) -> bool:
        if not isinstance(host, (IPv4Address, IPv6Address)) or len(host.packed) != len(self.mask):
            return False
        return all((a ^ b) & m == 0 for a, b, m in zip(host.packed, self.address, self.mask, strict=True))


class NameConstraints(NamedTuple):
    """Section 4.2.1.10: the subtrees of DNS names and addresses. The others are left to OpenSSL."""

    permitted: tuple[str | Block, ...]
    excluded: tuple[str | Block, ...]

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read its value, DER. Raises ValueError."""
        parts = der.sequence_untrusted(value)
        by_tag = {part.tag: part.body for part in parts}
        if len(by_tag) != len(parts) or not by_tag or by_tag.keys() - {_PERMITTED, _EXCLUDED}:
            raise ValueError("neither permitted nor excluded subtrees")
        return cls(*(_subtrees_untrusted(by_tag.get(tag, b"")) for tag in (_PERMITTED, _EXCLUDED)))


def _subtrees_untrusted(subtrees: bytes) -> tuple[str | Block, ...]:
    found: list[str | Block] = []
    for subtree in der.elements_untrusted(subtrees):
        parts = der.elements_untrusted(der.body_untrusted(subtree, der.SEQUENCE))
        if len(parts) != 1:
            raise ValueError("a subtree with a minimum or a maximum")
        base = parts[0]
        if base.tag == _DNS:
            found.append(base.body.decode("ascii"))
        elif base.tag == _IP:
            half = len(base.body) // 2
            if len(base.body) not in (8, 32):
                raise ValueError(f"an address and mask of {len(base.body)} bytes")
            found.append(Block(base.body[:half], base.body[half:]))
    return tuple(found)


NUMBERS: dict[type[Extension], str] = {
    BasicConstraints: "2.5.29.19",
    KeyUsage: "2.5.29.15",
    ExtendedKeyUsage: "2.5.29.37",
    AlternativeNames: "2.5.29.17",
    NameConstraints: "2.5.29.30",
}
