"""DTLS: sockets of datagrams, both roles, foreign programs, and bad weather. No kernel TLS is needed."""

import asyncio
import contextlib
import errno
import gc
import multiprocessing
import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ssa
import ssa.library.connection
from ssa.protocol import addresses, wire
from tests import datagrams, needs, peers
from tests.datagrams import Proxy, Weather, read_until
from tests.peers import PKI, Daemon, settled

IPPROTO = ssa.IPPROTO_TLS
DGRAM = socket.SOCK_DGRAM
HANDSHAKE, APPLICATION_DATA = 22, 23


@pytest.fixture(scope="module")
def running(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 20\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon
        assert "Traceback" not in daemon.log


@pytest.fixture
def ssad(running, pki, monkeypatch):
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    assert wait_for(lambda: running.sockets() == [])
    yield running
    for name, value in {
        "min_version": "TLSv1.2",
        "max_version": "TLSv1.3",
        "data_path": "ktls-or-relay",
        "handshake_timeout": "20",
        "client_auth": "as-program",
    }.items():
        if running.get(f"policy/{name}").strip() != value:
            running.set(name, value)


@pytest.fixture
def server(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), type=DGRAM, certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(15)
        yield listener


@pytest.fixture
def pair(server):
    with client_of(server.getsockname()[1]) as client:
        accepted, address = server.accept()
        with accepted:
            accepted.settimeout(15)
            assert address == client.getsockname()
            yield client, accepted


def client_of(port, host="localhost", **options):
    sock = ssa.socket(type=DGRAM)
    try:
        sock.tell(**options)
        sock.settimeout(15)
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def wait_for(condition, seconds=5):
    deadline = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


@contextlib.contextmanager
def echo(listener, count=1):
    """Serve clients in threads: each gets back what it sends. A farewell can be lost: at the end all are hung up on."""
    accepted = []

    def serve(connection):
        with contextlib.suppress(OSError):
            connection.settimeout(30)
            while data := connection.recv(2**14):
                connection.send(data)

    def run():
        for _ in range(count):
            accepted.append(listener.accept()[0])
            threads.append(threading.Thread(target=serve, args=(accepted[-1],), daemon=True))
            threads[-1].start()

    threads = [threading.Thread(target=run, daemon=True)]
    threads[0].start()
    try:
        yield
    finally:
        threads[0].join(20)
        for connection in accepted:
            connection.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(20)
        for connection in accepted:
            connection.close()


# --- the socket ------------------------------------------------------------------------------------------------------


def test_both_ways(pair):
    client, server = pair
    client.send(b"to the server")
    assert server.recv(100) == b"to the server"
    server.sendall(b"to the client")
    assert client.recv(100) == b"to the client"


def test_a_datagram_is_a_datagram(pair):
    client, server = pair
    for size in (1, 1000, 16384):
        client.send(bytes(size))
    assert [len(server.recv(65536)) for _ in range(3)] == [1, 1000, 16384]
    client.send(b"longer than the buffer")
    client.send(b"next")
    assert server.recv(6) == b"longer"
    assert server.recv(100) == b"next"
    client.send(b"told of")
    assert server.recvmsg(4) == (b"told", [], socket.MSG_TRUNC, client.getsockname())


def test_all_ways_to_read_and_write(pair):
    client, server = pair
    assert client.sendmsg([b"one ", b"datagram"]) == 12
    buffer = bytearray(20)
    assert server.recv_into(buffer) == 12
    assert buffer[:12] == b"one datagram"
    assert client.sendto(b"to whom it is connected", client.getpeername()) == 23
    assert server.recvfrom(100) == (b"to whom it is connected", client.getsockname())
    client.send(b"in pieces")
    one, two = bytearray(3), bytearray(10)
    assert server.recvmsg_into([one, two])[0] == 9
    assert (one, two[:6]) == (b"in ", b"pieces")
    client.send(b"again")
    assert server.recv(100, socket.MSG_PEEK) == b"again"
    assert server.recvfrom_into(buffer) == (5, client.getsockname())


@pytest.mark.parametrize(
    ("send", "number"),
    [
        (lambda sock: sock.send(b""), errno.EINVAL),
        (lambda sock: sock.send(bytes(16385)), errno.EMSGSIZE),
        (lambda sock: sock.sendto(b"x", ("127.0.0.1", 9)), errno.EISCONN),
        (lambda sock: sock.connect(("127.0.0.1", 9)), errno.EISCONN),
        (lambda sock: sock.setsockopt(IPPROTO, ssa.TLS_UPGRADE, 1), errno.EOPNOTSUPP),
        (lambda sock: sock.setsockopt(IPPROTO, ssa.TLS_ALPN, b"x"), errno.EISCONN),
    ],
)
def test_what_cannot_be_done(pair, send, number):
    with pytest.raises(OSError) as caught:
        send(pair[0])
    assert caught.value.errno == number
    pair[0].send(b"still good")
    assert pair[1].recv(100) == b"still good"


@pytest.fixture
def serving(ssad, pki):
    """A bound socket that serves all its clients."""
    with ssa.socket(type=DGRAM) as sock:
        sock.setsockopt(IPPROTO, ssa.TLS_CERTIFICATE_CHAIN, str(pki.cert))
        sock.setsockopt(IPPROTO, ssa.TLS_PRIVATE_KEY, str(pki.key))
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recvfrom(100)
        yield sock


CONNECTED = ["TLS_PEER_IDENTITY", "TLS_PEER_CERTIFICATE_CHAIN", "TLS_ID", "TLS_CHOSEN_CIPHER", "TLS_VERSION_CONN"]
SETTABLE = {
    "TLS_ALPN": b"x",
    "TLS_REMOTE_HOSTNAME": b"localhost",
    "TLS_HOSTNAME": b"localhost",
    "TLS_CERTIFICATE_CHAIN": b"",
    "TLS_PRIVATE_KEY": b"",
    "TLS_TRUSTED_PEER_CERTIFICATES": b"",
    "TLS_SESSION_TTL": 1,
    "TLS_DISABLE_CIPHER": b"",
    "TLS_REQUEST_PEER_AUTH": 1,
    "TLS_VERSION_MIN": 0xFEFD,
    "TLS_VERSION_MAX": 0xFEFD,
}


@pytest.mark.parametrize(
    ("call", "number"),
    [
        (lambda sock: sock.connect(("127.0.0.1", 9)), errno.EISCONN),
        (lambda sock: sock.listen(), errno.EINVAL),
        (lambda sock: sock.accept(), errno.EINVAL),
        (lambda sock: sock.detach(), errno.EBUSY),
        (lambda sock: sock.getpeername(), errno.ENOTCONN),
        (lambda sock: sock.send(b"x"), errno.EDESTADDRREQ),
        (lambda sock: sock.setsockopt(IPPROTO, ssa.TLS_UPGRADE, 1), errno.EOPNOTSUPP),
        (lambda sock: sock.setsockopt(IPPROTO, ssa.TLS_ID, 1), errno.ENOPROTOOPT),
        (lambda sock: sock.getsockopt(IPPROTO, ssa.TLS_PRIVATE_KEY), errno.ENOPROTOOPT),
        *[(lambda sock, name=name: sock.getsockopt(IPPROTO, getattr(ssa, name)), errno.ENOTCONN) for name in CONNECTED],
        *[
            (lambda sock, name=name, value=value: sock.setsockopt(IPPROTO, getattr(ssa, name), value), errno.EISCONN)
            for name, value in SETTABLE.items()
        ],
    ],
)
def test_what_a_server_of_all_clients_cannot(serving, call, number):
    """The errors of docs/options.md. An option that counts no more is not taken."""
    with pytest.raises(OSError) as caught:
        call(serving)
    assert caught.value.errno == number
    assert serving.getsockopt(IPPROTO, ssa.TLS_UPGRADE) == 0
    assert serving.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    with client_of(serving.getsockname()[1]) as client:
        client.send(b"still serving")
        select.select([serving], [], [], 10)
        data, address = serving.recvfrom(100)
        assert (data, address) == (b"still serving", client.getsockname())
        with serving.dup() as twin:
            twin.sendto(b"and twins do", address)
        assert client.recv(100) == b"and twins do"


def test_what_a_listener_cannot(server):
    for call, number in (
        (lambda: server.connect(("127.0.0.1", 9)), errno.EISCONN),
        (lambda: server.send(b"x"), errno.ENOTCONN),
        (lambda: server.recv(1), errno.ENOTCONN),
        (server.getpeername, errno.ENOTCONN),
        (lambda: server.getsockopt(IPPROTO, ssa.TLS_CHOSEN_CIPHER), errno.ENOTCONN),
        (lambda: server.getsockopt(IPPROTO, ssa.TLS_VERSION_CONN), errno.ENOTCONN),
        (lambda: server.setsockopt(IPPROTO, ssa.TLS_UPGRADE, 1), errno.EOPNOTSUPP),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == number


def test_before_it_is_connected(ssad):
    with ssa.socket(type=DGRAM) as sock:
        for call in (lambda: sock.send(b"x"), lambda: sock.recv(10), sock.getpeername):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(OSError) as caught:
            sock.accept()
        assert caught.value.errno == errno.EINVAL


def test_the_options_tell(ssad, pki):
    certificate = {"certificate": pki.cert, "private_key": pki.key}
    server = ssa.create_server(("127.0.0.1", 0), type=DGRAM, alpn=["coap", "other"], **certificate)
    with server, client_of(server.getsockname()[1], alpn=("other", "coap")) as client, server.accept()[0] as accepted:
        assert client.getsockopt(IPPROTO, ssa.TLS_VERSION_CONN) == 0xFEFD
        assert client.getsockopt(IPPROTO, ssa.TLS_VERSION_CONN, 20) == b"DTLSv1.2"
        assert client.getsockopt(IPPROTO, ssa.TLS_CHOSEN_CIPHER) == b"TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
        assert client.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"
        assert client.getsockopt(IPPROTO, ssa.TLS_PEER_CERTIFICATE_CHAIN).strip() == pki.cert.read_bytes().strip()
        assert client.getsockopt(IPPROTO, ssa.TLS_ALPN) == accepted.getsockopt(IPPROTO, ssa.TLS_ALPN) == b"coap"
        assert accepted.getsockopt(IPPROTO, ssa.TLS_HOSTNAME) == b"localhost"
        ids = {sock.getsockopt(IPPROTO, ssa.TLS_ID) for sock in (client, accepted)}
        assert len(ids) == 2
        assert accepted.getsockname() == server.getsockname() == client.getpeername()


def test_a_listener_takes_options_later(server):
    server.setsockopt(IPPROTO, ssa.TLS_ALPN, b"coap")
    with client_of(server.getsockname()[1], alpn=("coap",)) as client, server.accept()[0]:
        assert client.getsockopt(IPPROTO, ssa.TLS_ALPN) == b"coap"


def test_the_file_system_shows_it(ssad, pair, pki):
    client, server = pair
    client.send(b"x" * 1000)
    server.recv(1000)
    ours = f"sockets/{client.getsockopt(IPPROTO, ssa.TLS_ID)}"
    theirs = f"sockets/{server.getsockopt(IPPROTO, ssa.TLS_ID)}"
    for name, value in {
        "role": "client",
        "version": "DTLSv1.2",
        "cipher": "aes-gcm-256",
        "data_path": "relay",
        "peer_identity": "localhost",
        "compliant": "yes",
        "pid": str(os.getpid()),
        "local": f"127.0.0.1:{client.getsockname()[1]}",
        "remote": f"127.0.0.1:{client.getpeername()[1]}",
    }.items():
        assert ssad.get(f"{ours}/{name}").strip() == value
    assert ssad.get(f"{theirs}/role").strip() == "server"
    assert ssad.get(f"{ours}/peer_cert").strip() == pki.cert.read_text().strip()
    # The first hello, before its cookie, is of no session yet: the server has not counted it.
    assert 1000 < int(ssad.get(f"{theirs}/bytes_received")) < int(ssad.get(f"{ours}/bytes_sent"))
    assert ssad.get("stats/sockets").strip() == "2"


def test_the_end_is_an_end_and_is_told_again(pair):
    client, server = pair
    server.send(b"last words")
    server.close()
    assert client.recv(100) == b"last words"
    assert client.recv(100) == b""
    assert client.recv(100) == b""


def test_shutdown_ends_the_session(pair):
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    assert server.recv(100) == b""
    with pytest.raises(OSError, match="Broken pipe"):
        client.send(b"too late")


def test_the_administrator_ends_it(ssad, pair):
    client, server = pair
    Path(ssad.mount / f"sockets/{client.getsockopt(IPPROTO, ssa.TLS_ID)}/close").write_text("1\n")
    with pytest.raises(ConnectionAbortedError):
        client.recv(100)
    assert server.recv(100) == b""
    assert wait_for(lambda: len(ssad.sockets()) == 1)


def test_a_second_holder_keeps_it(pair):
    client, server = pair
    twin = client.dup()
    client.close()
    with twin:
        twin.send(b"from the other descriptor")
        assert server.recv(100) == b"from the other descriptor"
        assert twin.getpeername() == server.getsockname()
    assert server.recv(100) == b""


def test_a_child_keeps_it(pair):
    client, server = pair
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            client.send(b"from the child")
        os._exit(0)
    client.close()
    os.waitpid(child, 0)
    assert server.recv(100) == b"from the child"
    assert server.recv(100) == b""


def test_a_bare_descriptor(pair):
    client, server = pair
    client.settimeout(None)
    fd = client.detach()
    try:
        os.write(fd, b"by write")
        assert server.recv(100) == b"by write"
        server.send(b"by read")
        assert os.read(fd, 100) == b"by read"
        again = ssa.socket(type=DGRAM, fileno=os.dup(fd))
        with again:
            assert again.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"
            assert again.getpeername() == server.getsockname()
            assert again.getsockname() == server.getpeername()
            again.send(b"and so on")
        assert server.recv(100) == b"and so on"
    finally:
        os.close(fd)
    assert server.recv(100) == b""


def test_a_listener_of_another_process(server):
    """It comes as a descriptor, and nothing else is known."""
    with ssa.socket(type=DGRAM, fileno=os.dup(server.fileno())) as listener:
        listener.settimeout(10)
        with client_of(server.getsockname()[1]) as client, listener.accept()[0] as accepted:
            assert accepted.family == socket.AF_INET
            assert accepted.getpeername() == client.getsockname()
            accepted.settimeout(10)
            client.send(b"to whoever accepts")
            assert accepted.recv(100) == b"to whoever accepts"


def test_timeouts(pair):
    client, _ = pair
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv(10)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(10)


def test_connecting_without_waiting(server):
    with ssa.socket(type=DGRAM) as client:
        client.setblocking(False)
        poll = select.epoll()
        poll.register(client, select.EPOLLOUT)
        with pytest.raises(BlockingIOError) as caught:
            client.connect(("localhost", server.getsockname()[1]))
        assert caught.value.errno == errno.EINPROGRESS
        assert poll.poll(10)
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        poll.close()
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(10)
            client.send(b"hello")
            assert accepted.recv(100) == b"hello"
            accepted.send(b"to you")
            select.select([client], [], [], 10)
            assert client.recv(100) == b"to you"
            assert client.getpeername() == server.getsockname()


def test_connecting_without_waiting_to_nobody(ssad):
    with ssa.socket(type=DGRAM) as client:
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.connect(("127.0.0.1", datagrams.free_port()))
        assert select.select([], [client], [], 10)[1]
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        with pytest.raises(OSError) as caught:
            client.send(b"x")
        assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(OSError):
            os.write(client.fileno(), b"plain text")


def is_free(port):
    with socket.socket(socket.AF_INET, DGRAM) as sock, contextlib.suppress(OSError):
        sock.bind(("127.0.0.1", port))
        return True
    return False


@pytest.mark.parametrize("waits", [True, False])
def test_connecting_again(ssad, pki, waits):
    """A UDP socket has no connection that would be used up by a handshake that failed."""
    port = datagrams.free_port()

    def attempt(client):
        if waits:
            return client.connect_ex(("localhost", port))
        assert client.connect_ex(("localhost", port)) == errno.EINPROGRESS
        assert select.select([], [client], [], 10)[1]
        return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

    with ssa.socket(type=DGRAM) as client:
        client.settimeout(10 if waits else 0)
        client.bind(("127.0.0.1", 0))
        assert [attempt(client) for _ in range(2)] == [errno.ECONNREFUSED] * 2
        with pytest.raises(OSError) as caught:
            client.recv(1)
        assert caught.value.errno == errno.ENOTCONN
        with pytest.raises(OSError):
            os.write(client.fileno(), b"plain text")
        cert, key = pki.issue("another", "other.test")
        with ssa.create_server(("127.0.0.1", port), type=DGRAM, certificate=cert, private_key=key):
            assert attempt(client) == errno.EKEYREJECTED
        assert settled(lambda: is_free(port))
        with ssa.create_server(("127.0.0.1", port), type=DGRAM, certificate=pki.cert, private_key=pki.key) as server:
            server.settimeout(10)
            assert attempt(client) == 0
            with server.accept()[0] as accepted:
                accepted.settimeout(10)
                client.send(b"hello")
                assert accepted.recv(100) == b"hello"


def test_nobody_is_there(ssad):
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        client_of(datagrams.free_port())
    assert time.monotonic() - began < 5


def test_nobody_answers(ssad):
    with socket.socket(socket.AF_INET, DGRAM) as silent, ssa.socket(type=DGRAM) as client:
        silent.bind(("127.0.0.1", 0))
        client.settimeout(0.5)
        with pytest.raises(ssa.HandshakeTimeout):
            client.connect(silent.getsockname())
        assert len(silent.recv(2000)) > 100


def test_what_is_no_udp_socket(ssad):
    with ssa.library.connection.DaemonConnection() as daemon, socket.socket(socket.AF_UNIX, DGRAM) as other:
        for request in (wire.Connect("localhost"), wire.Gather(), wire.Listen(1)):
            with pytest.raises(ssa.SSAError) as caught:
                daemon.ask(request, other)
            assert caught.value.reason in ("NOT_UDP", "NO_CREDENTIALS")
        with socket.socket(socket.AF_INET, DGRAM) as unbound:
            with pytest.raises(ssa.SSAError) as caught:
                daemon.ask(wire.Connect("localhost"), unbound)
            assert caught.value.reason == "NOT_CONNECTED"
            with pytest.raises(ssa.SSAError) as caught:
                daemon.ask(wire.Rekey(sending=1), unbound)
            assert caught.value.reason == "BAD_REQUEST"
    with pytest.raises(OSError) as caught:
        ssa.socket(type=DGRAM, proto=socket.IPPROTO_UDP)
    assert caught.value.errno == errno.EPROTONOSUPPORT


SERVES = {"certificates": 1, "keys": 1}
ASKS = {"gather": wire.Gather(**SERVES), "listen": wire.Listen(**SERVES), "connect": wire.Connect("localhost")}


@pytest.mark.parametrize("asks", ASKS)
def test_who_hangs_up_at_once_leaves_nothing(ssad, pki, asks):
    before = ssad.descriptors()
    ports = []
    with socket.socket(socket.AF_INET, DGRAM) as silent, pki.cert.open() as certificate, pki.key.open() as key:
        silent.bind(("127.0.0.1", 0))
        files = [] if asks == "connect" else [certificate.fileno(), key.fileno()]
        for _ in range(40):
            with socket.socket(socket.AF_INET, DGRAM) as udp:
                udp.bind(("127.0.0.1", 0))
                ports.append(udp.getsockname()[1])
                if asks == "connect":
                    udp.connect(silent.getsockname())
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as application:
                    application.connect(str(ssad.run_dir / "ssad.sock"))
                    socket.send_fds(application, [wire.pack(ASKS[asks])], [udp.fileno(), *files])
    assert wait_for(lambda: ssad.descriptors() <= before), (before, ssad.descriptors())
    assert wait_for(lambda: all(map(is_free, ports)))


def test_the_command_line_lists_it(ssad, pair):
    shown = subprocess.run(
        [sys.executable, "-m", "ssa.cli.main", "ls"], capture_output=True, text=True, check=True
    ).stdout
    assert shown.count("DTLSv1.2") == 2
    assert "relay" in shown


@needs.ipv6
def test_ipv6(ssad, pki):
    with ssa.create_server(
        ("::1", 0), type=DGRAM, family=socket.AF_INET6, certificate=pki.cert, private_key=pki.key
    ) as listener:
        listener.settimeout(10)
        with ssa.socket(socket.AF_INET6, DGRAM) as client:
            client.settimeout(10)
            client.connect(("::1", listener.getsockname()[1]))
            accepted, address = listener.accept()
            with accepted:
                assert address == client.getsockname()
                client.send(b"six")
                assert accepted.recvfrom(10) == (b"six", client.getsockname())


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.5"), pytest.param(socket.AF_INET6, "::1", marks=needs.ipv6)]
)
def test_the_answer_comes_from_where_the_question_went(ssad, pki, family, host):
    certificate = {"certificate": pki.cert, "private_key": pki.key}
    with ssa.create_server(("", 0), type=DGRAM, family=family, dualstack_ipv6=True, **certificate) as listener:
        listener.settimeout(10)
        with ssa.socket(family, DGRAM) as client:
            client.tell(hostname="localhost")
            client.settimeout(10)
            client.connect((host, listener.getsockname()[1]))
            with listener.accept()[0] as accepted:
                assert accepted.getsockname() == client.getpeername()
                assert accepted.getpeername() == client.getsockname()
                number = accepted.getsockopt(IPPROTO, ssa.TLS_ID)
                shown = f"[{host}]" if ":" in host else host
                assert ssad.get(f"sockets/{number}/local").strip() == f"{shown}:{listener.getsockname()[1]}"


def test_ipv4_on_a_socket_of_both(ssad, pki):
    certificate = {"certificate": pki.cert, "private_key": pki.key}
    with ssa.create_server(("", 0), type=DGRAM, family=socket.AF_INET6, dualstack_ipv6=True, **certificate) as listener:
        listener.settimeout(10)
        with client_of(listener.getsockname()[1]) as client, listener.accept()[0] as accepted:
            accepted.settimeout(10)
            assert accepted.getpeername()[:2] == ("::ffff:127.0.0.1", client.getsockname()[1])
            client.send(b"four in six")
            assert accepted.recv(100) == b"four in six"
            accepted.send(b"and back")
            assert client.recv(100) == b"and back"


# --- certificates and the policy -------------------------------------------------------------------------------------


def test_a_wrong_name_is_refused(server):
    with pytest.raises(ssa.CertificateError) as caught:
        client_of(server.getsockname()[1], host="127.0.0.1", hostname="elsewhere.test")
    assert caught.value.reason == "HOSTNAME_MISMATCH"


def test_an_unknown_authority_is_refused_before_anything_else_leaves(ssad, tmp_path):
    stranger = PKI(tmp_path / "stranger")
    with datagrams.openssl_server(stranger) as (port, process), Proxy(port) as proxy:
        with pytest.raises(ssa.CertificateError) as caught:
            client_of(proxy.port)
        assert caught.value.reason == "UNKNOWN_CA"
        assert b"unknown ca" in read_until(process, b"unknown ca")
        up = [datagram for way, datagram in proxy.passed if way == "up"]
        assert [datagram[0] for datagram in up] == [HANDSHAKE, HANDSHAKE, 21]  # two hellos, an alert


@pytest.mark.parametrize("asks", ["the program", "the policy"])
def test_a_client_has_to_show_a_certificate(ssad, pki, tmp_path, asks):
    ssad.set("client_auth", "required" if asks == "the policy" else "as-program")
    mine = {
        "certificates": pki.issue("someone", "someone.test", common_name="someone")[0],
        "keys": pki.directory / "someone.key",
    }
    strange = PKI(tmp_path / "strange").issue("someone", "someone.test")
    with ssa.create_server(
        ("127.0.0.1", 0),
        type=DGRAM,
        certificate=pki.cert,
        private_key=pki.key,
        request_peer_auth=asks == "the program",
    ) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        with pytest.raises(ssa.HandshakeError):
            client_of(port)
        with pytest.raises(ssa.HandshakeError, match="unknown_ca"):
            client_of(port, certificates=strange[0], keys=strange[1])
        with client_of(port, **mine) as client, listener.accept()[0] as accepted:
            assert accepted.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY).startswith(b"CN=someone")
            client.send(b"it is me")
            assert accepted.recv(100) == b"it is me"


