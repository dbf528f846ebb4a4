"""`ssa run --seccomp`: static programs that nothing can be preloaded into, against Python's own `ssl`."""

import contextlib
import os
import re
import shutil
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

from bench.measure import cpu_seconds
from ssa.cli.command import prepared
from ssa.cli.main import build_parser
from ssa.cli.run import variables
from tests import peers
from tests.native import golang
from tests.peers import Daemon, settled

NATIVE = Path(__file__).resolve().parents[2] / "build" / "native"
SUPERVISOR = NATIVE / "ssa-supervise"
LIBCS = {"glibc": NATIVE / "tests" / "any_binary", "musl": NATIVE / "tests" / "any_binary-musl"}
WITHOUT_TLS = {"glibc": NATIVE / "tests" / "without_tls-static", "musl": NATIVE / "tests" / "without_tls-musl"}
GO = golang.BUILD / "plain"
SLOW = os.environ.get("SSA_EXPECT_KTLS") == "1"  # under tools/kernel-run


@pytest.fixture(scope="module", autouse=True)
def compiled():
    assert golang.static(GO.name) == GO


@pytest.fixture
def path():
    """What is watched is relayed, on whatever kernel."""
    return "relay"


def planned(daemon, *arguments, supervisor=SUPERVISOR):
    """What `ssa run --seccomp` does, in this process: its start takes longer than most programs."""
    options = build_parser(["run"]).parse_args(prepared(["run", "--seccomp", *map(str, arguments)]))
    return [supervisor, *options.command[1:]], {"env": variables(options) | daemon.environment}


def run(daemon, *arguments, given=b"", **more):
    words, options = planned(daemon, *arguments)
    return subprocess.run(words, input=given, capture_output=True, timeout=90, check=False, **options, **more)


def handshakes(daemon):
    return int(daemon.get("stats/handshakes"))


def echo(tls, _tcp):
    while data := tls.recv(65536):
        tls.sendall(data)
    tls.unwrap()


@pytest.fixture(scope="module")
def ends():
    """How the streams that the server had have ended: in order, or not."""
    return []


@pytest.fixture(scope="module")
def server(pki, ends):
    def noting(tls, tcp):
        try:
            echo(tls, tcp)
        except OSError as exc:
            ends.append(type(exc).__name__)
        else:
            ends.append("in order")

    with peers.python_server(pki, noting) as port:
        yield port


# --- programs that ask for TLS by socket(2) ---

SAYS = {
    "blocking": rb"hello\n512 0\n",
    "poll": rb"hello\n",
    "epoll": rb"hello\n",
    "hostname": rb"hello\n",
    "half": rb"hello\n",
    "again": rb"-1 Connection refused\nhello\n",
    "options": rb"TLSv1.3 localhost 1 1 1 2 6\n",
    "own_filter": rb"-1 Operation not permitted\nhello\n513 0\n",
    "children": rb"(hello\n512 0\n){3}",
}


@pytest.mark.parametrize("libc", LIBCS)
@pytest.mark.parametrize("way", SAYS)
def test_ways(way, libc, ssad, server, ends):
    before, count = handshakes(ssad), SAYS[way].count(b"{3}") * 2 + 1
    ends.clear()
    done = run(ssad, LIBCS[libc], way, "localhost", server)
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(SAYS[way], done.stdout)
    assert handshakes(ssad) == before + count
    assert settled(lambda: ends == ["in order"] * count), ends


