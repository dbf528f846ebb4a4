"""A rule of RFC 5280 that OpenSSL's X509_V_FLAG_X509_STRICT no longer enforces since version 4.0."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography import x509

from ssa.errors import error

if TYPE_CHECKING:
    from ssa.trust.case import Case, Place
    from ssa.trust.certificate import Certificate


def check(case: Case, certificate: Certificate, place: Place) -> None:
    """Refuse an empty subject with a subjectAltName that is not critical (RFC 5280, section 4.2.1.6)."""
    if not case.strength.strict or not certificate.is_nameless:
        return
    names = certificate.native.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName)
    if not names.critical:
        raise error(
            "BAD_CERTIFICATE",
            f"{case.label(certificate, place)}: it has no subject, and its subjectAltName is not critical "
            "(RFC 5280, as the application asked)",
        )
