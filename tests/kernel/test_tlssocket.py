"""ssa.TLSSocket: the contract of `socket.socket`, kept on a TLS connection."""

import array
import contextlib
import copy
import errno
import gc
import hashlib
import io
import os
import pickle
import select
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time

import pytest

import ssa
from ssa.ktls.constants import SOL_TLS, TLS_SET_RECORD_TYPE
from ssa.library.fdswap import Borrowed
from ssa.tls import HANDSHAKE
from tests import peers

IPPROTO = ssa.IPPROTO_TLS

# Of tests in which one end is made to send records of other kinds through the kernel.
by_the_kernel = pytest.mark.parametrize("either", ["ktls"], indirect=True)


@pytest.fixture
def ssad(either):
    """All that is said here holds on both data paths."""
    return either


@pytest.fixture
def server(ssad, pki):
    """A listener of our own, with the throw-away authority's certificate."""
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def pair(server):
    """Both ends of a connection: the client's, the server's."""
    with ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10) as client:
        accepted, address = server.accept()
        with accepted:
            accepted.settimeout(10)
            assert address == client.getsockname()
            yield client, accepted


def test_both_ways(pair):
    client, server = pair
    client.sendall(b"to the server")
    assert server.recv(100) == b"to the server"
    server.sendall(b"to the client")
    assert client.recv(100) == b"to the client"


def test_curl_talks_to_five_lines(server, pki):
    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"https://localhost:{server.getsockname()[1]}/"
    curl = subprocess.run(["curl", "-sS", "--cacert", pki.ca, url], capture_output=True, timeout=20, check=False)
    thread.join()
    assert (curl.stdout, curl.stderr) == (b"hello\n", b"")


def test_the_end_of_the_stream_is_an_end(pair):
    client, server = pair
    server.sendall(b"last words")
    server.close()
    assert client.recv(100) == b"last words"
    assert client.recv(100) == b""
    assert client.recv(100) == b""


def test_half_close(pair):
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    assert server.recv(10) == b""
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"


def test_an_openssl_server(ssad, pki):
    with peers.openssl(pki, "-rev") as (port, _), ssa.create_connection(("localhost", port), timeout=10) as sock:
        sock.sendall(b"abc\n")
        assert sock.recv(100) == b"cba\n"
        assert sock.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"


def test_a_listener_outlives_the_daemon(capabilities, tmp_path, pki, monkeypatch):
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
            listener.settimeout(10)
            port = listener.getsockname()[1]
            daemon.stop()
            with pytest.raises(ConnectionRefusedError, match="no ssad"):
                listener.accept()
            daemon.start()
            waiting = threading.Thread(target=lambda: ssa.create_connection(("localhost", port), timeout=10).close())
            waiting.start()
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(1) == b""
            waiting.join()


# --- reading and writing, in every way that socket.socket has ---------------------------------------------------------


def test_every_way_to_send_and_receive(pair):
    client, server = pair
    assert client.send(b"ab") == 2
    assert client.send(bytearray(b"cd"), 0) == 2
    assert client.send(memoryview(b"ef")) == 2
    assert client.send(array.array("H", [0x3131])) == 2
    assert client.sendmsg([b"gh", bytearray(b"ij"), memoryview(b"kl")]) == 6
    assert client.sendto(b"mn", ("192.0.2.1", 1)) == 2
    assert client.sendto(b"op", 0, ("192.0.2.1", 1)) == 2
    assert client.sendall(array.array("B", b"qr")) is None
    assert receive(server, 20) == b"abcdef11ghijklmnopqr"

    client.sendall(b"abcdefghijklmnopqrstuvwxyz")
    assert server.recv(2, socket.MSG_PEEK) == b"ab"
    assert server.recv(2) == b"ab"
    buffer = bytearray(4)
    assert server.recv_into(buffer) == 4
    assert server.recv_into(memoryview(buffer)[1:], 2) == 2
    assert buffer == b"cghf"
    numbers = array.array("H", [0, 0])
    assert server.recv_into(numbers) == 4
    assert numbers.tobytes() == b"ijkl"
    assert server.recvfrom(2) == (b"mn", None)
    assert server.recvfrom_into(buffer, 2) == (2, None)
    assert server.recvmsg(2) == (b"qr", [], 0, None)
    parts = bytearray(3), bytearray(10)
    assert server.recvmsg_into(parts) == (8, [], 0, None)
    assert parts[0] + parts[1][:5] == b"stuvwxyz"


def receive(sock, size):
    data = b""
    while len(data) < size:
        data += sock.recv(size - len(data))
    return data


def test_nothing_is_sent_and_received(pair):
    client, server = pair
    assert (client.send(b""), client.sendall(b""), client.sendmsg([]), client.sendmsg([b""])) == (0, None, 0, 0)
    client.sendall(b"x")
    assert (server.recv(0), server.recv_into(bytearray()), server.recvmsg(0)[0]) == (b"", 0, b"")
    assert server.recv(10) == b"x"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(10) == b""
    assert server.recv(0) == b""


def test_what_is_no_buffer(pair):
    client, server = pair
    for call in (
        lambda: client.send("text"),
        lambda: client.sendall(None),
        lambda: server.recv_into(b"read-only"),
        lambda: server.recv("1"),
    ):
        with pytest.raises(TypeError):
            call()
    with pytest.raises(ValueError):
        server.recv(-1)
    client.sendall(b"x")
    assert server.recv(1) == b"x"


