"""Tells which sockets some process still holds, without holding them.

A worker has each socket that it makes in an epoll set (`ssa.worker.watching`), and gives the set to the daemon. The
set keeps an entry for a socket whose descriptor the worker has closed, as long as any process anywhere holds the open
file, and its fdinfo lists the entries by inode (Documentation/filesystems/proc.rst). So one read of that file tells
which sockets live: exact at that moment, in every network namespace, with no privilege, and nothing runs while nobody
reads it.
"""

from __future__ import annotations

import os
import re
import threading
import time
import weakref

from ssa.worker.watching import MOST

_INODE = re.compile(rb"\bino:([0-9a-f]+)")
_NEVER = float("-inf")
_FRESH = 0.01  # seconds for which a read is good enough: a listing of a thousand sockets is one read
_LONGEST = 4 * MOST * 128  # bytes that are read of a set's file: a worker's set has no more entries
_MOST_SETS = 1 << 14
_EPOLL = "anon_inode:[eventpoll]"


class Liveness:
    """The watched sockets of one worker, by inode. For any thread.

    The sets are closed with it: the worker's sockets of the kernel's TLS, which outlive the worker, refer to it.
    """

    def __init__(self) -> None:
        self._sets: dict[int, tuple[int, int]] = {}  # by number: the epoll set, and its file
        self._end = weakref.finalize(self, _close, self._sets)
        self._lock = threading.Lock()
        self._seen: frozenset[int] = frozenset()
        self._looked = _NEVER

    def take_untrusted(self, number: int, epoll: int) -> bool:
        """Take a set. False where the descriptor is none, or there are too many: then it is not taken. Raises OSError.

        The files of the sets are opened once: they must be readable when no descriptor is left.
        """
        if len(self._sets) >= _MOST_SETS or number in self._sets or os.readlink(f"/proc/self/fd/{epoll}") != _EPOLL:  # noqa: PTH115 - it is no path
            return False
        self._sets[number] = epoll, os.open(f"/proc/self/fdinfo/{epoll}", os.O_RDONLY | os.O_CLOEXEC)
        self._looked = _NEVER
        return True

    def drop(self, number: int) -> None:
        """Let go of a set, which is empty."""
        for descriptor in self._sets.pop(number, ()):
            os.close(descriptor)

    def stir(self) -> None:
        """Have the next answer be new: there is another socket."""
        self._looked = _NEVER

    def alive(self) -> frozenset[int]:
        """The inodes of the watched sockets that some process still holds."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked > _FRESH:
                self._seen, self._looked = self._look(), now
            return self._seen

    def _look(self) -> frozenset[int]:
        found = (os.pread(info, _LONGEST, 0) for _, info in list(self._sets.values()))
        return frozenset(int(inode, 16) for text in found for inode in _INODE.findall(text))

    def close(self) -> None:
        """Stop watching."""
        self._end()


def _close(sets: dict[int, tuple[int, int]]) -> None:
    for descriptors in sets.values():
        for descriptor in descriptors:
            os.close(descriptor)
    sets.clear()
