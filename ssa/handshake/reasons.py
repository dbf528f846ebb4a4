"""From OpenSSL's words to ours: the step at which a handshake is, the peer's alert, the reason of a failure. Pure."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cryptography.hazmat.bindings._rust import _openssl

from ssa import errors

if TYPE_CHECKING:
    from OpenSSL import SSL

_ffi, _lib = _openssl.ffi, _openssl.lib

# OpenSSL's state, without the version in front of it: where the handshake is, as seen from us.
_STEPS = {
    "before SSL initialization": "at the first flight",
    "write client hello": "in answer to our ClientHello",
    "read server hello": "after its ServerHello",
    "read hello verify request": "after its HelloVerifyRequest",
    "read encrypted extensions": "after its EncryptedExtensions",
    "read server certificate request": "after its CertificateRequest",
    "read server certificate": "after its Certificate",
    "read server key exchange": "after its ServerKeyExchange",
    "read server certificate verify": "after its CertificateVerify",
    "write finished": "in answer to our Finished",
    "read server session ticket": "after its NewSessionTicket",
    "read change cipher spec": "after its ChangeCipherSpec",
    "write server hello": "in answer to our HelloRetryRequest",
    "write change cipher spec": "in answer to our HelloRetryRequest",
    "early data": "in answer to our Finished",
    "write server done": "in answer to our ServerHelloDone",
    "read client certificate": "after its Certificate",
    "read client key exchange": "after its ClientKeyExchange",
    "read certificate verify": "after its CertificateVerify",
    "SSL negotiation finished successfully": "in answer to our last flight",
}


def step_of(state: str) -> str:
    """A handshake's step in words, from OpenSSL's name for its state (SSL_state_string_long(3))."""
    for version in ("SSLv3/TLS ", "TLSv1.3 ", "DTLS1 "):
        state = state.removeprefix(version)
    return _STEPS.get(state, f"in the state {state}")


_ERR_LIB_SSL = 20
_ALERT_OFFSET = 1000  # SSL_AD_REASON_OFFSET: the reason code of a received alert is this and the alert's number


@functools.cache
def _alerts_by_text() -> dict[str, int]:
    """OpenSSL's words for each alert, which is all that an exception has. It knows them once it has been used."""
    code = {number: _ERR_LIB_SSL << 23 | _ALERT_OFFSET + number for number in errors.ALERTS}
    texts = {number: _lib.ERR_reason_error_string(code[number]) for number in code}
    return {_ffi.string(text).decode(): number for number, text in texts.items() if text != _ffi.NULL}


def alert_of(exc: SSL.Error) -> str | None:
    """The name of the peer's fatal alert that an exception of OpenSSL's stands for; None where it stands for none."""
    number = _alerts_by_text().get(_first_of(exc)[1])
    return None if number is None else errors.alert_name(number)


def error_of(exc: SSL.Error) -> errors.SSAError:
    """The error for an exception of OpenSSL's that stands for no alert."""
    library, text = _first_of(exc)
    if library in _OF_CERTIFICATES:
        return errors.error("BAD_CERTIFICATE", f"it cannot be read: {text}")
    return errors.error(_REASONS.get(text, "PROTOCOL_VIOLATION"), text or "OpenSSL gives no reason")


def text_of(exc: SSL.Error) -> str:
    """OpenSSL's words for what went wrong; an alert that is in no standard has none."""
    return _first_of(exc)[1]


def _first_of(exc: SSL.Error) -> tuple[str, str]:
    """Library and words of the first error in OpenSSL's queue, which says what went wrong."""
    queue = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    return (str(queue[0][0]), str(queue[0][2])) if queue else ("", str(exc))


_REASONS: dict[str, str] = {
    "unsupported protocol": "UNSUPPORTED_VERSION",
    "wrong ssl version": "UNSUPPORTED_VERSION",
    "inappropriate fallback": "UNSUPPORTED_VERSION",
    "wrong cipher returned": "NO_COMMON_CIPHER",
    "unknown cipher returned": "NO_COMMON_CIPHER",
    "no shared cipher": "NO_COMMON_CIPHER",
    "dh key too small": "WEAK_KEY",
    "wrong version number": "NOT_TLS",
    "record too small": "PROTOCOL_VIOLATION",
    "packet length too long": "RECORD_OVERFLOW",
    "data length too long": "RECORD_OVERFLOW",
    "encrypted length too long": "RECORD_OVERFLOW",
    "peer did not return a certificate": "NO_CERTIFICATE",
    "http request": "NOT_TLS",
    "no suitable key share": "NO_COMMON_GROUP",
    "no suitable groups": "NO_COMMON_GROUP",
    "no shared groups": "NO_COMMON_GROUP",
    "wrong curve": "NO_COMMON_GROUP",
    "bad key share": "NO_COMMON_GROUP",
    "unsupported elliptic curve": "NO_COMMON_GROUP",
    "no suitable signature algorithm": "NO_COMMON_SIGNATURE",
    "no shared signature algorithms": "NO_COMMON_SIGNATURE",
    "wrong signature type": "NO_COMMON_SIGNATURE",
}
_OF_CERTIFICATES = frozenset({"asn1 encoding routines", "x509 certificate routines"})  # OpenSSL's libraries
