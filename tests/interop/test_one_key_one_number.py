"""No key protects two records of one number (RFC 8446 section 5.3): what was on the wire is decrypted.

Whoever asks for a next key, in whatever thread or process, once or again: reading the secret, sending the KeyUpdate,
installing the key and remembering its secret are one step.
"""

import contextlib
import os
import socket
import threading
import time

import pytest

from ssa.handshake import records
from ssa.ktls.key_schedule import next_secret, traffic_key
from ssa.ktls.rekey import key_update
from ssa.library import key_lifetime
from ssa.library.connection import DaemonConnection, change_sending_key, serve_handshake
from ssa.protocol import wire
from ssa.suites import AEADS, TLSVersion
from ssa.tls import APPLICATION_DATA, HANDSHAKE
from tests.interop import raw as peer

TLS13 = TLSVersion.TLSv1_3


class Tap:
    """All that came for the raw peer, as it was on the wire, read in a thread until TCP's end."""

    def __init__(self, raw):
        self._raw, self._stream = raw, bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        self._raw.sock.settimeout(60)
        with contextlib.suppress(OSError):
            while data := self._raw.sock.recv(1 << 16):
                self._stream += data

    def judged(self):
        """What was sent, and how many KeyUpdates. A record that is not the next one under the key in use fails."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        suite, secrets = self._raw.suite, [self._raw.rx.secret]
        found, rest = records.split_untrusted(bytes(self._stream))
        assert rest == b""
        content, number = b"", 0
        for record in found:
            opened = records.open_untrusted(suite.aead, traffic_key(suite, secrets[-1]), number, record)
            assert opened is not None, self._explained(suite, secrets, number, record)
            number += 1
            if opened == (HANDSHAKE, key_update(requested=False)):
                secrets.append(next_secret(suite, secrets[-1]))
                number = 0
            elif opened[0] == APPLICATION_DATA:
                content += opened[1]
        return content, len(secrets) - 1

    @staticmethod
    def _explained(suite, secrets, due, record):
        for age, secret in enumerate(reversed(secrets)):
            for number in range(1000):
                if records.open_untrusted(suite.aead, traffic_key(suite, secret), number, record):
                    return f"record {number} of key {len(secrets) - 1 - age}, where {due} of {len(secrets) - 1} is due"
        return "a record under a key that is none"


@pytest.fixture
def connection(ssad, capabilities, pki):
    """Ours, and what goes over the wire; where the kernel cannot change keys there is nothing to be seen."""
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")
    with peer.connected(pki, TLS13) as (ours, raw):
        yield ours, Tap(raw)


@pytest.fixture
def low_limit(monkeypatch):
    """A key of ours serves for 64 records."""
    for aead in AEADS.values():
        monkeypatch.setattr(aead, "limit", 64)
    monkeypatch.setattr(key_lifetime, "STRIDE", 16)


def together(number, do):
    """Have threads call `do` at the same time."""
    barrier = threading.Barrier(number)

    def run(which):
        barrier.wait()
        do(which)

    threads = [threading.Thread(target=run, args=(which,), daemon=True) for which in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def test_several_ask_at_once(connection):
    ours, tap = connection
    for number in range(10):
        together(4, lambda _: change_sending_key(ours))
        ours.sendall(b"%d" % number)
    ours.close()
    assert tap.judged() == (b"0123456789", 40)


def test_who_gives_up_and_asks_again(connection):
    ours, tap = connection
    for number in range(10):
        for _ in range(3):
            with DaemonConnection(time.monotonic() + 5) as daemon:
                daemon.tell(wire.Rekey(sending=1), ours)
        change_sending_key(ours)
        ours.sendall(b"%d" % number)
    ours.close()
    content, updates = tap.judged()
    assert content == b"0123456789"
    assert 10 <= updates <= 40  # who has gone before its turn came has none


@pytest.mark.parametrize("gone", [False, True], ids=["who waits", "who has given up"])
def test_several_ask_behind_a_send_that_is_blocked(ssad, capabilities, pki, gone):
    """The kernel makes the first KeyUpdate wait; meanwhile others are asked for."""
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")
    with peer.connected(pki, TLS13) as (ours, raw), contextlib.ExitStack() as asking:
        ours.settimeout(None)
        sender = threading.Thread(target=os.write, args=(ours.fileno(), bytes(1 << 24)), daemon=True)
        sender.start()
        time.sleep(0.3)
        for _ in range(3):
            daemon = asking.enter_context(DaemonConnection(time.monotonic() + 60))
            daemon.tell(wire.Rekey(sending=1), ours)
            time.sleep(0.1)
        if gone:
            asking.close()
            time.sleep(0.1)
        tap = Tap(raw)
        sender.join(60)
        change_sending_key(ours)
        ours.sendall(b"behind")
        ours.close()
        content, updates = tap.judged()
        assert content == bytes(1 << 24) + b"behind"
        assert updates == 2 if gone else 4


def in_children(number, do):
    """Have forked processes call `do`, and nothing else."""
    children = []
    for which in range(number):
        child = os.fork()
        if not child:
            status = 1
            try:
                do(which)
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * number


def lines(content):
    return sorted(content.splitlines())


SENT = [b"%d %d" % (which, count) for which in (0, 1) for count in range(600)]


def send_lines(send, which):
    for line in SENT[600 * which : 600 * which + 600]:
        send(line + b"\n")


def test_two_forked_senders_near_the_limit(connection, low_limit):
    ours, tap = connection
    in_children(2, lambda which: send_lines(ours.sendall, which))
    ours.close()
    content, updates = tap.judged()
    assert lines(content) == sorted(SENT)
    assert updates >= 1200 // 64


def test_two_forked_senders_of_a_bare_descriptor(ssad, capabilities, pki, low_limit):
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")
    with peer.bare(pki, TLS13) as (ours, raw):
        tap = Tap(raw)
        in_children(2, lambda which: send_lines(ours.send, which))
        ours.close()
        assert lines(tap.judged()[0]) == sorted(SENT)


def test_a_fork_sends_on_beside_its_parent(connection, low_limit):
    ours, tap = connection
    ours.sendall(b"")
    thread = threading.Thread(target=in_children, args=(1, lambda which: send_lines(ours.sendall, which)))
    thread.start()
    send_lines(ours.sendall, 1)
    thread.join(60)
    ours.close()
    assert lines(tap.judged()[0]) == sorted(SENT)


def test_threads_of_one_process_near_the_limit(connection, low_limit):
    ours, tap = connection
    together(2, lambda which: send_lines(ours.sendall, which))
    ours.close()
    assert lines(tap.judged()[0]) == sorted(SENT)


def test_twins_near_the_limit(connection, low_limit):
    ours, tap = connection
    twin = ours.dup()
    together(2, lambda which: send_lines((ours, twin)[which].sendall, which))
    twin.close()
    ours.close()
    assert lines(tap.judged()[0]) == sorted(SENT)


def test_a_change_that_fails_half_way_ends_the_connection(connection):
    """Its secret cannot be known any more: nothing is sent under whatever key is in use."""
    ours, tap = connection
    ours.sendall(b"before")
    change_sending_key(ours)
    ours.shutdown(socket.SHUT_WR)
    for _ in range(3):
        with pytest.raises(OSError):
            change_sending_key(ours)
    assert tap.judged() == (b"before", 1)


def test_readers_ask_at_once(ssad, capabilities, pki):
    """The receiving direction: each KeyUpdate of the peer's is followed once, whoever has seen it."""
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")
    with peer.connected(pki, TLS13) as (ours, raw):
        for number in range(20):
            raw.send(raw.key_update(), raw.seal(b"%03d" % number))
            time.sleep(0.02)
            together(4, lambda _: serve_handshake(ours))
            assert ours.recv(3) == b"%03d" % number