@pytest.mark.parametrize("size", [16384, 16385, 2**21])
def test_much_at_once(pair, size):
    client, server = pair
    data = os.urandom(size)
    thread = threading.Thread(target=client.sendall, args=(data,))
    thread.start()
    assert receive(server, size) == data
    thread.join()


def test_waitall_and_dontwait(pair):
    client, server = pair
    server.settimeout(None)
    with pytest.raises(BlockingIOError):
        server.recv(1, socket.MSG_DONTWAIT)
    thread = threading.Timer(0.1, client.sendall, [b"later"])
    client.sendall(b"now, ")
    thread.start()
    assert server.recv(10, socket.MSG_WAITALL) == b"now, later"
    thread.join()


# --- makefile ---------------------------------------------------------------------------------------------------------


def test_makefile(pair):
    client, server = pair
    with client.makefile("w", newline="\n") as lines:
        lines.write("one\ntwo\n")
        lines.write("three")
    client.shutdown(socket.SHUT_WR)
    with server.makefile("rb") as file:
        assert file.readline() == b"one\n"
        assert file.read(2) == b"tw"
        assert list(file) == [b"o\n", b"three"]
        assert file.read() == b""
    with server.makefile("rwb", buffering=0) as raw:
        assert raw.write(b"back") == 4
    assert client.recv(10) == b"back"


@pytest.mark.parametrize("socket_first", [True, False])
def test_the_last_of_socket_and_file_ends_the_stream(pair, socket_first):
    client, server = pair
    file = client.makefile("rwb")
    first, last = (client, file) if socket_first else (file, client)
    first.close()
    server.settimeout(0.2)
    with pytest.raises(TimeoutError):
        server.recv(1)
    if socket_first:
        file.write(b"still open")
        file.flush()
        assert server.recv(100) == b"still open"
    last.close()
    server.settimeout(10)
    assert server.recv(1) == b""
    assert client.fileno() == -1


def test_a_file_tells_a_cut_stream(pair):
    client, server = pair
    server.sendall(b"half a li")
    os.close(server.detach())  # not the client's: to close with tickets unread resets the connection
    with client.makefile("rb") as file, pytest.raises(ConnectionAbortedError):
        file.read()


# --- sendfile ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def content(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(os.urandom(300_001))
    return path


def received(server, send):
    """What comes at the other end, until its end."""
    chunks = []

    def read():
        while chunk := server.recv(65536):
            chunks.append(chunk)

    thread = threading.Thread(target=read)
    thread.start()
    result = send()
    thread.join(20)
    assert not thread.is_alive()
    return result, b"".join(chunks)


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, None), (7, None), (0, 1), (100_000, 100_000), (0, 300_001), (300_000, 10), (300_001, None)],
)
def test_sendfile(pair, content, offset, count):
    client, server = pair
    wanted = content.read_bytes()[offset : None if count is None else offset + count]

    def send():
        with content.open("rb") as file:
            sent = client.sendfile(file, offset, count)
            assert file.tell() == (offset + sent if sent else 0)
        client.shutdown(socket.SHUT_WR)
        return sent

    sent, got = received(server, send)
    assert sent == len(wanted)
    assert hashlib.sha256(got).digest() == hashlib.sha256(wanted).digest()


def test_sendfile_of_a_file_that_ends_early_leaves_nothing_behind(pair, content):
    """Not even in the kernel, which keeps a record open when it is told that more is to come."""
    client, server = pair
    with content.open("rb") as file:
        assert client.sendfile(file, 299_990, 10_000) == 11
    assert receive(server, 11) == content.read_bytes()[-11:]
    client.sendall(b"next")
    assert server.recv(10) == b"next"


@pytest.mark.parametrize(("offset", "count"), [(0, None), (5, None), (0, 3000), (0, 10**9), (2990, 11), (2999, None)])
def test_the_last_bytes_of_a_file_do_not_wait(pair, tmp_path, offset, count):
    """sendfile(2) that is asked for more than there is says MSG_MORE, and TCP waits 200 ms for it."""
    client, server = pair
    client.settimeout(None)
    path = tmp_path / "small"
    path.write_bytes(os.urandom(3000))
    wanted = path.read_bytes()[offset:][:count]
    took = []
    for _ in range(5):
        began = time.monotonic()
        with path.open("rb") as file:
            assert client.sendfile(file, offset, count) == len(wanted)
        assert receive(server, len(wanted)) == wanted
        took.append(time.monotonic() - began)
    assert sorted(took)[2] < 0.1


def test_sendfile_of_a_file_that_grows(pair, content):
    client, server = pair
    wanted = content.read_bytes() + b"more"

    class Growing:
        """It is longer by the time that what it had is sent."""

        def __init__(self, file):
            self.file, self.looks = file, 0

        def fileno(self):
            self.looks += 1
            if self.looks == 2:
                with content.open("ab") as file:
                    file.write(b"more")
            return self.file.fileno()

        def read(self, size):
            raise AssertionError(size)

    def send():
        with content.open("rb") as file:
            sent = client.sendfile(Growing(file))
        client.shutdown(socket.SHUT_WR)
        return sent

    assert received(server, send) == (len(wanted), wanted)


