"""Reads and sends control records on a kernel TLS socket: alerts and handshake messages.

A plain read(2) that meets a control record fails with EIO, again and again, and nothing is lost. recvmsg(2) with room
for a control message returns the record and its type. What the kernel calls the end of the stream is a bare FIN: by
RFC 8446 section 6.1 that is a truncation, as the stream ends with a close_notify alert.
"""

from __future__ import annotations

import errno
import select
import socket
import struct
import sys

from ssa.errors import ALERT_NUMBERS
from ssa.ktls.constants import (
    SOL_TLS,
    TCP_CLOSE,
    TCP_SYN_SENT,
    TCPI_BYTES_ACKED,
    TLS_GET_RECORD_TYPE,
    TLS_RX,
    TLS_SET_RECORD_TYPE,
    TLS_TX,
)
from ssa.ktls.post_handshake import CLOSE_NOTIFY, NO_RENEGOTIATION
from ssa.suites import AEADS
from ssa.tls import ALERT, APPLICATION_DATA, FATAL, MAX_CONTENT, MESSAGE_HEADER, WARNING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.suites import AEAD

_ANCILLARY = socket.CMSG_SPACE(1)


def look(sock: socket.socket) -> tuple[int, bytes]:
    """Peek at the next record. Returns its type and content, of data the first byte only. Raises OSError.

    A look at more data could make the kernel find a KeyUpdate behind it. poll(2) would then say that there is nothing.
    """
    kind, content = receive_record(sock, _PEEK, 1)
    return (kind, content) if kind == APPLICATION_DATA else receive_record(sock, _PEEK)


_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


def receive_record(sock: socket.socket, flags: int = 0, size: int = MAX_CONTENT) -> tuple[int, bytes]:
    """Read the next record, or what is left of it. Returns its type and content. Raises OSError."""
    data, ancillary, _, _ = sock.recvmsg(size, _ANCILLARY, flags)
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_TLS, TLS_GET_RECORD_TYPE):
            return value[0], data
    return APPLICATION_DATA, data


def version(sock: socket.socket) -> int:
    """The version of TLS, by its number on the wire. Raises OSError."""
    return int.from_bytes(sock.getsockopt(SOL_TLS, TLS_TX, 2 + 2)[:2], sys.byteorder)


def handshake_types_untrusted(content: bytes) -> tuple[list[int], bool]:
    """The types of the handshake messages that begin in `content`, and whether the last one is complete."""
    types = []
    at = 0
    while at < len(content):
        types.append(content[at])
        at += MESSAGE_HEADER + int.from_bytes(content[at + 1 : at + MESSAGE_HEADER], "big")
    return types, at == len(content)


def send_alert(sock: socket.socket, level: int, number: int, flags: int = 0) -> None:
    """Send an alert record. Raises what sendmsg(2) gives."""
    record_type = [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([ALERT]))]
    sock.sendmsg([bytes([level, number])], record_type, flags | socket.MSG_NOSIGNAL)