def test_a_name_that_is_not_served(ssad, pki):
    with ssa.create_server(
        ("127.0.0.1", 0), type=DGRAM, certificate=pki.cert, private_key=pki.key, server_hostname="example.test"
    ) as listener:
        with pytest.raises(ssa.HandshakeError, match="unrecognized_name"):
            client_of(listener.getsockname()[1])
        client_of(listener.getsockname()[1], hostname="example.test").close()


def test_versions_are_their_twins(ssad, server, pki):
    with ssa.socket(type=DGRAM) as client:
        client.setsockopt(IPPROTO, ssa.TLS_VERSION_MIN, b"DTLSv1.2")
        client.setsockopt(IPPROTO, ssa.TLS_VERSION_MAX, 0xFEFD)
        assert client.getsockopt(IPPROTO, ssa.TLS_VERSION_MIN) == 0x0303
    ssad.set("min_version", "TLSv1.3")
    with pytest.raises(ssa.PolicyError, match=r"DTLS 1\.3"):
        client_of(server.getsockname()[1])
    with pytest.raises(ssa.PolicyError, match=r"DTLS 1\.3"):
        ssa.create_server(("127.0.0.1", 0), type=DGRAM, certificate=pki.cert, private_key=pki.key)


def test_a_policy_of_the_kernel_only(ssad, server):
    ssad.set("data_path", "ktls")
    with pytest.raises(ssa.PolicyError, match="no kernel"):
        client_of(server.getsockname()[1])


