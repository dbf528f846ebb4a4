"""Unmodified programs that link GnuTLS, with libssa-gnutls preloaded: on the kernel's TLS where there is some."""

import contextlib
import hashlib
import imaplib
import re
import shutil
import socket
import ssl
import subprocess
import threading

import pytest

from tests import mailservers
from tests.native.conftest import PATHS, ROOT
from tests.native.gnutls import programs
from tests.native.openssl.conftest import counted, everybodys, run, running, ssad, strangers
from tests.peers import nginx

__all__ = ["counted", "everybodys", "run", "running", "ssad", "strangers"]

# The test kernel starts programs slowly, and has no room for a sanitizer: there, what the data path changes is tested.
collect_ignore = ["test_gnutls_bad_luck.py"] if PATHS[0] == "ktls" else []

BIG = bytes(range(256)) * (programs.WEB_SIZE >> 8)
HELLO = {"web": b"hello from the web\n", "ftp": b"hello from ftp\n", "smtp": b"Dovecot"}


@pytest.fixture(scope="session")
def preload(everybodys):
    made = ROOT / "build" / "native" / "libssa-gnutls.so"
    assert made.exists(), "`make native` makes it"
    return shutil.copy(made, everybodys)


# --- the servers, which run without ssa ----------------------------------------------------------------------------


def _repository(directory, content):
    """A bare git repository with one file, for git's protocol of plain files."""
    work = directory.parent / f"{directory.name}.work"
    work.mkdir(parents=True)
    (work / "file").write_bytes(content)
    who = ["-c", "user.name=me", "-c", "user.email=me@example.org", "-c", "core.compression=0"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "it"]):
        subprocess.run(["git", *who, *command], cwd=work, check=True)
    subprocess.run(["git", "clone", "-q", "--bare", work, directory], check=True)
    subprocess.run(["git", "update-server-info"], cwd=directory, check=True)
    shutil.rmtree(work)


@contextlib.contextmanager
def _web(pki, directory, versions):
    (directory / "pages").mkdir(parents=True)
    (directory / "pages" / "hello").write_bytes(HELLO["web"])
    (directory / "pages" / "big").write_bytes(BIG)
    (directory / "pages" / "some").write_bytes(BIG[: 1 << 20])
    _repository(directory / "pages" / "hello.git", HELLO["web"])
    _repository(directory / "pages" / "big.git", BIG)
    limit = f"ssl_protocols {versions or 'TLSv1.2 TLSv1.3'};"
    locations = (
        f"location ~ ^/(hello|big|some)$ {{ root {directory}/pages; }} location ~ [.]git {{ root {directory}/pages; }}"
    )
    with nginx(pki, directory, extra=f"listen 127.0.0.2:PORT ssl; {limit} {locations}") as port:
        yield port


@contextlib.contextmanager
def _ftp(pki, _directory, _versions):
    with mailservers.vsftpd(pki) as (port, files):
        (files / "hello").write_bytes(HELLO["ftp"])
        (files / "big").write_bytes(BIG)
        yield port


@contextlib.contextmanager
def _dovecot(pki, _directory, versions):
    with sink() as taken, mailservers.dovecot(pki, relay=taken.port, versions=versions) as ports:
        context = ssl.create_default_context(cafile=pki.ca)
        with imaplib.IMAP4("localhost", ports["imap"], timeout=60) as imap:
            imap.starttls(context)
            imap.login("me", "secret")
            imap.append("INBOX", None, None, b"Subject: hello from dovecot\r\n\r\nhello\r\n")
        yield ports | {"taken": taken}


_SERVERS = {"web": _web, "ftp": _ftp, "mail": _dovecot}
_PORTS_OF_MAIL = ("smtp", "imap", "imaps", "taken")


@pytest.fixture(scope="session")
def serving(everybodys, pki):
    """The port of a server by its name; it is started when it is first wanted. `versions`: TLSv1.2 for no later one."""
    started = {}
    with contextlib.ExitStack() as stack:

        def port(name, versions=None):
            server = "mail" if name in _PORTS_OF_MAIL else name
            if (server, versions) not in started:
                directory = everybodys / f"{server}-{versions}"
                started[server, versions] = stack.enter_context(_SERVERS[server](pki, directory, versions))
            found = started[server, versions]
            return found[name] if server == "mail" else found

        yield port


# --- where mail ends -------------------------------------------------------------------------------------------------


class Sink:
    """An SMTP server in plain text that keeps the hash of each mail's body: what dovecot hands its mail on to."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.hashes = []

    def serve(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection):
        with contextlib.suppress(OSError), connection, connection.makefile("rwb", buffering=0) as file:
            lines = connection.makefile("rb")
            file.write(b"220 sink ESMTP\r\n")
            for line in lines:
                word = line[:4].upper()
                if word == b"DATA":
                    file.write(b"354 go on\r\n")
                    self.hashes.append(self._body(lines))
                file.write({b"EHLO": b"250-sink\r\n250 SIZE\r\n", b"QUIT": b"221 bye\r\n"}.get(word, b"250 ok\r\n"))

    def _body(self, lines):
        digest, body = hashlib.sha256(), False
        for line in lines:
            if line == b".\r\n":
                break
            if body:
                digest.update(re.sub(rb"\r\n$", b"\n", line))
            body = body or line == b"\r\n"
        return digest.hexdigest()


@contextlib.contextmanager
def sink():
    """A running `Sink`."""
    server = Sink()
    threading.Thread(target=server.serve, daemon=True).start()
    try:
        yield server
    finally:
        server.listener.shutdown(socket.SHUT_RDWR)
        server.listener.close()