def test_go_by_number(ssad, server):
    done = run(ssad, GO, "raw", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_a_dynamic_program_too(ssad, server):
    done = run(ssad, "--tls", NATIVE / "tests" / "without_tls", "usual", "localhost", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


@pytest.mark.parametrize("libc", LIBCS)
def test_a_wrong_name(libc, ssad, server):
    done = run(ssad, LIBCS[libc], "refused", "wrong.test", server)
    assert done.returncode == 0
    assert b"certificate is for another name" in done.stdout
    assert re.match(rb"ssa: any_binary[^:]*: wrong.test: certificate is for another name: ", done.stderr)


def test_quiet(ssad, server):
    assert run(ssad, "--quiet", LIBCS["musl"], "refused", "wrong.test", server).stderr == b""


def test_the_kernels_path_alone_refuses_it(ssad, server):
    ssad.set("data_path", "relay")
    if os.environ.get("SSA_EXPECT_KTLS") == "1":
        ssad.set("data_path", "ktls")
        done = run(ssad, LIBCS["musl"], "refused", "localhost", server)
        assert b"policy does not allow this: data_path" in done.stderr


@pytest.mark.parametrize("libc", LIBCS)
def test_upgrade(libc, ssad, pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)

    def agree(tcp):
        assert tcp.recv(9) == b"STARTTLS\n"
        tcp.sendall(b"OK\n")
        with context.wrap_socket(tcp, server_side=True) as tls:
            tls.sendall(tls.recv(64))

    with peers.script(agree) as port:
        done = run(ssad, LIBCS[libc], "upgrade", "localhost", port)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")


def test_many(ssad, server, ends):
    ends.clear()
    count = 100 if SLOW else 600
    done = run(ssad, LIBCS["glibc"], "many", "localhost", server, count)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\nhello\n", b"")
    assert settled(lambda: ends == ["in order"] * count, 20)


def test_no_number_left(ssad, server):
    done = run(ssad, LIBCS["glibc"], "no_number_left", "localhost", server)
    assert (done.returncode, done.stdout) == (0, b"-1 Too many open files\n")


def connect(port, pki):
    context = ssl.create_default_context(cafile=pki.ca)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="localhost") as tls:
        tls.sendall(b"hello\n")
        answer = tls.recv(64)
        tls.unwrap()
    return answer


@contextlib.contextmanager
def serving(daemon, *arguments):
    words, options = planned(daemon, *arguments)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(words, **pipes, **options) as process:
        try:
            yield process
        finally:
            process.kill()


def served(daemon, pki):
    folder = daemon.mount / "credentials" / "served"
    folder.mkdir()
    (folder / "certificate").write_bytes(pki.cert.read_bytes())
    (folder / "key").write_bytes(pki.key.read_bytes())
    return folder


@pytest.fixture
def credential(ssad, pki):
    folder = served(ssad, pki)
    yield
    folder.rmdir()


@pytest.mark.parametrize("libc", LIBCS)
@pytest.mark.parametrize("way", ["serves", "serves_in_children", "serves_by_poll"])
def test_servers(way, libc, ssad, credential, pki):
    with serving(ssad, LIBCS[libc], way, "localhost", 0, 3) as process:
        port = int(process.stdout.readline())
        assert [connect(port, pki) for _ in range(3)] == [b"hello\n"] * 3
        assert process.wait(10) == 0
        assert process.stderr.read() == b""


# --- programs that know no TLS ---


@pytest.mark.parametrize("libc", WITHOUT_TLS)
@pytest.mark.parametrize(
    "way", ["usual", "doubled", "stdio", "epoll", "at_once", "child", "threads", "gethostbyname", "mptcp"]
)
def test_ways_without_tls(way, libc, ssad, server):
    before, count = handshakes(ssad), 4 if way == "threads" else 1
    done = run(ssad, "--tls", WITHOUT_TLS[libc], way, "localhost", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n" * count, b"")
    assert handshakes(ssad) == before + count


def test_go(ssad, server, ends):
    before = handshakes(ssad)
    ends.clear()
    done = run(ssad, "--tls", GO, "echo", f"localhost:{server}", 40)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    assert handshakes(ssad) == before + 40
    assert settled(lambda: ends == ["in order"] * 40)


AS_SOON_AS_POLL_SAYS = """
import errno, select, socket, sys
for _ in range(20):
    sock = socket.socket()
    address = (socket.gethostbyname("localhost"), int(sys.argv[1]))
    sock.setblocking(False)
    sock.connect_ex(address)
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    poll.poll()
    if sys.argv[2] == "connect":
        assert sock.connect_ex(address) in (0, errno.EISCONN)
    elif sys.argv[2] == "getpeername":
        assert sock.getpeername() == address
    sock.send(b"hello\\n")
    sock.shutdown(socket.SHUT_WR)
    sock.setblocking(True)
    assert sock.recv(64) == b"hello\\n"
print("done")
"""


@pytest.mark.parametrize("call", ["connect", "getpeername", "shutdown"])
def test_a_call_at_once_after_poll(call, ssad, server, ends):
    """connect(2) again, as Ruby asks whether it is connected: poll(2) tells before ssad's reply does."""
    ends.clear()
    done = run(ssad, "--tls", "python3", "-c", AS_SOON_AS_POLL_SAYS, server, call)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")
    assert settled(lambda: ends == ["in order"] * 20), ends


def test_an_address_has_no_name(ssad, server, tmp_path):
    done = run(ssad, "--tls", GO, "echo", f"127.0.0.3:{server}", 1)
    assert done.returncode == 1
    assert b"connect: permission denied" in done.stdout
    assert done.stderr == (
        b"ssa: plain: 127.0.0.3: no name was looked up that led to 127.0.0.3: `ssa run --name NAME` says whose it is\n"
    )


def test_a_second_attempt_is_for_the_same_name(ssad, server):
    """The certificate is for the address, too: that is not what was asked for."""
    done = run(ssad, "--tls", "--name", "wrong.test", LIBCS["musl"], "again", "", server, 1)
    assert (done.returncode, done.stdout) == (1, b"-1 Connection refused\n")
    assert b"wrong.test: certificate is for another name" in done.stderr
    done = run(ssad, "--tls", "--name", "example.test", LIBCS["musl"], "again", "", server, 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"-1 Connection refused\nhello\n", b"")


def test_the_name_of_the_settings(ssad, server):
    done = run(ssad, "--tls", "--name", "example.test", GO, "echo", f"127.0.0.1:{server}", 1)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"done\n", b"")


def in_plain_text(tcp):
    while tcp.recv(64):
        pass
    tcp.sendall(b"plain\n")


def test_only_some_servers(ssad, server):
    with peers.script(in_plain_text) as port:
        done = run(ssad, "--tls-to", f"localhost:{server}", WITHOUT_TLS["musl"], "usual", "127.0.0.1", port)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"plain\n", b"")
    before = handshakes(ssad)
    done = run(ssad, "--tls-to", f"localhost:{server}", GO, "echo", f"127.0.0.1:{server}", 1)
    assert (done.returncode, handshakes(ssad)) == (0, before + 1)


