"""A socket that nobody has any more is closed at once, as `socket.socket` is: with Python's collector off.

Whatever it went through before: a cycle through a frame, an exception or an error that it keeps would hold it open.
"""

import contextlib
import errno
import gc
import io
import os
import select
import socket
import struct
import warnings
import weakref

import pytest

import ssa
from ssa.ktls.constants import SOL_TLS, TLS_SET_RECORD_TYPE
from ssa.library.fdswap import Borrowed
from ssa.tls import ALERT, HANDSHAKE
from tests import peers

IPPROTO = ssa.IPPROTO_TLS
TICKET = b"\x04\x00\x00\x0c" + bytes(12)

by_the_kernel = pytest.mark.parametrize("either", ["ktls"], indirect=True)


@pytest.fixture
def ssad(either):
    """All that is said here holds on both data paths."""
    return either


@pytest.fixture(autouse=True)
def no_collector():
    gc.collect()
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # that they are not closed is what this is about
        yield
    gc.enable()


@pytest.fixture
def listener(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def pair(listener):
    """The one that is dropped, in a list of its own so that nobody else has it; and its peer."""
    dropped = [ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10)]
    with listener.accept()[0] as peer:
        peer.settimeout(10)
        yield dropped, peer


def quietly(call):
    """The number of the error that it raises, or what it gives."""
    try:
        return call()
    except OSError as exc:
        return exc.errno


def gone(dropped):
    """Whether the last reference was the last."""
    fd, ref = dropped[0].fileno(), weakref.ref(dropped[0])
    inode = os.fstat(fd).st_ino if fd >= 0 else None
    dropped.clear()
    if inode is not None:
        with contextlib.suppress(OSError):
            assert os.fstat(fd).st_ino != inode, "the descriptor is open still"
    return ref() is None


def record(sock, kind, content):
    with Borrowed(sock.fileno()) as plain:
        plain.sendmsg([content], [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([kind]))])


def readable(sock):
    assert select.select([sock], [], [], 10)[0]


def by_recv(sock):
    return sock.recv(10)


def by_recv_into(sock):
    return sock.recv_into(bytearray(10))


def by_recvmsg_into(sock):
    return sock.recvmsg_into([bytearray(5), memoryview(bytearray(5))])


def by_a_file(sock):
    return sock.makefile("rb").read(1)


READS = pytest.mark.parametrize(
    "read", [by_recv, by_recv_into, by_recvmsg_into, by_a_file], ids=lambda way: way.__name__
)


@READS
@by_the_kernel
def test_behind_a_ticket(pair, read):
    dropped, peer = pair
    record(peer, HANDSHAKE, TICKET)
    peer.sendall(b"data")
    read(dropped[0])
    assert gone(dropped)


@READS
@by_the_kernel
def test_behind_a_ticket_and_nothing(pair, read):
    dropped, peer = pair
    dropped[0].settimeout(0.1)
    record(peer, HANDSHAKE, TICKET)
    assert quietly(lambda: read(dropped[0])) is None  # a timeout
    assert gone(dropped)


@READS
@by_the_kernel
@pytest.mark.parametrize("kind", [ALERT, HANDSHAKE, 99])
def test_behind_a_record_that_is_an_error(pair, read, kind):
    dropped, peer = pair
    dropped[0].settimeout(0.5)
    record(peer, kind, bytes([2, 80, 0, 0]) if kind == HANDSHAKE else b"\x02\x50")
    for _ in range(2):
        quietly(lambda: read(dropped[0]))
    quietly(lambda: dropped[0].send(b"x"))
    assert gone(dropped)


@READS
def test_behind_the_end(pair, read):
    dropped, peer = pair
    peer.close()
    assert read(dropped[0]) in (b"", 0, (0, [], 0, None))
    assert gone(dropped)


@READS
@pytest.mark.parametrize("reset", [True, False])
def test_behind_a_cut(pair, read, reset):
    dropped, peer = pair
    if reset:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(peer.detach())
    assert quietly(lambda: read(dropped[0])) in (errno.ECONNABORTED, errno.ECONNRESET)
    for _ in range(20):
        quietly(lambda: dropped[0].sendall(bytes(10_000)))
    assert gone(dropped)


@READS
def test_behind_a_timeout(pair, read):
    dropped, _ = pair
    dropped[0].settimeout(0.05)
    quietly(lambda: read(dropped[0]))
    dropped[0].setblocking(False)
    quietly(lambda: read(dropped[0]))
    assert gone(dropped)


