"""One certificate, as two libraries see it: both must be able to read it, or it is refused.

``cryptography`` parses strictly and gives the values that our own checks look at; OpenSSL's object is what
paths are verified with.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from OpenSSL import crypto

from ssa.errors import error, printable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

Extension = TypeVar("Extension", bound=x509.ExtensionType)


class Certificate:
    """A certificate and its parts, each parsed when it is first asked for.

    Attributes:
        der: its bytes.
        parsed: the ``cryptography`` object.
        native: the OpenSSL object.

    Raises:
        ValueError: one of the libraries cannot read it.
    """

    def __init__(self, der: bytes) -> None:
        self.der = der
        self.parsed = x509.load_der_x509_certificate(der)
        try:
            self.native = crypto.load_certificate(crypto.FILETYPE_ASN1, der)
        except crypto.Error as failure:
            raise ValueError("OpenSSL cannot read it") from failure

    @cached_property
    def subject(self) -> bytes:
        """The subject's name, DER: names are compared as bytes."""
        return self.parsed.subject.public_bytes()

    @cached_property
    def issuer(self) -> bytes:
        """The issuer's name, DER."""
        return self.parsed.issuer.public_bytes()

    @cached_property
    def key(self) -> CertificatePublicKeyTypes:
        """The public key. Raises ValueError, or UnsupportedAlgorithm."""
        return self.parsed.public_key()

    @cached_property
    def spki(self) -> bytes:
        """The public key, DER, to tell two keys apart."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    @cached_property
    def _extensions(self) -> x509.Extensions:
        return self.parsed.extensions

    def extension_untrusted(self, kind: type[Extension]) -> Extension | None:
        """An extension's value, or None. A certificate with a malformed or duplicate one is refused."""
        try:
            return self._extensions.get_extension_for_class(kind).value
        except x509.ExtensionNotFound:
            return None
        except Exception as failure:  # what a parser of outside bytes may raise is open-ended; any is a refusal
            raise error("BAD_CERTIFICATE", f"{self.name}: its extensions are malformed: {failure}") from failure

    @cached_property
    def name(self) -> str:
        """The subject (RFC 4514) for messages, or the serial number where the subject is empty."""
        return printable(self.parsed.subject.rfc4514_string()) or f"serial {self.parsed.serial_number:x}"

    @cached_property
    def issuer_name(self) -> str:
        """The issuer (RFC 4514) for messages."""
        return printable(self.parsed.issuer.rfc4514_string()) or "(empty)"


def load_untrusted(der: bytes, what: str) -> Certificate:
    """Parse what a peer sent; ``what`` names it in the refusal, which is the only exception."""
    try:
        return Certificate(der)
    except Exception as failure:
        raise error("BAD_CERTIFICATE", f"{what} cannot be read: {printable(str(failure))}") from failure
