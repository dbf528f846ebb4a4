"""`ssa connect`: standard input and output to a TLS server, as ncat --ssl does.

A thread takes the input to the server while the main one brings back the output, each of them blocking: however much
goes either way, neither waits for the other. The end of the input ends our half of the stream (close_notify, RFC 8446
section 6.1), as soon as the server is silent; the server's close_notify ends the command.

Not before it is silent: a server that has closed its socket with our close_notify unread resets the connection, and the
end of its answer is lost.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING

import ssa
from ssa.cli.failure import Failure, explain
from ssa.cli.filesystem import FileSystem
from ssa.cli.output import printable
from ssa.cli.verb import Verb
from ssa.library import connection, datapath
from ssa.library.fdswap import Borrowed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CHUNK = 1 << 16
_SILENCE = 0.2  # seconds without a word from the server, after which it waits for our end
_GRACE = 1.0  # seconds for a write to be done that is not stuck
_INPUT, _OUTPUT = 0, 1


def _run(options: argparse.Namespace) -> int:
    host = f"[{options.host}]" if ":" in options.host else options.host
    peer = f"{host}:{options.port}"
    fd = _connect(options, peer)
    if options.verbose:
        print(f"ssa: {printable(_about(fd))}", file=sys.stderr, flush=True)  # noqa: T201
    sender = _Sender(fd, crlf=options.crlf, shutdown=not options.no_shutdown)
    sender.start()
    try:
        _bring_back(fd, sender)
    except BrokenPipeError:
        raise  # our own output: nobody reads it any more
    except OSError as failure:
        raise Failure(f"{peer}: {explain(failure)}") from failure
    if not sender.finish():
        raise Failure(f"{peer}: the peer ended the connection before it had taken all the input")
    return 0


def _connect(options: argparse.Namespace, peer: str) -> int:
    try:
        return ssa.connect_tls(
            options.host, options.port, timeout=options.timeout, alpn=options.alpn, source_address=options.source
        )
    except OSError as failure:
        raise Failure(f"{peer}: {explain(failure)}") from failure


def _bring_back(fd: int, sender: _Sender) -> None:
    """All that the peer sends, to standard output, until its close_notify."""
    while data := ssa.recv(fd, _CHUNK):
        sender.heard += 1
        _write_all(_OUTPUT, data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # who shares the stream with us made it non-blocking
            select.select([], [fd], [])


def with_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Line ends as CR LF, those that are so already left alone, wherever the chunks are cut."""
    last = b""
    for chunk in chunks:
        yield re.sub(rb"(?<!\r)\n", b"\r\n", last + chunk)[len(last) :]
        last = b"\r" if chunk.endswith(b"\r") else b""


class _Sender(threading.Thread):
    """Takes standard input to the peer, and tells it the end of it."""

    def __init__(self, fd: int, *, crlf: bool, shutdown: bool) -> None:
        super().__init__(daemon=True)  # it may wait for input that never comes
        self._fd = fd
        self._crlf = crlf
        self._shutdown = shutdown
        self.heard = 0  # how often something has come from the peer
        self._sending = threading.Lock()  # held from before a read to the end of the write: nothing is in between
        self._complete = False
        self._failed = False

    def start(self) -> None:
        """Start, and let no interrupt come in between: the interpreter's end crashes in a thread that is half begun."""
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def run(self) -> None:
        chunks = self._chunks()
        try:
            for chunk in with_crlf(chunks) if self._crlf else chunks:
                _write_all(self._fd, chunk)
            if self._shutdown:
                self._end_writing()
        except OSError:
            self._failed = True  # why, the receiving end finds out

    def _chunks(self) -> Iterator[bytes]:
        while not self._complete:
            select.select([_INPUT], [], [])
            with self._sending, contextlib.suppress(BlockingIOError):
                if chunk := os.read(_INPUT, _CHUNK):
                    yield chunk
                else:
                    self._complete = True

    def _end_writing(self) -> None:
        heard = -1
        while heard != self.heard or select.select([self._fd], [], [], 0)[0]:
            heard = self.heard
            time.sleep(_SILENCE)
        with self._sending, Borrowed(self._fd) as sock:  # `finish` keeps the lock, and the descriptor is closed
            datapath.shutdown(sock)

    def finish(self) -> bool:
        """Close the connection. False if the peer has not taken all that there was for it.

        Then it is told no close_notify, as the stream does not end where it should; nor could it be told, while the
        kernel still waits for room to send the rest.
        """
        if not self._sending.acquire(timeout=_GRACE) or self._failed or not (self._complete or _no_more()):
            return False
        ssa.close(self._fd)
        return True


