"""Notices that an application has hung up while its request is being answered."""

from __future__ import annotations

import contextlib
import select
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator


class HangUps:
    """Cancels the work for applications that have hung up. One epoll set for all costs less than a task for each.

    Attributes:
        without_a_word: an application has hung up without a request, since the last connection was accepted of one
            that has not.
    """

    def __init__(self) -> None:
        self.without_a_word = False
        self._epoll = select.epoll()
        self._scopes: dict[int, trio.CancelScope] = {}

    @contextlib.contextmanager
    def cancelling(self, connection: socket.socket) -> Iterator[None]:
        """Cancel the block, without an exception, when the application at the other end hangs up."""
        fd = connection.fileno()
        with trio.CancelScope() as scope:
            self._scopes[fd] = scope
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
            try:
                yield
            finally:
                self._epoll.unregister(fd)
                del self._scopes[fd]

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0):
                self._scopes[fd].cancel()

    def close(self) -> None:
        """Close the epoll set, once nobody is in such a block."""
        self._epoll.close()
