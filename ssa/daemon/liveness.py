"""Tells which sockets some process still holds, without holding them.

An epoll set keeps an entry for a socket whose descriptor *we* have closed, as long as any process anywhere holds
the open file (fs/eventpoll.c drops it in `eventpoll_release_file`), and its fdinfo lists the entries by inode
(Documentation/filesystems/proc.rst). So one read of that file tells which sockets live: exact at that moment, in
every network namespace, with no privilege, and nothing runs while nobody reads it.
"""

from __future__ import annotations

import os
import re
import select
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket

_INODE = re.compile(rb"\bino:([0-9a-f]+)")
_NEVER = float("-inf")
_FRESH = 0.01  # seconds for which a read is good enough: a listing of a thousand sockets is one read


class Liveness:
    """Watches sockets by inode, for any thread."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        # Opened once: it must be readable when no descriptor is left.
        self._info = Path(f"/proc/self/fdinfo/{self._epoll.fileno()}").open("rb", buffering=0)  # noqa: SIM115 - open as long as this object is
        self._lock = threading.Lock()  # of the two below, and of the file's position
        self._seen: frozenset[int] = frozenset()
        self._looked = _NEVER

    def watch(self, sock: socket.socket) -> int:
        """Begin to watch a socket, and give its inode. The caller may close its descriptor then."""
        # No event is asked for. EPOLLERR and EPOLLHUP can't be declined; edge-triggered they wake nobody twice.
        self._epoll.register(sock, select.EPOLLET)
        self._looked = _NEVER
        return os.fstat(sock.fileno()).st_ino

    def alive(self) -> frozenset[int]:
        """The inodes of the watched sockets that some process still holds."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked > _FRESH:
                self._seen, self._looked = self._look(), now
            return self._seen

    def is_held(self, inode: int) -> bool:
        """True if some process holds the socket of that inode at this very moment."""
        with self._lock:
            self._looked = _NEVER  # the answer has to be newer than a listing's
            return inode in self._look()

    def _look(self) -> frozenset[int]:
        self._info.seek(0)
        return frozenset(int(inode, 16) for inode in _INODE.findall(self._info.read()))

    def close(self) -> None:
        """Stop watching."""
        self._info.close()
        self._epoll.close()