def test_a_server_without_tls(ssad, credential, pki):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with serving(ssad, "--tls-listen", GO, "serve", f"127.0.0.1:{port}"):
        assert settled(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
        assert [connect(port, pki) for _ in range(5)] == [b"hello\n"] * 5


# --- names from the DNS ---


def label(name):
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def records(asked, names):
    """The answer section for a name: what it is an alias of, and its address."""
    section, count, name = b"", 0, asked
    while name in names:
        value, count = names[name], count + 1
        if value[0].isdigit():
            data = socket.inet_aton(value)
            section += label(name) + struct.pack("!HHIH", 1, 1, 60, len(data)) + data
            break
        section += label(name) + struct.pack("!HHIH", 5, 1, 60, len(label(value))) + label(value)
        name = value
    return count, section


def answered(question, names):
    end = question.index(b"\0", 12) + 1
    parts, at = [], 12
    while question[at]:
        parts.append(question[at + 1 : at + 1 + question[at]].decode())
        at += 1 + question[at]
    kind = struct.unpack("!H", question[end : end + 2])[0]
    count, section = records(".".join(parts).lower(), names) if kind == 1 else (0, b"")
    return question[:2] + struct.pack("!HHHHH", 0x8180, 1, count, 0, 0) + question[12 : end + 4] + section


@pytest.fixture
def resolver(tmp_path):
    """A DNS server on an address of the loopback interface, and what programs that shall use it are started by."""
    names, planted = {}, []
    conf = tmp_path / "resolv.conf"
    conf.write_text("nameserver 127.0.0.9\noptions timeout:2 attempts:2\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.9", 53))
        sock.settimeout(0.1)
        over = threading.Event()

        def serve():
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    question, client = sock.recvfrom(4096)
                    for other in planted:
                        sock.sendto(other(question), client)
                    sock.sendto(answered(question, names), client)

        thread = threading.Thread(target=serve)
        thread.start()
        yield names, planted, ["unshare", "-m", "sh", "-c", f'mount --bind {conf} /etc/resolv.conf; exec "$@"', "-"]
        over.set()
        thread.join()


def run_with(prefix, daemon, *arguments):
    words, options = planned(daemon, *arguments)
    return subprocess.run([*prefix, *words], capture_output=True, timeout=60, check=False, **options)


