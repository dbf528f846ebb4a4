"""The Go package in bad luck: no ssad, one that lies, stops or dies; contexts that end at each step; no descriptors.

The programs are tests/native/go/chaos, with Go's race detector. What knows of no data path is tested once, on this
machine's own kernel: the test kernel is slow.
"""

import contextlib
import errno
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time

import pytest

from ssa.ktls.probe import probe
from tests import peers
from tests.native import golang
from tests.native.test_c_bad_luck import LIES, Liar
from tests.peers import Daemon

HOST = os.environ.get("SSA_EXPECT_KTLS") != "1"
once = pytest.mark.skipif(not HOST, reason="tested on this machine's own kernel")


@pytest.fixture(scope="session")
def chaos():
    return golang.built("chaos")


def run(program, name, environment, *, limits=(), **words):
    """What a program says, a line each."""
    environment = os.environ | {"GORACE": "halt_on_error=1"} | environment
    environment |= {key: str(value) for key, value in words.items()}
    done = subprocess.run(
        [*limits, program, name], env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0), done.stdout
    return done.stdout.splitlines()


@contextlib.contextmanager
def started(program, name, environment, *arguments, **words):
    """A program that waits for us at its lines "input"."""
    environment = os.environ | {"GORACE": "halt_on_error=1"} | environment
    environment |= {key: str(value) for key, value in words.items()}
    process = subprocess.Popen(
        [program, name, *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        bufsize=1,
    )
    with process:
        yield process
        process.stdin.close()
        assert process.wait(20) == 0


def reached(process):
    assert process.stdout.readline() == "input\n"


def go_on(process):
    process.stdin.write("\n")


def echo(tls, tcp):
    while data := tls.recv(65536):
        tls.sendall(data)
    tls.unwrap()


@pytest.fixture
def mortal(tmp_path, pki):
    """An ssad of the test's own, which relays."""
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with Daemon(tmp_path, policy=policy) as daemon:
        yield daemon


def serving(daemon, pki):
    """Give an ssad the administrator's certificate for localhost."""
    directory = daemon.mount / "credentials" / "www"
    directory.mkdir()
    (directory / "certificate").write_text(pki.cert.read_text())
    (directory / "key").write_text(pki.key.read_text())


@pytest.fixture
def administrators(running, pki):
    """The administrator's certificate for localhost, of the ssad that the tests share."""
    serving(running, pki)
    yield
    (running.mount / "credentials" / "www").rmdir()


# --- no ssad, and one that is not itself ---


@once
def test_no_ssad(tmp_path, chaos):
    met = []
    with peers.script(met.append) as port:
        told, words, left = run(chaos, "connect", {"SSA_RUN_DIR": str(tmp_path)}, PORT=port)
    assert told == f"{errno.ECONNREFUSED} system true"
    assert f"ssa: no ssad listens at {tmp_path}/ssad.sock. Start it with `ssad`" in words
    assert left == "clean"
    assert met == []  # no TCP connection was made


@once
def test_a_directory_with_too_long_a_name(tmp_path, chaos):
    told, words, left = run(chaos, "connect", {"SSA_RUN_DIR": str(tmp_path / ("x" * 120))}, PORT=1)
    assert told.startswith(f"{errno.ENAMETOOLONG} caller")
    assert "SSA_RUN_DIR is longer" in words
    assert left == "clean"


@once
@pytest.mark.parametrize("lie", LIES)
def test_an_ssad_that_lies(lie, tmp_path, chaos):
    answer, number, text = LIES[lie]
    got = []

    def serve(connection):
        got.append(connection.recv(100))

    with Liar(tmp_path, answer).socket, peers.script(serve) as port:
        told, words, left = run(chaos, "connect", {"SSA_RUN_DIR": str(tmp_path)}, PORT=port)
        assert told.split()[0] == str(getattr(errno, number))
        assert text in words
        assert left == "clean"
        assert peers.settled(lambda: got == [b""])  # the connection is closed, and nothing was said on it


@once
def test_a_stopped_ssad_is_told_and_not_waited_for(mortal, chaos):
    os.kill(mortal.process.pid, signal.SIGSTOP)
    try:
        told, words = run(chaos, "check", mortal.environment)
        assert told == f"{errno.ETIMEDOUT} true"
        assert "is it stopped?" in words
    finally:
        os.kill(mortal.process.pid, signal.SIGCONT)


# --- an ssad that dies, and is replaced ---


@once
def test_the_stream_of_an_ssad_that_dies_is_cut(mortal, pki, chaos):
    with (
        peers.python_server(pki, lambda tls, tcp: tls.recv(100) and tls.recv(100)) as port,
        started(chaos, "talk", mortal.environment, PORT=port) as process,
    ):
        reached(process)
        mortal.kill()
        go_on(process)
        cut = f'"" {errno.ECONNABORTED} true\n'
        assert [process.stdout.readline() for _ in range(4)] == [cut, cut, f"{errno.ECONNABORTED}\n", "none\n"]


@pytest.mark.skipif(not probe().tls, reason="needs a kernel with TLS")
def test_a_stream_of_the_kernels_goes_on_without_an_ssad(tmp_path, pki, chaos):
    def serve(tls, tcp):
        tls.sendall(tls.recv(100))
        tls.unwrap()

    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "ktls"\n'
    with (
        Daemon(tmp_path, policy=policy) as daemon,
        peers.python_server(pki, serve) as port,
        started(chaos, "talk", daemon.environment, PORT=port) as process,
    ):
        reached(process)
        daemon.kill()
        go_on(process)
        assert [process.stdout.readline() for _ in range(2)] == ['"hello" none false\n', '"" EOF false\n']


def fetched(port, pki, path="/"):
    done = subprocess.run(
        ["curl", "-sS", "--cacert", pki.ca, "-w", "%{http_code} %{http_version}", "-o", "/dev/null",
         f"https://localhost:{port}{path}"],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    return done.stdout or done.stderr


@once
def test_a_server_goes_on_with_the_next_ssad(tmp_path, pki, chaos):
    """http.Server takes Accept's errors for temporary ones while there is no ssad."""
    certificates = tmp_path / "config" / "credentials" / "www"
    certificates.mkdir(parents=True)
    shutil.copy(pki.cert, certificates / "certificate")
    shutil.copy(pki.key, certificates / "key")
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with contextlib.ExitStack() as stack:
        daemon = stack.enter_context(Daemon(tmp_path, policy=policy))
        serving(daemon, pki)
        process = stack.enter_context(started(chaos, "serve", daemon.environment, FILES=tmp_path))
        port = int(process.stdout.readline())
        assert fetched(port, pki) == "200 1.1"
        daemon.kill()
        time.sleep(0.5)
        subprocess.run(["umount", "-l", daemon.mount], check=False, capture_output=True)
        after = stack.enter_context(Daemon(tmp_path, policy=policy))
        serving(after, pki)
        assert peers.settled(lambda: fetched(port, pki) == "200 1.1", 20)


# --- contexts that end ---


@contextlib.contextmanager
def full_listener():
    """A TCP listener whose queue is full: connect(2) gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, contextlib.ExitStack() as stack:
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        time.sleep(0.1)
        yield listener.getsockname()[1]


@contextlib.contextmanager
def full_daemon(directory):
    """An ssad's socket whose queue is full: nobody accepts."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, contextlib.ExitStack() as stack:
        listener.bind(str(directory / "ssad.sock"))
        listener.listen(0)
        for _ in range(3):
            filler = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            filler.setblocking(False)
            filler.connect_ex(str(directory / "ssad.sock"))
        yield


CANCELLED = ["true true", "clean", "true true", "clean"]


@once
@pytest.mark.parametrize("step", ["before", "resolver", "tcp", "handshake"])
def test_a_context_that_ends(step, ssad, chaos):
    ended = []

    def stalls(connection):
        while connection.recv(10000):
            pass
        ended.append("end")

    with contextlib.ExitStack() as stack:
        port = stack.enter_context(full_listener() if step == "tcp" else peers.script(stalls))
        host = "nobody.example" if step == "resolver" else "127.0.0.1"
        lines = run(chaos, "cancel", ssad.environment, STEP=step, PORT=port, HOST=host)
        assert lines == CANCELLED
        assert step != "handshake" or peers.settled(lambda: ended == ["end", "end"])  # ssad has given it up too


@once
def test_a_context_that_ends_in_the_queue_of_ssad(tmp_path, chaos):
    with full_daemon(tmp_path):
        assert run(chaos, "cancel", {"SSA_RUN_DIR": str(tmp_path)}, STEP="queue", PORT=1) == CANCELLED


@once
def test_a_context_that_ends_while_ssad_is_stopped(mortal, chaos):
    os.kill(mortal.process.pid, signal.SIGSTOP)
    try:
        with peers.script(lambda connection: connection.recv(100)) as port:
            assert run(chaos, "cancel", mortal.environment, STEP="stopped", PORT=port) == CANCELLED
    finally:
        os.kill(mortal.process.pid, signal.SIGCONT)


# --- many at once, and too many ---


@once
def test_a_thousand_goroutines(ssad, pki, chaos):
    with peers.python_server(pki, echo) as port:
        lines = run(chaos, "many", ssad.environment, limits=("prlimit", "--nofile=8192"), PORT=port)
    assert lines == ["1000 0", "clean"]


@once
def test_no_descriptors_left(ssad, pki, chaos):
    with peers.python_server(pki, echo) as port:
        assert run(chaos, "limit", ssad.environment, PORT=port) == ["true true", "clean", "none"]


@once
@pytest.mark.usefixtures("administrators")
def test_a_server_without_descriptors(ssad, pki, chaos):
    context = ssl.create_default_context(cafile=pki.ca)
    with started(chaos, "limited-server", ssad.environment) as process:
        port = int(process.stdout.readline())
        reached(process)
        clients = []

        def client():
            tcp = socket.create_connection(("127.0.0.1", port))
            clients.append(context.wrap_socket(tcp, server_hostname="localhost"))

        client()
        go_on(process)
        assert process.stdout.readline() == "true true\n"
        reached(process)
        client()
        go_on(process)
        assert process.stdout.readline() == "none\n"
        for each in clients:
            each.close()


# --- many goroutines on one connection ---


def reads_late(tls, tcp):
    tls.sendall(tls.recv(100))
    time.sleep(2)


@pytest.mark.usefixtures("ssad")
def test_deadlines_and_close(pki, chaos, running):
    with peers.python_server(pki, reads_late) as port:
        lines = run(chaos, "deadlines", running.environment, PORT=port)
    assert lines == ["deadline", "deadline", '"hello" none', "true deadline", "none closed", "closed"]


@pytest.mark.usefixtures("ssad")
def test_a_crowd_on_one_connection(pki, chaos, running):
    with peers.python_server(pki, echo) as port:
        assert run(chaos, "crowd", running.environment, PORT=port) == ["done"]


@once
@pytest.mark.usefixtures("administrators")
def test_a_client_that_has_gone(ssad, pki, chaos):
    context = ssl.create_default_context(cafile=pki.ca)
    with started(chaos, "gone", ssad.environment) as process:
        port = int(process.stdout.readline())
        reached(process)
        tcp = socket.create_connection(("127.0.0.1", port))
        name = ":".join(map(str, tcp.getsockname()))
        tls = context.wrap_socket(tcp, server_hostname="localhost")
        time.sleep(0.2)
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes([1, 0, 0, 0, 0, 0, 0, 0]))
        tls.close()
        time.sleep(0.2)
        go_on(process)
        assert [process.stdout.readline().strip() for _ in range(4)] == [name, "true", "deadline", "closed"]


# --- STARTTLS ---


@once
@pytest.mark.usefixtures("administrators")
@pytest.mark.parametrize("ahead", ["", "1"])
def test_an_upgrade_of_both_ends(ahead, ssad, pki, chaos):
    assert run(chaos, "starttls", ssad.environment, AHEAD=ahead) == ['"hello back" none none']


@once
@pytest.mark.usefixtures("administrators")
def test_plain_text_behind_the_agreement_is_refused(ssad, pki, chaos):
    (line,) = run(chaos, "starttls", ssad.environment, EAGER="1")
    assert "peer sent plain text after TLS was agreed on" in line
    assert line.endswith("closed")
