"""What the two ends of a relayed socket have to tell each other besides its bytes.

The descriptor is one end of a pair, the daemon has the other and the TCP socket. An end of file is all that such an end
can say, of a stream that ended in order as of one that was cut, and of a daemon that died. So the library asks which it
was, and says itself what a close(2) cannot: that it is one, and not a crash.
"""

from __future__ import annotations

import errno
import os
import socket
import time

from ssa import errors
from ssa.ktls import control
from ssa.library import connection, control_records
from ssa.protocol import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_ROOM = 5  # seconds for a daemon that is busy: a stream that was not ended in order is one that was cut
_IN_ORDER, _TRUNCATED = "close_notify", "truncated"  # else an error's or an alert's name

_WORDS = {
    "EBADMSG": "a record was forged or damaged on its way: it does not decrypt",
    "ECONNABORTED": "the connection was ended by the administrator",
    "EKEYEXPIRED": "the key has protected as many records as it may (RFC 8446 section 5.5)",
}


def is_relayed(sock: socket.socket) -> bool:
    """Whether a descriptor of a TLS socket is the end of a pair."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_UNIX


def recv(sock: socket.socket, size: int, asked: Callable[[], None]) -> bytes:
    """As `control_records.recv`, of a descriptor of either kind."""
    if not is_relayed(sock):
        return control_records.recv(sock, size, asked)
    try:
        data = sock.recv(size)
    except ConnectionResetError:  # what the other end's death is where it left something unread
        data = b""
    if size and not data:
        check_end(sock)
    return data


def renew_key(sock: socket.socket, timeout: float | None, *, answer: bool) -> int:
    """As `control_records.renew_key`, of a descriptor of either kind: the daemon's keys are the daemon's business."""
    return _LOOK_AGAIN if is_relayed(sock) else control_records.renew_key(sock, timeout, answer=answer)


_LOOK_AGAIN = 2**20  # records: the number can be of another socket by then


def send(sock: socket.socket, data: bytes | memoryview) -> int:
    """Write, to a descriptor of either kind. Raises OSError."""
    try:
        return sock.send(data, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError):
        if not is_relayed(sock):
            raise
        raise write_failure(sock) from None


def end(sock: socket.socket) -> None:
    """Say goodbye in order, on a descriptor of either kind that is about to be closed. Raises OSError.

    Where SO_LINGER makes close(2) an abort, nothing is said: the peer gets a reset.
    """
    if control.aborts(sock):
        abort(sock)
    elif is_relayed(sock):
        end_writing(sock)
    else:
        control.end(sock, say_goodbye)


def shutdown(sock: socket.socket) -> None:
    """End our writing (close_notify, and the FIN behind it), on a descriptor of either kind. Reading can go on.

    A connection that has ended already is as good. Raises OSError, BlockingIOError as `say_goodbye`.
    """
    try:
        (end_writing if is_relayed(sock) else say_goodbye)(sock)
    except (BrokenPipeError, ConnectionError):
        return
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise


def abort(sock: socket.socket) -> None:
    """The descriptor, of either kind, is about to be closed, and the connection shall be reset by that.

    The daemon has to know: it holds the socket of a relayed stream, and that of a stream that it was asked to end.
    Without a daemon the socket is nobody else's.
    """
    if not is_relayed(sock):
        connection.end_later(sock, abort=True)
        return
    try:
        with connection.DaemonConnection(time.monotonic() + _ROOM) as daemon:
            daemon.ask(wire.Close(1), sock)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise


def say_goodbye(sock: socket.socket) -> None:
    """close_notify and the FIN, of a socket of the kernel's. Where there is no room for them, the daemon waits for it.

    Raises OSError, BlockingIOError where there is no daemon, and no room after a second either.
    """
    try:
        control.end_writing(sock, 0)
    except BlockingIOError:
        if not connection.end_later(sock):
            control.end_writing(sock)


def check_end(sock: socket.socket, note: Callable[[OSError], object] = bool) -> None:
    """The peer's stream has ended: raise OSError for how, if not in order. `note` is called with it before."""
    ended = _ended(sock)
    if ended == _IN_ORDER:
        return
    failure = ended if isinstance(ended, OSError) else _failure(ended)
    note(failure)
    try:
        raise failure
    finally:
        del failure, ended  # they would hold this function's frame, which holds them, and the caller's socket


def write_failure(sock: socket.socket) -> OSError:
    """Why nothing can be written any more."""
    ended = _ended(sock)
    if isinstance(ended, OSError):
        return ended
    return OSError(errno.EPIPE, os.strerror(errno.EPIPE)) if ended in (_IN_ORDER, _TRUNCATED) else _failure(ended)


def _ended(sock: socket.socket) -> str | OSError:
    try:
        return connection.describe(sock).ended or _TRUNCATED
    except OSError as exc:
        return ConnectionAbortedError(errno.ECONNABORTED, f"the ssad that relayed the connection has gone: {exc}")


def _failure(ended: str) -> OSError:
    if ended in errors.ALERT_NUMBERS or ended.startswith("alert_"):
        return OSError(errno.EPROTO, f"the peer ended the connection with the alert {ended}")
    if ended == _TRUNCATED:
        return control_records.truncated()
    number = getattr(errno, ended, errno.EIO)
    return OSError(number, _WORDS.get(ended) or os.strerror(number))


def end_writing(sock: socket.socket) -> None:
    """Have the daemon send close_notify behind the last byte. Without a daemon there is no peer either."""
    try:
        sock.shutdown(socket.SHUT_WR)
        with connection.DaemonConnection(time.monotonic() + _ROOM) as daemon:
            daemon.ask(wire.Close(), sock)
    except OSError as exc:
        if exc.errno not in _GONE:
            raise


_GONE = frozenset(
    {errno.ENOTCONN, errno.ECONNREFUSED, errno.ECONNRESET, errno.EPIPE, errno.ETIMEDOUT, errno.EAGAIN, errno.ENOENT}
)
