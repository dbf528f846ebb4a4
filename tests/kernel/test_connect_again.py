"""connect(2) behind one that failed: as in TCP, what never reached its peer can be tried again."""

import contextlib
import errno
import select
import socket
import struct
import threading
import time

import pytest

import ssa
from tests import peers

IPPROTO = ssa.IPPROTO_TLS


@pytest.fixture
def ssad(either):
    """All that is said here holds on both data paths."""
    return either


@contextlib.contextmanager
def served(pki, port):
    """A server on a port that nobody served until now."""
    with ssa.create_server(("127.0.0.1", port), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        yield listener


def echoes(sock, listener):
    """The connection is one, with the server that is there now."""
    sock.settimeout(10)
    accepted, _ = listener.accept()
    with accepted:
        sock.sendall(b"hello")
        assert accepted.recv(5) == b"hello"
        accepted.sendall(b"to you")
        assert sock.recv(6) == b"to you"


def begin(sock, address):
    sock.setblocking(False)
    with pytest.raises(BlockingIOError) as caught:
        sock.connect(address)
    assert caught.value.errno == errno.EINPROGRESS


def writable(sock):
    assert select.select([], [sock], [], 15)[1]


def by_so_error(sock, _address):
    writable(sock)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def by_connect_ex(sock, address):
    writable(sock)
    return sock.connect_ex(address)


def by_connect(sock, address):
    writable(sock)
    with pytest.raises(OSError) as caught:
        sock.connect(address)
    return caught.value.errno


@pytest.mark.parametrize("asked", [by_so_error, by_connect_ex, by_connect])
@pytest.mark.parametrize("then", ["does not wait", "waits", "waits with a timeout"])
def test_a_refused_one_is_tried_again(ssad, pki, asked, then):
    port = peers.free_port()
    address = ("localhost", port)
    with ssa.socket() as sock:
        for _ in range(2):
            begin(sock, address)
            assert asked(sock, address) == errno.ECONNREFUSED
        with pytest.raises(OSError) as caught:
            sock.send(b"x")
        assert caught.value.errno == errno.ENOTCONN
        with served(pki, port) as listener:
            if then == "does not wait":
                begin(sock, address)
                writable(sock)
                assert sock.connect_ex(address) == 0
            else:
                sock.settimeout(10 if then == "waits with a timeout" else None)
                sock.connect(address)
            echoes(sock, listener)
        assert sock.connect_ex(address) == errno.EISCONN


def test_a_retry_loop(ssad, pki):
    """As they are written for TCP: by connect_ex until it says 0 or EISCONN."""
    port = peers.free_port()
    with ssa.socket() as sock, contextlib.ExitStack() as stack:
        sock.setblocking(False)
        later = time.monotonic() + 0.5
        listener = None
        while (said := sock.connect_ex(("localhost", port))) not in (0, errno.EISCONN):
            assert said in (errno.EINPROGRESS, errno.EALREADY, errno.ECONNREFUSED)
            if listener is None and time.monotonic() > later:
                listener = stack.enter_context(served(pki, port))
            time.sleep(0.02)
        echoes(sock, listener)


def test_the_name_of_the_first_try_is_forgotten(ssad, pki):
    """It was the address's; one that was set stays."""
    with ssa.socket() as sock:
        begin(sock, ("127.0.0.2", peers.free_port()))
        assert by_so_error(sock, None) == errno.ECONNREFUSED
        assert sock.getsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME) == b""
        with served(pki, 0) as listener:
            address = ("localhost", listener.getsockname()[1])
            begin(sock, address)
            assert by_so_error(sock, None) == 0
            echoes(sock, listener)
        assert sock.getsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME) == b"localhost"
    with ssa.socket() as sock:
        sock.setsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME, b"other.test")
        begin(sock, ("127.0.0.1", peers.free_port()))
        assert by_so_error(sock, None) == errno.ECONNREFUSED
        assert sock.getsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME) == b"other.test"


