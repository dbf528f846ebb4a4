"""Whether the keys and signatures of a path are as strong as the policy demands.

Every key counts, the anchor's too: who breaks it can issue what he likes. An anchor's own signature does not
count: it is trusted because it is in the store, and nobody checks what it signed itself with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import SignatureAlgorithmOID as Oid

from ssa.errors import error

if TYPE_CHECKING:
    from cryptography.x509 import ObjectIdentifier

    from ssa.trust.case import Case, Place
    from ssa.trust.certificate import Certificate

# Key type and hash, by the algorithm's number in the certificate. What is not here is never allowed.
SIGNATURES: dict[ObjectIdentifier, tuple[str, str]] = {
    Oid.RSA_WITH_SHA256: ("rsa", "sha256"),
    Oid.RSA_WITH_SHA384: ("rsa", "sha384"),
    Oid.RSA_WITH_SHA512: ("rsa", "sha512"),
    Oid.ECDSA_WITH_SHA256: ("ecdsa", "sha256"),
    Oid.ECDSA_WITH_SHA384: ("ecdsa", "sha384"),
    Oid.ECDSA_WITH_SHA512: ("ecdsa", "sha512"),
    Oid.ED25519: ("ed25519", ""),
    Oid.ED448: ("ed448", ""),
}
# For messages: what is never allowed, by name.
_WEAK: dict[ObjectIdentifier, str] = {
    Oid.RSA_WITH_MD5: "rsa with md5",
    Oid.RSA_WITH_SHA1: "rsa with sha1",
    Oid.ECDSA_WITH_SHA1: "ecdsa with sha1",
    Oid.ECDSA_WITH_SHA224: "ecdsa with sha224",
    Oid.RSA_WITH_SHA224: "rsa with sha224",
    Oid.DSA_WITH_SHA1: "dsa with sha1",
    Oid.DSA_WITH_SHA256: "dsa with sha256",
}
CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})
_MAX_RSA_BITS = 16384  # OpenSSL's own limit: beyond it a signature costs more than it proves


def check(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse a certificate whose key, or whose issuer's signature on it, is weaker than the policy demands."""
    if refusal := _key_fault(case, certificate):
        raise error("WEAK_KEY", f"{case.label(certificate, place)}: {refusal}")
    if place.signed and (refusal := _signature_fault(case, certificate)):
        raise error("WEAK_SIGNATURE", f"{case.label(certificate, place)}: {refusal}")


def _key_fault(case: Case, certificate: Certificate) -> str:
    try:
        key = certificate.key
    except (ValueError, UnsupportedAlgorithm) as failure:
        return f"its key is of no known kind ({failure})"
    least = case.strength.min_rsa_bits
    match key:
        case rsa.RSAPublicKey():
            fine = least <= key.key_size <= _MAX_RSA_BITS
            return "" if fine else f"RSA key of {key.key_size} bits, expected {least} to {_MAX_RSA_BITS}"
        case ec.EllipticCurvePublicKey():
            fine = key.curve.name in CURVES
            return "" if fine else f"EC key on {key.curve.name}, expected one of {', '.join(sorted(CURVES))}"
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return ""
    return f"key of type {type(key).__name__.removesuffix('PublicKey')}, expected RSA, EC or EdDSA"


def _signature_fault(case: Case, certificate: Certificate) -> str:
    allowed = case.signatures
    if (found := _signature(certificate)) in allowed:
        return ""
    oid = certificate.parsed.signature_algorithm_oid
    name = _name(found) if found else _WEAK.get(oid, oid.dotted_string)
    return f"signed with {name}, the policy allows {', '.join(sorted(map(_name, allowed)))}"


def _signature(certificate: Certificate) -> tuple[str, str] | None:
    oid = certificate.parsed.signature_algorithm_oid
    if oid != Oid.RSASSA_PSS:
        return SIGNATURES.get(oid)
    # PSS names its hash in parameters, which the parser may refuse.
    hash_ = certificate.parsed.signature_hash_algorithm
    return ("rsa", hash_.name) if hash_ else None


def _name(pair: tuple[str, str]) -> str:
    return " with ".join(filter(None, pair))