def test_sendfile_past_the_end(pair, content):
    client, server = pair
    with content.open("rb") as file:
        assert client.sendfile(file, 300_001) == 0
        assert client.sendfile(file, 10**12, 5) == 0
    client.sendall(b"next")
    assert receive(server, 4) == b"next"


@pytest.mark.parametrize("count", [None, 10, 10**6])
def test_sendfile_of_what_has_no_size(pair, count):
    """Files of /proc say 0, and pipes: as if they were empty."""
    client, server = pair
    with open("/proc/self/status", "rb") as file:
        sent = client.sendfile(file, 0, count)
        assert sent == 10 if count == 10 else sent > 500
        assert receive(server, sent).startswith(b"Name:\t")
        with pytest.raises(ValueError):
            client.sendfile(file, 0, 0)
        assert client.sendfile(file, 6, 2) == 2
        receive(server, 2)
    out, into = os.pipe()
    with open(out, "rb") as file:
        with open(into, "wb") as pipe:
            pipe.write(b"through a pipe")
        sent = client.sendfile(file, 0, count)
        assert receive(server, sent) == b"through a pipe"[:count]
    with tempfile.TemporaryFile() as file:
        assert client.sendfile(file, 0, count) == 0


def test_sendfile_of_what_is_no_file(pair):
    client, server = pair
    assert client.sendfile(io.BytesIO(b"in memory")) == 9
    assert receive(server, 9) == b"in memory"
    with pytest.raises(TypeError):
        client.sendfile(io.StringIO("text"))


@pytest.mark.parametrize(("count", "error"), [(0, ValueError), (-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_sendfile_of_a_count_that_is_none(pair, content, count, error):
    with content.open("rb") as file, pytest.raises(error):
        pair[0].sendfile(file, 0, count)


def test_sendfile_keeps_the_timeout(pair, content):
    client, _ = pair
    client.settimeout(0.3)
    started = time.monotonic()
    with content.open("rb") as file, pytest.raises(TimeoutError):
        until_it_fails(lambda: client.sendfile(file))
    assert time.monotonic() - started < 30
    client.setblocking(False)
    with content.open("rb") as file, pytest.raises(ValueError):
        client.sendfile(file)


def until_it_fails(call):
    for _ in range(2000):
        call()


# --- timeouts ---------------------------------------------------------------------------------------------------------


def test_timeouts_of_reading_and_writing(pair):
    client, server = pair
    server.settimeout(0.1)
    assert (server.gettimeout(), server.getblocking()) == (0.1, True)
    for read in (
        lambda: server.recv(1),
        lambda: server.recv_into(bytearray(1)),
        lambda: server.recvfrom(1),
        lambda: server.recvmsg(1),
        lambda: server.recvmsg_into([bytearray(1)]),
    ):
        with pytest.raises(TimeoutError):
            read()
    client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        client.sendall(bytes(2**26))


def test_non_blocking(pair):
    client, server = pair
    server.setblocking(False)
    assert (server.gettimeout(), server.getblocking()) == (0.0, False)
    with pytest.raises(BlockingIOError):
        server.recv(1)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        until_it_fails(lambda: client.send(bytes(2**16)))
    assert select.select([server], [], [], 10)[0]
    assert server.recv(1) == b"\0"


TICKET = b"\x04\0\0\x05abcde"


def send_record(sock, kind, content):
    with Borrowed(sock.fileno()) as plain:
        plain.sendmsg([content], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([kind]))])


@by_the_kernel
def test_tickets_in_the_middle_of_data(pair):
    client, server = pair
    server.sendall(b"before")
    send_record(server, HANDSHAKE, TICKET)
    send_record(server, HANDSHAKE, TICKET)
    server.sendall(b"behind")
    assert receive(client, 12) == b"beforebehind"


@by_the_kernel
def test_endless_tickets_do_not_stretch_a_timeout(pair):
    client, server = pair
    stop = threading.Event()

    def flood():
        server.settimeout(1)
        while not stop.is_set():
            send_record(server, HANDSHAKE, TICKET)
            time.sleep(0.01)

    thread = threading.Thread(target=flood)
    client.settimeout(0.5)
    thread.start()
    started = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            client.recv(1)
        assert time.monotonic() - started < 10
    finally:
        stop.set()
        thread.join()


def test_a_stalled_handshake_ends_at_the_timeout(ssad):
    with socket.create_server(("127.0.0.1", 0)) as silent, ssa.socket() as sock:
        sock.settimeout(0.5)
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            sock.connect(silent.getsockname())
        assert 0.4 < time.monotonic() - started < 8
        assert sock.gettimeout() == 0.5
        assert sock.getsockopt(IPPROTO, ssa.TLS_ERROR)
        with pytest.raises(OSError) as caught:
            sock.send(b"x")
        assert caught.value.errno == errno.ENOTCONN


def test_the_default_timeout(server):
    socket.setdefaulttimeout(7)
    try:
        with ssa.socket() as sock:
            assert sock.gettimeout() == 7
            sock.connect(("localhost", server.getsockname()[1]))
            assert sock.gettimeout() == 7
            with server.accept()[0] as accepted:
                assert accepted.gettimeout() == 7
                sock.sendall(b"x")
                assert accepted.recv(1) == b"x"
    finally:
        socket.setdefaulttimeout(None)


def test_an_accepted_socket_blocks(server):
    with ssa.create_connection(("localhost", server.getsockname()[1])) as client:
        assert client.gettimeout() is None
        with server.accept()[0] as accepted:
            assert accepted.gettimeout() is None
            assert os.get_blocking(accepted.fileno())


# --- the ends of the stream -------------------------------------------------------------------------------------------


def test_send_after_shutdown_raises_every_time(pair, tmp_path):
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    client.shutdown(socket.SHUT_WR)
    (tmp_path / "file").write_bytes(b"content")
    for _ in range(3):
        for send in (
            client.send,
            client.sendall,
            lambda data: client.sendmsg([data]),
            lambda data: client.sendto(data, ()),
        ):
            with pytest.raises(BrokenPipeError):
                send(b"x")
        with (tmp_path / "file").open("rb") as file, pytest.raises(BrokenPipeError):
            client.sendfile(file)
    assert server.recv(1) == b""


def test_shutdown_of_reading(pair):
    client, server = pair
    client.shutdown(socket.SHUT_RD)
    assert client.recv(1) == b""
    client.sendall(b"still writing")
    assert server.recv(100) == b"still writing"


def test_shutdown_of_both(pair):
    client, server = pair
    client.sendall(b"last")
    client.shutdown(socket.SHUT_RDWR)
    assert client.recv(1) == b""
    assert server.recv(100) == b"last"
    assert server.recv(100) == b""


@pytest.mark.parametrize("phase", ["fresh", "bound"])
def test_shutdown_of_what_is_not_connected(ssad, phase):
    with ssa.socket() as sock:
        if phase == "bound":
            sock.bind(("127.0.0.1", 0))
        with pytest.raises(OSError) as caught:
            sock.shutdown(socket.SHUT_RDWR)
        assert caught.value.errno == errno.ENOTCONN


def test_send_to_who_has_gone(pair):
    client, server = pair
    server.close()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        until_it_fails(lambda: client.sendall(bytes(1000)))
    for _ in range(3):
        with pytest.raises(BrokenPipeError):
            client.send(b"x")


# --- who holds the descriptor -----------------------------------------------------------------------------------------


def test_nothing_is_inherited(ssad, server, pki):
    """Of the descriptors that a program has after any of the calls that make sockets (PEP 446)."""
    before = set(os.listdir("/proc/self/fd"))
    address = ("localhost", server.getsockname()[1])
    with contextlib.ExitStack() as stack:
        stack.enter_context(ssa.create_connection(address, timeout=10))
        stack.enter_context(server.accept()[0])
        stack.callback(os.close, ssa.connect_tls(*address, timeout=10))
        stack.enter_context(server.accept()[0])
        sock = stack.enter_context(ssa.socket())
        sock.setblocking(False)
        started(sock, address)
        stack.enter_context(server.accept()[0])
        assert outcome(sock) == 0
        stack.enter_context(sock.dup())
        plain = socket.create_connection(address)
        stack.enter_context(ssa.upgrade(plain, server_hostname="localhost"))
        stack.enter_context(server.accept()[0])
        stack.enter_context(ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key))
        ours = set(os.listdir("/proc/self/fd")) - before
        inheritable = []
        for name in ours:
            with contextlib.suppress(OSError):  # the listing's own
                if os.get_inheritable(int(name)):
                    inheritable.append(name)
        assert inheritable == []


