"""Debian's TLS programs in both roles: versions, ciphers, who closes first; all of the data, by its digest.

A server is started once, and we choose the suite; a client is started for each connection, and it chooses.
"""

import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import threading

import pytest

import ssa
from ssa.suites import SUITES, TLSVersion
from tests import peers
from tests.interop.talk import accept, connect, listen, read_all, read_exactly

SIZE = 100_000
CONTENT = os.urandom(SIZE)
ECHOED = CONTENT.hex().encode() + b"\n"

SERVED = [name for name in SUITES if not name.startswith("TLS_DHE")]  # a server of ours has no group for DHE

# By the suite's algorithm, as GnuTLS has it. It has no DHE-RSA with ChaCha20-Poly1305 and CCM by these names only.
GNUTLS = {
    "aes-gcm-256": "AES-256-GCM",
    "aes-gcm-128": "AES-128-GCM",
    "chacha20-poly1305": "CHACHA20-POLY1305",
    "aes-ccm-128": "AES-128-CCM",
}


@pytest.fixture(scope="session")
def directory(tmp_path_factory):
    made = tmp_path_factory.mktemp("served")
    (made / "content").write_bytes(CONTENT)
    return made


@pytest.fixture(scope="session")
def rsa(pki):
    return pki.issue("matrix-rsa", "localhost", key_type="RSA")


# --- servers --------------------------------------------------------------------------------------------------------


def openssl_server(pki, rsa, directory, *arguments):
    certificate, key = rsa
    ciphers = (
        "-cipher",
        "ALL",
        "-ciphersuites",
        ":".join(s for s in SUITES if SUITES[s].version is TLSVersion.TLSv1_3),
    )
    return peers.openssl(pki, "-dcert", certificate, "-dkey", key, *ciphers, *arguments, cwd=directory)


@pytest.fixture(scope="module")
def files(pki, rsa, directory):
    """s_server with files: it closes first."""
    with openssl_server(pki, rsa, directory, "-WWW") as (port, _):
        yield port


@pytest.fixture(scope="module")
def reverser(pki, rsa, directory):
    """s_server that sends lines back to front: we close first."""
    with openssl_server(pki, rsa, directory, "-rev", "-quiet") as (port, _):
        yield port


@pytest.fixture(scope="module")
def gnutls(pki, rsa):
    """gnutls-serv, which sends back what comes."""
    certificate, key = rsa
    everything = "NORMAL:+AES-128-CCM:+AES-256-CCM:+DHE-RSA:+SIGN-ALL"
    with peers.gnutls(pki, everything, "--x509certfile", certificate, "--x509keyfile", key) as port:
        yield port


@pytest.fixture(scope="module")
def nginx(pki, rsa, directory):
    certificate, key = rsa
    extra = f"""
    ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_ciphers ALL; ssl_protocols TLSv1.2 TLSv1.3;
    ssl_conf_command Ciphersuites {":".join(s for s in SUITES if SUITES[s].version is TLSVersion.TLSv1_3)};
    ssl_dhparam {directory}/dh.pem;
    """
    (directory / "dh.pem").write_bytes(DH)
    with peers.nginx(pki, directory, extra) as port:
        yield port


# ffdhe2048 (RFC 7919): OpenSSL knows it by its numbers.
DH = subprocess.run(
    ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048"],
    capture_output=True,
    check=True,
).stdout


def get(sock, path, *headers):
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]
    sock.sendall("\r\n".join(lines).encode())


@pytest.mark.parametrize("name", SUITES)
def test_openssl_serves(ssad, files, reverser, name):
    with connect(files, name) as sock:
        get(sock, "/content")
        assert read_all(sock).partition(b"\r\n\r\n")[2] == CONTENT
    text = os.urandom(4000).hex().encode()
    with connect(reverser, name) as sock:
        sock.sendall(text + b"\n")
        assert read_exactly(sock, len(text) + 1) == text[::-1] + b"\n"
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""


@pytest.mark.parametrize("name", SUITES)
def test_nginx_serves(ssad, nginx, name):
    with connect(nginx, name) as sock:
        get(sock, "/content", "Connection: close")
        assert read_all(sock).partition(b"\r\n\r\n")[2] == CONTENT
    with connect(nginx, name) as sock:
        for _ in range(2):
            get(sock, "/hello")
            assert sock.recv(65536).endswith(b"hello from nginx\n")
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionAbortedError):  # nginx answers a close_notify with a bare end
            read_all(sock)


@pytest.mark.parametrize("name", SERVED)
def test_gnutls_serves(ssad, gnutls, name):
    with connect(gnutls, name) as sock:
        sender = threading.Thread(target=sock.sendall, args=(ECHOED,))
        sender.start()
        assert hashlib.sha256(read_exactly(sock, len(ECHOED))).digest() == hashlib.sha256(ECHOED).digest()
        sender.join()
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""


# --- clients --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def listener_of(pki, rsa):
    """One listener for each suite, as it is asked for."""
    with contextlib.ExitStack() as stack:

        def make(name):
            return stack.enter_context(listen(name, (pki.cert, pki.key), rsa))

        yield make


