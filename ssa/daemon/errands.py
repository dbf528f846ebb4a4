"""Runs work that may wait for ever, such as opening a file, in threads. Whoever waits for it has a deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast

import trio

from ssa.intime import TooSlow

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_MOST = 64  # threads


class _Errand:
    def __init__(self) -> None:
        self.done = trio.Event()
        self.late = False
        self.result: object = None
        self.failure: Exception | None = None


class Errands:
    """Runs each piece of work at most once at a time, so that work that hangs costs one thread."""

    def __init__(self) -> None:
        self._under_way: dict[object, _Errand] = {}
        self._threads: trio.CapacityLimiter | None = None

    async def run(self, key: object, work: Callable[[], T], patience: float) -> T:
        """The result of `work`, done in a thread after this was called, for whoever asks with the same key.

        Raises:
            TooSlow: it was not done within so many seconds; or, at once, it is known to hang.
            Exception: what the work raises.
        """
        with trio.move_on_after(patience):
            await self._idle(key, patience)
            errand = self._under_way.get(key) or self._start(key, work)
            await errand.done.wait()
            if errand.failure is not None:
                raise errand.failure
            return cast("T", errand.result)
        if (hanging := self._under_way.get(key)) is not None:
            hanging.late = True
        raise TooSlow(patience)

    async def _idle(self, key: object, patience: float) -> None:
        """Wait for the same work that was begun before: it may have read a file before the file changed."""
        errand = self._under_way.get(key)
        if errand is None:
            return
        if errand.late:
            raise TooSlow(patience)
        await errand.done.wait()

    def _start(self, key: object, work: Callable[[], object]) -> _Errand:
        errand = self._under_way[key] = _Errand()
        trio.lowlevel.spawn_system_task(self._do, key, errand, work)
        return errand

    async def _do(self, key: object, errand: _Errand, work: Callable[[], object]) -> None:
        if self._threads is None:
            self._threads = trio.CapacityLimiter(_MOST)
        try:
            errand.result = await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        except Exception as failure:  # noqa: BLE001 - it is for who asked
            errand.failure = failure
        finally:
            del self._under_way[key]
            errand.done.set()
