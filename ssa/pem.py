"""PEM (RFC 7468): the blocks in a file, whatever else and whatever encoding the file has, and blocks to write. Pure.

Every part of ssa that reads or writes PEM does it here, so that a file means one thing everywhere. The purpose of a
file decides which blocks are read from it, certificates or a key; the others are passed over.
"""

from __future__ import annotations

import binascii
import re

TYPE_CHECKING = False  # applications import this: no more is loaded than it needs
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_PEM = 256 << 10  # bytes of a file
BEGIN = b"-----BEGIN "
TRUSTED = "TRUSTED CERTIFICATE"  # OpenSSL's: the certificate, then what it is trusted for (openssl-x509(1), -addtrust)
CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", TRUSTED)
# The content ends at the next five hyphens, so that a block that was cut short does not swallow the one after it.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----((?>[^-]*(?:-(?!----)[^-]*)*))-----END \1-----")


class Block:
    """One block: its label, its Base64, and its whole text."""

    __slots__ = ("body", "label", "whole")

    def __init__(self, label: str, body: bytes, whole: bytes) -> None:
        self.label = label
        self.body = body
        self.whole = whole

    def der_untrusted(self) -> bytes:
        """The bytes that the Base64 stands for. Raises ValueError."""
        return binascii.a2b_base64(b"".join(self.body.split()), strict_mode=True)

    @property
    def is_certificate(self) -> bool:
        """True for a certificate under any of its labels."""
        return self.label in CERTIFICATES

    @property
    def is_key(self) -> bool:
        """True for a private key of any kind."""
        return self.label.endswith("PRIVATE KEY")


def encoded(certificates: Iterable[bytes]) -> bytes:
    """Certificates, given in DER, as PEM: one block each."""
    return b"".join(map(encoded_block, certificates))


def encoded_block(der: bytes, label: str = "CERTIFICATE") -> bytes:
    """One block of this label, in lines of 64 characters (RFC 7468, section 2)."""
    text = binascii.b2a_base64(der, newline=False)
    rows = b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label.encode(), rows, label.encode())


def blocks(text: bytes) -> Iterator[Block]:
    """The blocks of a file that have an end, in the order of the file."""
    for found in _BLOCK.finditer(text):
        yield Block(found[1].decode("ascii"), found[2], found[0])
