"""Ends streams in order for applications that have closed them with the send buffer full.

The daemon says close_notify as soon as there is room for it, and keeps the socket until the peer has all: the kernel
resets a connection in which something comes for a socket that is closed, and what is in the send buffer then is lost.
Nothing is read: whoever else has the socket may go on reading.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING

import trio

from ssa.daemon.quota import Threads, work_for
from ssa.ktls import control, tcp
from ssa.worker.closing import drop

if TYPE_CHECKING:
    import socket

    from ssa.daemon.quota import Quota

_log = logging.getLogger("ssa.daemon")

_PATIENCE = 60  # seconds without a byte taken, as the kernel has with a socket that was closed
_LOOK = 0.1  # seconds between looks: nobody tells that something was acknowledged

# A thread for each user: the kernel makes it wait for a send in which an application is blocked.
_THREADS = Threads(1)

_leaving: dict[int, list[_Farewell]] = {}  # by uid


def see_off(sock: socket.socket, uid: int, quota: Quota) -> None:
    """End a user's stream. The socket is taken over."""
    if quota.left(uid) < 1:
        _log.debug("uid %d: too many descriptors, a stream that waits for its peer is cut", uid)
        drop(sock)
        return
    quota.take(uid)
    if (farewells := _leaving.get(uid)) is None:
        _leaving[uid] = [_Farewell(sock)]
        trio.lowlevel.spawn_system_task(_see_off, uid, quota)
    else:
        farewells.append(_Farewell(sock))


def cut(sock: socket.socket, uid: int) -> None:
    """The application aborts the connection (SO_LINGER): let go of its stream, so that its close(2) can reset it."""
    inode = os.fstat(sock.fileno()).st_ino
    for farewell in _leaving.get(uid, ()):
        if os.fstat(farewell.sock.fileno()).st_ino == inode:
            farewell.cut = True


async def _see_off(uid: int, quota: Quota) -> None:
    work_for(uid)
    farewells = _leaving[uid]
    while farewells:
        try:
            over = await trio.to_thread.run_sync(
                _over, tuple(farewells), time.monotonic(), abandon_on_cancel=True, limiter=_THREADS.mine()
            )
        except RuntimeError as exc:  # there are too many threads: for now
            _log.error("streams that end wait: %s", exc)
            over = []
        for farewell in over:
            farewells.remove(farewell)
            drop(farewell.sock)
            quota.give(uid)
        await trio.sleep(_LOOK)
    del _leaving[uid]


def _over(farewells: tuple[_Farewell, ...], now: float) -> list[_Farewell]:
    return [farewell for farewell in farewells if farewell.is_over(now)]


class _Farewell:
    """One stream that ends."""

    __slots__ = ("_deadline", "_said", "_unsent", "cut", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.cut = False  # the application wants no end in order any more
        self._said = False
        self._unsent = -1  # bytes, when it was looked at last
        self._deadline = 0.0

    def is_over(self, now: float) -> bool:
        """Whether the socket can be closed."""
        if self.cut:
            return True
        try:
            self._say_goodbye()
            unsent = tcp.unacknowledged(self.sock)
        except OSError as exc:  # it was reset, or the application has made something else of it
            _log.debug("a stream that was to end in order: %s", exc.strerror)
            return True
        if unsent != self._unsent:
            self._unsent, self._deadline = unsent, now + _PATIENCE
        # A hang-up: it was reset; or ended by the peer too, so that nothing can come any more.
        return (self._said and (not unsent or tcp.shows(self.sock))) or now > self._deadline

    def _say_goodbye(self) -> None:
        if not self._said:
            try:
                control.end_writing(self.sock, 0)
            except BlockingIOError:
                return  # there is no room yet
            self._said = True
