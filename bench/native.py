"""What libssa costs: its calls on a live socket beside plain ones, and an idle preload (`make native` first)."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measure import Row, Samples

if TYPE_CHECKING:
    from bench.world import World

NATIVE = Path(__file__).resolve().parents[1] / "build" / "native"
_MOST_CALL, _MOST_IDLE = 1.05, 0.2  # of a plain call; milliseconds a process


def native(everything: World) -> list[Row]:
    """A row for writing, one for reading, and one for a process that makes no TLS."""
    return [*_calls(everything), _idle()]


def _calls(everything: World) -> list[Row]:
    columns = _measured("calls", _flood(everything), everything.daemon.environment)
    return [_call("send(2), 256 bytes", *columns[:2]), _call("recv(2), 256 bytes", *columns[2:])]


def _call(name: str, ours: Samples, plain: Samples) -> Row:
    name = f"libssa: {name}, beside the system call"
    return Row.compared(name, "ns", ours, plain, _MOST_CALL, f"<= {_MOST_CALL}")


def _idle() -> Row:
    plain, preloaded = _measured("idle", "/bin/true", {}, NATIVE / "libssa.so")
    added = (preloaded.median - plain.median) / 1000
    return Row(
        name="libssa: a process that makes no TLS, beside one without the preload",
        unit="us",
        ours=preloaded,
        theirs=plain,
        ratio=preloaded.median / plain.median,
        aim=f"<= {_MOST_IDLE} ms more",
        met=added <= _MOST_IDLE,
        note=f"{added:.3f} ms more",
    )


def _measured(what: str, argument: object, environment: dict[str, str], *more: object) -> list[Samples]:
    """The columns that the program prints."""
    command = [NATIVE / "bench" / "cost", what, str(argument), *map(str, more)]
    done = subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True)
    rows = [[float(word) for word in line.split()] for line in done.stdout.splitlines()]
    return [Samples(column) for column in zip(*rows, strict=True)]


def _flood(everything: World) -> int:
    """A TLS server for one client, which sends and reads as fast as it goes; its port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(everything.cert, everything.key)
    listener = socket.create_server(("127.0.0.1", 0))

    def drain(tls: ssl.SSLSocket) -> None:
        try:
            while tls.recv(1 << 16):
                pass
        except OSError:
            return

    def serve() -> None:
        with listener, context.wrap_socket(listener.accept()[0], server_side=True) as tls:
            threading.Thread(target=drain, args=(tls,), daemon=True).start()
            try:
                while True:
                    tls.sendall(bytes(1 << 14))
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    return int(listener.getsockname()[1])
