"""Measures a TLSSocket in a program: the cost of its calls against TCP's, and its latency against `ssl`'s."""

from __future__ import annotations

import contextlib
import functools
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO

import ssa
from bench.measure import Row, Samples, elapsed, interleaved
from bench.world import HOST, World, connect_ssl

_CALLS = 400
_BATCH = 20
_ROUNDS = 25
_MESSAGE = bytes(64)
_ECHOES = 200


def calls(world: World) -> list[Row]:
    """Measure send and recv of messages so short that the call dominates, on a TLS socket and on a TCP socket.

    Both ends are in this process, and of one kind: a sample is so many messages sent, and then received. What the
    kernel does for TLS in each call is in it, and the same calls by `socket.socket` on the same descriptor tell it
    apart from what the class adds. Where the kernel can change keys, a read with room to spare has to look behind
    what it got: so recv is measured both ways.
    """
    with _tls_pair(world) as tls, _tcp_pair() as tcp, _bare(tls) as bare:
        return [
            *_call_rows([tls, tcp, bare], len(_MESSAGE), ("send", "recv of what is there")),
            *_call_rows([tls, tcp, bare], 4096, (None, "recv with room to spare")),
        ]


Pair = tuple[socket.socket, socket.socket]


def _call_rows(pairs: list[Pair], room: int, names: tuple[str | None, str]) -> list[Row]:
    rounds = [[_one_round(*pair, room) for pair in pairs] for _ in range(_ROUNDS)]
    rows = []
    for call, name in enumerate(names):
        if name is None:
            continue
        ours, theirs, plain = (Samples(tuple(times[pair][call] for times in rounds)) for pair in range(3))
        ratio, own = ours.median / theirs.median, ours.median / plain.median
        if room > len(_MESSAGE):
            rows.append(_own(name, ours, plain, rekeyable=getattr(pairs[0][1], "_rekeyable", True)))
        rows.append(
            Row(
                name=f"a TLSSocket's {name}, beside a TCP socket's",
                unit="us a call",
                ours=ours,
                theirs=theirs,
                ratio=ratio,
                aim="at most 1.2 times",
                met=ratio <= 1.2,
                note=f"socket.socket on the same descriptor: {plain.median:.2f} us, so the class makes x{own:.2f}",
            )
        )
    return rows


def _own(name: str, ours: Samples, plain: Samples, *, rekeyable: bool) -> Row:
    """A row that compares a call of TLSSocket with socket.socket's. The aim is for connections whose keys are fixed."""
    row = Row.compared(
        f"a TLSSocket's {name}, beside socket.socket's on the same descriptor", "us a call", ours, plain, 1.15, "1.15"
    )
    if rekeyable:
        return replace(row, aim="", met=None, note="keys can change: it looks behind what it got")
    return replace(row, aim="at most 1.15 times")


def _one_round(sender: socket.socket, receiver: socket.socket, room: int) -> tuple[float, float]:
    """The time of a send and of a recv, in microseconds. One message is there at each recv."""
    send, recv = sender.send, receiver.recv
    sending = receiving = 0.0
    for _ in range(_CALLS // _BATCH):
        sending += elapsed(lambda: [send(_MESSAGE) for _ in range(_BATCH)])
        if room == len(_MESSAGE):
            receiving += elapsed(lambda: [recv(room) for _ in range(_BATCH)])
        else:
            recv(len(_MESSAGE) * (_BATCH - 1))
            receiving += elapsed(lambda: recv(room)) * _BATCH
    return sending / _CALLS * 1e6, receiving / _CALLS * 1e6


def small_file(world: World) -> list[Row]:
    """Measure sendfile without a count until the other end has the last byte, over TLS and over TCP.

    Both ends are in this process. The file is so short that the calls are what costs, not the encryption.
    """
    with _tls_pair(world) as tls, _tcp_pair() as tcp, tempfile.TemporaryFile(dir="/dev/shm", buffering=0) as file:
        file.write(_MESSAGE)
        ours, theirs = interleaved(
            _ROUNDS * _BATCH, *(functools.partial(_send_a_file, file, *pair) for pair in (tls, tcp)), scale=1e6
        )
    ratio = ours.median / theirs.median
    return [
        Row(
            name=f"small file by sendfile ({len(_MESSAGE)} bytes), beside a TCP socket's",
            unit="us",
            ours=ours,
            theirs=theirs,
            ratio=ratio,
            aim="at most 1.2 times",
            met=ratio <= 1.2,
        )
    ]


def _send_a_file(file: IO[bytes], sender: socket.socket, receiver: socket.socket) -> float:
    def sent_and_received() -> None:
        sender.sendfile(file)
        left = len(_MESSAGE)
        while left:
            left -= len(receiver.recv(left))

    return elapsed(sent_and_received)


@contextlib.contextmanager
def _tls_pair(world: World) -> Iterator[Pair]:
    with ssa.create_server(("127.0.0.1", 0), certificate=world.cert, private_key=world.key) as listener:
        client = ssa.create_connection((HOST, listener.getsockname()[1]))
        server, _ = listener.accept()
        with client, server:
            client.sendall(b"x")  # what came with the handshake has been read then
            server.recv(1)
            server.sendall(b"x")
            client.recv(1)
            yield client, server


@contextlib.contextmanager
def _tcp_pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
        with client, server:
            yield client, server


@contextlib.contextmanager
def _bare(pair: Pair) -> Iterator[Pair]:
    """The descriptors of these sockets, as objects of `socket.socket`."""
    client, server = (socket.socket(fileno=sock.fileno()) for sock in pair)
    try:
        yield client, server
    finally:
        client.detach()
        server.detach()


def echo(world: World) -> list[Row]:
    """Measure a byte there and back, between a client and a server of the same kind."""
    with _tls_pair(world) as tls, ssl_server(world) as accept:
        plain = accept(lambda port: connect_ssl(world.context, port))
        with echoing(*tls) as ours, echoing(*plain) as theirs:
            a, b = round_trips(_ROUNDS, ours, theirs)
    return [Row(name="echo of one byte", unit="us", ours=a, theirs=b, ratio=a.median / b.median)]


def round_trips(rounds: int, *clients: socket.socket) -> list[Samples]:
    """The time of a round trip of one byte in microseconds, for each client in turn."""
    samples = [functools.partial(_echo, client) for client in clients]
    return interleaved(rounds, *samples, scale=1e6 / _ECHOES)


def _echo(client: socket.socket) -> float:
    def there_and_back() -> None:
        for _ in range(_ECHOES):
            client.sendall(b"x")
            client.recv(1)

    return elapsed(there_and_back)


@contextlib.contextmanager
def echoing(client: socket.socket, server: socket.socket) -> Iterator[socket.socket]:
    """The client, while the server sends back all that it receives."""
    for sock in (client, server):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1):
                server.sendall(data)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield client
    client.shutdown(socket.SHUT_WR)
    thread.join(5)


Connect = Callable[[int], socket.socket]


@contextlib.contextmanager
def ssl_server(world: World) -> Iterator[Callable[[Connect], Pair]]:
    """A server with `ssl`. It takes a function that connects to a port, and gives both ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(world.cert, world.key)
    with contextlib.ExitStack() as opened, socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[ssl.SSLSocket] = []

        def accept() -> None:
            accepted.append(opened.enter_context(context.wrap_socket(listener.accept()[0], server_side=True)))

        def both(connect: Connect) -> Pair:
            thread = threading.Thread(target=accept)
            thread.start()
            client = opened.enter_context(connect(listener.getsockname()[1]))
            thread.join()
            return client, accepted.pop()

        yield both
