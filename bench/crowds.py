"""Many new processes at once, each of which fetches a megabyte: the measurement of the Secure Socket API's Fig. 4.

curl, and a C client: each by ssa, by OpenSSL with the system's trust anchors, and by OpenSSL with one.
"""

from __future__ import annotations

import os
import subprocess
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from bench.measure import Row, Samples, drawings, interleaved
from bench.native import NATIVE
from bench.plot import drawing
from bench.world import HOST, MEGABYTE, x25519

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.world import World

CURL: tuple[str | Path, ...] = ("curl", "--silent", "--fail", "--output", "/dev/null")
_ROUNDS = {1: 15, 2: 9, 5: 7, 10: 5, 20: 5, 35: 3, 50: 3, 75: 3, 100: 3}  # by the number of processes at once
_OURS, _BUNDLE, _ONE = "ssa", "OpenSSL, the system's trust anchors", "OpenSSL, one trust anchor"

Commands = dict[str, tuple[list[str | Path], dict[str, str]]]  # by the curve's name: the command, and its environment


def crowd(many: int, command: Sequence[str | Path], environment: Mapping[str, str] = MappingProxyType({})) -> float:
    """The milliseconds until so many processes at once have ended. Raises CalledProcessError if one fails."""
    words = [NATIVE / "bench" / "cost", "crowd", str(many), *command]
    done = subprocess.run(words, env=os.environ | environment, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def preload(world: World) -> dict[str, str]:
    """The environment that coerces a program, as of `ssa run`."""
    return world.daemon.environment | {"LD_PRELOAD": str(NATIVE / "libssa-openssl.so")}


def crowds(world: World) -> list[Row]:
    """Measure both programs, and draw them. A row has the point at which ssa is slowest beside OpenSSL."""
    with x25519(world):
        measured = {name: _measured(commands) for name, commands in _programs(world).items()}
    drawings["crowds.svg"] = drawing(
        {name: _curves(points) for name, points in measured.items()},
        "new processes at once, 1 MB each",
        "milliseconds until all have ended",
    )
    return [_row(name, points) for name, points in measured.items()]


def _measured(commands: Commands) -> dict[int, list[Samples]]:
    """The samples of each curve, by the number of processes at once."""
    return {
        many: interleaved(rounds, *(partial(crowd, many, *command) for command in commands.values()), warm_up=1)
        for many, rounds in _ROUNDS.items()
    }


def _curves(points: dict[int, list[Samples]]) -> dict[str, list[tuple[int, float]]]:
    names = (_OURS, _BUNDLE, _ONE)
    return {name: [(many, samples[at].median) for many, samples in points.items()] for at, name in enumerate(names)}


def _row(name: str, points: dict[int, list[Samples]]) -> Row:
    """The point at which ssa is slowest, beside the system's anchors; and where the curve of one anchor is crossed."""
    many = max(points, key=lambda many: _ratio(points[many]))
    ours, bundle, _ = points[many]
    return Row.compared(
        f"{name}, 1 to {max(points)} new processes at once, 1 MB each, the slowest point ({many})",
        "ms",
        ours,
        bundle,
        1.0,
        "not slower",
    ).noted(_crossing({many: ours.median / one.median for many, (ours, _, one) in points.items()}))


def _ratio(samples: list[Samples]) -> float:
    ours, bundle, _ = samples
    return ours.median / bundle.median


def _crossing(ratios: dict[int, float]) -> str:
    """Words for the ratio to OpenSSL with one trust anchor, by the number of processes: from where on ssa is faster."""
    slower = [many for many, ratio in ratios.items() if ratio > 1]
    faster = [many for many in ratios if not slower or many > max(slower)]
    from_where = f"faster from {faster[0]} on" if faster else f"not faster at {max(ratios)}"
    few, most = min(ratios), max(ratios)
    return f"beside one trust anchor: {ratios[few]:.2f} at {few}, {ratios[most]:.2f} at {most}, {from_where}"


def _programs(world: World) -> dict[str, Commands]:
    url = f"https://{HOST}:{world.tls13}/megabyte"
    port, size = str(world.tls13), str(MEGABYTE)
    ours: list[str | Path] = [NATIVE / "bench" / "fetch_ssa", HOST, port, "/megabyte", size]
    theirs: list[str | Path] = [NATIVE / "bench" / "fetch_openssl", HOST, port, "/megabyte", size]
    return {
        "curl": {
            _OURS: ([*CURL, url], preload(world)),
            _BUNDLE: ([*CURL, url, "--cacert", world.anchors], {}),
            _ONE: ([*CURL, url, "--cacert", world.ca], {}),
        },
        "C client": {
            _OURS: (ours, world.daemon.environment),
            _BUNDLE: ([*theirs, world.anchors], {}),
            _ONE: ([*theirs, world.ca], {}),
        },
    }