@pytest.mark.parametrize("kind", ["go", "musl", "glibc"])
@pytest.mark.parametrize("name", ["example.test", "alias.test"])
def test_names_of_the_dns(name, kind, ssad, pki, resolver):
    names, _, prefix = resolver
    names.update({"example.test": "127.0.0.5", "alias.test": "other.test", "other.test": "127.0.0.5"})
    identity = pki.issue(name, name)
    with peers.python_server(Served(identity), echo) as port:
        port_of = f"{name}:{port}"
        words = [GO, "echo", port_of, 3] if kind == "go" else [WITHOUT_TLS[kind], "usual", name, port]
        with forwarded(port):
            done = run_with(prefix, ssad, "--tls", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == (b"done\n" if kind == "go" else b"hello\n")


class Served:
    def __init__(self, identity):
        self.cert, self.key = identity


@contextlib.contextmanager
def forwarded(port):
    """Carry what comes for that port of 127.0.0.5 to 127.0.0.1."""
    over = threading.Event()
    with socket.create_server(("127.0.0.5", port)) as listener:
        listener.settimeout(0.1)

        def carry(one, other):
            with contextlib.suppress(OSError):
                while data := one.recv(65536):
                    other.sendall(data)
                other.shutdown(socket.SHUT_WR)

        def serve():
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    client = listener.accept()[0]
                    client.settimeout(None)
                    to = socket.create_connection(("127.0.0.1", port))
                    for pair in ((client, to), (to, client)):
                        threading.Thread(target=carry, args=pair, daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        over.set()
        thread.join()


@pytest.mark.parametrize("kind", ["go", "musl"])
def test_a_name_that_was_not_asked_for_counts_for_nothing(kind, ssad, server, resolver):
    """Whoever can send to the program's socket could add a name of his own."""
    names, planted, prefix = resolver
    names["nowhere.test"] = "127.0.0.77"

    def other_name(question):
        return answered(question[:12] + label("localhost") + question[-4:], {"localhost": "127.0.0.3"})

    def other_number(question):
        return answered(bytes([question[0] ^ 255]) + question[1:], {"nowhere.test": "127.0.0.3"})

    planted += [other_name, other_number]
    address = "127.0.0.3"
    script = f"{GO} echo nowhere.test:1 1; {GO} echo {address}:{server} 1"
    if kind == "musl":
        program = WITHOUT_TLS["musl"]
        script = f"{program} usual nowhere.test 1; {program} usual {address} {server}"
    done = run_with(prefix, ssad, "--tls", "sh", "-c", script)
    assert b"no name was looked up that led to 127.0.0.3" in done.stderr


# --- bad luck ---


@pytest.mark.parametrize("libc", LIBCS)
def test_an_address_that_changes_during_the_call(libc, ssad, server):
    done = run(ssad, "--quiet", LIBCS[libc], "changing", "localhost", server)
    assert (done.returncode, done.stdout) == (0, b"done\n")


@pytest.mark.parametrize("libc", LIBCS)
def test_numbers_that_are_replaced_during_the_call(libc, ssad, server):
    done = run(ssad, "--quiet", LIBCS[libc], "replacing", "localhost", server)
    assert (done.returncode, done.stdout) == (0, b"hello\n")


def test_calls_of_another_architecture(ssad):
    """By int 0x80 the kernel knows no 205 (EPROTONOSUPPORT), and plain text is refused (EACCES). x32 is ENOSYS.

    User-mode Linux has no int 0x80 at all.
    """
    none = b"-38 -38\n"
    assert run(ssad, LIBCS["glibc"], "foreign", "", 0, 205).stdout in {b"-93 -38\n", none}
    assert run(ssad, "--tls", LIBCS["glibc"], "foreign", "", 0, 0).stdout in {b"-13 -38\n", none}


def test_close(ssad):
    assert run(ssad, LIBCS["musl"], "closes").stdout == b"1 1 1\n"


def test_the_supervisor_is_killed(ssad, server):
    with serving(ssad, LIBCS["glibc"], "killed", "localhost", server) as process:
        assert process.stdout.readline() == b"ready\n"
        os.kill(supervisor_of(process), signal.SIGKILL)
        said, _ = process.communicate(b"\n", timeout=10)
    assert said == b"Function not implemented, Function not implemented, hello\n"


def supervisor_of(process):
    """The supervisor has its listener as the only process with a seccomp notification descriptor of that time."""
    found = subprocess.run(["pgrep", "-n", "-x", "ssa-supervise"], capture_output=True, text=True, check=True)
    pid = int(found.stdout)
    assert pid != process.pid
    return pid


def test_the_supervisor_ends_with_the_program(ssad, server):
    before = supervisors()
    assert run(ssad, LIBCS["glibc"], "blocking", "localhost", server).returncode == 0
    assert settled(lambda: supervisors() <= before, 5)


def supervisors():
    found = subprocess.run(["ps", "-C", "ssa-supervise", "-o", "stat="], capture_output=True, text=True, check=False)
    return sum(not line.startswith("Z") for line in found.stdout.split())


def test_nested_supervisors(ssad):
    done = run(ssad, SUPERVISOR, "true")
    assert done.returncode == 126
    assert b"watches this one already, and the kernel refuses a second one" in done.stderr


WAITING = {"interrupted": b"-1 Interrupted system call 1\n", "early": b"-1 1 0 1 1 1 1\n"}


@pytest.mark.parametrize("way", WAITING)
def test_a_server_that_says_nothing(way, ssad):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        done = run(ssad, LIBCS["glibc"], way, "localhost", silent.getsockname()[1])
    assert done.stdout == WAITING[way]


def test_no_ssad_and_another(tmp_path, pki, server):
    daemon = Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n')
    with serving(daemon, LIBCS["glibc"], "on_demand", "localhost", server) as process:

        def attempt():
            process.stdin.write(b"\n")
            process.stdin.flush()
            return process.stdout.readline()

        assert attempt() == b"Connection refused\n"
        with daemon:
            assert attempt() == b"connected\n"
            os.kill(daemon.process.pid, signal.SIGSTOP)
            began = time.monotonic()
            assert attempt() == b"Connection timed out\n"
            assert time.monotonic() - began < 12
            os.kill(daemon.process.pid, signal.SIGCONT)
            assert attempt() == b"connected\n"
        assert attempt() == b"Connection refused\n"
        with daemon:
            assert attempt() == b"connected\n"


def test_an_ssad_that_dies_during_the_handshake(tmp_path, pki):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        daemon = Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n')
        with daemon, serving(daemon, LIBCS["glibc"], "on_demand", "localhost", silent.getsockname()[1]) as process:
            process.stdin.write(b"\n")
            process.stdin.flush()
            with silent.accept()[0]:
                time.sleep(0.3)
                daemon.kill()
                assert process.stdout.readline() == b"Input/output error\n"


def test_a_program_that_gives_up_its_rights(ssad, server):
    """The supervisor would ask ssad with rights that the program has not any more."""
    done = run(ssad, "setpriv", "--reuid=65534", "--clear-groups", LIBCS["musl"], "blocking", "localhost", server)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"setsockopt: Operation not permitted" in done.stderr


def test_a_program_in_another_network(ssad):
    done = run(ssad, "unshare", "-n", LIBCS["musl"], "blocking", "localhost", 1)
    assert done.returncode == 1
    assert b"socket: the program is in another network namespace than ssa-supervise" in done.stderr


@pytest.mark.parametrize("way", ["serves", "serves_by_poll"])
def test_a_listener_outlives_its_ssad(way, tmp_path, pki):
    daemon = Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n')
    with daemon:
        served(daemon, pki)
        with serving(daemon, LIBCS["glibc"], way, "localhost", 0, 2) as process:
            port = int(process.stdout.readline())
            assert connect(port, pki) == b"hello\n"
            daemon.stop()
            daemon.start()
            served(daemon, pki)
            assert connect(port, pki) == b"hello\n"
            assert process.wait(10) == 0


def test_a_server_without_tls_outlives_its_ssad(tmp_path, pki):
    """It polls its listener, and takes no rest at errors: so there are none."""
    daemon = Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with daemon:
        served(daemon, pki)
        with serving(daemon, "--tls-listen", GO, "serve", f"127.0.0.1:{port}") as process:
            assert settled(lambda: socket.socket().connect_ex(("127.0.0.1", port)) == 0)
            assert connect(port, pki) == b"hello\n"
            daemon.stop()
            time.sleep(0.5)
            used = cpu_seconds(process.pid)
            time.sleep(1)
            assert cpu_seconds(process.pid) - used < 0.1
            daemon.start()
            served(daemon, pki)
            assert [connect(port, pki) for _ in range(3)] == [b"hello\n"] * 3
            assert process.poll() is None


def test_two_at_once(ssad, server):
    """Two supervisors know nothing of each other."""
    words, options = planned(ssad, "--tls", GO, "echo", f"localhost:{server}", 30)
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, **options) for _ in range(2)]
    assert [process.communicate(timeout=60)[0] for process in both] == [b"done\n"] * 2