def _no_more() -> bool:
    """Whether the input has ended, or waits for somebody to type on."""
    return not select.select([_INPUT], [], [], 0)[0] or not os.read(_INPUT, 1)


# --- what -v tells ------------------------------------------------------------------------------------------------


def _about(fd: int) -> str:
    try:
        tree = FileSystem()
        number = _socket_id(fd)
        found = tree.socket(number) if number is not None else None
    except (Failure, OSError) as failure:
        return f"connected; {failure}"
    if found is None:
        return "connected; ssad does not list the socket"
    alpn = f", {found['alpn']}" if found.get("alpn") else ""
    return (
        f"connected to {found['peer_identity']} ({found['remote']}): {found['version']} {found['cipher']} "
        f"{found['group']}{alpn}, {found['data_path']}, socket {found['id']}"
    )


def _socket_id(fd: int) -> int | None:
    """The socket's number, as the daemon has it."""
    with Borrowed(fd) as sock:
        return connection.describe(sock).socket_id


# --- arguments ----------------------------------------------------------------------------------------------------


def port(text: str) -> int | str:
    """A port's number, or a service's name for the resolver."""
    if not text.isdigit():
        return text
    if not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not a port, expected 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """A time to wait."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1e6:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def protocols(text: str) -> list[str]:
    """Names with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name in it")
    return names


_SOURCE = re.compile(
    r"\[(?P<bracketed>[^][]+)\](?::(?P<a>[0-9]+))?|(?P<plain>[^][:]+)(?::(?P<b>[0-9]+))?|(?P<v6>[^][]*:[^][]*:[^][]*)"
)


def source(text: str) -> tuple[str, int]:
    """A local address, with a port or without: 192.0.2.1, 192.0.2.1:5000, ::1, [::1]:5000."""
    found = _SOURCE.fullmatch(text)
    number = int((found["a"] or found["b"] or 0) if found else -1)
    if not found or not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address, or [address]:port")
    return found["bracketed"] or found["plain"] or found["v6"], number


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "host", metavar="HOST", help="a host name, which the server's certificate has to be for, or an address"
    )
    parser.add_argument("port", type=port, metavar="PORT", help="a number, or a service's name such as https")
    parser.add_argument(
        "--alpn", type=protocols, metavar="A,B", help="application protocols to offer, the preferred first"
    )
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds for connection and handshake together")
    parser.add_argument("--source", type=source, metavar="ADDR[:PORT]", help="the local address to connect from")
    parser.add_argument("--crlf", action="store_true", help="send each line end as CR LF, as many protocols want it")
    parser.add_argument(
        "--no-shutdown", action="store_true", help="keep our half of the stream open when standard input ends"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="say on standard error what was agreed on, and with whom"
    )


VERB = Verb(
    name="connect",
    summary="connect to a TLS server: standard input and output",
    description="""\
Connects, and takes standard input to the server and what it sends to standard output, until the server ends
the stream. The end of the input ends our half of the stream, and what the server sends then is still printed;
for a server that hangs up at that, with its answer unsent, there is --no-shutdown. The server is verified under
the policy: there is no way to connect without. A stream that is cut short is an error (status 1).
""",
    examples="""\
printf 'GET / HTTP/1.0\\r\\nHost: example.com\\r\\n\\r\\n' | ssa connect example.com 443
ssa connect -v --crlf mail.example.com 993
ssa connect --alpn h2,http/1.1 --timeout 5 -v example.com https < /dev/null
tar c directory | ssa connect backup.example.com 7000     # the server learns where it ends
""",
    run=_run,
    arguments=_arguments,
    json=False,
)
