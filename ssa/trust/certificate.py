"""One certificate, read by OpenSSL and by ssa. A certificate that one of the two cannot read is refused.

Paths are verified with OpenSSL's object. Our own reader (`der`) gives the values that our own checks need, each when it
is first asked for: so an oddity in a part that no check needs does no harm. Names are compared as DER.
"""

from __future__ import annotations

import hashlib
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, TypeVar, cast

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key
from OpenSSL import crypto

from ssa.errors import error, printable
from ssa.trust import der, distinguished, signature
from ssa.trust.extensions import NUMBERS

if TYPE_CHECKING:
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

    from ssa.trust.extensions import Extension as AnyExtension

Extension = TypeVar("Extension", bound="AnyExtension")

_VERSION, _EXTENSIONS = 0xA0, 0xA3  # explicit tags [0] and [3] of a TBSCertificate
_NO_NAME = b"0\x00"  # an empty SEQUENCE
V3 = 3


class Certificate:
    """A certificate and its parts (RFC 5280, section 4.1).

    Attributes:
        der: the whole certificate.
        native: OpenSSL's object.
        version: 1 to 3.
        serial: the serial number. It may be one that the RFC does not allow.
        subject, issuer: the names, in DER: names are compared as bytes.
        spki: the public key (SubjectPublicKeyInfo), in DER: keys are compared as bytes.

    Raises:
        ValueError: one of the two readers cannot read it.
    """

    def __init__(self, data: bytes) -> None:
        self.der = data
        tbs, algorithm, signature_ = _parts_untrusted(data, 3)
        self._algorithm = algorithm.whole
        self._read: dict[type[AnyExtension], AnyExtension | None] = {}
        der.body_untrusted(signature_, der.BIT_STRING)
        parts = der.elements_untrusted(der.body_untrusted(tbs, der.SEQUENCE))
        self.version = _version_untrusted(parts.pop(0).body) if parts and parts[0].tag == _VERSION else 1
        serial, inner, issuer, validity, subject, key, *more = _at_least_untrusted(parts, 6)
        self._algorithms_agree = inner.whole == algorithm.whole
        self._validity = validity.whole
        self.serial = der.integer_untrusted(der.body_untrusted(serial, der.INTEGER))
        self.issuer, self.subject, self.spki = (_sequence_untrusted(part) for part in (issuer, subject, key))
        self._extension_list = next((part.body for part in more if part.tag == _EXTENSIONS), b"")
        try:
            self.native = crypto.load_certificate(crypto.FILETYPE_ASN1, data)
        except crypto.Error as failure:
            raise ValueError("OpenSSL cannot read it") from failure

    @property
    def is_nameless(self) -> bool:
        """True if the subject is empty. A CA's must not be (RFC 5280, section 4.1.2.6)."""
        return self.subject == _NO_NAME

    @property
    def key_algorithm(self) -> bytes:
        """The AlgorithmIdentifier of the public key, DER. Raises ValueError."""
        return der.sequence_untrusted(self.spki)[0].whole

    @property
    def has_pss_key(self) -> bool:
        """True for a key that is for RSASSA-PSS only (RFC 4055, section 1.2). Raises ValueError."""
        return der.oid_untrusted(der.sequence_untrusted(self.key_algorithm)[0].body) == signature.PSS

    @cached_property
    def key(self) -> CertificatePublicKeyTypes:
        """The public key. Raises `ssa.CertificateError` WEAK_KEY for a key of an unknown kind."""
        try:
            return cast("CertificatePublicKeyTypes", load_der_public_key(self.spki))
        except (ValueError, UnsupportedAlgorithm) as failure:
            raise error("WEAK_KEY", f"{self.name}: its key is of no known kind ({failure})") from failure

    @cached_property
    def valid(self) -> tuple[datetime, datetime]:
        """The first and the last moment at which it is valid, in UTC. Raises `ssa.CertificateError`."""
        try:
            first, last = _parts_untrusted(self._validity, 2)
            return der.time_untrusted(first), der.time_untrusted(last)
        except ValueError as failure:
            raise error("BAD_CERTIFICATE", f"{self.name}: its period of validity: {failure}") from failure

    @cached_property
    def algorithm(self) -> signature.Algorithm:
        """The algorithm of the signature. Raises `ssa.CertificateError`."""
        try:
            return signature.algorithm_untrusted(self._algorithm)
        except ValueError as failure:
            raise error("BAD_CERTIFICATE", f"{self.name}: its signature's algorithm: {failure}") from failure

    def is_signed_by(self, issuer: Certificate) -> bool:
        """True if the issuer's key made the signature. Raises `ssa.CertificateError` if a part cannot be read."""
        tbs, _, found = _parts_untrusted(self.der, 3)
        if not self._algorithms_agree or found.body[:1] != b"\x00":
            return False
        return signature.right(issuer.key, self.algorithm, found.body[1:], tbs.whole)

    @cached_property
    def _extensions(self) -> dict[str, bytes]:
        """The extensions' values by number. Raises ValueError, also if one is there twice (RFC 5280, section 4.2)."""
        listed = der.sequence_untrusted(self._extension_list) if self._extension_list else []
        found: dict[str, bytes] = {}
        for extension in listed:
            oid, *rest = _at_least_untrusted(der.elements_untrusted(extension.body), 2)
            number = der.oid_untrusted(der.body_untrusted(oid, der.OID))
            if number in found:
                raise ValueError(f"extension {number} is there twice")
            found[number] = der.body_untrusted(rest[-1], der.OCTET_STRING)
        return found

    def extension_untrusted(self, kind: type[Extension]) -> Extension | None:
        """The extension of this kind, or None. Raises `ssa.CertificateError` for malformed extensions."""
        if kind in self._read:
            return cast("Extension | None", self._read[kind])
        try:
            value = self._extensions.get(NUMBERS[kind])
            found = None if value is None else kind.read_untrusted(value)
            self._read[kind] = found
            return found  # noqa: TRY300 - all that can fail is in this block
        except Exception as failure:  # a parser of outside bytes may raise anything: each is a refusal
            raise error(
                "BAD_CERTIFICATE", f"{self.name}: its extensions are malformed: {kind.__name__}: {failure}"
            ) from failure

    @property
    def subject_text(self) -> str:
        """The whole subject (RFC 4514)."""
        return distinguished.text(self.subject)

    @property
    def issuer_text(self) -> str:
        """The whole issuer (RFC 4514)."""
        return distinguished.text(self.issuer)

    @cached_property
    def name(self) -> str:
        """The subject (RFC 4514) for messages; the serial number if the subject is empty."""
        return printable(self.subject_text) or f"serial {self.serial:x}"

    @cached_property
    def issuer_name(self) -> str:
        """The issuer (RFC 4514) for messages."""
        return printable(self.issuer_text) or "(empty)"