def test_a_stream_that_is_cut_is_said_to_be(ssad, pki):
    def cut(tls, _tcp):
        tls.sendall(tls.recv(64))
        os.close(tls.detach())

    with peers.python_server(pki, cut) as port:
        done = run(ssad, LIBCS["musl"], "to_the_end", "localhost", port)
    assert (done.returncode, done.stdout) == (0, b"hello\n")
    assert done.stderr == (
        b"ssa: any_binary-musl: localhost: the connection was cut: its end came without TLS's close_notify\n"
    )


SANITIZED = ["blocking", "epoll", "half", "options", "children", "changing", "replacing", "closes"]


@pytest.mark.skipif(SLOW, reason="user-mode Linux has no room for their shadows")
@pytest.mark.parametrize("way", SANITIZED)
def test_under_sanitizers(way, ssad, server, tmp_path):
    """A supervisor that a sanitizer ends is one that was killed: the program's calls fail."""
    log = tmp_path / "sanitizer"
    words, options = planned(
        ssad, "--quiet", "--tls", LIBCS["musl"], way, "localhost", server, supervisor=NATIVE / "asan" / "ssa-supervise"
    )
    options["env"] |= {"ASAN_OPTIONS": f"log_path={log}:detect_leaks=0", "UBSAN_OPTIONS": f"log_path={log}"}
    done = subprocess.run(words, capture_output=True, timeout=90, check=False, **options)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(tmp_path.iterdir()) == []


