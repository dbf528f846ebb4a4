"""`python -m bench`: runs all measurements, and prints a table with the aim beside each ratio, or JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import ssl
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.backends.openssl import backend
from rich.console import Console
from rich.table import Table

from bench import (
    beside,
    bulk,
    crowds,
    curls,
    handshakes,
    loops,
    native,
    page,
    processes,
    relay,
    seccomp,
    servers,
    sockets,
)
from bench.world import Part, World, world
from ssa.ktls.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.measure import Row


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement: the function that takes it, the parts that have it, and the part in which its aims count."""

    take: Callable[[World], list[Row]]
    parts: tuple[Part, ...]
    aims: Part


_BOTH = (Part.HOST, Part.KERNEL)

# In this order: the memory is measured after the daemon has grown to its usual size.
MEASUREMENTS: dict[str, Measurement] = {
    "warm": Measurement(handshakes.warm, _BOTH, Part.KERNEL),
    "fresh": Measurement(processes.fresh, _BOTH, Part.KERNEL),
    "cpu": Measurement(handshakes.cpu, _BOTH, Part.KERNEL),
    "post-quantum": Measurement(handshakes.post_quantum, _BOTH, Part.KERNEL),
    "at-once": Measurement(handshakes.at_once, _BOTH, Part.KERNEL),
    "memory": Measurement(handshakes.live, (Part.KERNEL,), Part.KERNEL),
    "bulk": Measurement(bulk.bulk, (Part.KERNEL,), Part.KERNEL),
    "calls": Measurement(sockets.calls, (Part.KERNEL,), Part.KERNEL),
    "small-file": Measurement(sockets.small_file, (Part.KERNEL,), Part.KERNEL),
    "echo": Measurement(sockets.echo, (Part.KERNEL,), Part.KERNEL),
    "serve": Measurement(servers.serve, _BOTH, Part.KERNEL),
    "idle": Measurement(servers.idle, _BOTH, Part.KERNEL),
    "relay": Measurement(relay.relay, _BOTH, Part.HOST),
    "asyncio": Measurement(loops.asynchronous, _BOTH, Part.HOST),
    "native": Measurement(native.native, _BOTH, Part.HOST),
    "seccomp": Measurement(seccomp.seccomp, _BOTH, Part.HOST),
    "curl": Measurement(curls.curls, (Part.HOST,), Part.HOST),
    "crowds": Measurement(crowds.crowds, (Part.HOST,), Part.HOST),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print. Returns 1 if an aim was missed and `--strict` is given, 2 if nothing can be measured."""
    options = _parse(arguments)
    kernel, part = probe(), Part(options.part)
    if part is Part.KERNEL and not kernel.tls:
        print(f"bench: the part {part} needs a kernel with TLS: {kernel.reason}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    taken: dict[str, list[Row]] = {}
    with world(part) as everything:
        if options.beside:
            print(f"bench: {part}: beside {options.beside} ...", file=sys.stderr)
            taken["beside"] = beside.beside(everything, options.beside)
        for name in options.only or ([] if options.beside else _of(part)):
            print(f"bench: {part}: {name} ...", file=sys.stderr)
            taken[name] = _taken(MEASUREMENTS[name], everything)
    rows = [row for some in taken.values() for row in some]
    about = _about(part) | {"seconds": str(round(time.perf_counter() - started))}
    if options.json:
        json.dump({"about": about, "rows": [row.describe() for row in rows]}, sys.stdout, indent=2)
        print()
    else:
        _show(part, about, rows, options.beside or "ssl")
    if options.write and part is Part.HOST:
        page.write(taken, about)
    return int(options.strict and any(row.met is False for row in rows))


def _of(part: Part) -> list[str]:
    return [name for name, measurement in MEASUREMENTS.items() if part in measurement.parts]


def _taken(measurement: Measurement, everything: World) -> list[Row]:
    """The rows of a measurement. An aim that counts in the other part only is left out."""
    rows = measurement.take(everything)
    return rows if measurement.aims is everything.part else [replace(row, aim="", met=None) for row in rows]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure ssa beside Python's ssl: samples of both in turn, in one kernel and one run. The part "
        "`host` measures the relay on this machine; the part `kernel` measures kernel TLS, as root: "
        "tools/kernel-run python -m bench.",
    )
    default = Part.KERNEL if probe().tls else Part.HOST
    parser.add_argument("only", nargs="*", metavar="MEASUREMENT", help=f"take only these: {', '.join(MEASUREMENTS)}")
    parser.add_argument(
        "--part",
        choices=list(Part),
        default=default,
        help=f"the part to measure (default on this kernel: {default})",
    )
    parser.add_argument(
        "--beside",
        metavar="REV",
        help="measure this revision's daemon beside that one's (of git), with the load of both in turn; then only the "
        "measurements that are named. As root: also with several users",
    )
    parser.add_argument("--json", action="store_true", help="print JSON with quartiles, for programs")
    parser.add_argument(
        "--write", action="store_true", help=f"write what the part host has into docs/{page.PAGE.name}, and its plot"
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 if an aim is missed")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(_of(Part(options.part))):
        parser.error(f"no such measurement in the part {options.part}: {', '.join(sorted(unknown))}")
    if options.beside and not beside.is_known(options.beside):
        parser.error(f"git knows no revision {options.beside!r} here")
    return options


def _about(part: Part) -> dict[str, str]:
    """The facts about this machine that the numbers depend on."""
    versions = {name: importlib.metadata.version(name) for name in ("pyOpenSSL", "cryptography", "trio")}
    return {
        "part": f"{part}: {_PARTS[part]}",
        "kernel": f"{platform.system()} {platform.release()} {_machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} visible",
        "python": platform.python_version(),
        "ssa": ", ".join(f"{name} {version}" for name, version in versions.items())
        + f", {backend.openssl_version_text()}",
        "ssl": ssl.OPENSSL_VERSION,
    }


_PARTS = {
    Part.HOST: "the relay on this machine's own kernel and cores",
    Part.KERNEL: "kernel TLS; under user-mode Linux the ratios count, not the times",
}


def _machine() -> str:
    return platform.machine() + (", user-mode" if "UML" in _cpuinfo().get("model name", "") else "")


def _processor() -> str:
    """The processor. User-mode Linux does not know its name, but passes on the flags that matter."""
    fields = _cpuinfo()
    marks = [flag for flag in ("aes", "vaes", "avx512f") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', 'unknown')} with {', '.join(marks) or 'no aes'}"


def _cpuinfo() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _show(part: Part, about: dict[str, str], rows: list[Row], other: str) -> None:
    table = Table(title=f"ssa beside {other}, medians: {part}", title_justify="left")
    for heading in ("", "ssa", other, "unit", "ratio", "aim", ""):
        table.add_column(heading, justify="right" if heading in ("ssa", other, "ratio") else "left")
    for row in rows:
        name = f"{row.name}\n[dim]{row.note}[/]" if row.note else row.name
        ours, theirs = (page.number(side.median) if side else "" for side in (row.ours, row.theirs))
        table.add_row(
            name, ours, theirs, row.unit, page.number(row.ratio) if row.ratio else "", row.aim, page.verdict(row)
        )
    console = _console()
    console.print(table)
    for key, value in about.items():
        console.print(f"{key:>10}: {value}", highlight=False)


def _console() -> Console:
    """A console as wide as the terminal; in a pipe, even behind a guest's console, as wide as the table."""
    terminal = sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0
    return Console() if terminal else Console(width=140, force_terminal=False)


if __name__ == "__main__":
    sys.exit(main())
