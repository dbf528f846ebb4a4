"""The recipes of docs/servers.md, with the servers that they are for: what is printed there is what is run."""

import contextlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from tests import peers
from tests.examples import examples
from tests.loopback.test_serve import client, drain, running, serve, ssad

__all__ = ["running", "serve", "ssad"]

RECIPES = examples("servers.md")
BIN = Path(sys.executable).parent
GUNICORN = (BIN / "gunicorn", "--no-control-socket")

WSGI = """
def app(environ, start_response):
    names = ("wsgi.url_scheme", "SSL_CLIENT_S_DN", "REMOTE_ADDR", "REMOTE_PORT")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(f"{environ.get(name)}" for name in names).encode()]
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    tls = scope.get("extensions", {}).get("tls", {})
    body = f"{scope['scheme']} {tls.get('client_cert_name')}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def directory(tmp_path, pki):
    """Where a server is started: the files that the recipes name."""
    for name, target in (("server.pem", pki.cert), ("server.key", pki.key), ("clients-ca.pem", pki.ca)):
        (tmp_path / name).symlink_to(target)
    return tmp_path


@pytest.fixture(scope="module")
def mine(pki):
    """A client's certificate."""
    return pki.issue("client", "client@example.test")


def get(tls):
    """The body of a page."""
    with tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, body = drain(tls)[0].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        if b"chunked" in head:
            body = re.sub(rb"(?:^|\r\n)[0-9a-fA-F]+\r\n", b"", body)
        return body.strip().decode()


@contextlib.contextmanager
def started(directory, ssad, port, *command, **options):
    """A server's program in the recipes' directory, when it listens."""
    environment = os.environ | ssad.environment | {"PYTHONPATH": str(directory)}
    with (directory / "server.log").open("w") as log:
        own = {"stdout": log, "stderr": subprocess.STDOUT, "cwd": directory, "env": environment}
        with peers.program(*command, port=port, **own | options) as process:
            yield process


# --- under inject ---------------------------------------------------------------------------------------------------


def on(recipe, port):
    """The program of a recipe, on a port of this machine."""
    return RECIPES[recipe].replace("0.0.0.0", "127.0.0.1").replace("8443", str(port))


def shows_the_client(pki, mine, ssad, port):
    before = int(ssad.get("stats/handshakes"))
    certificate = x509.load_pem_x509_certificate(mine[0].read_bytes())
    assert get(client(pki, port, cert=mine)).startswith(f"https {certificate.subject.rfc4514_string()}")
    assert int(ssad.get("stats/handshakes")) == before + 1


def refuses_strangers(pki, port, directory):
    stranger = peers.PKI(directory / "stranger")
    assert [answer(pki, port, cert) for cert in (None, (stranger.cert, stranger.key))] == [b"", b""]


def answer(pki, port, cert):
    """What a client with that certificate gets. In TLS 1.3 a refusal comes after the client's handshake."""
    with contextlib.suppress(OSError), client(pki, port, cert=cert) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return tls.recv(100)
    return b""


SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_FDS": "1", "LISTEN_PID": str(os.getpid())})
"""


def test_gunicorn(directory, ssad, pki, mine):
    port = peers.free_port()
    (directory / "app.py").write_text(WSGI)
    (directory / "gunicorn.conf.py").write_text(on("gunicorn", port))
    with started(directory, ssad, port, *GUNICORN, "app:app"):
        shows_the_client(pki, mine, ssad, port)
        refuses_strangers(pki, port, directory)
        shows_the_client(pki, mine, ssad, port)


def test_gunicorn_with_threads_and_a_port_of_systemd(directory, ssad, pki, mine):
    (directory / "app.py").write_text(WSGI)
    (directory / "gunicorn.conf.py").write_text(RECIPES["gunicorn"])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = (sys.executable, "-c", SYSTEMD, listener.fileno(), *GUNICORN, "-k", "gthread", "app:app")
        with started(directory, ssad, None, *command, pass_fds=[listener.fileno()]):
            port = listener.getsockname()[1]
            shows_the_client(pki, mine, ssad, port)
            refuses_strangers(pki, port, directory)
            shows_the_client(pki, mine, ssad, port)


@pytest.mark.parametrize("recipe", ["werkzeug", "uvicorn", "hypercorn"])
def test_a_program(directory, ssad, pki, mine, recipe):
    port = peers.free_port()
    (directory / "app.py").write_text(ASGI)
    with started(directory, ssad, port, sys.executable, "-c", on(recipe, port)):
        shows_the_client(pki, mine, ssad, port)
        refuses_strangers(pki, port, directory)
        shows_the_client(pki, mine, ssad, port)


def test_hypercorn_has_http_2(directory, ssad, pki, mine):
    port = peers.free_port()
    (directory / "app.py").write_text(ASGI)
    with (
        started(directory, ssad, port, sys.executable, "-c", on("hypercorn", port)),
        client(pki, port, cert=mine, alpn=["h2"]) as tls,
    ):
        assert tls.selected_alpn_protocol() == "h2"
        assert tls.recv(9)[3] == 4  # the type of a SETTINGS frame


# --- behind ssa serve -----------------------------------------------------------------------------------------------


def for_wsgi(directory):
    (directory / "app.py").write_text(f"{WSGI}\n{RECIPES['The scheme, for WSGI']}\napp = with_https(app)\n")


def for_asgi(directory):
    (directory / "app.py").write_text(f"{ASGI}\n{RECIPES['The scheme, for ASGI']}\napp = with_https(app)\n")


@pytest.mark.parametrize(
    ("prepare", "command"),
    [
        (for_wsgi, ("--", *GUNICORN, "--bind", "fd://3", "app:app")),
        (for_wsgi, ("--activation", "--", *GUNICORN, "app:app")),
        (for_asgi, ("--", BIN / "hypercorn", "--bind", "fd://3", "app:app")),
        (for_asgi, ("--", BIN / "uvicorn", "--fd", "3", "app:app")),
    ],
    ids=["gunicorn", "activation", "hypercorn", "uvicorn"],
)
def test_a_descriptor(serve, directory, pki, prepare, command):
    prepare(directory)
    service = serve(*command, cwd=directory)
    assert get(client(pki, service.port)).startswith("https None")
    service.process.terminate()
    assert service.process.wait(20) == 0


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_gunicorn_knows_the_client(serve, directory, pki, version):
    for_wsgi(directory)
    command = (*GUNICORN, "--bind", "fd://3", "--proxy-protocol", version, "app:app")
    service = serve("--proxy-protocol", version, "--", *command, cwd=directory)
    tls = client(pki, service.port)
    host, port = tls.getsockname()
    assert get(tls) == f"https None {host} {port}"


NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
    listen unix:{directory}/socket proxy_protocol;
    location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port\\n"; }}
  }}
}}
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_nginx_reads_the_header(serve, tmp_path, pki, mine, version):
    (tmp_path / "nginx.conf").write_text(NGINX.format(directory=tmp_path))
    user = "user root;" if os.geteuid() == 0 else ""
    with peers.program("nginx", "-e", tmp_path / "error.log", "-c", tmp_path / "nginx.conf", "-g", user, port=None):
        assert peers.settled((tmp_path / "socket").exists)
        to = ("--to", f"unix:{tmp_path}/socket", "--alpn", "http/1.1")
        service = serve(*to, "--proxy-protocol", version, "--client-certificate")
        tls = client(pki, service.port, cert=mine, alpn=["http/1.1"])
        host, port = tls.getsockname()
        assert get(tls) == f"{host} {port} {service.port}"


def test_systemd_starts_gunicorn_with_a_socket(serve, directory, ssad, pki):
    """What systemd does for app.socket and app.service, without systemd."""
    for_wsgi(directory)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))
        listener.listen()
        service = serve("--to", f"unix:{directory}/socket")
        early = client(pki, service.port)  # waits in the socket that is there before the server
        command = (sys.executable, "-c", SYSTEMD, listener.fileno(), *GUNICORN, "app:app")
        with started(directory, ssad, None, *command, pass_fds=[listener.fileno()]):
            assert get(early).startswith("https None")
            assert get(client(pki, service.port)).startswith("https None")
