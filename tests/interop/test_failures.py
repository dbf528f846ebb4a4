"""A connection that has failed stays so, on both data paths: for reading, for writing, and for its end.

One table of what a peer can do to a stream, and what has to come of it (RFC 8446 sections 5, 5.1, 6 and 6.2, RFC 5246
sections 6.2 and 7.2): either it is passed over, or the peer gets the alert that it deserves, once, and no close_notify;
whoever reads or writes after that gets an error, every time.
"""

import contextlib
import errno
import os
import socket
import struct
import threading

import pytest

import ssa
from ssa.errors import ALERT_NUMBERS
from ssa.ktls.rekey import key_update
from ssa.suites import TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE
from tests.interop import raw as peer

TLS12, TLS13 = TLSVersion
TICKET = b"\x04\0\0\x14" + b"\0\0\1\0" + b"\0\0\0\1" + b"\1\1" + b"\0\6ticket" + b"\0\0"
HELLO_REQUEST, FINISHED = b"\0\0\0\0", b"\x14\0\0\x0c" + bytes(12)
CLIENTS, SERVERS = ("connected", "bare"), ("accepted",)
EVERYBODY = CLIENTS + SERVERS

NO_RENEGOTIATION = b"\1\x64"  # OpenSSL answers HelloRequest by it
NO_ALERT = "the peer's own"
PASSED = "passed over"
# What looks to the kernel like a record that is too long, OpenSSL tells by its first bytes.
SOME = ("record_overflow", "unexpected_message", "protocol_version")
BAD_LENGTH = ("decode_error", "illegal_parameter")


def record(kind, content):
    return lambda raw: [raw.seal(content, kind)]


def alert(level, number):
    return record(ALERT, bytes([level, number]))


def forged(raw):
    damaged = bytearray(raw.seal(b"forged"))
    damaged[-1] ^= 1
    return [bytes(damaged)]


def plain(data):
    return lambda _raw: [data]


def too_long(raw):
    return [b"\x17\3\3" + struct.pack(">H", 16384 + 2048 + 1) + bytes(16384 + 2049)]


def pieces(*contents):
    return lambda raw: [raw.seal(content, HANDSHAKE) for content in contents]


def interrupted(raw):
    return [raw.seal(TICKET[:9], HANDSHAKE), raw.seal(b"data in between"), raw.seal(TICKET[9:], HANDSHAKE)]


