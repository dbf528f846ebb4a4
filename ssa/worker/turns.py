"""Runs calls one after the other, in threads, as an application can make each of them last for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import trio

from ssa import errors
from ssa.worker.packets import twin

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ssa.worker.closing import Closer

_T = TypeVar("_T")


class Turn:
    """Runs one call at a time in a thread; the next begins when the one before has returned.

    A call that has begun goes on when its caller was cancelled. A call that has not begun by then never does.
    """

    def __init__(self) -> None:
        self._one = trio.CapacityLimiter(1)

    async def run(
        self, call: Callable[[socket.socket], _T], sock: socket.socket, threads: trio.CapacityLimiter, closer: Closer
    ) -> _T:
        """The call's result; it has a descriptor of its own, and takes a thread of the user who asks.

        Raises what the call raises, and `ssa.SSAError` OVERLOADED.
        """
        own, both = twin(sock), _Both(self._one, threads)

        def run() -> _T:
            with own:  # closed in the thread, as close(2) can last too
                return call(own)

        try:
            # trio gives a limiter's place back when the thread has ended, not when its caller was cancelled.
            return await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=both)  # type: ignore[arg-type] # trio takes anything with the two methods
        except RuntimeError as exc:
            closer.drop(own)
            raise errors.error("OVERLOADED", f"no thread can be started: {exc}") from exc
        finally:
            if not both.taken:
                closer.drop(own)


class _Both:
    """A limiter for one thread that takes a place of each of two limiters, in this order."""

    def __init__(self, *limiters: trio.CapacityLimiter) -> None:
        self._limiters = limiters
        self.taken = False

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        """Take a place of the first, then of the second, as `trio.CapacityLimiter` gives one."""
        first, second = self._limiters
        await first.acquire_on_behalf_of(borrower)
        try:
            await second.acquire_on_behalf_of(borrower)
        except BaseException:
            first.release_on_behalf_of(borrower)
            raise
        self.taken = True

    def release_on_behalf_of(self, borrower: object) -> None:
        """Give both places back."""
        for limiter in self._limiters:
            limiter.release_on_behalf_of(borrower)
