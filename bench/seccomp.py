"""What `ssa run --seccomp` costs: a call that is trapped, and one that is not (`make native` first)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Row, Samples

if TYPE_CHECKING:
    from bench.world import World

NATIVE = Path(__file__).resolve().parents[1] / "build" / "native"
_MOST_TRAPPED, _MOST_OTHER = 15.0, 100.0  # microseconds; nanoseconds more than without


def seccomp(everything: World) -> list[Row]:
    """A row for a trapped call, and one for another call."""
    environment = os.environ | everything.daemon.environment
    trapped, watched = _measured([NATIVE / "ssa-supervise", NATIVE / "bench" / "trapped"], environment)
    plain, others = _measured([NATIVE / "bench" / "trapped", "plain"], environment)
    added = watched.median - others.median
    return [
        Row(
            name="seccomp: a trapped call: getsockopt(2), beside the system call",
            unit="ns",
            ours=trapped,
            theirs=plain,
            ratio=trapped.median / plain.median,
            aim=f"<= {_MOST_TRAPPED:g} us",
            met=trapped.median <= _MOST_TRAPPED * 1000,
        ),
        Row(
            name="seccomp: another call: close(-1), beside one without the filter",
            unit="ns",
            ours=watched,
            theirs=others,
            ratio=watched.median / others.median,
            aim=f"<= {_MOST_OTHER:g} ns more",
            met=added <= _MOST_OTHER,
            note=f"{added:.0f} ns more",
        ),
    ]


def _measured(command: list[Path | str], environment: dict[str, str]) -> tuple[Samples, Samples]:
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    trapped, others = zip(*rows, strict=True)
    return Samples(trapped), Samples(others)
