"""Bad input and bad luck: each ends in an error that says what is wrong, in time, and hurts nobody else."""

import contextlib
import errno
import os
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import ssa
from ssa import errors
from ssa.ktls.constants import TCP_ULP
from ssa.protocol import wire
from tests import peers


def reset(connection):
    connection.recv(65536)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answer(data, *, then_stall=False):
    def serve(connection):
        connection.recv(65536)
        connection.sendall(data)
        if then_stall:
            connection.recv(65536)

    return serve


def stall(connection):
    while connection.recv(65536):
        pass


HELLO_START = b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76"

FAULTS = {
    "closes at once": (lambda connection: None, ("PEER_CLOSED", "CONNECTION_CLOSED", "CONNECTION_RESET")),
    "closes after the hello": (lambda connection: connection.recv(65536), ("CONNECTION_CLOSED",)),
    "resets": (reset, ("CONNECTION_RESET",)),
    "junk": (answer(b"\xde\xad\xbe\xef" * 100), ("NOT_TLS",)),
    "plain HTTP": (answer(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ("NOT_TLS",)),
    "oversized record": (answer(b"\x16\x03\x03\xff\xff" + bytes(4096), then_stall=True), ("RECORD_OVERFLOW",)),
    "half a record, then the end": (answer(HELLO_START), ("CONNECTION_CLOSED",)),
    "junk in a handshake record": (answer(b"\x16\x03\x03\x00\x04junk", then_stall=True), ("PROTOCOL_VIOLATION",)),
    "data before the handshake": (answer(b"\x17\x03\x03\x00\x04data", then_stall=True), ("PROTOCOL_VIOLATION",)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_servers(ssad, fault):
    serve, reasons = FAULTS[fault]
    began = time.monotonic()
    with peers.script(serve) as port, pytest.raises(ssa.HandshakeError) as caught:
        ssa.connect_tls("localhost", port, timeout=8)
    assert caught.value.reason in reasons
    assert caught.value.whose_fault in ("peer", "network")
    assert time.monotonic() - began < 5


def test_an_alert_that_is_in_no_standard(ssad):
    with peers.script(answer(b"\x15\x03\x03\x00\x02\x02\xf0")) as port, pytest.raises(ssa.HandshakeError) as caught:
        ssa.connect_tls("localhost", port)
    assert (caught.value.reason, caught.value.alert) == ("PEER_ALERT", "alert_240")


@pytest.mark.parametrize(
    "serve", [stall, answer(HELLO_START, then_stall=True)], ids=["silence", "half a record, then silence"]
)
def test_stalled_servers_end_at_the_deadline(ssad, serve):
    before = ssad.descriptors()
    with peers.script(serve) as port:
        began = time.monotonic()
        with pytest.raises(ssa.HandshakeTimeout) as caught:
            ssa.connect_tls("localhost", port, timeout=0.5)
        assert 0.3 < time.monotonic() - began < 2
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.errno == errno.ETIMEDOUT
    assert ssad.descriptors() == before


def test_the_policys_timeout_holds_for_who_sets_none(ssad):
    ssad.set("handshake_timeout", "0.3")
    with peers.script(stall) as port, pytest.raises(TimeoutError, match=r"0\.3 s"):
        ssa.connect_tls("localhost", port)


def test_one_byte_at_a_time(ssad, pki):
    """A path that tears every record apart."""

    def dribble(client):
        with socket.create_connection(("localhost", server_port)) as server:
            threading.Thread(target=tear, args=(server, client), daemon=True).start()
            tear(client, server)

    def tear(source, target):
        with contextlib.suppress(OSError):
            target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(256):
                for byte in data:
                    target.send(bytes([byte]))

    with peers.openssl(pki, "-rev", "-quiet") as (server_port, _), peers.script(dribble) as port:
        fd = ssa.connect_tls("localhost", port)
        assert ssa.send(fd, b"torn\n") == 5
        received = b""
        while not received.endswith(b"\n"):
            received += ssa.recv(fd, 100)
        assert received == b"nrot\n"
        ssa.close(fd)


def test_no_common_version(ssad, pki):
    ssad.set("min_version", "TLSv1.3")
    with peers.openssl(pki, "-tls1_2") as (port, _), pytest.raises(ssa.HandshakeError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.reason == "UNSUPPORTED_VERSION"
    assert caught.value.alert == "protocol_version"
    assert caught.value.whose_fault == "peer"


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_no_common_cipher(ssad, pki, version):
    ssad.set("ciphersuites", "TLS_AES_128_GCM_SHA256")
    ssad.set("ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256")
    only = ("-ciphersuites", "TLS_AES_256_GCM_SHA384", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384")
    with peers.openssl(pki, version, *only) as (port, _), pytest.raises(ssa.HandshakeError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.alert == "handshake_failure"
    assert "cipher" in str(caught.value)


def test_a_server_that_demands_a_client_certificate(ssad, pki):
    with peers.openssl(pki, "-Verify", "1", "-verify_return_error", "-tls1_3") as (port, _):
        with pytest.raises(ssa.HandshakeError) as caught:
            ssa.connect_tls("localhost", port)
        assert caught.value.alert == "certificate_required"


def test_refused_port_unknown_host_and_unroutable(ssad):
    with pytest.raises(ConnectionRefusedError):
        ssa.connect_tls("localhost", peers.free_port())
    with pytest.raises(socket.gaierror):
        ssa.connect_tls("nothing.invalid", 443)


def test_200_at_once_half_of_them_against_stalled_servers(ssad, pki, tmp_path):
    ssad.set("handshake_timeout", "6")
    with peers.nginx(pki, tmp_path / "nginx") as good, peers.script(stall) as bad:
        times = []

        def attempt(number):
            began = time.monotonic()
            try:
                fd = ssa.connect_tls("localhost", bad if number % 2 else good)
            except ssa.HandshakeTimeout:
                return "stalled"
            times.append(time.monotonic() - began)
            ssa.close(fd)
            return "good"

        with ThreadPoolExecutor(200) as pool:
            results = list(pool.map(attempt, range(200)))
    assert results == ["good", "stalled"] * 100
    assert max(times) < 5  # none of the good ones has waited for a bad one's deadline
    assert ssad.sockets() == []


def test_an_application_that_goes_away_ends_its_handshake(ssad):
    come, gone = threading.Event(), threading.Event()

    def serve(connection):
        while connection.recv(65536):
            come.set()
        gone.set()

    with peers.script(serve) as port:
        code = f"import ssa; ssa.connect_tls('localhost', {port})"
        process = subprocess.Popen([sys.executable, "-c", code])
        assert come.wait(20)
        process.kill()
        process.wait()
        assert gone.wait(3)


# --- requests that are wrong in themselves ---------------------------------------------------------------------------


def ask(ssad, packet, *descriptors):
    """Send bytes and descriptors as they are; the reply."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
        daemon.settimeout(10)
        daemon.connect(str(ssad.run_dir / "ssad.sock"))
        socket.send_fds(daemon, [packet], list(descriptors))
        return wire.parse_untrusted(daemon.recv(wire.MAX_MESSAGE), wire.Reply)


GOOD = wire.pack(wire.Connect("localhost"))


@pytest.fixture
def connected(pki):
    """A TCP connection to a real server, not yet TLS."""
    with peers.openssl(pki, "-rev", "-quiet") as (port, _), socket.create_connection(("localhost", port)) as sock:
        yield sock


@contextlib.contextmanager
def pipe_end():
    reading, writing = os.pipe()
    os.close(writing)
    try:
        yield reading
    finally:
        os.close(reading)


def test_malformed_requests(ssad, connected):
    for packet in (b"x", b"\0" * 100, b"GET / HTTP/1.0\r\n\r\n", GOOD[:-1], GOOD + b"x", b"x" * 70_000):
        assert ask(ssad, packet, connected.fileno()).reason == "BAD_REQUEST"
    # and the daemon goes on
    assert ask(ssad, GOOD, connected.fileno()).reason is None


def test_the_wrong_number_of_descriptors(ssad, connected):
    assert ask(ssad, GOOD).reason == "NO_DESCRIPTOR"
    assert ask(ssad, GOOD, connected.fileno(), connected.fileno()).reason == "NO_DESCRIPTOR"
    assert ask(ssad, GOOD, *[connected.fileno()] * 200).reason == "NO_DESCRIPTOR"


def test_descriptors_that_are_no_connected_tcp_socket(ssad):
    with pipe_end() as reading:
        assert ask(ssad, GOOD, reading).reason == "NOT_TCP"
    unix, other = socket.socketpair()
    with unix, other:
        assert ask(ssad, GOOD, unix.fileno()).reason == "NOT_TCP"
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as unconnected:
            assert ask(ssad, GOOD, unconnected.fileno()).reason == "NOT_CONNECTED"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        assert ask(ssad, GOOD, listening.fileno()).reason == "NOT_CONNECTED"


@pytest.mark.parametrize("half", ["ours", "our reading side", "theirs"])
def test_a_socket_that_is_closed_half(ssad, half):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        peer, _ = server.accept()
        with peer:
            side = socket.SHUT_RD if "reading" in half else socket.SHUT_WR
            (peer if half == "theirs" else sock).shutdown(side)
            time.sleep(0.05)
            reply = ask(ssad, GOOD, sock.fileno())
            assert reply.reason == ("PEER_CLOSED" if half == "theirs" else "NOT_CONNECTED")
            assert errors.REASONS[reply.reason].errno == errno.ENOTCONN


def test_a_socket_that_is_kernel_tls_already(ssad, pki, connected):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        fd = ssa.connect_tls("localhost", port)
        assert ask(ssad, GOOD, fd).reason == "ALREADY_TLS"
        os.write(fd, b"fine\n")  # and it goes on as it was
        assert os.read(fd, 16) == b"enif\n"
        ssa.close(fd)
    connected.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    assert ask(ssad, GOOD, connected.fileno()).reason == "ALREADY_TLS"


@pytest.mark.parametrize("hostname", ["", "a" * 300, "with space", "user@host", "127.1", "*.example.com", "\n"])
def test_host_names_that_are_none(ssad, connected, hostname):
    reply = ask(ssad, wire.pack(wire.Connect(hostname)), connected.fileno())
    assert reply.reason == "BAD_VALUE"


def test_no_descriptor_of_a_failed_request_stays_in_the_daemon(ssad, connected):
    before = ssad.descriptors()
    for _ in range(50):
        ask(ssad, b"junk", connected.fileno())
        ask(ssad, GOOD)
    assert ssad.descriptors() == before


def test_errors_name_their_errno(ssad):
    with socket.socket() as unconnected:
        reply = ask(ssad, GOOD, unconnected.fileno())
    assert errors.error(reply.reason, reply.detail).errno == errno.ENOTCONN


def test_status_flags_are_the_applications(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _), socket.create_connection(("localhost", port)) as sock:
        sock.setblocking(False)
        assert ask(ssad, GOOD, sock.fileno()).reason is None
        assert not os.get_blocking(sock.fileno())


def test_options_of_the_application_that_change_how_sockets_wait(ssad, pki):
    """They are obeyed or worked around, and left as they were found."""
    options = {
        (socket.SOL_SOCKET, socket.SO_RCVLOWAT): 100_000,
        (socket.IPPROTO_TCP, socket.TCP_NODELAY): 1,
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    }
    with peers.openssl(pki, "-rev", "-quiet") as (port, _), socket.create_connection(("localhost", port)) as sock:
        for (level, name), value in options.items():
            sock.setsockopt(level, name, value)
        began = time.monotonic()
        assert ask(ssad, GOOD, sock.fileno()).reason is None
        assert time.monotonic() - began < 3
        assert {key: sock.getsockopt(*key) for key in options} == options


def test_a_server_that_resets_right_behind_the_handshake(ssad, pki):
    """Whatever the moment, it is the connection's end, and no fault of the daemon's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        tls = context.wrap_socket(connection, server_side=True)
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        tls.close()

    with peers.script(serve) as port:
        for _ in range(10):
            try:
                fd = ssa.connect_tls("localhost", port)
            except ssa.SSAError as exc:
                assert exc.reason in ("CONNECTION_RESET", "CONNECTION_CLOSED", "NETWORK", "KERNEL_REFUSED")
            else:
                with pytest.raises(OSError, match=r"reset|aborted|cut"):
                    ssa.recv(fd, 1)
                ssa.close(fd)
    assert "Traceback" not in ssad.log


@pytest.mark.parametrize("timeout", [float("nan"), -1])
def test_timeouts_that_are_none(ssad, timeout):
    with pytest.raises(ValueError, match="timeout"):
        ssa.connect_tls("localhost", 1, timeout=timeout)


@pytest.mark.parametrize("timeout", [float("inf"), 1e12])
def test_timeouts_that_never_come(ssad, pki, timeout):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        fd = ssa.connect_tls("localhost", port, timeout=timeout)
        assert os.get_blocking(fd)
        ssa.close(fd)


@pytest.mark.parametrize(("alpn", "error"), [("h2", TypeError), (["é"], ValueError), ([""], ValueError)])
def test_protocols_that_are_none(ssad, alpn, error):
    with pytest.raises(error, match="alpn"):
        ssa.connect_tls("localhost", 1, alpn=alpn)


def test_the_daemon_is_not_waited_for_longer_than_asked(ssad):
    os.kill(ssad.process.pid, signal.SIGSTOP)
    try:
        with peers.script(stall) as port:
            began = time.monotonic()
            with pytest.raises(TimeoutError) as caught:
                ssa.connect_tls("localhost", port, timeout=0.3)
            assert caught.value.errno == errno.ETIMEDOUT
            assert time.monotonic() - began < 5
    finally:
        os.kill(ssad.process.pid, signal.SIGCONT)


def test_hanging_up_behind_a_second_request(ssad):
    """It ends the first one too, at once: nobody would hold the socket."""
    gone = threading.Event()

    def serve(client):
        stall(client)
        gone.set()

    with peers.script(serve) as port, socket.create_connection(("localhost", port)) as sock:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
            daemon.connect(str(ssad.run_dir / "ssad.sock"))
            for _ in range(2):
                socket.send_fds(daemon, [GOOD], [sock.fileno()])
                time.sleep(0.1)
        assert gone.wait(3)
