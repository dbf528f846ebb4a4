"""The requests about the end of a relayed stream.

The application has one end of a pair, the daemon has the other one and the TCP socket. An end of file on the pair looks
the same for a stream that ended in order, for one that was cut, and for a daemon that died. So after an end of file the
library asks the daemon how the stream has ended. A close(2) looks the same as a crash. So before a close the library
tells the daemon that the stream ends in order.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time

from ssa import errors
from ssa.library import connection, control_records
from ssa.protocol import wire
from ssa.protocol.attributes import CLOSE_NOTIFY, TRUNCATED

_ROOM = 5  # seconds for a daemon that is busy: a stream that was not ended in order is one that was cut

_WORDS = {
    "EBADMSG": "a record was forged or damaged on its way: it does not decrypt",
    "ECONNABORTED": "the connection was ended by the administrator",
    "EKEYEXPIRED": "the key has protected as many records as it may (RFC 8446 section 5.5)",
}


def check_end(sock: socket.socket) -> None:
    """The peer's stream has ended. Raises OSError for how, if that was not in order."""
    ended = _ended(sock)
    if ended == CLOSE_NOTIFY:
        return
    failure = ended if isinstance(ended, OSError) else _failure(ended)
    try:
        raise failure
    finally:
        del failure, ended  # they would hold this function's frame, which holds them, and the caller's socket


def write_failure(sock: socket.socket) -> OSError:
    """The error that a write to this socket has to report, as writing has ended. Returned, not raised."""
    ended = _ended(sock)
    if isinstance(ended, OSError):
        return ended
    return OSError(errno.EPIPE, os.strerror(errno.EPIPE)) if ended in (CLOSE_NOTIFY, TRUNCATED) else _failure(ended)


def _ended(sock: socket.socket) -> str | OSError:
    try:
        return connection.describe(sock).ended or TRUNCATED
    except OSError as exc:
        return ConnectionAbortedError(errno.ECONNABORTED, f"the ssad that relayed the connection has gone: {exc}")


def _failure(ended: str) -> OSError:
    if ended in errors.ALERT_NUMBERS or ended.startswith("alert_"):
        return OSError(errno.EPROTO, f"the peer ended the connection with the alert {ended}")
    if ended == TRUNCATED:
        return control_records.truncated()
    number = getattr(errno, ended, errno.EIO)
    return OSError(number, _WORDS.get(ended) or os.strerror(number))


def end_writing(sock: socket.socket) -> None:
    """Have the daemon send close_notify behind the last byte. Without a daemon there is no peer either."""
    _say(sock, wire.Close(), socket.SHUT_WR)


def abort(sock: socket.socket) -> None:
    """Have the daemon reset the connection when the descriptor, which is about to be closed, is closed."""
    _say(sock, wire.Close(1))


def _say(sock: socket.socket, close: wire.Close, how: int | None = None) -> None:
    try:
        if how is not None:
            sock.shutdown(how)
        _tell(sock, close, time.monotonic())
    except TimeoutError:  # the daemon's queue is full
        _tell_in_a_thread(sock.dup(), close)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise


def _tell(sock: socket.socket, close: wire.Close, deadline: float) -> None:
    """Tell the daemon, without waiting for its answer.

    The packet has the descriptor with it: so for the daemon the pair's end is not closed before the packet is read,
    even where this process has gone meanwhile.
    """
    with connection.DaemonConnection(deadline) as daemon:
        daemon.tell(close, sock)


def _tell_in_a_thread(sock: socket.socket, close: wire.Close) -> None:
    try:
        threading.Thread(target=_tell_and_close, args=(sock, close)).start()
    except RuntimeError:  # there are too many, or the interpreter ends
        _tell_and_close(sock, close)


def _tell_and_close(sock: socket.socket, close: wire.Close) -> None:
    """Wait for a daemon that is busy. Meanwhile `sock` keeps the pair's end open."""
    with sock, contextlib.suppress(OSError):
        _tell(sock, close, time.monotonic() + _ROOM)


_GONE = frozenset(
    {errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOENT}
)
