"""A ClientHello that the program has read already: fed to the handshake before what is in the socket."""

import contextlib
import socket
import ssl
import threading

import pytest
import trio

from ssa import errors
from ssa.handshake.driver import RecordReader
from ssa.protocol import wire
from tests.peers import Daemon
from tests.raw_requests import ACCEPT, LISTEN, ask, message

AHEAD, UPGRADE, CERTIFICATE, KEY = 529, 114, 88, 89


@pytest.fixture(scope="module")
def ssad(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("ssad"), policy='[policy]\ndata_path = "relay"\n') as daemon:
        yield daemon
        assert "Traceback" not in daemon.log


class Client(threading.Thread):
    """Python's own `ssl` as the client: what it got, or how it failed."""

    def __init__(self, pki, port, version):
        super().__init__(daemon=True)
        self.context = ssl.create_default_context(cafile=pki.ca)
        self.context.minimum_version = self.context.maximum_version = version
        self.port = port
        self.got = b""
        self.failure = None
        self.start()

    def run(self):
        try:
            with (
                socket.create_connection(("localhost", self.port), timeout=10) as tcp,
                self.context.wrap_socket(tcp, server_hostname="localhost") as tls,
            ):
                tls.sendall(b"hello")
                self.got = tls.recv(100)
        except OSError as exc:
            self.failure = exc


@contextlib.contextmanager
def accepted(pki, version=ssl.TLSVersion.TLSv1_3):
    """A TCP connection of a client that wants TLS, and the client."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = Client(pki, listener.getsockname()[1], version)
        with listener.accept()[0] as tcp:
            tcp.settimeout(10)
            yield tcp, client
    client.join(10)


def accept(ssad, pki, tcp, *options):
    with pki.cert.open() as certificate, pki.key.open() as key:
        packet = message(ACCEPT, (CERTIFICATE, 1), (KEY, 1), *options)
        return ask(ssad, packet, tcp.fileno(), certificate.fileno(), key.fileno())


@pytest.mark.parametrize("upgrade", [0, 1])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
@pytest.mark.parametrize("most", [1, 4, 5, 100, wire.MAX_AHEAD])
def test_the_handshake_goes_on_with_what_was_read(ssad, pki, most, version, upgrade):
    with accepted(pki, version) as (tcp, client):
        tcp.recv(1, socket.MSG_PEEK)
        ahead = tcp.recv(most)
        found, fds = accept(ssad, pki, tcp, (AHEAD, ahead), *[(UPGRADE, 1)] * upgrade)
        assert 513 not in found, found
        with socket.socket(fileno=fds[0]) as end:
            end.sendall(end.recv(100).upper())
            client.join(10)
    assert (client.got, client.failure) == (b"HELLO", None)


def test_nothing_read_is_nothing_read(ssad, pki):
    with accepted(pki) as (tcp, client):
        found, fds = accept(ssad, pki, tcp, (AHEAD, b""))
        assert 513 not in found, found
        with socket.socket(fileno=fds[0]) as end:
            end.sendall(b"HELLO")
            client.join(10)
    assert client.got == b"HELLO"


def one_record(tcp):
    """The ClientHello, whole."""
    tcp.recv(1, socket.MSG_PEEK)
    return tcp.recv(wire.MAX_AHEAD)


REFUSED = {
    "no TLS": (lambda _: b"GET / HTTP/1.1\r\n\r\n", (), b"NOT_TLS"),
    "plain text before an upgrade": (lambda _: b"STARTTLS\r\n", ((UPGRADE, 1),), b"PLAINTEXT_PENDING"),
    "plain text behind a ClientHello": (lambda tcp: one_record(tcp) + b"GET / HTTP", (), b"NOT_TLS"),
    "data behind a ClientHello": (lambda tcp: one_record(tcp) + b"\x17\3\3\0\1x", (), b"PROTOCOL_VIOLATION"),
}


@pytest.mark.parametrize(("read", "options", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_no_client_sends_ends_the_connection(ssad, pki, read, options, reason):
    with accepted(pki) as (tcp, client):
        found, _ = accept(ssad, pki, tcp, (AHEAD, read(tcp)), *options)
        assert found[513] == reason, found
        client.join(10)
        assert client.failure is not None


def test_too_much_is_refused_before_anything_happens(ssad, pki):
    with accepted(pki) as (tcp, _):
        found, _ = accept(ssad, pki, tcp, (AHEAD, bytes(wire.MAX_AHEAD + 1)))
        assert found[513] == b"BAD_VALUE"
        assert b"32768" in found[100]
        assert one_record(tcp)[:1] == b"\x16"  # the connection is there still


def test_only_accept_has_it(ssad):
    for kind in (1, LISTEN, 5):
        assert ask(ssad, message(kind, (85, b"localhost"), (AHEAD, b"\x16")))[0][513] == b"BAD_REQUEST"


HELLO = b"\x16\3\1\0\2\1\0"


@pytest.mark.parametrize("cut", range(2 * len(HELLO) + 1))
def test_records_come_whole_wherever_the_reading_ended(cut):
    """Two records, cut anywhere between what was read ahead and what is in the socket."""
    data, found = 2 * HELLO, []

    async def read(ours):
        reader = RecordReader(ours, data[:cut])
        while len(found) < 2:
            records = (await reader.peek())[:1]
            reader.consume(records)
            found.extend(records)
        reader.check_nothing_is_left()

    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data[cut:] + b"behind")
        trio.run(read, ours)
        assert ours.recv(100) == b"behind"
    assert found == [HELLO, HELLO]


def test_what_is_left_of_it_is_no_handshakes():
    async def read(ours):
        reader = RecordReader(ours, HELLO + b"\x17")
        reader.consume(await reader.peek())
        with pytest.raises(errors.HandshakeError, match="1 bytes behind the handshake"):
            reader.check_nothing_is_left()

    ours, theirs = socket.socketpair()
    with ours, theirs:
        trio.run(read, ours)
