"""Ends streams in order for applications that have closed them with the send buffer full.

The worker sends close_notify as soon as there is room for it, and keeps the socket until the peer has acknowledged all:
the kernel resets a connection in which something comes for a socket that is closed, and what is in the send buffer then
is lost. Nothing is read: whoever else has the socket may go on reading.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import trio

from ssa.ktls import control, tcp

if TYPE_CHECKING:
    import logging
    import socket

    from ssa.worker.closing import Closer
    from ssa.worker.quota import Quota

_PATIENCE = 60  # seconds without a byte taken, as the kernel has with a socket that was closed
_LOOK = 0.1  # seconds between looks: nobody tells that something was acknowledged


class LingeringCloses:
    """One user's streams that end. A thread of that user's looks at them: the kernel can make it wait for a send."""

    def __init__(
        self, thread: trio.CapacityLimiter, quota: Quota, closer: Closer, log: logging.LoggerAdapter[logging.Logger]
    ) -> None:
        """`thread` lets one call at a time be in a thread."""
        self._thread = thread
        self._quota = quota
        self._closer = closer
        self._log = log
        self._closes: list[_Close] = []

    def begin(self, sock: socket.socket) -> None:
        """End a stream. The socket is taken over."""
        if self._quota.left() < 1:
            self._log.debug("uid %d: too many descriptors, a stream that waits for its peer is cut", self._quota.uid)
            self._closer.drop(sock)
            return
        self._quota.take()
        self._closes.append(_Close(sock, self._log))
        if len(self._closes) == 1:
            trio.lowlevel.spawn_system_task(self._run)

    def cut(self, sock: socket.socket) -> None:
        """Close our descriptor of a stream that its application aborts (SO_LINGER): so its close(2) can reset it."""
        inode = os.fstat(sock.fileno()).st_ino
        for close in self._closes:
            if os.fstat(close.sock.fileno()).st_ino == inode:
                close.cut = True

    async def _run(self) -> None:
        while self._closes:
            try:
                over = await trio.to_thread.run_sync(
                    _over, tuple(self._closes), time.monotonic(), abandon_on_cancel=True, limiter=self._thread
                )
            except RuntimeError as exc:  # there are too many threads: for now
                self._log.error("no thread can be started to end streams, so they wait: %s", exc)
                over = []
            for close in over:
                self._closes.remove(close)
                self._closer.drop(close.sock)
                self._quota.give()
            if self._closes:
                await trio.sleep(_LOOK)


def _over(closes: tuple[_Close, ...], now: float) -> list[_Close]:
    return [close for close in closes if close.is_over(now)]


class _Close:
    """One stream that ends."""

    __slots__ = ("_deadline", "_log", "_said", "_unsent", "cut", "sock")

    def __init__(self, sock: socket.socket, log: logging.LoggerAdapter[logging.Logger]) -> None:
        self.sock = sock
        self.cut = False  # the application wants no end in order any more
        self._log = log
        self._said = False
        self._unsent = -1  # bytes, when it was looked at last
        self._deadline = 0.0

    def is_over(self, now: float) -> bool:
        """True once the socket can be closed."""
        if self.cut:
            return True
        try:
            self._send_close_notify()
            unsent = tcp.unacknowledged(self.sock)
        except OSError as exc:  # it was reset, or the application has made something else of it
            self._log.debug("a stream that was to end in order: %s", exc.strerror)
            return True
        if unsent != self._unsent:
            self._unsent, self._deadline = unsent, now + _PATIENCE
        # A hang-up: it was reset; or ended by the peer too, so that nothing can come any more.
        return (self._said and (not unsent or tcp.shows(self.sock))) or now > self._deadline

    def _send_close_notify(self) -> None:
        if not self._said:
            try:
                control.end_writing(self.sock, 0)
            except BlockingIOError:
                return  # there is no room yet
            self._said = True