@contextlib.contextmanager
def deaf():
    """The address of a listener whose queue is full: who connects hears nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(8):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


def test_one_that_timed_out(ssad, pki):
    with deaf() as address, ssa.socket() as sock, served(pki, 0) as listener:
        sock.settimeout(0.3)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                sock.connect(address)
        sock.settimeout(10)
        sock.connect(("localhost", listener.getsockname()[1]))
        echoes(sock, listener)


def test_one_that_the_kernel_gave_up(ssad, pki):
    with deaf() as address, ssa.socket() as sock, served(pki, 0) as listener:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 500)
        begin(sock, address)
        assert by_so_error(sock, None) == errno.ETIMEDOUT
        begin(sock, ("localhost", listener.getsockname()[1]))
        assert by_so_error(sock, None) == 0
        echoes(sock, listener)


def test_one_that_is_unreachable(ssad, pki):
    with ssa.socket() as sock, served(pki, 0) as listener:
        sock.setblocking(False)
        for address in (("240.0.0.1", 1), ("255.255.255.255", 1)):
            said = sock.connect_ex(address)
            if said == errno.EINPROGRESS:
                pytest.skip("this machine has a route to everywhere")
            assert said in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL)
        begin(sock, ("localhost", listener.getsockname()[1]))
        assert by_so_error(sock, None) == 0
        echoes(sock, listener)


@pytest.mark.parametrize("waits", [True, False])
def test_one_whose_handshake_failed_is_over(ssad, pki, waits):
    """The connection was one, and is used up. To say EISCONN of it is what retry loops take for success."""
    with served(pki, 0) as listener, ssa.socket() as sock:
        address = listener.getsockname()
        sock.setsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME, b"other.test")
        if waits:
            sock.settimeout(10)
            assert sock.connect_ex(address) == errno.EKEYREJECTED
        else:
            begin(sock, address)
            assert by_so_error(sock, None) == errno.EKEYREJECTED
        for _ in range(2):
            with pytest.raises(OSError, match=r"cannot connect: its handshake failed: .*other\.test") as caught:
                sock.connect(address)
            assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize("reset", [True, False])
def test_one_that_was_hung_up_on_is_over(ssad, reset):
    def hang_up(connection):
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with peers.script(hang_up) as port, ssa.socket() as sock:
        begin(sock, ("localhost", port))
        assert by_so_error(sock, None) in (errno.ECONNRESET, errno.ENOTCONN, errno.EPROTO, errno.ECONNABORTED)
        assert sock.connect_ex(("localhost", port)) == errno.EINVAL


def test_a_closed_one(ssad):
    with peers.script(lambda connection: connection.recv(1) and time.sleep(5)) as port:
        fresh, connecting = ssa.socket(), ssa.socket()
        begin(connecting, ("localhost", port))
        refused = ssa.socket()
        begin(refused, ("127.0.0.1", peers.free_port()))
        writable(refused)
        for sock in (fresh, connecting, refused):
            sock.close()
            for _ in range(2):
                assert sock.connect_ex(("localhost", port)) == errno.EBADF


def test_to_wait_for_one_that_was_begun_without(ssad, pki):
    """As a blocking connect(2) does behind a non-blocking one."""
    with served(pki, 0) as listener, ssa.socket() as sock:
        address = ("localhost", listener.getsockname()[1])
        begin(sock, address)
        assert sock.connect_ex(address) in (0, errno.EALREADY)
        sock.settimeout(10)
        assert sock.connect_ex(address) in (0, errno.EISCONN)
        echoes(sock, listener)


def test_to_wait_in_vain_for_one_that_was_begun_without(ssad):
    stop = threading.Event()
    with peers.script(lambda _: stop.wait(20)) as port, ssa.socket() as sock:
        begin(sock, ("localhost", port))
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.connect(("localhost", port))
        stop.set()


def test_epoll_sees_the_second_try_too(ssad, pki):
    port = peers.free_port()
    with ssa.socket() as sock, select.epoll() as epoll:
        sock.setblocking(False)
        epoll.register(sock, select.EPOLLOUT)
        begin(sock, ("localhost", port))
        assert epoll.poll(10)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
        with served(pki, port) as listener:
            begin(sock, ("localhost", port))
            assert epoll.poll(10) == [(sock.fileno(), select.EPOLLOUT)]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            echoes(sock, listener)


def test_the_options_of_the_socket_stay(ssad, pki):
    port = peers.free_port()
    with ssa.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(("127.0.0.3", 0))
        begin(sock, ("localhost", port))
        assert by_so_error(sock, None) == errno.ECONNREFUSED
        with served(pki, port) as listener:
            begin(sock, ("localhost", port))
            assert by_so_error(sock, None) == 0
            assert sock.getsockname()[0] == "127.0.0.3"
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            echoes(sock, listener)
