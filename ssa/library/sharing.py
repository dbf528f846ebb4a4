"""Lets one thread or process at a time send on a socket whose key can change: each send is a turn.

Between our KeyUpdate and our next key no record may be sent, and the kernel does not see to that. Within a process a
lock does. A socket that is older than a fork(2) can be used by several processes. For it the turn is a record lock on
the socket's inode too (fcntl(2)), which costs two system calls for each send; other sockets do not pay for that.
A fork does not wait for a thread that is in the middle of a send.
When a process closes any descriptor of the inode, the kernel drops the process's lock. So the descriptor of a twin
(`dup`) is closed between two turns.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from weakref import WeakSet, ref

from ssa.library.fdswap import is_held_elsewhere

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Turns:
    """The turns of one open file, for all descriptors that this process knows of it. Used by `with`.

    `with turns.turn` is the lock itself where no other process can have the socket. Where `in_threads` is False, and
    in a process of one thread (`_thread._count()`), a send needs no turn at all: even a free lock asks for the time.
    """

    __slots__ = ("__weakref__", "_depth", "_lock", "_sockets", "_waiting", "in_processes", "in_threads", "turn")

    def __init__(self, *, shared: bool = False) -> None:
        """`shared`: other processes may have it already."""
        self._lock: Any = threading.RLock()  # a handler of a signal may send in the middle of a send
        self._depth = 0
        self._sockets: list[Any] = []  # references to the objects that share it
        self._waiting: list[int] = []  # descriptors that are closed when no turn is under way
        self.turn: Any = self if shared else self._lock
        self.in_threads, self.in_processes = True, shared  # where other senders could be
        _all.add(self)

    def of(self, sock: Any) -> None:
        """Add an object that has a descriptor of the open file (`fileno`), by which the kernel's lock can be taken."""
        self._sockets.append(ref(sock))

    def _descriptor(self) -> int:
        for known in self._sockets:
            if (found := known()) is not None and found.fileno() >= 0:
                return int(found.fileno())
        return -1

    def give_up(self) -> None:
        """Take no more turns: the key cannot change, or is not in the kernel."""
        self.turn = _FREE
        self.in_threads = self.in_processes = False
        _all.discard(self)

    def share(self, *, anew: bool) -> None:
        """Note that another process has the socket too, after a fork. `anew`: in the child, which has one thread."""
        if anew:
            self._lock, self._depth = threading.RLock(), 0
        self.turn, self.in_processes = self, True

    def __enter__(self) -> None:
        self._lock.acquire()
        try:
            if not self._depth:
                _lock(self._descriptor())
        except BaseException:
            self._lock.release()
            raise
        self._depth += 1

    def __exit__(self, *exc: object) -> None:
        self._depth -= 1
        if not self._depth:
            _unlock(self._descriptor())
            self._close_all()
        self._lock.release()
        if self._waiting:  # since then
            self.close_waiting()

    def close(self, fd: int) -> None:
        """Close a descriptor of the open file, at the end of the turn where one is under way. It waits for nobody.

        With any descriptor of an inode that a process closes, the kernel drops the process's lock (fcntl(2)).
        """
        self._waiting.append(fd)
        self.close_waiting()

    def close_waiting(self) -> None:
        """Close what waits for the end of a turn, if none is under way."""
        if self._lock.acquire(blocking=False):
            try:
                if not self._depth:
                    self._close_all()
            finally:
                self._lock.release()

    def _close_all(self) -> None:
        while self._waiting:
            try:
                os.close(self._waiting.pop())
            except (OSError, IndexError):  # a reset, of which a sender need not hear; a signal's handler was faster
                continue

    def __del__(self) -> None:
        self._close_all()


class _Free:
    __slots__ = ()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exc: object) -> None:
        pass


_FREE = _Free()

_forks = 0  # how often this process, or one that it comes from, has forked: a socket that is older may be shared


class OpenFile:
    """State that the socket objects of this process share where they share one open file (`dup`)."""

    __slots__ = ("broken", "connecting", "count", "forks", "write_ended")

    def __init__(self) -> None:
        self.count = 1  # the objects
        self.broken: OSError | None = None  # why the connection can be used no more, in either direction
        self.write_ended = False
        self.forks = _forks
        self.connecting = 0  # the process that has begun a connect without waiting

    def is_last(self, fd: int) -> bool:
        """Note that one object is closed. True where nobody else holds the open file, as far as can be known."""
        self.count -= 1
        return not self.count and not self._is_elsewhere(fd)

    def is_anothers_connect(self, fd: int) -> bool:
        """True where another process goes on with a connect that is under way: the daemon's reply is for that one."""
        return self.connecting != os.getpid() or self._is_elsewhere(fd)

    def _is_elsewhere(self, fd: int) -> bool:
        return self.forks != _forks and is_held_elsewhere(fd)


_all: WeakSet[Turns] = WeakSet()


def _lock(fd: int) -> None:
    """Wait for the other processes' turns. A closed descriptor takes no lock: the send will fail."""
    while fd >= 0:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX)
        except OSError as exc:
            if exc.errno != errno.EDEADLK:  # two threads of each of two processes look like that, and are none
                return
            time.sleep(_REST)
        else:
            return


_REST = 0.01  # seconds


def _unlock(fd: int) -> None:
    try:
        if fd >= 0:
            fcntl.lockf(fd, fcntl.LOCK_UN)
    except OSError:
        return  # it was closed meanwhile, and the lock with it


def _share_all(*, anew: bool) -> None:
    global _forks  # noqa: PLW0603 - it is of the process
    _forks += 1
    for turns in tuple(_all):
        turns.share(anew=anew)


os.register_at_fork(after_in_parent=lambda: _share_all(anew=False), after_in_child=lambda: _share_all(anew=True))
