"""Checks each certificate of a path, whatever the path: valid now, a CA, for this purpose, for this name.

OpenSSL has checked most of this before. It is checked again with other code and another parser, because OpenSSL skips a
check silently if a single flag is not set. And a few things that OpenSSL accepts are refused here: a purpose of Server
Gated Cryptography only, a wildcard that reaches into a subtree that its CA excludes, an EC key that may not sign.

Each check looks at one certificate and its place, not at its neighbours. So the path builder can use them to
leave a certificate out of every path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import rsa

from ssa.errors import error
from ssa.times import rfc3339
from ssa.trust import strength, strict
from ssa.trust.case import Place
from ssa.trust.certificate import V3
from ssa.trust.extensions import PURPOSES, BasicConstraints, Block, ExtendedKeyUsage, KeyUsage, NameConstraints

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.names import Host
    from ssa.trust.case import Case
    from ssa.trust.certificate import Certificate


def validity(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse a certificate that is not valid now. Both ends are part of the period (RFC 5280, section 4.1.2.5)."""
    first, last = certificate.valid
    if case.when < first:
        raise error(
            "CERTIFICATE_NOT_YET_VALID",
            f"{case.label(certificate, place)} is valid from {rfc3339(first)}, it is {rfc3339(case.when)}",
        )
    if case.when > last:
        raise error(
            "CERTIFICATE_EXPIRED",
            f"{case.label(certificate, place)} was valid until {rfc3339(last)}, it is {rfc3339(case.when)}",
        )


def authority(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse an issuer that is no CA (RFC 5280, sections 4.1.2.6, 6.1.4 (k) and (n)).

    An anchor may be a root of version 1, which has no extensions: OpenSSL knows the rules for those.
    """
    if place is Place.LEAF:
        return
    if certificate.is_nameless:
        raise error("NOT_A_CA", f"{case.label(certificate, place)}: its subject is empty, and a CA must have a name")
    if place is Place.ANCHOR:
        return
    basic = certificate.extension_untrusted(BasicConstraints)
    if certificate.version != V3 or basic is None or not basic.ca:
        raise error("NOT_A_CA", f"{case.label(certificate, place)}: its basicConstraints do not make it a CA")
    usage = certificate.extension_untrusted(KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise error("NOT_A_CA", f"{case.label(certificate, place)}: its keyUsage does not allow keyCertSign")


def purpose(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse a certificate for another purpose than TLS with peers of this role (RFC 5280, section 4.2.1.12).

    The purposes of a CA limit those of the certificates that it issues: OpenSSL and everybody else have this rule.
    A server's RSA key may have a keyUsage without digitalSignature, as with OpenSSL and curl, because many private CAs
    set keyEncipherment only. No other key may: all our key exchanges are signed.
    """
    wanted = PURPOSES[case.role]
    extended = certificate.extension_untrusted(ExtendedKeyUsage)
    if extended is not None and wanted not in extended.purposes:
        found = ", ".join(extended.purposes[:8])
        raise error(
            "WRONG_PURPOSE", f"{case.label(certificate, place)}: its extendedKeyUsage is {found}, expected {wanted}"
        )
    if place is Place.LEAF and not _may_sign(case, certificate):
        raise error("WRONG_PURPOSE", f"{case.label(certificate, place)}: its keyUsage does not allow digitalSignature")


def _may_sign(case: Case, certificate: Certificate) -> bool:
    usage = certificate.extension_untrusted(KeyUsage)
    if usage is None or usage.digital_signature:
        return True
    legacy = case.role == "server" and isinstance(certificate.key, rsa.RSAPublicKey)
    return legacy and (usage.key_encipherment or usage.key_agreement)


def constraints(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse a CA that may not issue for the name that was asked for (RFC 5280, section 4.2.1.10).

    OpenSSL checks the names in the certificate.
    """
    if place is Place.LEAF or case.host is None:
        return
    limits = certificate.extension_untrusted(NameConstraints)
    if limits is None:
        return
    permitted = [answer for name in limits.permitted if (answer := _within(case.host, name)) is not None]
    if any(_within(case.host, name) for name in limits.excluded) or (permitted and not any(permitted)):
        raise error("NAME_CONSTRAINT", f"{case.label(certificate, place)} may not issue certificates for {case.host}")


def _within(host: Host, subtree: str | Block) -> bool | None:
    """True if the host is in the subtree; None if the subtree is for another form of name."""
    if isinstance(host, str):
        return _below(host, subtree.lower()) if isinstance(subtree, str) else None
    return host in subtree if isinstance(subtree, Block) else None


def _below(name: str, base: str) -> bool:
    return not base or name == base or name.endswith(base if base.startswith(".") else f".{base}")


# The path builder and the quorum make these checks of every certificate, in this order. Each raises CertificateError.
CHECKS: dict[str, Callable[[Case, Certificate, Place], None]] = {
    "validity": validity,
    "authority": authority,
    "purpose": purpose,
    "constraints": constraints,
    "strength": strength.check,
    "strict": strict.check,
}
