"""What goes between a session and its application: datagrams over a socket pair. The edge."""

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
    """What comes from a peer, on its way to the application: our end of a socket pair."""

    def __init__(self, ours: socket.socket, prefix: bytes = b"", farewell: bytes = b"") -> None:
        """`prefix` goes before each packet; `farewell` is the last one, where the pair is not this peer's alone."""
        self._ours = ours
        self._prefix = prefix
        self._farewell = farewell

    def put(self, content: bytes) -> None:
        """A datagram; lost when there is no room."""
        try:
            self._ours.send(self._prefix + content, QUIETLY)
        except OSError as exc:  # full, or the application has gone, of which its reader will know
            _log.debug("a datagram was lost on its way to the application: %s", exc.strerror)

    def end(self) -> None:
        """The peer has ended its side in order: an end of file, while our end stays open."""
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
    """Give each packet that the application writes to `take`, until it has closed its end, or ended its writing.

    Descriptors that come along are of no use. The kernel closes them where the packet is read, and that can block: such
    a packet is read `in_a_thread`.
    """
    read = functools.partial(ours.recv, records.PACKET, socket.MSG_DONTWAIT)
    while True:
        await trio.lowlevel.wait_readable(ours)
        for _ in range(_BATCH):
            try:
                packet = await in_a_thread(read) if _has_descriptors(ours) else read()
            except BlockingIOError:
                break
            except OSError:  # it has gone, and left something unread
                return
            if not packet and is_ended(ours):
                return
            await take(packet)
        await trio.lowlevel.checkpoint()


def _has_descriptors(ours: socket.socket) -> bool:
    """Whether descriptors come with the next packet. Raises as recvmsg(2)."""
    return bool(ours.recvmsg(0, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)[2] & socket.MSG_CTRUNC)
