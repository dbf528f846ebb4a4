"""The pair of a relayed stream, made before its handshake: the application gets its end at once.

A program may be watched by somebody who cannot put another file on its descriptor later. It has to have the descriptor
that it will read and write before the handshake is done, and must find it neither readable nor writable until then.
"""

from __future__ import annotations

import contextlib
import itertools
import socket

_ZEROS = bytes(4096)


class EarlyPair:
    """A stream pair whose application's end takes nothing until `open`: its send buffer is full.

    Attributes:
        inner: our end.
        outer: the application's end, which is handed over before the handshake.
        taken: a relay owns both ends.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self.inner, self.outer = socket.socketpair()
        self.taken = False
        self._usual = self.outer.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2  # setsockopt doubles it
        self.outer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        self._filled = sum(itertools.takewhile(bool, map(self._fill, itertools.repeat(_ZEROS))))
        self._filled += sum(itertools.takewhile(bool, map(self._fill, itertools.repeat(_ZEROS[:1]))))

    def _fill(self, data: bytes) -> int:
        with contextlib.suppress(BlockingIOError):
            return self.outer.send(data, socket.MSG_DONTWAIT)
        return 0

    def open(self) -> None:
        """Let the application write: take out what fills its send buffer."""
        self.outer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._usual)
        while self._filled:
            self._filled -= len(self.inner.recv(self._filled, socket.MSG_DONTWAIT))