def test_asking_how_it_went_never_waits(connecting):
    """Not on a socket that blocks by now either."""
    sock, may, start = connecting
    start()
    sock.setblocking(True)
    began = time.monotonic()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EINPROGRESS
    assert time.monotonic() - began < 2
    may.set()


def test_dup(pair):
    client, server = pair
    twin = client.dup()
    assert isinstance(twin, ssa.TLSSocket)
    assert twin.gettimeout() == client.gettimeout()
    assert twin.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"
    assert not os.get_inheritable(twin.fileno())
    client.close()
    twin.sendall(b"goes on")
    assert server.recv(100) == b"goes on"
    twin.close()
    assert server.recv(100) == b""


def test_dup_of_a_listener(server):
    port = server.getsockname()[1]
    with server.dup() as twin:
        server.close()
        assert twin.getsockname()[1] == port
        with ssa.create_connection(("localhost", port), timeout=10) as client, twin.accept()[0] as accepted:
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


def test_detach(pair):
    client, server = pair
    fd = client.detach()
    assert client.fileno() == -1
    assert os.write(fd, b"a descriptor") == 12
    assert server.recv(100) == b"a descriptor"
    server.sendall(b"and back")
    os.set_blocking(fd, True)  # a ticket may be there before the data
    assert ssa.recv(fd, 100) == b"and back"
    with ssa.socket(fileno=fd) as again:
        again.settimeout(10)
        assert again.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"
        again.sendall(b"again")
        assert server.recv(100) == b"again"
    assert server.recv(100) == b""


def test_a_listener_cannot_be_detached(server):
    with pytest.raises(OSError) as caught:
        server.detach()
    assert caught.value.errno == errno.EBUSY
    assert server.fileno() >= 0


