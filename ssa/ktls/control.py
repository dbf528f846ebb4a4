"""The records of a kernel TLS socket that are no data: what is read and sent of them.

On such a socket a plain read that meets a record which is no data gets EIO, again and again, with nothing
lost; recvmsg with room for a control message returns the record and its type. And what the kernel calls the
end of the stream is a bare FIN, the truncation of RFC 8446 section 6.1: the true end is a close_notify alert.
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
    """The next record, which stays where it is: its type and content, of data the first byte only. Raises OSError.

    To look for more data could make the kernel find a KeyUpdate behind it, and poll(2) hide everything.
    """
    kind, content = receive_record(sock, _PEEK, 1)
    return (kind, content) if kind == APPLICATION_DATA else receive_record(sock, _PEEK)


_PEEK = socket.MSG_PEEK | socket.MSG_DONTWAIT


def receive_record(sock: socket.socket, flags: int = 0, size: int = MAX_CONTENT) -> tuple[int, bytes]:
    """The next record, or what is left of it, whatever its type: the type and the content. Raises OSError."""
    data, ancillary, _, _ = sock.recvmsg(size, _ANCILLARY, flags)
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_TLS, TLS_GET_RECORD_TYPE):
            return value[0], data
    return APPLICATION_DATA, data


def version(sock: socket.socket) -> int:
    """The protocol's version, by its number on the wire. Raises OSError."""
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
    """Answer a TLS 1.2 peer that wants to negotiate anew: no (RFC 5246 section 7.2.2). Raises OSError.

    Where there is no room for that the peer gets no answer.
    """
    try:
        send_alert(sock, WARNING, NO_RENEGOTIATION, socket.MSG_DONTWAIT)
    except BlockingIOError:
        return


def fail(sock: socket.socket, alert: str | None, *, unreadable: bool = False) -> None:
    """End a connection that has failed: the peer gets the alert of that name, if any, and then the end of our stream.

    Nobody waits for a peer that does not read: it gets no alert then. `unreadable`: reading ends too, as the kernel
    would wait for ever for a record that makes sense. An error means that the connection has ended already.
    """
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    try:
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # an error that the kernel remembers would stop the alert
        writable = any(events & select.POLLOUT for _, events in poll.poll(0))
        if alert and writable:  # else the kernel makes it wait for a send that is blocked
            send_alert(sock, FATAL, ALERT_NUMBERS[alert], socket.MSG_DONTWAIT)
        sock.shutdown(socket.SHUT_RDWR if unreadable else socket.SHUT_WR)
    except OSError:
        shut_down(sock)


def shut_down(sock: socket.socket) -> None:
    """End the connection in both directions. One that is gone already is as good."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise


def send_close_notify(sock: socket.socket, flags: int = 0) -> None:
    """Tell the peer that no more data follows. Raises what sendmsg(2) gives."""
    send_alert(sock, WARNING, CLOSE_NOTIFY, flags)


def end_writing(sock: socket.socket, patience: float = 1) -> None:
    """Half-close: close_notify and the FIN behind it.

    Raises OSError, BlockingIOError when a full send buffer makes no room for them in so many seconds.
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
    """The goodbye of a connection that has failed: its last word was the alert."""


def end(sock: socket.socket, say_goodbye: Callable[[socket.socket], None]) -> None:
    """Have goodbye said, close_notify and the FIN behind the last byte written, and leave nothing unread.

    Who closes with something left unread resets the connection, and what was written last may never arrive: so what
    has come meanwhile is read and thrown away. Errors of a connection that has ended already are not told.

    Raises OSError for what is wrong with the descriptor itself.
    """
    try:
        say_goodbye(sock)
        for _ in range(_LEFTOVERS):
            if not sock.recvmsg(MAX_CONTENT, _ANCILLARY, socket.MSG_DONTWAIT)[0]:
                break
    except OSError as exc:
        if exc.errno not in _ENDED:
            raise


_LEFTOVERS = 64  # records: a peer that goes on sending is reset

# What a connection that has ended gives. EAGAIN: there is no more to read, or still no room for the alert.
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
    """The connection's, one of the TCP_* of `ssa.ktls.constants`. Raises OSError."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]


def was_connected(sock: socket.socket) -> bool:
    """True where connect(2) has reached the peer, whatever came then: its SYN was acknowledged. Raises OSError."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_ACKED.size)
    return info[0] not in (TCP_SYN_SENT, TCP_CLOSE) or _BYTES_ACKED.unpack(info) != (0,)


_BYTES_ACKED = struct.Struct("=120xQ")  # of struct tcp_info (include/uapi/linux/tcp.h)


def records_left(sock: socket.socket) -> int:
    """How many more records may be sent under the present key. Raises OSError."""
    aead, state = _state(sock, TLS_TX)
    return aead.limit - _sequence(state)


def records_sent(sock: socket.socket) -> int:
    """How many records have been sent under the present key: what `AEAD.limit` bounds. Raises OSError."""
    return _sequence(_state(sock, TLS_TX)[1])


def _state(sock: socket.socket, direction: int) -> tuple[AEAD, bytes]:
    """The cipher of a direction, and its struct tls12_crypto_info_* as it stands. Raises OSError."""
    cipher = int.from_bytes(sock.getsockopt(SOL_TLS, direction, 4)[2:], sys.byteorder)
    aead = AEADS[cipher]
    return aead, sock.getsockopt(SOL_TLS, direction, aead.info)


def _sequence(state: bytes) -> int:
    return int.from_bytes(state[-8:], "big")


def records_received(sock: socket.socket) -> int:
    """How many records have been decrypted under the present key. Raises OSError."""
    return _sequence(_state(sock, TLS_RX)[1])


def read_on(sock: socket.socket) -> None:
    """Have the kernel read on behind a handshake record that begins like a KeyUpdate and is none.

    Since Linux 6.14 it goes by the record's first byte, which can be in the middle of a message, and waits for a key.
    It gets the one that it has. Kernels before do not wait, and refuse. Raises OSError.
    """
    try:
        sock.setsockopt(SOL_TLS, TLS_RX, _state(sock, TLS_RX)[1])
    except OSError as exc:
        if exc.errno != errno.EBUSY:
            raise
