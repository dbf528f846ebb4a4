"""What a peer may do to a stream after the handshake, and what the reader is told: record by record."""

import errno
import hashlib
import os
import socket
import time

import pytest

import ssa
from ssa.suites import TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, HANDSHAKE
from tests.interop import raw as peer

TICKET = b"\x04\0\0\x14" + b"\0\0\1\0" + b"\0\0\0\1" + b"\1\1" + b"\0\6ticket" + b"\0\0"
CLOSE_NOTIFY = b"\1\0"


@pytest.fixture(params=peer.KINDS)
def kind(request, ssad):
    return request.param


@pytest.fixture(params=TLSVersion, ids=lambda version: version.label)
def version(request):
    return request.param


@pytest.fixture
def ends(kind, version, pki):
    """Ours, and the raw peer's."""
    with peer.KINDS[kind](pki, version) as pair:
        yield pair


@pytest.fixture
def modern(kind, pki):
    with peer.KINDS[kind](pki, TLSVersion.TLSv1_3) as pair:
        yield pair


@pytest.fixture(params=[kind for kind in peer.KINDS if kind != "accepted"])
def client(request, ssad, pki):
    """Ours as a client in TLS 1.3: who is sent tickets."""
    with peer.KINDS[request.param](pki, TLSVersion.TLSv1_3) as pair:
        yield pair


def read_all(sock, size=65536):
    received = bytearray()
    while data := sock.recv(size):
        received += data
    return bytes(received)


def end(raw):
    return raw.seal(CLOSE_NOTIFY, ALERT)


def why(sock):
    """The words of the last failure: a bare descriptor keeps none."""
    return sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ERROR).decode() if isinstance(sock, ssa.TLSSocket) else None


def test_one_byte_at_a_time(ends):
    ours, raw = ends
    for byte in raw.seal(b"slowly") + raw.seal(b" but surely") + end(raw):
        raw.send(bytes([byte]))
    assert read_all(ours) == b"slowly but surely"


def test_empty_records_are_no_end(ends):
    ours, raw = ends
    empty = [raw.seal(b"") for _ in range(5)]
    raw.send(*empty, raw.seal(b"one"), raw.seal(b""), raw.seal(b"two"), raw.seal(b""), raw.seal(b""))
    received = b""
    while len(received) < 6:
        received += ours.recv(100)
    raw.send(raw.seal(b""), raw.seal(b"three"), raw.seal(b""), end(raw))
    assert received + read_all(ours) == b"onetwothree"


def test_an_empty_record_before_one_that_is_no_data(client):
    """The kernel's read gives nothing then, as at an end."""
    ours, raw = client
    for word in (b"one", b"two"):
        raw.send(raw.seal(b""), raw.seal(TICKET, HANDSHAKE), raw.seal(b""), raw.seal(TICKET, HANDSHAKE), raw.seal(word))
        assert ours.recv(100) == word
    raw.send(raw.seal(b""), end(raw))
    assert ours.recv(100) == b""


def test_an_empty_record_and_no_more_yet(ssad, pki, version):
    with peer.connected(pki, version) as (ours, raw):
        ours.setblocking(False)
        for _ in range(3):
            raw.send(raw.seal(b""))
            time.sleep(0.02)
            with pytest.raises(BlockingIOError):
                ours.recv(100)
        ours.settimeout(0.1)
        raw.send(raw.seal(b""))
        with pytest.raises(TimeoutError):
            ours.recv(100)
        ours.settimeout(5)
        raw.send(raw.seal(b""), raw.seal(b"data"))
        assert ours.recv(100) == b"data"


@pytest.mark.parametrize("size", [1, 1000, 65536])
def test_records_of_the_greatest_length(ends, size):
    ours, raw = ends
    content = os.urandom(16384 if size > 1 else 300)
    records = [raw.seal(content) for _ in range(4 if size > 1 else 1)]
    raw.send(*records, end(raw))
    assert hashlib.sha256(read_all(ours, size)).digest() == hashlib.sha256(content * len(records)).digest()


def test_padding_is_not_seen(modern):
    ours, raw = modern
    paddings = (0, 1, 255, 16384 - 6, 0)
    raw.send(*(raw.seal(b"padded", padding=padding) for padding in paddings), raw.seal(b"", padding=100), end(raw))
    assert read_all(ours) == b"padded" * len(paddings)


def test_tickets_in_the_middle_of_data(client):
    ours, raw = client
    ticket = [raw.seal(b"one"), raw.seal(TICKET, HANDSHAKE), raw.seal(b"two"), raw.seal(TICKET * 2, HANDSHAKE)]
    raw.send(*ticket, raw.seal(b"three"), raw.seal(TICKET, HANDSHAKE), end(raw))
    assert read_all(ours) == b"onetwothree"


@pytest.mark.parametrize("size", [1, 7, 65536])
def test_2000_small_records(ends, size):
    ours, raw = ends
    words = [b"%d," % number for number in range(2000)]
    raw.send(*(raw.seal(word) for word in words), end(raw))
    assert read_all(ours, size) == b"".join(words)


def test_close_notify_ends_whatever_follows(ends):
    ours, raw = ends
    raw.send(raw.seal(b"last words"), end(raw), raw.seal(b"nobody may hear this"))
    assert ours.recv(100) == b"last words"
    for _ in range(3):
        assert ours.recv(100) == b""


def test_after_close_notify_we_may_go_on(ends):
    """TLS 1.3's half-close (RFC 8446 section 6.1); nothing keeps TLS 1.2's writer either."""
    ours, raw = ends
    raw.send(end(raw))
    assert ours.recv(100) == b""
    ours.sendall(b"still here")
    assert raw.read_data() == b"still here"


