"""A certificate in words, for people and programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography import x509


def decode(pem: str) -> list[dict[str, Any]]:
    """The certificates of a PEM text. One that cannot be read is told of under ``error``."""
    end = "-----END CERTIFICATE-----\n"
    return [_decode_untrusted((block + end).encode()) for block in pem.split(end) if block.strip()]


def _decode_untrusted(pem: bytes) -> dict[str, Any]:
    from cryptography import x509  # late: slow to load

    try:
        return _describe_untrusted(x509.load_pem_x509_certificate(pem))
    except Exception as failure:  # noqa: BLE001 - what a parser of outside bytes may raise is open-ended
        return {"error": f"this certificate cannot be read: {failure}"}


def _describe_untrusted(certificate: x509.Certificate) -> dict[str, Any]:
    from cryptography.hazmat.primitives.hashes import SHA256

    return {
        "subject": certificate.subject.rfc4514_string(),
        "issuer": certificate.issuer.rfc4514_string(),
        "names": _names_untrusted(certificate),
        "not_before": certificate.not_valid_before_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "not_after": certificate.not_valid_after_utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "serial": f"{certificate.serial_number:x}",
        "key": _key_untrusted(certificate),
        "signature": certificate.signature_algorithm_oid._name,  # noqa: SLF001 - it has no public name
        "sha256": certificate.fingerprint(SHA256()).hex(),
    }


# As openssl writes them.
_KINDS = {"DNSName": "DNS", "IPAddress": "IP", "RFC822Name": "email", "UniformResourceIdentifier": "URI"}


def _names_untrusted(certificate: x509.Certificate) -> list[str]:
    """The subject alternative names, each with its kind: ``DNS:example.com``."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [f"{_KINDS.get(type(name).__name__, type(name).__name__)}:{name.value}" for name in names]


def _key_untrusted(certificate: x509.Certificate) -> str:
    key: Any = certificate.public_key()
    kind = type(key).__name__.strip("_").removesuffix("PublicKey").replace("EllipticCurve", "EC")
    curve, bits = getattr(key, "curve", None), getattr(key, "key_size", None)
    return f"{kind} {curve.name}" if curve else f"{kind} {bits} bits" if bits else kind
