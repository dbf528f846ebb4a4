"""Every error that ssa reports: its errno, the TLS alert for the peer, whose fault it is, and what to do about it.

All of them are in the table `REASONS`. The daemon chooses a row and adds the detail; its reply has both; the client
library raises the class of that row with the same words. A program catches the class, compares ``errno`` or ``reason``,
and shows ``str(error)`` to a person.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False  # applications import this, so it loads as little as possible: not even typing
if TYPE_CHECKING:
    from typing import Any

# RFC 8446 section 6, RFC 5246 section 7.2, RFC 7301, RFC 7507: alert descriptions by number.
ALERTS: dict[int, str] = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}
ALERT_NUMBERS: dict[str, int] = {name: number for number, name in ALERTS.items()}


def alert_name(number: int) -> str:
    """The RFC's name of an alert description, or ``alert_N`` for one that has none."""
    return ALERTS.get(number, f"alert_{number}")


def printable(text: str, limit: int = 160) -> str:
    r"""Text that others chose, made fit for a message, a log or a terminal: one line of at most `limit` characters.

    Every character that is not a letter, mark, number, punctuation, symbol or plain space is escaped as in a string
    literal: control characters (``\x1b``, ``\x9b``), invisible ones and those that change the direction of text
    (``\u202e``), line separators, unassigned code points, and bytes that are not UTF-8 (``\udc80``, by
    surrogateescape).
    """
    if len(text) <= limit and text.isprintable():
        return text
    clean = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:limit])
    return clean + "..." if len(text) > limit else clean


_LONGEST = 1000  # characters of a detail


class SSAError(OSError):
    """An error of ssa. It is an `OSError`.

    Attributes:
        errno: the system's error number.
        reason: the name of the row in `REASONS`, in upper case as `ssl.SSLError.reason`.
        alert: the TLS alert that was sent to the peer or that the peer sent (RFC 8446's name), or None.
        whose_fault: ``peer``, ``policy``, ``caller``, ``network`` or ``system``.
    """

    reason: str
    alert: str | None
    whose_fault: str

    def __init__(self, reason: str, detail: str = "", *, alert: str | None = None) -> None:
        row = REASONS[reason]
        detail = printable(detail, _LONGEST)  # it may quote what a peer or an application sent
        super().__init__(row.errno, f"{row.text}: {detail}" if detail else row.text)
        self.reason = reason
        self.detail = detail
        self.alert = alert or row.alert
        self.whose_fault = row.fault

    def __str__(self) -> str:
        advice = REASONS[self.reason].advice
        return f"[{self.reason}] {self.strerror}" + (f". {advice}" if advice else "")

    def __reduce__(self) -> tuple[Any, ...]:
        return (error, (self.reason, self.detail, self.alert))


class CertificateError(SSAError):
    """The peer's certificate was refused. The message names the certificate and the check that it failed."""


class HandshakeError(SSAError):
    """The handshake failed for another reason than the peer's certificate."""


class HandshakeTimeout(HandshakeError, TimeoutError):
    """The peer did not complete the handshake in the time allowed (ETIMEDOUT)."""


class HandshakeReset(HandshakeError, ConnectionResetError):
    """The peer closed or reset the connection in the middle of the handshake (ECONNRESET)."""


class ConnectRefused(HandshakeError, ConnectionRefusedError):
    """The peer refused the connection (ECONNREFUSED)."""


class PolicyError(SSAError):
    """The administrator's policy does not allow what was asked (EACCES)."""


class Reason:
    """One row of the table.

    Attributes:
        cls: the class of the exception.
        alert: the TLS alert for the peer; None: none is sent.
        fault: whose fault it is, as `SSAError.whose_fault`.
        text: says what is wrong; the detail of the case follows it.
        advice: says what a user of this machine can do; empty if only the peer, or the program's author, can.
    """

    __slots__ = ("advice", "alert", "cls", "errno", "fault", "text")

    def __init__(  # noqa: PLR0913 - the columns of the table
        self, cls: type[SSAError], errno: int, alert: str | None, fault: str, text: str, *, advice: str = ""
    ) -> None:
        self.cls = cls
        self.errno = errno
        self.alert = alert
        self.fault = fault
        self.text = text
        self.advice = advice