def test_pickling_is_refused(pair, server):
    for sock in (*pair, server):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            with pytest.raises(TypeError):
                pickle.dumps(sock, protocol)
    with pytest.raises(TypeError):
        copy.copy(pair[0])


def in_child(run):
    """Run in a forked child: its status, without waiting."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        run()
        status = 0
    finally:
        os._exit(status)


def test_a_child_that_closes_leaves_the_stream_to_its_parent(pair):
    client, server = pair
    assert os.waitpid(in_child(client.close), 0)[1] == 0
    client.sendall(b"goes on")
    assert server.recv(100) == b"goes on"
    client.close()
    assert server.recv(100) == b""


def test_a_child_goes_on_when_its_parent_closes(pair):
    client, server = pair
    ready, told = os.pipe()

    def child():
        server.close()
        os.read(ready, 1)
        client.sendall(b"from the child")
        client.close()

    pid = in_child(child)
    client.close()
    os.write(told, b"x")
    assert server.recv(100) == b"from the child"
    assert server.recv(100) == b""  # close_notify: the last one says it
    assert os.waitpid(pid, 0)[1] == 0
    os.close(ready)
    os.close(told)


ELSEWHERE = """
import socket, sys
import ssa
with socket.socket(fileno=int(sys.argv[1])) as unix:
    _, (fd,), _, _ = socket.recv_fds(unix, 1, 1)
with ssa.socket(fileno=fd) as sock:
    sock.settimeout(10)
    {}
"""


@contextlib.contextmanager
def another_process(sock, program):
    """A process that gets a socket over SCM_RIGHTS; what it prints."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [sys.executable, "-c", ELSEWHERE.format(program), str(theirs.fileno())]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.PIPE, text=True) as process:
            socket.send_fds(ours, [b"x"], [sock.fileno()])
            yield process
            assert process.wait(30) == 0


@by_the_kernel
def test_a_socket_in_another_process(pair, ssad):
    client, server = pair
    send_record(server, HANDSHAKE, TICKET)
    server.sendall(b"for whom it concerns")
    identity = client.getsockopt(IPPROTO, ssa.TLS_ID)
    program = (
        "print(sock.recv(100), sock.getsockopt(205, ssa.TLS_ID), sock.getsockopt(205, ssa.TLS_PEER_IDENTITY), "
        "sock.getpeername()[1]); sock.sendall(b'from afar')"
    )
    with another_process(client, program) as process:
        printed = process.communicate(timeout=30)[0]
        os.close(client.detach())
    assert printed == f"b'for whom it concerns' {identity} b'localhost' {server.getsockname()[1]}\n"
    assert server.recv(100) == b"from afar"
    assert server.recv(100) == b""


def test_a_listener_in_another_process(server):
    program = "accepted, _ = sock.accept(); print(accepted.recv(10)); accepted.close()"
    with another_process(server, program) as process:
        with ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10) as client:
            client.sendall(b"x")
            assert client.recv(10) == b""
        assert process.communicate(timeout=30)[0] == "b'x'\n"
    with ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10), server.accept()[0]:
        pass  # and here, still


def test_options_of_a_listener_belong_to_who_made_it(server):
    """Another process knows only a part of them: to set one would be to lose the others."""
    with ssa.socket(fileno=os.dup(server.fileno())) as found, pytest.raises(OSError) as caught:
        found.setsockopt(IPPROTO, ssa.TLS_ALPN, b"a")
    assert caught.value.errno == errno.EOPNOTSUPP


def test_a_descriptor_that_is_no_tcp_socket_stays_its_owners():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        with pytest.raises(OSError) as caught:
            ssa.socket(fileno=datagrams.fileno())
        assert caught.value.errno == errno.EPROTONOSUPPORT
        assert datagrams.getsockname() == ("0.0.0.0", 0)
    with pytest.raises(OSError):
        ssa.socket(fileno=datagrams.fileno() if datagrams.fileno() >= 0 else 10_000)


# --- names, phases, errors --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        ((socket.AF_UNIX,), errno.EAFNOSUPPORT),
        ((ssa.AF_HOSTNAME,), errno.EAFNOSUPPORT),
        ((socket.AF_INET, socket.SOCK_RAW), errno.EPROTONOSUPPORT),
        ((socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_UDP), errno.EPROTONOSUPPORT),
    ],
)
def test_kinds_that_there_are_not(arguments, number):
    with pytest.raises(OSError) as caught:
        ssa.socket(*arguments)
    assert caught.value.errno == number


def test_flags_of_a_new_socket():
    with ssa.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, IPPROTO) as sock:
        assert sock.gettimeout() == 0
        assert not sock.get_inheritable()


def test_names_at_each_phase(server):
    with ssa.socket() as sock:
        assert sock.getsockname() == ("0.0.0.0", 0)
        with pytest.raises(OSError) as caught:
            sock.getpeername()
        assert caught.value.errno == errno.ENOTCONN
        sock.bind(("127.0.0.1", 0))
        name = sock.getsockname()
        sock.settimeout(10)
        sock.connect(("localhost", server.getsockname()[1]))
        assert (sock.getsockname(), sock.getpeername()) == (name, server.getsockname())
        accepted, address = server.accept()
        with accepted:
            assert (accepted.getsockname(), accepted.getpeername(), address) == (sock.getpeername(), name, name)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        with pytest.raises(OSError):
            server.getpeername()


