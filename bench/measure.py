"""Takes measurements: interleaved samples, their medians, and a row of the table."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# The drawings that were made of measurements: SVG by the name of a file in docs.
drawings: dict[str, str] = {}

Sample = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Samples:
    """The measured values, in the unit of their row."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median."""
        return statistics.median(self.values)

    def describe(self) -> dict[str, float | int]:
        """The median, the quartiles and the number of values, for JSON."""
        if len(self.values) < 2:
            return {"median": self.median, "samples": len(self.values)}
        low, _, high = statistics.quantiles(self.values, n=4)
        return {"median": self.median, "low_quartile": low, "high_quartile": high, "samples": len(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table. The aim is about `ratio`; each row defines what is divided by what."""

    name: str
    unit: str
    ours: Samples | None
    theirs: Samples | None = None
    ratio: float | None = None
    aim: str = ""
    met: bool | None = None  # None: there is no aim, or nothing comparable was measured
    note: str = ""

    @classmethod
    def compared(  # noqa: PLR0913, PLR0917 - the columns of the table
        cls, name: str, unit: str, ours: Samples, theirs: Samples, most: float, aim: str
    ) -> Row:
        """A row whose ratio is that of the medians, with the largest one that meets the aim."""
        ratio = ours.median / theirs.median
        return cls(name=name, unit=unit, ours=ours, theirs=theirs, ratio=ratio, aim=aim, met=ratio <= most)

    def noted(self, note: str) -> Row:
        """The row with that note."""
        return replace(self, note=note)

    def describe(self) -> dict[str, Any]:
        """The row as a dictionary, for JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ssa": self.ours and self.ours.describe(),
            "ssl": self.theirs and self.theirs.describe(),
            "ratio": self.ratio,
            "aim": self.aim,
            "met": self.met,
            "note": self.note,
        }


def elapsed(action: Callable[[], object]) -> float:
    """The seconds that the action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def interleaved(times: int, *samples: Sample, warm_up: int = 5, scale: float = 1.0) -> list[Samples]:
    """Take the samples in turn, A B A B, so that a drift of the machine affects all of them equally.

    Python's garbage collector waits meanwhile: it would come into whichever is being measured.
    """
    for _ in range(warm_up):
        for sample in samples:
            sample()
    taken: list[list[float]] = [[] for _ in samples]
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            for sample, values in zip(samples, taken, strict=True):
                values.append(sample() * scale)
    finally:
        gc.enable()
    return [Samples(tuple(values)) for values in taken]


def cpu_seconds(pid: int) -> float:
    """The CPU time of a process so far, user and system, to the nanosecond: /proc counts in hundredths of a second."""
    clock = (~pid << 3) | 2  # the clock that clock_getcpuclockid(3) gives for a process
    return time.clock_gettime(clock)


def cpu_of(pids: Iterable[int]) -> float:
    """The CPU time of these processes so far, in seconds."""
    return sum(map(cpu_seconds, pids))


def memory_of(pids: Iterable[int]) -> int:
    """The memory of these processes in bytes. What they share is counted once."""
    return sum(map(memory, pids))


def memory(pid: int) -> int:
    """The memory of a process in bytes: its PSS, which counts half of a page that two processes share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"this kernel tells no PSS of process {pid}")
