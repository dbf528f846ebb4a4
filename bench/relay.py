"""The relay: the cost of the daemon between program and server, and of other programs in that place."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import ssa
from bench import bulk
from bench.measure import Row, Samples, cpu_of, interleaved, memory_of
from bench.sockets import echoing, round_trips, ssl_server
from bench.world import DATA_PATHS, HOST, World, beside, connect_ssl
from tests.peers import free_port, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_ROUNDS = 5
_IDLE = 500
_QUIET = 3  # seconds
_ECHO_ROUNDS = 25


def relay(world: World) -> list[Row]:
    """Take all measurements of this module, with the policy's data_path set to relay."""
    world.daemon.set("data_path", "relay")
    try:
        return [*_bulk(world), *_idle(world), _echo(world)]
    finally:
        world.daemon.set("data_path", DATA_PATHS[world.part])


def _bulk(world: World) -> list[Row]:
    with bulk.peer(world) as port, beside("copier", port, world.ca) as copier, _stunnel(port) as stunnel:
        moves: dict[str, bulk.Move] = {"sent": bulk.sending, "received": bulk.receiving}
        return [row for name, move in moves.items() for row in _rows(port, copier, stunnel, name, move)]


def _rows(port: int, copier: int, stunnel: int, name: str, move: bulk.Move) -> list[Row]:
    def through(connect: Callable[[], socket.socket]) -> Callable[[], float]:
        def sample() -> float:
            with connect() as sock:
                return move(sock)

        return sample

    ours, copied, tunnelled = (
        bulk.rates(seconds)
        for seconds in interleaved(
            _ROUNDS,
            through(lambda: ssa.create_connection((HOST, port))),
            through(lambda: socket.create_connection(("127.0.0.1", copier))),
            through(lambda: socket.create_connection(("127.0.0.1", stunnel))),
            warm_up=1,
        )
    )
    by_python, by_stunnel = ours.median / copied.median, ours.median / tunnelled.median
    return [
        Row(
            name=f"relay: {name}, beside a Python program that copies between a socket and ssl",
            unit="MB/s",
            ours=ours,
            theirs=copied,
            ratio=by_python,
            aim="not slower",
            met=by_python >= 1.0,
        ),
        Row(
            name=f"relay: {name}, beside stunnel",
            unit="MB/s",
            ours=ours,
            theirs=tunnelled,
            ratio=by_stunnel,
            aim="at least half its rate",
            met=by_stunnel >= 0.5,
        ),
    ]


@contextlib.contextmanager
def _stunnel(port: int) -> Iterator[int]:
    """Run stunnel as a client. Gives its port."""
    own = free_port()
    with tempfile.TemporaryDirectory() as directory:
        configuration = Path(directory) / "stunnel.conf"
        configuration.write_text(
            f"foreground = yes\npid =\ndebug = 3\n[bench]\nclient = yes\naccept = 127.0.0.1:{own}\n"
            f"connect = 127.0.0.1:{port}\nsslVersionMin = TLSv1.3\nTIMEOUTclose = 0\n"
        )
        stunnel = shutil.which("stunnel4") or "/usr/bin/stunnel4"
        with program(stunnel, configuration, port=own, stderr=subprocess.DEVNULL):
            yield own


def _idle(world: World) -> list[Row]:
    """Measure the CPU time for relayed sockets that carry no data."""
    with contextlib.ExitStack() as held:

        def hold() -> int:
            for _ in range(_IDLE):
                held.enter_context(ssa.create_connection((HOST, world.tls13)))
            time.sleep(1)  # until their tickets have come
            return memory_of(world.daemon.processes())

        before = hold()
        each = (hold() - before) / _IDLE / 1024
        pids = world.daemon.processes()
        spent = cpu_of(pids)
        time.sleep(_QUIET)
        busy = (cpu_of(pids) - spent) / _QUIET * 100
    return [
        Row(
            name="relay: memory of the daemon for an idle socket",
            unit="KiB",
            ours=Samples((each,)),
            aim="at most 100 KiB",
            met=each <= 100,
            note=f"growth from {_IDLE} to {2 * _IDLE}",
        ),
        Row(
            name=f"relay: CPU of the daemon with {2 * _IDLE} idle sockets",
            unit="%",
            ours=Samples((busy,)),
            aim="none: less than 1 %",
            met=busy < 1,
        ),
    ]


def _echo(world: World) -> Row:
    """Measure a byte there and back to a server with `ssl`: from a relayed client, and from a client with `ssl`.

    And beside what else can stand between, in the note: what the two wake-ups more cost, whoever is woken.
    """
    with ssl_server(world) as accept, contextlib.ExitStack() as between:

        def through(open_way: Callable[[int], contextlib.AbstractContextManager[int]]) -> socket.socket:
            client, server = accept(
                lambda port: socket.create_connection(("127.0.0.1", between.enter_context(open_way(port))))
            )
            return between.enter_context(echoing(client, server))

        ours = between.enter_context(echoing(*accept(lambda port: ssa.create_connection((HOST, port)))))
        direct = between.enter_context(echoing(*accept(lambda port: connect_ssl(world.context, port))))
        copied, tunnelled = through(lambda port: beside("copier", port, world.ca)), through(_stunnel)
        a, b, c, d = round_trips(_ECHO_ROUNDS, ours, direct, copied, tunnelled)
    ratio = a.median / b.median
    return Row(
        name="relay: echo of one byte, beside ssl without anything between",
        unit="us",
        ours=a,
        theirs=b,
        ratio=ratio,
        aim="at most twice",
        met=ratio <= 2,
        note=f"a Python program that copies between: x{c.median / b.median:.2f}; stunnel: x{d.median / b.median:.2f}",
    )
