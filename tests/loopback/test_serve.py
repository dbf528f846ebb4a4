"""`ssa serve`: TLS connections forwarded to servers that know nothing of TLS, and bad luck with either side.

tests/kernel runs some of these tests where the kernel protects the records.
"""

import contextlib
import itertools
import os
import resource
import signal
import socket
import ssl
import sys
import threading
import time

import pytest
from OpenSSL import SSL

from ssa.cli.main import main
from tests import peers
from tests.peers import Daemon, settled
from tests.unit import test_proxy_header as proxy_header

SSA = (sys.executable, "-m", "ssa.cli.main")


@pytest.fixture(scope="module")
def running(tmp_path_factory, pki):
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        yield daemon


@pytest.fixture
def ssad(running):
    yield running
    assert settled(lambda: running.sockets() == []), running.log
    assert "Traceback" not in running.log


class Service:
    """An `ssa serve`, and what it prints."""

    def __init__(self, process, port, log):
        self.process, self.port, self._log = process, port, log

    @property
    def log(self):
        return self._log.read_text()

    def says(self, words):
        return settled(lambda: words in self.log)

    def has_nothing(self):
        """It has as many sockets as before the first connection: its listener, and those that trio has for itself."""
        return self.sockets() == self.idle

    def sockets(self):
        names = []
        for name in os.listdir(f"/proc/{self.process.pid}/fd"):
            with contextlib.suppress(FileNotFoundError):
                names.append(os.readlink(f"/proc/{self.process.pid}/fd/{name}"))
        return sum(name.startswith("socket:") for name in names)

    def come_to_rest(self):
        counts = []
        while len(counts) < 3 or len(set(counts[-3:])) > 1:
            time.sleep(0.05)
            counts.append(self.sockets())
        self.idle = counts[-1]


@pytest.fixture
def serve(ssad, pki, tmp_path, tmp_path_factory):
    """Starts `ssa serve`."""
    temporary = {"TMPDIR": str(tmp_path_factory.mktemp("t"))}  # what is killed leaves its socket there
    with contextlib.ExitStack() as undo:
        numbers = itertools.count()

        def start(*arguments, listen="127.0.0.1:{port}", daemon=ssad, **options):
            port = peers.free_port()
            log = tmp_path / f"serve-{next(numbers)}.log"
            own = ("--listen", listen.format(port=port), "--certificate", pki.cert, "--key", pki.key)
            options["env"] = os.environ | daemon.environment | temporary
            stderr = undo.enter_context(log.open("w"))
            running = peers.program(*SSA, "serve", *own, *arguments, port=port, stderr=stderr, **options)
            return Service(undo.enter_context(running), port, log)

        yield start


@contextlib.contextmanager
def unix_server(path, serve, backlog=128):
    """A plain server on an AF_UNIX socket, each connection in a thread of its own."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(backlog)

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection = listener.accept()[0]
                    threading.Thread(target=run, args=(connection,), daemon=True).start()

        def run(connection):
            with contextlib.suppress(OSError), connection:
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield f"unix:{path}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def unix_backend(tmp_path):
    """Starts a plain server, `serve(connection)`, on AF_UNIX. Returns its address."""
    with contextlib.ExitStack() as undo:

        def start(serve):
            return undo.enter_context(unix_server(tmp_path / "backend", serve))

        start.tells_cuts = False
        yield start


@pytest.fixture
def loopback_backend():
    """Starts a plain server, `serve(connection)`, on the loopback. Returns its address."""
    with contextlib.ExitStack() as undo:

        def start(serve):
            return f"127.0.0.1:{undo.enter_context(peers.script(serve))}"

        start.tells_cuts = True
        yield start


@pytest.fixture(params=["unix", "loopback"])
def backend(request):
    return request.getfixturevalue(f"{request.param}_backend")


def client(pki, port, *, cert=None, strict=True, alpn=None):
    """Python's own TLS, which tells a close_notify from a bare end."""
    context = ssl.create_default_context(cafile=pki.ca)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    if cert:
        context.load_cert_chain(*cert)
    if alpn:
        context.set_alpn_protocols(alpn)
    tcp = socket.create_connection(("127.0.0.1", port), timeout=20)
    return context.wrap_socket(tcp, server_hostname="localhost", suppress_ragged_eofs=not strict)


def drain(tls):
    """All that comes, and how it ends."""
    got = []
    try:
        while data := tls.recv(1 << 16):
            got.append(data)
    except TimeoutError:
        return b"".join(got), "not yet"
    except OSError as exc:
        assert isinstance(exc, ConnectionError) or "EOF" in str(exc).upper()
        return b"".join(got), "cut"
    return b"".join(got), "in order"


