"""Each MSG_* flag and each socket option of socket(7), tcp(7) and unix(7), tried on both data paths beside TCP."""

import contextlib
import errno
import os
import socket
import struct
import threading
import time

import pytest

import ssa
from ssa.ktls.constants import SOL_TLS, TLS_SET_RECORD_TYPE
from ssa.library.fdswap import Borrowed
from ssa.library.flags import AS_TCP, FLAGS, NOT_RECEIVED, NUMBERS, OPTIONS, SENT
from ssa.tls import HANDSHAKE

TICKET = b"\x04\x00\x00\x0c" + bytes(12)

by_the_kernel = pytest.mark.parametrize("either", ["ktls"], indirect=True)
by_the_relay = pytest.mark.parametrize("either", ["relay"], indirect=True)


@pytest.fixture
def ssad(either):
    return either


@pytest.fixture
def pair(ssad, pki):
    with (
        ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener,
        ssa.create_connection(("localhost", listener.getsockname()[1])) as client,
        listener.accept()[0] as accepted,
    ):
        yield client, accepted


@pytest.fixture
def tcp():
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as accepted,
    ):
        yield client, accepted


def number_of(call):
    """The errno of what it raises, or what it gives."""
    try:
        return call()
    except OSError as exc:
        return os.strerror(exc.errno)


REFUSED = os.strerror(errno.EOPNOTSUPP)

SENDS = [
    lambda sock, flags: sock.send(b"abc", flags),
    lambda sock, flags: sock.sendall(b"abc", flags) or 3,
    lambda sock, flags: sock.sendmsg([b"a", b"bc"], (), flags),
    lambda sock, flags: sock.sendto(b"abc", flags, ("127.0.0.1", 9)),
]


@pytest.mark.parametrize("send", SENDS, ids=["send", "sendall", "sendmsg", "sendto"])
@pytest.mark.parametrize("name", FLAGS)
def test_sending_with_a_flag(pair, name, send):
    """It is sent as it is in TCP, or refused; then nothing of it is sent."""
    client, server = pair
    said = number_of(lambda: send(client, NUMBERS[name]))
    assert said == (3 if NUMBERS[name] & SENT else REFUSED)
    client.sendall(b"def")
    wanted = b"abcdef" if said == 3 else b"def"
    assert server.recv(len(wanted), socket.MSG_WAITALL) == wanted


@pytest.mark.parametrize("name", FLAGS)
@pytest.mark.parametrize("how", ["recv", "recv_into", "recvmsg", "recvmsg_into", "recvfrom"])
def test_receiving_with_a_flag(pair, name, how):
    """Every byte comes, once and in order, whatever a read was asked for."""
    client, server = pair
    client.sendall(b"abcdef")
    calls = {
        "recv": lambda: server.recv(3, NUMBERS[name]),
        "recv_into": lambda: into(lambda buffer: server.recv_into(buffer, 0, NUMBERS[name])),
        "recvmsg": lambda: server.recvmsg(3, 0, NUMBERS[name])[0],
        "recvmsg_into": lambda: into(lambda buffer: server.recvmsg_into([buffer], 0, NUMBERS[name])[0]),
        "recvfrom": lambda: server.recvfrom(3, NUMBERS[name])[0],
    }
    assert server.recv(1, socket.MSG_PEEK) == b"a"  # it is there
    said = number_of(calls[how])
    assert said == (REFUSED if NUMBERS[name] & NOT_RECEIVED else b"abc")
    again = b"abcdef" if said == REFUSED or name == "MSG_PEEK" else b"def"
    assert server.recv(len(again), socket.MSG_WAITALL) == again


def into(read):
    buffer = bytearray(3)
    return bytes(buffer[: read(buffer)])


def fill(sock):
    while True:
        sock.send(bytes(10_000), socket.MSG_DONTWAIT)


def test_dontwait(pair):
    with pytest.raises(BlockingIOError):
        pair[0].recv(1, socket.MSG_DONTWAIT)
    with pytest.raises(BlockingIOError):
        fill(pair[0])


READS = [
    lambda sock, size: sock.recv(size, socket.MSG_WAITALL),
    lambda sock, size: all_into(size, lambda buffer: sock.recv_into(buffer, 0, socket.MSG_WAITALL)),
    lambda sock, size: all_into(size, lambda buffer: sock.recv_into(buffer, size, socket.MSG_WAITALL)),
    lambda sock, size: sock.recvmsg(size, 0, socket.MSG_WAITALL)[0],
    lambda sock, size: all_into(
        size,
        lambda buffer: sock.recvmsg_into([memoryview(buffer)[:2], memoryview(buffer)[2:]], 0, socket.MSG_WAITALL)[0],
    ),
]


