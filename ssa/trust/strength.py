"""Checks that the keys and signatures of a path are as strong as the policy demands.

Every key counts, the anchor's too: an attacker who breaks it can issue any certificate. An anchor's own signature does
not count: the anchor is trusted because it is in the store, and its signature is never verified.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ssa.errors import error

if TYPE_CHECKING:
    from ssa.trust.case import Case, Place
    from ssa.trust.certificate import Certificate

CURVES = frozenset({"secp256r1", "secp384r1", "secp521r1"})  # that TLS 1.3 signs with (RFC 8446, section 4.2.3)
_MAX_RSA_BITS = 16384  # OpenSSL's own limit: beyond it a signature costs more than it proves


def check(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse a certificate whose key, or whose issuer's signature on it, is weaker than the policy demands."""
    if refusal := _key_fault(case, certificate):
        raise error("WEAK_KEY", f"{case.label(certificate, place)}: {refusal}")
    if place.signed and (refusal := _signature_fault(case, certificate)):
        raise error("WEAK_SIGNATURE", f"{case.label(certificate, place)}: {refusal}")


def _key_fault(case: Case, certificate: Certificate) -> str:
    least = case.strength.min_rsa_bits
    match key := certificate.key:
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
    allowed, algorithm = case.signatures, certificate.algorithm
    if algorithm.kind in allowed:
        return ""
    name = _name(algorithm.kind) or algorithm.oid
    return f"signed with {name}, the policy allows {', '.join(sorted(map(_name, allowed)))}"


def _name(kind: tuple[str, ...]) -> str:
    return " with ".join(filter(None, kind))
