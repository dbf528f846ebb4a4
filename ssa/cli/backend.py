"""The server behind `ssa serve`: its address, the connections to it, and the listener that it is started with.

A backend gets plain text. So it is on this machine: an AF_UNIX socket, or the loopback.
"""

from __future__ import annotations

import argparse
import errno
import ipaddress
import os
import re
import signal
import socket
import struct
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import trio

if TYPE_CHECKING:
    from collections.abc import Sequence

_IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)  # by Python, and a command would inherit that
FIRST_FD = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)
_BACKLOG = 4096  # connections; the kernel takes no more than net.core.somaxconn
_AGAIN = 0.01  # seconds until the next attempt to connect to a backend whose queue is full
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER {1, 0}: close(2) resets the connection
_ADDRESS = re.compile(r"\[(?P<v6>[^]]+)\]:(?P<port6>\d+)|(?P<v4>[^:]+):(?P<port4>\d+)")


class Address(NamedTuple):
    """Where a backend listens."""

    family: int
    address: str | tuple[str, int]

    def __str__(self) -> str:
        if isinstance(self.address, str):
            return f"unix:{self.address.replace(chr(0), '@', 1)}"
        host, port = self.address
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def address(text: str) -> Address:
    """Read `unix:/path`, `unix:@name` (an abstract socket), or an address of the loopback with a port."""
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith(("/", "@")) or len(path) == 1:
            raise argparse.ArgumentTypeError(f"{text!r}: the path has to be whole, as in unix:/run/app.sock")
        return Address(socket.AF_UNIX, "\0" + path[1:] if path[0] == "@" else path)
    found = _ADDRESS.fullmatch(text)
    host, port = (found["v6"] or found["v4"], int(found["port6"] or found["port4"])) if found else ("", 0)
    try:
        loopback = ipaddress.ip_address(host)
    except ValueError:
        loopback = None
    if loopback is None or not 0 < port < 1 << 16:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no address of a backend, expected such as unix:/run/app.sock, 127.0.0.1:8000, [::1]:8000"
        )
    if not loopback.is_loopback:
        raise argparse.ArgumentTypeError(f"{host} is not this machine's loopback: what is sent there is plain text")
    return Address(socket.AF_INET6 if loopback.version == 6 else socket.AF_INET, (host, port))


async def connect(to: Address, seconds: float) -> trio.SocketStream:
    """Connect to a backend. Raises OSError; TimeoutError where it does not accept in time."""
    try:
        with trio.fail_after(seconds):
            return trio.SocketStream(await (_connect_unix(to) if to.family == socket.AF_UNIX else _connect_tcp(to)))
    except trio.TooSlowError:
        raise TimeoutError(errno.ETIMEDOUT, f"it does not accept within {seconds:g} s") from None


async def _connect_tcp(to: Address) -> trio.socket.SocketType:
    sock = trio.socket.socket(to.family, socket.SOCK_STREAM)
    try:
        await sock.connect(to.address)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connect_unix(to: Address) -> trio.socket.SocketType:
    """While the backend's queue is full, a non-blocking connect(2) fails with EAGAIN, and nothing tells of room."""
    sock = socket.socket(to.family, socket.SOCK_STREAM)
    sock.setblocking(False)
    try:
        while True:
            await trio.lowlevel.checkpoint()
            try:
                sock.connect(to.address)
            except BlockingIOError:
                await trio.sleep(_AGAIN)
            else:
                return trio.socket.from_stdlib_socket(sock)
    except BaseException:
        sock.close()
        raise


def reset(plain: trio.SocketStream) -> None:
    """Close a connection to a backend whose client has not ended its stream. TCP says so; AF_UNIX cannot."""
    if plain.socket.family != socket.AF_UNIX:
        plain.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    plain.socket.close()


class PrivateListener:
    """A listening AF_UNIX socket for a backend that is started here, in a directory that only this user can enter."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="ssa-serve-")  # its mode is 0700
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = str(Path(self._directory.name) / "socket")
        self.socket.bind(path)
        self.socket.listen(_BACKLOG)
        self.address = Address(socket.AF_UNIX, path)

    def start(self, command: Sequence[str], *, activation: bool) -> int:
        """Start a command that has the listener as descriptor 3, and nobody else has it then. Its process number.

        `activation`: the command is told by LISTEN_FDS and LISTEN_PID, as of sd_listen_fds(3). Raises OSError.
        """
        variables = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
        if activation:  # LISTEN_PID has to be the number of the process that execve(2) makes the command
            variables["LISTEN_FDS"] = "1"
            command = ["/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *command]
        actions = [(os.POSIX_SPAWN_DUP2, self.socket.fileno(), FIRST_FD)]
        process = os.posix_spawnp(command[0], list(command), variables, file_actions=actions, setsigdef=_IGNORED)
        self.socket.close()
        return process

    def close(self) -> None:
        """Remove the socket. The backend may have removed it already, as gunicorn does."""
        self.socket.close()
        self._directory.cleanup()
