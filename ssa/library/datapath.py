"""The two data paths of a live stream, and what reading, writing and ending have to do beyond the system call.

    KERNEL    the number is the TCP socket, and the kernel protects its records (kernel TLS)
    RELAYED   the number is one end of the daemon's pair, and the daemon protects the records

Their methods are alike, and no caller asks which one it has. They take a plain socket object for the number. That of a
descriptor which nobody keeps a state of is found by `of`. The third path, of datagrams, is `DTLSSocket` itself: it has
no other.
"""

from __future__ import annotations

import errno
import os
import socket

from ssa.ktls import control
from ssa.ktls.constants import TCP_CLOSE
from ssa.ktls.post_handshake import Broken, unreadable, violation
from ssa.library import connection, control_records, key_lifetime, relay_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BOTH_WAYS, WRITING, NOTHING = "both ways", "writing", "nothing"


class KernelStream:
    """Records are protected by the kernel, on the TCP socket itself."""

    ends_by_reset = False  # whether ECONNRESET can be an end of the stream that has to be asked about
    has_ancillary = True  # whether sendmsg can send something beside the bytes

    @staticmethod
    def recv(sock: socket.socket, size: int, asked: Callable[[], None]) -> bytes:
        """Read, on a descriptor that nobody keeps a state of: see `ssa.library.control_records.recv`."""
        return control_records.recv(sock, size, asked)

    @staticmethod
    def is_over_untrusted(sock: socket.socket) -> bool:
        """A read gave nothing. False where a record that is no data comes next. Raises OSError for a cut stream."""
        if control_records.is_cut_untrusted(sock):
            connection.tell_truncated(sock)
            raise control_records.truncated()
        return False

    @staticmethod
    def unreadable(number: int | None) -> Broken | None:
        """The failure of the connection that an errno of recv(2) tells of; None where it is no failure of records."""
        return unreadable(number)

    @staticmethod
    def unwritable(number: int | None) -> Broken | None:
        """The failure of the connection that an errno of send(2) tells of: a record that came, and is unread."""
        if number not in _ABOUT_READING:
            return None
        return unreadable(number) or violation(os.strerror(number or 0))

    @staticmethod
    def why_closed(_sock: socket.socket, exc: OSError) -> OSError:
        """The error to raise where send(2) has raised `exc`, as writing has ended: `exc` itself."""
        return exc

    @staticmethod
    def ended_by(sock: socket.socket, _exc: OSError) -> str:
        """The directions that a failure has ended: writing, if TCP's state is CLOSE, as after a reset; else none."""
        return WRITING if control.tcp_state(sock) == TCP_CLOSE else NOTHING

    @staticmethod
    def renew_key(sock: socket.socket, timeout: float | None, *, answer: bool, rekeyable: bool = True) -> int:
        """Send a KeyUpdate if one is due. See `ssa.library.key_lifetime`."""
        return key_lifetime.renew_key(sock, timeout, answer=answer, rekeyable=rekeyable)

    @staticmethod
    def end_writing(sock: socket.socket) -> None:
        """Send close_notify and the FIN. Where there is no room for them, the daemon waits for it.

        Raises OSError, BlockingIOError where there is no daemon, and no room after a second either.
        """
        try:
            control.end_writing(sock, 0)
        except BlockingIOError:
            if not connection.end_later(sock):
                control.end_writing(sock)

    @classmethod
    def end(cls, sock: socket.socket, *, write_ended: bool = False, has_failed: bool = False) -> None:
        """End the stream of a socket that is about to be closed. One that has failed gets no close_notify."""
        del write_ended  # a twin may have ended it as well: the socket's state tells
        control.end(sock, control.say_nothing if has_failed else cls.end_writing)

    @staticmethod
    def abort(sock: socket.socket) -> None:
        """The socket is about to be closed with SO_LINGER {1, 0}: the kernel resets the connection.

        The daemon lets go of a stream that it was asked to end. Without a daemon nobody else has the socket.
        """
        connection.end_later(sock, abort=True)

    abort_ended = abort


class RelayedStream:
    """Records are protected by the daemon. The descriptor is the application's end of its pair."""

    ends_by_reset = True  # that is how a pair ends whose other end was closed with something unread
    has_ancillary = False

    @staticmethod
    def recv(sock: socket.socket, size: int, asked: Callable[[], None]) -> bytes:
        """Read, on a descriptor that nobody keeps a state of."""
        del asked
        try:
            data = sock.recv(size)
        except ConnectionResetError:
            data = b""
        if size and not data:
            relay_end.check_end(sock)
        return data

    @staticmethod
    def is_over_untrusted(sock: socket.socket) -> bool:
        """A read gave nothing: True where the stream has ended in order. Raises OSError for how it ended otherwise."""
        relay_end.check_end(sock)
        return True

    @staticmethod
    def unreadable(_number: int | None) -> Broken | None:
        """Always None: errors of a socket pair are not about records."""
        return None

    unwritable = unreadable

    @staticmethod
    def why_closed(sock: socket.socket, _exc: OSError) -> OSError:
        """The error to raise where writing has ended: the daemon is asked how."""
        return relay_end.write_failure(sock)

    @staticmethod
    def ended_by(_sock: socket.socket, exc: OSError) -> str:
        """The directions that a failure has ended: both, unless its errno is about one only."""
        return NOTHING if exc.errno in _ONE_DIRECTION else BOTH_WAYS

    @staticmethod
    def renew_key(_sock: socket.socket, _timeout: float | None, *, answer: bool, rekeyable: bool = True) -> int:
        """Does nothing, as the daemon has the keys. Returns how much may be sent before the next call."""
        del answer, rekeyable
        return LOOK_AGAIN

    @staticmethod
    def end_writing(sock: socket.socket) -> None:
        """Have the daemon send close_notify behind the last byte."""
        relay_end.end_writing(sock)

    @classmethod
    def end(cls, sock: socket.socket, *, write_ended: bool = False, has_failed: bool = False) -> None:
        """End the stream of a socket that is about to be closed. An end that was said once is not said again."""
        del has_failed  # the daemon knows
        if not write_ended:
            cls.end_writing(sock)

    @staticmethod
    def abort(sock: socket.socket) -> None:
        """The descriptor is about to be closed: have the daemon reset the connection by that."""
        relay_end.abort(sock)

    @staticmethod
    def abort_ended(sock: socket.socket) -> None:
        """Do nothing: the TCP socket has SO_LINGER {1, 0} itself, and the daemon sees that."""


KERNEL, RELAYED = KernelStream(), RelayedStream()
LOOK_AGAIN = 2**20  # records: the number of a bare descriptor can be another socket's by then
_ABOUT_READING = frozenset({errno.EBADMSG, errno.EMSGSIZE})
_ONE_DIRECTION = frozenset({errno.EPIPE, errno.ECONNABORTED})


def of(sock: socket.socket) -> KernelStream | RelayedStream:
    """The data path of a live stream's descriptor."""
    domain = sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
    return RELAYED if domain == socket.AF_UNIX else KERNEL


def shutdown(sock: socket.socket) -> None:
    """End the writing (close_notify, and the FIN behind it) of a live stream's descriptor. Reading can go on.

    A connection that has ended already is as good. Raises OSError, BlockingIOError as `KernelStream.end_writing`.
    """
    try:
        of(sock).end_writing(sock)
    except ConnectionError:
        return
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
