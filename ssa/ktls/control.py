"""Reading and writing a kernel TLS socket whose control records are ours to handle.

On such a socket a plain read that meets a record which is no data gets EIO, again and again, with nothing
lost; recvmsg with room for a control message returns the record and its type. And what the kernel calls the
end of the stream is a bare FIN, the truncation of RFC 8446 section 6.1: the true end is a close_notify alert.
"""

from __future__ import annotations

import errno
import select
import socket
import struct

from ssa.errors import alert_name
from ssa.ktls.constants import (
    ALERT,
    APPLICATION_DATA,
    HANDSHAKE,
    KEY_UPDATE,
    NEW_SESSION_TICKET,
    SOL_TLS,
    TLS_GET_RECORD_TYPE,
    TLS_SET_RECORD_TYPE,
)

_MAX_RECORD = 16 * 1024  # bytes of plaintext (RFC 8446 section 5.1)
_ANCILLARY = socket.CMSG_SPACE(1)
_WARNING, _FATAL = 1, 2
_CLOSE_NOTIFY = 0
_USER_CANCELED = 90


def recv(sock: socket.socket, size: int) -> bytes:
    """Up to `size` bytes of data; empty at the peer's close_notify.

    Raises OSError: ECONNABORTED when the stream was cut without close_notify (truncation), EPROTO for a fatal alert
    or a control record that can't be served, and what recv(2) gives.
    """
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
            raise ConnectionAbortedError(
                errno.ECONNABORTED, "the connection was cut: its end came without TLS's close_notify"
            )
        if _take_control_record_untrusted(sock):
            return b""


def _take_control_record_untrusted(sock: socket.socket) -> bool:
    """Read the record that plain reads stumble over. True at close_notify, which is put back by never being past it."""
    # Peek: close_notify stays in the socket, so that every later read finds the end again, as with a FIN.
    kind, record = _receive_record(sock, socket.MSG_PEEK)
    if kind == APPLICATION_DATA:
        return False
    if kind == ALERT and len(record) == 2 and record[1] == _CLOSE_NOTIFY:
        return True
    _receive_record(sock, 0)
    if kind == ALERT:
        _judge_alert(record)
    else:
        _pass_over_tickets(kind, record)
    return False


def _pass_over_tickets(kind: int, record: bytes) -> None:
    """Raises OSError EPROTO for a record that holds anything else than session tickets: a KeyUpdate, above all."""
    types = set(handshake_types_untrusted(record)[0]) if kind == HANDSHAKE else set()
    if types != {NEW_SESSION_TICKET}:
        what = "KeyUpdate" if KEY_UPDATE in types else f"record of type {kind}"
        raise OSError(errno.EPROTO, f"the peer sent a {what}, which this socket can't serve")


def handshake_types_untrusted(content: bytes) -> tuple[list[int], bool]:
    """The types of the handshake messages that begin in `content`, and whether the last one is complete."""
    types = []
    at = 0
    while at < len(content):
        types.append(content[at])
        at += 4 + int.from_bytes(content[at + 1 : at + 4], "big")
    return types, at == len(content)


def _receive_record(sock: socket.socket, flags: int) -> tuple[int, bytes]:
    data, ancillary, _, _ = sock.recvmsg(_MAX_RECORD, _ANCILLARY, flags)
    for level, kind, value in ancillary:
        if (level, kind) == (SOL_TLS, TLS_GET_RECORD_TYPE):
            return value[0], data
    return APPLICATION_DATA, data


def _judge_alert(record: bytes) -> None:
    """Pass over user_canceled, which close_notify follows (RFC 8446 section 6.1); anything else ends the connection."""
    level, number = struct.unpack("BB", record) if len(record) == 2 else (_FATAL, 50)
    if number == _USER_CANCELED and level in (_WARNING, _FATAL):
        return
    raise OSError(errno.EPROTO, f"the peer ended the connection with the alert {alert_name(number)}")


def send_close_notify(sock: socket.socket, flags: int = 0) -> None:
    """Tell the peer that no more data follows. Raises what sendmsg(2) gives."""
    alert = bytes([_WARNING, _CLOSE_NOTIFY])
    sock.sendmsg([alert], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([ALERT]))], flags | socket.MSG_NOSIGNAL)


def end(sock: socket.socket) -> None:
    """Say goodbye in order: close_notify and the FIN behind the last byte written. Waits for room, a second at most.

    Who closes with something left unread resets the connection, and what was written last may never arrive: so what
    has come meanwhile is read and thrown away. Errors of a connection that has ended already are not told.

    Raises OSError for what is wrong with the descriptor itself.
    """
    try:
        _send_close_notify_soon(sock)
        sock.shutdown(socket.SHUT_WR)
        for _ in range(_LEFTOVERS):
            if not sock.recvmsg(_MAX_RECORD, _ANCILLARY, socket.MSG_DONTWAIT)[0]:
                break
    except OSError as exc:
        if exc.errno not in _ENDED:
            raise


def _send_close_notify_soon(sock: socket.socket) -> None:
    try:
        send_close_notify(sock, socket.MSG_DONTWAIT)
    except BlockingIOError:
        poll = select.poll()
        poll.register(sock, select.POLLOUT)
        poll.poll(_ROOM)
        send_close_notify(sock, socket.MSG_DONTWAIT)


_ROOM = 1000  # milliseconds for a full send buffer to make room for two bytes
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
