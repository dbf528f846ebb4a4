"""What reading from a kernel TLS socket has to do beyond recv(2): serving the records that are no data.

A plain read that meets such a record gets EIO, again and again, with nothing lost: nothing is done here before that.
And what the kernel calls the end of the stream is a bare FIN, the truncation of RFC 8446 section 6.1: the true end is
a close_notify alert.

    record                          what is done                                       what the reader gets
    close_notify                    it stays in the socket, for every later read       the end of the stream
    another alert                   taken                                              EPROTO, with its name
    session tickets                 taken, and handed to the daemon                    what follows
    KeyUpdate                       the daemon takes it, and changes the keys          what follows
    KeyUpdate, on a kernel that     it stays in the socket                             EPROTONOSUPPORT, each time
    cannot change keys
    HelloRequest of TLS 1.2         taken (RFC 5246 section 7.4.1.1 allows to)         what follows
    ClientHello of TLS 1.2          taken, and answered with no_renegotiation          what follows
    anything else                   taken                                              EPROTO
"""

from __future__ import annotations

import errno
import socket

from ssa import client
from ssa.ktls import control
from ssa.ktls.constants import (
    ALERT,
    APPLICATION_DATA,
    CLIENT_HELLO,
    HANDSHAKE,
    HELLO_REQUEST,
    KEY_UPDATE,
    NEW_SESSION_TICKET,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GO_ON, END, ANSWER = "go on", "end", "answer"  # ANSWER: go on, and send a KeyUpdate before the next data


def serve_control_untrusted(sock: socket.socket) -> str:
    """Serve the record that plain reads stumble over: `GO_ON`, `END` or `ANSWER`. Raises OSError."""
    kind, content = control.receive_record(sock, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if kind == APPLICATION_DATA:
        return GO_ON
    if control.is_close_notify_untrusted(kind, content):
        return END
    types = frozenset(control.handshake_types_untrusted(content)[0]) if kind == HANDSHAKE else frozenset[int]()
    if KEY_UPDATE in types:
        return ANSWER if client.follow_key_update(sock) else GO_ON
    control.receive_record(sock, socket.MSG_DONTWAIT)
    if kind == ALERT:
        control.judge_alert_untrusted(content)
    elif serve := _SERVICES.get((control.version(sock), types)):
        serve(sock, content)
    else:
        raise OSError(errno.EPROTO, f"the peer sent a record of type {kind}, which no stream has")
    return GO_ON


def _ignore(_sock: socket.socket, _content: bytes) -> None:
    """Servers take no for an answer, but end the connection at the alert that says so."""


def _refuse_renegotiation(sock: socket.socket, _content: bytes) -> None:
    control.refuse_renegotiation(sock)


_SERVICES: dict[tuple[int, frozenset[int]], Callable[[socket.socket, bytes], None]] = {
    (0x0304, frozenset({NEW_SESSION_TICKET})): client.hand_in_ticket,
    (0x0303, frozenset({HELLO_REQUEST})): _ignore,
    (0x0303, frozenset({CLIENT_HELLO})): _refuse_renegotiation,
}


def truncated() -> ConnectionAbortedError:
    """The stream was cut without close_notify: what came may not be all (RFC 8446 section 6.1)."""
    return ConnectionAbortedError(errno.ECONNABORTED, "the connection was cut: its end came without TLS's close_notify")


def recv(sock: socket.socket, size: int) -> bytes:
    """Up to `size` bytes of data from a socket that nobody keeps a state of; empty at the peer's close_notify."""
    if size == 0:
        return b""
    while True:
        try:
            data = sock.recv(size)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
        else:
            if data:
                return data
            raise truncated()
        served = serve_control_untrusted(sock)
        if served == END:
            return b""
        if served == ANSWER:
            client.change_sending_key(sock)