def all_into(size, read):
    buffer = bytearray(size)
    return bytes(buffer[: read(buffer)])


def record(sock, content):
    with Borrowed(sock.fileno()) as plain:
        plain.sendmsg([content], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([HANDSHAKE]))])


@pytest.mark.parametrize("read", READS, ids=["recv", "recv_into", "recv_into n", "recvmsg", "recvmsg_into"])
@pytest.mark.parametrize("tickets", [0, 3])
def test_waitall_reads_on(pair, ssad, read, tickets):
    """Over session tickets and pauses; and no further than it was asked to."""
    client, server = pair
    if tickets and ssad.get("policy/data_path").strip() == "relay":
        pytest.skip("OpenSSL has them there")

    def send():
        for part in (b"ab", b"cd", b"efg"):
            server.sendall(part)
            for _ in range(tickets):
                record(server, TICKET)
            time.sleep(0.05)

    thread = threading.Thread(target=send)
    thread.start()
    assert read(client, 6) == b"abcdef"
    thread.join()
    assert client.recv(10) == b"g"


@pytest.mark.parametrize("read", READS, ids=["recv", "recv_into", "recv_into n", "recvmsg", "recvmsg_into"])
@pytest.mark.parametrize("cut", [True, False])
def test_waitall_ends_with_the_stream(pair, read, cut):
    client, server = pair
    client.sendall(b"abc")
    os.close(client.detach()) if cut else client.close()
    assert read(server, 6) == b"abc"
    if cut:
        with pytest.raises(ConnectionAbortedError):
            read(server, 6)
    else:
        assert read(server, 6) == b""


