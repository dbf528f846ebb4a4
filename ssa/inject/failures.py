"""Errors that are ssa's and `ssl`'s at once, and the refusals of what ssa does not support of the `ssl` module."""

from __future__ import annotations

import errno
import ssl

from ssa import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn


class SSLError(errors.SSAError, ssl.SSLError):
    """An `ssa.SSAError` that is an `ssl.SSLError` too; so are the classes below, each of its own."""

    library = "SSA"

    def __reduce__(self) -> tuple[Any, ...]:
        return (error, (self.reason, self.detail, self.alert))


class HandshakeError(SSLError, errors.HandshakeError):
    """The handshake did not complete."""


class PolicyError(SSLError, errors.PolicyError):
    """The administrator's policy does not allow what was asked."""


class CertificateError(SSLError, errors.CertificateError, ssl.SSLCertVerificationError):
    """The peer's certificate was refused. It says so in OpenSSL's words, by which programs know it, and then in ssa's.

    Attributes:
        verify_code: the number of OpenSSL's that comes nearest (X509_V_ERR_* of x509_vfy.h).
        verify_message: OpenSSL's words for that; of another name those of Python's ssl module.
    """

    def __init__(self, reason: str, detail: str = "", *, alert: str | None = None) -> None:
        super().__init__(reason, detail, alert=alert)
        self._words = super().__str__()
        self._say(VERIFY_CODES.get(reason, _UNSPECIFIED))

    def _say(self, code: int, message: str = "") -> None:
        self.verify_code, self.verify_message = code, message or VERIFY_WORDS[code]
        if self.reason != "NO_CERTIFICATE":  # of which OpenSSL has another error
            self.strerror = f"{_FAILED}: {self.verify_message} {self._words}"
            self.args = (self.errno, self.strerror)  # programs show these too

    def of(self, hostname: str | None) -> CertificateError:
        """Say which name or address the certificate should have been for, in the words of Python's ssl module."""
        if self.reason == "HOSTNAME_MISMATCH" and hostname:
            kind, code = ("IP address", 64) if _is_address(hostname) else ("Hostname", 62)
            self._say(code, f"{kind} mismatch, certificate is not valid for '{hostname}'.")
        return self

    def __str__(self) -> str:
        return self._words if self.reason == "NO_CERTIFICATE" else self.strerror or ""


class StreamCut(ssl.SSLEOFError, ConnectionAbortedError):
    """The stream ended without close_notify: what came may not be all. `suppress_ragged_eofs` does not hide it."""


# A timeout and a reset are TimeoutError and ConnectionResetError in `ssl` too, and no SSLError.
_TWINS: dict[type[OSError], type[SSLError]] = {
    errors.SSAError: SSLError,
    errors.HandshakeError: HandshakeError,
    errors.PolicyError: PolicyError,
    errors.CertificateError: CertificateError,
}
_FAILED = "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"
_UNSPECIFIED = 1
VERIFY_CODES = {  # X509_V_ERR_* of OpenSSL's x509_vfy.h
    "UNKNOWN_CA": 20,
    "BAD_SIGNATURE": 7,
    "CERTIFICATE_NOT_YET_VALID": 9,
    "CERTIFICATE_EXPIRED": 10,
    "SELF_SIGNED_CERTIFICATE": 18,
    "CHAIN_TOO_LONG": 22,
    "NOT_A_CA": 79,
    "PATH_LENGTH": 25,
    "WRONG_PURPOSE": 26,
    "KEY_NOT_PINNED": 28,
    "NAME_CONSTRAINT": 47,
    "HOSTNAME_MISMATCH": 62,
    "WEAK_KEY": 66,
}
VERIFY_WORDS = {  # X509_verify_cert_error_string() of crypto/x509/x509_txt.c
    _UNSPECIFIED: "unspecified certificate verification error",
    7: "certificate signature failure",
    9: "certificate is not yet valid",
    10: "certificate has expired",
    18: "self-signed certificate",
    20: "unable to get local issuer certificate",
    22: "certificate chain too long",
    25: "path length constraint exceeded",
    26: "unsuitable certificate purpose",
    28: "certificate rejected",
    47: "permitted subtree violation",
    62: "hostname mismatch",
    64: "IP address mismatch",
    66: "EE certificate key too weak",
    79: "invalid CA certificate",
}
_WANTS: dict[type[ssl.SSLError], int] = {
    ssl.SSLWantReadError: ssl.SSL_ERROR_WANT_READ,
    ssl.SSLWantWriteError: ssl.SSL_ERROR_WANT_WRITE,
}
_OF_TLS = (errno.EPROTO, errno.EBADMSG, errno.EKEYEXPIRED)  # alerts, forged records, keys


def error(reason: str, detail: str = "", alert: str | None = None) -> OSError:
    """An error of a row of `ssa.errors`, as programs that know `ssl` expect it."""
    return as_ssl(errors.error(reason, detail, alert))


def as_ssl(exc: OSError, want: type[ssl.SSLError] | None = None) -> OSError:
    """An error in the form that programs that know `ssl` expect.

    `want` is what is raised in the place of BlockingIOError: exactly SSLWantReadError or SSLWantWriteError, as some
    programs look the class up in a table (redis-py).
    """
    if isinstance(exc, ssl.SSLError):
        return exc
    if isinstance(exc, errors.SSAError):
        twin = _TWINS.get(type(exc))
        return exc if twin is None else twin(exc.reason, exc.detail, alert=exc.alert)
    if want is not None and isinstance(exc, BlockingIOError):
        return want(_WANTS[want], exc.strerror)
    if exc.errno == errno.ECONNABORTED:
        return StreamCut(ssl.SSL_ERROR_EOF, exc.strerror)
    if exc.errno in _OF_TLS:
        return ssl.SSLError(exc.errno, exc.strerror)
    return exc


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def denied(words: str) -> NoReturn:
    """Raises POLICY_DENIED."""
    raise error("POLICY_DENIED", words)


def log_once(level: str, words: str) -> None:
    """Log, once in a process, a setting of the program's that has no effect."""
    if words not in _logged:
        import logging  # late: most programs say nothing of the kind

        _logged.add(words)
        getattr(logging.getLogger("ssa.inject"), level)("%s", words)


_logged: set[str] = set()


class Absent:
    """A method that ssa does not support. To call it raises `ssa.SSAError` NO_COUNTERPART."""

    def __init__(self, words: str) -> None:
        self._words = words

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object, owner: type) -> Callable[..., NoReturn]:
        def refuse(*_args: object, **_kwargs: object) -> NoReturn:
            raise error("NO_COUNTERPART", f"{self._name}: {self._words}")

        return refuse


class Fixed(Absent):
    """A setting that ssa does not support: it can be set to its present value only."""

    def __init__(self, value: object, words: str) -> None:
        super().__init__(words)
        self._value = value

    def __get__(self, instance: object, owner: type) -> Any:
        return self._value

    def __set__(self, instance: object, value: object) -> None:
        if value != self._value and (value or self._value):
            raise error("NO_COUNTERPART", f"{self._name} = {value!r}: {self._words}")
