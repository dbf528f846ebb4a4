"""The servers and clients that are measured: an nginx, an ssad, and an `ssl` context with the same trust anchors."""

from __future__ import annotations

import contextlib
import enum
import os
import resource
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import ssa
from ssa.trust.store import SYSTEM_PATHS
from tests.peers import PKI, Daemon, free_port, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOST = "localhost"
_DESCRIPTORS = 8192

# One cipher suite of each version and one group, so that both clients do the same arithmetic.
_NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s; client_header_timeout 600s;
  ssl_certificate {cert}; ssl_certificate_key {key}; ssl_ecdh_curve X25519; ssl_prefer_server_ciphers on;
  ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256; ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  server {{ listen 127.0.0.1:{ports[0]} ssl backlog=1024; ssl_protocols TLSv1.2; return 200 "hello\\n"; }}
  server {{ listen 127.0.0.1:{ports[1]} ssl backlog=1024; ssl_protocols TLSv1.3;
    location / {{ return 200 "hello\n"; }}
    location = /megabyte {{ root {directory}; }} }}
  server {{ listen 127.0.0.1:{ports[2]} backlog=1024; location = /megabyte {{ root {directory}; }} }}
}}
"""
MEGABYTE = 1_000_000  # the size of the file of that name


class Part(enum.StrEnum):
    """One of the two halves of the benchmark."""

    HOST = "host"  # the relay, on this machine's own kernel
    KERNEL = "kernel"  # kernel TLS


@dataclass(frozen=True, slots=True)
class World:
    """The servers, the daemon and the other client's context."""

    part: Part
    tls12: int  # nginx's port for TLS 1.2 alone
    tls13: int
    http: int  # without TLS
    daemon: Daemon
    context: ssl.SSLContext
    ca: Path  # the authority of the servers' certificates
    anchors: Path  # that authority and the system's, in one file: ssad's trust store
    cert: Path
    key: Path

    def ssa(self, port: int) -> None:
        """Connect and close, with ssa."""
        os.close(ssa.connect_tls(HOST, port))

    def ssl(self, port: int) -> None:
        """Connect and close, with `ssl`. Neither client sends close_notify."""
        connect_ssl(self.context, port).close()

    def pair(self, port: int) -> tuple[Callable[[], None], Callable[[], None]]:
        """Both clients, for one server."""
        return (lambda: self.ssa(port)), (lambda: self.ssl(port))


def connect_ssl(context: ssl.SSLContext, port: int) -> ssl.SSLSocket:
    """Connect as a Python program without ssa does."""
    sock = socket.create_connection((HOST, port))
    return context.wrap_socket(sock, server_hostname=HOST)


@contextlib.contextmanager
def x25519(world: World) -> Iterator[None]:
    """Have ssad offer x25519 alone, as OpenSSL 3.0 does."""
    default = world.daemon.get("policy/groups")
    world.daemon.set("groups", "x25519")
    try:
        yield
    finally:
        world.daemon.set("groups", default)


@contextlib.contextmanager
def beside(module: str, *arguments: object) -> Iterator[int]:
    """Run a module of this package as a process of its own. Gives the port that it prints."""
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent) as process:
        try:
            yield int(process.stdout.readline()) if process.stdout else 0
        finally:
            process.kill()


@contextlib.contextmanager
def world(part: Part) -> Iterator[World]:
    """Start all of it, in a temporary directory."""
    _allow_descriptors()
    with tempfile.TemporaryDirectory(prefix="ssa-bench.") as name:
        directory = Path(name)
        pki = PKI(directory / "pki")
        # A leaf under an intermediate, as with public servers.
        leaf = pki.authority.create_child_ca().issue_cert(HOST, "127.0.0.1")
        cert, key = pki.store("bench", leaf)
        anchors = directory / "trust.pem"
        anchors.write_bytes(_system_store().read_bytes() + pki.ca.read_bytes())
        with _nginx(directory / "nginx", cert, key) as ports, _daemon(directory, anchors, part) as daemon:
            os.environ.update(daemon.environment)
            yield World(part, *ports, daemon, _context(pki.ca), pki.ca, anchors, cert, key)


def _allow_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def _nginx(directory: Path, cert: Path, key: Path) -> Iterator[tuple[int, int, int]]:
    directory.mkdir()
    ports = free_port(), free_port(), free_port()
    (directory / "megabyte").write_bytes(bytes(MEGABYTE))
    configuration = directory / "nginx.conf"
    configuration.write_text(_NGINX.format(directory=directory, ports=ports, cert=cert, key=key))
    nginx = shutil.which("nginx") or "/usr/sbin/nginx"
    user = "user root;" if os.geteuid() == 0 else ""
    with program(nginx, "-e", directory / "error.log", "-c", configuration, "-g", user, port=ports[1]):
        yield ports


@contextlib.contextmanager
def _daemon(directory: Path, anchors: Path, part: Part) -> Iterator[Daemon]:
    """Run an ssad that trusts these anchors."""
    policy = f'[policy]\ntrust_store = "{anchors}"\ndata_path = "{DATA_PATHS[part]}"\n'
    with Daemon(directory, policy=policy) as daemon:
        yield daemon


DATA_PATHS = {Part.HOST: "relay", Part.KERNEL: "ktls-or-relay"}


def _system_store() -> Path:
    return next(path for name in SYSTEM_PATHS if (path := Path(name)).is_file())


def _context(ca: Path) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.load_verify_locations(ca)
    return context
