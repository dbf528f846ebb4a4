"""What an application may pass and do, and the others are served on. No kernel TLS is needed."""

import contextlib
import fcntl
import mmap
import os
import select
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import ssa
from ssa import errors
from ssa.protocol import wire
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
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.bind(("127.0.0.1", 0))
        server.listen()
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
    return sock, peer


def pass_on(daemon, application, packet, sock):
    """Have the daemon hold the last copy of a socket. Ours is closed while the daemon cannot close its own."""
    with daemon.stopped():
        socket.send_fds(application, [packet], [sock.fileno()])
        sock.close()


def test_a_unix_socket_with_such_a_one_in_its_queue(ssad):
    sock, peer = stuck()
    end, other = socket.socketpair()
    with peer:
        with ssad.stopped(), sock, end, other, connection(ssad) as application:  # until it holds the last copies
            socket.send_fds(end, [b"x"], [sock.fileno()])
            socket.send_fds(application, [GOOD], [other.fileno()])
        for _ in range(3):
            assert served(ssad)


def processor_time(daemon):
    """Seconds of a processor that a daemon has used up."""
    return daemon.cpu()


def test_listening_sockets_that_listen_no_more(ssad, pki):
    before = ssad.descriptors()
    with contextlib.ExitStack() as held:
        applications = []
        for _ in range(40):
            tcp = held.enter_context(socket.create_server(("127.0.0.1", 0)))
            applications.append(held.enter_context(connection(ssad)))
            with pki.cert.open() as certificate, pki.key.open() as key:
                passed = [tcp.fileno(), certificate.fileno(), key.fileno()]
                socket.send_fds(applications[-1], [wire.pack(wire.Listen(certificates=1, keys=1))], passed)
            assert wire.parse_untrusted(applications[-1].recv(65536), wire.Reply).reason is None
            tcp.shutdown(socket.SHUT_RDWR)
        for application in applications:
            assert application.recv(1) == b""  # as when the daemon ends
        used = processor_time(ssad)
        time.sleep(1)
        assert processor_time(ssad) - used < 0.1
        assert peers.settled(lambda: ssad.descriptors() <= before)


def test_a_listener_of_the_library_that_is_shut_down(ssad, pki, monkeypatch):
    for name, value in ssad.environment.items():
        monkeypatch.setenv(name, value)
    with ssa.create_server(("127.0.0.1", 0), certificate=str(pki.cert), private_key=str(pki.key)) as server:
        server.settimeout(5)
        server._held.shutdown(socket.SHUT_RDWR)
        with pytest.raises(OSError) as caught:
            server.accept()
        assert not isinstance(caught.value, TimeoutError)


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
        tcp = server._held.dup()
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
        sender = threading.Thread(target=send_quietly, args=(mine._held, memory))
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
        # Its worker has a thread in the kernel that cannot end.
        assert peers.settled(lambda: "another ssad" not in successor(daemon))
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
        fds[1].write(one * 400)
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


# --- descriptors: whose they are, and how many ---------------------------------------------------------------------

OTHER = 65534  # a user


