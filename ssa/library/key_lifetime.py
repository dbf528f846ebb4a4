"""Limits how long a sending key serves, by KeyUpdates of ours (RFC 8446 sections 4.6.3 and 5.5). Kernel TLS only.

A KeyUpdate of ours is due when the peer has asked for one, and before the key has protected as many records as it may.
To look for either takes system calls, so a sender looks after each `STRIDE` only: `renew_key` says how much may be sent
before the next look.
"""

from __future__ import annotations

import errno
import select
import time

from ssa import errors
from ssa.ktls import control
from ssa.ktls.constants import TCP_CLOSING, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_LAST_ACK, TCP_TIME_WAIT
from ssa.library import connection, control_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

PART = 2**20  # bytes that are sent between two looks where much is sent at once
STRIDE = 2**10  # what may be sent between two looks: so many records, or KiB of data, which are more


def renew_key(sock: socket.socket, timeout: float | None, *, answer: bool, rekeyable: bool = True) -> int:
    """Send a KeyUpdate if one is due: the peer waits for an `answer`, or the key has served for long enough.

    Where keys can change (`rekeyable`), a KeyUpdate of the peer's that was not read yet is looked for too: a program
    that only sends would never find it. The caller sees to it that nothing else is sent meanwhile. Returns how much may
    be sent before this has to be called again, in the unit of `STRIDE`. `timeout` is that of the socket.

    Raises OSError: EKEYEXPIRED where the keys cannot change and this one has served its time, BlockingIOError and
    TimeoutError where there is no room to send, BrokenPipeError where any holder of the socket has ended writing, and
    the error that keeps an answer from being given.
    """
    if control.tcp_state(sock) in _WRITING_ENDED:
        raise BrokenPipeError(errno.EPIPE, "the stream has been ended: nothing can be sent any more")
    left = control.records_left(sock)
    answer = answer or (
        rekeyable
        and control_records.is_modern(sock)
        and control_records.look_behind_untrusted(sock) == control_records.ANSWER
    )
    if not answer and left > 2 * STRIDE:
        return STRIDE
    deadline = None if not timeout else time.monotonic() + timeout
    try:
        while not connection.change_sending_key(sock):
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


_WRITING_ENDED = frozenset({TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT, TCP_LAST_ACK, TCP_CLOSING})

_WORN = "the key has protected as many records as it may (RFC 8446 section 5.5), and cannot be changed: {}"


def _wait_for_room(sock: socket.socket, timeout: float | None, deadline: float | None) -> None:
    if timeout == 0:
        raise BlockingIOError(errno.EAGAIN, "there is no room for the KeyUpdate that is due")
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    if not poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000):
        raise TimeoutError("timed out")
