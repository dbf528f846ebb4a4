"""The thread that relays one user's connections: it reads nothing too early, and it idles before it ends."""

import logging
import os
import socket

import pytest
import trio

from ssa.relay import threads
from ssa.relay.threads import Relays
from ssa.suites import BY_OPENSSL_NAME
from tests.peers import settled
from tests.unit.test_relay_turns import tls_in_memory


class User:
    """One user's relayed connections; `made` are the peers, with OpenSSL's connection at their end."""

    def __init__(self):
        self.running = set()
        self.relays = Relays(lambda _: False, self.let_go, logging.getLogger("ssa.relay"), self.running)
        self.over = 0

    def let_go(self, relay):
        for sock in relay.sockets():
            sock.close()
        self.over += 1

    def relay(self):
        client, server = tls_in_memory()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            tcp = socket.create_connection(listener.getsockname())
            peer, _ = listener.accept()
        tcp.setblocking(False)
        relay, outer = self.relays.add(client, BY_OPENSSL_NAME[client.get_cipher_name()], tcp)
        return relay, tcp, outer, peer, server

    @property
    def thread(self):
        return self.relays._thread


async def reaches(condition):
    with trio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.005)


def test_what_the_peer_sends_is_read_from_the_beginning_on_and_not_before():
    async def main():
        user = User()
        relay, tcp, outer, peer, server = user.relay()
        with outer, peer:
            server.send(b"hello")
            peer.sendall(server.bio_read(1 << 16))
            await trio.sleep(0.1)
            assert tcp.recv(1, socket.MSG_PEEK)
            user.relays.begin(relay)
            outer.settimeout(5)
            assert outer.recv(10) == b"hello"
        await reaches(lambda: user.over == 1)
        user.thread.stop()
        await reaches(lambda: not user.running)

    trio.run(main)


def test_an_end_that_is_closed_before_the_beginning_ends_the_connection():
    """A handshake can fail behind the relay's making, where the connection cannot be registered."""

    async def main():
        user = User()
        _, _, outer, peer, _ = user.relay()
        with peer:
            outer.close()
            await reaches(lambda: user.over == 1)
        user.thread.stop()
        await reaches(lambda: not user.running)

    trio.run(main)


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(threads, "_IDLE", 0.3)


def test_a_thread_without_connections_waits_for_the_next_one_and_then_ends(short):
    async def main():
        user, served = User(), set()
        for number in range(1, 4):
            relay, _, outer, peer, _ = user.relay()
            user.relays.begin(relay)
            served.add(user.thread)
            outer.close()
            peer.close()
            await reaches(lambda number=number: user.over == number)
            await trio.sleep(0.1)
        (thread,) = served
        assert user.thread is thread
        assert user.running == {user.relays}
        assert user.relays.descriptors() == 2  # the thread's own
        await reaches(lambda: user.thread is None)
        assert not user.running
        assert user.relays.descriptors() == 0
        await reaches(lambda: not thread.is_alive())

    before = len(os.listdir("/proc/self/fd"))
    trio.run(main)
    assert settled(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_thread_that_has_a_connection_again_does_not_end(short):
    async def main():
        user = User()
        relay, _, outer, peer, _ = user.relay()
        with outer, peer:
            user.relays.begin(relay)
            thread = user.thread
            user.relays._idle(thread)  # what it said before it got the connection
            await trio.sleep(0.6)
            assert user.thread is thread
            assert thread.is_alive()
        await reaches(lambda: user.over == 1)
        await reaches(lambda: user.thread is None)

    trio.run(main)
