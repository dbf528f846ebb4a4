"""SO_LINGER {1, 0}: a close is an abort. The peer gets a reset, and no close_notify before it."""

import asyncio
import contextlib
import os
import socket
import ssl
import struct
import threading
import time

import pytest
import trio

import ssa
import ssa.trio
from ssa.library.fdswap import Borrowed
from tests import peers

ABORT = struct.pack("ii", 1, 0)


@pytest.fixture
def ssad(either):
    """All that is said here holds on both data paths."""
    return either


class Peer:
    """A server that reads when it is told to, and knows how the stream ended. TLS is apart from TCP, to see both."""

    def __init__(self, pki):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert, pki.key)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.connected, self._may_read = threading.Event(), threading.Event()
        self._done = threading.Event()
        self._ended = []

    def __call__(self, tcp):
        self._do(self._tls.do_handshake, tcp)
        self.connected.set()
        self._may_read.wait(20)
        try:
            while self._do(lambda: self._tls.read(2**20), tcp):
                pass
            self._ended.append("close_notify")
            while tcp.recv(2**20):
                pass
            self._ended.append("FIN")
        except ssl.SSLEOFError:
            self._ended.append("FIN")
        except ConnectionResetError:
            self._ended.append("reset")
        self._done.set()

    def _do(self, call, tcp):
        while True:
            try:
                return call()
            except ssl.SSLWantReadError:
                if self._outgoing.pending:
                    tcp.sendall(self._outgoing.read())
                if data := tcp.recv(2**20):
                    self._incoming.write(data)
                else:
                    self._incoming.write_eof()
            finally:
                if self._outgoing.pending:
                    tcp.sendall(self._outgoing.read())

    def saw(self):
        self._may_read.set()
        assert self._done.wait(20)
        return self._ended


@pytest.fixture
def peer(pki):
    return Peer(pki)


@pytest.fixture
def port(ssad, peer):
    with peers.script(peer) as port:
        yield port


@pytest.fixture
def client(port, peer):
    with ssa.create_connection(("localhost", port), timeout=10) as sock:
        assert peer.connected.wait(10)
        yield sock


def aborting(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
    return sock


def filled(sock):
    """Its send buffer has no room."""
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(16384))
    return sock


def all_of(sock):
    while sock.recv(100):
        pass


def in_mid_stream(sock):
    aborting(sock).sendall(bytes(20_000))
    sock.close()


def without_waiting(sock):
    sock.setblocking(False)
    aborting(sock).send(b"some")
    sock.close()


def with_a_full_buffer(sock):
    aborting(filled(sock)).close()


def behind_a_shutdown_that_waits_for_room(sock):
    """By then the daemon is at it."""
    filled(sock).shutdown(socket.SHUT_WR)
    time.sleep(0.3)
    aborting(sock).close()


def by_the_last_of_two(sock):
    with aborting(sock).dup() as twin:
        sock.close()
        twin.sendall(b"still here")


def by_its_file(sock):
    file = aborting(sock).makefile("wb")
    sock.close()
    file.write(b"said")
    file.close()


def by_its_number(sock):
    ssa.close(aborting(sock).detach())


def by_another_object(sock):
    fd = aborting(sock).detach()
    ssa.socket(fileno=fd).close()


def by_the_collector(sock):
    fd = aborting(sock).detach()
    with pytest.warns(ResourceWarning):
        ssa.socket(fileno=fd)


def by_the_system_call(sock):
    os.close(aborting(sock).detach())


def by_asyncio(sock):
    async def abort():
        reader, writer = await asyncio.open_connection(sock=sock)
        writer.write(b"some")
        del reader
        writer.close()
        await writer.wait_closed()

    asyncio.run(abort())


def by_trio(sock):
    async def abort():
        stream = ssa.trio.from_stdlib_socket(sock)
        with trio.fail_after(1):
            await stream.aclose()

    aborting(filled(sock))
    trio.run(abort)


WAYS = [
    in_mid_stream,
    without_waiting,
    with_a_full_buffer,
    behind_a_shutdown_that_waits_for_room,
    by_the_last_of_two,
    by_its_file,
    by_its_number,
    by_another_object,
    by_the_collector,
    by_the_system_call,
    by_trio,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_peer_is_reset(client, peer, ssad, way):
    way(client)
    time.sleep(0.3)  # a reset overtakes what was not read
    assert peer.saw() == ["reset"]
    assert peers.settled(lambda: ssad.sockets() == [], 5)


def test_asyncio_resets(client, peer):
    aborting(client)
    by_asyncio(client)
    assert peer.saw() == ["reset"]


def test_a_bare_descriptor(port, peer):
    fd = ssa.connect_tls("localhost", port)
    assert peer.connected.wait(10)
    with Borrowed(fd) as sock:
        aborting(sock)
    ssa.send(fd, b"some")
    ssa.close(fd)
    assert peer.saw() == ["reset"]


def test_an_accepted_socket(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        aborting(listener)  # it is inherited
        with ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10) as client:
            accepted, _ = listener.accept()
            accepted.sendall(b"some")
            accepted.close()
            with pytest.raises(ConnectionResetError):
                all_of(client)


def test_a_shutdown_before_is_in_order(client, peer):
    """TCP has it so: what shutdown(2) ends is ended, whatever close(2) is to do later."""
    aborting(client).shutdown(socket.SHUT_WR)
    assert peer.saw() == ["close_notify", "FIN"]
    client.close()


def test_a_time_to_linger_is_no_abort(client, peer):
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
    client.sendall(bytes(20_000))
    client.close()
    assert peer.saw() == ["close_notify", "FIN"]


def test_one_of_two_says_nothing(client, peer):
    """A process that closes its copy ends nothing: not even so."""
    with aborting(client).dup() as twin:
        client.close()
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        twin.sendall(b"more")
    assert peer.saw() == ["close_notify", "FIN"]
