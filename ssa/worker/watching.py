"""Watches sockets that applications hold, in epoll sets, without holding them.

An epoll set keeps an entry for a socket whose descriptor we have closed, for as long as any process anywhere holds the
open file (fs/eventpoll.c drops it in `eventpoll_release_file`). The daemon has the sets too: from their fdinfo it knows
which sockets live. A worker can open no file, and asks the kernel two other questions:

- Is this descriptor's open file in a set? An entry's key is the open file and the number of the descriptor. All entries
  are made under one number, so EPOLL_CTL_MOD under that number finds the open file, or is ENOENT.
- Does some process hold the other end of a pair that has hung up? Both ends have hung up then, and an epoll set tells
  hang-ups of what is in it.

A set has 64 entries at most, so that the answer takes the same time however many sockets there are.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import select
from typing import TYPE_CHECKING

from ssa.worker import messages

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from ssa.worker.monitor import Monitor

MOST = 64  # entries of a set
_ADD, _MOD = 1, 3  # EPOLL_CTL_*
_libc = ctypes.CDLL(None, use_errno=True)


class _Event(ctypes.Structure):
    _pack_ = 1 if os.uname().machine == "x86_64" else 8  # EPOLL_PACKED
    _fields_ = (("events", ctypes.c_uint32), ("data", ctypes.c_uint64))


class _Set:
    def __init__(self, number: int) -> None:
        self.number = number
        self.epoll = select.epoll()
        self.size = 0


class Watching:
    """One user's watched sockets, by inode. Its methods are for the event loop, but for `has_hung_up`."""

    def __init__(self, monitor: Monitor) -> None:
        """The monitor is told of each set."""
        self._monitor = monitor
        self._numbers = itertools.count(1)
        self._sets: list[_Set] = []
        self._by_inode: dict[int, _Set] = {}
        self._nothing = os.memfd_create("nothing", os.MFD_CLOEXEC)
        self._number = os.dup(self._nothing)  # under which all entries are made

    def watch(self, sock: socket.socket) -> int:
        """Begin to watch a socket, and give its inode. The caller may close its descriptor then. Raises OSError."""
        inode = os.fstat(sock.fileno()).st_ino
        found = self._with_room()
        if (failed := self._control(found, _ADD, sock, inode)) not in {0, errno.EEXIST}:
            raise OSError(failed, os.strerror(failed))
        found.size += 1
        self._by_inode[inode] = found
        return inode

    def _with_room(self) -> _Set:
        for found in self._sets:
            if found.size < MOST:
                return found
        self._sets.append(found := _Set(next(self._numbers)))
        self._monitor.watches(found.number, found.epoll.fileno())
        return found

    def forget(self, inode: int) -> None:
        """Give the place of a socket that no process holds any more to another one."""
        if (found := self._by_inode.pop(inode, None)) is not None:
            found.size -= 1
            if not found.size and len(self._sets) > 1:
                self._sets.remove(found)
                self._monitor.watches_no_more(found.number)
                found.epoll.close()

    def has(self, sock: socket.socket) -> bool:
        """True where a descriptor is one of a watched socket."""
        inode = os.fstat(sock.fileno()).st_ino
        found = self._by_inode.get(inode)
        return found is not None and self._control(found, _MOD, sock, inode) == 0

    def has_hung_up(self, inode: int) -> bool:
        """True where some process holds the watched end of a pair, and that end has hung up. For any thread."""
        found = self._by_inode.get(inode)
        return found is not None and any(data == _low(inode) for data, _ in found.epoll.poll(0, 2 * MOST))

    def all_told(self) -> Iterator[tuple[messages.Watches, int]]:
        """The sets, for a daemon that does not have them."""
        return ((messages.Watches(found.number), found.epoll.fileno()) for found in self._sets)

    def _control(self, found: _Set, what: int, sock: socket.socket, inode: int) -> int:
        """epoll_ctl(2) under the one number. No event is asked for; EPOLLERR and EPOLLHUP can't be declined."""
        os.dup2(sock.fileno(), self._number, inheritable=False)
        try:
            event = _Event(0, inode)
            failed = _libc.epoll_ctl(found.epoll.fileno(), what, self._number, ctypes.byref(event))
            return ctypes.get_errno() if failed else 0
        finally:
            os.dup2(self._nothing, self._number, inheritable=False)

    def close(self) -> None:
        """Stop watching."""
        for found in self._sets:
            found.epoll.close()
        os.close(self._nothing)
        os.close(self._number)


def _low(inode: int) -> int:
    """The number that `select.epoll` gives for an entry: the lower half of its data, with a sign."""
    return ctypes.c_int32(inode & 0xFFFFFFFF).value
