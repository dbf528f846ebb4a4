"""What happens to datagrams: a proxy that loses, repeats and exchanges them, and programs that speak DTLS."""

from __future__ import annotations

import contextlib
import heapq
import random
import select
import socket
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests import peers


@dataclass(frozen=True)
class Weather:
    """What becomes of each datagram, by chance; the same for the same seed and the same order of events."""

    seed: int = 0
    lost: float = 0.0
    repeated: float = 0.0
    late: float = 0.0  # so that others overtake it


class Proxy:
    """A UDP proxy before a server. It keeps what has passed, for who wants to send it again."""

    DELAY = 0.05  # seconds

    def __init__(self, port: int, weather: Weather = Weather()) -> None:
        self.weather = weather
        self.passed: list[tuple[str, bytes]] = []  # ("up" to the server or "down", datagram)
        self._server = ("127.0.0.1", port)
        self._random = random.Random(weather.seed)
        self._front = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._front.bind(("127.0.0.1", 0))
        self._backs: dict[tuple[str, int], socket.socket] = {}
        self._late: list[tuple[float, int, socket.socket, bytes, tuple[str, int]]] = []
        self._count = 0
        self._ended, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    @property
    def port(self) -> int:
        return self._front.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.close()
        self._thread.join()
        for sock in (self._front, self._ended, *self._backs.values()):
            sock.close()

    def to_server(self, datagram: bytes) -> None:
        """As if the client had sent it."""
        (back,) = self._backs.values()
        back.sendto(datagram, self._server)

    def to_client(self, datagram: bytes) -> None:
        """As if the server had sent it."""
        (client,) = self._backs
        self._front.sendto(datagram, client)

    def _run(self) -> None:
        while True:
            due = max(0.0, self._late[0][0] - time.monotonic()) if self._late else None
            ready, _, _ = select.select([self._ended, self._front, *self._backs.values()], [], [], due)
            if self._ended in ready:
                return
            while self._late and self._late[0][0] <= time.monotonic():
                *_, sock, datagram, address = heapq.heappop(self._late)
                self._send(sock, datagram, address)
            for sock in ready:
                with contextlib.suppress(ConnectionRefusedError):
                    self._forward(sock)

    def _forward(self, sock: socket.socket) -> None:
        datagram, address = sock.recvfrom(65536)
        if sock is self._front:
            if address not in self._backs:
                self._backs[address] = self._new_back()
            self.passed.append(("up", datagram))
            self._weather(self._backs[address], datagram, self._server)
        else:
            client = next(address for address, back in self._backs.items() if back is sock)
            self.passed.append(("down", datagram))
            self._weather(self._front, datagram, client)

    def _new_back(self) -> socket.socket:
        """What the server takes a new client for."""
        back = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        back.bind(("127.0.0.1", 0))
        return back

    def _weather(self, sock: socket.socket, datagram: bytes, address: tuple[str, int]) -> None:
        lost, repeated, late = (self._random.random() for _ in range(3))
        if lost < self.weather.lost:
            return
        for _ in range(2 if repeated < self.weather.repeated else 1):
            if late < self.weather.late:
                self._count += 1
                heapq.heappush(self._late, (time.monotonic() + self.DELAY, self._count, sock, datagram, address))
            else:
                self._send(sock, datagram, address)

    @staticmethod
    def _send(sock: socket.socket, datagram: bytes, address: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):
            sock.sendto(datagram, address)


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def is_bound(port: int) -> bool:
    """Whether some UDP socket of this network namespace has the port."""
    return any(
        f":{port:04X} " in line.split(" ", 6)[-1] or f":{port:04X}" in line.split()[1]
        for table in ("/proc/net/udp", "/proc/net/udp6")
        for line in Path(table).read_text().splitlines()[1:]
    )


def program(*command: object, port: int | None = None):
    """A program with pipes, from the moment it has its port until the end of the block."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "bufsize": 0}
    return peers.program(*command, port=port, ready=is_bound, **pipes)


def read_until(process: subprocess.Popen, wanted: bytes, seconds: float = 20) -> bytes:
    """What a program prints, up to and with what is waited for."""
    deadline, printed = time.monotonic() + seconds, b""
    while wanted not in printed:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
            raise AssertionError(f"{wanted!r} is not in {printed!r}")
        data = process.stdout.read(65536)
        if not data:
            raise AssertionError(f"{wanted!r} is not in {printed!r}, which is all")
        printed += data
    return printed


@contextlib.contextmanager
def openssl_server(pki, *arguments: object, cert=None):
    port = free_port()
    certificate, key = cert or (pki.cert, pki.key)
    command = ("openssl", "s_server", "-dtls1_2", "-accept", port, "-cert", certificate, "-key", key, *arguments)
    with program(*command, port=port) as process:
        yield port, process


@contextlib.contextmanager
def gnutls_server(pki, *arguments: object):
    port = free_port()
    files = ("--x509certfile", pki.cert, "--x509keyfile", pki.key)
    with program("gnutls-serv", "--udp", "--echo", "-p", port, *files, *arguments, port=port) as process:
        yield port, process
