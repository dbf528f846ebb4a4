"""Measures a revision beside an earlier one: samples of both daemons in turn (`python -m bench --beside REV`)."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Row, Samples, cpu_of, interleaved, memory_of
from bench.world import DATA_PATHS, HOST, connect_ssl
from tests.peers import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.world import World

_ROOT = Path(__file__).parent.parent
_BLOCK = 100  # handshakes of a sample: user-mode Linux counts CPU time by ticks of 10 ms
_ROUNDS = 15
_USERS = (65501, 65502, 65503, 65504)
_EACH = 60  # handshakes of each of them, in a sample
_LIVE = 1500
_REST = 0.01  # seconds for what a daemon does behind its last reply


def is_known(revision: str) -> bool:
    """True for a revision that git knows here."""
    command = ["git", "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    return subprocess.run(command, cwd=_ROOT, stdout=subprocess.DEVNULL, check=False).returncode == 0


@contextlib.contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """The files of a revision, in a directory that others may read. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="ssa-beside.") as name:
        Path(name).chmod(0o755)
        archive = subprocess.run(
            ["git", "archive", revision, "ssa", "bench", "tests"], cwd=_ROOT, stdout=subprocess.PIPE, check=True
        )
        subprocess.run(["tar", "--extract", "--directory", name], input=archive.stdout, check=True)
        yield Path(name)


