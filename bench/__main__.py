"""`python -m bench`: one run of everything, as a table with the aim beside each ratio, or as JSON."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import ssl
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.backends.openssl import backend
from rich.console import Console
from rich.table import Table

from bench import bulk, handshakes, processes, relay, servers, sockets
from bench.world import World, world
from ssa.ktls.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.measure import Row

# In this order: the memory is measured after the daemon has grown to its usual size.
MEASUREMENTS: dict[str, Callable[[World], list[Row]]] = {
    "warm": handshakes.warm,
    "fresh": processes.fresh,
    "cpu": handshakes.cpu,
    "at-once": handshakes.at_once,
    "memory": handshakes.live,
    "bulk": bulk.bulk,
    "calls": sockets.calls,
    "echo": sockets.echo,
    "serve": servers.serve,
    "idle": servers.idle,
    "relay": relay.relay,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; 1 where an aim was missed and `--strict` was given, 2 where nothing can be measured."""
    options = _parse(arguments)
    kernel = probe()
    if not kernel.tls:
        print(f"bench: there is nothing to measure without kernel TLS: {kernel.reason}", file=sys.stderr)
        return 2
    started = time.perf_counter()
    rows: list[Row] = []
    with world() as everything:
        for name in options.only or MEASUREMENTS:
            print(f"bench: {name} ...", file=sys.stderr)
            rows += MEASUREMENTS[name](everything)
    about = _about() | {"seconds": str(round(time.perf_counter() - started))}
    if options.json:
        json.dump({"about": about, "rows": [row.describe() for row in rows]}, sys.stdout, indent=2)
        print()
    else:
        _show(about, rows)
    return int(options.strict and any(row.met is False for row in rows))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure ssa beside Python's ssl: samples of both in turn, in one kernel and one run. Root, and "
        "kernel TLS, are needed: tools/kernel-run python -m bench.",
    )
    parser.add_argument("only", nargs="*", metavar="MEASUREMENT", help=f"of these only: {', '.join(MEASUREMENTS)}")
    parser.add_argument("--json", action="store_true", help="JSON on standard output, with quartiles, for programs")
    parser.add_argument("--strict", action="store_true", help="exit status 1 if an aim is missed")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(MEASUREMENTS):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    return options


def _about() -> dict[str, str]:
    """What a number means nothing without."""
    versions = {name: importlib.metadata.version(name) for name in ("pyOpenSSL", "cryptography", "trio")}
    return {
        "kernel": f"{platform.system()} {platform.release()} {_machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} visible",
        "python": platform.python_version(),
        "ssa": ", ".join(f"{name} {version}" for name, version in versions.items())
        + f", {backend.openssl_version_text()}",
        "ssl": ssl.OPENSSL_VERSION,
    }


def _machine() -> str:
    return platform.machine() + (", user-mode" if "UML" in _cpuinfo().get("model name", "") else "")


def _processor() -> str:
    """User-mode Linux does not tell the processor's name, but passes on the flags that decide."""
    fields = _cpuinfo()
    marks = [flag for flag in ("aes", "vaes", "avx512f") if flag in fields.get("flags", "").split()]
    return f"{fields.get('model name', 'unknown')} with {', '.join(marks) or 'no aes'}"


def _cpuinfo() -> dict[str, str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def _show(about: dict[str, str], rows: list[Row]) -> None:
    table = Table(title="ssa beside ssl, medians", title_justify="left")
    for heading in ("", "ssa", "ssl", "unit", "ratio", "aim", ""):
        table.add_column(heading, justify="right" if heading in ("ssa", "ssl", "ratio") else "left")
    for row in rows:
        verdict = {True: "met", False: "[bold]missed[/]", None: ""}[row.met]
        name = f"{row.name}\n[dim]{row.note}[/]" if row.note else row.name
        ours, theirs = (_number(side.median) if side else "" for side in (row.ours, row.theirs))
        table.add_row(name, ours, theirs, row.unit, _number(row.ratio) if row.ratio else "", row.aim, verdict)
    console = _console()
    console.print(table)
    for key, value in about.items():
        console.print(f"{key:>10}: {value}", highlight=False)


def _console() -> Console:
    """Of the terminal's width; of the table's own for a pipe, even one that a guest's console stands for."""
    terminal = sys.stdout.isatty() and os.get_terminal_size(sys.stdout.fileno()).columns > 0
    return Console() if terminal else Console(width=140, force_terminal=False)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