_C, _H, _P, _S = CertificateError, HandshakeError, PolicyError, SSAError

_TRUST = "If you do trust it, add its CA to the policy's trust_store (`ssa policy get trust_store`)"
_CLOCK = "Check that this machine's clock is right"
_POLICY = "`ssa policy` shows what is allowed"
_DOCTOR = "`ssa doctor` says what is wrong and what to do"

REASONS: dict[str, Reason] = {
    # The peer's certificate, as judged by ssa.trust.
    "CERTIFICATE_EXPIRED": Reason(
        _C,
        errno.EKEYEXPIRED,
        "certificate_expired",
        "peer",
        "certificate has expired",
        advice="Its operator has to renew it. " + _CLOCK,
    ),
    "CERTIFICATE_NOT_YET_VALID": Reason(
        _C, errno.EKEYREJECTED, "certificate_expired", "peer", "certificate is not valid yet", advice=_CLOCK
    ),
    "SELF_SIGNED_CERTIFICATE": Reason(
        _C, errno.EKEYREJECTED, "unknown_ca", "peer", "certificate is self-signed and not a trust anchor", advice=_TRUST
    ),
    "UNKNOWN_CA": Reason(
        _C, errno.EKEYREJECTED, "unknown_ca", "peer", "no path from the certificate to a trust anchor", advice=_TRUST
    ),
    "HOSTNAME_MISMATCH": Reason(
        _C,
        errno.EKEYREJECTED,
        "bad_certificate",
        "peer",
        "certificate is for another name",
        advice="Connect by a name that the certificate is for",
    ),
    "WRONG_PURPOSE": Reason(
        _C, errno.EKEYREJECTED, "unsupported_certificate", "peer", "certificate is for another purpose"
    ),
    "NOT_A_CA": Reason(_C, errno.EKEYREJECTED, "unknown_ca", "peer", "certificate's issuer is not a CA"),
    "NAME_CONSTRAINT": Reason(
        _C, errno.EKEYREJECTED, "bad_certificate", "peer", "certificate breaks its CA's name constraints"
    ),
    "PATH_LENGTH": Reason(_C, errno.EKEYREJECTED, "bad_certificate", "peer", "chain is longer than a CA in it allows"),
    "CHAIN_TOO_LONG": Reason(
        _C, errno.EKEYREJECTED, "unknown_ca", "peer", "chain is longer than the policy allows", advice=_POLICY
    ),
    "WEAK_KEY": Reason(
        _C, errno.EKEYREJECTED, "insufficient_security", "peer", "key is weaker than the policy demands", advice=_POLICY
    ),
    "WEAK_SIGNATURE": Reason(
        _C,
        errno.EKEYREJECTED,
        "insufficient_security",
        "peer",
        "signature is weaker than the policy demands",
        advice=_POLICY,
    ),
    "KEY_NOT_PINNED": Reason(
        _C,
        errno.EKEYREJECTED,
        "bad_certificate",
        "peer",
        "host has none of the keys that the policy pins for it",
        advice="If the host has got a new key, the policy's pinned_keys have to be changed",
    ),
    "BAD_SIGNATURE": Reason(_C, errno.EKEYREJECTED, "decrypt_error", "peer", "certificate's signature is wrong"),
    "BAD_CERTIFICATE": Reason(_C, errno.EKEYREJECTED, "bad_certificate", "peer", "certificate is not acceptable"),
    "NO_CERTIFICATE": Reason(_C, errno.ENOKEY, "certificate_required", "peer", "peer sent no certificate"),
    # The handshake.
    "PEER_ALERT": Reason(_H, errno.EPROTO, None, "peer", "peer refused the handshake"),
    "UNSUPPORTED_VERSION": Reason(
        _H,
        errno.EPROTO,
        "protocol_version",
        "peer",
        "peer offers no TLS version that the policy allows",
        advice="The policy's min_version and max_version say which are allowed",
    ),
    "NO_COMMON_CIPHER": Reason(
        _H,
        errno.EPROTO,
        "handshake_failure",
        "peer",
        "peer offers no cipher suite that the policy allows",
        advice="The policy's ciphers, ciphersuites and groups say which are allowed",
    ),
    "NO_COMMON_GROUP": Reason(
        _H,
        errno.EPROTO,
        "handshake_failure",
        "peer",
        "peer offers no key exchange group that the policy allows",
        advice="The policy's groups say which are allowed",
    ),
    "NO_COMMON_SIGNATURE": Reason(
        _H,
        errno.EPROTO,
        "handshake_failure",
        "peer",
        "peer offers no signature algorithm that can be used here",
        advice="The policy's signature_algorithms say which are allowed",
    ),
    "NO_COMMON_PROTOCOL": Reason(
        _H,
        errno.EPROTO,
        "no_application_protocol",
        "peer",
        "peer offers no application protocol (ALPN) that this side accepts",
    ),
    "NOT_SERVED": Reason(
        _H, errno.EPROTO, "unrecognized_name", "peer", "client asked for a name that is not served here"
    ),
    "PLAINTEXT_PENDING": Reason(
        _H,
        errno.EPROTO,
        "unexpected_message",
        "peer",
        "peer sent plain text after TLS was agreed on: an attacker may have put it there",
    ),
    "NOT_TLS": Reason(
        _H, errno.EPROTO, None, "peer", "peer does not speak TLS", advice="Check that the port is one for TLS"
    ),
    "PROTOCOL_VIOLATION": Reason(_H, errno.EPROTO, "unexpected_message", "peer", "peer broke the TLS protocol"),
    "RECORD_OVERFLOW": Reason(_H, errno.EPROTO, "record_overflow", "peer", "peer sent an oversized record"),
    "HANDSHAKE_TOO_LONG": Reason(
        _H, errno.EPROTO, "unexpected_message", "peer", "peer sent more data than a handshake can need"
    ),
    "HANDSHAKE_TIMEOUT": Reason(
        HandshakeTimeout,
        errno.ETIMEDOUT,
        None,
        "peer",
        "peer did not complete the handshake in time",
        advice="Check that the port is one for TLS; the program's timeout and the policy's handshake_timeout count",
    ),
    "CONNECTION_CLOSED": Reason(
        HandshakeReset, errno.ECONNRESET, None, "peer", "peer closed the connection in the middle of the handshake"
    ),
    "PEER_CLOSED": Reason(_H, errno.ENOTCONN, None, "peer", "peer closed the connection before the handshake"),
    "CONNECTION_RESET": Reason(
        HandshakeReset, errno.ECONNRESET, None, "network", "connection was reset in the middle of the handshake"
    ),
    "NETWORK": Reason(_H, errno.EIO, None, "network", "connection failed in the middle of the handshake"),
    "CONNECTION_REFUSED": Reason(ConnectRefused, errno.ECONNREFUSED, None, "network", "connection refused"),
    "CONNECT_TIMEOUT": Reason(HandshakeTimeout, errno.ETIMEDOUT, None, "network", "host does not answer"),
    "UNREACHABLE": Reason(_H, errno.EHOSTUNREACH, None, "network", "host cannot be reached"),
    # The policy.
    "POLICY_DENIED": Reason(_P, errno.EACCES, None, "policy", "policy does not allow this", advice=_POLICY),
    "CREDENTIAL_DENIED": Reason(
        _P,
        errno.EACCES,
        "internal_error",
        "policy",
        "this user may not serve with the administrator's certificate",
        advice="Root can add the user to /ssa/credentials/NAME/users",
    ),
    # The request, or the descriptor that came with it.
    "BAD_REQUEST": Reason(
        _S,
        errno.EINVAL,
        None,
        "caller",
        "request is malformed",
    ),
    "VERSION_MISMATCH": Reason(
        _S,
        errno.EPROTONOSUPPORT,
        None,
        "system",
        "the program's ssa library and ssad are of different versions",
        advice="Update the older one, and start ssad and the program again",
    ),
    "BAD_VALUE": Reason(_S, errno.EINVAL, None, "caller", "value is not valid"),
    "BAD_CREDENTIALS": Reason(_S, errno.EINVAL, "internal_error", "caller", "certificate or key cannot be used"),
    "KEY_MISMATCH": Reason(_S, errno.EINVAL, None, "caller", "private key does not belong to the certificate"),
    "NO_CREDENTIALS": Reason(
        _S,
        errno.ENOKEY,
        "internal_error",
        "caller",
        "there is no certificate to serve with",
        advice="Name a certificate and its key, or have root put them into /ssa/credentials (docs/configfs.md)",
    ),
    "NO_DESCRIPTOR": Reason(
        _S, errno.EINVAL, None, "caller", "request lacks a descriptor, or carries others than it announces"
    ),
    "NOT_TCP": Reason(_S, errno.ENOTSOCK, None, "caller", "descriptor is not a TCP socket"),
    "NOT_UDP": Reason(_S, errno.ENOTSOCK, None, "caller", "descriptor is not a UDP socket"),
    "NOT_CONNECTED": Reason(_S, errno.ENOTCONN, None, "caller", "socket is not connected"),
    "NOT_LISTENING": Reason(_S, errno.EINVAL, None, "caller", "descriptor is not a listening TCP socket"),
    "UNKNOWN_SOCKET": Reason(
        _S,
        errno.ENOTCONN,
        None,
        "caller",
        "this ssad does not know the TLS socket: another ssad made it, or it is closed",
    ),
    "WOULD_BLOCK": Reason(_S, errno.EAGAIN, None, "network", "send buffer is full"),
    "CONNECTION_LOST": Reason(_S, errno.EPIPE, None, "network", "connection has ended"),
    "ALREADY_TLS": Reason(_S, errno.EEXIST, None, "caller", "socket is a TLS socket already"),
    "NO_COUNTERPART": Reason(_S, errno.EOPNOTSUPP, None, "caller", "ssa does not support this part of the ssl module"),
    # This machine.
    "NO_KERNEL_TLS": Reason(_S, errno.EPROTONOSUPPORT, None, "system", "this kernel has no TLS", advice=_DOCTOR),
    "NO_REKEY": Reason(
        _S,
        errno.EPROTONOSUPPORT,
        None,
        "system",
        "the keys of this connection cannot be changed",
        advice="Linux 6.14 or newer can change keys, for TLS 1.3",
    ),
    "KERNEL_REFUSED": Reason(
        _S,
        errno.EPROTONOSUPPORT,
        None,
        "system",
        "the kernel refused the keys, so the connection is closed",
        advice=_DOCTOR,
    ),
    "TRUST_STORE": Reason(_S, errno.EIO, "internal_error", "system", "the trust store cannot be read", advice=_DOCTOR),
    "OVERLOADED": Reason(
        _S, errno.EAGAIN, None, "system", "ssad has no resources left for this request", advice="Try again later"
    ),
    "DAEMON_FAULT": Reason(_S, errno.EIO, None, "system", "ssad failed: its log has the details"),
}


def error(reason: str, detail: str = "", alert: str | None = None) -> SSAError:
    """The exception for a row of `REASONS`: its class, errno and text, with the detail of this case."""
    return REASONS[reason].cls(reason, detail, alert=alert)
