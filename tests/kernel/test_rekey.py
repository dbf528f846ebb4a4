"""KeyUpdate on a socket with its keys in the kernel; where the kernel can't rekey, that it says so in time.

The handshakes are Python's ssl, with its key log, so that nothing here rests on the daemon.
"""

import contextlib
import errno
import select
import socket
import ssl
import subprocess

import pytest

from ssa import errors
from ssa.handshake import records
from ssa.ktls.constants import SOL_TLS, TLS_GET_RECORD_TYPE, TLS_RX, TLS_SET_RECORD_TYPE, TLS_TX
from ssa.ktls.control import records_sent
from ssa.ktls.crypto_info import CryptoInfo, parse
from ssa.ktls.install import attach, install
from ssa.ktls.key_schedule import TrafficKey, next_secret, traffic_key
from ssa.ktls.rekey import (
    Incoming,
    TrafficSecrets,
    advance_rx,
    advance_tx,
    change_sending_key,
    key_update,
    parse_key_update_untrusted,
)
from ssa.suites import AES_GCM_128, BY_OPENSSL_NAME, SUITES, TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, HANDSHAKE
from tests import peers

TLS13 = [suite for suite in SUITES.values() if suite.version is TLSVersion.TLSv1_3]
GCM = SUITES["TLS_AES_128_GCM_SHA256"]
TICKET = b"\x04\0\0\x05abcde"


class Ours:
    """The end whose keys are in the kernel."""

    def __init__(self, sock, suite, tx, rx):
        self.sock, self.suite, self.tx, self.rx = sock, suite, tx, rx
        attach(sock)
        install(sock, *(CryptoInfo(TLSVersion.TLSv1_3, suite.aead, traffic_key(suite, s), 0) for s in (tx, rx)))

    def read(self, flags=0):
        data, ancillary, _, _ = self.sock.recvmsg(16384, socket.CMSG_SPACE(1), flags)
        ((level, what, kind),) = ancillary
        assert (level, what) == (SOL_TLS, TLS_GET_RECORD_TYPE)
        return kind[0], data

    def send(self, data, kind=APPLICATION_DATA, flags=0):
        return self.sock.sendmsg([data], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([kind]))], flags)

    def send_data(self, data):
        return self.sock.send(data)

    def advance_rx(self):
        self.rx = advance_rx(self.sock, self.suite, self.rx)

    def advance_tx(self, **options):
        self.tx = advance_tx(self.sock, self.suite, self.tx, **options)

    def read_key_update(self):
        kind, message = self.read()
        assert kind == HANDSHAKE
        return parse_key_update_untrusted(message)

    def readable(self):
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return bool(poll.poll(0))


class Theirs:
    """The other end, record by record, by our own `seal` and `open`."""

    def __init__(self, sock, suite, tx, rx):
        self.sock, self.suite, self.tx, self.rx = sock, suite, tx, rx
        self.sent = self.received = 0

    def seal(self, content, kind=APPLICATION_DATA):
        record = records.seal(self.suite.aead, traffic_key(self.suite, self.tx), self.sent, kind, content)
        self.sent += 1
        return record

    def key_update(self, before=b"", *, requested=False):
        record = self.seal(before + key_update(requested=requested), HANDSHAKE)
        self.tx, self.sent = next_secret(self.suite, self.tx), 0
        return record

    def read(self):
        header = self.sock.recv(5, socket.MSG_WAITALL)
        record = header + self.sock.recv(int.from_bytes(header[3:], "big"), socket.MSG_WAITALL)
        opened = records.open_untrusted(self.suite.aead, traffic_key(self.suite, self.rx), self.received, record)
        self.received += 1
        if opened and opened[0] == HANDSHAKE:
            self.rx, self.received = next_secret(self.suite, self.rx), 0
        return opened


@contextlib.contextmanager
def connection():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        server, _ = listener.accept()
        with server:
            yield client, server


@contextlib.contextmanager
def pair(suite=GCM):
    length = 48 if suite.hash == "sha384" else 32
    one, other = bytes(range(length)), bytes(range(1, length + 1))
    with connection() as (client, server):
        yield Ours(client, suite, one, other), Theirs(server, suite, other, one)


