"""What each certificate of a path has to be, whatever the path: valid now, a CA, for this purpose, for this name.

OpenSSL has checked most of this by then. It is checked again by other code on another parser, because a single
flag that was not set makes OpenSSL skip it in silence; and a few things that OpenSSL lets pass are refused here: a
purpose of Server Gated Cryptography only, a wildcard that reaches into a subtree its CA excludes, an EC key that
may not sign.

Each check looks at one certificate and its place, not at its neighbours. So the path builder can use them to
leave a certificate out of every path.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from ssa.errors import error
from ssa.trust import strength, strict
from ssa.trust.case import Place

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.names import Host
    from ssa.trust.case import Case
    from ssa.trust.certificate import Certificate
    from ssa.trust.evidence import Role

_PURPOSES: dict[Role, x509.ObjectIdentifier] = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}


def validity(case: Case, certificate: Certificate, place: Place) -> None:
    """RFC 5280, section 4.1.2.5: both ends are part of the period."""
    parsed = certificate.parsed
    if case.when < parsed.not_valid_before_utc:
        raise error(
            "CERTIFICATE_NOT_YET_VALID",
            f"{case.label(certificate, place)} is valid from {parsed.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}, "
            f"it is {case.when:%Y-%m-%dT%H:%M:%SZ}",
        )
    if case.when > parsed.not_valid_after_utc:
        raise error(
            "CERTIFICATE_EXPIRED",
            f"{case.label(certificate, place)} was valid until {parsed.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}, "
            f"it is {case.when:%Y-%m-%dT%H:%M:%SZ}",
        )


def authority(case: Case, certificate: Certificate, place: Place) -> None:
    """RFC 5280, section 6.1.4 (k) and (n), for intermediates. An anchor may be a v1 root: OpenSSL knows those rules."""
    if place is not Place.INTERMEDIATE:
        return
    basic = certificate.extension_untrusted(x509.BasicConstraints)
    if certificate.parsed.version is not x509.Version.v3 or basic is None or not basic.ca:
        raise error("NOT_A_CA", f"{case.label(certificate, place)}: its basicConstraints do not make it a CA")
    usage = certificate.extension_untrusted(x509.KeyUsage)
    if usage is not None and not usage.key_cert_sign:
        raise error("NOT_A_CA", f"{case.label(certificate, place)}: its keyUsage does not allow keyCertSign")


def purpose(case: Case, certificate: Certificate, place: Place) -> None:
    """RFC 5280, section 4.2.1.12; that a CA's purposes limit what it issues is OpenSSL's rule, and everybody's.

    A keyUsage without digitalSignature is accepted for RSA servers as OpenSSL and curl do (many a private CA's
    recipe says keyEncipherment only), for no other key: all our key exchanges are signed.
    """
    wanted = _PURPOSES[case.role]
    extended = certificate.extension_untrusted(x509.ExtendedKeyUsage)
    if extended is not None and wanted not in extended:
        found = ", ".join(oid.dotted_string for oid in list(extended)[:8])
        raise error(
            "WRONG_PURPOSE",
            f"{case.label(certificate, place)}: its extendedKeyUsage is {found}, expected {wanted.dotted_string}",
        )
    if place is Place.LEAF and not _may_sign(case, certificate):
        raise error("WRONG_PURPOSE", f"{case.label(certificate, place)}: its keyUsage does not allow digitalSignature")


def _may_sign(case: Case, certificate: Certificate) -> bool:
    usage = certificate.extension_untrusted(x509.KeyUsage)
    if usage is None or usage.digital_signature:
        return True
    legacy = case.role == "server" and isinstance(certificate.key, rsa.RSAPublicKey)
    return legacy and (usage.key_encipherment or usage.key_agreement)


def constraints(case: Case, certificate: Certificate, place: Place) -> None:
    """RFC 5280, section 4.2.1.10, for the name that was asked for; OpenSSL does it for the names presented."""
    if place is Place.LEAF or case.host is None:
        return
    limits = certificate.extension_untrusted(x509.NameConstraints)
    if limits is None:
        return
    permitted = [answer for name in limits.permitted_subtrees or () if (answer := _within(case.host, name)) is not None]
    if any(_within(case.host, name) for name in limits.excluded_subtrees or ()) or (permitted and not any(permitted)):
        raise error("NAME_CONSTRAINT", f"{case.label(certificate, place)} may not issue certificates for {case.host}")


def _within(host: Host, subtree: x509.GeneralName) -> bool | None:
    """Whether the host is in the subtree; None where the subtree is about another form of name."""
    base = subtree.value
    if isinstance(host, str):
        return _below(host, base.lower()) if isinstance(subtree, x509.DNSName) else None
    return host in base if isinstance(base, (IPv4Network, IPv6Network)) else None


def _below(name: str, base: str) -> bool:
    return not base or name == base or name.endswith(base if base.startswith(".") else f".{base}")


# What the path builder and the quorum ask of every certificate, in this order. Each raises CertificateError.
CHECKS: dict[str, Callable[[Case, Certificate, Place], None]] = {
    "validity": validity,
    "authority": authority,
    "purpose": purpose,
    "constraints": constraints,
    "strength": strength.check,
    "strict": strict.check,
}