def test_behind_writes_that_failed(pair):
    dropped, _ = pair
    dropped[0].settimeout(0.05)
    quietly(lambda: dropped[0].sendall(bytes(10**7)))
    quietly(lambda: dropped[0].sendfile(io.BytesIO(bytes(10**7))))
    with open("/proc/self/exe", "rb") as file:
        quietly(lambda: dropped[0].sendfile(file))
    quietly(lambda: dropped[0].sendmsg([b"a"], [(1, 2, b"3")]))
    dropped[0].shutdown(socket.SHUT_WR)
    quietly(lambda: dropped[0].send(b"x"))
    assert gone(dropped)


def test_behind_options_and_twins(pair):
    dropped, _ = pair
    quietly(lambda: dropped[0].setsockopt(IPPROTO, ssa.TLS_ALPN, b"x"))
    quietly(lambda: dropped[0].getsockopt(IPPROTO, ssa.TLS_PRIVATE_KEY))
    dropped[0].getsockopt(IPPROTO, ssa.TLS_PEER_CERTIFICATE_CHAIN)
    dropped[0].dup().close()
    assert gone(dropped)


def connected(address, *, hostname=b"localhost", timeout=10.0):
    dropped = [ssa.socket()]
    dropped[0].settimeout(timeout)
    dropped[0].setsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME, hostname)
    return dropped, quietly(lambda: dropped[0].connect(address))


@pytest.mark.parametrize("timeout", [10.0, None])
def test_behind_a_connect_that_failed(listener, timeout):
    dropped, number = connected(("127.0.0.1", peers.free_port()), timeout=timeout)
    assert number == errno.ECONNREFUSED
    assert gone(dropped)
    dropped, number = connected(listener.getsockname(), hostname=b"other.test", timeout=timeout)
    assert number == errno.EKEYREJECTED
    assert quietly(lambda: dropped[0].connect(listener.getsockname())) == errno.EINVAL
    assert gone(dropped)
    with pytest.raises(ssa.CertificateError):
        ssa.create_connection(listener.getsockname(), server_hostname="other.test")


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("hostname", [b"other.test", b"refused"])
def test_behind_a_connect_under_way_that_failed(listener, told, hostname):
    address = ("127.0.0.1", peers.free_port()) if hostname == b"refused" else listener.getsockname()
    dropped, number = connected(address, hostname=hostname, timeout=0)
    assert number == errno.EINPROGRESS
    quietly(lambda: dropped[0].recv(1))
    assert select.select([], dropped, [], 10)[1]
    if told:
        assert quietly(lambda: dropped[0].connect(address)) in (errno.ECONNREFUSED, errno.EKEYREJECTED)
    quietly(lambda: dropped[0].recv(1))
    assert gone(dropped)


def test_a_listener(ssad, pki):
    dropped = [ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key)]
    dropped[0].settimeout(0.05)
    quietly(dropped[0].accept)
    dropped[0].setblocking(False)
    quietly(dropped[0].accept)
    quietly(lambda: dropped[0].recv(1))
    quietly(lambda: dropped[0].setsockopt(IPPROTO, ssa.TLS_ALPN, b"\0"))
    assert gone(dropped)


def test_an_upgrade_that_failed(ssad):
    with peers.script(lambda connection: (connection.sendall(b"220 no TLS\r\n"), connection.recv(1))) as port:
        plain = socket.create_connection(("127.0.0.1", port))
        readable(plain)
        fd, inode = plain.fileno(), os.fstat(plain.fileno()).st_ino
        assert quietly(lambda: ssa.upgrade(plain, server_hostname="localhost")) == errno.EPROTO
        with contextlib.suppress(OSError):
            assert os.fstat(fd).st_ino != inode


@pytest.mark.parametrize("either", ["relay"], indirect=True)
def test_datagrams(ssad, pki):
    with ssa.create_server(
        ("127.0.0.1", 0), type=socket.SOCK_DGRAM, certificate=pki.cert, private_key=pki.key
    ) as server:
        server.settimeout(10)
        for address, hostname in (
            (server.getsockname(), b"localhost"),
            (server.getsockname(), b"other.test"),
            (("127.0.0.1", 9), b"localhost"),
        ):
            dropped = [ssa.socket(type=socket.SOCK_DGRAM)]
            dropped[0].setsockopt(IPPROTO, ssa.TLS_REMOTE_HOSTNAME, hostname)
            dropped[0].settimeout(2)
            quietly(lambda dropped=dropped, address=address: dropped[0].connect(address))
            dropped[0].settimeout(0.05)
            quietly(lambda dropped=dropped: dropped[0].recv(1))
            quietly(lambda dropped=dropped: dropped[0].send(b""))
            assert gone(dropped)
        server.accept()[0].close()
