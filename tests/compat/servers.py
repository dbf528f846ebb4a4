"""The servers that the programs meet: each is started once for all of them, and gives its ports by the protocol."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

from tests import mailservers, peers
from tests.compat import standins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAMS = Path(__file__).parent / "programs"
RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"
WHEEL = "nothing-1.0-py3-none-any.whl"
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


@contextlib.contextmanager
def nginx(pki: peers.PKI, directory: Path, _python: str) -> Iterator[dict[str, int]]:
    """nginx, with HTTP/2 on a second port, a bucket for boto3 and an index of packages for pip."""
    index = directory / "simple" / "nothing"
    bucket = directory / "bucket"
    for path in (index, bucket):
        path.mkdir(parents=True)
    (bucket / "hello").write_text("hello from nginx\n")
    (index / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    make_wheel(index / WHEEL)
    http2 = peers.free_port()
    with peers.nginx(pki, directory, f"listen 127.0.0.1:{http2} ssl http2;") as port:
        yield {"https": port, "h2": http2}


def make_wheel(path: Path) -> None:
    """The smallest package that pip takes."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        file.writestr("nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("nothing-1.0.dist-info/RECORD", "")


@contextlib.contextmanager
def redis(pki: peers.PKI, directory: Path, _python: str) -> Iterator[dict[str, int]]:
    port = peers.free_port()
    command = ("redis-server", "--port", 0, "--tls-port", port, "--save", "", "--dir", directory)
    files = ("--tls-cert-file", pki.cert, "--tls-key-file", pki.key, "--tls-ca-cert-file", pki.ca)
    with peers.program(*command, *files, "--tls-auth-clients", "no", port=port, **QUIET):
        yield {"redis": port}


def _as_nobody() -> None:
    os.setgroups([])
    os.setgid(mailservers.NOBODY)
    os.setuid(mailservers.NOBODY)


def _for_nobody(pki: peers.PKI, directory: Path) -> tuple[Path, Path]:
    """Copies of the certificate and its key that a server which runs as nobody may read."""
    shutil.chown(directory, mailservers.NOBODY, mailservers.NOBODY)
    copies = directory / "server.pem", directory / "server.key"
    for original, copy in zip((pki.cert, pki.key), copies, strict=True):
        shutil.copyfile(original, copy)
        shutil.chown(copy, mailservers.NOBODY, mailservers.NOBODY)
        copy.chmod(0o600)
    return copies


