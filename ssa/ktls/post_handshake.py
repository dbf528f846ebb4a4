"""The meaning of control records after the handshake: one table for TLS 1.2 and 1.3. Pure.

    record                              TLS 1.3                            TLS 1.2
    alert: close_notify                 the end of the peer's stream       the end of the peer's stream
    alert: user_canceled                passed over                        passed over, if a warning
    alert: no_renegotiation             the peer's failure                 handshake_failure: nobody had asked
    another alert, level warning        the peer's failure                 passed over
    another alert, level fatal          the peer's failure                 the peer's failure
    another alert, another level        the peer's failure                 illegal_parameter
    alert of another length than 2      decode_error                       decode_error
    handshake: NewSessionTicket         a client keeps it                  unexpected_message
    handshake: KeyUpdate                the key for reading changes        unexpected_message
    handshake: HelloRequest             unexpected_message                 a client passes over it
    handshake: ClientHello              unexpected_message                 a server answers no_renegotiation
    any other handshake message         unexpected_message                 unexpected_message
    empty handshake or alert record     unexpected_message                 unexpected_message
    any other type                      unexpected_message                 unexpected_message

Where the name of an alert stands, the peer is sent that alert, once, and the connection has failed in both directions.
"The peer's failure" means that the peer has sent an alert: the connection has failed in both directions, and nothing is
sent. See RFC 8446 sections 5, 5.1, 6 and 6.2, and RFC 5246 sections 7.2.2 and 7.4.1.1. More than `MOST_WARNINGS` alerts
in a row that are passed over count as unexpected_message.
"""

from __future__ import annotations

import errno

from ssa.errors import ALERT_NUMBERS, alert_name
from ssa.tls import (
    ALERT,
    CLIENT_HELLO,
    FATAL,
    HELLO_REQUEST,
    KEY_UPDATE,
    MESSAGE_HEADER,
    NEW_SESSION_TICKET,
    WARNING,
)

CLOSE_NOTIFY = ALERT_NUMBERS["close_notify"]
_USER_CANCELED = ALERT_NUMBERS["user_canceled"]
NO_RENEGOTIATION = ALERT_NUMBERS["no_renegotiation"]

MOST_WARNINGS = 4  # in a row, as in OpenSSL

# Lengths, in bytes, as OpenSSL bounds them: a ticket of 64 KiB and as many extensions.
_LONGEST = {NEW_SESSION_TICKET: 131338, KEY_UPDATE: 1, HELLO_REQUEST: 0, CLIENT_HELLO: 131396}


class Broken(OSError):
    """The connection has failed: neither direction can be used any more.

    Attributes:
        alert: the name of the alert that the peer has to be sent; None where the peer has sent one itself.
    """

    def __init__(self, number: int, words: str, alert: str | None) -> None:
        super().__init__(number, words)
        self.alert = alert


def violation(words: str, alert: str = "unexpected_message") -> Broken:
    """The error for a peer that broke the protocol: EPROTO."""
    return Broken(errno.EPROTO, f"the peer broke the TLS protocol: {words}", alert)


# The error of a read that meets a record which the kernel cannot take; the alert that the peer is sent, and the words.
# Plain text in the place of a record looks to the kernel like a record that is too long.
_UNREADABLE = {
    errno.EBADMSG: ("bad_record_mac", "a record was forged or damaged on its way: it does not decrypt"),
    errno.EMSGSIZE: ("record_overflow", "a record is longer than TLS allows, or is none"),
    errno.EINVAL: ("decode_error", "a record has the version of no TLS"),
}


def unreadable(number: int | None) -> Broken | None:
    """The failure that an errno of a read stands for; None where it stands for none. The kernel gives it once."""
    if number is None or number not in _UNREADABLE:
        return None
    alert, words = _UNREADABLE[number]
    return Broken(number, words, alert)


def is_close_notify_untrusted(kind: int, content: bytes) -> bool:
    """True where a record says that the peer's stream ends here."""
    return kind == ALERT and len(content) == 2 and content[1] == CLOSE_NOTIFY


def pass_over_untrusted(content: bytes, *, modern: bool) -> None:
    """Judge an alert that is no close_notify. Returns if the stream goes on behind it. Raises `Broken`."""
    if len(content) != 2:
        raise violation(_EMPTY) if not content else violation(f"an alert of {len(content)} bytes", "decode_error")
    level, number = content
    if number == _USER_CANCELED and (modern or level == WARNING):
        return
    if not modern and level not in (WARNING, FATAL):
        raise violation(f"an alert of level {level}", "illegal_parameter")
    if not modern and level == WARNING:
        if number == NO_RENEGOTIATION:
            raise violation("no_renegotiation, and nobody had asked for it", "handshake_failure")
        return
    raise Broken(errno.EPROTO, f"the peer ended the connection with the alert {alert_name(number)}", None)


_EMPTY = "an empty record that is no data"


def messages_untrusted(begun: bytes, content: bytes, *, modern: bool, server: bool | None) -> tuple[list[bytes], bytes]:
    """Join a handshake record to the records before it. Returns the complete messages, and the beginning of another.

    `begun` is such a beginning, of the records before. `server` is our role; None where it is not known, which
    forbids less. Raises `Broken` for what cannot come after a handshake, as soon as that is clear.
    """
    if not content:
        raise violation(_EMPTY)
    data = begun + content
    messages: list[bytes] = []
    while data:
        if messages and messages[-1][0] == KEY_UPDATE:
            raise violation("something behind a KeyUpdate in its record (RFC 8446 section 5.1)")
        end = MESSAGE_HEADER + _length_untrusted(data[:MESSAGE_HEADER], modern=modern, server=server)
        if len(data) < max(end, MESSAGE_HEADER):
            break
        if data[0] == KEY_UPDATE:
            _check_update_untrusted(data[MESSAGE_HEADER:end])
        messages.append(data[:end])
        data = data[end:]
    return messages, data


# Which role takes a message after the handshake, by (TLS 1.3, type): True: servers, False: clients, None: both.
_TAKERS = {
    (True, NEW_SESSION_TICKET): False,
    (True, KEY_UPDATE): None,
    (False, HELLO_REQUEST): False,
    (False, CLIENT_HELLO): True,
}


def _length_untrusted(header: bytes, *, modern: bool, server: bool | None) -> int:
    """The length of the message that begins so, the least possible while its header is incomplete. Raises `Broken`."""
    kind = header[0]
    if (modern, kind) not in _TAKERS or (server is not None and _TAKERS[modern, kind] is (not server)):
        raise violation(f"a handshake message of type {kind} that no stream has")
    length = int.from_bytes(header[1:].ljust(3, b"\0"), "big")
    if length > _LONGEST[kind]:
        alert = "decode_error" if _LONGEST[kind] <= 1 else "illegal_parameter"
        raise violation(f"a handshake message of type {kind} and {length} bytes", alert)
    return length


def _check_update_untrusted(body: bytes) -> None:
    if not body:
        raise violation("a KeyUpdate without a word", "decode_error")
    if body not in (b"\0", b"\1"):
        raise violation(f"a KeyUpdate that asks for {body[0]}", "illegal_parameter")
