"""What a peer may send in a handshake, for ever and in crumbs: it is ended, and the others are served on."""

import contextlib
import socket
import statistics
import threading
import time

import pytest
import trio
from OpenSSL import SSL

import ssa
from ssa.handshake import records, tickets
from ssa.handshake.secrets import TrafficKeys
from ssa.handshake.tickets import Drain
from ssa.ktls.crypto_info import CryptoInfo
from ssa.ktls.key_schedule import TrafficKey
from ssa.suites import SUITES, TLSVersion
from tests import peers
from tests.interop.raw import context
from tests.peers import Daemon

UNEXPECTED_MESSAGE = b"\x15\x03\x03\x00\x02\x02\x0a"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 4\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(daemon, monkeypatch):
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    return daemon


def listening(pki):
    return ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key)


def record(kind, content):
    return bytes([kind, 3, 3]) + len(content).to_bytes(2, "big") + content


def message(kind, content):
    return bytes([kind]) + len(content).to_bytes(3, "big") + content


SERVER_HELLO = record(  # TLS 1.2, ECDHE-ECDSA-AES128-GCM, renegotiation_info
    22, message(2, b"\x03\x03" + bytes(32) + b"\0\xc0\x2b\0" + b"\0\5\xff\1\0\1\0")
)
HELLO_REQUEST = message(0, b"")
# Of each, what comes first, and what comes for ever behind it.
SERVERS = {
    "a HelloRequest a record": (SERVER_HELLO, record(22, HELLO_REQUEST)),
    "records full of HelloRequests": (SERVER_HELLO, record(22, HELLO_REQUEST * 4096)),
    "a message in crumbs": (SERVER_HELLO + record(22, b"\x0b\0\xff\xff"), record(22, b"x")),
    "a ServerHello in crumbs": (record(22, b"\x02\0\x40\0\3\3"), record(22, b"\0")),
}


def client_hello(pki):
    """What OpenSSL's client would send."""
    tls = SSL.Connection(context(pki, TLSVersion.TLSv1_3, server=False), None)
    tls.set_tlsext_host_name(b"localhost")
    tls.set_connect_state()
    with contextlib.suppress(SSL.WantReadError):
        tls.do_handshake()
    return tls.bio_read(65536)[5:]


def crumbs(content):
    return b"".join(record(22, bytes([byte])) for byte in content)