def ended(plain):
    """All that a plain server gets, and how it ends."""
    got = []
    try:
        while data := plain.recv(1 << 16):
            got.append(data)
    except ConnectionError:
        return b"".join(got), "reset"
    return b"".join(got), "in order"


def echo(plain):
    while data := plain.recv(1 << 16):
        plain.sendall(data)


# --- a byte's way ---------------------------------------------------------------------------------------------------


def half_closed(pki, port, data):
    """Sends all, ends its half of the stream and reads the rest: OpenSSL, as Python's `ssl` cannot do that."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.load_verify_locations(str(pki.ca))
    with socket.create_connection(("127.0.0.1", port)) as tcp:
        tcp.settimeout(None)
        tls = SSL.Connection(context, tcp)
        tls.set_tlsext_host_name(b"localhost")
        tls.set_connect_state()
        tls.do_handshake()
        tls.sendall(data)
        tls.shutdown()
        got = []
        with contextlib.suppress(SSL.ZeroReturnError):
            while True:
                got.append(tls.recv(1 << 16))
        return b"".join(got)


def test_half_closes_are_passed_on_both_ways(serve, backend, pki):
    service = serve("--to", backend(lambda plain: plain.sendall(ended(plain)[0][::-1])))
    data = os.urandom(1 << 20)
    assert half_closed(pki, service.port, data) == data[::-1]


def test_what_the_server_sends_ends_in_order(serve, unix_backend, pki):
    service = serve("--to", unix_backend(lambda plain: plain.sendall(b"x" * (1 << 20))))
    with client(pki, service.port) as tls:
        assert drain(tls) == (b"x" * (1 << 20), "in order")


def test_a_client_that_is_cut_is_no_end_in_order(serve, backend, pki):
    ends = []
    service = serve("--to", backend(lambda plain: ends.append(ended(plain))))
    tls = client(pki, service.port)
    tls.sendall(b"half of it")
    os.close(tls.detach())
    assert settled(lambda: ends)
    assert ends == [(b"half of it", "reset" if backend.tells_cuts else "in order")]


def test_a_client_that_is_cut_gets_no_answer(serve, tmp_path, pki):
    """AF_UNIX has no word for it: but the server cannot answer any more."""
    answers = []

    def answer(plain):
        ended(plain)
        time.sleep(0.1)
        with contextlib.suppress(BrokenPipeError):
            plain.sendall(b"answer")
            answers.append("sent")
        answers.append("over")

    with unix_server(tmp_path / "backend", answer) as to:
        service = serve("--to", to)
        os.close(client(pki, service.port).detach())
        assert settled(lambda: answers)
        assert answers == ["over"]


def test_a_server_that_resets_cuts_the_client(serve, backend, pki):
    def reset(plain):
        plain.recv(1)  # AF_UNIX resets where something is unread, TCP too
        plain.sendall(b"not all")

    service = serve("--to", backend(reset))
    with client(pki, service.port) as tls:
        tls.sendall(b"two")
        time.sleep(0.2)
        assert drain(tls) == (b"not all", "cut")


def test_a_server_that_reads_no_more_still_answers(serve, unix_backend, pki):
    def answer(plain):
        plain.shutdown(socket.SHUT_RD)
        time.sleep(0.5)
        plain.sendall(b"too large")

    service = serve("--to", unix_backend(answer))
    with client(pki, service.port) as tls:
        tls.sendall(b"x" * 100_000)
        assert tls.recv(100) == b"too large"


def test_a_client_that_stays_is_let_go_of(serve, tmp_path, pki):
    """After the server's end nobody waits for a client that says nothing, or what the server does not read."""
    with unix_server(tmp_path / "backend", lambda plain: plain.sendall(b"bye")) as to:
        service = serve("--to", to)
        service.come_to_rest()
        with client(pki, service.port) as tls:
            assert drain(tls) == (b"bye", "in order")
            tls.sendall(b"are you there?")  # taken, and thrown away
            assert settled(service.has_nothing)


# --- the server is not there ----------------------------------------------------------------------------------------