def test_nothing_to_serve_with(ssad):
    with ssa.socket(type=DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        with pytest.raises(ssa.SSAError) as caught:
            listener.listen()
        assert caught.value.reason == "NO_CREDENTIALS"


# --- many at once ----------------------------------------------------------------------------------------------------


def test_many_clients_on_one_port(server):
    count = 50
    with echo(server, count), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(server.getsockname()[1])) for _ in range(count)]
        for number, client in enumerate(clients):
            client.send(b"number %d" % number)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"number %d" % number


def test_all_clients_on_one_socket(ssad, pki):
    with ssa.socket(type=DGRAM) as server, contextlib.ExitStack() as stack:
        server.tell(certificates=pki.cert, keys=pki.key)
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.recvfrom(100)  # from now on it is served
        server.settimeout(15)
        clients = [stack.enter_context(client_of(server.getsockname()[1])) for _ in range(10)]
        for number, client in enumerate(clients):
            client.send(b"number %d" % number)
        for _ in clients:
            data, address = server.recvfrom(100)
            assert clients[int(data.split()[1])].getsockname() == address
            server.sendto(data.upper(), address)
        for number, client in enumerate(clients):
            assert client.recv(100) == b"NUMBER %d" % number
        assert len(ssad.sockets()) == 20
        gone = clients[0].getsockname()
        clients[0].close()
        assert wait_for(lambda: len(ssad.sockets()) == 18)
        clients[1].send(b"a word behind it")
        assert server.recvfrom(100) == (b"a word behind it", clients[1].getsockname())
        for address in (gone, ("127.0.0.1", 9)):
            with pytest.raises(OSError) as caught:
                server.sendto(b"x", address)
            assert caught.value.errno == errno.ENOTCONN
        server.close()
        assert clients[2].recv(100) == b""
    assert wait_for(lambda: ssad.sockets() == [])


