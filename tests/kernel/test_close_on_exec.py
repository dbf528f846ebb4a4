"""Every descriptor that the library or the daemon makes or receives is close-on-exec: no child of theirs gets one."""

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

import ssa
from tests.peers import settled

IPPROTO = ssa.IPPROTO_TLS
CLOEXEC = 0o2000000  # O_CLOEXEC as fdinfo shows it (proc(5))


@pytest.fixture
def ssad(either):
    """All that is said here holds on both data paths."""
    return either


@pytest.fixture
def silent():
    """The address of a server that never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


@pytest.fixture
def listener(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        yield listener


def what_a_child_has():
    """The open files of a child that is started without closing any, besides its standard ones."""
    listing = subprocess.run(
        ["ls", "-l", "/proc/self/fd"], close_fds=False, stdin=subprocess.DEVNULL, capture_output=True, check=True
    ).stdout.decode()
    links = [line.partition(" -> ") for line in listing.splitlines() if " -> " in line]
    return {link for name, _, link in links if int(name.split()[-1]) > 2 and not link.startswith("/proc/")}


def inheritable_of(pids):
    """The descriptors of some processes that are not close-on-exec."""
    return {(pid, fd): link for pid in pids for fd, link in inheritable(pid).items()}


def inheritable(pid):
    """The descriptors of a process that are not close-on-exec, besides its standard ones."""
    found = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            flags = entry.read_text().split("flags:")[1].split()[0]
            if int(entry.name) > 2 and not int(flags, 8) & CLOEXEC:
                found[int(entry.name)] = os.readlink(f"/proc/{pid}/fd/{entry.name}")
    return found


def connecting(silent, listener, pki):
    with ssa.socket() as sock:
        sock.setblocking(False)
        sock.connect_ex(silent)
        yield
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 115  # EINPROGRESS: in the middle of it


def waiting_for_a_handshake(silent, listener, pki):
    sock = ssa.socket()
    sock.settimeout(5)
    thread = threading.Thread(target=sock.connect_ex, args=(silent,))
    thread.start()
    time.sleep(0.2)
    yield
    assert thread.is_alive()
    sock.settimeout(0)
    thread.join()
    sock.close()


def upgrading(silent, listener, pki):
    plain = socket.create_connection(silent)
    plain.setblocking(False)
    with ssa.upgrade(plain, server_hostname="localhost"):
        yield


def upgrading_in_a_loop(silent, listener, pki):
    from ssa.library.api import upgradable

    plain = socket.create_connection(silent)
    with upgradable(plain, "localhost", None, None, None, None) as sock, sock.begin_upgrade(server_side=False):
        yield


def connected(silent, listener, pki):
    with ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10) as client:
        with listener.accept()[0] as server:
            client.sendall(b"hello")
            assert server.recv(5) == b"hello"
            yield
        assert client.recv(5) == b""
        yield


def twins(silent, listener, pki):
    with (
        ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10) as client,
        client.dup(),
        listener.dup(),
        listener.accept()[0] as server,
        server.makefile("rwb"),
        server.dup(),
    ):
        yield


def bare(silent, listener, pki):
    fd = ssa.connect_tls("localhost", listener.getsockname()[1], timeout=10)
    with listener.accept()[0]:
        yield
    ssa.close(fd)


def ready_to_be_accepted(silent, listener, pki):
    with ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10):
        yield
        listener.accept()[0].close()


def from_elsewhere(silent, listener, pki):
    with ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10) as client:
        listener.accept()[0].close()
        with ssa.socket(fileno=client.detach()):
            yield


def told(silent, listener, pki):
    with ssa.socket() as sock:
        for option, file in ((ssa.TLS_CERTIFICATE_CHAIN, pki.cert), (ssa.TLS_PRIVATE_KEY, pki.key)):
            sock.setsockopt(IPPROTO, option, os.fsencode(file))
        sock.setsockopt(IPPROTO, ssa.TLS_TRUSTED_PEER_CERTIFICATES, Path(pki.ca).read_bytes())
        yield


def datagrams(pki):
    options = {"type": socket.SOCK_DGRAM, "certificate": pki.cert, "private_key": pki.key}
    with ssa.create_server(("127.0.0.1", 0), **options) as server, ssa.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(10)
        server.settimeout(10)
        client.connect(("localhost", server.getsockname()[1]))
        with server.accept()[0] as accepted:
            client.send(b"hello")
            accepted.settimeout(10)
            assert accepted.recv(5) == b"hello"
            yield


def datagrams_of_all(pki):
    with ssa.socket(type=socket.SOCK_DGRAM) as server, ssa.socket(type=socket.SOCK_DGRAM) as client:
        server.tell(certificates=pki.cert, keys=pki.key)
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.recv(1)
        client.settimeout(10)
        client.connect(("localhost", server.getsockname()[1]))
        yield


OPERATIONS = [
    connecting,
    waiting_for_a_handshake,
    upgrading,
    upgrading_in_a_loop,
    connected,
    twins,
    bare,
    ready_to_be_accepted,
    from_elsewhere,
    told,
]


def check(daemon, middle):
    pids = daemon.processes()
    before, mine, of_ssad = what_a_child_has(), inheritable(os.getpid()), inheritable_of(pids)
    for _ in middle:
        assert what_a_child_has() <= before
        assert inheritable(os.getpid()) == mine
        assert inheritable_of(pids) == of_ssad


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_a_child_in_the_middle_of_it_gets_nothing(ssad, silent, listener, pki, operation):
    check(ssad, operation(silent, listener, pki))


@pytest.mark.parametrize("operation", [datagrams, datagrams_of_all], ids=lambda operation: operation.__name__)
def test_nor_does_it_with_datagrams(cleaned, pki, operation):
    check(cleaned, operation(pki))


def test_at_no_moment_is_one_inheritable(ssad, listener, pki):
    """A descriptor that becomes close-on-exec a moment later goes to the child of another thread's in between."""
    pids = ssad.processes()
    mine, of_ssad, found, ended = inheritable(os.getpid()), inheritable_of(pids), [], threading.Event()

    def look():
        while not ended.is_set():
            now = inheritable(os.getpid())
            found.extend(link for fd, link in now.items() if fd not in mine)
            now = inheritable_of(pids)
            found.extend(link for fd, link in now.items() if fd not in of_ssad)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(20):
            for _ in connected(None, listener, pki):
                pass
            for _ in bare(None, listener, pki):
                pass
    finally:
        ended.set()
        looking.join()
    assert found == []
    assert settled(lambda: ssad.sockets() == [])