def test_a_server_that_is_down(serve, tmp_path, pki):
    path = tmp_path / "backend"
    service = serve("--to", f"unix:{path}")
    for _ in range(3):
        with client(pki, service.port) as tls:
            assert drain(tls) == (b"", "cut")
    assert service.says(f"the backend unix:{path} cannot be reached, so its clients are cut off: No such file")
    assert service.log.count("cannot be reached") == 1
    with unix_server(path, echo), client(pki, service.port) as tls:
        tls.sendall(b"there?")
        assert tls.recv(100) == b"there?"
        assert service.says("can be reached again, after 3 connections that were cut off")


def test_a_server_that_is_down_on_the_loopback(serve, pki):
    service = serve("--to", f"127.0.0.1:{peers.free_port()}")
    with client(pki, service.port) as tls:
        assert drain(tls) == (b"", "cut")
    assert service.says("cannot be reached, so its clients are cut off: ")


def test_a_server_that_does_not_accept(serve, tmp_path, pki):
    """Its queue is full: an AF_UNIX connect fails then, and is tried again until the patience ends."""
    path = tmp_path / "backend"
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as undo:
        listener.bind(str(path))
        listener.listen(0)
        service = serve("--to", f"unix:{path}", "--patience", "1")
        waiting = [undo.enter_context(client(pki, service.port)) for _ in range(3)]
        assert service.says("does not accept within 1 s")
        for tls in waiting:
            tls.settimeout(0.5)
        assert sorted(drain(tls)[1] for tls in waiting) == ["cut", "cut", "not yet"]


def test_a_server_that_accepts_late(serve, tmp_path, pki):
    path = tmp_path / "backend"
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as undo:
        listener.bind(str(path))
        listener.listen(0)
        service = serve("--to", f"unix:{path}")
        clients = [undo.enter_context(client(pki, service.port)) for _ in range(8)]
        for number, tls in enumerate(clients):
            tls.sendall(b"%d" % number)
        time.sleep(0.5)
        got = set()
        for _ in clients:
            plain = undo.enter_context(listener.accept()[0])
            got.add(plain.recv(10))
            plain.sendall(b"seen")
        assert got == {b"%d" % number for number in range(8)}
        assert [tls.recv(10) for tls in clients] == [b"seen"] * 8


# --- many -----------------------------------------------------------------------------------------------------------


def test_two_hundred_at_once(serve, tmp_path, pki):
    with unix_server(tmp_path / "backend", echo) as to:
        service = serve("--to", to)
        service.come_to_rest()
        with contextlib.ExitStack() as undo:
            clients = [undo.enter_context(client(pki, service.port)) for _ in range(200)]
            for number, tls in enumerate(clients):
                tls.sendall(b"%d" % number)
            assert [tls.recv(100) for tls in clients] == [b"%d" % number for number in range(200)]
            assert not service.has_nothing()
        assert settled(service.has_nothing)


def test_more_than_there_are_descriptors_for(serve, tmp_path, pki):
    """The next ones wait until others have ended."""
    with unix_server(tmp_path / "backend", echo) as to, contextlib.ExitStack() as undo:
        service = serve("--to", to, preexec_fn=few_descriptors)
        clients = [client(pki, service.port) for _ in range(8)]  # ssad makes all their handshakes
        for tls in clients:
            tls.sendall(b"?")
        for tls in clients:
            undo.enter_context(tls)
            assert tls.recv(1) == b"?"
            tls.close()
        assert service.log.count("\n") == 1