# --- the start and the end ---


def test_status_arguments_and_terminal(ssad):
    script = 'echo "$0 $1 $#"; ps -o sid=,pgid=,tty= -p $$ >/dev/null; exit 7'
    done = run(ssad, "sh", "-c", script, "zero", "an argument")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"zero an argument 1\n", b"")
    assert run(ssad, "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


def test_the_process_is_the_programs(ssad):
    words, options = planned(ssad, "sh", "-c", "echo $$ $PPID; wait; ls /proc/self/fd | wc -l")
    with subprocess.Popen(words, stdout=subprocess.PIPE, **options) as process:
        said = process.stdout.read().split()
    assert said == [b"%d" % process.pid, b"%d" % os.getpid(), b"4"]  # and no descriptor more


def test_no_program(ssad):
    done = run(ssad, "/no/such/program")
    assert (done.returncode, done.stderr) == (127, b"ssa: /no/such/program: No such file or directory\n")


def ssa_run(daemon, *arguments):
    """What `ssa run` itself comes to."""
    command = [sys.executable, "-m", "ssa.cli.main", "run", "--seccomp", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | daemon.environment, capture_output=True, timeout=60, check=False)


def test_the_command(ssad, server):
    done = ssa_run(ssad, LIBCS["musl"], "blocking", "localhost", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n512 0\n", b"")


def test_a_setuid_program_is_told(ssad, tmp_path):
    program = tmp_path / "setuid"
    shutil.copy(LIBCS["musl"], program)
    os.chown(program, 12345, 12345)
    program.chmod(0o4755)
    done = ssa_run(ssad, program, "closes")
    assert done.stdout == b"1 1 1\n"
    assert b"it is setuid or setgid, or has capabilities, and runs without them" in done.stderr


def test_a_program_of_another_architecture(ssad, tmp_path):
    program = tmp_path / "program"
    data = bytearray(LIBCS["musl"].read_bytes()[:4096])
    data[4] = 1  # 32 bits
    program.write_bytes(data)
    program.chmod(0o755)
    done = ssa_run(ssad, program)
    assert done.returncode == 126
    assert b"it is built for another architecture than ssa-supervise" in done.stderr