def test_asyncio_serves_all_clients_and_is_one(ssad, pki):
    class Echo(asyncio.DatagramProtocol):
        def connection_made(self, transport):
            self.transport = transport

        def datagram_received(self, data, address):
            self.transport.sendto(data.upper(), address)

    class Ask(asyncio.DatagramProtocol):
        def __init__(self):
            self.answer = asyncio.get_running_loop().create_future()

        def datagram_received(self, data, _):
            self.answer.set_result(data)

    async def talk(port):
        loop = asyncio.get_running_loop()
        client = ssa.socket(type=DGRAM)
        client.setblocking(False)
        await loop.sock_connect(client, ("127.0.0.1", port))
        transport, protocol = await loop.create_datagram_endpoint(Ask, sock=client)
        transport.sendto(b"by asyncio")
        assert await asyncio.wait_for(protocol.answer, 10) == b"BY ASYNCIO"
        transport.close()

    async def main():
        server = ssa.socket(type=DGRAM)
        server.tell(certificates=pki.cert, keys=pki.key)
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        port = server.getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Echo, sock=server)
        await asyncio.gather(*(talk(port) for _ in range(10)))
        transport.close()

    asyncio.run(main())


def test_who_begins_anew_replaces_the_old_session(server):
    class OneHost(Proxy):
        """A client takes the address of the one before, as a host does that has crashed: there was no farewell."""

        def _new_back(self):
            return self._backs.popitem()[1] if self._backs else super()._new_back()

    with OneHost(server.getsockname()[1]) as proxy, client_of(proxy.port):
        old, address = server.accept()
        with old, client_of(proxy.port) as second:
            new, again = server.accept()
            with new:
                new.settimeout(10)
                assert again == address
                second.send(b"me again")
                assert new.recv(100) == b"me again"
                with pytest.raises(ConnectionAbortedError):
                    old.recv(100)