@pytest.fixture
def openssl(capabilities, pki, tmp_path):
    """A connection to a real s_server, by a handshake that reads not a byte too much; and the server's process."""
    context = ssl.create_default_context(cafile=pki.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.keylog_filename = str(tmp_path / "keys")
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with (
        peers.openssl(pki, "-num_tickets", 0, stdout=subprocess.PIPE) as (port, server),
        socket.create_connection(("127.0.0.1", port)) as sock,
    ):
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
            header = sock.recv(5, socket.MSG_WAITALL)
            incoming.write(header + sock.recv(int.from_bytes(header[3:], "big"), socket.MSG_WAITALL))
        sock.sendall(outgoing.read())
        lines = (line.split() for line in (tmp_path / "keys").read_text().splitlines() if line[0] != "#")
        secrets = {label: bytes.fromhex(secret) for label, _, secret in lines}
        suite = BY_OPENSSL_NAME[tls.cipher()[0]]
        yield Ours(sock, suite, secrets["CLIENT_TRAFFIC_SECRET_0"], secrets["SERVER_TRAFFIC_SECRET_0"]), server


def type_into(server, line):
    server.stdin.write(line)
    server.stdin.flush()


def wait_for(server, line):
    for found in server.stdout:
        if found == line:
            return
    pytest.fail(f"the server ended without {line!r}")


@contextlib.contextmanager
def refused():
    """What a kernel without rekeying says, whatever was asked of it."""
    with pytest.raises(OSError) as caught:
        yield
    assert caught.value.errno == errno.EBUSY


def test_openssl_changes_its_key(openssl, capabilities):
    ours, server = openssl
    type_into(server, b"k\n")
    assert ours.read_key_update() is False
    if not capabilities.rekey:
        with refused():
            ours.advance_rx()
        return
    ours.advance_rx()
    type_into(server, b"behind\n")
    assert ours.read() == (APPLICATION_DATA, b"behind\n")
    type_into(server, b"K\n")
    assert ours.read_key_update() is True
    ours.advance_rx()
    ours.advance_tx()
    ours.send_data(b"answered\n")
    wait_for(server, b"answered\n")
    type_into(server, b"behind that\n")
    assert ours.read() == (APPLICATION_DATA, b"behind that\n")


def test_we_change_ours_and_openssl_answers(openssl, capabilities):
    ours, server = openssl
    ours.send_data(b"before\n")
    if not capabilities.rekey:
        with refused():
            ours.advance_tx()
        ours.send_data(b"as if nothing had been\n")
        wait_for(server, b"as if nothing had been\n")
        return
    for number in range(20):
        ours.advance_tx(request_update=number % 2 == 0)
        ours.send_data(b"under key %d\n" % number)
        wait_for(server, b"under key %d\n" % number)
        if number % 2 == 0:
            type_into(server, b"%d\n" % number)  # OpenSSL answers when it has something to send
            assert ours.read_key_update() is False
            ours.advance_rx()
            assert ours.read() == (APPLICATION_DATA, b"%d\n" % number)


def test_close_notify_under_later_keys(openssl, capabilities):
    ours, server = openssl
    if capabilities.rekey:
        ours.advance_tx()
        type_into(server, b"k\n")
        assert ours.read_key_update() is False
        ours.advance_rx()
    ours.send(b"\1\0", ALERT)
    ours.sock.shutdown(socket.SHUT_WR)
    wait_for(server, b"DONE\n")
    assert ours.read() == (ALERT, b"\1\0")
    assert ours.sock.recv(1) == b""


@pytest.mark.parametrize("suite", TLS13, ids=lambda suite: suite.name)
def test_records_before_and_behind_in_one_segment(capabilities, suite):
    with pair(suite) as (ours, theirs):
        stream = [theirs.seal(b"one"), theirs.key_update(), theirs.seal(b"two"), theirs.seal(b"three")]
        stream += [theirs.key_update(requested=True), theirs.key_update(), theirs.seal(b"four")]
        theirs.sock.sendall(b"".join(stream))
        assert ours.read() == (APPLICATION_DATA, b"one")
        assert ours.read_key_update() is False
        if not capabilities.rekey:
            with refused():
                ours.advance_rx()
            with pytest.raises(OSError) as caught:
                ours.read()
            assert caught.value.errno == errno.EBADMSG
            return
        with pytest.raises(OSError) as caught:
            ours.read()
        assert caught.value.errno == errno.EKEYEXPIRED
        assert not ours.readable()
        ours.advance_rx()
        assert ours.readable()
        assert ours.read() == (APPLICATION_DATA, b"twothree")
        assert ours.read_key_update() is True
        ours.advance_rx()
        assert ours.read_key_update() is False
        ours.advance_rx()
        assert ours.read() == (APPLICATION_DATA, b"four")


@pytest.mark.parametrize("size", [3, 100])
def test_a_read_with_room_to_spare_hides_a_key_update_from_poll(capabilities, size):
    """It decrypts on beyond its data; the KeyUpdate then waits for the next read, and poll sees nothing."""
    with pair() as (ours, theirs):
        theirs.sock.sendall(theirs.seal(b"one") + theirs.key_update() + theirs.seal(b"two"))
        assert ours.sock.recv(size) == b"one"
        assert ours.readable() is (size == 3 or not capabilities.rekey)
        assert ours.read(socket.MSG_PEEK | socket.MSG_DONTWAIT) == (HANDSHAKE, key_update(requested=False))
        assert ours.readable() is not capabilities.rekey
        assert ours.read_key_update() is False


@pytest.mark.parametrize("suite", TLS13, ids=lambda suite: suite.name)
def test_ours_is_one_record_between_two_keys(capabilities, suite):
    with pair(suite) as (ours, theirs):
        ours.send_data(b"before")
        if capabilities.rekey:
            ours.send_data(b"before that")
            ours.advance_tx(request_update=True)
            expected = [(APPLICATION_DATA, b"before that"), (HANDSHAKE, key_update(requested=True))]
        else:
            with refused():
                ours.advance_tx(request_update=True)
            expected = []
        ours.send_data(b"behind")
        assert theirs.read() == (APPLICATION_DATA, b"before")
        assert [theirs.read() for _ in expected] == expected
        assert theirs.read() == (APPLICATION_DATA, b"behind")


def test_an_open_record_goes_before_the_key_update(capabilities):
    with pair() as (ours, theirs):
        ours.sock.send(b"more to", socket.MSG_MORE)
        if capabilities.rekey:
            ours.advance_tx()
        else:
            with refused():
                ours.advance_tx()
        ours.send_data(b" come")
        if capabilities.rekey:
            assert theirs.read() == (APPLICATION_DATA, b"more to")
            assert theirs.read() == (HANDSHAKE, key_update(requested=False))
            assert theirs.read() == (APPLICATION_DATA, b" come")
        else:
            assert theirs.read() == (APPLICATION_DATA, b"more to come")


def test_a_full_send_buffer_changes_nothing(capabilities):
    with pair() as (ours, theirs):
        ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours.sock.setblocking(False)
        left = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                left += ours.send_data(bytes(4096))
        sent, secret = records_sent(ours.sock), ours.tx
        with pytest.raises(BlockingIOError) if capabilities.rekey else refused():
            ours.advance_tx()
        assert (records_sent(ours.sock), ours.tx) == (sent, secret)
        kinds = []
        rekeyed = not capabilities.rekey
        while left or not rekeyed:
            if not rekeyed:
                with contextlib.suppress(BlockingIOError):
                    ours.advance_tx()
                    rekeyed = True
            kind, data = theirs.read()
            kinds.append(kind)
            left -= len(data) if kind == APPLICATION_DATA else 0
        ours.send_data(b"behind")
        while (record := theirs.read())[0] == HANDSHAKE:
            kinds.append(record[0])
        assert record == (APPLICATION_DATA, b"behind")
        assert kinds.count(HANDSHAKE) == capabilities.rekey


def test_a_key_update_behind_a_ticket_in_one_record(capabilities):
    """The kernel does not find it; it can be served all the same, before anything else is read."""
    with pair() as (ours, theirs):
        theirs.sock.sendall(theirs.key_update(TICKET) + theirs.seal(b"under the next key"))
        assert ours.read() == (HANDSHAKE, TICKET + key_update(requested=False))
        if capabilities.rekey:
            assert ours.readable()
            ours.advance_rx()
            assert ours.read() == (APPLICATION_DATA, b"under the next key")
        else:
            with refused():
                ours.advance_rx()


def test_a_key_that_is_refused_behind_the_key_update_ends_the_connection(capabilities):
    """A suite with another algorithm than the socket's, as no other reason can be had for the asking."""
    with pair() as (ours, theirs):
        other = SUITES["TLS_CHACHA20_POLY1305_SHA256"]
        with pytest.raises(errors.SSAError if capabilities.rekey else OSError) as caught:
            advance_tx(ours.sock, other, bytes(32))
        if not capabilities.rekey:
            assert caught.value.errno == errno.EBUSY
            return
        assert caught.value.reason == "KERNEL_REFUSED"
        with contextlib.suppress(BrokenPipeError):  # kernel TLS takes it, as if it could still leave
            ours.send_data(b"nothing more may leave")
        assert theirs.read() == (HANDSHAKE, key_update(requested=False))
        assert theirs.sock.recv(1) == b""


def test_a_change_that_failed_half_way_is_the_last_one(capabilities):
    """What secret is in use is not known any more: nothing may be sent under it."""
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")
    with pair() as (ours, theirs):
        secrets, incoming = TrafficSecrets(bytes(32), bytes(32)), Incoming()
        other = SUITES["TLS_CHACHA20_POLY1305_SHA256"]
        with pytest.raises(errors.SSAError) as caught:
            change_sending_key(ours.sock, other, secrets, incoming)
        assert (caught.value.reason, secrets.tx) == ("KERNEL_REFUSED", None)
        with pytest.raises(BrokenPipeError):
            change_sending_key(ours.sock, GCM, secrets, incoming)
        assert theirs.read() == (HANDSHAKE, key_update(requested=False))
        assert theirs.sock.recv(1) == b""


def test_a_change_without_room_can_be_tried_again(capabilities):
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")
    with pair() as (ours, _):
        ours.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        ours.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                ours.send_data(bytes(4096))
        secrets = TrafficSecrets(ours.tx, ours.rx)
        for _ in range(2):
            with pytest.raises(BlockingIOError):
                change_sending_key(ours.sock, ours.suite, secrets, Incoming())
            assert secrets.tx == ours.tx


def test_tls12_has_no_key_update(capabilities):
    with connection() as (client, server):
        attach(client)
        info = CryptoInfo(TLSVersion.TLSv1_2, AES_GCM_128, TrafficKey(bytes(16), bytes(4)), sequence=1)
        install(client, info, info)
        with refused():
            advance_tx(client, GCM, bytes(32))
        with refused():
            advance_rx(client, GCM, bytes(32))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1)
        assert records_sent(client) == 1


@pytest.mark.parametrize("suite", TLS13, ids=lambda suite: suite.name)
def test_records_are_counted_under_the_key_in_use(capabilities, suite):
    with pair(suite) as (ours, _):
        assert records_sent(ours.sock) == 0
        for _ in range(3):
            ours.send_data(b"x")
        assert records_sent(ours.sock) == 3
        if capabilities.rekey:
            ours.advance_tx()
            assert records_sent(ours.sock) == 0
        before = records_sent(ours.sock)
        ours.send_data(bytes(40_000))
        assert records_sent(ours.sock) == before + 3
        state = parse(ours.sock.getsockopt(SOL_TLS, TLS_TX, suite.aead.info))
        assert state.key == traffic_key(suite, ours.tx)
        state = parse(ours.sock.getsockopt(SOL_TLS, TLS_RX, suite.aead.info))
        assert (state.key, state.sequence) == (traffic_key(suite, ours.rx), 0)
