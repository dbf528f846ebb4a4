"""A bare descriptor's life: tickets, the two ends of a stream, and what a plain read sees."""

import contextlib
import errno
import os
import socket
import ssl
import subprocess
import threading
import time

import pytest

import ssa
from ssa import errors
from ssa.ktls.constants import SOL_TLS, TLS_TX
from ssa.ktls.crypto_info import CryptoInfo
from ssa.ktls.key_schedule import TrafficKey
from ssa.protocol import wire
from ssa.suites import AEADS, TLSVersion
from tests import peers


@pytest.mark.parametrize("tickets", [0, 1, 2, 8])
def test_plain_reads_never_stumble_over_tickets(ssad, pki, tickets):
    before = int(ssad.get("stats/tickets"))
    with peers.openssl(pki, "-rev", "-quiet", "-num_tickets", tickets) as (port, _):
        for _ in range(5):
            fd = ssa.connect_tls("localhost", port)
            os.write(fd, b"ab\n")
            assert os.read(fd, 16) == b"ba\n"
            ssa.close(fd)
    again = min(tickets, 1)  # what OpenSSL sends where a session was resumed
    assert int(ssad.get("stats/tickets")) == before + tickets + 4 * again


def test_a_server_that_speaks_first(ssad, pki):
    with peers.openssl(pki, "-quiet") as (port, server):
        server.stdin.write(b"220 welcome\r\n")
        server.stdin.flush()
        fd = ssa.connect_tls("localhost", port)
        assert os.read(fd, 100) == b"220 welcome\r\n"
        ssa.close(fd)


def test_tickets_behind_the_hand_over_are_passed_over_by_recv(ssad, pki):
    """A server that is slow with its tickets: plain reads get EIO and lose nothing, ssa.recv reads on."""

    def slow(client):
        with socket.create_connection(("localhost", server_port)) as server:
            threading.Thread(target=copy, args=(client, server), daemon=True).start()
            flights = 0
            while data := server.recv(65536):
                flights += 1
                time.sleep(0.6 if flights > 1 else 0)
                client.sendall(data)

    def copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    with peers.openssl(pki, "-rev", "-quiet") as (server_port, _), peers.script(slow) as port:
        fd = ssa.connect_tls("localhost", port)
        os.write(fd, b"late\n")
        with pytest.raises(OSError) as caught:
            os.read(fd, 100)
        assert caught.value.errno == errno.EIO
        assert ssa.recv(fd, 100) == b"etal\n"
        ssa.close(fd)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_close_notify_is_the_end_again_and_again(ssad, pki, version):
    def serve(tls, tcp):
        tls.sendall(b"last words")
        with contextlib.suppress(OSError):
            tls.unwrap()

    with peers.python_server(pki, serve, version) as port:
        fd = ssa.connect_tls("localhost", port)
        received = b""
        while data := ssa.recv(fd, 4):
            received += data
        assert received == b"last words"
        assert ssa.recv(fd, 4) == b""
        assert ssa.recv(fd, 4) == b""
        ssa.close(fd)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
def test_a_bare_end_is_a_truncation(ssad, pki, version):
    def cut(tls, tcp):
        tls.sendall(b"there is mo")
        socket.socket(fileno=tls.detach()).close()

    with peers.python_server(pki, cut, version) as port:
        fd = ssa.connect_tls("localhost", port)
        assert ssa.recv(fd, 100) == b"there is mo"
        for _ in range(2):
            with pytest.raises(ConnectionAbortedError, match="close_notify"):
                ssa.recv(fd, 100)
        ssa.close(fd)


