"""The relay: what its descriptor means, and bad luck with it. No kernel TLS is needed.

What holds on both data paths is in tests/kernel; here is what only the relay has, against peers that are not ours.
"""

import array
import contextlib
import errno
import os
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from OpenSSL import SSL

import ssa
from ssa.ktls.probe import probe
from ssa.relay import Relay
from ssa.relay.channel import Channel, Workspace
from ssa.suites import SUITES
from tests import peers
from tests.peers import Daemon, settled

MIB = 2**20
IPPROTO = ssa.IPPROTO_TLS
BOTH_VERSIONS = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name
)


@pytest.fixture(scope="module")
def running(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(running, monkeypatch):
    use(monkeypatch, running)
    yield running
    assert settled(lambda: running.sockets() == []), running.log
    assert "Traceback" not in running.log


@pytest.fixture
def mortal(tmp_path, pki, monkeypatch):
    """An ssad that a test may end."""
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with Daemon(tmp_path, policy=policy) as daemon:
        use(monkeypatch, daemon)
        yield daemon
        if daemon.process.poll() is not None:
            daemon.start()  # takes over what it has left, and leaves nothing


def use(monkeypatch, daemon):
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)


def client(port, timeout=10, host="localhost"):
    return ssa.create_connection((host, port), timeout=timeout)


def drain(tls):
    """All that a peer gets, and how it ended: "" in order, "cut", or what else went wrong."""
    got = []
    try:
        while data := tls.recv(MIB):
            got.append(data)
    except OSError as exc:
        return b"".join(got), "cut" if "EOF" in str(exc) else str(exc)
    return b"".join(got), ""


class Peer:
    """What a server of a test has seen, when it is done."""

    def __init__(self):
        self.done = threading.Event()
        self.result = None

    def __call__(self, tls, _tcp):
        self.result = drain(tls)
        self.done.set()

    def saw(self):
        assert self.done.wait(20)
        return self.result


def first_failure(call):
    """Call until it fails: with what."""
    try:
        while True:
            call()
    except OSError as exc:
        return exc


def memory(daemon):
    return daemon.memory()


def cpu(daemon):
    return daemon.cpu()


# --- what it says of itself -----------------------------------------------------------------------------------------


def test_the_file_system_says_which_path(ssad, pki):
    with peers.openssl(pki, "-rev") as (port, _), client(port, host="127.0.0.1") as sock:
        sock.sendall(b"abc\n")
        assert sock.recv(10) == b"cba\n"
        (number,) = ssad.sockets()
        shown = {name: ssad.get(f"sockets/{number}/{name}").strip() for name in ("data_path", "tx", "rx", "version")}
        assert shown == {"data_path": "relay", "tx": "relay", "rx": "relay", "version": "TLSv1.3"}
        assert ssad.get(f"sockets/{number}/remote").strip() == f"127.0.0.1:{port}"
        assert int(ssad.get(f"sockets/{number}/bytes_sent")) > 100
        assert int(ssad.get(f"sockets/{number}/bytes_received")) > 500
        listed = subprocess.run(
            [sys.executable, "-m", "ssa.cli.main", "ls"],
            env=os.environ | ssad.environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert "relay" in listed.stdout


def test_the_reason_is_logged_once(ssad, pki):
    with peers.openssl(pki, "-rev") as (port, _):
        for _ in range(3):
            client(port).close()
    assert ssad.log.count("data path: relay") == 1
    assert "the policy's data_path says so" in ssad.log


def test_the_default_falls_back_where_the_kernel_has_no_tls_and_ktls_refuses(tmp_path, pki, monkeypatch):
    with (
        Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon,
        peers.openssl(pki, "-rev") as served,
    ):
        use(monkeypatch, daemon)
        with client(served[0]) as sock:
            sock.sendall(b"abc\n")
            assert sock.recv(10) == b"cba\n"
        assert ("data path: relay, as this kernel has no TLS" in daemon.log) != probe().tls
        daemon.set("data_path", "ktls")
        if probe().tls:
            client(served[0]).close()
            return
        with pytest.raises(ssa.SSAError) as caught:
            client(served[0])
        assert (caught.value.reason, caught.value.errno) == ("NO_KERNEL_TLS", errno.EPROTONOSUPPORT)
        assert "kernel" in str(caught.value)


def test_options_and_addresses_are_the_connections(ssad, pki):
    with peers.openssl(pki, "-rev") as (port, _), client(port, host="127.0.0.1") as sock:
        assert sock.getpeername() == ("127.0.0.1", port)
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
        with pytest.raises(BlockingIOError):
            sock.recv(1)


def test_what_was_set_for_reading_before_holds_behind(ssad, pki):
    with peers.openssl(pki, "-rev") as (port, _), ssa.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 3)
        sock.connect(("localhost", port))
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.sendall(b"abc\n")
        assert sock.recv(4) == b"cba\n"


