"""Measures asyncio under `ssa.inject_into_ssl`, beside asyncio's own TLS, in one process and one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import time
from typing import TYPE_CHECKING

from bench.measure import Row, Samples, interleaved
from bench.world import HOST, World
from ssa.inject import SSLContext, loops

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator

_CONNECTS = 41
_DOWNLOADS = 41
_AT_ONCE = 100
_ROUNDS = 5
_MEGABYTE = 1_000_000


def asynchronous(world: World) -> list[Row]:
    """Take all measurements of this module. Both clients use x25519: the server has nothing else."""
    ours = SSLContext(world.context.protocol)
    with _guarded(), asyncio.Runner() as runner:

        def each(times: int, action: Callable[[ssl.SSLContext], Awaitable[object]]) -> tuple[Samples, Samples]:
            def sample(context: ssl.SSLContext) -> Callable[[], float]:
                return lambda: runner.run(_timed(action, context))

            return tuple(interleaved(times, sample(ours), sample(world.context), warm_up=2, scale=1000))  # type: ignore[return-value, arg-type] # two are asked for; ours stands in for ssl's

        port = world.tls13
        rows = [
            _row("connect and close", 1.6, *each(_CONNECTS, lambda context: _connect(port, context))),
            _row("1 MB download", 1.2, *each(_DOWNLOADS, lambda context: _download(port, context))),
            _row(f"{_AT_ONCE} connections at once", 1.6, *each(_ROUNDS, lambda context: _at_once(port, context))),
        ]
        rows += _standing_still(port, ours, world.context)
    return rows


@contextlib.contextmanager
def _guarded() -> Iterator[None]:
    """Let asyncio know contexts of ssa's. Those of `ssl`, which are there already, stay what they are."""
    loops.guard()
    try:
        yield
    finally:
        loops.unguard()


async def _timed(action: Callable[[ssl.SSLContext], Awaitable[object]], context: ssl.SSLContext) -> float:
    start = time.perf_counter()
    await action(context)
    return time.perf_counter() - start


async def _connect(port: int, context: ssl.SSLContext) -> None:
    _, writer = await asyncio.open_connection(HOST, port, ssl=context)
    writer.close()
    await writer.wait_closed()


async def _download(port: int, context: ssl.SSLContext) -> None:
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context)
    writer.write(b"GET /megabyte HTTP/1.0\r\n\r\n")
    got = len(await reader.read(-1))
    writer.close()
    await writer.wait_closed()
    if got < _MEGABYTE:
        raise RuntimeError(f"nginx sent {got} bytes")


async def _at_once(port: int, context: ssl.SSLContext) -> None:
    await asyncio.gather(*(_connect(port, context) for _ in range(_AT_ONCE)))


class _Rounds(selectors.EpollSelector):
    """A loop's selector, which takes the time of each round: from the return of select to its next call.

    So long the loop stands still, and notices nothing. While select waits, nothing waits for the loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__()
        self.longest = 0.0  # seconds by the clock
        self._clock = clock
        self._begun = clock()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.longest = max(self.longest, self._clock() - self._begun)
        try:
            return super().select(timeout)
        finally:
            self._begun = self._clock()


@contextlib.contextmanager
def _without_the_scheduler() -> Iterator[Callable[[], float]]:
    """Give a clock for this thread, in seconds: it stops while the thread could run, and has no processor.

    It goes on while the thread computes, and while it is blocked in a system call. The second number in
    /proc/thread-self/schedstat is the nanoseconds of waiting for a processor (Documentation/scheduler/sched-stats.rst).
    On a kernel without that file it is the plain clock.
    """
    try:
        fd = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except FileNotFoundError:
        yield time.perf_counter
        return
    try:
        yield lambda: time.perf_counter() - int(os.pread(fd, 64, 0).split()[1]) / 1e9
    finally:
        os.close(fd)


async def _longest_round(rounds: _Rounds, port: int, context: ssl.SSLContext) -> float:
    """The longest round of the loop, in seconds, while a connection is made and closed."""
    await asyncio.sleep(0)  # what came before is of another round
    rounds.longest = 0.0
    await _connect(port, context)
    return rounds.longest


def _standing_still(port: int, ours: SSLContext, theirs: ssl.SSLContext) -> list[Row]:
    """The longest rounds, for a connection: of the loop alone, and with its waits for a processor."""
    with _without_the_scheduler() as clock:
        alone = _longest_rounds(clock, port, ours, theirs)
    return [
        _lag_row("", 0.3, *alone, note=_ALONE),
        _lag_row(", and waits for a processor", None, *_longest_rounds(time.perf_counter, port, ours, theirs)),
    ]


_ALONE = "the longest round, from one select to the next; the row below has its waits for a processor, too"


def _longest_rounds(
    clock: Callable[[], float], port: int, ours: SSLContext, theirs: ssl.SSLContext
) -> tuple[Samples, Samples]:
    """The longest round by that clock for each of many connections, in milliseconds: with ssa, and with `ssl`."""
    rounds = _Rounds(clock)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(rounds)) as runner:

        def sample(context: ssl.SSLContext) -> Callable[[], float]:
            return lambda: runner.run(_longest_round(rounds, port, context))

        with_ssa, with_ssl = interleaved(_CONNECTS, sample(ours), sample(theirs), warm_up=2, scale=1000)  # type: ignore[arg-type] # ours stands in for ssl's
    return with_ssa, with_ssl


def _row(name: str, most: float, ours: Samples, theirs: Samples) -> Row:
    return Row.compared(f"asyncio under inject: {name}", "ms", ours, theirs, most, f"at most {most} times")


def _lag_row(more: str, most: float | None, ours: Samples, theirs: Samples, note: str = "") -> Row:
    return Row(
        name=f"asyncio under inject: the longest that the loop stands still{more}, for a connection",
        unit="ms",
        ours=ours,
        theirs=theirs,
        ratio=ours.median / theirs.median,
        aim=f"at most {most} ms" if most else "",
        met=ours.median <= most if most else None,
        note=note,
    )