def test_a_thousand_leave_nothing(ssad, server):
    before = ssad.descriptors()
    for _ in range(20):
        with contextlib.ExitStack() as stack:
            for _ in range(25):
                client = stack.enter_context(client_of(server.getsockname()[1]))
                accepted = stack.enter_context(server.accept()[0])
                client.send(b"x")
                assert accepted.recv(1) == b"x"
    assert wait_for(lambda: ssad.sockets() == [])
    assert ssad.descriptors() <= before


def test_open_sockets_of_one_process_are_as_before(server):
    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = descriptors()
    for _ in range(20):
        with client_of(server.getsockname()[1]), server.accept()[0]:
            pass
        with pytest.raises(ssa.CertificateError):
            client_of(server.getsockname()[1], hostname="elsewhere.test")
    assert descriptors() == before


# --- bad weather -----------------------------------------------------------------------------------------------------

STORMS = [
    Weather(1, lost=0.2),
    Weather(2, repeated=0.5),
    Weather(3, late=0.4),
    Weather(4, lost=0.15, repeated=0.2, late=0.2),
]


def exchange(client, count=60):
    """Send numbers to an echo: what comes back is some of them, each once.

    They are fewer than the 64 that a receiver remembers (RFC 6347 section 4.1.2.6): none is too late to be told from
    one that was sent again.
    """
    client.settimeout(1)
    for number in range(count):
        client.send(struct.pack(">I", number) * 25)
    back = []
    with contextlib.suppress(TimeoutError):
        while len(back) < count:
            back.append(client.recv(2000))
    numbers = [struct.unpack(">I", data[:4])[0] for data in back]
    assert all(data == struct.pack(">I", number) * 25 for data, number in zip(back, numbers, strict=True))
    assert len(set(numbers)) == len(numbers)
    assert set(numbers) <= set(range(count))
    return numbers