def flood(sock, first, forever):
    """Send until the other end has had enough; what it said."""
    said = bytearray()
    reader = threading.Thread(target=listen, args=(sock, said))
    reader.start()
    with contextlib.suppress(OSError):
        sock.sendall(first)
        while True:
            sock.sendall(forever * max(1, 60_000 // len(forever)))
    reader.join()
    return bytes(said)


def listen(sock, said):
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            said += data


@contextlib.contextmanager
def flooding(first, forever):
    """A server that never stops; what it was told at the end."""
    told = []

    def serve(connection):
        connection.recv(65536)
        told.append(flood(connection, first, forever))

    with peers.script(serve) as port:
        yield port, told


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_never_stops(ssad, name):
    with flooding(*SERVERS[name]) as (port, told):
        began = time.monotonic()
        with pytest.raises(ssa.HandshakeError) as caught:
            ssa.connect_tls("localhost", port)
        assert time.monotonic() - began < 2
        assert caught.value.reason in ("HANDSHAKE_TOO_LONG", "PROTOCOL_VIOLATION")
        assert caught.value.whose_fault == "peer"
        assert peers.settled(lambda: told)
    assert told[0][:1] in (b"", b"\x15")  # a reset can overtake it


def test_a_client_that_never_stops(ssad, pki):
    with listening(pki) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            sock.settimeout(10)
            flood(sock, record(22, b"\1\0\xff\xff\3\3"), record(22, b"x"))
        assert peers.settled(lambda: "HANDSHAKE_TOO_LONG" in ssad.log)


def test_the_last_word_to_one_that_never_stops(ssad, pki):
    """As many records as are too many, and no more: nothing is left unread that would reset the connection."""
    with listening(pki) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            sock.settimeout(10)
            sock.sendall(record(22, b"\1\0\xff\xff\3\3") + record(22, b"x") * 2048)
            said = bytearray()
            listen(sock, said)
        assert bytes(said) == UNEXPECTED_MESSAGE


def test_a_client_hello_in_one_byte_records(ssad, pki):
    """Odd, and allowed (RFC 8446 section 5.1)."""
    hello = client_hello(pki)
    with listening(pki) as listener, socket.create_connection(listener.getsockname()) as sock:
        sock.settimeout(10)
        sock.sendall(crumbs(hello))
        assert sock.recv(6)[:1] == b"\x16"


def test_a_client_hello_in_two_segments(ssad, pki):
    """As a post-quantum one is longer than a packet."""
    hello = record(22, client_hello(pki))
    with listening(pki) as listener, socket.create_connection(listener.getsockname()) as sock:
        sock.settimeout(10)
        for part in (hello[:1200], hello[1200:]):
            sock.sendall(part)
            time.sleep(0.1)
        assert sock.recv(6)[:1] == b"\x16"


def trickle(sock, gone):
    """A byte of a record every millisecond: the deadline ends it."""
    with contextlib.suppress(OSError):
        sock.sendall(b"\x16\3\3\x40\0")
        while not gone.wait(0.001):
            sock.sendall(b"x")


@pytest.mark.parametrize("role", ["client", "server"])
def test_the_deadline_holds_for_one_that_trickles(ssad, pki, role):
    gone = threading.Event()
    began = time.monotonic()
    if role == "client":
        with peers.script(lambda sock: trickle(sock, gone)) as port, pytest.raises(ssa.HandshakeTimeout):
            ssa.connect_tls("localhost", port, timeout=1)
    else:
        with listening(pki) as listener, socket.create_connection(listener.getsockname()) as sock:
            threading.Thread(target=trickle, args=(sock, gone)).start()
            listen(sock, bytearray())
    gone.set()
    assert time.monotonic() - began < 6


def hostile_servers(stack):
    """Ten clients of ours, each with such a server, over and over."""
    gone = threading.Event()
    ports = [stack.enter_context(flooding(*server))[0] for server in SERVERS.values()]

    def connect(port):
        while not gone.is_set():
            with contextlib.suppress(OSError):
                ssa.connect_tls("localhost", port)

    return gone, [threading.Thread(target=connect, args=(ports[number % len(ports)],)) for number in range(10)]


def hostile_clients(stack, pki):
    """Ten clients of a listener of ours, in crumbs, over and over."""
    gone = threading.Event()
    listener = stack.enter_context(listening(pki))

    def connect():
        while not gone.is_set():
            with contextlib.suppress(OSError), socket.create_connection(listener.getsockname()) as sock:
                flood(sock, record(22, b"\1\0\xff\xff\3\3"), record(22, b"x"))

    return gone, [threading.Thread(target=connect) for _ in range(10)]


@pytest.mark.parametrize("role", ["servers", "clients"])
def test_ten_hostile_peers_and_another_handshake(ssad, pki, role):
    with contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(peers.openssl(pki, "-quiet"))
        gone, threads = hostile_servers(stack) if role == "servers" else hostile_clients(stack, pki)
        for thread in threads:
            thread.start()
        times = []
        for _ in range(20):
            began = time.monotonic()
            ssa.close(ssa.connect_tls("localhost", port))
            times.append(time.monotonic() - began)
        gone.set()
        for thread in threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in threads)
    assert statistics.median(times) < 0.25, times


SUITE = SUITES["TLS_AES_128_GCM_SHA256"]
KEY = TrafficKey(bytes(16), bytes(12))


def draining(sock):
    info = CryptoInfo(SUITE.version, SUITE.aead, KEY, 0)
    return Drain(TrafficKeys(SUITE, info, info), sock, ssa.errors.alert_name)


TICKETS = {
    "small ones": b"\4\0\0\0",
    "many in a record": b"\4\0\0\0" * 4096,
    "one that never ends": b"\4\xff\xff\xff",
    "parts of one that never ends": b"x" * 16384,
}


def test_a_ticket_in_two_records_is_taken_whole_or_left_whole():
    ticket = b"\4\0\0\5abcde"
    sealed = [records.seal(SUITE.aead, KEY, number, 22, part) for number, part in enumerate((ticket[:6], ticket[6:]))]
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(sealed[0])
            drain = draining(sock)
            trio.run(drain.run, None, 0.1)
            assert drain.tickets == drain.keys.rx.sequence == 0
            peer.sendall(sealed[1])
            trio.run(drain.run, None, 0.1)
            assert (drain.tickets, drain.messages, drain.keys.rx.sequence) == (1, ticket, 2)


@pytest.mark.parametrize("name", TICKETS)
def test_a_server_whose_tickets_never_end(name):
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        peer, _ = listener.accept()

        def serve():
            with contextlib.suppress(OSError):
                first = b"\4\xff\xff\xff" if "parts" in name else TICKETS[name]
                peer.sendall(records.seal(SUITE.aead, KEY, 0, 22, first))
                for number in range(1, 100_000):
                    peer.sendall(records.seal(SUITE.aead, KEY, number, 22, TICKETS[name]))

        drain = draining(sock)
        sender = threading.Thread(target=serve)
        sender.start()
        began = time.monotonic()
        longest = trio.run(longest_wait_beside, drain)
        assert time.monotonic() - began < 1
        assert longest < 0.1
        assert drain.keys.rx.sequence < 128 + 16
        assert drain.tickets < tickets.MAX_TICKETS + 16 * 4096
        assert len(drain.messages) < 200_000
        peer.shutdown(socket.SHUT_RDWR)
        sender.join()
        peer.close()


async def longest_wait_beside(drain):
    """How long another task waits for its turn at most."""
    longest = 0.0
    async with trio.open_nursery() as nursery:

        async def other():
            nonlocal longest
            while True:
                began = time.monotonic()
                await trio.lowlevel.checkpoint()
                longest = max(longest, time.monotonic() - began)

        nursery.start_soon(other)
        await drain.run(None, 0.25)
        nursery.cancel_scope.cancel()
    return longest


FIRST_RECORDS = {
    "type 0": (b"\0\3\1\0\1x", 10),
    "type 24, heartbeat": (b"\x18\3\1\0\3\1\0\0", 10),
    "type 255": (b"\xff\3\3\0\2xx", 10),
    "SSLv2's hello": (b"\x80\x2e\1\0\2\0\x15\0\0\0\x10", 10),
    "plain HTTP": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 10),
    "major version 2": (b"\x16\2\0\0\4\1\0\0\0", 70),
    "major version 4": (b"\x16\4\3\0\4\1\0\0\0", 70),
    "two bytes of major version 0": (b"\x16\0", 70),
    "one byte": (b"\x99", 10),
    "a record that is too long": (b"\x16\3\1\x48\1", 22),
}