@lru_cache(maxsize=1024)
def key_digest(data: bytes) -> bytes:
    """The SHA-256 of a verified certificate's SubjectPublicKeyInfo (RFC 7469 section 2.4)."""
    return hashlib.sha256(Certificate(data).spki).digest()


def _parts_untrusted(data: bytes, number: int) -> list[der.Element]:
    """The elements of a SEQUENCE, which must be `number`. Raises ValueError."""
    parts = der.sequence_untrusted(data)
    if len(parts) != number:
        raise ValueError(f"{len(parts)} parts, expected {number}")
    return parts


def _at_least_untrusted(parts: list[der.Element], number: int) -> list[der.Element]:
    if len(parts) < number:
        raise ValueError(f"{len(parts)} parts, expected {number}")
    return parts


def _sequence_untrusted(part: der.Element) -> bytes:
    der.body_untrusted(part, der.SEQUENCE)
    return part.whole


def _version_untrusted(body: bytes) -> int:
    version = der.integer_untrusted(der.one_untrusted(body, der.INTEGER)) + 1
    if not 1 <= version <= V3:
        raise ValueError(f"version {version}")
    return version


def load_untrusted(data: bytes, what: str) -> Certificate:
    """Parse a certificate that a peer sent. Raises only `ssa.CertificateError`, whose message calls it ``what``."""
    try:
        return Certificate(data)
    except Exception as failure:
        raise error("BAD_CERTIFICATE", f"{what} cannot be read: {printable(str(failure))}") from failure