@pytest.mark.parametrize("weather", STORMS, ids=str)
def test_weather(server, weather):
    with Proxy(server.getsockname()[1], weather) as proxy, echo(server), client_of(proxy.port) as client:
        numbers = exchange(client)
    assert len(numbers) > 20
    if not weather.lost:
        assert len(numbers) == 60
    if weather.late:
        assert numbers != sorted(numbers)


@pytest.mark.parametrize("weather", STORMS[:2], ids=str)
def test_weather_before_an_openssl_server(ssad, pki, weather):
    with (
        datagrams.openssl_server(pki, "-quiet") as (port, process),
        Proxy(port, weather) as proxy,
        client_of(proxy.port) as client,
    ):
        for _ in range(10):
            client.send(b"again and again\n")
        assert read_until(process, b"again and again\n")


def test_the_last_flight_is_lost(server):
    """Who has sent it thinks that all is done: it is sent again when the other end asks."""

    class Thief(Proxy):
        stolen = 0

        def _weather(self, sock, datagram, address):
            if sock is self._front and b"\x14\xfe\xfd" in datagram and self.stolen < 2:
                self.stolen += 1
            else:
                super()._weather(sock, datagram, address)

    with Thief(server.getsockname()[1]) as proxy:
        with echo(server), client_of(proxy.port) as client:
            client.send(b"and yet")
            assert client.recv(100) == b"and yet"
        assert proxy.stolen == 2


def test_small_pieces_where_large_ones_are_swallowed(ssad, tmp_path, pki):
    """A path that loses what is large, and says nothing: after two tries the flight goes in small datagrams."""

    class Narrow(Proxy):
        def _weather(self, sock, datagram, address):
            if len(datagram) <= 600:
                super()._weather(sock, datagram, address)

    names = [f"a-rather-long-name-to-make-it-large-{number}.example.test" for number in range(40)]
    cert, key = pki.issue("large", "localhost", *names)
    with (
        ssa.create_server(("127.0.0.1", 0), type=DGRAM, certificate=cert, private_key=key) as listener,
        Narrow(listener.getsockname()[1]) as proxy,
        client_of(proxy.port),
    ):
        assert max(len(datagram) for _, datagram in proxy.passed) > 1000


def test_junk_truncated_and_replayed(server):
    with Proxy(server.getsockname()[1]) as proxy, client_of(proxy.port) as client:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(0.3)
            client.send(b"once")
            assert accepted.recv(100) == b"once"
            up = [datagram for way, datagram in proxy.passed if way == "up"]
            down = [datagram for way, datagram in proxy.passed if way == "down"]
            record = up[-1]
            assert record[0] == APPLICATION_DATA
            forged = record[:-1] + bytes([record[-1] ^ 1])
            for datagram in (record, record[:20], forged, b"", b"junk", bytes(2000), record[:13], os.urandom(500), *up):
                proxy.to_server(datagram)
            for datagram in (b"", b"junk", bytes(2000), os.urandom(500), *down):
                proxy.to_client(datagram)
            # An alert in plain text, as anybody could send it.
            proxy.to_server(b"\x15\xfe\xfd\x00\x00\x00\x00\x00\x00\xff\xff\x00\x02\x02\x28")
            with pytest.raises(TimeoutError):
                accepted.recv(100)
            client.send(b"twice")
            assert accepted.recv(100) == b"twice"
            accepted.send(b"and back")
            assert client.recv(100) == b"and back"


def test_junk_in_the_midst_of_a_handshake(server):
    class Noisy(Proxy):
        def _weather(self, sock, datagram, address):
            for noise in (b"junk", datagram[:12], datagram[:20], bytes(100), os.urandom(300)):
                self._send(sock, noise, address)
            super()._weather(sock, datagram, address)

    with Noisy(server.getsockname()[1]) as proxy, echo(server), client_of(proxy.port) as client:
        client.send(b"through the noise")
        assert client.recv(100) == b"through the noise"


def first_hello(port):
    """A client's first datagram."""
    with socket.socket(socket.AF_INET, DGRAM) as trap:
        trap.bind(("127.0.0.1", 0))
        with ssa.socket(type=DGRAM) as client:
            client.settimeout(0.05)
            with pytest.raises(ssa.HandshakeTimeout):
                client.connect(("localhost", trap.getsockname()[1]))
        return trap.recv(2000)


def memory(daemon):
    return daemon.memory() // 1024


