"""What an application may pass and do, and the others are served on. No kernel TLS is needed."""

import contextlib
import fcntl
import mmap
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import ssa
from ssa import errors, wire
from tests import peers
from tests.peers import Daemon
from tests.unit import trust_factory

GOOD = wire.pack(wire.Connect("localhost"))


@pytest.fixture(scope="module")
def ssad(tmp_path_factory):
    with Daemon(tmp_path_factory.mktemp("ssad")) as daemon:
        yield daemon


def connection(ssad):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(5)
    sock.connect(str(ssad.run_dir / "ssad.sock"))
    return sock


def served(ssad):
    """Whether somebody else is answered, and how soon."""
    began = time.monotonic()
    with connection(ssad) as other:
        other.send(b"junk")
        assert wire.parse_untrusted(other.recv(65536), wire.Reply).reason == "BAD_REQUEST"
    return time.monotonic() - began < 2


SENDER = """
import os, socket, struct, sys
path, port, packet, copies, repeat = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), *map(int, sys.argv[4:])
sock = socket.create_connection(("127.0.0.1", port))
sock.setblocking(False)
try:
    while True:
        sock.send(bytes(65536))
except BlockingIOError:
    pass
sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
daemon.connect(path)
for _ in range(repeat):
    socket.send_fds(daemon, [packet], [sock.fileno()] * copies)
os._exit(0)  # the daemon holds the last copies now
"""


@pytest.mark.parametrize(("packet", "copies", "repeat"), [(GOOD, 1, 1), (GOOD, 9, 1), (b"junk", 1, 1), (GOOD, 1, 5)])
def test_the_last_copy_of_a_socket_that_takes_long_to_close(ssad, packet, copies, repeat):
    with socket.create_server(("127.0.0.1", 0)) as server:
        arguments = (ssad.run_dir / "ssad.sock", server.getsockname()[1], packet.hex(), copies, repeat)
        sender = subprocess.Popen([sys.executable, "-c", SENDER, *map(str, arguments)])
        peer, _ = server.accept()
        with peer:
            assert sender.wait(30) == 0
            for _ in range(3):
                assert served(ssad)


def stuck(linger=20):
    """A socket whose last close waits for its peer, and what keeps it so."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
    return sock, peer


def test_a_unix_socket_with_such_a_one_in_its_queue(ssad):
    sock, peer = stuck()
    end, other = socket.socketpair()
    with peer:
        with sock, end, other, connection(ssad) as application:
            os.kill(ssad.process.pid, signal.SIGSTOP)  # until it holds the last copies
            socket.send_fds(end, [b"x"], [sock.fileno()])
            socket.send_fds(application, [GOOD], [other.fileno()])
        os.kill(ssad.process.pid, signal.SIGCONT)
        for _ in range(3):
            assert served(ssad)


TOGGLER = """
import fcntl, os, sys
flags = fcntl.fcntl(0, fcntl.F_GETFL) & ~os.O_NONBLOCK
print(flush=True)
while True:
    fcntl.fcntl(0, fcntl.F_SETFL, flags)