# what the peer does: (TLS versions, our kinds, what it sends, the alert that it gets)
BOTH = (TLS12, TLS13)
CASES = {
    "a second Finished": (BOTH, EVERYBODY, record(HANDSHAKE, FINISHED), "unexpected_message"),
    "record type 99": (BOTH, EVERYBODY, record(99, b"what"), "unexpected_message"),
    "a heartbeat": (BOTH, EVERYBODY, record(24, b"\1\0\1x"), "unexpected_message"),
    "an empty handshake record": ((TLS13,), EVERYBODY, record(HANDSHAKE, b""), "unexpected_message"),
    "an empty alert": (BOTH, EVERYBODY, record(ALERT, b""), "unexpected_message"),
    "a ChangeCipherSpec": (BOTH, EVERYBODY, record(CHANGE_CIPHER_SPEC, b"\1"), "unexpected_message"),
    "an alert of one byte": (BOTH, EVERYBODY, record(ALERT, b"\2"), ("decode_error", "unexpected_message")),
    "two alerts in a record": (BOTH, EVERYBODY, record(ALERT, b"\1\x5a\1\0"), ("decode_error", "unexpected_message")),
    "a fatal alert": (BOTH, EVERYBODY, alert(2, 80), NO_ALERT),
    "a fatal alert that nobody knows": (BOTH, EVERYBODY, alert(2, 200), NO_ALERT),
    "an error alert as a warning": ((TLS13,), EVERYBODY, alert(1, 80), NO_ALERT),
    "bad_record_mac as a warning": ((TLS13,), EVERYBODY, alert(1, 20), NO_ALERT),
    "an unknown warning": ((TLS13,), EVERYBODY, alert(1, 200), NO_ALERT),
    "an error alert of level 0": ((TLS13,), EVERYBODY, alert(0, 80), NO_ALERT),
    "an alert of level 3": ((TLS12,), EVERYBODY, alert(3, 80), "illegal_parameter"),
    "no_renegotiation unasked": ((TLS12,), EVERYBODY, alert(1, 100), "handshake_failure"),
    "a warning of TLS 1.2": ((TLS12,), EVERYBODY, alert(1, 112), PASSED),
    "user_canceled": (BOTH, EVERYBODY, alert(1, 90), PASSED),
    "user_canceled, as if fatal": ((TLS13,), EVERYBODY, alert(2, 90), PASSED),
    "warnings without end": (
        BOTH,
        EVERYBODY,
        lambda raw: [raw.seal(b"\1\x5a", ALERT) for _ in range(6)],
        "unexpected_message",
    ),
    "a forged record": (BOTH, EVERYBODY, forged, "bad_record_mac"),
    "an over-long record": (BOTH, EVERYBODY, too_long, "record_overflow"),
    "plain text": (
        BOTH,
        EVERYBODY,
        plain(b"HTTP/1.0 400 No\r\n\r\n"),
        SOME,
    ),
    "CertificateRequest": ((TLS13,), EVERYBODY, record(HANDSHAKE, b"\x0d\0\0\3\0\0\0"), "unexpected_message"),
    "HelloRequest in TLS 1.3": ((TLS13,), EVERYBODY, record(HANDSHAKE, HELLO_REQUEST), "unexpected_message"),
    "ClientHello in TLS 1.3": ((TLS13,), EVERYBODY, record(HANDSHAKE, b"\1\0\0\0"), "unexpected_message"),
    "HelloRequest": ((TLS12,), CLIENTS, record(HANDSHAKE, HELLO_REQUEST), PASSED),
    "HelloRequest to a server": ((TLS12,), SERVERS, record(HANDSHAKE, HELLO_REQUEST), "unexpected_message"),
    "NewSessionTicket": ((TLS13,), CLIENTS, record(HANDSHAKE, TICKET), PASSED),
    "NewSessionTicket in pieces": ((TLS13,), CLIENTS, pieces(TICKET[:3], TICKET[3:11], TICKET[11:]), PASSED),
    "NewSessionTicket to a server": ((TLS13,), SERVERS, record(HANDSHAKE, TICKET), "unexpected_message"),
    "a ticket in TLS 1.2": ((TLS12,), EVERYBODY, record(HANDSHAKE, TICKET), "unexpected_message"),
    "KeyUpdate in TLS 1.2": ((TLS12,), EVERYBODY, record(HANDSHAKE, key_update(requested=False)), "unexpected_message"),
    "a KeyUpdate of two bytes": ((TLS13,), EVERYBODY, record(HANDSHAKE, b"\x18\0\0\2\0\0"), BAD_LENGTH),
    "a KeyUpdate of none": ((TLS13,), EVERYBODY, record(HANDSHAKE, b"\x18\0\0\0"), "decode_error"),
    "a KeyUpdate that asks for 2": ((TLS13,), EVERYBODY, record(HANDSHAKE, b"\x18\0\0\1\2"), "illegal_parameter"),
    "a KeyUpdate and more": (
        (TLS13,),
        EVERYBODY,
        record(HANDSHAKE, key_update(requested=False) * 2),
        "unexpected_message",
    ),
    "a ticket that never ends": (
        (TLS13,),
        CLIENTS,
        record(HANDSHAKE, b"\x04\xff\xff\xff" + bytes(100)),
        "illegal_parameter",
    ),
    "a message interrupted by data": ((TLS13,), CLIENTS, interrupted, "unexpected_message"),
}
GRID = [
    pytest.param((kind, version, send, wanted), id=f"{name}-{version.label}-{kind}")
    for name, (versions, kinds, send, wanted) in CASES.items()
    for version in versions
    for kind in kinds
]


class Peer:
    """What comes for the raw peer until TCP's end."""

    def __init__(self, raw):
        self.raw, self.data, self.alerts = raw, b"", []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        with contextlib.suppress(OSError, EOFError):
            while True:
                kind, content = self.raw.read()
                if kind == ALERT:
                    self.alerts.append(content)
                elif kind == APPLICATION_DATA:
                    self.data += content

    def all(self):
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.data, self.alerts


def fails(call):
    with pytest.raises(OSError) as caught:
        call()
    assert not isinstance(caught.value, (BlockingIOError, TimeoutError))
    return caught.value