def test_a_flood_of_first_hellos_leaves_nothing(ssad, server):
    hello = first_hello(server.getsockname()[1])
    target = server.getsockname()

    def flood(rounds):
        answered = 0
        for host in range(1, rounds + 1):
            with socket.socket(socket.AF_INET, DGRAM) as stranger:
                stranger.bind((f"127.1.{host >> 8}.{host & 255}", 0))
                stranger.settimeout(2)
                for _ in range(10):
                    stranger.sendto(hello, target)
                answer = stranger.recv(2000)
                assert answer[0] == HANDSHAKE
                assert len(answer) < len(hello)
                answered += 1
        return answered

    flood(50)
    descriptors, size = ssad.descriptors(), memory(ssad)
    assert flood(400) == 400
    assert ssad.sockets() == []
    assert ssad.descriptors() == descriptors
    assert memory(ssad) - size < 1024
    with echo(server), client_of(server.getsockname()[1]) as client:
        client.send(b"after the flood")
        assert client.recv(100) == b"after the flood"


def test_a_cookie_of_another_address_is_worth_nothing(ssad, server):
    with Proxy(server.getsockname()[1]) as proxy, client_of(proxy.port):
        second = [datagram for way, datagram in proxy.passed if way == "up"][1]
        with socket.socket(socket.AF_INET, DGRAM) as thief:
            thief.bind(("127.0.0.2", 0))
            thief.settimeout(5)
            thief.sendto(second, server.getsockname())
            answer = thief.recv(2000)
            assert answer[13] == 3  # HelloVerifyRequest
            assert len(answer) < len(second)


# --- applications that do not behave, and narrow paths ---


def test_an_application_that_never_reads(ssad, pair):
    client, server = pair
    for _ in range(300):
        client.send(bytes(1000))
    size = memory(ssad)
    for _ in range(20000):
        client.send(bytes(1000))
    assert memory(ssad) - size < 4096
    received = 0
    server.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        while server.recv(2000):
            received += 1
    assert 0 < received < 20000
    client.send(b"heard again")
    assert server.recv(100) == b"heard again"


def test_nonsense_from_the_application(ssad, pki):
    with ssa.socket(type=DGRAM) as server:
        server.tell(certificates=pki.cert, keys=pki.key)
        server.bind(("127.0.0.1", 0))
        server.settimeout(0.01)
        with pytest.raises(TimeoutError):
            server.recvfrom(100)
        server.settimeout(10)
        with client_of(server.getsockname()[1]) as client:
            client.send(b"hello")
            _, address = server.recvfrom(100)
            prefix = addresses.packed(address)
            for packet in (b"", b"x", prefix[:10], prefix, prefix + bytes(20000), os.urandom(100), prefix[:-1] + b"x"):
                os.write(server.fileno(), packet)
            before = ssad.descriptors()
            with socket.socket(fileno=os.dup(server.fileno())) as plain, socket.socket() as other:
                socket.send_fds(plain, [prefix + b"with a descriptor"], [other.fileno()])
            assert client.recv(100) == b"with a descriptor"
            assert ssad.descriptors() == before


def busy(daemon, seconds=0.5):
    """The share of a processor that a daemon takes while nobody wants anything."""
    before = daemon.cpu()
    time.sleep(seconds)
    return (daemon.cpu() - before) / seconds


def test_who_has_the_udp_socket_still_cannot_make_the_daemon_spin(ssad, server):
    with socket.socket(socket.AF_INET, DGRAM) as udp:
        udp.connect(server.getsockname())
        with ssa.library.connection.DaemonConnection() as daemon:
            _, fd = daemon.ask_for_socket(wire.Connect("localhost"), udp)
        with ssa.socket(type=DGRAM, fileno=fd) as sock, server.accept()[0] as accepted:
            sock.send(b"x")
            assert accepted.recv(1) == b"x"
            udp.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
            accepted.close()
            server.close()
            assert sock.recv(1) == b""
            for _ in range(3):
                with contextlib.suppress(ConnectionRefusedError):
                    udp.send(b"to a port that is no more")
            assert busy(ssad) < 0.3
            udp.shutdown(socket.SHUT_RD)
            assert busy(ssad) < 0.3
            assert wait_for(lambda: ssad.sockets() == [])


NARROW = """
import errno, socket, subprocess, sys
import ssa
from tests.peers import Daemon
from pathlib import Path
mtu = lambda size: subprocess.run(["ip", "link", "set", "lo", "mtu", str(size), "up"], check=True)
directory, cert, key, ca = map(Path, sys.argv[1:])
mtu(1300)
with Daemon(directory, policy=f'[policy]\\ntrust_store = "{ca}"\\n') as daemon:
    import os
    os.environ.update(daemon.environment)
    with ssa.create_server(("127.0.0.1", 0), type=socket.SOCK_DGRAM, certificate=cert, private_key=key) as listener:
        with ssa.socket(type=socket.SOCK_DGRAM) as client:
            client.settimeout(10)
            client.connect(("localhost", listener.getsockname()[1]))
            accepted, _ = listener.accept()
            accepted.settimeout(10)
            for one, other in ((client, accepted), (accepted, client)):
                one.send(bytes(1300 - 28 - 37))
                assert len(other.recv(2000)) == 1235
                try:
                    one.send(bytes(1236))
                except OSError as exc:
                    assert exc.errno == errno.EMSGSIZE and "1235" in str(exc), exc
                else:
                    raise AssertionError("too large, and yet sent")
            mtu(900)
            client.send(bytes(1235))
            assert len(accepted.recv(2000)) == 1235
            accepted.close()
            print("all is well")
"""


# A network of one's own: root needs no user namespace for it, which is refused in a chroot.
OWN_NETWORK = ("--net", "--mount", "--propagation", "unchanged")
if os.geteuid() != 0:
    OWN_NETWORK = ("--user", "--map-root-user", *OWN_NETWORK)