"""


def test_a_listener_that_is_made_to_block(ssad, pki, monkeypatch):
    for name, value in ssad.environment.items():
        monkeypatch.setenv(name, value)
    with ssa.create_server(("127.0.0.1", 0), certificate=str(pki.cert), private_key=str(pki.key)) as server:
        tcp = server._aside.dup()
        address = server.getsockname()
        toggler = subprocess.Popen([sys.executable, "-c", TOGGLER], stdin=tcp, stdout=subprocess.PIPE)
        try:
            toggler.stdout.readline()
            for _ in range(100):
                socket.create_connection(address, timeout=5).close()
                assert served(ssad)
        finally:
            toggler.kill()
            toggler.communicate()
        fcntl.fcntl(tcp, fcntl.F_SETFL, os.O_NONBLOCK)
        for _ in range(2):  # for a thread that waits still
            socket.create_connection(address, timeout=5).close()
        tcp.close()


@contextlib.contextmanager
def unreadable(directory):
    """Memory that keeps whoever touches it waiting, until the end of the block; and a wait for somebody to do so."""
    directory.mkdir()
    server = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("unreadable.py"), directory], stdout=subprocess.PIPE
    )
    try:
        assert server.stdout.readline() == b"ready\n"
        with (directory / "page").open("rb") as file:
            memory = mmap.mmap(file.fileno(), 4096, prot=mmap.PROT_READ)
        yield memory, server.stdout.readline
    finally:
        server.kill()
        server.communicate()
        subprocess.run(["umount", "--lazy", directory], check=True)


def test_a_relayed_socket_that_is_made_to_wait(pki, monkeypatch):
    """Its user waits; the daemon and the other users do not, nor does a successor of the daemon."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as held:
        Path(name).chmod(0o755)  # for the other user
        policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
        daemon = held.enter_context(Daemon(Path(name), policy=policy))
        for variable, value in daemon.environment.items():
            monkeypatch.setenv(variable, value)
        port, _ = held.enter_context(peers.openssl(pki, "-rev"))
        another, _ = held.enter_context(peers.openssl(pki, "-rev"))
        memory, somebody_touched_it = held.enter_context(unreadable(Path(name) / "unreadable"))
        mine = held.enter_context(ssa.create_connection(("localhost", port), timeout=10))
        mine.sendall(b"abc\n")
        assert mine.recv(4) == b"cba\n"
        sender = threading.Thread(target=send_quietly, args=(mine._aside, memory))
        sender.start()
        assert somebody_touched_it() == b"asked\n"  # with the socket locked, in tcp_sendmsg
        mine.sendall(b"abc\n")
        mine.settimeout(0.5)
        with pytest.raises(TimeoutError):
            mine.recv(4)
        for _ in range(3):
            assert served(daemon)
        number = daemon.sockets()[0]
        assert int(daemon.get(f"sockets/{number}/bytes_sent")) > 100
        assert exit_status_as(65534, lambda: echo(another)) == 0
        before = daemon.process
        before.terminate()
        # This one has a thread in the kernel that cannot end.
        assert peers.settled(lambda: "another ssad" not in successor(daemon))
        assert before.poll() is None
        assert exit_status_as(65534, lambda: echo(another)) == 0
        assert sender.is_alive()
    sender.join(10)
    assert not sender.is_alive()
    assert before.wait(10) == 0


def successor(daemon):
    """Start one; what it says if it cannot."""
    try:
        daemon.start()
    except RuntimeError as exc:
        return str(exc).splitlines()[-1]
    return ""


def send_quietly(sock, data):
    with contextlib.suppress(OSError):  # the memory can't be read
        sock.send(data)


def echo(port):
    with ssa.create_connection(("localhost", port), timeout=10) as sock:
        sock.sendall(b"abc\n")
        assert sock.recv(4) == b"cba\n"


def exit_status_as(uid, action):
    """A child process of that user does it."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            action()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_trust_anchors_by_the_thousand(ssad):
    """They are read once, while others are served, and kept by their content."""
    own = trust_factory.key()
    one = trust_factory.root("Anchor 0", key_=own).pem
    many = [trust_factory.root(f"Anchor {number}", key_=own).pem for number in range((4 << 20) // len(one) - 300)]
    with contextlib.ExitStack() as files, connection(ssad) as application:
        fds = [files.enter_context(open(os.memfd_create("anchors"), "wb", buffering=0)) for _ in range(2)]
        fds[0].write(b"".join(many))
        fds[1].write(one * 200)
        took = []
        for count, reason in ((1, None), (1, None), (2, "BAD_VALUE")):
            began = time.monotonic()
            packet = wire.pack(wire.Check(trusted=count))
            socket.send_fds(application, [packet], [file.fileno() for file in fds[:count]])
            assert served(ssad)
            assert wire.parse_untrusted(application.recv(65536), wire.Reply).reason == reason
            took.append(time.monotonic() - began)
        assert took[0] < 5
        assert took[1] < took[0] / 3


def test_what_applications_send_forges_no_log(ssad):
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        for name in ("evil\n2026-01-01T00:00:00.000Z ssad info: forged", "\x1b[2Jevil", "x" * 60_000):
            with connection(ssad) as application:
                socket.send_fds(application, [wire.pack(wire.Connect(name))], [sock.fileno()])
                reply = wire.parse_untrusted(application.recv(65536), wire.Reply)
                assert reply.reason == "BAD_VALUE"
    assert not any(line.endswith("ssad info: forged") for line in ssad.log.splitlines())
    assert "\x1b" not in ssad.log
    assert max(map(len, ssad.log.splitlines())) < 2000


def test_an_application_that_never_reads_its_replies(ssad):
    with connection(ssad) as application:
        application.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                application.send(b"junk")
        assert served(ssad)


def test_errors_quote_nothing_that_a_terminal_acts_on():
    exc = errors.error("BAD_VALUE", "a\x1b[31mb\n" + "c" * 5000)
    assert "\x1b" not in str(exc)
    assert "\n" not in str(exc)
    assert len(str(exc)) < 1200
