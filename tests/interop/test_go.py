"""Go's crypto/tls in both roles: versions, ciphers, who closes first. One process each, for all connections."""

import hashlib
import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from ssa.library import key_lifetime
from ssa.suites import AEADS, SUITES, TLSVersion
from tests.interop.talk import accept, connect, listen, read_all

SOURCE = Path(__file__).parent / "go"
BUILD = Path(__file__).parents[2] / "build"
SIZE = 100_000

# Go has no DHE and no CCM.
NUMBERS = {
    "TLS_AES_128_GCM_SHA256": 0x1301,
    "TLS_AES_256_GCM_SHA384": 0x1302,
    "TLS_CHACHA20_POLY1305_SHA256": 0x1303,
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": 0xC02B,
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": 0xC02C,
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": 0xC02F,
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": 0xC030,
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA8,
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": 0xCCA9,
}


@pytest.fixture(scope="session")
def program():
    """The Go program, compiled where it is not or not any more."""
    made = BUILD / "interop-go"
    source = SOURCE / "main.go"
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        environment = os.environ | {"GOCACHE": str(BUILD / "go-cache"), "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-trimpath", "-o", made, "."], cwd=SOURCE, env=environment, check=True)
    return made


@pytest.fixture(scope="session")
def certificates(pki):
    return [pki.issue("go-ecdsa", "localhost"), pki.issue("go-rsa", "localhost", key_type="RSA")]


class Go:
    """A process of the program: what it tells, line by line."""

    def __init__(self, process):
        self.process = process

    def line(self):
        return json.loads(self.process.stdout.readline())

    def ask(self, **job):
        self.process.stdin.write(json.dumps(job).encode() + b"\n")
        self.process.stdin.flush()


@pytest.fixture(scope="session")
def run(program):
    processes = []

    def start(*arguments):
        process = subprocess.Popen([program, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        return Go(process)

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def go_server(run, certificates):
    server = run("server", *(str(file) for pair in certificates for file in pair))
    return server, server.line()


@pytest.fixture(scope="session")
def go_client(run, pki):
    return run("client", str(pki.ca))


def data(size):
    """What the program makes, too."""
    return bytes((i * 7 + (i >> 8)) & 255 for i in range(size))


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("name", NUMBERS)
def test_a_go_server(ssad, go_server, name):
    server, port = go_server
    content = os.urandom(SIZE)
    with connect(port, name) as sock:  # we end our half first
        sock.sendall(b"answer 0\n" + content)
        sock.shutdown(socket.SHUT_WR)
        assert digest(read_all(sock)) == digest(content)
    with connect(port, name) as sock:  # the server does
        sock.sendall(b"speak %d\n" % SIZE)
        assert read_all(sock) == data(SIZE)
        sock.sendall(content)
    for _ in range(2):
        told = server.line()
        assert (told["Error"], told["Suite"], told["Digest"]) == ("", NUMBERS[name], digest(content))
        assert told["Version"] == SUITES[name].version


@pytest.mark.parametrize("name", NUMBERS)
def test_a_go_client(ssad, go_client, certificates, name):
    suite = SUITES[name]
    with listen(name, *certificates) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        number = NUMBERS[name] if suite.version is TLSVersion.TLSv1_2 else 0
        job = {"Address": address, "Version": suite.version, "Suite": number, "Size": SIZE}
        content = os.urandom(SIZE)

        go_client.ask(Script="answer", **job)  # the client ends its half first
        with accept(listener, name) as sock:
            assert read_all(sock) == data(SIZE)
            sock.sendall(content)

        told = go_client.line()
        assert (told["Error"], told["Suite"], told["Digest"]) == ("", NUMBERS[name], digest(content))

        go_client.ask(Script="speak", **job)  # we do
        with accept(listener, name) as sock:
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == data(SIZE)
        told = go_client.line()
        assert (told["Error"], told["Suite"], told["Digest"]) == ("", NUMBERS[name], digest(content))


def test_go_follows_our_updates(ssad, go_server, capabilities, monkeypatch):
    """Our keys change on the way; Go sends back what it read."""
    server, port = go_server
    for aead in AEADS.values():
        monkeypatch.setattr(aead, "limit", 64)
    monkeypatch.setattr(key_lifetime, "STRIDE", 8)
    before = int(ssad.get("stats/key_updates"))
    content = b"".join(b"%05d" % number for number in range(200))
    with connect(port, "TLS_AES_128_GCM_SHA256") as sock:
        sock.sendall(b"echo 0\n")
        if capabilities.rekey:
            for at in range(0, len(content), 5):
                sock.sendall(content[at : at + 5])
        else:
            content = content[:20]
            sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == content
    assert server.line()["Error"] == ""
    assert (int(ssad.get("stats/key_updates")) > before) is capabilities.rekey