@needs.namespaces(*OWN_NETWORK)
def test_a_narrow_path(tmp_path, pki):
    command = ["unshare", *OWN_NETWORK, sys.executable, "-c", NARROW]
    arguments = [str(path) for path in (tmp_path, pki.cert, pki.key, pki.ca)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("all is well\n", 0), done.stderr


# --- the daemon's end ------------------------------------------------------------------------------------------------


def test_the_daemon_is_killed(tmp_path, monkeypatch, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\n'
    daemon = Daemon(tmp_path, policy=policy).start()
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    with (
        ssa.create_server(("127.0.0.1", 0), type=DGRAM, certificate=pki.cert, private_key=pki.key) as listener,
        client_of(listener.getsockname()[1]) as client,
        listener.accept()[0] as accepted,
    ):
        threading.Timer(0.2, daemon.kill).start()
        for sock in (client, accepted):
            sock.settimeout(10)
            with pytest.raises(ConnectionAbortedError, match="ssad"):
                sock.recv(100)
        with pytest.raises(OSError) as caught:
            client.send(b"into the void")
        assert caught.value.errno in (errno.EPIPE, errno.ECONNRESET)
        daemon.process.wait()
        with daemon:  # its successor serves on
            listener.settimeout(10)
            thread = threading.Thread(target=lambda: client_of(listener.getsockname()[1]).close())
            thread.start()
            listener.accept()[0].close()
            thread.join()


# --- foreign programs ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [(), ("-listen",), ("-mtu", "600")], ids=str)
def test_an_openssl_server(ssad, pki, more):
    with datagrams.openssl_server(pki, "-quiet", *more) as (port, process), client_of(port) as client:
        client.send(b"to openssl\n")
        read_until(process, b"to openssl\n")
        process.stdin.write(b"from openssl\n")
        assert client.recv(100) == b"from openssl\n"
        process.stdin.close()  # it hangs up
        assert client.recv(100) == b""


@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-ECDSA-AES128-CCM"]
)
def test_an_openssl_client(server, pki, suite):
    port = server.getsockname()[1]
    options = ("-CAfile", pki.ca, "-verify_return_error", "-servername", "localhost", "-nocommands", "-cipher", suite)
    with datagrams.program("openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{port}", *options) as process:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(10)
            process.stdin.write(b"from openssl\n")
            assert accepted.recv(100) == b"from openssl\n"
            accepted.send(b"to openssl\n")
            read_until(process, b"to openssl\n")
            process.stdin.close()
            assert accepted.recv(100) == b""


def test_an_openssl_client_that_does_not_trust_us(ssad, server, tmp_path):
    stranger = PKI(tmp_path / "stranger")
    failed = int(ssad.get("stats/handshakes_failed"))
    options = ("-CAfile", stranger.ca, "-verify_return_error")
    port = server.getsockname()[1]
    with datagrams.program("openssl", "s_client", "-dtls1_2", "-connect", f"127.0.0.1:{port}", *options) as process:
        read_until(process, b"verify failed")
        assert wait_for(lambda: int(ssad.get("stats/handshakes_failed")) == failed + 1)
    assert "unknown_ca" in ssad.log


def test_a_gnutls_server(ssad, pki):
    with datagrams.gnutls_server(pki) as (port, _), client_of(port) as client:
        client.send(b"to gnutls and back\n")
        assert client.recv(100) == b"to gnutls and back\n"


def test_a_gnutls_client(server, pki):
    port = server.getsockname()[1]
    command = ("gnutls-cli", "--udp", "--x509cafile", pki.ca, "-p", port, "localhost")
    with datagrams.program(*command) as process:
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(10)
            read_until(process, b"Handshake was completed")
            process.stdin.write(b"from gnutls\n")
            assert accepted.recv(100) == b"from gnutls\n"
            accepted.send(b"to gnutls\n")
            read_until(process, b"to gnutls\n")


# --- who sends without end --------------------------------------------------------------------------------------------

PEERS = 10


def record(kind, epoch, sequence, body):
    return struct.pack(">BHHHIH", kind, 0xFEFD, epoch, 0, sequence, len(body)) + body


def crowded(kind, epoch, body=b""):
    """Datagrams that are full of small records."""
    each = len(record(kind, epoch, 0, body))
    for number in range(2**20):
        yield b"".join(record(kind, epoch, number * 4000 + n, body) for n in range(60_000 // each))


def hellos(hello):
    while True:
        yield hello


FLOODS = {
    "first hellos": hellos,
    "empty records": lambda _: crowded(HANDSHAKE, 0),
    "warnings": lambda _: crowded(21, 0, b"\x01\x5a"),
    "fragments": lambda _: crowded(HANDSHAKE, 0, b"\x0b\0\xff\xff\0\1" + b"\0\0\0\0\0\1" + b"x"),
    "of the next epoch": lambda _: crowded(APPLICATION_DATA, 1, bytes(24)),
    "requests for a hello": lambda _: crowded(HANDSHAKE, 0, bytes(12)),
}


def hostile(port, hello, flood):
    """A client that gets as far as its cookie, so that a handshake is under way, and floods then."""
    with socket.socket(socket.AF_INET, DGRAM) as sock:
        sock.connect(("127.0.0.1", port))
        sock.settimeout(5)
        sock.send(hello)
        sock.send(with_cookie(hello, sock.recv(2000)))
        assert sock.recv(4000)[0] == HANDSHAKE
        datagrams = list(zip(range(8), FLOODS[flood](hello), strict=False))
        while True:
            for _, datagram in datagrams:
                with contextlib.suppress(OSError):
                    sock.send(datagram)
            time.sleep(0.0005)


def with_cookie(hello, request):
    """The hello again, with the cookie of a HelloVerifyRequest (RFC 6347 section 4.2.1)."""
    body = hello[25:]
    at = 34 + 1 + body[34]
    cookie = request[25 + 2 :]
    body = body[:at] + cookie + body[at + 1 :]
    message = (
        hello[13:14] + struct.pack(">I", len(body))[1:] + b"\0\1" + bytes(3) + struct.pack(">I", len(body))[1:] + body
    )
    return record(HANDSHAKE, 0, 1, message)


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_keep_nobody_waiting(ssad, server, pki, flood):
    port = server.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    hello = first_hello(port)
    flooding = [fork.Process(target=hostile, args=(port, hello, flood), daemon=True) for _ in range(PEERS)]
    with peers.openssl(pki) as (other, _):
        for process in flooding:
            process.start()
        try:
            time.sleep(1)
            took = []
            for _ in range(7):
                began = time.monotonic()
                ssa.create_connection(("localhost", other), timeout=10).close()
                took.append(time.monotonic() - began)
        finally:
            alive = [process.is_alive() for process in flooding]
            for process in flooding:
                process.kill()
                process.join()
    assert all(alive)
    assert sorted(took)[3] < 0.25, took
