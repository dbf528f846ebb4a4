"""KeyUpdate in both directions, and how long a key serves; where the kernel cannot change keys, that it is told."""

import contextlib
import errno
import hashlib
import os
import resource
import select
import socket
import subprocess
import threading
import time

import pytest

import ssa
from ssa.ktls.rekey import key_update
from ssa.library import connection, key_lifetime
from ssa.suites import AEADS, TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, HANDSHAKE
from tests import peers
from tests.interop import raw as peer

TLS12, TLS13 = TLSVersion


@pytest.fixture(params=peer.KINDS)
def ends(request, ssad, pki):
    """Ours, and the raw peer's."""
    with peer.KINDS[request.param](pki, TLS13) as pair:
        yield pair


def readable(sock, milliseconds=2000):
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return bool(poll.poll(milliseconds))


@contextlib.contextmanager
def no_rekey():
    """What a kernel without rekeying makes of it."""
    with pytest.raises(ssa.SSAError) as caught:
        yield
    assert (caught.value.reason, caught.value.errno) == ("NO_REKEY", errno.EPROTONOSUPPORT)


def read_exactly(sock, size, *, poll=False):
    received = b""
    while len(received) < size:
        if poll:
            assert readable(sock), f"poll hides what follows {received!r}"
        received += sock.recv(100)
    return received


@pytest.mark.parametrize("poll", [False, True], ids=["recv", "poll, recv"])
def test_the_peers_updates_one_after_the_other(ends, capabilities, poll):
    ours, raw = ends
    raw.send(raw.seal(b"one"), raw.key_update(), raw.seal(b"two"), raw.key_update(), raw.key_update(), raw.seal(b"six"))
    if not capabilities.rekey:
        assert read_exactly(ours, 3, poll=poll) == b"one"
        for _ in range(3):
            assert readable(ours)
            with no_rekey():
                ours.recv(100)
        return
    assert read_exactly(ours, 9, poll=poll) == b"onetwosix"
    raw.send(raw.key_update())
    raw.send(raw.seal(b"", padding=3))
    raw.send(raw.seal(b"\1\0", ALERT))
    if poll:
        assert readable(ours)
    assert ours.recv(100) == b""


@pytest.mark.parametrize("timeout", [None, 10, 0])
@pytest.mark.parametrize("poll", [False, True], ids=["recv", "poll, recv"])
def test_answers_go_before_the_next_data(ends, capabilities, timeout, poll):
    ours, raw = ends
    if isinstance(ours, ssa.TLSSocket):
        ours.settimeout(timeout)
    else:
        os.set_blocking(ours.fd, timeout != 0)
    poll = poll or timeout == 0
    if not capabilities.rekey:
        raw.send(raw.key_update(requested=True))
        for _ in range(2):
            assert readable(ours)
            with no_rekey():
                ours.recv(100)
        ours.sendall(b"still")
        assert raw.read_data() == b"still"
        return
    for number in range(10):
        raw.send(raw.seal(b"before"), raw.key_update(requested=True))
        if number % 3 == 0:
            raw.send(raw.key_update(requested=True))  # one answer is enough (RFC 8446 section 4.6.3)
        raw.send(raw.seal(b"behind"))
        assert read_exactly(ours, 12, poll=poll) == b"beforebehind"
        ours.sendall(b"answer %d" % number)
        kind, content = raw.read()
        while number == 0 and content[:1] == b"\x04":
            kind, content = raw.read()  # tickets of the accepted
        assert (kind, content) == (HANDSHAKE, key_update(requested=False))
        assert raw.read() == (APPLICATION_DATA, b"answer %d" % number)


def fill(ours):
    """Send until there is no room, and there comes none for a while; how many bytes."""
    with socket.socket(fileno=os.dup(ours.fileno())) as twin:
        twin.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # and the kernel shall not think better of it
        twin.setblocking(False)
    sent = before = 0
    while not sent or sent > before:
        before = sent
        with contextlib.suppress(BlockingIOError):
            while True:
                sent += ours.send(bytes(1 << 14))
        time.sleep(0.1)
    return sent


def test_an_answer_that_finds_no_room(ends, capabilities):
    """EAGAIN, as for data, and all goes on when there is room."""
    ours, raw = ends
    os.set_blocking(ours.fileno(), False)
    if isinstance(ours, ssa.TLSSocket):
        ours.settimeout(0)
    raw.send(raw.seal(b"first"))
    assert readable(ours)
    assert ours.recv(5) == b"first"
    sent = fill(ours)
    raw.send(raw.key_update(requested=True), raw.seal(b"x"))
    assert readable(ours)
    if not capabilities.rekey:
        with no_rekey():
            ours.recv(10)
        return
    assert ours.recv(10) == b"x"
    for _ in range(2):
        with pytest.raises(BlockingIOError):
            ours.send(b"behind")
    received, behind = 0, 0
    while not behind:
        received += len(raw.read_data())
        with contextlib.suppress(BlockingIOError):
            behind = ours.send(b"behind")
    while received < sent:
        received += len(raw.read_data())
    assert received == sent
    assert raw.read_data() == b"behind"
    assert raw.updates == 1