# --- the ends of a stream -------------------------------------------------------------------------------------------


@BOTH_VERSIONS
@pytest.mark.parametrize("how", ["close", "shutdown", "both", "ssa.close"])
def test_close_notify_comes_behind_the_last_byte(ssad, pki, version, how):
    peer = Peer()
    with peers.python_server(pki, peer, version) as port:
        data = os.urandom(3 * MIB)
        if how == "ssa.close":
            fd = ssa.connect_tls("localhost", port)
            assert sum(os.write(fd, data[at : at + 65536]) for at in range(0, len(data), 65536)) == len(data)
            ssa.close(fd)
        else:
            with client(port) as sock:
                sock.sendall(data)
                if how != "close":
                    sock.shutdown({"shutdown": socket.SHUT_WR, "both": socket.SHUT_RDWR}[how])
                    assert peer.saw() == (data, "")
        got, ended = peer.saw()
        assert (len(got), ended) == (len(data), "")
        assert got == data


def test_what_comes_late_does_not_cost_the_last_words(ssad, pki):
    """The kernel resets a closed socket that something comes for, and drops what it has not sent yet."""

    def serve(tls, tcp):
        time.sleep(0.2)
        with contextlib.suppress(OSError):
            tls.sendall(b"late")
        peer(tls, tcp)

    peer = Peer()
    with peers.python_server(pki, serve) as port:
        with client(port) as sock:
            sock.sendall(bytes(3 * MIB))
        data, ended = peer.saw()
        assert (len(data), ended) == (3 * MIB, "")


