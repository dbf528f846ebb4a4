"""`ssa run --tls`, `--tls-to` and `--tls-listen`: programs that know no TLS, against Python's own `ssl`."""

import contextlib
import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssa.cli.command import prepared
from ssa.cli.failure import Failure
from ssa.cli.main import build_parser
from ssa.cli.run import variables
from tests import peers
from tests.native.test_c_bad_luck import once

NATIVE = Path(__file__).resolve().parents[2] / "build" / "native"
WITHOUT_TLS = NATIVE / "tests" / "without_tls"
MANY = bytes(range(256)) * 4096 * 8  # 8 MiB


def ssa_run(daemon, *arguments):
    """What `ssa run` itself comes to."""
    command = [sys.executable, "-m", "ssa.cli.main", "run", *map(str, arguments)]
    environment = os.environ | daemon.environment
    return subprocess.run(command, input=b"hello\n", env=environment, capture_output=True, timeout=60, check=False)


def planned(daemon, *arguments):
    """What `ssa run` does, in this process: its start takes longer than most programs."""
    options = build_parser(["run"]).parse_args(prepared(["run", *map(str, arguments)]))
    return options.command[1:], {"env": variables(options) | daemon.environment}


def run(daemon, *arguments, given=b"hello\n"):
    """What a program under `ssa run` comes to."""
    words, options = planned(daemon, *arguments)
    return subprocess.run(words, input=given, capture_output=True, timeout=60, check=False, **options)


def preloaded(daemon, *command, **settings):
    """What a program comes to with these settings."""
    environment = os.environ | daemon.environment | {"LD_PRELOAD": str(NATIVE / "libssa.so"), "SSA_EXPLAIN": "1"}
    environment |= settings
    command = [str(word) for word in command]
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False
    )


def handshakes(daemon):
    return int(daemon.get("stats/handshakes"))


def echo(tls, _tcp):
    while data := tls.recv(65536):
        tls.sendall(data)
    tls.unwrap()


@pytest.fixture(scope="module")
def server(pki):
    with peers.python_server(pki, echo) as port:
        yield port


# --- clients ---

NETCATS = {"openbsd": ("nc.openbsd", "-N"), "traditional": ("nc.traditional", "-q", "2")}


@pytest.mark.parametrize("netcat", NETCATS)
def test_netcat(netcat, ssad, server):
    before = handshakes(ssad)
    done = ssa_run(ssad, "--tls", *NETCATS[netcat], "localhost", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    assert handshakes(ssad) == before + 1


def test_telnet(ssad, server):
    words, options = planned(ssad, "--tls", "telnet", "localhost", server)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(words, **pipes, **options) as telnet:
        telnet.stdin.write(b"a line\n")
        telnet.stdin.flush()
        said = b""
        while b"a line" not in said and (data := os.read(telnet.stdout.fileno(), 4096)):
            said += data
        telnet.stdin.close()
    assert b"Connected to localhost" in said
    assert b"a line" in said


def test_eight_megabytes(ssad, server):
    done = run(ssad, "--tls", "nc.openbsd", "-N", "localhost", server, given=MANY)
    assert (done.returncode, done.stderr) == (0, b"")
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(MANY).digest()


WAYS = re.findall(r'\{"(\w+)", \w+\}', (Path(__file__).parent / "without_tls.c").read_text())


@pytest.mark.parametrize("way", [way for way in WAYS if way != "reverse"])
def test_ways_of_c(way, ssad, server):
    before, count = handshakes(ssad), 4 if way == "threads" else 1
    done = preloaded(ssad, WITHOUT_TLS, way, "localhost", server, SSA_TLS="all")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n" * count, b"")
    assert handshakes(ssad) == before + count


EVENT_LOOP = """
import asyncio, sys

async def one(number):
    reader, writer = await asyncio.open_connection("localhost", int(sys.argv[1]))
    writer.write(b"%d\\n" % number)
    await writer.drain()
    line = await reader.readline()
    writer.close()
    return int(line)

async def all():
    return await asyncio.gather(*map(one, range(20)))

print(sum(asyncio.run(all())))
"""


def test_an_event_loop(ssad, server):
    before = handshakes(ssad)
    done = run(ssad, "--tls", sys.executable, "-c", EVENT_LOOP, server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"190\n", b"")
    assert handshakes(ssad) == before + 20


# --- what is refused ---


@pytest.mark.parametrize("way", ["usual", "epoll"])
def test_a_wrong_name(way, ssad, pki):
    with peers.python_server(Other(pki.issue("another", "another.test")), echo) as port:
        done = preloaded(ssad, WITHOUT_TLS, way, "localhost", port, SSA_TLS="all")
    said = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout, len(said)) == (1, b"", 2)
    assert said[0].startswith("ssa: without_tls: localhost: certificate is for another name")
    assert said[1] == "connect: Permission denied"


