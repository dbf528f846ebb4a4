"""The datagrams between a session and its application, which go over a socket pair."""

from __future__ import annotations

import functools
import logging
import socket
from typing import TYPE_CHECKING

import trio

from ssa.dtls import records
from ssa.dtls.udp import QUIETLY, is_ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = logging.getLogger("ssa.daemon")

_BATCH = 16  # packets, before others get their turn


class Queue:
    """Puts what comes from a peer into the socket pair, for the application to read."""

    def __init__(self, ours: socket.socket, prefix: bytes = b"", farewell: bytes = b"") -> None:
        """`prefix` goes before each packet. `farewell` is the last packet, where the pair serves several peers."""
        self._ours = ours
        self._prefix = prefix
        self._farewell = farewell

    def put(self, content: bytes) -> None:
        """Put a datagram into the pair. It is lost when there is no room."""
        try:
            self._ours.send(self._prefix + content, QUIETLY)
        except OSError as exc:  # full, or the application has gone, which the reader of the pair notices
            _log.debug("a datagram was lost on its way to the application: %s", exc.strerror)

    def end(self) -> None:
        """Tell the application that the peer has ended the session: by an end of file, or by the farewell."""
        try:
            if self._farewell:
                self._ours.send(self._farewell, QUIETLY)
            else:
                self._ours.shutdown(socket.SHUT_WR)
        except OSError as exc:  # as above
            _log.debug("an end was lost on its way to the application: %s", exc.strerror)


async def packets(
    ours: socket.socket,
    take: Callable[[bytes], Awaitable[None]],
    in_a_thread: Callable[[Callable[[], bytes]], Awaitable[bytes]],
) -> None:
    """Give each packet that the application writes to `take`, until the application has closed its end or its writing.

    Descriptors in a packet are of no use. The kernel closes them when the packet is read, and that can block: so such a
    packet is read `in_a_thread`.
    """
    read = functools.partial(ours.recv, records.PACKET, socket.MSG_DONTWAIT)
    while True:
        await trio.lowlevel.wait_readable(ours)
        for _ in range(_BATCH):
            try:
                packet = await in_a_thread(read) if _has_descriptors(ours) else read()
            except BlockingIOError:
                break
            except OSError:  # the application has gone, and left something unread
                return
            if not packet and is_ended(ours):
                return
            await take(packet)
        await trio.lowlevel.checkpoint()


def _has_descriptors(ours: socket.socket) -> bool:
    """True where descriptors come with the next packet. Raises what recvmsg(2) gives."""
    return bool(ours.recvmsg(0, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)[2] & socket.MSG_CTRUNC)
