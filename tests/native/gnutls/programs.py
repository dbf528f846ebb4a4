"""Unmodified programs of Debian's that link GnuTLS, as a table: how each says hello, and how it fetches 64 MiB."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa.ktls.probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable

WEB_SIZE = 64 << 20  # of `big`: a file
MAIL_SIZE = 4 << 20 if probe().tls else 64 << 20  # of the mail servers', which take long for it on the test kernel
REQUEST = b"GET /%s HTTP/1.0\r\nHost: localhost\r\n\r\n"


@dataclass(frozen=True)
class Program:
    """A program and its server.

    Attributes:
        fetch: the command by which it gets `hello` or `big` from a host and port, and its standard input.
        anyway: the command by which it gets `hello` with its own verification turned off.
        stdin: it gets what it sends, which is a whole request of HTTP.
        quiet: its error has no words for the reason.
        much: the name of what it fetches that is long, and its size in bytes.
    """

    name: str
    server: str
    fetch: Callable[[str, str, int], tuple[list[object], bytes]]
    anyway: Callable[[str, str, int], tuple[list[object], bytes]]
    stdin: bool = False
    quiet: bool = False
    much: tuple[str, int] = ("big", WEB_SIZE)


def _wget(*options):
    return lambda what, host, port: (
        ["wget", "-nv", "-O", "-", "--tries=1", "--timeout=20", *options, f"https://{host}:{port}/{what}"],
        b"",
    )


_GIT = """D=$(mktemp -d)/clone
git -c http.sslVerify={verify} clone -q https://{host}:{port}/{what}.git "$D" && cat "$D/file"
status=$?; rm -rf "$D"; exit $status
"""


def _git(verify):
    def fetch(what, host, port):
        script = _GIT.format(verify=verify, host=host, port=port, what=what)
        return ["sh", "-c", script], b""

    return fetch


def _lftp(setting):
    quiet = "set net:max-retries 1; set net:timeout 20; set xfer:log no"
    return lambda what, host, port: (
        ["lftp", "-c", f"{quiet}; {setting}open -u anonymous, ftp://{host}:{port} && cat {what}"],
        b"",
    )


def _lftp_web(setting):
    quiet = "set net:max-retries 1; set net:timeout 20"
    return lambda what, host, port: (["lftp", "-c", f"{quiet}; {setting}cat https://{host}:{port}/{what}"], b"")


_KEPT_OPEN = 'F=$(mktemp -u); mkfifo "$F"; exec 3<>"$F"; rm "$F"; cat >&3; exec "$@" <&3'


def _gnutls_cli(*options):
    """Its standard input stays open until the server ends: nginx answers no more when a client has said goodbye."""
    return lambda what, host, port: (
        ["sh", "-c", _KEPT_OPEN, "-", "gnutls-cli", "--logfile=/dev/null", *options, "-p", port, host],
        REQUEST % what.encode(),
    )


def _msmtp(*options):
    """It gets the server's greeting; test_mail sends more by it."""
    return lambda _what, host, port: (
        ["msmtp", f"--host={host}", f"--port={port}", "--tls=on", *options, "--auth=off", "--timeout=20", "-S"],
        b"",
    )


PROGRAMS = {
    program.name: program
    for program in (
        Program("wget", "web", _wget(), _wget("--no-check-certificate")),
        Program("git", "web", _git("true"), _git("false")),
        Program("lftp", "web", _lftp_web(""), _lftp_web("set ssl:verify-certificate no; ")),
        Program("lftp-ftp", "ftp", _lftp(""), _lftp("set ssl:verify-certificate no; "), quiet=True),
        Program(
            "gnutls-cli", "web", _gnutls_cli(), _gnutls_cli("--insecure"), stdin=True, much=("some", 1 << 20)
        ),  # it writes byte by byte
        Program("msmtp", "smtp", _msmtp(), _msmtp("--tls-certcheck=off")),
    )
}


def mutt(
    environment, directory, mailbox, *, insecure=False, keys="", ends=(b"hello from dovecot",), seconds=30, file=None
):
    """What mutt shows on a terminal of its own: it opens an IMAP mailbox, and then has these keys, until they are done.

    It is done when it shows one of `ends`, or when the `file` is there.
    """
    rc = directory / "muttrc"
    rc.write_text(
        f'set folder={directory}\nset spoolfile="{mailbox}"\nset imap_user=me\nset imap_pass=secret\n'
        f"set ssl_force_tls=yes\nset record=\nset certificate_file={directory}/certificates\n"
        f"set ssl_ca_certificates_file=/etc/ssl/certs/ca-certificates.crt\nset wait_key=no\nset quit=yes\n"
        f"set ssl_verify_host={'no' if insecure else 'yes'}\nset ssl_verify_dates=yes\nset pager_index_lines=5\n"
        f"set imap_authenticators=plain:login\nset tmpdir={directory}\n" + (f'push "{keys}"\n' if keys else "")
    )
    pid, terminal = pty.fork()
    if not pid:
        os.environ.update(environment, TERM="xterm", LC_ALL="C.UTF-8", HOME=str(directory))
        os.execvp("mutt", ["mutt", "-n", "-F", str(rc)])
    shown = _shown_until(terminal, ends, seconds)
    deadline = time.monotonic() + 60
    while file and not (directory / file).exists() and time.monotonic() < deadline:
        shown += _shown_until(terminal, None, 0.1)
    os.write(terminal, b"q")
    shown += _shown_until(terminal, None, 3)
    os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    os.waitpid(pid, 0)
    return re.sub(r"\x1b[^a-zA-Z]*[a-zA-Z]", "", shown.decode("utf-8", "replace"))


def _shown_until(terminal, ends, seconds):
    shown, deadline = b"", time.monotonic() + seconds
    while time.monotonic() < deadline and not (ends and any(end in shown for end in ends)):
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # it has ended
                break
    return shown
