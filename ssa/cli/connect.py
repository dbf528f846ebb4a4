"""`ssa connect`: connects standard input and output to a TLS server, as ncat --ssl does.

A thread sends the input to the server, while the main thread writes the server's data to the output. Each blocks, and
neither waits for the other. When the input ends, our half of the stream is ended (close_notify, RFC 8446 section 6.1),
as soon as the server is silent. The server's close_notify ends the command.

We wait for the server's silence because of servers that close their socket with our close_notify unread: that resets
the connection, and the end of the answer is lost.
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
_SILENCE = 0.2  # seconds without data from the server, after which it is taken to wait for our end of the stream
_GRACE = 1.0  # seconds for a write that is under way to be done
_INPUT, _OUTPUT = 0, 1


def _run(options: argparse.Namespace) -> int:
    host = f"[{options.host}]" if ":" in options.host else options.host
    peer = f"{host}:{options.port}"
    fd = _connect(options, peer)
    if options.verbose:
        print(f"ssa: {printable(_about(fd))}", file=sys.stderr, flush=True)  # noqa: T201 - printing is the purpose
    sender = _Sender(fd, crlf=options.crlf, shutdown=not options.no_shutdown)
    sender.start()
    try:
        _bring_back(fd, sender)
    except BrokenPipeError:
        raise  # nobody reads our own output any more
    except OSError as failure:
        raise Failure(f"{peer}: {explain(failure)}") from failure
    if not sender.finish():
        raise Failure(f"{peer}: the peer ended the connection before it had received all the input")
    return 0


def _connect(options: argparse.Namespace, peer: str) -> int:
    try:
        return ssa.connect_tls(
            options.host, options.port, timeout=options.timeout, alpn=options.alpn, source_address=options.source
        )
    except OSError as failure:
        raise Failure(f"{peer}: {explain(failure)}") from failure


def _bring_back(fd: int, sender: _Sender) -> None:
    """Write all data from the peer to standard output, until the peer's close_notify."""
    while data := ssa.recv(fd, _CHUNK):
        sender.heard += 1
        _write_all(_OUTPUT, data)


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:  # a program that shares the stream with us made it non-blocking
            select.select([], [fd], [])


def with_crlf(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks with every LF that has no CR before it as CR LF, wherever the chunks are cut."""
    last = b""
    for chunk in chunks:
        yield re.sub(rb"(?<!\r)\n", b"\r\n", last + chunk)[len(last) :]
        last = b"\r" if chunk.endswith(b"\r") else b""


class _Sender(threading.Thread):
    """Sends standard input to the peer, and then ends our half of the stream."""

    def __init__(self, fd: int, *, crlf: bool, shutdown: bool) -> None:
        super().__init__(daemon=True)  # it may wait for input that never comes
        self._fd = fd
        self._crlf = crlf
        self._shutdown = shutdown
        self.heard = 0  # reads that brought data from the peer
        self._sending = threading.Lock()  # held from before a read to the end of the write of its data
        self._complete = False
        self._failed = False

    def start(self) -> None:
        """Start with SIGINT blocked: Python crashes if it ends while a thread is only half started."""
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
            self._failed = True  # the main thread meets the reason when it reads

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
        with self._sending, Borrowed(self._fd) as sock:  # `finish` keeps the lock when the descriptor is closed
            datapath.shutdown(sock)

    def finish(self) -> bool:
        """Close the connection. Returns False if the peer has not received all the input.

        Then no close_notify is sent, because the stream is incomplete. It could not be sent either, while the kernel
        still waits for room to send the rest.
        """
        if not self._sending.acquire(timeout=_GRACE) or self._failed or not (self._complete or _no_more()):
            return False
        ssa.close(self._fd)
        return True


def _no_more() -> bool:
    """True if the input has ended, or if it is a terminal or pipe that has nothing to read now."""
    return not select.select([_INPUT], [], [], 0)[0] or not os.read(_INPUT, 1)


# --- what -v prints ------------------------------------------------------------------------------------------------


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
    """The number by which the daemon knows the socket."""
    with Borrowed(fd) as sock:
        return connection.describe(sock).socket_id


# --- arguments ----------------------------------------------------------------------------------------------------


def host(text: str) -> str:
    """Read a host name or an address."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty, expected a host name or an address")
    return text


def port(text: str) -> int | str:
    """Read a port's number, or a service's name for the resolver."""
    if not text.isdigit():
        return text
    if not 0 < int(text) < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is not a port, expected 1 to 65535")
    return int(text)


def seconds(text: str) -> float:
    """Read a time to wait, in seconds."""
    with contextlib.suppress(ValueError):
        if 0 < (value := float(text)) < 1e6:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")


def protocols(text: str) -> list[str]:
    """Read protocol names with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty name in it, expected such as h2,http/1.1")
    return names


_SOURCE = re.compile(
    r"\[(?P<bracketed>[^][]+)\](?::(?P<a>[0-9]+))?|(?P<plain>[^][:]+)(?::(?P<b>[0-9]+))?|(?P<v6>[^][]*:[^][]*:[^][]*)"
)


def source(text: str) -> tuple[str, int]:
    """Read a local address, with or without a port: 192.0.2.1, 192.0.2.1:5000, ::1, [::1]:5000."""
    found = _SOURCE.fullmatch(text)
    number = int((found["a"] or found["b"] or 0) if found else -1)
    if not found or not 0 <= number < 1 << 16:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an address, expected such as 192.0.2.1, 192.0.2.1:5000, [::1]:5000"
        )
    return found["bracketed"] or found["plain"] or found["v6"], number


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "host", type=host, metavar="HOST", help="the server's host name or address; its certificate has to be for it"
    )
    parser.add_argument("port", type=port, metavar="PORT", help="the port's number, or a service's name such as https")
    parser.add_argument(
        "--alpn", type=protocols, metavar="A,B", help="application protocols to offer (ALPN), the preferred one first"
    )
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds for connection and handshake together")
    parser.add_argument("--source", type=source, metavar="ADDR[:PORT]", help="the local address to connect from")
    parser.add_argument("--crlf", action="store_true", help="send each line end as CR LF, which many protocols demand")
    parser.add_argument(
        "--no-shutdown", action="store_true", help="keep our half of the stream open when standard input ends"
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print the peer and the TLS parameters on standard error"
    )


VERB = Verb(
    name="connect",
    summary="connect standard input and output to a TLS server",
    description="""\
Connects to a TLS server, sends it standard input, and prints its data, until the server ends the stream. When the
input ends, our half of the stream is ended too, and the server's further data is still printed. Use --no-shutdown for
a server that then hangs up without an answer. The server's certificate is verified under the policy; this cannot be
turned off. A stream that is cut short is an error (status 1).
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
