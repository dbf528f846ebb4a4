"""How much of the daemon one user can have: so that none takes all of it from the others."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, OrderedDict, defaultdict
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

import trio

from ssa import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_user: ContextVar[int] = ContextVar("_user", default=-1)  # for whom a task works; -1: for all


def work_for(uid: int) -> None:
    """From here on this task, and those that it starts, work for that user."""
    _user.set(uid)


def user() -> int:
    """The user that this task works for, or -1."""
    return _user.get()


def for_user(uid: int, do: Callable[..., object], *arguments: object) -> None:
    """Call something as a task would that works for that user."""
    context = copy_context()
    context.run(work_for, uid)
    context.run(do, *arguments)


class Threads:
    """Threads for calls that the user can make last for ever: each has some, and keeps nobody else's."""

    def __init__(self, number: int) -> None:
        self._limiters: defaultdict[int, trio.CapacityLimiter] = defaultdict(lambda: trio.CapacityLimiter(number))

    def mine(self) -> trio.CapacityLimiter:
        """Those of the user that this task works for."""
        return self._limiters[_user.get()]


class Quota:
    """How many of the daemon's descriptors each user takes up, so that none can take all of them.

    Counted are connections to the daemon, the descriptors that came with a request, a listener's connections until
    the application has them, sockets that are relayed, and what waits to be closed. A user may have a quarter of those
    that there are; root, and the daemon's own user, three quarters.
    """

    def __init__(self, table: int, own: int, besides: Callable[[int | None], int] = lambda _: 0) -> None:
        """`table` is how many the process may have, `own` how many it needs for itself.

        `besides` says of a user, or of all, how many are counted elsewhere.
        """
        self._free = max(table - own, 8)
        self._besides = besides
        self._used: Counter[int] = Counter()
        self._trusted = frozenset({0, os.geteuid()})

    def limit(self, uid: int) -> int:
        """How many a user may have."""
        return self._free * 3 // 4 if uid in self._trusted else self._free // 4

    def used(self, uid: int) -> int:
        """How many a user has."""
        return self._used[uid] + self._besides(uid)

    def left(self, uid: int) -> int:
        """How many more a user may have."""
        return self.limit(uid) - self.used(uid)

    def unused(self) -> int:
        """How many of the table are left, of all users."""
        return self._free - self._used.total() - self._besides(None)

    def check(self, uid: int, number: int = 1) -> None:
        """Raise `ssa.SSAError` OVERLOADED where a user may not have so many more."""
        if self.left(uid) < number:
            raise errors.error(
                "OVERLOADED", f"uid {uid} has {self.used(uid)} descriptors in ssad, of {self.limit(uid)}"
            )

    def take(self, uid: int, number: int = 1) -> None:
        """Count more of a user's. Raises `ssa.SSAError` OVERLOADED where there may not be so many, and counts none."""
        self.check(uid, number)
        self._used[uid] += number

    def give(self, uid: int, number: int = 1) -> None:
        """Count less of a user's."""
        self._used[uid] -= number
        if not self._used[uid]:
            del self._used[uid]

    @contextlib.contextmanager
    def of(self, uid: int, number: int = 1) -> Iterator[None]:
        """A place for so many of a user's. Raises `ssa.SSAError` OVERLOADED."""
        self.take(uid, number)
        try:
            yield
        finally:
            self.give(uid, number)


class Crowd:
    """The handshakes that are under way for listeners, which strangers begin.

    When there are too many of one user's, the one that has been under way for longest gives way: not who comes next,
    as the others may be there for nothing else than to keep it out.
    """

    def __init__(self, limit: Callable[[int], int]) -> None:
        """`limit` says of a user how many there may be."""
        self._limit = limit
        self._scopes: defaultdict[int, OrderedDict[object, trio.CancelScope]] = defaultdict(OrderedDict)

    @contextlib.contextmanager
    def place(self, uid: int) -> Iterator[None]:
        """A place for a handshake of that user's listener; quietly cancelled when it has to give way."""
        scopes, key = self._scopes[uid], object()
        if len(scopes) >= self._limit(uid):
            scopes.popitem(last=False)[1].cancel()
        with trio.CancelScope() as scope:
            scopes[key] = scope
            try:
                yield
            finally:
                scopes.pop(key, None)
