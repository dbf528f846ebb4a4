"""Unmodified servers that link OpenSSL, with libssa-openssl preloaded, and clients that know nothing of ssa."""

import socket
import ssl
import subprocess
import time

import pytest

from tests.native.openssl import servers
from tests.native.openssl.conftest import BIG, counted
from tests.peers import nginx


def client(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, timeout=60, check=False, **options)
    return done.stdout, done.stderr


@pytest.fixture
def directory(everybodys, request):
    made = everybodys / request.node.name
    made.mkdir()
    return made


def curl(pki, port, what, *options):
    return client(["curl", "-sS", "-m", 60, "--cacert", pki.ca, *options, f"https://localhost:{port}/{what}"])


def test_lighttpd(ssad, pki, directory):
    (directory / "big").write_bytes(BIG[: 8 << 20])
    (directory / "hello").write_text("hello")
    made = counted(ssad)[0]
    with servers.lighttpd(pki, directory, ssad.environment) as port:
        assert curl(pki, port, "hello", "-w", "%{http_version}") == (b"hello2", b"")
        assert curl(pki, port, "hello", "--http1.1", "--tls-max", "1.2", "-w", "%{http_version}") == (b"hello1.1", b"")
        assert curl(pki, port, "big")[0] == BIG[: 8 << 20]
    assert counted(ssad)[0] == made + 3


def test_nginx_chooses_its_certificate_and_asks_for_the_clients(ssad, pki, directory, monkeypatch):
    (directory / "big").write_bytes(BIG)
    other, key = pki.issue("other", "other.test")
    cert, own = pki.issue("client", "me.test")
    extra = f"ssl_protocols TLSv1.2 TLSv1.3; ssl_client_certificate {pki.ca}; ssl_verify_client optional;"
    extra += f"location /who {{ return 200 $ssl_client_verify; }} location /big {{ root {directory}; }}"
    extra += f"}} server {{ listen 127.0.0.1:PORT ssl; server_name other.test; ssl_certificate {other};"
    extra += f"ssl_certificate_key {key};"
    made = counted(ssad)[0]
    for name, value in ssad.environment.items():
        monkeypatch.setenv(name, value)
    with nginx(pki, directory, extra) as port:
        for name in ssad.environment:
            monkeypatch.delenv(name)
        assert curl(pki, port, "big")[0] == BIG
        assert curl(pki, port, "who") == (b"NONE", b"")
        assert curl(pki, port, "who", "--cert", cert, "--key", own) == (b"SUCCESS", b"")
        names = ("--connect-to", f"other.test:{port}:127.0.0.1:{port}")
        assert (
            client(["curl", "-sS", "--cacert", pki.ca, *names, f"https://other.test:{port}/hello"])[0]
            == b"hello from nginx\n"
        )
        assert b"plain HTTP request was sent to HTTPS port" in client(["curl", "-sS", f"http://localhost:{port}/"])[0]
    assert counted(ssad)[0] == made + 4


def test_redis(ssad, pki, directory):
    made = counted(ssad)[0]
    with servers.redis(pki, directory / "redis", ssad.environment) as port:
        command = ["redis-cli", "--tls", "--cacert", pki.ca, "-h", "localhost", "-p", port]
        assert client([*command, "-r", 100, "ping"])[0] == b"PONG\n" * 100
        assert client([*command, "-x", "set", "big"], input=BIG[: 8 << 20])[0] == b"OK\n"
        assert client([*command, "--raw", "get", "big"])[0] == BIG[: 8 << 20] + b"\n"
    assert counted(ssad)[0] == made + 3


def test_postgres(ssad, pki, directory):
    made = counted(ssad)[0]
    with servers.postgres(pki, directory / "postgres", ssad.environment) as port:
        where = f"host=localhost port={port} user=postgres dbname=postgres sslmode=verify-full sslrootcert={pki.ca}"
        asked = "select ssl, version, length(repeat('x', 8000000)) from pg_stat_ssl where pid = pg_backend_pid()"
        assert client(["psql", where, "-Atc", asked])[0] == b"t|TLSv1.3|8000000\n"
    assert counted(ssad)[0] == made + 1


def test_socat(ssad, pki):
    made = counted(ssad)[0]
    with servers.socat(pki, ssad.environment) as port:
        command = ["socat", "-t", 10, "-", f"OPENSSL:localhost:{port},cafile={pki.ca}"]
        assert client(command, input=BIG[: 1 << 20]) == (BIG[: 1 << 20], b"")
    assert counted(ssad)[0] == made + 1


def test_mosquitto_and_mariadb(ssad, pki, directory):
    made = counted(ssad)[0]
    with servers.mosquitto(pki, directory / "mosquitto", ssad.environment) as port:
        where = ("-h", "localhost", "-p", port, "--cafile", pki.ca, "-t", "x")
        client(["mosquitto_pub", *where, "-m", "hello", "-r", "-q", 1])
        assert client(["mosquitto_sub", *where, "-C", 1, "-W", 20])[0] == b"hello\n"
    with servers.mariadb(pki, directory / "mariadb", ssad.environment) as port:
        command = ["mariadb", "--no-defaults", "--ssl", "--ssl-verify-server-cert", f"--ssl-ca={pki.ca}"]
        asked = "show status like 'Ssl_version'"
        assert client([*command, "-h", "localhost", "-P", port, "-Ne", asked])[0] == b"Ssl_version\tTLSv1.3\n"
    assert counted(ssad)[0] == made + 3


def test_a_client_that_is_slow_keeps_nobody_waiting(ssad, pki, directory):
    (directory / "hello").write_text("hello")
    context = ssl.create_default_context(cafile=pki.ca)
    with servers.lighttpd(pki, directory, ssad.environment) as port:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        hello = outgoing.read()
        with socket.create_connection(("localhost", port)) as slow:
            slow.sendall(hello[:50])
            assert curl(pki, port, "hello")[0] == b"hello"
            time.sleep(0.1)
            slow.sendall(hello[50:])
            incoming.write(slow.recv(65536))
            assert incoming.pending