def test_a_fatal_alert_in_mid_stream(ssad, pki):
    """A forged record makes the peer send bad_record_mac, which names itself here."""

    def tamper(client):
        with socket.create_connection(("localhost", server_port)) as server:
            threading.Thread(target=corrupt, args=(client, server), daemon=True).start()
            while data := server.recv(65536):
                client.sendall(data)

    def corrupt(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                damage = data[:3] == b"\x17\x03\x03" and spoil.is_set()
                target.sendall(data[:-1] + bytes([data[-1] ^ 1]) if damage else data)

    spoil = threading.Event()
    with peers.openssl(pki, "-rev", "-quiet") as (server_port, _), peers.script(tamper) as port:
        fd = ssa.connect_tls("localhost", port)
        spoil.set()
        ssa.send(fd, b"hello\n")
        with pytest.raises(OSError, match="bad_record_mac") as caught:
            ssa.recv(fd, 100)
        assert caught.value.errno == errno.EPROTO
        ssa.close(fd)


@pytest.mark.parametrize("how", ["ssa.close", "os.close"])
def test_only_close_says_goodbye(ssad, pki, how):
    seen = []
    done = threading.Event()

    def serve(tls, tcp):
        try:
            while data := tls.recv(100):
                seen.append(data)
            seen.append("close_notify")
        except OSError:  # SSLEOFError, or the reset of a connection that was closed with a ticket unread
            seen.append("cut")
        done.set()

    with peers.python_server(pki, serve) as port:
        fd = ssa.connect_tls("localhost", port)
        assert ssa.send(fd, b"data") == 4
        (ssa.close if how == "ssa.close" else os.close)(fd)
        assert done.wait(5)
    assert seen == [b"data", "close_notify" if how == "ssa.close" else "cut"]
    with pytest.raises(OSError):
        os.fstat(fd)


def test_closing_what_the_peer_has_reset(ssad, pki):
    with peers.python_server(pki, lambda tls, tcp: socket.socket(fileno=tls.detach()).close()) as port:
        fd = ssa.connect_tls("localhost", port)
        for _ in range(3):
            with contextlib.suppress(OSError):
                ssa.send(fd, b"anyone there?")
                time.sleep(0.02)
        ssa.close(fd)
        with pytest.raises(OSError):
            os.fstat(fd)


def test_no_copy_of_the_descriptor_stays_in_the_daemon(ssad, pki):
    gone = threading.Event()

    def serve(tls, tcp):
        with contextlib.suppress(OSError):
            tls.recv(1)
        gone.set()

    with peers.python_server(pki, serve) as port:
        before = ssad.descriptors()
        fd = ssa.connect_tls("localhost", port)
        assert ssad.descriptors() == before
        os.close(fd)
        assert gone.wait(2)  # the FIN went out: nobody else held the connection


def test_the_socket_outlives_the_daemon(capabilities, pki, tmp_path, monkeypatch):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
            for name, value in daemon.environment.items():
                monkeypatch.setenv(name, value)
            fd = ssa.connect_tls("localhost", port)
        assert daemon.process.returncode == 0
        os.write(fd, b"alive\n")
        assert os.read(fd, 100) == b"evila\n"
        ssa.close(fd)
        with pytest.raises(ConnectionRefusedError, match=str(daemon.run_dir)):
            ssa.connect_tls("localhost", port)


def test_a_kernel_that_refuses_the_keys(ssad, pki):
    """Keys are in the socket already when ours come (EBUSY): the connection ends, with the reason told."""
    with socket.socket() as sock, peers.openssl(pki, "-tls1_3", "-num_tickets", "0") as (server_port, _):

        def interfere(client):
            with socket.create_connection(("localhost", server_port)) as server:
                server.sendall(client.recv(65536))
                while not installed and (data := server.recv(65536)):
                    client.sendall(data)
                    server.sendall(client.recv(65536))  # the client's Finished is out, its keys are not in
                    key = TrafficKey(bytes(16), bytes(12))
                    info = CryptoInfo(TLSVersion.TLSv1_3, AEADS[51], key, sequence=0)
                    sock.setsockopt(SOL_TLS, TLS_TX, info.pack())
                    installed.append(True)
                left.append(client.recv(100))
                ended.set()

        installed, left, ended = [], [], threading.Event()
        with peers.script(interfere) as port:
            sock.connect(("127.0.0.1", port))
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as daemon:
                daemon.connect(str(ssad.run_dir / "ssad.sock"))
                socket.send_fds(daemon, [wire.pack(wire.Connect("localhost"))], [sock.fileno()])
                reply = wire.parse_untrusted(daemon.recv(65536), wire.Reply)
            assert installed
            assert reply.reason == "KERNEL_REFUSED"
            assert errors.REASONS[reply.reason].fault == "system"
            with contextlib.suppress(OSError):
                sock.send(b"nothing more may leave")
            assert ended.wait(5)
    assert left == [b""]
    assert ssad.sockets() == []


def test_sendfile_and_subprocess_use_it_as_any_descriptor(ssad, pki, tmp_path):
    content = os.urandom(300_000).hex().encode()
    (tmp_path / "file").write_bytes(content)
    received = bytearray()
    done = threading.Event()

    def serve(tls, tcp):
        while data := tls.recv(65536):
            received.extend(data)
        done.set()

    with peers.python_server(pki, serve) as port:
        fd = ssa.connect_tls("localhost", port)
        with (tmp_path / "file").open("rb") as file:
            sent = 0
            while sent < len(content):
                sent += os.sendfile(fd, file.fileno(), sent, len(content) - sent)
        subprocess.run(["echo", "from a child"], stdout=fd, check=True)
        ssa.close(fd)
        assert done.wait(10)
    assert bytes(received) == content + b"from a child\n"


def test_alpn(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        for offered, chosen in ((["http/1.1"], "http/1.1"), (["nonsense", "http/1.1"], "http/1.1"), (None, "")):
            fd = ssa.connect_tls("localhost", port, alpn=offered)
            (number,) = ssad.sockets()
            assert ssad.get(f"sockets/{number}/alpn") == chosen + "\n"
            ssa.close(fd)
        ssad.set("alpn", "http/1.1")
        with pytest.raises(ssa.PolicyError, match="alpn") as caught:
            ssa.connect_tls("localhost", port, alpn=["h2"])
        assert caught.value.errno == errno.EACCES


def test_source_address_and_timeouts(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        fd = ssa.connect_tls("127.0.0.1", port, source_address=("127.0.0.9", 0), timeout=5)
        with socket.socket(fileno=fd) as sock:
            assert sock.getsockname()[0] == "127.0.0.9"
            assert sock.gettimeout() is None
            os.write(fd, b"ab\n")
            assert os.read(fd, 16) == b"ba\n"


def test_closing_with_a_full_send_buffer_loses_nothing(ssad, pki):
    """The last byte that send() took arrives, and close_notify behind it, though the peer reads late."""
    received, ends = [], []
    done = threading.Event()

    def serve(tls, tcp):
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            while data := tls.recv(1 << 16):
                received.append(len(data))
            ends.append("close_notify")
        done.set()

    with peers.python_server(pki, serve) as port:
        fd = ssa.connect_tls("localhost", port)
        os.set_blocking(fd, False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += ssa.send(fd, bytes(1 << 14))
        ssa.close(fd)
        assert done.wait(10)
    assert sum(received) == sent
    assert ends == ["close_notify"]


def test_a_default_timeout_does_not_reach_the_descriptor(ssad, pki):
    """Python's is the program's; O_NONBLOCK is the open file's."""
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        socket.setdefaulttimeout(5)
        try:
            fd = ssa.connect_tls("localhost", port)
            assert os.get_blocking(fd)
            ssa.send(fd, b"ab\n")
            assert ssa.recv(fd, 10) == b"ba\n"
            assert os.get_blocking(fd)
        finally:
            socket.setdefaulttimeout(None)
        ssa.close(fd)