def test_waitall_waits_for_nothing_that_was_not_asked_for(pair):
    """With MSG_DONTWAIT, MSG_PEEK or a timeout it means nothing, as in TCP."""
    client, server = pair
    client.sendall(b"abc")
    assert server.recv(1, socket.MSG_PEEK) == b"a"
    assert server.recv(6, socket.MSG_WAITALL | socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"abc"
    assert server.recv(6, socket.MSG_WAITALL | socket.MSG_DONTWAIT) == b"abc"
    client.sendall(b"def")
    server.settimeout(5)
    assert server.recv(6, socket.MSG_WAITALL) == b"def"
    assert server.recv(0, socket.MSG_WAITALL) == b""


@by_the_relay
def test_no_byte_of_a_bare_descriptor_is_lost(pair):
    client, server = pair
    with Borrowed(client.fileno()) as plain:
        plain.send(b"ab")
        with contextlib.suppress(OSError):  # a kernel without: nothing is sent
            assert plain.send(b"cde", socket.MSG_OOB) == 3
            plain.send(b"f")
            assert server.recv(6, socket.MSG_WAITALL) == b"abcdef"


@by_the_relay
def test_nothing_is_sent_beside_the_bytes_of_a_relay(pair):
    client, server = pair
    for kind, value in ((socket.SCM_RIGHTS, struct.pack("i", 0)), (99, b"")):
        with pytest.raises(OSError) as caught:
            client.sendmsg([b"x"], [(socket.SOL_SOCKET, kind, value)])
        assert caught.value.errno == errno.EOPNOTSUPP
    client.sendmsg([b"bytes"], iter(()))
    assert server.recv(10) == b"bytes"


# --- options ----------------------------------------------------------------------------------------------------------

# include/uapi/asm-generic/socket.h and linux/tcp.h: what this Python's `socket` does not name
OTHERS = {
    "SO_ATTACH_BPF": 50, "SO_ATTACH_FILTER": 26, "SO_ATTACH_REUSEPORT_CBPF": 51, "SO_ATTACH_REUSEPORT_EBPF": 52,
    "SO_BSDCOMPAT": 14, "SO_BUSY_POLL": 46, "SO_DETACH_BPF": 27, "SO_DETACH_FILTER": 27, "SO_DOMAIN": 39,
    "SO_INCOMING_CPU": 49, "SO_INCOMING_NAPI_ID": 56, "SO_LOCK_FILTER": 44, "SO_MARK": 36, "SO_PASSCRED": 16,
    "SO_PASSSEC": 34, "SO_PEEK_OFF": 42, "SO_PEERCRED": 17, "SO_PEERSEC": 31, "SO_PRIORITY": 12, "SO_PROTOCOL": 38,
    "SO_RCVBUFFORCE": 33, "SO_RXQ_OVFL": 40, "SO_SELECT_ERR_QUEUE": 45, "SO_SNDBUFFORCE": 32, "SO_TIMESTAMP": 29,
    "SO_TIMESTAMPNS": 35, "TCP_FASTOPEN_CONNECT": 30,
}  # fmt: skip


def option(name):
    level = socket.IPPROTO_TCP if name.startswith("TCP_") else socket.SOL_SOCKET
    return level, OTHERS.get(name) or getattr(socket, name)


VARY = {
    "TCP_INFO",
    "TCP_QUICKACK",
    "SO_INCOMING_CPU",
    "SO_INCOMING_NAPI_ID",
    "SO_PEERCRED",
    "TCP_WINDOW_CLAMP",
    "TCP_MAXSEG",
}
BUFFERS = {"SO_RCVBUF", "SO_SNDBUF", "SO_RCVBUFFORCE", "SO_SNDBUFFORCE"}  # the kernel tunes them as it goes


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_beside_tcps(pair, tcp, ssad, name):
    """What it reads, what setting it gives, what it reads then: as on a TCP socket. The stream goes on."""
    level, number = option(name)
    if name == "SO_PEEK_OFF":
        assert number_of(lambda: pair[0].setsockopt(level, number, 0)) == REFUSED
        return
    read, told = ([number_of(lambda sock=sock: sock.getsockopt(level, number, 64)) for sock in (one, other)]
                  for one, other in (pair, tcp))  # fmt: skip
    values = [[shape(name, value) for value in pair_] for pair_ in (read, told)]
    assert values[0] == values[1]
    for value in (1, 0, struct.pack("ll", 9, 0)):
        if name in {"SO_LOCK_FILTER", "SO_MARK"} and value:
            continue  # no way back; the packets go elsewhere
        ours = number_of(lambda value=value: pair[0].setsockopt(level, number, value))
        assert ours == number_of(lambda value=value: tcp[0].setsockopt(level, number, value)), value
        after = [shape(name, number_of(lambda s=s: s.getsockopt(level, number, 64))) for s in (pair[0], tcp[0])]
        assert after[0] == after[1], value
    pair[0].sendall(b"goes on")
    assert pair[1].recv(7, socket.MSG_WAITALL) == b"goes on"


def shape(name, value):
    if isinstance(value, bytes) and (name in VARY or name in BUFFERS):
        return len(value) if name != "TCP_INFO" else len(value) > 0
    return value


def test_every_row_is_tried():
    assert {name for name, words in OPTIONS.items() if words != (AS_TCP, AS_TCP)} == {
        "SO_ERROR", "SO_LINGER", "SO_PASSCRED", "SO_PASSSEC", "SO_PEEK_OFF", "SO_RCVBUF", "SO_RCVBUFFORCE",
        "SO_RCVLOWAT", "SO_RCVTIMEO", "SO_RXQ_OVFL", "SO_SNDBUF", "SO_SNDBUFFORCE", "SO_SNDTIMEO", "SO_TIMESTAMP",
        "SO_TIMESTAMPNS",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["SO_RCVTIMEO", "SO_RCVLOWAT", "SO_SNDTIMEO"])
def test_options_of_the_calls(pair, name):
    client, server = pair
    if name == "SO_RCVLOWAT":
        server.setsockopt(*option(name), 5)
        client.sendall(b"abc")
        timer = threading.Timer(0.2, client.sendall, [b"def"])
        timer.start()
        assert len(server.recv(10)) >= 5
        timer.join()
        return
    server.setsockopt(*option(name), struct.pack("ll", 0, 200_000))
    began = time.monotonic()
    with pytest.raises(BlockingIOError):
        server.recv(1) if name == "SO_RCVTIMEO" else server.sendall(bytes(10**7))
    assert 0.1 < time.monotonic() - began < 5


@pytest.mark.parametrize("name", ["SO_TIMESTAMP", "SO_TIMESTAMPNS", "SO_PASSCRED", "SO_RXQ_OVFL"])
def test_there_is_no_ancillary_data(pair, name):
    client, server = pair
    with contextlib.suppress(OSError):  # newer kernels refuse what TCP has no use for
        server.setsockopt(*option(name), 1)
    client.sendall(b"abc")
    assert server.recvmsg(10, 1000)[:2] == (b"abc", [])