def as_user(uid, action):
    """A child process of that user does something, and waits; it is killed at the end of the block."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            action()
            os.write(writing, b"done")
            time.sleep(60)
        finally:
            os._exit(1)
    os.close(writing)
    return child, reading


@contextlib.contextmanager
def attack(action, uid=OTHER):
    child, reading = as_user(uid, action)
    try:
        yield reading
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextlib.contextmanager
def small(directory, limit, policy=""):
    """A daemon whose table of descriptors has that many places."""
    directory.chmod(0o755)
    with Daemon(directory, policy=policy, descriptors=limit) as daemon:
        yield daemon


@pytest.fixture
def place():
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def table(daemon):
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in daemon.processes())


def flood(daemon, *, lingering, copies, connections=200):
    """Sockets that take long to close, then connections with as many descriptors as a packet can have."""

    def act():
        held = []
        for _ in range(lingering):
            sock, peer = stuck(linger=1)
            held.append(peer)
            with contextlib.suppress(OSError), connection(daemon) as application:
                socket.send_fds(application, [GOOD], [sock.fileno()])
            sock.close()
        for _ in range(connections):
            with contextlib.suppress(OSError):
                application = connection(daemon)
                held.append(application)
                socket.send_fds(application, [GOOD], [0] * copies)

    return act


@pytest.mark.parametrize("limit", [64, 1024])
def test_a_user_cannot_fill_the_table(place, limit):
    with small(place, limit) as daemon, attack(flood(daemon, lingering=70, copies=250)) as done:
        most = 0
        while not select.select([done], [], [], 0.01)[0]:
            most = max(most, table(daemon))
            assert served(daemon)
        assert os.read(done, 4) == b"done"
        for _ in range(10):
            most = max(most, table(daemon))
            assert served(daemon)
        assert most < limit * 3 // 4


def test_who_has_too_many_is_told_so(ssad, place):
    def crowd():
        with contextlib.ExitStack() as held:
            applications = [held.enter_context(connection(daemon)) for _ in range(60)]
            for application in applications:
                with contextlib.suppress(OSError):
                    socket.send_fds(application, [GOOD], [0] * 4)
            replies = []
            for application in applications:
                application.settimeout(0.2)
                with contextlib.suppress(TimeoutError):
                    replies.append(wire.parse_untrusted(application.recv(65536), wire.Reply))
            assert "OVERLOADED" in {reply.reason for reply in replies}
            for reply in replies:
                assert reply.reason in {"OVERLOADED", "NOT_TCP"}
                assert "too long" not in (reply.detail or "")
            assert any(f"uid {OTHER} has " in (reply.detail or "") for reply in replies)

    with small(place, 64) as daemon:
        assert exit_status_as(OTHER, crowd) == 0
        assert served(daemon)


def test_a_packet_of_more_descriptors_than_there_are_is_told_so(place):
    def ask():
        with connection(daemon) as application:
            socket.send_fds(application, [GOOD], [0] * 250)
            reply = wire.parse_untrusted(application.recv(65536), wire.Reply)
            assert reply.reason == "OVERLOADED"
            assert "descriptors" in reply.detail
            application.send(b"junk")
            assert wire.parse_untrusted(application.recv(65536), wire.Reply).reason == "BAD_REQUEST"

    with small(place, 64) as daemon:
        assert exit_status_as(OTHER, ask) == 0
        assert exit_status_as(0, ask) == 0


def test_a_refused_library_hears_why(place, monkeypatch):
    def ask():
        with contextlib.ExitStack() as held:
            while True:
                application = held.enter_context(connection(daemon))
                with contextlib.suppress(TimeoutError):
                    application.settimeout(0.05)
                    if application.recv(65536):
                        break
            with socket.create_server(("127.0.0.1", 0)) as server:
                for _ in range(20):
                    with pytest.raises(errors.SSAError) as caught:
                        ssa.connect_tls(*server.getsockname())
                    assert caught.value.reason == "OVERLOADED"

    with small(place, 64) as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        assert exit_status_as(OTHER, ask) == 0


def test_connections_that_nobody_accepts_are_counted(place, pki, monkeypatch):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    for file in (pki.ca, pki.cert, pki.key):
        file.chmod(0o644)
    ports = [peers.free_port() for _ in range(2)]

    def listen():
        for port in ports:
            server = ssa.create_server(("127.0.0.1", port), certificate=str(cert), private_key=str(key), backlog=4096)
            kept.append(server)

    kept = []
    with small(place, 256, policy) as daemon, contextlib.ExitStack() as held:
        cert, key = (shutil.copy(file, place) for file in (pki.cert, pki.key))
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        done = held.enter_context(attack(listen))
        assert os.read(done, 4) == b"done"
        context = ssl.create_default_context(cafile=str(pki.ca))
        for number in range(120):
            sock = socket.create_connection(("127.0.0.1", ports[number % 2]), timeout=1)
            held.enter_context(sock)
            with contextlib.suppress(OSError):
                held.enter_context(context.wrap_socket(sock, server_hostname="localhost"))
            assert table(daemon) < 192
        assert served(daemon)
        echoing, _ = held.enter_context(peers.openssl(pki, "-rev"))
        assert exit_status_as(1234, lambda: echo(echoing)) == 0


# --- nothing of theirs is closed where others wait for it ------------------------------------------------------------

CARRIERS = {
    "an empty packet": (b"", 1),
    "behind an empty packet": (b"", 2),
    "a listener that is none": (wire.pack(wire.Listen()), 1),
    "of no use": (wire.pack(wire.Describe()), 1),
    "a plug": (wire.pack(wire.Plug(b"")), 1),
    "files": (wire.pack(wire.Check(trusted=1)), 1),
}


@pytest.mark.parametrize("how", CARRIERS)
def test_whatever_a_lingering_socket_comes_with(ssad, how):
    packet, packets = CARRIERS[how]
    sock, peer = stuck()
    with peer:
        with connection(ssad) as application:
            for _ in range(packets - 1):
                application.send(packet)
            pass_on(ssad, application, packet, sock)
        for _ in range(3):
            assert served(ssad)


@pytest.mark.parametrize("relayed", ["a stream", "datagrams"])
def test_a_lingering_socket_in_a_relayed_one(place, pki, monkeypatch, relayed):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with Daemon(place, policy=policy) as daemon, contextlib.ExitStack() as held:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        arguments = () if relayed == "a stream" else ("-dtls1_2",)
        port, _ = held.enter_context(openssl_on_udp(pki) if arguments else peers.openssl(pki, "-rev"))
        kind = socket.SOCK_DGRAM if arguments else socket.SOCK_STREAM
        mine = held.enter_context(ssa.socket(socket.AF_INET, kind))
        mine.settimeout(10)
        mine.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REMOTE_HOSTNAME, b"localhost")
        mine.connect(("127.0.0.1", port))
        sock, peer = stuck()
        held.enter_context(peer)
        with socket.socket(fileno=os.dup(mine.fileno())) as pair:
            pass_on(daemon, pair, b"abc\n", sock)
        for _ in range(3):
            assert served(daemon)
        began = time.monotonic()
        daemon.process.terminate()
        assert daemon.process.wait(10) == 0
        assert time.monotonic() - began < 3


@contextlib.contextmanager
def openssl_on_udp(pki):
    port = peers.free_port()
    command = ("openssl", "s_server", "-dtls1_2", "-port", port, "-cert", pki.cert, "-key", pki.key, "-quiet")
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

    def bound(number):
        return f":{number:04X} " in Path("/proc/net/udp").read_text() + Path("/proc/net/udp6").read_text()

    with peers.program(*command, port=port, ready=bound, **options) as process:
        yield port, process


def test_a_signal_ends_it_while_sockets_linger(place):
    with Daemon(place) as daemon:
        held = []
        for packet in (GOOD, b"", wire.pack(wire.Listen())):
            for _ in range(20):
                sock, peer = stuck()
                held.append(peer)
                with connection(daemon) as application:
                    pass_on(daemon, application, packet, sock)
        began = time.monotonic()
        daemon.process.terminate()
        assert daemon.process.wait(30) == 0
        assert time.monotonic() - began < 3
        for peer in held:
            peer.close()
