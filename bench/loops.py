"""Measures asyncio under `ssa.inject_into_ssl`, beside asyncio's own TLS, in one process and one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from bench.measure import Row, Samples, interleaved
from bench.world import HOST, World
from ssa.inject import SSLContext, loops

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Iterator

_CONNECTS = 41
_DOWNLOADS = 15
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
        lags = [runner.run(_lag(port, ours)) * 1000 for _ in range(_CONNECTS)]  # type: ignore[arg-type] # see above
        theirs = [runner.run(_lag(port, world.context)) * 1000 for _ in range(_CONNECTS)]
    rows.append(_standing_still(Samples(tuple(lags)), Samples(tuple(theirs))))
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


async def _lag(port: int, context: ssl.SSLContext) -> float:
    """The longest time in seconds between two rounds of the loop, while a connection is made and closed."""
    loop, longest = asyncio.get_running_loop(), 0.0
    last = time.perf_counter()

    def tick() -> None:
        nonlocal longest, last
        now = time.perf_counter()
        longest, last = max(longest, now - last), now
        handle[0] = loop.call_soon(tick)

    handle = [loop.call_soon(tick)]
    await _connect(port, context)
    handle[0].cancel()
    return longest


def _row(name: str, most: float, ours: Samples, theirs: Samples) -> Row:
    ratio = ours.median / theirs.median
    return Row(
        name=f"asyncio under inject: {name}",
        unit="ms",
        ours=ours,
        theirs=theirs,
        ratio=ratio,
        aim=f"at most {most} times",
        met=ratio <= most,
    )


def _standing_still(ours: Samples, theirs: Samples) -> Row:
    return Row(
        name="asyncio under inject: the longest that the loop stands still, for a connection",
        unit="ms",
        ours=ours,
        theirs=theirs,
        ratio=ours.median / theirs.median,
        aim="at most 0.3 ms",
        met=ours.median <= 0.3,
    )