@dataclass(frozen=True, slots=True)
class Side:
    """One revision: its files, and a daemon of it."""

    name: str
    daemon: Daemon
    environment: dict[str, str]

    def cpu(self, action: Callable[[], object]) -> float:
        """The CPU time that all processes of the daemon take for an action. Raises RuntimeError if they change."""
        pids = self.daemon.processes()
        before = cpu_of(pids)
        action()
        time.sleep(_REST)
        spent = cpu_of(pids) - before
        if self.daemon.processes() != pids:
            raise RuntimeError(f"the processes of {self.name} have changed meanwhile")
        return spent

    def pss(self) -> float:
        """The memory of all its processes, in bytes."""
        return float(memory_of(self.daemon.processes()))

    @contextlib.contextmanager
    def load(self, port: int, uid: int | None = None) -> Iterator[Load]:
        """A program of this revision's library that makes handshakes with a server, as a user."""
        with subprocess.Popen(
            [sys.executable, _ROOT / "bench" / "load.py", HOST, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | self.environment,
            user=uid,
            text=True,
            bufsize=1,
        ) as process:
            try:
                yield Load(process)
            finally:
                process.kill()

    @contextlib.contextmanager
    def server(self, world: World) -> Iterator[int]:
        """A server by this revision's library. Gives its port."""
        with subprocess.Popen(
            [sys.executable, "-m", "bench.server", "ssa", world.cert, world.key],
            stdout=subprocess.PIPE,
            env=os.environ | self.environment,
        ) as process:
            try:
                yield int(process.stdout.readline()) if process.stdout else 0
            finally:
                process.kill()


class Load:
    """A running `bench/load.py`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def begin(self, verb: str, number: int) -> None:
        """Have it do something."""
        if self._process.stdin is not None:
            self._process.stdin.write(f"{verb} {number}\n")

    def wait(self) -> float:
        """Wait until it is done. Returns the seconds of its CPU time."""
        words = (self._process.stdout.readline() if self._process.stdout else "").split()
        if len(words) != 2:
            raise RuntimeError("the program that makes handshakes has ended")
        return float(words[1])

    def do(self, verb: str, number: int) -> float:
        """Have it do something, and wait for it."""
        self.begin(verb, number)
        return self.wait()


@contextlib.contextmanager
def _side(world: World, name: str, tree: Path, directory: Path) -> Iterator[Side]:
    directory.mkdir()
    policy = f'[policy]\ntrust_store = "{world.anchors}"\ndata_path = "{DATA_PATHS[world.part]}"\ngroups = ["x25519"]\n'
    daemon = Daemon(directory, policy=policy)
    daemon.environment |= {"PYTHONPATH": str(tree), "PYTHONSAFEPATH": "1"}
    with daemon:
        yield Side(name, daemon, daemon.environment)


def beside(world: World, revision: str) -> list[Row]:
    """Measure this revision beside that one. The aims are about the ratio of the two, or of this one's two values."""
    with checkout(revision) as tree:
        rows = []
        if os.geteuid() == 0:  # else there is one user
            with _both(world, revision, tree) as (this, that):
                rows.append(_idle(world, this, that))
            with _both(world, revision, tree) as (this, that):
                rows.append(_users(world, this, that))
        with _both(world, revision, tree) as (this, that):
            return [_client(world, this, that), _accepted(world, this, that), *rows, _live(world, this)]


@contextlib.contextmanager
def _both(world: World, revision: str, tree: Path) -> Iterator[tuple[Side, Side]]:
    """New daemons of both revisions."""
    with tempfile.TemporaryDirectory(prefix="ssa-bench.") as name:
        Path(name).chmod(0o755)
        with (
            _side(world, "this", _ROOT, Path(name) / "this") as this,
            _side(world, revision, tree, Path(name) / "that") as that,
        ):
            yield this, that


def _client(world: World, this: Side, that: Side) -> Row:
    with this.load(world.tls13) as ours, that.load(world.tls13) as theirs:
        for load in (ours, theirs):
            load.do("connect", _BLOCK)
        a, b = _cpu_of_both(this, that, lambda: ours.do("connect", _BLOCK), lambda: theirs.do("connect", _BLOCK))
    return _paired("CPU of the daemon for a client's handshake", "ms", a, b, 0.82)


def _accepted(world: World, this: Side, that: Side) -> Row:
    def clients(port: int) -> None:
        for _ in range(_BLOCK):
            with connect_ssl(world.context, port) as sock:
                sock.recv(1)

    with this.server(world) as ours, that.server(world) as theirs:
        for port in (ours, theirs):
            clients(port)
        a, b = _cpu_of_both(this, that, lambda: clients(ours), lambda: clients(theirs))
    return _paired("CPU of the daemon for an accepted handshake", "ms", a, b, 0.75)


def _cpu_of_both(this: Side, that: Side, ours: Callable[[], object], theirs: Callable[[], object]) -> list[Samples]:
    return interleaved(_ROUNDS, lambda: this.cpu(ours), lambda: that.cpu(theirs), warm_up=1, scale=1000 / _BLOCK)


def _users(world: World, this: Side, that: Side) -> Row:
    """Handshakes a second of four users at once, with their programs and the server on the same processors."""
    with contextlib.ExitStack() as stack:
        crowds = [[stack.enter_context(side.load(world.tls13, uid)) for uid in _USERS] for side in (this, that)]

        def rate(crowd: list[Load]) -> float:
            started = time.perf_counter()
            for load in crowd:
                load.begin("connect", _EACH)
            for load in crowd:
                load.wait()
            return _EACH * len(crowd) / (time.perf_counter() - started)

        a, b = interleaved(_ROUNDS, lambda: rate(crowds[0]), lambda: rate(crowds[1]), warm_up=2)
    return _paired(f"handshakes of {len(_USERS)} users at once", "1/s", a, b, 1.3, least=True)


def _idle(world: World, this: Side, that: Side) -> Row:
    """The memory of a daemon that three users use, and that has nothing to do."""
    with contextlib.ExitStack() as stack:
        for side in (this, that):
            for uid in _USERS[:3]:
                stack.enter_context(side.load(world.tls13, uid)).do("connect", 1)
        time.sleep(1)
        a, b = (Samples((side.pss() / (1 << 20),)) for side in (this, that))
        processes = len(this.daemon.processes())
    return Row(
        name="memory, idle, with three users (PSS)",
        unit="MiB",
        ours=a,
        theirs=b,
        ratio=a.median / b.median,
        aim="at most 60 MiB",
        met=a.median <= 60,
        note=f"{processes} processes",
    )


def _live(world: World, this: Side) -> Row:
    """The cost of a handshake beside many relayed streams, beside that without them."""
    with this.load(world.tls13) as load, this.load(world.tls13) as holder:

        def cost() -> list[float]:
            return [this.cpu(lambda: load.do("connect", _BLOCK)) * 1000 / _BLOCK for _ in range(_ROUNDS)]

        load.do("connect", _BLOCK)
        alone = Samples(tuple(cost()))
        holder.do("hold", _LIVE)
        crowded = Samples(tuple(cost()))
    return Row.compared(
        f"CPU of the daemon for a handshake with {_LIVE} live connections, beside none",
        "ms",
        crowded,
        alone,
        1.15,
        "as with none (at most 1.15)",
    ).noted("both are of this revision, one after the other")


def _paired(name: str, unit: str, ours: Samples, theirs: Samples, bound: float, *, least: bool = False) -> Row:  # noqa: PLR0913 - the columns of the table
    """A row whose ratio is the median of those of each round: so a slow second of the machine slows both."""
    ratio = statistics.median(a / b for a, b in zip(ours.values, theirs.values, strict=True))
    return Row(
        name=name,
        unit=unit,
        ours=ours,
        theirs=theirs,
        ratio=ratio,
        aim=f"{'at least' if least else 'at most'} {bound}",
        met=ratio >= bound if least else ratio <= bound,
    )
