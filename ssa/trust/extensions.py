"""The extensions of a certificate that ssa judges (RFC 5280, section 4.2.1), and only the parts that it judges. Pure.

Each class reads its own value: `read_untrusted` takes the DER and raises ValueError.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from ssa.trust import der

if TYPE_CHECKING:
    from ssa.trust.evidence import PeerRole

_DNS, _IP = 0x82, 0x87  # GeneralName: dNSName [2], iPAddress [7]
_PERMITTED, _EXCLUDED = 0xA0, 0xA1  # NameConstraints
_OTHERS = {0x81: "email", 0x86: "URI"}  # rfc822Name [1], uniformResourceIdentifier [6]: only to be shown
_ADDRESSES = (4, 16)  # bytes


class Extension(Protocol):
    """One kind of extension."""

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read the value of the extension, in DER. Raises ValueError."""


class BasicConstraints(NamedTuple):
    """Section 4.2.1.9. OpenSSL checks the path length, so it is not kept; without CA it means nothing."""

    ca: bool

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read the value of the extension, in DER. Raises ValueError."""
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
    """Section 4.2.1.3: the uses of the key that ssa judges."""

    digital_signature: bool
    key_encipherment: bool
    key_agreement: bool
    key_cert_sign: bool

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read the value of the extension, in DER. Raises ValueError."""
        bits = der.bits_untrusted(der.one_untrusted(value, der.BIT_STRING))
        first = bits[0] if bits else 0
        return cls(*(bool(first & 0x80 >> place) for place in (0, 2, 4, 5)))


class ExtendedKeyUsage(NamedTuple):
    """Section 4.2.1.12: the purposes, each as an OID."""

    purposes: tuple[str, ...]

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read the value of the extension, in DER. Raises ValueError."""
        parts = der.sequence_untrusted(value)
        return cls(tuple(der.oid_untrusted(der.body_untrusted(part, der.OID)) for part in parts))


class AlternativeNames(NamedTuple):
    """Section 4.2.1.6. Malformed addresses and other kinds of names are left out, as they match nothing."""

    dns: tuple[str, ...]
    addresses: tuple[IPv4Address | IPv6Address, ...]
    others: tuple[str, ...]  # only to be shown: emails and URIs, each with its kind

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read the value of the extension, in DER. Raises ValueError."""
        names = der.sequence_untrusted(value)
        return cls(
            tuple(_text(name.body) for name in names if name.tag == _DNS),
            tuple(
                ipaddress.ip_address(name.body) for name in names if name.tag == _IP and len(name.body) in _ADDRESSES
            ),
            tuple(f"{_OTHERS[name.tag]}:{_text(name.body)}" for name in names if name.tag in _OTHERS),
        )


def _text(name: bytes) -> str:
    r"""The text of an IA5String. A byte that is not ASCII becomes ``\xd1``, so that the name matches nothing."""
    return name.decode("ascii", "backslashreplace")


class Block(NamedTuple):
    """The addresses that agree with `address` in the bits of `mask`."""

    address: bytes
    mask: bytes

    def __contains__(self, host: object) -> bool:
        if not isinstance(host, (IPv4Address, IPv6Address)) or len(host.packed) != len(self.mask):
            return False
        return all((a ^ b) & m == 0 for a, b, m in zip(host.packed, self.address, self.mask, strict=True))


class NameConstraints(NamedTuple):
    """Section 4.2.1.10: the subtrees of DNS names and addresses. OpenSSL judges the others."""

    permitted: tuple[str | Block, ...]
    excluded: tuple[str | Block, ...]

    @classmethod
    def read_untrusted(cls, value: bytes) -> Self:
        """Read the value of the extension, in DER. Raises ValueError."""
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


# The purposes that a peer of each role has to have (section 4.2.1.12): serverAuth, clientAuth.
PURPOSES: dict[PeerRole, str] = {"server": "1.3.6.1.5.5.7.3.1", "client": "1.3.6.1.5.5.7.3.2"}
ANY_PURPOSE = "2.5.29.37.0"

NUMBERS: dict[type[Extension], str] = {
    BasicConstraints: "2.5.29.19",
    KeyUsage: "2.5.29.15",
    ExtendedKeyUsage: "2.5.29.37",
    AlternativeNames: "2.5.29.17",
    NameConstraints: "2.5.29.30",
}
