"""Unmodified programs of Debian's that link OpenSSL, as a table: how each says hello, and how it fetches 64 MiB."""

from __future__ import annotations

import os
import pty
import select
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa.ktls.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable

PYTHON = "/usr/bin/python3"
WEB_SIZE = 64 << 20  # of `big`: a file
SIZE = 8 << 20 if probe().tls else 64 << 20  # of the other servers': their own setting up takes long on the test kernel
REQUEST = b"GET /%s HTTP/1.0\r\nHost: localhost\r\n\r\n"

_PYTHON = """
import sys, shutil, urllib.request
shutil.copyfileobj(urllib.request.urlopen(sys.argv[1], timeout=20), sys.stdout.buffer)
"""
_PHP = """
$in = fopen($argv[1], "r");
if (!$in) exit(1);
preg_match("/Content-Length: (\\d+)/i", implode("\n", stream_get_meta_data($in)["wrapper_data"]), $length);
exit(stream_copy_to_stream($in, STDOUT) == $length[1] ? 0 : 1);
"""


@dataclass(frozen=True)
class Program:
    """A program and its server.

    Attributes:
        fetch: the command by which it gets `hello` or `big` from a host and port, and its standard input.
        says: False where its error has no words for the reason.
    """

    name: str
    server: str
    fetch: Callable[[str, str, int], tuple[list[object], bytes]]
    says: bool = True
    stdin: bool = False  # it gets what it sends, which is a whole request of HTTP

    @property
    def size(self):
        """Of `big`, in bytes."""
        return WEB_SIZE if self.server == "web" else SIZE


def _web(name, *words, stdin=False, says=True):
    def fetch(what, host, port):
        url = f"https://{host}:{port}/{what}"
        command = [str(word).format(host=host, port=port, url=url) for word in words]
        return command, REQUEST % what.encode() if stdin else b""

    return Program(name, "web", fetch, says=says, stdin=stdin)


def _redis(what, host, port):
    return ["redis-cli", "--tls", "-h", host, "-p", port, "--raw", "get", what], b""


def _sql(what):
    return "select 'hello'" if what == "hello" else f"select repeat('x', {SIZE})"


def _psql(what, host, port):
    return ["psql", f"host={host} port={port} user=postgres dbname=postgres sslmode=require", "-Atqc", _sql(what)], b""


def _mariadb(what, host, port):
    command = ["mariadb", "--no-defaults", "--ssl", "--max-allowed-packet=128M", "--quick"]
    return [*command, "-h", host, "-P", port, "-Ne", _sql(what)], b""


def _mosquitto(what, host, port):
    command = ["mosquitto_sub", "--capath", "/etc/ssl/certs", "-h", host, "-p", port, "-t", what]
    return [*command, "-C", 1, "-W", 60, "-N"], b""


PROGRAMS = {
    program.name: program
    for program in (
        _web("curl", "curl", "-sS", "-m", 60, "{url}"),
        _web("curl-http1", "curl", "-sS", "-m", 60, "--http1.1", "{url}"),
        _web("socat", "socat", "-t", 20, "-", "OPENSSL:{host}:{port}", stdin=True),
        _web("ncat", "ncat", "--ssl", "{host}", "{port}", stdin=True, says=False),
        _web("php", "php", "-r", _PHP.replace("{", "{{").replace("}", "}}"), "{url}"),
        _web("python3", PYTHON, "-c", _PYTHON, "{url}", says=False),
        Program("redis-cli", "redis", _redis),
        Program("psql", "postgres", _psql),
        Program("mosquitto", "mosquitto", _mosquitto, says=False),
        Program("mariadb", "mariadb", _mariadb),
    )
}


def irssi(environment, directory, host, port, *options):
    """What irssi shows on a terminal of its own, connected and told to quit."""
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update(environment, TERM="xterm", LC_ALL="C.UTF-8")
        os.execvp("irssi", ["irssi", f"--home={directory}", "--noconnect"])
    shown = _shown_until(terminal, b"[(status)]", 20)
    os.write(terminal, f"/connect -tls {' '.join(options)} {host} {port}\n".encode())
    shown += _shown_until(terminal, (b"hello from irc", b"Connection lost", b"Unable to connect", b"warning"), 20)
    os.write(terminal, b"/quit\n")
    shown += _shown_until(terminal, None, 5)
    os.close(terminal)
    os.waitpid(pid, 0)
    return shown.decode("utf-8", "replace")


def _shown_until(terminal, ends, seconds):
    shown, deadline = b"", time.monotonic() + seconds
    ends = (ends,) if isinstance(ends, bytes) else ends
    while time.monotonic() < deadline and not (ends and any(end in shown for end in ends)):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # it has ended
                break
    return shown


def pip(directory, host, port, ca):
    """pip's command that fetches the 64 MiB package."""
    quiet = ["-q", "--disable-pip-version-check", "--no-cache-dir", "--retries", 0, "--timeout", 20, "--cert", ca]
    where = ["--no-index", "--find-links", f"https://{host}:{port}/wheels/", "--no-deps", "-d", directory]
    return [sys.executable, "-m", "pip", "download", *quiet, *where, "big"]