def test_an_update_that_hides_while_no_ssad_runs(capabilities, pki, tmp_path, monkeypatch):
    """poll says that there is something, and the read says what; what came before is not lost."""
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        both = contextlib.ExitStack()
        ours, raw = both.enter_context(peer.connected(pki, TLS13))
    with both:
        raw.send(raw.seal(b"before"), raw.key_update(), raw.seal(b"behind"))
        assert ours.recv(100) == b"before"
        for _ in range(2):
            assert readable(ours)
            with pytest.raises(ConnectionRefusedError, match="no ssad"):
                ours.recv(100)


@pytest.fixture
def low_limit(monkeypatch):
    """A key of ours serves for 64 records."""
    for aead in AEADS.values():
        monkeypatch.setattr(aead, "limit", 64)
    monkeypatch.setattr(key_lifetime, "STRIDE", 16)


def expired():
    return pytest.raises(OSError, match="as many records as it may")


def send_records(ours, number):
    for count in range(number):
        ours.sendall(b"%04d" % count)


def test_our_key_is_changed_before_its_time(ends, capabilities, low_limit):
    ours, raw = ends
    if not capabilities.rekey:
        with expired() as caught:
            send_records(ours, 100)
        assert caught.value.errno == errno.EKEYEXPIRED
        with expired():
            ours.sendall(b"again")
        return
    send_records(ours, 500)
    data, updates, under_one = b"", 0, 0
    while len(data) < 2000:
        kind, content = raw.read()
        under_one += 1
        if (kind, content) == (HANDSHAKE, key_update(requested=False)):
            updates, under_one = updates + 1, 0
        elif kind == APPLICATION_DATA:
            data += content
        assert under_one < 64
    assert data == b"".join(b"%04d" % count for count in range(500))
    assert updates >= 8


@pytest.mark.parametrize("kind", peer.KINDS)
def test_a_key_of_tls12_serves_its_time(ssad, pki, kind, low_limit):
    with peer.KINDS[kind](pki, TLS12) as (ours, raw):
        with expired() as caught:
            send_records(ours, 100)
        assert caught.value.errno == errno.EKEYEXPIRED
        count = 0
        with contextlib.suppress(TimeoutError):
            raw.sock.settimeout(0.3)
            while raw.read_data():
                count += 1
        assert 32 <= count <= 64


class Openssl:
    """s_server or s_client, whose commands are lines: K and k are KeyUpdates, with an answer demanded and without."""

    def __init__(self, process):
        self.process = process

    def type(self, line):
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def wait_for(self, wanted):
        for line in self.process.stdout:
            if wanted in line:
                return
        pytest.fail(f"openssl ended without {wanted!r}")


@contextlib.contextmanager
def openssl_server(pki):
    with (
        peers.openssl(pki, "-tls1_3", stdout=subprocess.PIPE) as (port, process),
        ssa.create_connection(("localhost", port), timeout=10) as sock,
    ):
        yield sock, Openssl(process)