def test_connect_twice(pair, server):
    client, accepted = pair
    for sock in (client, accepted, server):
        assert sock.connect_ex(("localhost", 1)) == errno.EISCONN
    client.sendall(b"x")
    assert accepted.recv(1) == b"x"


def test_connect_ex(ssad, server):
    with ssa.socket() as sock:
        sock.settimeout(10)
        assert sock.connect_ex(("127.0.0.1", peers.free_port())) == errno.ECONNREFUSED
        assert sock.connect_ex(("localhost", server.getsockname()[1])) == 0
        server.accept()[0].close()
    with ssa.socket() as sock:
        sock.settimeout(10)
        sock.setsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME, b"other.test")
        assert sock.connect_ex(server.getsockname()) == errno.EKEYREJECTED


def test_the_next_address_of_a_name_is_tried(server, monkeypatch):
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", peers.free_port())),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", server.getsockname()),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    for timeout in (10, None):
        with ssa.socket() as sock:
            sock.settimeout(timeout)
            sock.connect(("localhost", 1))
            server.accept()[0].close()


def test_a_failed_connect_within_with(ssad):
    with pytest.raises(ConnectionRefusedError), ssa.socket() as sock:
        sock.connect(("127.0.0.1", peers.free_port()))
    assert sock.fileno() == -1


def test_bad_addresses(ssad):
    with ssa.socket() as sock:
        for address in ("localhost", ("localhost",), (None, 1), (7, 1), None):
            with pytest.raises((TypeError, ValueError)):
                sock.connect(address)


@pytest.mark.parametrize("phase", ["fresh", "live", "listening"])
def test_a_closed_socket(pair, server, phase, content):
    sock = {"fresh": ssa.socket(), "live": pair[0], "listening": server}[phase]
    sock.close()
    sock.close()
    for call in (
        lambda: sock.recv(1),
        lambda: sock.recv_into(bytearray(1)),
        lambda: sock.recvmsg(1),
        lambda: sock.send(b"x"),
        lambda: sock.sendall(b"x"),
        lambda: sock.sendmsg([b"x"]),
        lambda: sock.connect(("localhost", 1)),
        sock.listen,
        sock.accept,
        lambda: sock.shutdown(socket.SHUT_RDWR),
        sock.getpeername,
        sock.getsockname,
        sock.dup,
        lambda: sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR),
        lambda: sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.EBADF
    assert sock.fileno() == -1
    assert "[closed]" in repr(sock)
    assert sock.detach() == -1


def test_what_a_listener_cannot(server):
    for call in (lambda: server.recv(1), lambda: server.send(b"x"), lambda: server.sendall(b"x")):
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == errno.ENOTCONN
    for sock in (ssa.socket(),):
        with sock, pytest.raises(OSError) as caught:
            sock.accept()
        assert caught.value.errno == errno.EINVAL


def test_repr(pair, server):
    client, _ = pair
    assert repr(client).startswith("<ssa.TLSSocket fd=")
    assert f"raddr={server.getsockname()}" in repr(client)
    client.close()
    assert repr(client).startswith("<ssa.TLSSocket [closed] fd=-1")


# --- listeners --------------------------------------------------------------------------------------------------------


def test_accept_does_not_wait_for_ever(server):
    server.settimeout(0.1)
    with pytest.raises(TimeoutError):
        server.accept()
    server.setblocking(False)
    with pytest.raises(BlockingIOError):
        server.accept()


def test_a_listener_is_readable_only_when_a_handshake_is_done(server):
    port = server.getsockname()[1]
    with socket.create_connection(("127.0.0.1", port)):  # which says nothing
        assert select.select([server], [], [], 0.3) == ([], [], [])
        with ssa.create_connection(("localhost", port), timeout=10):
            assert select.select([server], [], [], 10) == ([server], [], [])
            poll = select.poll()
            poll.register(server, select.POLLIN)
            assert poll.poll(10_000) == [(server.fileno(), select.POLLIN)]
            with server.accept()[0]:
                assert select.select([server], [], [], 0.1) == ([], [], [])


def test_shutdown_of_a_listener_wakes_who_accepts(server):
    port, raised = server.getsockname()[1], []

    def accept():
        try:
            server.accept()
        except OSError as exc:
            raised.append(exc.errno)

    server.settimeout(20)
    thread = threading.Thread(target=accept)
    thread.start()
    time.sleep(0.1)
    server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
    assert raised == [errno.EINVAL]
    with pytest.raises(OSError) as caught:
        server.accept()
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(ConnectionRefusedError):
        ssa.create_connection(("127.0.0.1", port), timeout=10)


def test_listen_again(server):
    server.listen(5)
    with ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10), server.accept()[0]:
        pass


SETS = 4 * 3  # epoll sets of 64 sockets come and go: each is a descriptor of the worker's and two of the daemon's


