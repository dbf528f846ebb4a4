"""The programs of examples/, against real servers and clients: those on ssa, and those on another TLS library."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import types

import pytest

from tests import effort, peers
from tests.native.conftest import PATHS, ROOT
from tests.native.test_run_tls import client, everything
from tests.peers import free_port, listens, settled

HTTP_CLIENT = effort.EXAMPLES / "http-client"
C = ROOT / "build" / "native" / "examples"
GO = ROOT / "build" / "examples-go"
PAGE = bytes(range(256)) * 256

CLIENTS = {
    "ssa": {
        "C": [C / "http-client" / "ssa"],
        "Python": [sys.executable, HTTP_CLIENT / "by_ssa.py"],
        "Go": [GO / "ssa"],
        "PHP": ["php", HTTP_CLIENT / "by_ssa.php"],
    },
    "another": {
        "C": [C / "http-client" / "openssl"],
        "Python": [sys.executable, HTTP_CLIENT / "by_ssl.py"],
        "Go": [GO / "tls"],
        "PHP": ["php", HTTP_CLIENT / "by_tls.php"],
    },
}
# Those with a library of their own do not depend on the data path, and the test kernel starts programs slowly.
BY = ["ssa"] if PATHS[0] == "ktls" else ["ssa", "another"]
EACH = [(by, language) for by in BY for language in CLIENTS[by]]


@pytest.fixture
def credential(ssad, pki):
    """The administrator's, to serve with."""
    directory = ssad.mount / "credentials" / "examples"
    directory.mkdir()
    shutil.copyfile(pki.cert, directory / "certificate")
    shutil.copyfile(pki.key, directory / "key")
    yield ssad
    directory.rmdir()


def handshakes(daemon):
    return int(daemon.get("stats/handshakes"))


def environment(daemon, pki):
    """The programs with a library of their own trust the authority by OpenSSL's and Go's variable."""
    return os.environ | daemon.environment | {"SSL_CERT_FILE": str(pki.ca)}


def run(command, daemon, pki, given=b""):
    command = [str(word) for word in command]
    return subprocess.run(
        command, env=environment(daemon, pki), input=given, capture_output=True, timeout=60, check=False
    )


def page(tls, tcp):
    request = b""
    while b"\r\n\r\n" not in request:
        request += tls.recv(65536)
    tls.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + PAGE)
    if b"/cut" in request:
        tcp.shutdown(socket.SHUT_RDWR)
    else:
        with contextlib.suppress(OSError):  # PHP closes without a word
            tls.unwrap()


@pytest.fixture(scope="module")
def server(pki):
    with peers.python_server(pki, page) as port:
        yield port


@pytest.fixture(scope="module")
def stranger(pki):
    """A server whose certificate is for another name."""
    cert, key = pki.issue("stranger", "stranger.test")
    with peers.python_server(types.SimpleNamespace(cert=cert, key=key), page) as port:
        yield port


@pytest.mark.parametrize(("by", "language"), EACH)
def test_http_client(by, language, ssad, server, pki):
    before = handshakes(ssad)
    done = run([*CLIENTS[by][language], "localhost", server, "/page"], ssad, pki)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"HTTP/1.0 200 OK\r\n\r\n" + PAGE
    assert handshakes(ssad) == before + (by == "ssa")


@pytest.mark.parametrize(("by", "language"), EACH)
def test_http_client_of_a_wrong_name(by, language, ssad, stranger, pki):
    done = run([*CLIENTS[by][language], "localhost", stranger, "/page"], ssad, pki)
    assert done.returncode != 0
    assert b"HTTP/1.0" not in done.stdout
    said = done.stderr + done.stdout
    assert b"certificate" in said.lower() or b"mismatch" in said.lower(), done


CUT = [each for each in EACH if each not in (("another", "PHP"), ("another", "Go"))]  # they take it for a whole one


@pytest.mark.parametrize(("by", "language"), CUT)
def test_http_client_of_a_cut_stream(by, language, ssad, server, pki):
    done = run([*CLIENTS[by][language], "localhost", server, "/cut"], ssad, pki)
    assert done.returncode != 0, done.stderr


