"""Shows a certificate to people and programs.

It is read with the daemon's reader, part by part: a part that cannot be read does not hide the others.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from ssa.errors import SSAError
from ssa.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.trust.certificate import Certificate


def decode(pem: str) -> list[dict[str, Any]]:
    """The certificates of a PEM text, each as a dictionary. One that cannot be read has only the key ``error``."""
    end = "-----END CERTIFICATE-----\n"
    return [_decode_untrusted(block) for block in pem.split(end) if block.strip()]


def _decode_untrusted(block: str) -> dict[str, Any]:
    from ssa.trust.certificate import Certificate  # late: slow to load

    try:
        certificate = Certificate(base64.b64decode("".join(block.splitlines()[1:])))
    except Exception as failure:  # noqa: BLE001 - a parser of outside bytes may raise anything
        return {"error": f"this certificate cannot be read: {failure}"}
    return {name: _part_untrusted(read, certificate) for name, read in _PARTS.items()}


def _part_untrusted(read: Callable[[Certificate], Any], certificate: Certificate) -> Any:
    try:
        return read(certificate)
    except SSAError as failure:
        return f"cannot be read: {failure.detail}"
    except Exception as failure:  # noqa: BLE001 - a parser of outside bytes may raise anything
        return f"cannot be read: {failure}"


def _names(certificate: Certificate) -> list[str]:
    """The subject alternative names, each with its kind: ``DNS:example.com``."""
    from ssa.trust.extensions import AlternativeNames

    found = certificate.extension_untrusted(AlternativeNames)
    if found is None:
        return []
    return [*(f"DNS:{name}" for name in found.dns), *(f"IP:{address}" for address in found.addresses), *found.others]


def _key(certificate: Certificate) -> str:
    key: Any = certificate.key
    kind = type(key).__name__.strip("_").removesuffix("PublicKey").replace("EllipticCurve", "EC")
    curve, bits = getattr(key, "curve", None), getattr(key, "key_size", None)
    return f"{kind} {curve.name}" if curve else f"{kind} {bits} bits" if bits else kind


def _fingerprint(certificate: Certificate) -> str:
    return certificate.native.digest("sha256").decode().replace(":", "").lower()


_PARTS: dict[str, Callable[[Certificate], Any]] = {
    "subject": lambda certificate: certificate.subject_text,
    "issuer": lambda certificate: certificate.issuer_text,
    "names": _names,
    "not_before": lambda certificate: rfc3339(certificate.valid[0]),
    "not_after": lambda certificate: rfc3339(certificate.valid[1]),
    "serial": lambda certificate: f"{certificate.serial:x}",
    "key": _key,
    "signature": lambda certificate: certificate.native.get_signature_algorithm().decode(),
    "sha256": _fingerprint,
}
