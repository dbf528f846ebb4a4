"""The command line with a running ssad, against servers that are not ours."""

import contextlib
import hashlib
import json
import os
import pwd
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading

import pytest

import ssa
from tests import peers

VERB = ("-m", "ssa.cli.main")
SSA = (sys.executable, *VERB)
SIZE = 8 << 20
GET = b"GET /hello HTTP/1.0\r\n\r\n"


def run(*arguments, data=b"", program=SSA, **options):
    return subprocess.run(
        [*program, *map(str, arguments)], input=data, capture_output=True, timeout=60, check=False, **options
    )


def told(done):
    """The one line that a failure is told in."""
    assert done.returncode == 1, done
    assert re.fullmatch(rb"ssa: [^\n]+\n", done.stderr), done.stderr
    return done.stderr.decode()


@contextlib.contextmanager
def tls_server(pki, serve, version=None):
    """A server by Python's ssl, to end in ways that programs do not: `serve(connection)` once a connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)
    if version is not None:
        context.minimum_version = context.maximum_version = version

    def accept(connection):
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as wrapped:
            serve(wrapped)

    with peers.script(accept) as port:
        yield port


# --- connect --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_a_request_gets_its_whole_answer(ssad, pki, tmp_path, version):
    body = os.urandom(1 << 20)
    with peers.nginx(pki, tmp_path / "nginx", f"ssl_protocols {version};") as port:
        (tmp_path / "nginx" / "file").write_bytes(body)
        done = run("connect", "localhost", port, data=b"GET /file HTTP/1.0\r\n\r\n")
    assert (done.returncode, done.stderr) == (0, b"")
    head, _, received = done.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert received == body


def counting(connection):
    """Answers when it has all that there is."""
    count = 0
    while data := connection.recv(1 << 16):  # b"" is a close_notify: the bare end of a stream is an error
        count += len(data)
    connection.sendall(b"%d bytes" % count)
    connection.unwrap()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
@pytest.mark.parametrize("size", [0, 5, SIZE])
def test_the_end_of_the_input_is_told_and_the_answer_still_comes(either, pki, version, size):
    with tls_server(pki, counting, version) as port:
        done = run("connect", "localhost", port, data=bytes(size))
    assert (done.returncode, done.stdout, done.stderr) == (0, b"%d bytes" % size, b"")


def test_the_end_of_the_input_is_kept_to_oneself(either, pki):
    """For servers that hang up at it, with the answer unsent."""

    def serve(connection):
        assert connection.recv(100) == b"question"
        connection.settimeout(0.5)
        try:
            connection.recv(100)
        except TimeoutError:
            connection.settimeout(None)
            connection.sendall(b"answer")
        connection.unwrap()

    with tls_server(pki, serve) as port:
        done = run("connect", "--no-shutdown", "localhost", port, data=b"question")
    assert (done.returncode, done.stdout) == (0, b"answer")


def test_openssl_answers(ssad, pki):
    with peers.openssl(pki, "-www") as (port, _):
        done = run("connect", "localhost", port, data=b"GET / HTTP/1.0\r\n\r\n")
    assert done.stdout.startswith(b"HTTP/1.0 200 ok")


def test_verbose(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        done = run("connect", "-v", "--crlf", "--alpn", "http/1.1", "--timeout", "20", "--source", "127.0.0.1",
                   "localhost", port, data=b"GET /hello HTTP/1.0\n\n")  # fmt: skip
    assert done.returncode == 0
    assert done.stdout.endswith(b"hello from nginx\n")
    line = rf"ssa: connected to localhost \(127\.0\.0\.1:{port}\): TLSv1\.[23] \S+ \S+, http/1\.1, ktls, socket \d+\n"
    assert re.fullmatch(line, done.stderr.decode())


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_8_mib_both_ways_at_once(ssad, pki, version):
    ours, theirs = os.urandom(SIZE), os.urandom(SIZE)
    received = {}

    def take(name, file):
        digest, left = hashlib.sha256(), SIZE
        while left:
            data = file.read1(1 << 16)
            assert data
            digest.update(data)
            left -= len(data)
        received[name] = digest.digest()

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with peers.openssl(pki, "-quiet", version, **pipes) as (port, server):
        command = [*SSA, "connect", "localhost", str(port)]
        with subprocess.Popen(command, **pipes, stderr=subprocess.PIPE) as client:
            threads = [
                threading.Thread(target=take, args=("ours", server.stdout)),
                threading.Thread(target=take, args=("theirs", client.stdout)),
                threading.Thread(target=client.stdin.write, args=(ours,)),
                threading.Thread(target=server.stdin.write, args=(theirs,)),
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert received == {"ours": hashlib.sha256(ours).digest(), "theirs": hashlib.sha256(theirs).digest()}
            server.kill()  # no close_notify, and so the command has to say that the stream was cut
            assert client.wait(20) == 1
            assert b"cut" in client.stderr.read() or b"reset" in client.stderr.read()


def test_a_slow_reader_does_not_stop_the_input(ssad, pki):
    """The peer sends more than our output takes, and reads on meanwhile: it must get all of the input."""
    got = threading.Event()

    def serve(connection):
        sender = threading.Thread(target=connection.sendall, args=(bytes(SIZE),))
        sender.start()
        left = SIZE
        while left:
            left -= len(connection.recv(1 << 16))
        got.set()
        sender.join(60)
        connection.unwrap()

    with (
        tls_server(pki, serve) as port,
        subprocess.Popen(
            [*SSA, "connect", "localhost", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as client,
    ):
        client.stdin.write(bytes(SIZE))  # nobody reads client.stdout
        client.stdin.flush()
        assert got.wait(30)
        assert len(client.stdout.read()) == SIZE
        assert client.wait(20) == 0


def test_a_cut_stream_is_an_error(ssad, pki):
    def serve(connection):
        connection.sendall(b"half of it")
        connection.recv(16)
        socket.socket.shutdown(connection, socket.SHUT_RDWR)  # FIN, without close_notify

    with tls_server(pki, serve) as port:
        done = run("connect", "localhost", port, data=b"go")
    assert done.stdout == b"half of it"
    assert f"localhost:{port}: the connection was cut" in told(done)


def test_the_peer_may_end_before_the_input(ssad, pki, tmp_path):
    """That the peer has ended is the end; that it has not taken all of the input is told."""

    def serve(connection):
        connection.sendall(b"bye")
        with contextlib.suppress(OSError):
            connection.unwrap()

    with tls_server(pki, serve) as port:
        (tmp_path / "large").write_bytes(bytes(SIZE))
        with (tmp_path / "large").open() as file:
            large = run("connect", "localhost", port, data=None, stdin=file)
        with subprocess.Popen(
            [*SSA, "connect", "localhost", str(port)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as idle:
            assert idle.stdout.read() == b"bye"  # although its input is open still
            assert idle.wait(20) == 0
    assert large.stdout == b"bye"
    assert f"localhost:{port}: " in told(large)


def test_an_interrupt(ssad, pki):
    with peers.openssl(pki, "-quiet") as (port, _):
        command = [*SSA, "connect", "-v", "localhost", str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as client:
            assert client.stderr.readline().startswith(b"ssa: connected")
            client.send_signal(signal.SIGINT)
            assert client.wait(20) == 130
            assert client.stderr.read() == b""


def test_nobody_reads_the_output(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        (tmp_path / "nginx" / "file").write_bytes(bytes(SIZE))
        command = f"printf 'GET /file HTTP/1.0\\r\\n\\r\\n' | {' '.join(SSA)} connect localhost {port} | head -c 4"
        done = subprocess.run(command, shell=True, capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"HTTP", b"")


def test_refusals_say_what_is_wrong_and_whose_fault_it_is(ssad, pki, tmp_path):
    wrong = pki.issue("wrong", "mail.example")
    with peers.openssl(pki, "-tls1_2") as (old, _), peers.openssl(pki, cert=wrong) as (other, _):
        ssad.set("min_version", "TLSv1.3")
        assert "(UNSUPPORTED_VERSION: the peer's fault)" in told(run("connect", "localhost", old))
        assert "(HOSTNAME_MISMATCH: the peer's fault)" in told(run("connect", "localhost", other))
    ssad.set("alpn", "h2")
    with socket.create_server(("127.0.0.1", 0)) as listener:  # the connection comes before the policy is asked
        done = run("connect", "--alpn", "smtp", "localhost", listener.getsockname()[1])
    assert "(POLICY_DENIED: this machine's policy)" in told(done)
    assert "Connection refused" in told(run("connect", "localhost", peers.free_port()))
    assert "another family" in told(run("connect", "::1", 1, "--source", "127.0.0.1"))


# --- ls, show, doctor -----------------------------------------------------------------------------------------------


@pytest.fixture
def connected(ssad, pki, tmp_path):
    """The number of a socket that is open, and its port."""
    with peers.nginx(pki, tmp_path / "nginx", "ssl_protocols TLSv1.3;") as port:
        fd = ssa.connect_tls("127.0.0.1", port)
        (number,) = ssad.sockets()
        yield int(number), port
        ssa.close(fd)


def test_ls(connected):
    number, port = connected
    rows = run("ls").stdout.decode().splitlines()
    assert rows[0].split()[:3] == ["ID", "USER", "PID"]
    assert rows[1].split()[:3] == [str(number), pwd.getpwuid(os.getuid()).pw_name, str(os.getpid())]
    assert f"127.0.0.1:{port}" in rows[1]
    (found,) = json.loads(run("ls", "--json").stdout)
    assert found["script"].endswith("pytest")  # as the tests were started: -m pytest, .venv/bin/pytest
    assert (found["id"], found["pid"], found["exe"]) == (number, os.getpid(), os.path.realpath(sys.executable))
    assert (found["version"], found["data_path"]) == ("TLSv1.3", "ktls")
    assert found["bytes_sent"] > 200


def test_show(connected):
    number, _ = connected
    printed = run("show", number).stdout.decode()
    assert f"socket {number}\n" in printed
    for words in ("subject ", "issuer ", "DNS:localhost", "not_after", "name: ok", "compliant       yes"):
        assert words in printed
    found = json.loads(run("show", number, "--json").stdout)
    assert found["certificates"][0]["names"][0] == "DNS:localhost"
    assert any(line.startswith("path: ok") for line in found["verdicts"])
    assert "there is no TLS socket 999999" in told(run("show", 999999))


def test_doctor(ssad):
    done = run("doctor")
    assert done.returncode == 0, done
    assert b"all is well" in done.stdout
    found = {finding["check"]: finding for finding in json.loads(run("doctor", "--json").stdout)["findings"]}
    assert "aes-gcm-256" in found["TLSv1.3"]["detail"]
    assert str(ssad.mount) in found["file system"]["detail"]
    assert str(ssad.config) in found["policy file"]["detail"]


def test_a_daemon_that_has_crashed(ssad, tmp_path, monkeypatch):
    with peers.Daemon(tmp_path) as other:
        for name, value in other.environment.items():
            monkeypatch.setenv(name, value)
        other.process.send_signal(signal.SIGSTOP)
        stuck = {finding["check"]: finding for finding in json.loads(run("doctor", "--json").stdout)["findings"]}
        assert "does not answer" in stuck["file system"]["detail"]
        other.process.kill()
        other.process.wait()
        assert "is gone: start `ssad` again" in told(run("ls"))
        assert "no ssad listens" in told(run("connect", "localhost", 1))
        subprocess.run(["umount", "-l", other.mount], check=True)


# --- policy ---------------------------------------------------------------------------------------------------------


def test_policy(ssad, pki):
    printed = run("policy").stdout.decode()
    assert re.search(r"^min_version +TLSv1\.2\n +Lowest", printed, re.MULTILINE)
    assert re.search(rf"^trust_store +{pki.ca}\s+\(not the\s+default\)", printed, re.MULTILINE)
    assert json.loads(run("policy", "get", "trust_store", "--json").stdout)["value"] == str(pki.ca)


def test_policy_set_is_for_the_next_handshake(ssad, pki):
    with peers.openssl(pki, "-tls1_2", "-quiet") as (port, _):
        assert run("policy", "set", "min_version", "TLSv1.3").returncode == 0
        with pytest.raises(ssa.HandshakeError):
            ssa.connect_tls("localhost", port)
    assert run("policy", "set", "groups", "x25519", "P-256").returncode == 0
    assert run("policy", "get", "groups").stdout == b"x25519\nP-256\n"
    assert run("policy", "set", "alpn", "").returncode == 0


BAD = {
    "min_version": "SSLv3",
    "max_version": "tls1.3",
    "groups": "x25519 X25519",
    "ciphers": "HIGH",
    "min_rsa_bits": "12",
    "handshake_timeout": "soon",
    "data_path": "ktls-or-rely",
}


def test_a_bad_value_is_explained_as_in_the_log(ssad, tmp_path):
    for name, value in BAD.items():
        reason = (
            told(run("policy", "set", name, value)).removeprefix("ssa: ").partition(" The policy stays")[0].rstrip(".")
        )
        assert reason.startswith(f"{name}: ")
        assert reason in ssad.log
    (tmp_path / "empty.pem").write_text("")
    for store in ("/nonexistent", str(tmp_path / "empty.pem")):
        assert "trust_store: " in (line := told(run("policy", "set", "trust_store", store)))
        assert "its log says why" not in line
        assert store in line
    line = told(run("policy", "set", "trust_store", str(ssad.mount / "version")))
    assert "the file system that ssad itself provides" in line


def test_policy_save(ssad):
    before = ssad.config.read_text()
    ssad.set("min_version", "TLSv1.3")
    assert run("policy", "save").returncode == 0
    assert 'min_version = "TLSv1.3"' in ssad.config.read_text()
    ssad.config.write_text(before)


def test_who_is_not_root_may_look_only(ssad, connected, site):
    number, _ = connected
    for path in ssad.mount.parents:
        if path.owner() == "root" and path.is_relative_to("/tmp"):
            path.chmod(0o755)
    nobody = {
        "program": (os.path.realpath(sys.executable), *VERB),
        "env": os.environ | {"PYTHONPATH": str(site)},
        "cwd": "/",
        "user": 65534,
        "group": 65534,
        "extra_groups": [],
    }
    assert run("ls", **nobody).stdout == b"no TLS sockets\nand 1 of other users, which root can see\n"
    assert "is another user's" in told(run("show", number, **nobody))
    assert run("policy", **nobody).returncode == 0
    assert "only ssad's own user" in told(run("policy", "set", "min_version", "TLSv1.3", **nobody))
    ssad.set("min_rsa_bits", "3072")  # else there is nothing to save
    assert "Permission denied" in told(run("policy", "save", **nobody))
    assert run("doctor", **nobody).returncode == 0
