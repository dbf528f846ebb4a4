"""Signatures on certificates: reads their algorithm, and verifies them (RFC 5280, 4.1.1.2; RFC 8017, RFC 5758)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa

from ssa.trust import der

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

PSS = "1.2.840.113549.1.1.10"
_MGF1 = "1.2.840.113549.1.1.8"
# Key type and hash, by the algorithm's number.
_ALGORITHMS: dict[str, tuple[str, str]] = {
    "1.2.840.113549.1.1.4": ("rsa", "md5"),
    "1.2.840.113549.1.1.5": ("rsa", "sha1"),
    "1.2.840.113549.1.1.14": ("rsa", "sha224"),
    "1.2.840.113549.1.1.11": ("rsa", "sha256"),
    "1.2.840.113549.1.1.12": ("rsa", "sha384"),
    "1.2.840.113549.1.1.13": ("rsa", "sha512"),
    "1.2.840.10045.4.1": ("ecdsa", "sha1"),
    "1.2.840.10045.4.3.1": ("ecdsa", "sha224"),
    "1.2.840.10045.4.3.2": ("ecdsa", "sha256"),
    "1.2.840.10045.4.3.3": ("ecdsa", "sha384"),
    "1.2.840.10045.4.3.4": ("ecdsa", "sha512"),
    "1.3.101.112": ("ed25519", ""),
    "1.3.101.113": ("ed448", ""),
    "1.2.840.10040.4.3": ("dsa", "sha1"),
    "2.16.840.1.101.3.4.3.2": ("dsa", "sha256"),
}
_HASHES: dict[str, tuple[str, type[hashes.HashAlgorithm]]] = {
    "1.2.840.113549.2.5": ("md5", hashes.MD5),
    "1.3.14.3.2.26": ("sha1", hashes.SHA1),
    "2.16.840.1.101.3.4.2.4": ("sha224", hashes.SHA224),
    "2.16.840.1.101.3.4.2.1": ("sha256", hashes.SHA256),
    "2.16.840.1.101.3.4.2.2": ("sha384", hashes.SHA384),
    "2.16.840.1.101.3.4.2.3": ("sha512", hashes.SHA512),
}
_CLASSES = dict(_HASHES.values())


class Algorithm(NamedTuple):
    """The algorithm of a signature.

    Attributes:
        oid: its number.
        kind: the key's type and the hash; empty if the algorithm is unknown.
        salt: the salt of RSASSA-PSS, in bytes; None for any other algorithm.
        mask: the hash of RSASSA-PSS's mask generation.
    """

    oid: str
    kind: tuple[str, ...]
    salt: int | None = None
    mask: str = ""


def algorithm_untrusted(identifier: bytes) -> Algorithm:
    """Read an AlgorithmIdentifier in DER. Raises ValueError.

    Parameters count for RSASSA-PSS only. Old implementations write a NULL for ECDSA, which OpenSSL ignores.
    """
    parts = der.sequence_untrusted(identifier)
    if not 1 <= len(parts) <= 2:
        raise ValueError("an algorithm of the wrong form")
    oid = der.oid_untrusted(der.body_untrusted(parts[0], der.OID))
    if oid != PSS:
        return Algorithm(oid, _ALGORITHMS.get(oid, ()))
    return _pss_untrusted(parts[1].whole if len(parts) > 1 else b"0\x00")


def _pss_untrusted(parameters: bytes) -> Algorithm:
    """Read RSASSA-PSS's parameters; by default SHA-1, MGF1 with SHA-1, a salt of 20 bytes (RFC 4055, section 3.1)."""
    by_tag = {part.tag: part.body for part in der.sequence_untrusted(parameters)}
    digest, mask, salt = "sha1", "sha1", 20
    if (said := by_tag.get(0xA0)) is not None:
        digest = _hash_untrusted(said)
    if (said := by_tag.get(0xA1)) is not None:
        oid, *rest = der.sequence_untrusted(said)
        if der.oid_untrusted(oid.body) != _MGF1 or len(rest) != 1:
            raise ValueError("a mask generation other than MGF1")
        mask = _hash_untrusted(rest[0].whole)
    if (said := by_tag.get(0xA2)) is not None:
        salt = der.integer_untrusted(der.one_untrusted(said, der.INTEGER))
    return Algorithm(PSS, ("rsa", digest), salt, mask)


def _hash_untrusted(identifier: bytes) -> str:
    oid = der.oid_untrusted(der.sequence_untrusted(identifier)[0].body)
    return _HASHES.get(oid, (oid,))[0]


def right(key: CertificatePublicKeyTypes, algorithm: Algorithm, signature: bytes, signed: bytes) -> bool:
    """True if the key made this signature of these bytes. False for an unknown algorithm."""
    if algorithm.kind not in _ALGORITHMS.values():
        return False
    kind, digest = algorithm.kind
    try:
        match key:
            case rsa.RSAPublicKey() if kind == "rsa":
                key.verify(signature, signed, _padding(algorithm), _CLASSES[digest]())
            case ec.EllipticCurvePublicKey() if kind == "ecdsa":
                key.verify(signature, signed, ec.ECDSA(_CLASSES[digest]()))
            case ed25519.Ed25519PublicKey() if kind == "ed25519":
                key.verify(signature, signed)
            case ed448.Ed448PublicKey() if kind == "ed448":
                key.verify(signature, signed)
            case _:
                return False
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, KeyError):
        return False
    return True


def _padding(algorithm: Algorithm) -> padding.AsymmetricPadding:
    if algorithm.salt is None:
        return padding.PKCS1v15()
    return padding.PSS(padding.MGF1(_CLASSES[algorithm.mask]()), algorithm.salt)