def test_five_hundred_sockets_leave_nothing(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(20)
        address = ("localhost", listener.getsockname()[1])

        def once():
            with ssa.create_connection(address, timeout=20), listener.accept()[0]:
                pass

        once()
        gc.collect()  # what tests before this one have left to it
        here, there = len(os.listdir("/proc/self/fd")), ssad.descriptors()
        for _ in range(250):
            once()
        assert len(os.listdir("/proc/self/fd")) == here
        assert ssad.descriptors() <= there + SETS
        assert ssad.sockets() == []


# --- connecting without waiting ---------------------------------------------------------------------------------------


@pytest.fixture
def slow(ssad, pki):
    """A server whose answers wait until they may come; its port and the permission."""
    may = threading.Event()

    def serve(connection):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert, pki.key)
        may.wait(20)
        with context.wrap_socket(connection, server_side=True) as tls:
            while data := tls.recv(100):
                tls.sendall(data)

    with peers.script(serve) as port:
        yield port, may
        may.set()


@pytest.fixture
def connecting(slow):
    """A socket whose connect is under way."""
    with ssa.socket() as sock:
        sock.setblocking(False)
        yield sock, slow[1], lambda: started(sock, ("localhost", slow[0]))


def started(sock, address):
    with pytest.raises(BlockingIOError) as caught:
        sock.connect(address)
    assert caught.value.errno == errno.EINPROGRESS


def by_select(sock):
    return lambda seconds: bool(select.select([], [sock], [], seconds)[1])


def by_poll(sock):
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return lambda seconds: any(events & select.POLLOUT for _, events in poll.poll(seconds * 1000))


def by_epoll(sock, flags=0):
    epoll = select.epoll()
    epoll.register(sock, select.EPOLLOUT | flags)
    return lambda seconds: any(events & select.EPOLLOUT for _, events in epoll.poll(seconds))


def by_edges(sock):
    return by_epoll(sock, select.EPOLLET)


@pytest.mark.parametrize("watch", [by_select, by_poll, by_epoll, by_edges])
@pytest.mark.parametrize("first", [True, False], ids=["registered before", "registered after"])
def test_writable_when_the_handshake_is_done(connecting, watch, first):
    sock, may, start = connecting
    if first:
        writable = watch(sock)
        writable(0)  # whatever an unconnected socket says
        start()
    else:
        start()
        writable = watch(sock)
    assert not writable(0.3)
    for call in (lambda: sock.send(b"x"), lambda: sock.recv(1), lambda: sock.sendall(b"x")):
        with pytest.raises(BlockingIOError):
            call()
    assert sock.connect_ex(("localhost", 1)) == errno.EALREADY
    may.set()
    assert writable(10)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    assert sock.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"
    assert writable(10)  # the TCP socket is watched as the one before was
    sock.sendall(b"echo")
    sock.setblocking(True)
    sock.settimeout(10)
    assert sock.recv(10) == b"echo"
    assert sock.connect_ex(("localhost", 1)) == errno.EISCONN


def test_reading_is_watched_behind_the_handshake(connecting):
    sock, may, start = connecting
    epoll = select.epoll()
    with epoll:
        epoll.register(sock, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
        start()
        may.set()
        while not any(events & select.EPOLLOUT for _, events in epoll.poll(10)):
            pass
        sock.connect(("localhost", 1))  # done: no error
        epoll.modify(sock, select.EPOLLIN)
        sock.send(b"echo")
        while (data := receive_if_any(sock, epoll)) is None:
            pass
        assert data == b"echo"


def receive_if_any(sock, epoll):
    assert epoll.poll(10), "nothing came"
    try:
        return sock.recv(10)
    except BlockingIOError:
        return None  # it was a ticket


def test_phases_of_a_connect_under_way(connecting):
    sock, may, start = connecting
    start()
    with pytest.raises(OSError) as caught:
        sock.setsockopt(IPPROTO, ssa.TLS_ALPN, b"a")
    assert caught.value.errno == errno.EISCONN
    with pytest.raises(OSError) as caught:
        sock.getsockopt(IPPROTO, ssa.TLS_CHOSEN_CIPHER)
    assert caught.value.errno == errno.ENOTCONN
    assert sock.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError) as caught:
        sock.detach()
    assert caught.value.errno == errno.EBUSY
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    sock.settimeout(10)
    may.set()
    sock.sendall(b"it waits by now")
    assert receive(sock, 15) == b"it waits by now"
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def outcome(sock):
    assert select.select([], [sock], [], 15)[1]
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def failing(name):
    """What goes wrong, its errno, and a word of the explanation."""
    return {
        "refused port": (errno.ECONNREFUSED, "refused"),
        "wrong name": (errno.EKEYREJECTED, "other.test"),
        "stalled": (errno.ETIMEDOUT, "in time"),
        "hangs up": (errno.ECONNRESET, "in the middle of the handshake"),
    }[name]


@pytest.mark.parametrize("name", ["refused port", "wrong name", "stalled", "hangs up"])
@pytest.mark.parametrize("asked", ["SO_ERROR", "connect"])
def test_how_a_connect_under_way_failed(ssad, slow, name, asked):
    number, words = failing(name)
    port, may = slow
    if name == "stalled":
        ssad.set("handshake_timeout", "0.5")
    with contextlib.ExitStack() as stack:
        if name == "refused port":
            port = peers.free_port()
        elif name == "hangs up":
            port = stack.enter_context(peers.script(lambda connection: connection.recv(1)))
        elif name == "wrong name":
            may.set()
        sock = stack.enter_context(ssa.socket())
        if name == "wrong name":
            sock.setsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME, b"other.test")
        sock.setblocking(False)
        started(sock, ("localhost", port))
        if asked == "SO_ERROR":
            assert outcome(sock) == number
        else:
            assert select.select([], [sock], [], 15)[1]
            assert sock.connect_ex(("localhost", port)) == number
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0  # it is told once
        assert words in sock.getsockopt(IPPROTO, ssa.TLS_ERROR).decode()
        with pytest.raises(OSError) as caught:
            sock.send(b"x")
        assert caught.value.errno == errno.ENOTCONN
        assert words in str(caught.value)