@pytest.mark.parametrize("name", FIRST_RECORDS)
def test_what_is_no_first_record_is_answered_with_its_alert(ssad, pki, name):
    sent, alert = FIRST_RECORDS[name]
    with listening(pki) as listener, socket.create_connection(listener.getsockname()) as sock:
        sock.settimeout(3)
        sock.sendall(sent)
        said = bytearray()
        while data := sock.recv(100):
            said += data
        assert bytes(said) == b"\x15\3\3\0\2\2" + bytes([alert])


@pytest.mark.parametrize("name", FIRST_RECORDS)
def test_and_so_is_a_servers(ssad, name):
    sent, alert = FIRST_RECORDS[name]
    said = bytearray()

    def serve(sock):
        sock.recv(65536)
        sock.sendall(sent)
        listen(sock, said)

    with peers.script(serve) as port, pytest.raises(ssa.HandshakeError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.alert == ssa.errors.ALERTS[alert]
    assert peers.settled(lambda: bytes(said) == b"\x15\3\3\0\2\2" + bytes([alert]))


def test_what_comes_before_junk_counts_first(ssad):
    """A server that says why it refuses, and then goes on in another protocol."""

    def serve(sock):
        sock.recv(65536)
        sock.sendall(b"\x15\3\3\0\2\2\x70" + b"500 go away\r\n")
        listen(sock, bytearray())

    with peers.script(serve) as port, pytest.raises(ssa.HandshakeError, match="unrecognized_name"):
        ssa.connect_tls("localhost", port)


def advanced(tls, sock):
    """OpenSSL's handshake until it is done, whose last flight stays here."""
    sock.settimeout(5)
    while True:
        with contextlib.suppress(SSL.WantReadError):
            tls.do_handshake()
            return
        with contextlib.suppress(SSL.WantReadError):
            sock.sendall(tls.bio_read(65536))
        tls.bio_write(sock.recv(65536))


def heard(tls, sock):
    """What OpenSSL makes of the rest that comes: the words of its error."""
    with contextlib.suppress(OSError):
        while data := sock.recv(65536):
            tls.bio_write(data)
    with pytest.raises(SSL.Error) as caught:
        tls.recv(1)
    return str(caught.value)


@pytest.mark.parametrize("version", TLSVersion, ids=lambda version: version.label)
def test_a_client_reads_the_alert_that_comes_late(ssad, pki, version):
    """In TLS 1.3 it is sealed by then."""
    tls = SSL.Connection(context(pki, version, server=False), None)
    tls.set_connect_state()
    with listening(pki) as listener, socket.create_connection(listener.getsockname()) as sock:
        if version is TLSVersion.TLSv1_3:
            advanced(tls, sock)
            sock.sendall(b"\x63\3\3\0\1x")
            assert "unexpected message" in heard(tls, sock)
        else:
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            sock.sendall(tls.bio_read(65536))
            sock.recv(1)
            sock.sendall(b"\x63\3\3\0\1x")
            said = bytearray()
            listen(sock, said)
            assert said.endswith(UNEXPECTED_MESSAGE)


@pytest.mark.parametrize("version", TLSVersion, ids=lambda version: version.label)
def test_a_server_reads_the_alert_that_comes_late(ssad, pki, version):
    """Behind our Finished in TLS 1.2 it is sealed, in TLS 1.3 by the handshake's key."""
    tls = SSL.Connection(context(pki, version, server=True), None)
    tls.set_accept_state()
    words = []

    def serve(sock):
        if version is TLSVersion.TLSv1_2:
            advanced(tls, sock)
        else:
            tls.bio_write(sock.recv(65536))
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
            hello, *_ = records.split_untrusted(tls.bio_read(65536))[0]
            sock.sendall(hello)
        sock.sendall(b"\x63\3\3\0\1x")
        words.append(heard(tls, sock))

    with peers.script(serve) as port, pytest.raises(ssa.HandshakeError, match="does not speak TLS"):
        ssa.connect_tls("localhost", port)
    assert peers.settled(lambda: words)
    assert "unexpected message" in words[0]
