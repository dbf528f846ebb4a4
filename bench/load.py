"""Makes handshakes: `load.py HOST PORT`. It is run with the library of any revision, so it needs nothing else.

It takes lines: ``connect N`` for so many handshakes, each closed at once; ``hold N`` for connections that stay. It
answers each with the seconds that that took, and the seconds of its own CPU time.
"""

from __future__ import annotations

import os
import sys
import time

import ssa

_held: list[int] = []


def connect(host: str, port: int, times: int) -> None:
    """Connect and close."""
    for _ in range(times):
        os.close(ssa.connect_tls(host, port))


def hold(host: str, port: int, times: int) -> None:
    """Connect, and keep that until the end."""
    _held.extend(ssa.connect_tls(host, port) for _ in range(times))


if __name__ == "__main__":
    for line in sys.stdin:
        verb, number = line.split()
        started, spent = time.perf_counter(), time.process_time()
        {"connect": connect, "hold": hold}[verb](sys.argv[1], int(sys.argv[2]), int(number))
        print(time.perf_counter() - started, time.process_time() - spent, flush=True)