def test_a_failure_that_another_call_found_is_still_told(ssad):
    with ssa.socket() as sock:
        sock.setblocking(False)
        started(sock, ("127.0.0.1", peers.free_port()))
        assert select.select([], [sock], [], 15)[1]
        assert sock.getsockopt(IPPROTO, ssa.TLS_ERROR)
        assert sock.connect_ex(("localhost", 1)) == errno.ECONNREFUSED
        assert sock.connect_ex(("localhost", 1)) == errno.EINPROGRESS  # it is told once, and then tried again


def test_no_daemon_to_start_a_connect(monkeypatch, tmp_path):
    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path))
    with ssa.socket() as sock:
        sock.setblocking(False)
        with pytest.raises(ConnectionRefusedError, match="no ssad"):
            sock.connect(("localhost", 1))
        assert sock.connect_ex(("localhost", 1)) == errno.ECONNREFUSED
        assert b"no ssad" in sock.getsockopt(IPPROTO, ssa.TLS_ERROR)


def test_long_options_on_a_socket_that_does_not_block(connecting):
    """The request is longer than the smallest send buffer there is."""
    sock, may, start = connecting
    sock.setsockopt(IPPROTO, ssa.TLS_ALPN, ",".join(f"{number:0200}" for number in range(60)).encode())
    start()
    may.set()
    assert outcome(sock) == 0


def test_close_in_the_middle_leaves_nothing(slow, ssad):
    gc.collect()  # what tests before this one have left to it
    here, there = len(os.listdir("/proc/self/fd")), ssad.descriptors()
    for _ in range(20):
        with ssa.socket() as sock:
            sock.setblocking(False)
            started(sock, ("localhost", slow[0]))
    deadline = time.monotonic() + 10
    while len(os.listdir("/proc/self/fd")) > here + 40 and time.monotonic() < deadline:
        time.sleep(0.05)  # the other ends are here too
    assert peers.settled(lambda: ssad.descriptors() <= there)
    assert ssad.sockets() == []


def test_close_when_it_is_done_and_nobody_has_looked(server):
    with ssa.socket() as sock:
        sock.setblocking(False)
        started(sock, ("localhost", server.getsockname()[1]))
        with server.accept()[0] as accepted:
            assert select.select([], [sock], [], 10)[1]
            sock.close()
            accepted.settimeout(10)
            assert accepted.recv(1) == b""  # close_notify: not cut


@pytest.mark.parametrize("timeout", [None, 0], ids=["waits", "does not wait"])
def test_the_last_words_of_many_to_peers_that_are_slow(server, ssad, timeout):
    """Closed with more in the send buffers than the peers have read: all of it arrives, and the end behind it."""
    held = []
    with contextlib.ExitStack() as accepted:
        for _ in range(24):
            client = ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10)
            peer = accepted.enter_context(server.accept()[0])
            peer.settimeout(10)
            client.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += client.send(bytes(16384))
            client.settimeout(timeout)
            began = time.monotonic()
            client.close()
            assert time.monotonic() - began < 0.5
            held.append((peer, sent))
        time.sleep(1.5)  # longer than close() waits for anything
        for peer, sent in held:
            got = 0
            while data := peer.recv(65536):  # b"" is a close_notify: a stream that was cut is an error
                got += len(data)
            assert got == sent
        peers.settled(lambda: len(ssad.sockets()) <= len(held))
        assert len(ssad.sockets()) == len(held)  # the peers' ends


@pytest.mark.parametrize("reads", [True, False], ids=["reads first", "sends first"])
def test_after_a_reset_nothing_can_be_sent(ssad, pki, reads):
    """The kernel tells of it once, and takes what is sent then for nobody."""

    def reset(tls, tcp):
        tls.recv(1)
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with peers.python_server(pki, reset) as port, ssa.create_connection(("localhost", port), timeout=10) as sock:
        sock.sendall(b"x")
        if reads:
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        else:
            poll = select.poll()
            poll.register(sock, 0)
            assert poll.poll(10_000)
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                sock.sendall(bytes(100_000))
        for _ in range(3):
            with pytest.raises((ConnectionResetError, BrokenPipeError)):
                sock.send(b"y")


def test_what_one_of_two_has_ended_neither_can_send_on(pair):
    client, server = pair
    with client.dup() as twin:
        twin.sendall(b"one")
        client.sendall(b"two")
        client.shutdown(socket.SHUT_WR)
        for sock in (client, twin, twin):
            with pytest.raises(BrokenPipeError):
                sock.send(b"three")
        assert server.recv(3) + server.recv(3) == b"onetwo"
        assert server.recv(1) == b""
