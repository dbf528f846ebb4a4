"""Debian's servers with TLS of their own, as context managers: each yields its port.

A server that is given an `environment` runs with it: so the tests have it serve with libssa-openssl preloaded. Its
files are in a directory that every user can read, as some of them do not run as root.
"""

import contextlib
import grp
import os
import pwd
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.peers import LIGHTTPD, free_port, program, python_server

QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
POSTGRES = Path("/usr/lib/postgresql/15/bin")


def _options(environment):
    return QUIET | {"env": os.environ | (environment or {})}


@contextlib.contextmanager
def redis(pki, directory, environment=None, versions="TLSv1.2 TLSv1.3"):
    """redis-server; without clients' certificates."""
    port = free_port()
    directory.mkdir()
    files = ("--tls-cert-file", pki.cert, "--tls-key-file", pki.key, "--tls-ca-cert-file", pki.ca)
    tls = (
        "--port",
        0,
        "--tls-port",
        port,
        "--tls-auth-clients",
        "no",
        "--tls-protocols",
        versions,
        "--bind",
        "0.0.0.0",
    )
    quiet = ("--save", "", "--dir", directory, "--protected-mode", "no", "--proto-max-bulk-len", "128mb")
    with program("redis-server", *tls, *files, *quiet, port=port, **_options(environment)):
        yield port


@contextlib.contextmanager
def mosquitto(pki, directory, environment=None, versions=None):
    """A broker of MQTT."""
    port = free_port()
    directory.mkdir()
    configuration = directory / "mosquitto.conf"
    lines = [f"listener {port} 0.0.0.0", "allow_anonymous true", f"certfile {pki.cert}", f"keyfile {pki.key}"]
    configuration.write_text("\n".join([*lines, "user root"]) + "\n")
    limits = directory / "openssl.cnf"  # its own tls_version is the lowest
    limits.write_text(
        "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = limits\n"
        f"[limits]\nMaxProtocol = {versions or 'TLSv1.3'}\n"
    )
    options = _options((environment or {}) | {"OPENSSL_CONF": str(limits)})
    with program("/usr/sbin/mosquitto", "-c", configuration, port=port, **options):
        yield port


def _cluster(directory):
    """A new PostgreSQL cluster, of the user postgres."""
    data = directory / "data"
    command = [POSTGRES / "initdb", "-D", data, "--no-sync", "--auth=trust", "--no-instructions", "-E", "UTF8"]
    shutil.chown(directory, "postgres", "postgres")
    subprocess.run(
        command,
        check=True,
        user="postgres",
        group="postgres",
        extra_groups=[],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C"},
        stdout=subprocess.DEVNULL,
    )
    with (data / "pg_hba.conf").open("w") as file:
        file.write("hostssl all all all trust\nlocal all all trust\n")
    return data


@contextlib.contextmanager
def postgres(pki, directory, environment=None, versions=None):
    """A PostgreSQL; its superuser is postgres."""
    port = free_port()
    directory.mkdir()
    data = _cluster(directory)
    for source, name in ((pki.cert, "server.crt"), (pki.key, "server.key")):
        shutil.copy(source, data / name)
        shutil.chown(data / name, "postgres", "postgres")
        (data / name).chmod(0o600)
    settings = {
        "port": port,
        "listen_addresses": "*",
        "unix_socket_directories": directory,
        "ssl": "on",
        "fsync": "off",
    }
    if versions:
        settings["ssl_max_protocol_version"] = versions
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    user = pwd.getpwnam("postgres")
    options = _options(environment) | {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": [], "cwd": directory}
    options["stderr"] = (directory / "log").open("w")
    with program(POSTGRES / "postgres", "-D", data, *words, port=port, **options):
        _answers(["psql", f"host={directory} port={port} user=postgres dbname=postgres", "-Atc", "select 1"])
        yield port


def _answers(command):
    """Wait until a server does."""
    deadline = time.monotonic() + 20
    while subprocess.run(command, check=False, **QUIET).returncode:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{command} has no answer")
        time.sleep(0.05)


@contextlib.contextmanager
def mariadb(pki, directory, environment=None, versions=None):
    """A MariaDB without accounts: whoever comes may do everything."""
    port = free_port()
    directory.mkdir()
    data = directory / "data"
    data.mkdir()
    shutil.chown(data, "nobody", grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name)
    tls = [f"--ssl-cert={pki.cert}", f"--ssl-key={pki.key}"] + ([f"--tls-version={versions}"] if versions else [])
    small = ["--innodb=OFF", "--default-storage-engine=Aria", "--max-allowed-packet=128M"]
    where = [f"--datadir={data}", f"--port={port}", f"--socket={directory}/socket", f"--tmpdir={directory}"]
    how = ["--no-defaults", "--user=root", "--skip-grant-tables", "--skip-networking=0", "--bind-address=0.0.0.0"]
    options = _options(environment) | {"stderr": (directory / "log").open("w")}
    with program("/usr/sbin/mariadbd", *how, *where, *small, *tls, port=port, **options):
        yield port


@contextlib.contextmanager
def lighttpd(pki, directory, environment=None, extra=""):
    """lighttpd, which serves its directory."""
    port = free_port()
    directory.mkdir(exist_ok=True)
    configuration = directory / "lighttpd.conf"
    values = {"directory": directory, "port": port, "address": "0.0.0.0", "cert": pki.cert, "key": pki.key}
    extra = f'server.errorlog = "{directory}/error.log"\n{extra}'
    configuration.write_text(LIGHTTPD.format(**values, extra=extra))
    with program("/usr/sbin/lighttpd", "-D", "-f", configuration, port=port, **_options(environment)):
        yield port


@contextlib.contextmanager
def socat(pki, environment=None):
    """socat, which sends back what comes."""
    port = free_port()
    address = f"OPENSSL-LISTEN:{port},cert={pki.cert},key={pki.key},verify=0,reuseaddr,fork"
    with program("socat", address, "EXEC:cat", port=port, **_options(environment)):
        yield port


@contextlib.contextmanager
def forwarder(port, host="127.0.0.1", cut_after=None, cut_sent_after=None):
    """A TCP port that leads to another one; `cut_after` so many bytes of the server, both ends are closed.

    `cut_sent_after` is the same for the client's bytes.
    """
    listener = socket.create_server((host, 0))

    def pump(source, sink, left):
        with contextlib.suppress(OSError):
            while left > 0 and (data := source.recv(min(65536, left))):
                sink.sendall(data)
                left -= len(data)
        for sock, how in (
            ((sink, socket.SHUT_WR),) if left > 0 else ((sink, socket.SHUT_RDWR), (source, socket.SHUT_RDWR))
        ):
            with contextlib.suppress(OSError):
                sock.shutdown(how)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", port))
                for ends in ((near, far, cut_sent_after or sys.maxsize), (far, near, cut_after or sys.maxsize)):
                    threading.Thread(target=pump, args=ends, daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


@contextlib.contextmanager
def irc(pki, versions=None):
    """As much of an IRC server as welcomes a client."""

    def serve(tls, _tcp):
        file = tls.makefile("rwb", buffering=0)
        while line := file.readline():
            if line.startswith(b"CAP LS"):
                file.write(b":irc CAP * LS :\r\n")
            if line.startswith(b"USER"):
                file.write(b":irc 001 me :hello from irc\r\n")
            if line.startswith(b"QUIT"):
                return

    with python_server(pki, serve, versions or ssl.TLSVersion.TLSv1_3) as port:
        yield port