@contextlib.contextmanager
def postgresql(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    """PostgreSQL, which trusts everybody who says that he is `me`."""
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"))
    with mailservers.open_directory() as home:
        cert, key = _for_nobody(pki, home)
        as_nobody = {"preexec_fn": _as_nobody, "cwd": home, "env": {"HOME": str(home), "PATH": os.environ["PATH"]}}
        initdb = (programs / "initdb", "-D", home / "data", "-U", "me", "-A", "trust", "--no-sync")
        subprocess.run(initdb, check=True, **QUIET, **as_nobody)
        port = peers.free_port()
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": home,
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": cert,
            "ssl_key_file": key,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with peers.program(
            programs / "postgres", "-D", home / "data", "-p", port, *options, port=port, **QUIET, **as_nobody
        ) as server:
            yield {"postgresql": port}
            server.terminate()
            server.wait(20)


MARIADB_USERS = "CREATE USER me@'%' IDENTIFIED BY 'secret';\nDROP USER IF EXISTS ''@localhost;\n"


@contextlib.contextmanager
def mariadb(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    with mailservers.open_directory() as home:
        cert, key = _for_nobody(pki, home)
        (home / "users.sql").write_text(MARIADB_USERS)
        # user-mode Linux has no room for the addresses that InnoDB reserves by default
        memory = ("--innodb-buffer-pool-size=32M", "--innodb-buffer-pool-size-max=32M")
        data = (f"--datadir={home}/data", "--user=nobody", *memory)
        install = ("mariadb-install-db", "--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal")
        subprocess.run([*install, *data], check=True, **QUIET)
        port = peers.free_port()
        here = (f"--socket={home}/socket", "--bind-address=127.0.0.1", f"--port={port}", f"--pid-file={home}/pid")
        tls = (f"--ssl-cert={cert}", f"--ssl-key={key}", f"--init-file={home}/users.sql")
        with peers.program("mariadbd", "--no-defaults", *data, *here, *tls, port=port, **QUIET):
            yield {"mysql": port}


@contextlib.contextmanager
def mosquitto(pki: peers.PKI, directory: Path, _python: str) -> Iterator[dict[str, int]]:
    port = peers.free_port()
    configuration = directory / "mosquitto.conf"
    files = f"certfile {pki.cert}\nkeyfile {pki.key}"
    configuration.write_text(f"user root\nlistener {port} 127.0.0.1\n{files}\nallow_anonymous true\n")
    with peers.program("mosquitto", "-c", configuration, port=port, **QUIET):
        yield {"mqtt": port}


RABBITMQ_CONF = """
listeners.tcp = none
listeners.ssl.1 = 127.0.0.1:{port}
ssl_options.certfile = {cert}
ssl_options.keyfile = {key}
ssl_options.verify = verify_none
"""


@contextlib.contextmanager
def rabbitmq(pki: peers.PKI, directory: Path, _python: str) -> Iterator[dict[str, int]]:
    """RabbitMQ, and Erlang's port mapper, which would stay if RabbitMQ started it."""
    port, mapper, distribution = (peers.free_port() for _ in range(3))
    (directory / "rabbitmq.conf").write_text(RABBITMQ_CONF.format(port=port, cert=pki.cert, key=pki.key))
    environment = os.environ | {
        "HOME": str(directory),
        "ERL_EPMD_PORT": str(mapper),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_LOG_BASE": str(directory),
        "RABBITMQ_MNESIA_BASE": str(directory),
        "RABBITMQ_NODENAME": "ssa@localhost",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1 +sbwt none +sbwtdcpu none +sbwtdio none",
    }
    options = {"env": environment, **QUIET}
    with (
        peers.program("epmd", "-port", mapper, "-address", "127.0.0.1", port=mapper, **options),
        peers.program(RABBITMQ, port=port, seconds=300, **options),
    ):
        yield {"amqp": port}


@contextlib.contextmanager
def dovecot(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    """Dovecot; the mail that it takes goes on to an SMTP server that throws it away."""
    with peers.script(standins.smtp) as relay, mailservers.dovecot(pki, relay) as ports:
        yield ports


@contextlib.contextmanager
def dovecot_and_pop3(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    """One more, for what `make test` does without: POP3 is in a package of its own."""
    with peers.script(standins.smtp) as relay, mailservers.dovecot(pki, relay, mailservers.ALL) as ports:
        yield {name: ports[name] for name in ("pop3", "pop3s", "smtps")}


@contextlib.contextmanager
def vsftpd(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    with mailservers.vsftpd(pki) as (port, _files):
        yield {"ftp": port}


@contextlib.contextmanager
def websockets(pki: peers.PKI, directory: Path, python: str) -> Iterator[dict[str, int]]:
    """The server of the library `websockets`, with Python's own `ssl`: Debian has no other echo."""
    port = peers.free_port()
    with peers.program(python, PROGRAMS / "serve_websockets.py", port, pki.cert, pki.key, port=port, cwd=directory):
        yield {"websocket": port}


@contextlib.contextmanager
def kafka(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    with peers.python_server(pki, standins.kafka) as port:
        yield {"kafka": port}


@contextlib.contextmanager
def mongodb(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    with peers.python_server(pki, standins.mongodb) as port:
        yield {"mongodb": port}


# Who serves a protocol, and the name that the page gives it.
SERVERS: dict[str, tuple[Callable[..., contextlib.AbstractContextManager[dict[str, int]]], str]] = {
    "https": (nginx, "nginx"),
    "h2": (nginx, "nginx"),
    "redis": (redis, "Redis"),
    "postgresql": (postgresql, "PostgreSQL"),
    "mysql": (mariadb, "MariaDB"),
    "mqtt": (mosquitto, "mosquitto"),
    "amqp": (rabbitmq, "RabbitMQ"),
    "smtp": (dovecot, "Dovecot"),
    "smtps": (dovecot_and_pop3, "Dovecot"),
    "imap": (dovecot, "Dovecot"),
    "imaps": (dovecot, "Dovecot"),
    "pop3": (dovecot_and_pop3, "Dovecot"),
    "pop3s": (dovecot_and_pop3, "Dovecot"),
    "ftp": (vsftpd, "vsftpd"),
    "websocket": (websockets, "websockets with ssl"),
    "kafka": (kafka, "a stand-in"),
    "mongodb": (mongodb, "a stand-in"),
}


@contextlib.contextmanager
def speechless(pki: peers.PKI, _directory: Path, _python: str) -> Iterator[dict[str, int]]:
    """TLS and nothing in it."""
    with peers.python_server(pki, lambda tls, _tcp: tls.recv(1)) as port:
        yield {"amqp": port}


# A client that refuses a certificate says nothing to its server. RabbitMQ takes a minute and more in user-mode Linux.
OF_ANOTHER_NAME = {rabbitmq: speechless}


@contextlib.contextmanager
def serving(
    protocols: set[str], pki: peers.PKI, directory: Path, python: str, *, good: bool = True
) -> Iterator[dict[str, int]]:
    """Start the servers of these protocols, `good` ones or with a certificate for another name; yields their ports."""
    servers = {SERVERS[protocol][0] for protocol in protocols}
    if not good:
        servers = {OF_ANOTHER_NAME.get(server, server) for server in servers}
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as stack:
        for server in sorted(servers, key=lambda server: server.__name__):
            own = directory / server.__name__
            own.mkdir(parents=True)
            began = time.monotonic()
            ports |= stack.enter_context(server(pki, own, python))
            print(f"{server.__name__} serves after {time.monotonic() - began:.1f} s", flush=True)
        yield ports