def refuse_renegotiation(sock: socket.socket) -> None:
    """Answer a TLS 1.2 peer that asks for renegotiation with no_renegotiation (RFC 5246 section 7.2.2).

    The peer gets no answer where the send buffer has no room. Raises OSError.
    """
    try:
        send_alert(sock, WARNING, NO_RENEGOTIATION, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return


def fail(sock: socket.socket, alert: str | None, *, unreadable: bool = False) -> None:
    """End a connection that has failed: send the peer the alert of that name, if any, and end our stream.

    A peer that does not read gets no alert, as nothing waits for it. Where `unreadable` is true reading ends too: the
    kernel would wait for ever for a record that makes sense. OSErrors are passed over: the connection has ended then.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    try:
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # an error that it has not told yet would stop the alert
        writable = any(events & select.POLLOUT for _, events in poll.poll(0))
        if alert and writable:  # otherwise sendmsg(2) could wait for another thread's send
            send_alert(sock, FATAL, ALERT_NUMBERS[alert], socket.MSG_DONTWAIT)
        sock.shutdown(socket.SHUT_RDWR if unreadable else socket.SHUT_WR)
    except OSError:
        shut_down(sock)


def shut_down(sock: socket.socket) -> None:
    """End the connection in both directions; nothing is to be done where it has ended already."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise


def send_close_notify(sock: socket.socket, flags: int = 0) -> None:
    """Tell the peer that no more data follows. Raises what sendmsg(2) gives."""
    send_alert(sock, WARNING, CLOSE_NOTIFY, flags)


def end_writing(sock: socket.socket, patience: float = 1) -> None:
    """Send close_notify and then a FIN. Reading goes on.

    Raises OSError; BlockingIOError where the send buffer has no room for `patience` seconds.
    """
    try:
        send_close_notify(sock, socket.MSG_DONTWAIT)
    except BlockingIOError:
        if not patience:
            raise
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        poll.poll(patience * 1000)
        send_close_notify(sock, socket.MSG_DONTWAIT)
    sock.shutdown(socket.SHUT_WR)


def aborts(sock: socket.socket) -> bool:
    """True where close(2) resets the connection: SO_LINGER is on with 0 seconds (socket(7)). Raises OSError."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(ABORT)) == ABORT


ABORT = struct.pack("=ii", 1, 0)  # struct linger


def say_nothing(_sock: socket.socket) -> None:
    """Send nothing: `end` is given this for a connection that has failed, whose last record was the alert."""


def end(sock: socket.socket, say_goodbye: Callable[[socket.socket], None]) -> None:
    """Call `say_goodbye`, which sends close_notify and a FIN, and read away what has come.

    close(2) resets a connection that has something unread, and what was written last may never arrive. Errors of a
    connection that has ended already are passed over. Raises OSError where the descriptor itself is wrong.
    """
    try:
        say_goodbye(sock)
        for _ in range(_LEFTOVERS):
            if not sock.recvmsg(MAX_CONTENT, _ANCILLARY, socket.MSG_DONTWAIT)[0]:
                break
    except OSError as exc:
        if exc.errno not in _ENDED:
            raise


_LEFTOVERS = 64  # records: after so many, a peer that goes on sending gets a reset

# The errors of a connection that has ended. EAGAIN: nothing more is there to read, or there is no room for the alert.
_ENDED = frozenset(
    {
        errno.EAGAIN,
        errno.EPIPE,
        errno.ECONNRESET,
        errno.ECONNABORTED,
        errno.ENOTCONN,
        errno.ETIMEDOUT,
        errno.EBADMSG,
        errno.EKEYEXPIRED,
        errno.EIO,
    }
)


# --- how long a key serves ------------------------------------------------------------------------------------------


def tcp_state(sock: socket.socket) -> int:
    """The state of the TCP connection: one of TCP_* in `ssa.ktls.constants`. Raises OSError."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def was_connected(sock: socket.socket) -> bool:
    """True where the peer has acknowledged the SYN of connect(2), whatever came then. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    return info[0] not in (TCP_SYN_SENT, TCP_CLOSE) or _BYTES_ACKED.unpack(info) != (0,)


_BYTES_ACKED = struct.Struct(f"={TCPI_BYTES_ACKED}xQ")


def records_left(sock: socket.socket) -> int:
    """The number of records that may still be sent under the present key. Raises OSError."""
    aead, state = _state(sock, TLS_TX)
    return aead.limit - _sequence(state)


def records_sent(sock: socket.socket) -> int:
    """The number of records sent under the present key, which `AEAD.limit` bounds. Raises OSError."""
    return _sequence(_state(sock, TLS_TX)[1])


def _state(sock: socket.socket, direction: int) -> tuple[AEAD, bytes]:
    """The cipher of a direction, and its struct tls12_crypto_info_* as it stands. Raises OSError."""
    cipher = int.from_bytes(sock.getsockopt(SOL_TLS, direction, 4)[2:], sys.byteorder)
    aead = AEADS[cipher]
    return aead, sock.getsockopt(SOL_TLS, direction, aead.info)


def _sequence(state: bytes) -> int:
    return int.from_bytes(state[-8:], "big")


def records_received(sock: socket.socket) -> int:
    """The number of records decrypted under the present key. Raises OSError."""
    return _sequence(_state(sock, TLS_RX)[1])


def read_on(sock: socket.socket) -> None:
    """Have the kernel read on behind a handshake record that begins like a KeyUpdate and is none.

    Since Linux 6.14 the kernel takes a record for a KeyUpdate by its first byte, which can be in the middle of a
    message, and waits for a new key. So it is given the key that it has. Older kernels do not wait, and refuse the key.
    Raises OSError.
    """
    try:
        sock.setsockopt(SOL_TLS, TLS_RX, _state(sock, TLS_RX)[1])
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
