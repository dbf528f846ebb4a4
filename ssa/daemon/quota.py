"""How much of the daemon one user can have: so that none takes all of it from the others."""

from __future__ import annotations

import contextlib
import resource
from collections import Counter, OrderedDict, defaultdict
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING

import trio

from ssa import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def most_descriptors() -> int:
    """How many descriptors one user's requests, or connections to its listeners, may take."""
    return max(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8)


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
    """How many connections a user may have at once, so that none can take all descriptors. Root is not counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: Counter[int] = Counter()

    @contextlib.contextmanager
    def of(self, uid: int) -> Iterator[None]:
        """A place for one connection of that user. Raises `ssa.SSAError` OVERLOADED when there is none."""
        if uid and self._used[uid] >= self._limit:
            raise errors.error("OVERLOADED", f"uid {uid} has {self._limit} requests under way")
        self._used[uid] += 1
        try:
            yield
        finally:
            self._used[uid] -= 1
            if not self._used[uid]:
                del self._used[uid]


class Crowd:
    """The handshakes that are under way for listeners, which strangers begin.

    When there are too many of one user's, the one that has been under way for longest gives way: not who comes next,
    as the others may be there for nothing else than to keep it out.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._scopes: defaultdict[int, OrderedDict[object, trio.CancelScope]] = defaultdict(OrderedDict)

    @contextlib.contextmanager
    def place(self, uid: int) -> Iterator[None]:
        """A place for a handshake of that user's listener; quietly cancelled when it has to give way."""
        scopes, key = self._scopes[uid], object()
        if len(scopes) >= self._limit:
            scopes.popitem(last=False)[1].cancel()
        with trio.CancelScope() as scope:
            scopes[key] = scope
            try:
                yield
            finally:
                scopes.pop(key, None)