class Other:
    """Another certificate for a server of the tests."""

    def __init__(self, files):
        self.cert, self.key = files


def test_an_unknown_ca(ssad, tmp_path):
    with peers.python_server(peers.PKI(tmp_path), echo) as port:
        done = run(ssad, "--tls", "nc.traditional", "-v", "localhost", port)
    assert done.returncode == 1
    assert b"ssa: nc.traditional: localhost: no path from the certificate to a trust anchor" in done.stderr
    assert b"Permission denied" in done.stderr


@once
def test_a_server_without_tls(ssad):
    got = []

    def serve(connection):
        connection.sendall(b"220 plain text\r\n" * 8)
        connection.settimeout(5)
        got.append(connection.recv(4096))

    with peers.script(serve) as port:
        done = preloaded(ssad, WITHOUT_TLS, "usual", "localhost", port, SSA_TLS="all")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"connect: Protocol error" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not any(b"hello" in data for data in got)


def test_an_address_needs_a_name(ssad, server):
    before = handshakes(ssad)
    done = run(ssad, "--tls", "nc.openbsd", "-v", "-N", "127.0.0.1", server)
    said = done.stderr.decode().splitlines()
    assert (done.returncode, done.stdout) == (1, b"")
    assert said[0] == (
        "ssa: nc.openbsd: 127.0.0.1: no name was looked up that led to 127.0.0.1: "
        "`ssa run --name NAME` says whose it is"
    )
    assert "Permission denied" in said[1]
    assert handshakes(ssad) == before
    done = run(ssad, "--tls", "--name", "example.test", "nc.openbsd", "-N", "127.0.0.1", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    done = run(ssad, "--tls", "--name", "wrong.test", "nc.openbsd", "-N", "localhost", server)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"expected DNS wrong.test" in done.stderr


@once
def test_a_name_that_an_address_led_to_is_nobodys_wish(ssad, server):
    done = preloaded(ssad, WITHOUT_TLS, "reverse", "127.0.0.1", server, SSA_TLS="all")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no name was looked up" in done.stderr


@once
def test_quiet(ssad, server):
    done = run(ssad, "--tls", "--quiet", WITHOUT_TLS, "usual", "127.0.0.1", server)
    assert (done.returncode, done.stderr) == (1, b"connect: Permission denied\n")


def test_a_cut_stream(ssad, pki):
    def cut(tls, tcp):
        tls.sendall(tls.recv(100))
        tls.recv(100)  # the client's end: unread, it would be a reset
        tcp.shutdown(socket.SHUT_RDWR)

    with peers.python_server(pki, cut) as port:
        done = preloaded(ssad, WITHOUT_TLS, "usual", "localhost", port, SSA_TLS="all")
    assert (done.returncode, done.stdout) == (1, b"hello\n")
    assert b"ssa: without_tls: localhost: the connection was cut" in done.stderr
    assert b"read: Software caused connection abort" in done.stderr


class Nobody:
    """A run directory without an ssad."""

    def __init__(self, directory):
        self.environment = {"SSA_RUN_DIR": str(directory)}


@once
@pytest.mark.parametrize("way", ["usual", "epoll"])
def test_no_ssad(way, tmp_path, server, libssa):
    done = preloaded(Nobody(tmp_path), WITHOUT_TLS, way, "localhost", server, SSA_TLS="all")
    said = done.stderr.decode().splitlines()
    assert (done.returncode, len(said)) == (1, 2)
    assert said[0].startswith("ssa: without_tls: localhost: ")
    assert "no ssad" in said[0]
    assert said[1] == "connect: Connection refused"


@once
def test_tcps_own_errors_are_the_programs_to_tell(ssad):
    done = preloaded(ssad, WITHOUT_TLS, "usual", "localhost", peers.free_port(), SSA_TLS="all")
    assert (done.returncode, done.stderr) == (1, b"connect: Connection refused\n")


@once
@pytest.mark.parametrize("setting", ["SSA_TLS=localhost", "SSA_TLS=", "SSA_TLS=a:0", "SSA_TLS_LISTEN=x"])
def test_settings_that_cannot_be_read_stop_all(setting, ssad, server):
    name, value = setting.split("=")
    done = preloaded(ssad, WITHOUT_TLS, "usual", "localhost", server, **({"SSA_TLS": "all"} | {name: value}))
    assert (done.returncode, done.stdout) == (1, b"")
    assert f"the setting {name} cannot be read".encode() in done.stderr


# --- some connections only ---

TWO = """
import socket, sys
for port in sys.argv[1:]:
    with socket.create_connection(("localhost", int(port))) as s:
        s.sendall(b"hello")
        print(s.recv(100))
"""


@once
def test_some_connections(ssad, server):
    with peers.script(lambda connection: connection.sendall(b"plain " + connection.recv(100))) as plain:
        before = handshakes(ssad)
        done = run(ssad, "--tls-to", f"LOCALHOST:{server}", sys.executable, "-c", TWO, server, plain)
        assert (done.stdout, done.stderr) == (b"b'hello'\nb'plain hello'\n", b"")
        assert handshakes(ssad) == before + 1
        done = run(ssad, "--tls-to", f"other.test:{plain}", sys.executable, "-c", TWO, plain)
        assert done.stdout == b"b'plain hello'\n"  # another server on that port
        done = run(ssad, "--tls-to", f"127.0.0.1:{server}", sys.executable, "-c", TWO, server)
        assert done.stdout == b"b'hello'\n"
        assert handshakes(ssad) == before + 2


@once
def test_as_many_servers_as_can_be(ssad, server):
    others = [f"--tls-to={number}{'x' * 240}.test:{server}" for number in range(63)]
    done = run(ssad, *others, f"--tls-to=localhost:{server}", WITHOUT_TLS, "usual", "localhost", server)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hello\n", b"")
    with pytest.raises(Failure):
        run(ssad, *others, *others[:2], WITHOUT_TLS, "usual", "localhost", server)


@once
def test_an_address_without_a_name_may_be_the_servers(ssad):
    with peers.script(lambda connection: connection.sendall(b"plain")) as port:
        done = run(ssad, "--tls-to", f"example.test:{port}", "nc.openbsd", "-N", "127.0.0.1", port)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"no name was looked up" in done.stderr


OTHERS = """
import socket, os, tempfile
path = tempfile.mkdtemp() + "/socket"
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
client = socket.socket(socket.AF_UNIX)
client.connect(path)
client.send(b"unix")
print(listener.accept()[0].recv(10))
a = socket.socket(type=socket.SOCK_DGRAM)
a.bind(("127.0.0.1", 0))
b = socket.socket(type=socket.SOCK_DGRAM)
b.connect(a.getsockname())
b.send(b"udp")
print(a.recv(10))
try:
    socket.create_connection(("127.0.0.1", 53), 5).send(b"dns")
except ConnectionRefusedError as failure:
    print(failure)
"""


@once
def test_what_is_left_alone(ssad):
    done = run(ssad, "--tls", "--tls-listen", sys.executable, "-c", OTHERS)
    assert done.stdout.splitlines()[:2] == [b"b'unix'", b"b'udp'"]
    assert done.stderr == b""


# --- names ---

NAMES = {
    "an address": (["take 192.0.2.1 443"], ["-"]),
    "a name": (["look a 192.0.2.1 0", "take 192.0.2.1 443", "take 192.0.2.1 443"], ["a", "a"]),
    "another address": (["look a 192.0.2.1 0", "take 192.0.2.2 443"], ["-"]),
    "another port": (["look a 192.0.2.1 443", "take 192.0.2.1 80", "take 192.0.2.1 443"], ["-", "a"]),
    "two ports": (
        ["look a 192.0.2.1 443", "look b 192.0.2.1 80", "take 192.0.2.1 443", "take 192.0.2.1 80"],
        ["a", "b"],
    ),
    "one behind the other": (
        ["look a 192.0.2.1 443", "take 192.0.2.1 443", "look b 192.0.2.1 443", "take 192.0.2.1 443"],
        ["a", "b"],
    ),
    "both again": (
        ["look a 192.0.2.1 1", "take 192.0.2.1 1", "look b 192.0.2.1 1", "take 192.0.2.1 1", "take 192.0.2.1 1"],
        ["a", "b", "?"],
    ),
    "two at once": (["look a 192.0.2.1 443", "look b 192.0.2.1 443", "take 192.0.2.1 443"], ["?"]),
    "two at once, and one again": (
        ["look a 192.0.2.1 1", "look b 192.0.2.1 1", "take 192.0.2.1 1", "look a 192.0.2.1 1", "take 192.0.2.1 1"],
        ["?", "a"],
    ),
    "a name's other address": (
        ["look a 192.0.2.1 1", "look a 192.0.2.2 1", "take 192.0.2.1 1", "look b 192.0.2.2 1", "take 192.0.2.2 1"],
        ["a", "b"],
    ),
    "case and the root's dot": (["look A. 192.0.2.1 1", "look a 192.0.2.1 1", "take 192.0.2.1 1"], ["a"]),
    "no name": (["look 192.0.2.1 192.0.2.1 1", "look 127.1 192.0.2.1 1", "take 192.0.2.1 1"], ["-"]),
    "from the DNS": (["answer a", "look a 192.0.2.1 1", "take 192.0.2.1 1"], ["-"]),
    "from the user, and then from the DNS": (
        ["look a 192.0.2.1 1", "answer a", "look a 192.0.2.3 1", "take 192.0.2.3 1"],
        ["a"],
    ),
    "the longest": ([f"look {'a' * 255} 192.0.2.1 1", "take 192.0.2.1 1"], ["a" * 255]),
    "too long": ([f"look {'a' * 256} 192.0.2.1 1", "take 192.0.2.1 1"], ["-"]),
    "the oldest is forgotten": (
        ["look a 192.0.2.1 1", *(f"look b{n} 192.0.2.2 1" for n in range(512)), "take 192.0.2.1 1"],
        ["-"],
    ),
}


@once
@pytest.mark.parametrize("case", NAMES)
def test_names(case, libssa):
    given, expected = NAMES[case]
    done = subprocess.run(
        [NATIVE / "tests" / "names"], input="\n".join(given) + "\n", capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == expected


# --- servers ---


@pytest.fixture
def credential(ssad, pki):
    """The administrator's, to serve with."""
    directory = ssad.mount / "credentials" / "run"
    directory.mkdir()
    shutil.copyfile(pki.cert, directory / "certificate")
    shutil.copyfile(pki.key, directory / "key")
    yield ssad
    directory.rmdir()


@contextlib.contextmanager
def serving(daemon, *arguments, port, **options):
    words, how = planned(daemon, *arguments)
    options = {"stdout": subprocess.DEVNULL, "stdin": subprocess.DEVNULL} | how | options
    with peers.program(*words, port=port, **options) as process:
        yield process


@contextlib.contextmanager
def client(pki, port):
    context = ssl.create_default_context(cafile=str(pki.ca))
    with (
        socket.create_connection(("127.0.0.1", port), 20) as tcp,
        context.wrap_socket(tcp, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
    ):
        yield tls


def everything(tls):
    data = b""
    while more := tls.recv(65536):
        data += more
    return data


LISTENING = {
    "openbsd": lambda port: ("nc.openbsd", "-N", "-l", port),
    "traditional": lambda port: ("nc.traditional", "-q", "2", "-l", "-p", port),
}


@pytest.mark.parametrize("netcat", LISTENING)
def test_netcat_serves(netcat, credential, pki, tmp_path):
    port, before = peers.free_port(), handshakes(credential)
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(b"a greeting\n")
    with (
        sent.open("rb") as given,
        got.open("wb") as taken,
        serving(credential, "--tls-listen", *LISTENING[netcat](port), port=port, stdin=given, stdout=taken) as process,
    ):
        with client(pki, port) as tls:
            tls.sendall(b"an answer\n")
            assert everything(tls) == b"a greeting\n"
            tls.unwrap()
        process.wait(20)
    assert got.read_bytes() == b"an answer\n"
    assert handshakes(credential) == before + 1


def test_http_server(credential, pki, tmp_path):
    (tmp_path / "file").write_bytes(MANY)
    port = peers.free_port()
    command = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", tmp_path, port)
    with serving(credential, f"--tls-listen={port}", *command, port=port, stderr=subprocess.DEVNULL):
        context = ssl.create_default_context(cafile=str(pki.ca))
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=30)
        connection.request("GET", "/file")
        assert hashlib.sha256(connection.getresponse().read()).digest() == hashlib.sha256(MANY).digest()
        connection.close()
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert b"HTTP" not in plain.recv(4096)


def test_memcached(credential, pki):
    port, before = peers.free_port(), handshakes(credential)
    command = ("memcached", "-u", "root", "-l", "127.0.0.1", "-p", port, "-U", 0)
    with (
        serving(credential, f"--tls-listen={port}", *command, port=port),
        client(pki, port) as tls,
        client(pki, port) as other,
    ):
        file = other.makefile("rb")
        for number in range(20):
            tls.sendall(b"set key%d 0 0 5\r\nvalue\r\n" % number)
            assert tls.recv(100) == b"STORED\r\n"
            other.sendall(b"get key%d\r\n" % number)
            assert [file.readline() for _ in range(3)][1] == b"value\r\n"
    assert handshakes(credential) == before + 2


EVENT_SERVER = """
import asyncio, sys

async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()

async def main():
    for port in sys.argv[1:]:
        server = await asyncio.start_server(serve, "127.0.0.1", int(port))
    await server.serve_forever()

asyncio.run(main())
"""

FORKING_SERVER = """
import os, socket, sys
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for number in range(3):
    if not os.fork():
        break
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rwb") as file:
        for line in file:
            file.write(line.upper())
            file.flush()
"""


@pytest.mark.parametrize("code", [EVENT_SERVER, FORKING_SERVER], ids=["epoll", "pre-forking"])
def test_many_at_once(code, credential, pki):
    port, before = peers.free_port(), handshakes(credential)
    with (
        serving(credential, "--tls-listen", sys.executable, "-c", code, port, port=port),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(client(pki, port)) for _ in range(4)]
        for number, tls in enumerate(clients):
            tls.sendall(b"line %d\n" % number)
        assert [tls.recv(100) for tls in clients] == [b"LINE %d\n" % number for number in range(4)]
    assert handshakes(credential) == before + 4


@once
def test_some_listeners(credential, pki):
    port, plain = peers.free_port(), peers.free_port()
    command = (sys.executable, "-c", EVENT_SERVER, plain, port)
    with serving(credential, f"--tls-listen={port}", *command, port=port):
        with client(pki, port) as tls:
            tls.sendall(b"a\n")
            assert tls.recv(10) == b"A\n"
        with socket.create_connection(("127.0.0.1", plain)) as tcp:
            tcp.sendall(b"b\n")
            assert tcp.recv(10) == b"B\n"


@once
def test_a_listener_that_came_from_elsewhere(credential, pki):
    """As systemd starts a service: with a socket that listens already."""
    code = "import socket, sys; c = socket.socket(fileno=int(sys.argv[1])).accept()[0]; c.send(c.recv(9)); c.close()"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port, number = listener.getsockname()[1], listener.fileno()
        command = (sys.executable, "-c", code, number)
        with serving(credential, "--tls-listen", *command, port=port, pass_fds=[number]), client(pki, port) as tls:
            tls.sendall(b"hello")
            assert everything(tls) == b"hello"


@once
def test_a_server_that_is_refused(tmp_path, ssad):
    code = "import socket; socket.create_server(('127.0.0.1', 0))"
    done = run(Nobody(tmp_path), "--tls-listen", sys.executable, "-c", code)
    assert done.returncode == 1
    assert b": listening: " in done.stderr
    assert b"ConnectionRefusedError" in done.stderr
    done = run(ssad, "--tls-listen", sys.executable, "-c", code)
    assert b"ssa: python" in done.stderr, "there is no credential"
    assert b"PermissionError" in done.stderr


@once
@pytest.mark.parametrize("kind", ["epoll", "pre-forking", "memcached"])
def test_a_server_outlives_ssad(kind, pki, tmp_path, libssa):
    """While there is none it rests, and goes on with the next one."""
    port = peers.free_port()
    command, asked, answer = {
        "epoll": ((sys.executable, "-c", EVENT_SERVER, port), b"after\n", b"AFTER\n"),
        "pre-forking": ((sys.executable, "-c", FORKING_SERVER, port), b"after\n", b"AFTER\n"),
        "memcached": (("memcached", "-u", "root", "-l", "127.0.0.1", "-p", port, "-U", 0), b"get key\r\n", b"END\r\n"),
    }[kind]
    daemon = provided(tmp_path, pki)
    with (
        (tmp_path / "errors").open("w") as errors,
        serving(daemon, "--tls-listen", *command, port=port, stderr=errors) as process,
    ):
        assert peers.settled(lambda: any((daemon.mount / "listeners").iterdir()))
        daemon.stop()
        before = seconds_of(process)
        time.sleep(1)
        assert seconds_of(process) - before < 0.3
        daemon = provided(tmp_path, pki)
        try:
            with client(pki, port) as tls:
                tls.sendall(asked)
                assert tls.recv(10) == answer
        finally:
            daemon.stop()
    said = [line for line in (tmp_path / "errors").read_text().splitlines() if line.startswith("ssa: ")]
    assert any("listening: no ssad listens" in line for line in said)
    assert len(said) < 20  # of four processes: it has gone, there is none, and the next has no credential yet


def provided(directory, pki):
    """An ssad with a credential."""
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    daemon = peers.Daemon(directory, policy=policy).start()
    store = daemon.mount / "credentials" / "run"
    store.mkdir()
    for source, name in ((pki.cert, "certificate"), (pki.key, "key")):
        shutil.copyfile(source, store / name)
    return daemon


def seconds_of(process):
    """The processor's time that a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the command itself ---


@once
def test_the_program_has_its_own_options(ssad):
    assert ssa_run(ssad, "--tls", "--", "echo", "--tls-listen", "--", "-h").stdout == b"--tls-listen -- -h\n"
    assert ssa_run(ssad, "--tls-listen", "--quiet", "echo", "--list").stdout == b"--list\n"
    refused = ssa_run(ssad, "--name", "x", "true")
    assert (refused.returncode, refused.stderr) == (1, b"ssa: --name is for --tls and --tls-to\n")
    assert ssa_run(ssad, "--tls-to", "localhost", "true").returncode == 2
