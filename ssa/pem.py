"""PEM (RFC 7468) as it is found in files: blocks, and whatever is around them, in whatever encoding. Pure.

Every part of ssa that reads certificates finds them by this, so that a file means one thing everywhere. A file's
purpose decides what is read from it: certificates or a key, and the rest is passed over.
"""

from __future__ import annotations

import binascii
import re

TYPE_CHECKING = False  # applications import this: no more is loaded than it needs
if TYPE_CHECKING:
    from collections.abc import Iterator

BEGIN = b"-----BEGIN "
TRUSTED = "TRUSTED CERTIFICATE"  # OpenSSL's: what it is trusted for stands behind it (openssl-x509(1), -addtrust)
CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE", TRUSTED)
# The content ends at the next five hyphens, so that a block that was cut short does not swallow the one after it.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----((?>[^-]*(?:-(?!----)[^-]*)*))-----END \1-----")


class Block:
    """One block: its label, its Base64, and all of it."""

    __slots__ = ("body", "label", "whole")

    def __init__(self, label: str, body: bytes, whole: bytes) -> None:
        self.label = label
        self.body = body
        self.whole = whole

    def der_untrusted(self) -> bytes:
        """What it has in it. Raises ValueError."""
        return binascii.a2b_base64(b"".join(self.body.split()), strict_mode=True)

    @property
    def is_certificate(self) -> bool:
        """True for a certificate under any of its labels."""
        return self.label in CERTIFICATES

    @property
    def is_key(self) -> bool:
        """True for a private key of any kind."""
        return self.label.endswith("PRIVATE KEY")


def blocks(text: bytes) -> Iterator[Block]:
    """The whole blocks of a file, in its order."""
    for found in _BLOCK.finditer(text):
        yield Block(found[1].decode("ascii"), found[2], found[0])