@contextlib.contextmanager
def program(*command):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([str(word) for word in command], **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def openssl_client(pki, port, suite):
    choice = "-ciphersuites" if suite.version is TLSVersion.TLSv1_3 else "-cipher"
    version = "-tls1_3" if suite.version is TLSVersion.TLSv1_3 else "-tls1_2"
    trust = ("-CAfile", pki.ca, "-verify_return_error", "-verify_hostname", "localhost", "-servername", "localhost")
    return program(
        *("openssl", "s_client", "-quiet", "-no_ign_eof", "-nocommands", "-connect", f"127.0.0.1:{port}"),
        *(*trust, version, choice, suite.openssl),
    )


def gnutls_client(pki, port, suite):
    version = suite.version.label.replace("v", "")
    exchange = "+ECDHE-ECDSA:+ECDHE-RSA:+DHE-RSA"
    priority = f"NONE:+VERS-{version}:+{GNUTLS[suite.aead.name]}:+AEAD:{exchange}:+GROUP-ALL:+SIGN-ALL:+CTYPE-ALL"
    trust = ("--x509cafile", pki.ca, "--verify-hostname", "localhost", "--sni-hostname", "localhost")
    return program("gnutls-cli", "--logfile=/dev/null", *trust, "--priority", priority, "-p", port, "127.0.0.1")


CLIENTS = {"openssl": openssl_client, "gnutls": gnutls_client}
LIMIT = {"openssl": SIZE, "gnutls": 40_000}  # bytes: three records, as gnutls-cli writes each byte with a write(2)


@pytest.mark.parametrize("name", SERVED)
@pytest.mark.parametrize("client", CLIENTS)
def test_a_program_connects(ssad, pki, listener_of, client, name):
    listener = listener_of(name)
    port = listener.getsockname()[1]
    with CLIENTS[client](pki, port, SUITES[name]) as process, accept(listener, name) as sock:
        writer = threading.Thread(target=write, args=(process, CONTENT))  # its input ends, and so it closes first
        writer.start()
        assert hashlib.sha256(read_all(sock)).digest() == hashlib.sha256(CONTENT).digest()
        writer.join()
    content = CONTENT[: LIMIT[client]]
    with CLIENTS[client](pki, port, SUITES[name]) as process:  # we close first
        with accept(listener, name) as sock:
            sock.sendall(content)
        assert hashlib.sha256(process.stdout.read()).digest() == hashlib.sha256(content).digest()
        assert process.wait(10) in (0, 1)
    listener.close()


def write(process, content):
    with process.stdin:
        process.stdin.write(content)


def test_curl_connects(ssad, pki, listener_of, tmp_path):
    """All suites in one process; the server closes first, or, by Content-Length, curl."""
    command, digests = ["curl", "-sS"], []
    threads = []
    for number, name in enumerate(SERVED):
        suite, listener = SUITES[name], listener_of(name)
        port = listener.getsockname()[1]
        choice = "--tls13-ciphers" if suite.version is TLSVersion.TLSv1_3 else "--ciphers"
        target = tmp_path / str(number)
        url = f"https://localhost:{port}/"
        command += ["--next"] * bool(number)
        command += ["-sS", "--cacert", pki.ca, choice, suite.openssl, "-o", target, url]
        threads.append(threading.Thread(target=answer, args=(listener, name, number % 2 == 0)))
        threads[-1].start()
        digests.append(target)
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    for thread in threads:
        thread.join(20)
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(target.read_bytes() == CONTENT for target in digests)


def answer(listener, name, close):
    with accept(listener, name) as sock:
        request = b""
        while b"\r\n\r\n" not in request:
            request += sock.recv(4096)
        length = b"" if close else b"Content-Length: %d\r\n" % SIZE
        sock.sendall(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n" + CONTENT)
        if not close:
            assert read_all(sock) == b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda v: v.name)
@pytest.mark.parametrize("tickets", [0, 1, 2, 8])
def test_tickets_of_our_own_are_counted(ssad, pki, tickets, version, tmp_path):
    """What Python's client takes for a session is what OpenSSL sends as our server: data behind them arrives."""
    context = ssl.create_default_context(cafile=pki.ca)
    context.minimum_version = context.maximum_version = version
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        if tickets == 0:
            listener.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_SESSION_TTL, 0)
        listener.settimeout(20)
        sessions = []
        for _ in range(max(1, tickets)):
            with socket.create_connection(listener.getsockname()) as raw:
                session = sessions[-1] if sessions else None
                tls = context.wrap_socket(raw, server_hostname="localhost", session=session)
                with listener.accept()[0] as sock:
                    sock.sendall(b"behind the tickets")
                    assert tls.recv(100) == b"behind the tickets"
                    tls.sendall(b"answer")
                    assert sock.recv(100) == b"answer"
                    assert bool(sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION)) == bool(tls.session_reused)
                if tickets:
                    sessions.append(tls.session)
                tls.close()
        assert tickets or not tls.session_reused