def test_a_slow_peer_is_waited_for_as_long_as_it_takes_something(pki):
    """The clock is the test's."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    inner, outer = socket.socketpair()
    with tcp, peer, inner, outer:
        channel = Channel(handshaken(pki), SUITES["TLS_AES_128_GCM_SHA256"], Workspace())
        relay = Relay(channel, tcp, inner, held=lambda: False, do=lambda _relay, job: job())
        outer.setblocking(False)
        while relay.wanted()[1] & select.EPOLLIN:  # until the peer's window and our buffers are full
            with contextlib.suppress(BlockingIOError):
                outer.send(bytes(65536))
            relay.serve_application(select.EPOLLIN)
        relay.announce_end()
        outer.close()
        relay.serve_application(select.EPOLLHUP)
        relay.look(1000)
        assert relay.deadline == 1060
        relay.look(1059)
        assert (relay.deadline, relay.over) == (1060, False)
        peer.setblocking(False)
        taken = 0
        with contextlib.suppress(BlockingIOError):
            while taken < 8 * MIB:
                taken += len(peer.recv(65536))
        assert settled(lambda: not relay.serve_peer(select.EPOLLOUT) and relay.counts()[0] > taken)
        relay.look(1061)
        assert (relay.deadline, relay.over) == (1121, False)
        relay.look(1122)
        assert relay.over


def handshaken(pki):
    """A client's connection of OpenSSL's, behind its handshake."""
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.use_certificate_chain_file(pki.cert)
    context.use_privatekey_file(pki.key)
    ours, other = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD)), SSL.Connection(context)
    ours.set_connect_state()
    other.set_accept_state()
    for one, another in [(ours, other), (other, ours)] * 2:
        with contextlib.suppress(SSL.WantReadError):
            one.do_handshake()
        with contextlib.suppress(SSL.WantReadError):
            another.bio_write(one.bio_read(65536))
    return ours


def test_half_close_leaves_the_other_direction(ssad, pki):
    def serve(tls, _):
        assert drain(tls)[1] == ""
        tls.sendall(b"so that was all")
        with contextlib.suppress(OSError):
            tls.unwrap()

    with peers.python_server(pki, serve) as port, client(port) as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(BrokenPipeError):
            sock.send(b"more")
        received = b""
        while data := sock.recv(4):
            received += data
        assert received == b"so that was all"
        assert sock.recv(4) == b""


@BOTH_VERSIONS
def test_a_bare_end_is_a_truncation(ssad, pki, version):
    def cut(tls, _):
        tls.sendall(b"there is mo")
        socket.socket(fileno=tls.detach()).close()

    with peers.python_server(pki, cut, version) as port:
        with client(port) as sock:
            assert sock.recv(100) == b"there is mo"
            for _ in range(2):
                with pytest.raises(ConnectionAbortedError, match="close_notify"):
                    sock.recv(100)
        fd = ssa.connect_tls("localhost", port)
        assert ssa.recv(fd, 100) == b"there is mo"
        with pytest.raises(ConnectionAbortedError, match="close_notify"):
            ssa.recv(fd, 100)
        ssa.close(fd)


def test_the_peers_end_is_an_end_and_writing_goes_on(ssad, pki):
    peer = Peer()

    def serve(tls, tcp):
        tls.sendall(b"last words")
        raw = socket.socket(fileno=os.dup(tls.fileno()))
        with raw, contextlib.suppress(OSError):
            tls.setblocking(False)
            with contextlib.suppress(ssl.SSLError):
                tls.unwrap()  # sends close_notify, and would wait for ours
            raw.setblocking(True)
            peer.result = bool(select.select([raw], [], [], 10)[0])
            peer.done.set()

    with peers.python_server(pki, serve) as port, client(port) as sock:
        assert sock.recv(100) == b"last words"
        assert sock.recv(100) == b""
        assert sock.recv(100) == b""
        sock.sendall(b"noted")
        assert peer.saw() is True


def test_a_reset_is_told_to_readers_and_writers(ssad, pki):
    def reset(tls, _):
        tls.recv(1)
        raw = socket.socket(fileno=tls.detach())
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()

    with peers.python_server(pki, reset) as port:
        with client(port) as sock:
            sock.sendall(b"x")
            with pytest.raises(ConnectionResetError):
                sock.recv(100)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                sock.sendall(b"y")
        with client(port) as sock:
            assert type(first_failure(lambda: sock.sendall(bytes(MIB)))) is ConnectionResetError


def test_a_forged_record(ssad, pki):
    def forge(tls, _):
        tls.sendall(b"genuine")
        with socket.socket(fileno=tls.detach()) as raw:
            raw.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
            raw.settimeout(10)
            drain(raw)

    with peers.python_server(pki, forge) as port, client(port) as sock:
        assert sock.recv(100) == b"genuine"
        for _ in range(2):
            with pytest.raises(OSError, match="forged") as caught:
                sock.recv(100)
            assert caught.value.errno == errno.EBADMSG
        with pytest.raises(OSError, match="forged"):
            sock.sendall(b"x")


def test_an_alert_is_named(ssad, pki):
    """A server that finds our record forged says so: made by the application, which has the TCP socket too."""
    with peers.openssl(pki, "-quiet") as (port, _), client(port) as sock:
        sock._held.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(OSError, match="bad_record_mac") as caught:
            sock.recv(100)
        assert caught.value.errno == errno.EPROTO


def test_key_updates_of_the_peer(ssad, pki):
    with peers.openssl(pki, stdout=subprocess.PIPE) as (port, server), client(port) as sock:
        for line in (b"K\n", b"k\n", b"K\n"):
            server.stdin.write(line)
            server.stdin.flush()
            time.sleep(0.1)
            server.stdin.write(b"after " + line)
            server.stdin.flush()
            assert sock.recv(100) == b"after " + line
            sock.sendall(b"answer to " + line)
        seen = b""
        while b"answer to k" not in seen:
            seen += os.read(server.stdout.fileno(), 65536)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_sessions_are_resumed(ssad, pki, version):
    with peers.openssl(pki, "-rev", version) as (port, _):
        resumed = []
        for _ in range(3):
            with client(port) as sock:
                sock.sendall(b"abc\n")
                assert sock.recv(10) == b"cba\n"
                assert sock.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"
                resumed.append(sock.getsockopt(IPPROTO, ssa.TLS_RESUMED_SESSION))
    assert resumed == [0, 1, 1]


# --- who holds the descriptor ---------------------------------------------------------------------------------------


@BOTH_VERSIONS
def test_a_session_of_another_listener_does_not_stand_for_the_name_that_is_served(ssad, pki, version):
    files = {"certificate": str(pki.cert), "private_key": str(pki.key)}
    context = ssl.create_default_context(cafile=str(pki.ca))
    context.check_hostname = False
    context.minimum_version = context.maximum_version = version

    def served(server, name, session=None):
        with (
            socket.create_connection(server.getsockname(), timeout=5) as tcp,
            context.wrap_socket(tcp, server_hostname=name, session=session) as tls,
        ):
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"x")
                assert tls.recv(1) == b"x"
                return tls.session

    with ssa.create_server(("127.0.0.1", 0), **files) as anything:
        session = served(anything, "localhost")
        served(anything, "localhost", session)
        with (
            ssa.create_server(("127.0.0.1", 0), server_hostname="localhost", **files) as only,
            pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"),
        ):
            served(only, "other.test", session)


def test_an_accept_that_finds_no_number_says_so(ssad, pki):
    context = ssl.create_default_context(cafile=str(pki.ca))
    with (
        ssa.create_server(("127.0.0.1", 0), certificate=str(pki.cert), private_key=str(pki.key)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost"),
        contextlib.ExitStack() as stack,
    ):
        assert select.select([server], [], [], 5)[0]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 2, hard))
        with contextlib.suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(server.fileno()))
        with pytest.raises(OSError, match="Too many open files"):
            server.accept()


def test_the_last_holder_ends_the_stream(ssad, pki):
    peer = Peer()
    with peers.python_server(pki, peer) as port:
        sock = client(port, host="127.0.0.1")
        twin = sock.dup()
        sock.close()
        assert twin.getpeername() == ("127.0.0.1", port)
        twin.sendall(b"from the twin")
        assert not peer.done.wait(0.2)
        twin.close()
        assert peer.saw() == (b"from the twin", "")


def test_a_fork_that_closes_ends_nothing(ssad, pki):
    peer = Peer()
    with peers.python_server(pki, peer) as port, client(port) as sock:
        if not (child := os.fork()):
            status = 1
            try:
                sock.sendall(b"child ")
                sock.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert not peer.done.wait(0.2)
        sock.sendall(b"parent")
        sock.close()
        assert peer.saw() == (b"child parent", "")


def test_a_fork_that_closes_a_connect_under_way_leaves_it_to_its_parent(ssad, pki):
    peer = Peer()
    with peers.python_server(pki, peer) as port, ssa.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.connect(("localhost", port))
        if not (child := os.fork()):
            try:
                select.select([sock], [], [], 10)  # the daemon has answered
                sock.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        assert select.select([], [sock], [], 10)[1]
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        sock.settimeout(10)
        sock.sendall(b"parent")
        sock.close()
        assert peer.saw() == (b"parent", "")


def test_passed_on_to_another_process(ssad, pki):
    code = """if True:
        import socket, sys, ssa
        _, (fd,), _, _ = socket.recv_fds(socket.socket(fileno=int(sys.argv[1])), 1, 1)
        with ssa.socket(fileno=fd) as sock:
            sock.settimeout(10)
            sock.sendall(b"passed on\\n")
            print(sock.recv(100), sock.getpeername()[1], sock.family.name)
        """
    with peers.openssl(pki, "-rev") as (port, _):
        sock = client(port, host="127.0.0.1")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            command = [sys.executable, "-c", code, str(theirs.fileno())]
            with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True) as process:
                socket.send_fds(ours, [b"x"], [sock.fileno()])
                os.close(sock.detach())
                assert process.communicate(timeout=20)[0] == f"b'no dessap\\n' {port} AF_INET\n"
    assert ssad.sockets() == []


def test_what_the_daemon_does_not_know_is_no_tls_socket(ssad):
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(OSError, match="not a TLS socket"):
        ssa.socket(fileno=ours.fileno())


def test_descriptors_sent_into_the_stream_are_nobodys(ssad, pki):
    before = ssad.descriptors()
    with peers.openssl(pki, "-rev") as (port, _):
        fd = ssa.connect_tls("localhost", port)
        with socket.socket(fileno=os.dup(fd)) as plain, open("/dev/null") as null:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null.fileno()] * 100))]
            for _ in range(10):
                plain.sendmsg([b"abc\n"], rights)
                assert ssa.recv(fd, 10) == b"cba\n"
        ssa.close(fd)
    assert ssad.descriptors() == before


# --- bad luck -------------------------------------------------------------------------------------------------------


def test_a_peer_that_never_reads(ssad, pki):
    finish = threading.Event()
    with peers.python_server(pki, lambda *_: finish.wait(60)) as port, client(port) as sock:
        sock.sendall(b"warm")
        before, spent = memory(ssad), cpu(ssad)
        sock.setblocking(False)
        sent, quiet = 0, 0
        while sent < 64 * MIB and quiet < 5:
            try:
                sent += sock.send(bytes(MIB))
                quiet = 0
            except BlockingIOError:
                quiet += not select.select([], [sock], [], 0.1)[1]
        assert quiet == 5
        assert sent < 32 * MIB  # what kernels buffer
        assert memory(ssad) - before < 2 * MIB
        time.sleep(0.5)
        assert cpu(ssad) - spent < 1
        finish.set()


def test_an_application_that_never_reads(ssad, pki):
    sent = []

    def pour(tls, _):
        tls.settimeout(1)
        with contextlib.suppress(OSError):
            while len(sent) < 64:
                tls.sendall(bytes(MIB))
                sent.append(MIB)
        stuck.set()
        drain(tls)

    stuck = threading.Event()
    with peers.python_server(pki, pour) as port, client(port) as sock:
        before = memory(ssad)
        assert stuck.wait(20)
        assert len(sent) < 32
        assert memory(ssad) - before < 2 * MIB
        sock.sendall(b"the other direction is free")


def test_all_of_it_arrives_both_ways_at_once(ssad, pki):
    def echo(tls, _):
        while data := tls.recv(65536):
            tls.sendall(data)
        tls.unwrap()

    data = os.urandom(16 * MIB)
    with peers.python_server(pki, echo) as port, client(port, timeout=30) as sock:

        def write():
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=write)
        thread.start()
        received = bytearray()
        while part := sock.recv(MIB):
            received += part
        thread.join()
    assert received == data


def application(port, *, then):
    """A program that writes for ever; the line that it prints says that it has begun."""
    code = f"""if True:
        import ssa, time
        s = ssa.create_connection(('localhost', {port}))
        s.sendall(b'x' * 100000)
        print('ready', flush=True)
        """
    return subprocess.Popen([sys.executable, "-c", code + then], stdout=subprocess.PIPE)


@pytest.mark.parametrize("then", ["while True: s.sendall(bytes(65536))", "time.sleep(60)"])
def test_an_application_that_is_killed_truncates(ssad, pki, then):
    peer = Peer()
    with peers.python_server(pki, peer) as port, application(port, then=then) as process:
        assert process.stdout.readline() == b"ready\n"
        process.kill()
        process.wait()
        data, ended = peer.saw()
    assert data.startswith(b"x" * 100000)
    assert ended == "cut"


def test_a_descriptor_that_is_closed_without_a_word_truncates(ssad, pki):
    peer = Peer()
    with peers.python_server(pki, peer) as port:
        fd = ssa.connect_tls("localhost", port)
        os.write(fd, b"and then")
        os.close(fd)
        assert peer.saw() == (b"and then", "cut")


@pytest.mark.parametrize("end", [Daemon.kill, Daemon.stop], ids=lambda end: end.__name__)
def test_the_daemon_ends_in_mid_transfer(mortal, pki, end):
    def pour(tls, _):
        with contextlib.suppress(OSError):
            while True:
                tls.sendall(bytes(65536))

    with peers.python_server(pki, pour) as port, client(port) as sock:
        assert sock.recv(1)
        failed = []

        def read():
            try:
                while sock.recv(MIB):
                    pass
                failed.append(None)
            except OSError as exc:
                failed.append(exc)

        thread = threading.Thread(target=read)
        thread.start()
        end(mortal)
        thread.join(10)
        assert [type(exc) for exc in failed] == [ConnectionAbortedError]
        failure = first_failure(lambda: sock.sendall(bytes(65536)))
        assert type(failure) is ConnectionAbortedError
        assert "ssad" in str(failure)
        with pytest.raises(ConnectionAbortedError):
            sock.recv(1)


def test_the_daemon_ends_while_a_writer_waits(mortal, pki):
    finish = threading.Event()
    with peers.python_server(pki, lambda *_: finish.wait(60)) as port, client(port, timeout=30) as sock:
        failed = []

        def write():
            try:
                while True:
                    sock.sendall(bytes(MIB))
            except OSError as exc:
                failed.append(exc)

        thread = threading.Thread(target=write)
        thread.start()
        time.sleep(0.5)
        mortal.kill()
        thread.join(10)
        assert [type(exc) for exc in failed] == [ConnectionAbortedError]
        finish.set()


def test_a_successor_does_not_know_the_sockets_of_before(mortal, pki):
    with peers.openssl(pki, "-rev") as (port, _), client(port) as sock:
        mortal.stop()
        mortal.start()
        with pytest.raises(ConnectionAbortedError):
            sock.recv(1)


def test_the_administrator_ends_it(ssad, pki):
    peer, before = Peer(), ssad.descriptors()
    with peers.python_server(pki, peer) as port, client(port) as sock:
        sock.sendall(b"x")
        with (ssad.mount / "sockets" / ssad.sockets()[0] / "close").open("w") as file:
            file.write("1")
        with pytest.raises(ConnectionAbortedError, match="administrator"):
            sock.recv(1)
        assert peer.saw()[1] == "cut"
        assert settled(lambda: ssad.descriptors() <= before)  # the thread's own are among them
        assert (ssad.mount / "sockets" / ssad.sockets()[0] / "close").write_text("1")  # once more: nobody serves it now


def test_a_thousand_leave_nothing(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        client(port).close()
        before = ssad.descriptors()
        for number in range(1000):
            sock = client(port)
            if number % 3 == 0:
                os.close(sock.detach())
            else:
                sock.close()
        assert settled(lambda: ssad.sockets() == [])
        assert settled(lambda: ssad.descriptors() == before)


def test_idle_sockets_cost_little(ssad, pki):
    def echo(tls, _):
        while data := tls.recv(65536):
            tls.sendall(data)

    with peers.python_server(pki, echo) as port, contextlib.ExitStack() as stack:
        for _ in range(20):  # what the first ones need is not theirs
            stack.enter_context(client(port))
        before = memory(ssad)
        socks = [stack.enter_context(client(port)) for _ in range(100)]
        for sock in socks:
            sock.sendall(bytes(50000))
            got = 0
            while got < 50000:
                got += len(sock.recv(65536))
        assert (memory(ssad) - before) / 100 < 100 * 1024
        spent = cpu(ssad)
        time.sleep(1)
        assert cpu(ssad) - spent <= 0.02


def test_the_demo_runs_on_this_kernel_as_it_is(tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    command = [Path(__file__).parents[2] / "tools" / "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    path = "The kernel encrypts" if probe().tls else "The daemon encrypts, as this kernel has no TLS"
    assert path in done.stdout
    assert list(tmp_path.iterdir()) == []


CLOSING = {
    "close": (lambda sock: sock.close(), ""),
    "shutdown": (lambda sock: sock.shutdown(socket.SHUT_WR), ""),
    "shutdown and close": (lambda sock: (sock.shutdown(socket.SHUT_WR), sock.close()), ""),
    "ssa.close": (lambda sock: ssa.close(sock.detach()), ""),
    "os.close": (lambda sock: os.close(sock.detach()), "cut"),
}


@pytest.mark.parametrize("how", CLOSING)
def test_closing_is_told_and_not_waited_for(mortal, pki, how):
    """An event loop stands still for as long as a close waits: so it does not wait for a daemon that is stopped."""
    close, wanted = CLOSING[how]
    peer = Peer()
    with peers.python_server(pki, peer) as port, client(port) as sock:
        sock.sendall(b"all of it")
        mortal.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        close(sock)
        took = time.monotonic() - began
        mortal.process.send_signal(signal.SIGCONT)
        assert peer.saw() == (b"all of it", wanted)
    assert took < 0.2


def test_an_abort_is_told_and_not_waited_for(mortal, pki):
    done = threading.Event()

    def serve(tls, _):
        with socket.socket(fileno=os.dup(tls.fileno())) as tcp:
            if isinstance(first_failure(lambda: tcp.recv(100)), ConnectionResetError):
                done.set()

    with peers.python_server(pki, serve) as port:
        sock = client(port)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        fd = sock.detach()
        mortal.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        ssa.close(fd)
        took = time.monotonic() - began
        mortal.process.send_signal(signal.SIGCONT)
        assert done.wait(20)
    assert took < 0.2


def test_a_program_that_closes_and_is_gone_has_ended_its_stream(ssad, pki):
    """It tells the daemon so, and is no more when the daemon hears it: that is no truncation."""
    for how in ("s.close()", "ssa.close(s.detach())", "s.close(); os.kill(os.getpid(), 9)"):
        for _ in range(6):
            peer = Peer()
            with peers.python_server(pki, peer) as port:
                code = f"import os, ssa; s = ssa.create_connection(('localhost', {port})); s.sendall(b'x'); {how}"
                subprocess.run([sys.executable, "-c", code], check=False, timeout=20)
                assert peer.saw() == (b"x", "")


def test_a_queue_that_is_full_holds_up_no_close(mortal, pki):
    """Where the daemon takes no connection at the moment, a thread waits for it."""
    peer = Peer()
    with peers.python_server(pki, peer) as port, contextlib.ExitStack() as waiting:
        sock = client(port)
        sock.sendall(b"x")
        mortal.process.send_signal(signal.SIGSTOP)
        with contextlib.suppress(TimeoutError):
            while True:
                waiting.enter_context(ssa.library.connection.DaemonConnection(time.monotonic()))
        began = time.monotonic()
        sock.close()
        took = time.monotonic() - began
        mortal.process.send_signal(signal.SIGCONT)
        assert peer.saw() == (b"x", "")
    assert took < 0.2
