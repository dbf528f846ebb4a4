"""Bulk data: the speed at which one end of a connection encrypts and decrypts, in the kernel and in the process."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import ssa
from bench.measure import Row, Samples, elapsed, interleaved
from bench.peer import BLOCK, GO, READY, SINK, SOURCE
from bench.world import HOST, World, beside, connect_ssl

_MEBIBYTES = 128
_SIZE = _MEBIBYTES << 20
_ROUNDS = 7
_CHUNK = 1 << 14  # bytes of a call, one record: so the cost of calls does not dominate

Move = Callable[[socket.socket], float]  # returns the seconds that moving all the data took


def bulk(world: World) -> list[Row]:
    """Measure sending, sending a file and receiving. Gives only the reason if the comparison would be unfair."""
    driver = _kernel_gcm()
    if not _accelerated(driver):
        note = f"not comparable: this kernel encrypts without the processor's AES ({driver or 'no gcm(aes)'})"
        return [Row(name="bulk data", unit="MB/s", ours=None, note=note)]
    with peer(world) as port, _file() as file:
        moves: dict[str, tuple[Move, Move]] = {
            "send": (functools.partial(_sending, _send),) * 2,
            "a file (sendfile; ssl: read and send)": (
                functools.partial(_sending, functools.partial(_sendfile, file)),
                functools.partial(_sending, functools.partial(_read_and_send, file)),
            ),
            "receive": (receiving, receiving),
        }
        return [_row(world, port, name, *both) for name, both in moves.items()]


def _row(world: World, port: int, name: str, our_move: Move, their_move: Move) -> Row:
    def ours() -> float:
        with ssa.create_connection((HOST, port)) as sock:
            return our_move(sock)

    def theirs() -> float:
        with connect_ssl(world.context, port) as sock:
            return their_move(sock)

    a, b = (rates(seconds) for seconds in interleaved(_ROUNDS, ours, theirs, warm_up=1))
    return Row(name=f"bulk data: {name}", unit="MB/s", ours=a, theirs=b, ratio=a.median / b.median)


def rates(seconds: Samples) -> Samples:
    """Megabytes a second, computed from the times."""
    return Samples(tuple(_SIZE / 1e6 / value for value in seconds.values))


def _sending(send: Callable[[socket.socket], None], sock: socket.socket) -> float:
    """The time until the peer has received the last byte."""

    def all_of_it() -> None:
        send(sock)
        with socket.socket(fileno=os.dup(sock.fileno())) as plain:  # past `ssl`, which has no half-close
            plain.shutdown(socket.SHUT_WR)
            plain.recv(1)

    sock.sendall(SINK)
    return elapsed(all_of_it)


def sending(sock: socket.socket) -> float:
    """Send all of it."""
    return _sending(_send, sock)


def _send(sock: socket.socket) -> None:
    block = bytes(_CHUNK)
    for _ in range(_SIZE // _CHUNK):
        sock.sendall(block)


def _sendfile(file: IO[bytes], sock: socket.socket) -> None:
    sock.sendfile(file, 0, _SIZE)


def _read_and_send(file: IO[bytes], sock: socket.socket) -> None:
    file.seek(0)
    buffer = memoryview(bytearray(_CHUNK))
    while count := file.readinto(buffer):
        sock.sendall(buffer[:count])


def receiving(sock: socket.socket) -> float:
    """The time from the request to begin until the last byte has come."""
    sock.sendall(SOURCE)
    buffer = bytearray(_CHUNK)
    if sock.recv_into(buffer, 1) != 1 or buffer[:1] != READY:
        raise RuntimeError("the peer is not ready to send")

    def all_of_it() -> None:
        sock.sendall(GO)
        left = _SIZE
        while left:
            count = sock.recv_into(buffer)
            if not count:
                raise RuntimeError(f"the stream ended {left} bytes early")
            left -= count

    return elapsed(all_of_it)


def _kernel_gcm() -> str:
    """The kernel's driver for AES-GCM, which is that of the highest priority; empty if it has none yet."""
    found = []
    for block in Path("/proc/crypto").read_text().split("\n\n"):
        fields = dict(map(str.strip, line.split(":", 1)) for line in block.splitlines() if ":" in line)
        if fields.get("name") == "gcm(aes)":
            found.append((int(fields["priority"]), fields["driver"]))
    return max(found, default=(0, ""))[1]


def _accelerated(driver: str) -> bool:
    """True if a driver's name says that it uses the processor's AES instructions."""
    return any(mark in driver for mark in ("aesni", "vaes", "-ce", "p10", "s390"))


def peer(world: World) -> contextlib.AbstractContextManager[int]:
    """Run the other end in a process of its own. Gives its port."""
    return beside("peer", world.cert, world.key, _SIZE // BLOCK)


@contextlib.contextmanager
def _file() -> Iterator[IO[bytes]]:
    """A file of so many bytes in memory, with all its pages allocated."""
    with tempfile.TemporaryFile(dir="/dev/shm", buffering=0) as file:
        for _ in range(_MEBIBYTES):
            file.write(os.urandom(1 << 20))
        yield file