@pytest.mark.parametrize("cut", ["between records", "in a header", "in a record"])
def test_a_cut_is_told(ends, cut):
    ours, raw = ends
    first, record = raw.seal(b"first"), raw.seal(b"second")
    raw.send(first, {"between records": b"", "in a header": record[:3], "in a record": record[:-1]}[cut])
    raw.sock.shutdown(socket.SHUT_WR)
    assert ours.recv(100) == b"first"
    for _ in range(2):
        with pytest.raises(ConnectionAbortedError, match="close_notify"):
            ours.recv(100)
    assert why(ours) is None or "close_notify" in why(ours)


def test_a_reset_is_a_reset(ends):
    ours, raw = ends
    raw.send(raw.seal(b"first"))
    assert ours.recv(100) == b"first"
    raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raw.sock.close()
    with pytest.raises(ConnectionResetError):
        ours.recv(100)


def test_a_forged_record(ends):
    ours, raw = ends
    genuine, forged, behind = (bytearray(raw.seal(word)) for word in (b"genuine", b"forged", b"behind"))
    forged[-1] ^= 1
    raw.send(genuine, forged, behind)
    assert ours.recv(7) == b"genuine"
    for _ in range(2):
        with pytest.raises(OSError) as caught:
            ours.recv(100)
        assert caught.value.errno == errno.EBADMSG
    assert why(ours) is None or "forged" in why(ours)


@pytest.mark.parametrize(
    ("alert", "words"),
    [(b"\2\x14", "bad_record_mac"), (b"\2\x50", "internal_error"), (b"\2\xc8", "200"), (b"\2", "an alert of 1 bytes")],
)
def test_a_fatal_alert(ends, alert, words):
    ours, raw = ends
    raw.send(raw.seal(b"before"), raw.seal(alert, ALERT))
    assert ours.recv(100) == b"before"
    with pytest.raises(OSError, match=words) as caught:
        ours.recv(100)
    assert caught.value.errno == errno.EPROTO
    assert why(ours) is None or words in why(ours)


def test_user_canceled_only_announces_the_end(ends):
    ours, raw = ends
    raw.send(raw.seal(b"before"), raw.seal(b"\1\x5a", ALERT), end(raw))
    assert read_all(ours) == b"before"


def test_a_warning_of_tls12_is_passed_over(kind, pki):
    with peer.KINDS[kind](pki, TLSVersion.TLSv1_2) as (ours, raw):
        raw.send(raw.seal(b"\1\x70", ALERT), raw.seal(b"behind"))
        assert ours.recv(100) == b"behind"


@pytest.mark.parametrize("as_server", [False, True], ids=["HelloRequest", "ClientHello"])
def test_nothing_is_negotiated_anew(ssad, pki, as_server):
    """TLS 1.2's way to ask, of a client and of a server: as if it had not been said, or no_renegotiation."""
    ends = peer.accepted if as_server else peer.connected
    with ends(pki, TLSVersion.TLSv1_2) as (ours, raw):
        message = bytes([as_server, 0, 0, 0])
        raw.send(raw.seal(b"one"), raw.seal(message, HANDSHAKE), raw.seal(b"two"), end(raw))
        assert read_all(ours) == b"onetwo"
        ours.sendall(b"three")
        answers = [raw.read()]
        if as_server:
            assert answers.pop() == (ALERT, b"\1\x64")
            answers.append(raw.read())
        assert answers == [(APPLICATION_DATA, b"three")]


@pytest.mark.parametrize("message", [b"\x0d\0\0\0", b"\0\0\0\0", b"\1\0\0\0", b"\x14\0\0\0", b"junk", b"\x18"])
def test_what_no_stream_of_tls13_has(modern, message):
    """CertificateRequest without post_handshake_auth, TLS 1.2's hellos, Finished, no message at all."""
    ours, raw = modern
    raw.send(raw.seal(b"before"), raw.seal(message, HANDSHAKE), raw.seal(b"behind"))
    assert ours.recv(6) == b"before"
    with pytest.raises(OSError):
        ours.recv(100)


@pytest.mark.parametrize("timeout", [None, 5, 0])
def test_a_timeout_waits_for_data_and_not_for_tickets(pki, ssad, timeout):
    with peer.connected(pki, TLSVersion.TLSv1_3) as (ours, raw):
        raw.send(raw.seal(TICKET, HANDSHAKE))
        ours.settimeout(timeout)
        if timeout is None:
            raw.send(raw.seal(b"data"))
        elif timeout:
            ours.settimeout(0.2)
            with pytest.raises(TimeoutError):
                ours.recv(10)
        else:
            time.sleep(0.05)
            with pytest.raises(BlockingIOError):
                ours.recv(10)
        if timeout is not None:
            raw.send(raw.seal(b"data"))
            ours.settimeout(5)
        assert ours.recv(10) == b"data"


@pytest.mark.parametrize("version", TLSVersion, ids=lambda version: version.label)
@pytest.mark.parametrize("size", [1, 5000])
def test_data_in_the_segment_of_the_clients_finished(ssad, pki, version, size):
    early = os.urandom(size)
    with peer.accepted(pki, version, early=early) as (ours, raw):
        raw.send(raw.seal(b" and more"), end(raw))
        assert read_all(ours) == early + b" and more"
        ours.sendall(b"answer")
        tickets = [raw.read()[0] for _ in range(2 if version is TLSVersion.TLSv1_3 else 0)]  # OpenSSL's two
        assert tickets == [HANDSHAKE] * len(tickets)
        assert raw.read() == (APPLICATION_DATA, b"answer")
