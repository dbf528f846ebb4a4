"""Measures a program that was just started: it has to load its imports and, without ssa, the trust store."""

from __future__ import annotations

import compileall
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import ssa
from bench.measure import Row, Samples, elapsed, interleaved
from bench.world import HOST, World, x25519

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMES = 21

_SSA = """
import time; start = time.perf_counter()
import os, sys, ssa
os.close(ssa.connect_tls(sys.argv[1], int(sys.argv[2])))
print(time.perf_counter() - start)
"""

_SSL = """
import time; start = time.perf_counter()
import socket, ssl, sys
context = ssl.create_default_context()
context.load_verify_locations(sys.argv[3])
context.wrap_socket(socket.create_connection((sys.argv[1], int(sys.argv[2]))), server_hostname=sys.argv[1]).close()
print(time.perf_counter() - start)
"""


def fresh(world: World) -> list[Row]:
    """Measure the program from its first line on, and the whole process from outside."""
    inside: dict[str, list[float]] = {_SSA: [], _SSL: []}

    with x25519(world), _installed() as site:

        def sample(code: str) -> float:
            return elapsed(lambda: inside[code].append(_run(code, world, site)))

        whole = interleaved(_TIMES, lambda: sample(_SSA), lambda: sample(_SSL), warm_up=1, scale=1000)
    within = [Samples(tuple(seconds * 1000 for seconds in inside[code][1:])) for code in (_SSA, _SSL)]
    return [
        _row("import, trust store, connect, new program", within[0], within[1], aim="at most 0.4 times"),
        _row("the same, and Python's start and end", whole[0], whole[1], aim=""),
    ]


def _row(name: str, ours: Samples, theirs: Samples, *, aim: str) -> Row:
    ratio = ours.median / theirs.median
    return Row(name=name, unit="ms", ours=ours, theirs=theirs, ratio=ratio, aim=aim, met=ratio <= 0.4 if aim else None)


def _run(code: str, world: World, site: Path) -> float:
    """The seconds that the program itself measured.

    It is run by the system's Python and not by that of a virtual environment, whose start imports much already.
    """
    python = getattr(sys, "_base_executable", sys.executable)
    command = [python, "-c", code, HOST, str(world.tls13), str(world.ca)]
    environment = os.environ | {"PYTHONPATH": str(site)}
    return float(subprocess.run(command, env=environment, cwd=site, check=True, stdout=subprocess.PIPE).stdout)


@contextlib.contextmanager
def _installed() -> Iterator[Path]:
    """A directory with ssa installed by pip, so compiled. In a checkout it may not be."""
    with tempfile.TemporaryDirectory(prefix="ssa-bench.") as site:
        package = Path(site) / "ssa"
        shutil.copytree(Path(ssa.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
        if not compileall.compile_dir(package, quiet=1):
            raise RuntimeError("ssa does not compile")
        yield Path(site)