@pytest.mark.parametrize("case", GRID)
def test_what_fails_stays_failed(either, pki, case):
    kind, version, send, wanted = case
    with peer.KINDS[kind](pki, version) as (ours, raw):
        theirs = Peer(raw)
        raw.send(raw.seal(b"before"))
        assert ours.recv(6) == b"before"
        records = send(raw)
        raw.send(*records, raw.seal(b"behind"))
        if wanted is PASSED:
            assert ours.recv(6) == b"behind"
            ours.sendall(b"still")
            ours.close()
            raw.sock.shutdown(socket.SHUT_WR)
            data, alerts = theirs.all()
            assert data == b"still"
            assert [said for said in alerts if said != NO_RENEGOTIATION] == [b"\1\0"]
            return
        first = fails(lambda: ours.recv(100))
        for _ in range(2):
            again = fails(lambda: ours.recv(100))
            assert (again.errno, again.strerror) == (first.errno, first.strerror)
            assert fails(lambda: ours.sendall(b"nobody may get this")).errno == first.errno
        ours.close()
        data, alerts = theirs.all()
        assert data == b""
        wanted = (wanted,) if isinstance(wanted, str) else wanted
        assert alerts in ([] if NO_ALERT in wanted else [bytes([2, ALERT_NUMBERS[name]])] for name in wanted)


def test_errno_names_the_failure(ssad, pki):
    for send, number in ((forged, errno.EBADMSG), (too_long, errno.EMSGSIZE), (alert(1, 80), errno.EPROTO)):
        with peer.connected(pki, TLS13) as (ours, raw):
            raw.send(*send(raw))
            assert fails(lambda: ours.recv(100)).errno == number
            assert ours.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ERROR)


def test_a_twin_has_failed_too(ssad, pki):
    with peer.connected(pki, TLS13) as (ours, raw):
        theirs = Peer(raw)
        twin = ours.dup()
        raw.send(*too_long(raw))
        fails(lambda: ours.recv(100))
        fails(lambda: twin.sendall(b"nobody may get this"))
        fails(lambda: twin.recv(100))
        ours.close()
        twin.close()
        assert theirs.all() == (b"", [b"\2\x16"])


@pytest.mark.parametrize("send", [record(99, b"what"), alert(2, 80), forged, too_long])
def test_another_process_has_failed_too(ssad, pki, send):
    """The kernel keeps what it stumbled over; and a stream that was ended is looked for before the first byte."""
    with peer.bare(pki, TLS13) as (ours, raw):
        theirs = Peer(raw)
        raw.send(*send(raw), raw.seal(b"behind"))
        child = os.fork()
        if not child:
            with contextlib.suppress(OSError):
                ssa.recv(ours.fd, 100)
            os._exit(0)
        os.waitpid(child, 0)
        fails(lambda: ours.recv(100))
        fails(lambda: ours.sendall(b"nobody may get this"))
        ours.close()
        data, alerts = theirs.all()
        assert data == b""
        assert len(alerts) <= 1


def test_a_number_that_is_used_again_is_another_socket(ssad, pki):
    with peer.bare(pki, TLS13) as (ours, raw):
        raw.send(*too_long(raw))
        number = os.dup(ours.fd)
        fails(lambda: ours.recv(100))
        with peer.connected(pki, TLS13) as (other, others):
            other.settimeout(None)
            others.send(others.seal(b"fine"))
            os.dup2(other.fileno(), ours.fd)
            assert ssa.recv(ours.fd, 100) == b"fine"
            assert ssa.send(ours.fd, b"as well") == 7
            assert others.read_data() == b"as well"
        os.dup2(number, ours.fd)
        fails(lambda: ours.recv(100))
        os.close(number)


def test_a_writer_that_is_blocked_does_not_keep_the_failure(ssad, pki):
    """The kernel would make the alert wait for it."""
    with peer.connected(pki, TLS13) as (ours, raw):
        ours.settimeout(None)
        errors = []

        def write():
            try:
                ours.sendall(bytes(1 << 26))
            except OSError as exc:
                errors.append(exc)

        thread = threading.Thread(target=write, daemon=True)
        thread.start()
        raw.send(*forged(raw))
        fails(lambda: ours.recv(100))
        thread.join(10)
        assert not thread.is_alive()
        assert errors
