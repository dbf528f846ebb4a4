"""Counts and limits the descriptors that each user takes up in this process, so that no user can take all."""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from ssa import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Table:
    """The descriptors of this process, which all its users share.

    Args:
        size: how many there may be (RLIMIT_NOFILE).
        own: how many the process needs for itself.
        besides: how many of all users' are counted elsewhere.
    """

    def __init__(self, size: int, own: int, besides: Callable[[], int] = int) -> None:
        self.free = max(size - own, 8)
        self.taken = 0  # by all quotas
        self._besides = besides

    def unused(self) -> int:
        """The number of descriptors that are free."""
        return self.free - self.taken - self._besides()

    def is_scarce(self) -> bool:
        """True where an eighth of the process's descriptors is free, or less."""
        return self.unused() <= self.free // 8


class Quota:
    """Counts the descriptors of one user, against a limit.

    Counted are connections to the daemon, the descriptors that came with a request, a listener's connections until
    the application has them, sockets that are relayed, and what waits to be closed.

    Args:
        uid: the user.
        limit: how many the user may have.
        besides: how many of them are counted elsewhere.
    """

    def __init__(self, table: Table, uid: int, limit: int, besides: Callable[[], int] = int) -> None:
        self._table = table
        self.uid = uid
        self.limit = limit
        self._besides = besides
        self._used = 0

    def used(self) -> int:
        """The number of descriptors that the user has."""
        return self._used + self._besides()

    def left(self) -> int:
        """The number of descriptors that the user may still have."""
        return self.limit - self._used - self._besides()

    def unused(self) -> int:
        """The number of the process's descriptors that are free."""
        return self._table.unused()

    def check(self, number: int = 1) -> None:
        """Raise `ssa.SSAError` OVERLOADED where the user may not have so many more."""
        if self.limit - self._used - self._besides() < number:
            raise errors.error("OVERLOADED", f"uid {self.uid} has {self.used()} descriptors in ssad, of {self.limit}")

    def take(self, number: int = 1) -> None:
        """Count more. Raises `ssa.SSAError` OVERLOADED where there may not be so many, and counts none."""
        self.check(number)
        self._used += number
        self._table.taken += number

    def give(self, number: int = 1) -> None:
        """Count less."""
        self._used -= number
        self._table.taken -= number

    @contextlib.contextmanager
    def of(self, number: int = 1) -> Iterator[None]:
        """Count so many descriptors while the block runs. Raises `ssa.SSAError` OVERLOADED."""
        self.take(number)
        try:
            yield
        finally:
            self.give(number)


class Crowd:
    """The handshakes that are under way for a user's listeners, which strangers begin.

    When there are too many, the one that has been under way for longest gives way: not the one that comes next, as
    the others may be there for nothing else than to keep it out.
    """

    def __init__(self, limit: int) -> None:
        """`limit` is how many there may be."""
        self._limit = limit
        self._scopes: OrderedDict[object, trio.CancelScope] = OrderedDict()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Count a handshake while the block runs. The block is cancelled, without an exception, to make room."""
        key = object()
        if len(self._scopes) >= self._limit:
            self._scopes.popitem(last=False)[1].cancel()
        with trio.CancelScope() as scope:
            self._scopes[key] = scope
            try:
                yield
            finally:
                self._scopes.pop(key, None)


class Threads:
    """The threads that a user may keep busy, by what they do: the user can make each of these calls last for ever.

    Each kind has its own, so that calls of one kind that hang leave those of another kind alone.
    """

    def __init__(self) -> None:
        self.accept = trio.CapacityLimiter(16)  # connections of listening sockets
        self.discard = trio.CapacityLimiter(16)  # reading what brings descriptors: the kernel closes those without room
        self.receive_last = trio.CapacityLimiter(1)  # likewise, one at a time: it may take all room that is left
        self.read_files = trio.CapacityLimiter(16)  # that came with a request
        self.change_keys = trio.CapacityLimiter(16)  # our sending keys: the kernel waits for a send under way
        self.follow_keys = trio.CapacityLimiter(16)  # the peer's
        self.linger = trio.CapacityLimiter(1)  # ending streams in order
