"""Handshakes: how long one takes, what it costs the daemon, and whether fifty get in each other's way."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import TYPE_CHECKING

import ssa
from bench.measure import Row, Samples, cpu_seconds, elapsed, interleaved, memory
from bench.world import HOST, World

if TYPE_CHECKING:
    from collections.abc import Callable

_PAIRS = 300
_CPU_HANDSHAKES = 600
_ROUNDS = 9
_AT_ONCE = 50
_LIVE = 1000


def warm(world: World) -> list[Row]:
    """A program that runs already, and has its trust store loaded."""
    return [_warm(world, "TLS 1.3", world.tls13), _warm(world, "TLS 1.2", world.tls12)]


def _warm(world: World, version: str, port: int) -> Row:
    ours, theirs = world.pair(port)
    a, b = interleaved(_PAIRS, lambda: elapsed(ours), lambda: elapsed(theirs), scale=1000)
    ratio = a.median / b.median
    return Row(
        name=f"connect and close, running program, {version}",
        unit="ms",
        ours=a,
        theirs=b,
        ratio=ratio,
        aim="at most 1.5 times",
        met=ratio <= 1.5,
    )


def cpu(world: World) -> list[Row]:
    """The CPU time of one handshake: the daemon's share, and the whole of either client."""
    ours, theirs = world.pair(world.tls13)
    daemon, client = [], []
    for action in (ours, theirs):
        action()
        before, own = cpu_seconds(world.daemon.process.pid), time.process_time()
        for _ in range(_CPU_HANDSHAKES):
            action()
        client.append((time.process_time() - own) / _CPU_HANDSHAKES * 1000)
        daemon.append((cpu_seconds(world.daemon.process.pid) - before) / _CPU_HANDSHAKES * 1000)
    return [
        Row(
            name="CPU of a handshake",
            unit="ms",
            ours=Samples((daemon[0] + client[0],)),
            theirs=Samples((client[1],)),
            ratio=(daemon[0] + client[0]) / client[1],
            note=f"daemon {daemon[0]:.2f}, program {client[0]:.2f}",
        )
    ]


def at_once(world: World) -> list[Row]:
    """Fifty threads of one program that begin together, against the same fifty one after the other."""

    def connect() -> None:
        world.ssa(world.tls13)

    together, in_turn = interleaved(
        _ROUNDS,
        lambda: _together(connect),
        lambda: elapsed(lambda: [connect() for _ in range(_AT_ONCE)]),
        warm_up=1,
        scale=1000 / _AT_ONCE,
    )
    ratio = in_turn.median / together.median
    return [
        Row(
            name=f"{_AT_ONCE} handshakes at once, throughput",
            unit="ms each",
            ours=together,
            ratio=ratio,
            aim="at least that of one after the other",
            met=ratio >= 1.0,
            note=f"one after the other: {in_turn.median:.2f} ms each",
        )
    ]


def _together(action: Callable[[], None]) -> float:
    """The seconds from the moment at which all threads begin to the end of the last. What a thread raises is raised."""
    barrier = threading.Barrier(_AT_ONCE + 1)
    failures: list[BaseException] = []

    def run() -> None:
        barrier.wait()
        try:
            action()
        except BaseException as exc:  # noqa: BLE001 - told below
            failures.append(exc)

    threads = [threading.Thread(target=run) for _ in range(_AT_ONCE)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    barrier.wait()
    for thread in threads:
        thread.join()
    taken = time.perf_counter() - start
    if failures:
        raise failures[0]
    return taken


def live(world: World) -> list[Row]:
    """What the daemon remembers of a socket, by how much it grows with a thousand of them."""
    for _ in range(_AT_ONCE):
        world.ssa(world.tls13)
    pid = world.daemon.process.pid
    before = memory(pid)
    with contextlib.ExitStack() as held:
        for _ in range(_LIVE):
            held.callback(os.close, ssa.connect_tls(HOST, world.tls13))
        per_socket = (memory(pid) - before) / _LIVE / 1024
        listed = len(world.daemon.sockets())
    return [
        Row(
            name=f"memory of the daemon for each of {_LIVE} sockets",
            unit="KiB",
            ours=Samples((per_socket,)),
            aim="at most 8 KiB",
            met=per_socket <= 8,
            note=f"{listed} listed in its file system",
        )
    ]
