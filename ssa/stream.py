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
import select
import socket
import time

from ssa import client, errors
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


def is_cut_untrusted(sock: socket.socket) -> bool:
    """A read gave nothing: whether that is the end. An empty record before one that is no data reads so too."""
    return control.receive_record(sock, socket.MSG_PEEK | socket.MSG_DONTWAIT)[0] == APPLICATION_DATA


def look_behind_untrusted(sock: socket.socket) -> str:
    """Serve a KeyUpdate that waits behind what was read: as `serve_control_untrusted`, without its errors.

    Where a read had room to spare, the kernel has looked on, and may have found one. It waits to be read, and poll(2)
    says that there is nothing, whatever follows: who polls first would never read again.
    """
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError as exc:
        if exc.errno != errno.EIO:
            return GO_ON  # the next read will meet it
    else:
        return GO_ON
    kind, content = control.receive_record(sock, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    if kind != HANDSHAKE or KEY_UPDATE not in control.handshake_types_untrusted(content)[0]:
        return GO_ON  # others do not hide
    try:
        return serve_control_untrusted(sock)
    except OSError:  # what was read counts first. The next read will meet it again, and poll has to say so
        sock.shutdown(socket.SHUT_RD)
        return GO_ON


def recv(sock: socket.socket, size: int) -> tuple[bytes, bool]:
    """Up to `size` bytes of data from a socket that nobody keeps a state of; empty at the peer's close_notify.

    And whether a KeyUpdate of ours is due before the next data is sent.
    """
    due = False
    while size:
        try:
            data = sock.recv(size)
        except OSError as exc:
            if exc.errno != errno.EIO:
                raise
        else:
            if data:
                due |= len(data) < size and look_behind_untrusted(sock) == ANSWER
                return data, due
            if is_cut_untrusted(sock):
                raise truncated()
        served = serve_control_untrusted(sock)
        if served == END:
            break
        due |= served == ANSWER
    return b"", due


# --- how long a key serves ------------------------------------------------------------------------------------------

STRIDE = 2**20  # records that may be sent before the kernel is asked how many they were


def renew_key(sock: socket.socket, timeout: float | None, *, answer: bool) -> int:
    """Send a KeyUpdate if one is due: the peer waits for an `answer`, or the key has served for long enough.

    Nobody else may be sending meanwhile. How many records may be sent before this has to be called again. `timeout` is
    that of the socket.

    Raises OSError: EKEYEXPIRED where the keys cannot change and this one has served its time, BlockingIOError and
    TimeoutError where there is no room to send, and what keeps an answer from being given.
    """
    left = control.records_left(sock)
    if not answer and left > 2 * STRIDE:
        return STRIDE
    deadline = None if not timeout else time.monotonic() + timeout
    try:
        while not client.change_sending_key(sock):
            _wait_for_room(sock, timeout, deadline)
    except errors.SSAError as exc:
        return _served_on(left, exc, answer=answer)
    except ConnectionRefusedError as exc:  # there is no ssad
        return _served_on(left, exc, answer=answer)
    return min(STRIDE, control.records_left(sock) // 2)


def _served_on(left: int, exc: OSError, *, answer: bool) -> int:
    """The key cannot change. Some records more may be sent under it, if the peer demands nothing else."""
    if answer:
        raise exc
    if left <= 0:
        raise OSError(errno.EKEYEXPIRED, _WORN.format(exc.strerror)) from None
    return left // 2


_WORN = "the key has protected as many records as it may (RFC 8446 section 5.5), and cannot be changed: {}"


def _wait_for_room(sock: socket.socket, timeout: float | None, deadline: float | None) -> None:
    if timeout == 0:
        raise BlockingIOError(errno.EAGAIN, "there is no room for the KeyUpdate that is due")
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError("timed out")