@contextlib.contextmanager
def openssl_client(pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        command = ["openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{listener.getsockname()[1]}"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen([*command, "-CAfile", pki.ca, "-servername", "localhost"], **pipes) as process:
            try:
                sock, _ = listener.accept()
                with sock:
                    sock.settimeout(10)
                    yield sock, Openssl(process)
            finally:
                process.kill()


@pytest.mark.parametrize("other", [openssl_server, openssl_client])
def test_openssl_on_either_side(ssad, pki, capabilities, other):
    with other(pki) as (sock, openssl):
        openssl.type(b"hello\n")
        assert sock.recv(100) == b"hello\n"
        for command in (b"k\n", b"K\n", b"K\n"):
            openssl.type(command)
            assert readable(sock)  # it takes one command at a time
            openssl.type(b"behind\n")
            if not capabilities.rekey:
                for _ in range(2):
                    with no_rekey():
                        sock.recv(100)
                break
            assert sock.recv(100) == b"behind\n"
            sock.sendall(b"answer to " + command)
            openssl.wait_for(b"answer to " + command)


@pytest.mark.parametrize("kind", peer.KINDS)
def test_one_thread_sends_while_another_reads_updates(ssad, pki, capabilities, kind):
    """Data in flight both ways; each request is answered in the midst of what is sent."""
    rounds, size = (40, 3_000_000) if capabilities.rekey else (0, 300_000)
    content = os.urandom(size // 100) * 100
    with peer.KINDS[kind](pki, TLS13) as (ours, raw):
        digest = hashlib.sha256()

        def send():
            view = memoryview(content)
            for at in range(0, size - 5000, 5000):
                ours.sendall(view[at : at + 5000])

        def read_at_the_peer():
            left = size
            while left:
                record, data = raw.read()
                if record == APPLICATION_DATA:
                    digest.update(data)
                    left -= len(data)

        def speak():
            for number in range(rounds):
                raw.send(raw.seal(b"%04d" % number), raw.key_update(requested=True), raw.seal(b"."))
                time.sleep(0.005)
            raw.send(raw.seal(b"\1\0", ALERT))

        threads = [threading.Thread(target=run, daemon=True) for run in (send, read_at_the_peer, speak)]
        for thread in threads:
            thread.start()
        received = b""
        while data := ours.recv(1000):
            received += data
        threads[0].join(60)
        ours.sendall(content[-5000:])  # whoever was faster: the last request is answered here at the latest
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
    assert received == b"".join(b"%04d." % number for number in range(rounds))
    assert digest.digest() == hashlib.sha256(content).digest()
    assert raw.updates >= min(rounds, 1)


def test_who_blocks_in_a_send_keeps_nobody_else_from_changing_keys(ssad, pki, capabilities):
    """The kernel makes the daemon's KeyUpdate wait for a send that is under way: here for ever."""
    if not capabilities.rekey:
        return
    with contextlib.ExitStack() as both:
        stuck = [both.enter_context(peer.connected(pki, TLS13)) for _ in range(3)]
        threads = []
        for ours, _ in stuck:
            ours.settimeout(None)
            fd = ours.fileno()
            threads += [
                threading.Thread(target=block, args=(fd,), daemon=True),
                threading.Thread(target=ask_again_and_again, args=(ours,), daemon=True),
            ]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        with peer.connected(pki, TLS13) as (ours, raw):
            raw.send(raw.key_update(requested=True), raw.seal(b"behind"))
            assert ours.recv(100) == b"behind"
            ours.sendall(b"answer")
            assert raw.read() == (HANDSHAKE, key_update(requested=False))
            assert raw.read() == (APPLICATION_DATA, b"answer")
        for _, raw in stuck:
            raw.sock.close()
        for thread in threads:
            thread.join(20)


def block(fd):
    with contextlib.suppress(OSError):
        os.write(fd, bytes(1 << 26))


def ask_again_and_again(sock):
    with contextlib.suppress(OSError):
        connection.change_sending_key(sock)


def change_until_it_is_noticed(sock):
    for _ in range(10):
        connection.change_sending_key(sock)


def test_an_update_asked_for_where_there_is_none(ssad, pki, capabilities):
    """Another reader was faster, or the application lies: nothing happens, and nothing is logged as a fault."""
    with peer.connected(pki, TLS13) as (ours, raw):
        if capabilities.rekey:
            assert connection.serve_handshake(ours) == (False, False)
            raw.sock.close()
            assert connection.serve_handshake(ours) == (False, False)
            with pytest.raises(BrokenPipeError):
                change_until_it_is_noticed(ours)
        else:
            assert connection.serve_handshake(ours) == (False, False)
            with no_rekey():
                connection.change_sending_key(ours)
    assert "fault of ssad" not in ssad.log


@pytest.fixture
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_idle_clients_and_a_good_one(ssad, pki, many_descriptors):
    ssad.set("handshake_timeout", "60")
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(20)
        address = ("localhost", listener.getsockname()[1])

        def connect():
            began = time.monotonic()
            with ssa.create_connection(address, timeout=20) as client:
                accepted, _ = listener.accept()
                with accepted:
                    client.sendall(b"good")
                    assert accepted.recv(10) == b"good"
            return time.monotonic() - began

        alone = min(connect() for _ in range(5))
        idle = []
        try:
            idle.extend(socket.create_connection(("127.0.0.1", address[1]), timeout=20) for _ in range(1000))
            crowded = min(connect() for _ in range(5))
        finally:
            for sock in idle:
                sock.close()
    assert crowded < 5 * alone + 0.1


def test_who_stalls_in_mid_handshake_is_dropped(ssad, pki):
    ssad.set("handshake_timeout", "1")
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        began = time.monotonic()
        for start in (b"", b"\x16\3\1\0\x50\1", b"\x16"):
            with socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=10) as stalled:
                stalled.sendall(start)
                stalled.shutdown(socket.SHUT_WR) if not start else None
                with contextlib.suppress(ConnectionResetError):
                    while stalled.recv(100):
                        pass
        assert time.monotonic() - began < 8
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
