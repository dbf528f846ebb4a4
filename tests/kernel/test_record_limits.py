"""Clients that want short records (RFC 6066 section 4, RFC 8449): they get them, whoever makes the records."""

import os
import subprocess
import threading

import pytest

import ssa
from ssa.handshake.hello import largest_untrusted
from ssa.suites import TLSVersion
from tests import peers
from tests.interop.raw import Raw, context

SIZE = 100_000


@pytest.fixture(params=["ktls-or-relay", "relay"])
def path(request, cleaned):
    """By default, and by the relay alone."""
    if request.param != "relay":
        request.getfixturevalue("capabilities")
    cleaned.set("data_path", request.param)
    return cleaned


def serving(pki):
    return ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key)


def send_to(listener, content, by):
    """Serve one client; what it said."""
    said = []

    def serve():
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(20)
            by(sock, content)
            said.append(sock.recv(100))

    thread = threading.Thread(target=serve)
    thread.start()
    return thread, said


def sendall(sock, content):
    sock.sendall(content)


def sendfile(sock, content):
    fd = os.memfd_create("content")
    with open(fd, "w+b") as file:
        file.write(content)
        file.seek(0)
        sock.sendfile(file, count=len(content))


def check(listener, by, *command, size=SIZE):
    """A client gets all of what is sent to it, and says thanks."""
    content = os.urandom(size // 2).hex().encode()
    thread, said = send_to(listener, content, by)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout.read(len(content)) == content
        client.stdin.write(b"thanks")
        client.stdin.flush()
        thread.join(20)
        client.kill()
    assert said == [b"thanks"]


def s_client(listener, pki, *options):
    address = f"127.0.0.1:{listener.getsockname()[1]}"
    return "openssl", "s_client", "-quiet", "-connect", address, "-CAfile", pki.ca, *options


@pytest.mark.parametrize("by", [sendall, sendfile])
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("length", ["512", "1024", "2048", "4096"])
def test_openssls_client(path, pki, version, length, by):
    with serving(pki) as listener:
        check(listener, by, *s_client(listener, pki, version, "-maxfraglen", length))


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_resumed_session_keeps_it(path, pki, tmp_path, version):
    session = tmp_path / "session"
    with serving(pki) as listener:
        for option in ("-sess_out", "-sess_in"):
            check(listener, sendall, *s_client(listener, pki, version, "-maxfraglen", "512", option, session))


@pytest.mark.parametrize("version", ["VERS-TLS1.2", "VERS-TLS1.3"])
@pytest.mark.parametrize("length", ["512", "1000", "4096"])
def test_gnutlss_client(path, pki, version, length):
    with serving(pki) as listener:
        command = ["gnutls-cli", "--logfile", "/dev/null", "--x509cafile", pki.ca, "--recordsize", length]
        options = ["--priority", f"NORMAL:-VERS-ALL:+{version}", "-p", str(listener.getsockname()[1]), "localhost"]
        # Many records for each length, but not more: gnutls-cli writes each byte with a write(2).
        check(listener, sendall, *command, *options, size=24_000)


def test_the_path_is_told(ssad, pki, capabilities):
    """The kernel where it can, else the relay, with the reason in the log; under `ktls` it is refused with words."""
    with serving(pki) as listener:
        for path in ("ktls-or-relay", "ktls"):
            ssad.set("data_path", path)
            quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            with subprocess.Popen(s_client(listener, pki, "-maxfraglen", "512"), **quiet) as client:
                if path == "ktls" and not capabilities.limits:
                    assert peers.settled(lambda: "data_path is ktls, and this kernel cannot keep records" in ssad.log)
                else:
                    sock, _ = listener.accept()
                    with sock:
                        number = ssad.sockets()[0]
                        expected = "ktls" if capabilities.limits else "relay"
                        assert ssad.get(f"sockets/{number}/data_path").strip() == expected
                client.kill()


@pytest.mark.parametrize("version", TLSVersion, ids=lambda version: version.label)
def test_as_a_client_we_ask_for_none(either, pki, version):
    hellos = []

    class Server(Raw):
        def record(self):
            record = super().record()
            hellos.append(record)
            return record

    either.set("max_version", version.label)

    def serve(sock):
        Server(sock, context(pki, version, server=True), server=True)

    with peers.script(serve) as port, ssa.create_connection(("localhost", port), timeout=10):
        hello = hellos[0][5:]
    assert largest_untrusted(hello) == 0
    extensions = hello[4 + 2 + 32 + 1 + hello[38] :]
    assert b"\0\x1c\0\2" not in extensions  # record_size_limit
