"""Servers: handshakes a second, and the effect of idle clients on the others."""

from __future__ import annotations

import contextlib
import socket

from bench.measure import Row, Samples, elapsed, interleaved
from bench.world import World, beside, connect_ssl

_HANDSHAKES = 40  # of a sample
_ROUNDS = 21
_IDLE = 1000
_PROBES = 15


def serve(world: World) -> list[Row]:
    """Measure the handshakes a second of a server with ssa, and of an asyncio server with `ssl`.

    The client is the same, and its work is on the same processor: what is told is the rate of both together.
    """
    with _server("ssa", world) as ours, _server("asyncio", world) as theirs:
        a, b = interleaved(_ROUNDS, lambda: _connects(world, ours), lambda: _connects(world, theirs), warm_up=2)
    rates = [Samples(tuple(_HANDSHAKES / seconds for seconds in side.values)) for side in (a, b)]
    ratio = rates[0].median / rates[1].median
    return [
        Row(
            name="handshakes of a server, beside asyncio's",
            unit="1/s",
            ours=rates[0],
            theirs=rates[1],
            ratio=ratio,
            aim="at least 0.7 of it",
            met=ratio >= 0.7,
        )
    ]


def _connects(world: World, port: int) -> float:
    def all_of_them() -> None:
        for _ in range(_HANDSHAKES):
            with connect_ssl(world.context, port) as sock:
                sock.recv(1)  # the server closes

    return elapsed(all_of_them)


def idle(world: World) -> list[Row]:
    """Measure the time from connect to the server's first byte, beside a thousand clients that send nothing."""
    with _server("ssa", world) as quiet, _server("ssa", world) as busy, contextlib.ExitStack() as held:
        for _ in range(_IDLE):
            held.enter_context(socket.create_connection(("127.0.0.1", busy)))
        a, b = interleaved(_PROBES * 4, lambda: _first_byte(world, busy), lambda: _first_byte(world, quiet), scale=1000)
    ratio = a.median / b.median
    return [
        Row(
            name=f"accept with {_IDLE} idle clients, beside none",
            unit="ms",
            ours=a,
            ratio=ratio,
            aim="at most 1.2 times",
            met=ratio <= 1.2,
            note=f"with none: {b.median:.2f} ms",
        )
    ]


def _first_byte(world: World, port: int) -> float:
    def one() -> None:
        with connect_ssl(world.context, port) as sock:
            if sock.recv(1) != b"x":
                raise RuntimeError("the server did not answer")

    return elapsed(one)


def _server(kind: str, world: World) -> contextlib.AbstractContextManager[int]:
    """Run a server in a process of its own. Gives its port."""
    return beside("server", kind, world.cert, world.key)
