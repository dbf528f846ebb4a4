"""Handshakes: the time of one, its cost for the daemon, and the time of fifty at once."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import ssa
from bench.measure import Row, Samples, cpu_of, elapsed, interleaved, memory_of
from bench.world import HOST, World, beside, x25519
from ssa.protocol import paths, wire

if TYPE_CHECKING:
    from collections.abc import Callable

_PAIRS = 200
_IN_A_ROW = 3  # handshakes of a sample, so that work left over from one is counted with its own kind
_BLOCKS = 5
_BLOCK = 150  # handshakes: user-mode Linux counts CPU time by ticks of 10 ms
_ROUNDS = 31
_AT_ONCE = 50
_LIVE = 1000


def warm(world: World) -> list[Row]:
    """Measure a program that has been running and has its trust store loaded."""
    with x25519(world):
        return [_warm(world, "TLS 1.3", world.tls13, 1.2), _warm(world, "TLS 1.2", world.tls12, 1.0)]


def _warm(world: World, version: str, port: int, most: float) -> Row:
    ours, theirs = world.pair(port)

    def several(action: Callable[[], None]) -> float:
        return elapsed(lambda: [action() for _ in range(_IN_A_ROW)])

    a, b = interleaved(_PAIRS, lambda: several(ours), lambda: several(theirs), scale=1000 / _IN_A_ROW)
    return Row.compared(f"connect and close, running program, {version}", "ms", a, b, most, f"at most {most} times")


def cpu(world: World) -> list[Row]:
    """Measure the CPU time of one handshake on this machine, daemon and program together, and with `ssl`."""
    ours, theirs = world.pair(world.tls13)
    ours()  # the user's worker runs from now on
    pids = world.daemon.processes()

    def spent(action: Callable[[], None], clock: Callable[[], float]) -> float:
        before = clock()
        for _ in range(_BLOCK):
            action()
        return clock() - before

    shares = interleaved(
        _BLOCKS,
        lambda: spent(ours, lambda: cpu_of(pids)),
        lambda: spent(ours, time.process_time),
        lambda: spent(theirs, time.process_time),
        warm_up=1,
        scale=1000 / _BLOCK,
    )
    ours_daemon, ours_program, program = shares
    ratio = (ours_daemon.median + ours_program.median) / program.median
    return [
        Row(
            name="CPU of a handshake, the daemon's",
            unit="ms",
            ours=ours_daemon,
            theirs=program,
            ratio=ratio,
            note=f"and {ours_program.median:.2f} in the program, which is in the ratio",
        )
    ]


def post_quantum(world: World) -> list[Row]:
    """Measure the time of a handshake with the hybrid key exchange, and with x25519 alone.

    With a server of ours, which takes the hybrid: the same daemon computes both ends. And with nginx, which takes
    x25519: the hybrid's share was made and sent for nothing.
    """
    with beside("server", "ssa", world.cert, world.key) as port:
        return [
            _hybrid(world, "X25519MLKEM768 at both ends, beside x25519", port),
            _hybrid(world, "the share of X25519MLKEM768 that the server passes over", world.tls13),
        ]


def _hybrid(world: World, name: str, port: int) -> Row:
    def under(groups: str) -> float:
        world.daemon.set("groups", groups)
        return elapsed(lambda: [world.ssa(port) for _ in range(_IN_A_ROW)])

    default = world.daemon.get("policy/groups")
    with_it, without = interleaved(_PAIRS // 2, lambda: under(default), lambda: under("x25519"), scale=1000 / _IN_A_ROW)
    world.daemon.set("groups", default)
    note = f"x25519 alone: {without.median:.2f} ms"
    return Row(name=name, unit="ms", ours=with_it, ratio=with_it.median / without.median, note=note)


def at_once(world: World) -> list[Row]:
    """Measure fifty handshakes that the daemon makes at once, and fifty that it makes one after the other.

    One thread asks for all fifty and then takes the replies: fifty threads of Python would themselves cost as much
    as the difference that is looked for.
    """

    def ask() -> _Asked:
        return _Asked(world.tls13)

    together, in_turn = interleaved(
        _ROUNDS,
        lambda: elapsed(lambda: [asked.take() for asked in [ask() for _ in range(_AT_ONCE)]]),
        lambda: elapsed(lambda: [ask().take() for _ in range(_AT_ONCE)]),
        warm_up=1,
        scale=1000 / _AT_ONCE,
    )
    # Both halves are measured in each round, so that a slow second of the machine slows both.
    ratio = Samples(tuple(b / a for a, b in zip(together.values, in_turn.values, strict=True))).median
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


class _Asked:
    """A handshake that the daemon was asked for as by `ssa.connect_tls`, but without waiting for it."""

    def __init__(self, port: int) -> None:
        self._daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._daemon.connect(str(paths.socket_path()))
        self._connection = socket.create_connection((HOST, port))
        socket.send_fds(self._daemon, [wire.pack(wire.Connect(HOST))], [self._connection.fileno()])

    def take(self) -> None:
        """Wait for the reply, and close the connection. Raises RuntimeError if it is a refusal."""
        with self._daemon, self._connection:
            reply = wire.parse_untrusted(self._daemon.recv(wire.MAX_MESSAGE), wire.Reply)
        if reply.reason is not None:
            raise RuntimeError(f"{reply.reason}: {reply.detail}")


def live(world: World) -> list[Row]:
    """Measure the daemon's memory for a socket, by its growth with the second thousand of them.

    The first thousand takes what is free in its heap already, and would seem to cost less.
    """
    with contextlib.ExitStack() as held:

        def hold() -> int:
            for _ in range(_LIVE):
                held.callback(os.close, ssa.connect_tls(HOST, world.tls13))
            return memory_of(world.daemon.processes())

        before = hold()
        per_socket = (hold() - before) / _LIVE / 1024
        listed = len(world.daemon.sockets())
    return [
        Row(
            name="memory of the daemon for a live socket",
            unit="KiB",
            ours=Samples((per_socket,)),
            aim="at most 8 KiB",
            met=per_socket <= 8,
            note=f"growth from {_LIVE} to {2 * _LIVE}; {listed} listed in its file system",
        )
    ]