def few_descriptors():
    """Room for four connections."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))


# --- who may come ---------------------------------------------------------------------------------------------------


def test_a_wrong_client_certificate_never_reaches_the_server(serve, ssad, tmp_path, pki):
    stranger = peers.PKI(tmp_path / "stranger")
    seen = []
    with unix_server(tmp_path / "backend", seen.append) as to:
        service = serve("--to", to, "--client-certificate")
        time.sleep(1)  # the log takes ten lines a second from a user, and the test before may have used them
        for cert in (None, (stranger.cert, stranger.key)):
            with pytest.raises((ssl.SSLError, ConnectionError)), client(pki, service.port, cert=cert) as tls:
                tls.recv(1)  # in TLS 1.3 the server's refusal comes after our handshake
        assert not seen
        assert settled(lambda: "certificate" in ssad.log)
        with client(pki, service.port, cert=pki.issue("good", "client@example.test")):
            assert settled(lambda: seen)


# --- the kill of each part ------------------------------------------------------------------------------------------


def test_the_command_is_killed(serve, pki, tmp_path):
    service = serve("--", sys.executable, "-c", BACKEND, tmp_path / "pid")
    with client(pki, service.port) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert drain(tls)[0] == b""
    assert service.process.wait(10) == 128 + signal.SIGKILL
    assert "the command has ended (status 137)" in service.log


def test_it_is_killed_itself(serve, unix_backend, pki):
    got, ends = [], []
    service = serve("--to", unix_backend(lambda plain: (got.append(plain.recv(1)), ends.append(ended(plain)))))
    with client(pki, service.port) as tls:
        tls.sendall(b"x")
        assert settled(lambda: got == [b"x"])
        service.process.kill()
        assert drain(tls) == (b"", "cut")
    assert settled(lambda: ends)


def test_ssad_is_killed_and_another_one_comes(serve, tmp_path, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\n'
    with Daemon(tmp_path, policy=policy) as daemon, unix_server(tmp_path / "backend", echo) as to:
        service = serve("--to", to, daemon=daemon)
        with client(pki, service.port) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
            daemon.kill()
            assert service.says("nothing can be accepted for now")
            daemon.start()
        with client(pki, service.port) as tls:
            tls.sendall(b"y")
            assert tls.recv(1) == b"y"


def test_it_ends_when_asked(serve, pki, tmp_path):
    service = serve("--", sys.executable, "-c", BACKEND, tmp_path / "pid")
    with client(pki, service.port) as tls:
        tls.sendall(b"x")
        assert tls.recv(1) == b"x"
        service.process.terminate()
        assert settled(lambda: not peers.listens(service.port))
        assert drain(tls)[0] == b""
    assert service.process.wait(10) == 0


BACKEND = """
import os, pathlib, socket, sys, threading
def echo(plain):
    while data := plain.recv(65536):
        plain.sendall(data)
pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
assert os.listdir("/proc/self/fd") == list("01234"), "4 is this directory"
with socket.socket(fileno=3) as listener:
    while True:
        threading.Thread(target=echo, args=(listener.accept()[0],)).start()
"""


# --- what the server learns of the client ---------------------------------------------------------------------------


def test_the_header_says_what_tls_knows(serve, unix_backend, pki):
    headers = []
    service = serve(
        *("--to", unix_backend(lambda plain: headers.append(plain.recv(4096)))),
        *("--proxy-protocol", "v2", "--client-certificate", "--alpn", "h2,http/1.1"),
    )
    mine = pki.issue("carla", "carla@example.test", common_name="Carla")
    with client(pki, service.port, cert=mine, alpn=["http/1.1"]) as tls:
        assert settled(lambda: headers)
        source, destination, fields = proxy_header.parsed(headers[0])
        flags, verify, known = proxy_header.tls(headers[0])
        assert (source, destination) == (tls.getsockname(), tls.getpeername())
        assert (fields[0x01], fields[0x02]) == (b"http/1.1", b"localhost")
        assert (flags, verify, known[0x21], known[0x22]) == (0x07, 0, b"TLSv1.3", b"Carla")
        assert known[0x23] == tls.cipher()[0].encode()


# --- what it is asked for -------------------------------------------------------------------------------------------


@pytest.fixture
def environment(ssad, monkeypatch):
    for name, value in ssad.environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "192.0.2.1:80"), "192.0.2.1 is not this machine's loopback: what is sent there is plain text"),
        (("--to", "localhost:80"), "is no address of a backend"),
        (("--to", "unix:app.sock"), "the path has to be whole"),
        ((), "where is the server?"),
        (("--to", "127.0.0.1:80", "--", "true"), "where is the server?"),
        (("--to", "127.0.0.1:80", "--activation"), "--activation is about a COMMAND"),
        (("--to", "127.0.0.1:80", "--trusted", "ca.pem"), "give --client-certificate too"),
        (("--to", "127.0.0.1:80", "--listen", "fd://7777"), "fd://7777: Bad file descriptor"),
        (("--", "/nowhere/program"), "/nowhere/program: No such file"),
    ],
)
def test_refusals(environment, pki, capsys, arguments, words):
    own = ("serve", "--listen", "127.0.0.1:0", "--certificate", str(pki.cert), "--key", str(pki.key))
    with contextlib.suppress(SystemExit):
        assert main([*own, *arguments]) == 1
    assert words in capsys.readouterr().err


def test_a_socket_that_was_made_elsewhere(serve, unix_backend, pki):
    """As systemd passes one to a service that may not listen on port 443."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        os.set_inheritable(made.fileno(), True)
        to = unix_backend(echo)
        serve("--to", to, "--listen", f"fd://{made.fileno()}", pass_fds=[made.fileno()])
        with client(pki, made.getsockname()[1]) as tls:
            tls.sendall(b"x")
            assert tls.recv(1) == b"x"