# --- servers ---


@contextlib.contextmanager
def serving(daemon, pki, name, version, *arguments):
    port = free_port()
    files = [pki.cert, pki.key] if version == "openssl" else []
    with peers.program(C / name / version, port, *arguments, *files, port=port, env=environment(daemon, pki)):
        yield port


VERSIONS = pytest.mark.parametrize("version", ["ssa", "openssl"] if "another" in BY else ["ssa"])


@VERSIONS
def test_http_server(version, credential, pki, tmp_path):
    (tmp_path / "page").write_bytes(PAGE)
    before = handshakes(credential)
    with serving(credential, pki, "http-server", version, tmp_path) as port:
        for path, expected in ("page", PAGE), ("missing", b"Not found\n"), ("../page", b"Not found\n"):
            with client(pki, port) as tls:
                tls.sendall(f"GET /{path} HTTP/1.0\r\n\r\n".encode())
                head, _, body = everything(tls).partition(b"\r\n\r\n")
                assert f"Content-Length: {len(expected)}" in head.decode()
                assert body == expected
    assert handshakes(credential) == before + 3 * (version == "ssa")


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def pages(tls, count, size):
    """That many pages, one behind the other."""
    for _ in range(count):
        data = b""
        while b"\r\n\r\n" not in data or len(data.partition(b"\r\n\r\n")[2]) < size:
            more = tls.recv(65536)
            assert more
            data += more
        assert data.partition(b"\r\n\r\n")[2] == b"x" * size


@VERSIONS
def test_event_server(version, credential, pki):
    """Many clients at once: one that says nothing, one that sends two requests at once, one byte by byte."""
    size, before = 300_000, handshakes(credential)
    with (
        serving(credential, pki, "event-server", version, size) as port,
        client(pki, port),
        socket.create_connection(("127.0.0.1", port)),
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(client(pki, port)) for _ in range(8)]
        for tls in clients:
            tls.sendall(REQUEST)
        for tls in reversed(clients):
            pages(tls, 1, size)
        for byte in REQUEST:
            clients[0].sendall(bytes([byte]))
        pages(clients[0], 1, size)
        clients[1].sendall(REQUEST + REQUEST)
        first, rest = b"", size * 2 + 2 * len(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")
        while len(first) < rest:
            first += clients[1].recv(65536)
        assert first.count(b"HTTP/1.1 200 OK") == 2
    assert handshakes(credential) == before + 9 * (version == "ssa")


# --- netcat ---


def echo(tls, _tcp):
    while data := tls.recv(65536):
        tls.sendall(data)
    tls.unwrap()


@VERSIONS
def test_netcat(version, ssad, pki, stranger):
    before = handshakes(ssad)
    with peers.python_server(pki, echo) as port:
        done = run([C / "netcat" / version, "localhost", port], ssad, pki, PAGE)
        assert (done.returncode, done.stdout, done.stderr) == (0, PAGE, b"")
    refused = run([C / "netcat" / version, "localhost", stranger], ssad, pki, PAGE)
    assert (refused.returncode, refused.stdout) == (1, b"")
    assert b"name" in refused.stderr
    assert handshakes(ssad) == before + (version == "ssa")


@VERSIONS
def test_netcat_serves(version, credential, pki):
    port, files = free_port(), [pki.cert, pki.key] if version == "openssl" else []
    command = [str(word) for word in (C / "netcat" / version, "-l", port, *files)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, env=environment(credential, pki), **pipes) as netcat:
        assert settled(lambda: listens(port))
        with client(pki, port) as tls:
            netcat.stdin.write(b"hello\n")
            netcat.stdin.flush()
            assert tls.recv(6) == b"hello\n"
            tls.sendall(PAGE)
            netcat.stdin.close()
            netcat.stdin = None
            tls.unwrap()
        out, err = netcat.communicate(timeout=30)
    assert (netcat.returncode, out, err) == (0, PAGE, b"")
