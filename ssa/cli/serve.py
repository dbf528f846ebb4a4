"""`ssa serve`: takes TLS connections, and forwards each to a server that knows nothing of TLS.

No process can put a finished connection into the queue of another one's listener. So a server that wants to accept for
itself (gunicorn's and hypercorn's fd://, sockets that systemd has made) gets each connection forwarded. This process
does it, as the user who has started it: it connects where that user may, and ssad connects to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import re
import resource
import signal
import socket
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

import ssa
from ssa.cli import backend, forwarding, proxy_header
from ssa.cli.connect import protocols, seconds
from ssa.cli.failure import Failure, explain
from ssa.cli.output import printable
from ssa.cli.verb import Verb
from ssa.protocol.attributes import MAX_BACKLOG
from ssa.suites import SUITES
from ssa.trio import TLSListener

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterator

    from ssa.library.tlssocket import TLSSocket

_DESCRIPTORS = 4  # of a connection at most: two of a relayed TLS socket, the backend's, and one while it is made
_OWN = 64  # descriptors that are no connection's
_MOST = 10_000  # connections, however many descriptors there are
_GRACE = 30  # seconds that connections may go on after SIGTERM
_PATIENCE = 10.0  # seconds that a backend may take to accept a connection
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
# Options of a listener that the connections which it accepts begin with.
_INHERITED = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),  # milliseconds that a client may take nothing
)
_LISTEN = re.compile(r"fd://(?P<fd>\d{1,6})|(?:\[(?P<v6>[^]]+)\]:|(?P<host>[^:]*):)?(?P<port>\d{1,5})")


def _run(options: argparse.Namespace) -> int:
    if bool(options.to) == bool(options.command):
        raise Failure("where is the server? Give either --to ADDRESS, or a COMMAND behind --")
    if options.activation and not options.command:
        raise Failure("--activation is about a COMMAND, and there is none")
    if options.trusted and not options.client_certificate:
        raise Failure("--trusted is about the certificates of clients: give --client-certificate too")
    with contextlib.ExitStack() as undo:
        listeners = [undo.enter_context(sock) for place in options.listen for sock in _listening(place, options)]
        to, start = options.to, None
        if options.command:
            private = undo.enter_context(contextlib.closing(backend.PrivateListener()))
            to, start = private.address, partial(private.start, options.command, activation=options.activation)
        forwarder = forwarding.Forwarder(
            to, _header_maker(options), patience=options.patience, places=_places(), say=_say
        )
        for sock in listeners:
            _say(f"TLS connections to {_shown(sock)} are forwarded to {to}")
        return trio.run(_Service(forwarder, listeners, start).run)


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads it: that is no reason to end
        print(f"ssa: {printable(line)}", file=sys.stderr, flush=True)  # noqa: T201 - printing is the purpose


def _shown(sock: TLSSocket) -> str:
    host, port, *_ = sock.getsockname()
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


# --- listening ----------------------------------------------------------------------------------------------------


def _listening(place: re.Match[str], options: argparse.Namespace) -> Iterator[TLSSocket]:
    """Listen at a place: one socket, or one for each family. Raises OSError, `ssa.SSAError`."""
    if place["fd"] is not None:
        fd = int(place["fd"])
        try:
            os.set_inheritable(fd, False)  # a command does not get it
            sock = ssa.socket(fileno=fd)
        except OSError as exc:
            raise Failure(f"fd://{fd}: {explain(exc)}") from exc
        yield _served(sock, options)
        return
    host, port = place["v6"] or place["host"] or None, int(place["port"])
    found: Any = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, *_, address in found:
        try:
            sock = _bound(family, address)
        except OSError as exc:
            if exc.errno in _NO_SUCH_FAMILY and len(found) > 1:
                continue  # a machine without IPv6, or without IPv4
            raise Failure(f"{address[0]} port {address[1]}: {explain(exc)}") from exc
        yield _served(sock, options)


def _bound(family: int, address: Any) -> TLSSocket:
    sock = ssa.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def _served(sock: TLSSocket, options: argparse.Namespace) -> TLSSocket:
    """Have ssad make the handshakes of a bound socket."""
    try:
        for level, option, value in _INHERITED:
            sock.setsockopt(level, option, value)
        sock.tell(
            certificates=options.certificate,
            keys=options.key,
            trusted=options.trusted,
            alpn=options.alpn,
            peer_auth=1 if options.client_certificate else None,
            with_chain=1 if options.client_certificate and options.proxy_protocol == proxy_header.V2 else None,
        )
        with sock.unwatched():
            sock.listen(MAX_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _places() -> int:
    """How many connections there may be."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(_MOST, (hard - _OWN) // _DESCRIPTORS))


def _allow_all_descriptors() -> None:
    """Raise the limit of descriptors as far as it goes. A command that is started before keeps the lower one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# --- the header of the PROXY protocol ------------------------------------------------------------------------------


def _header_maker(options: argparse.Namespace) -> forwarding.Header:
    version = options.proxy_protocol
    if version is None:
        return _no_header
    return partial(_header, version=version, certified=options.client_certificate)


def _no_header(_sock: TLSSocket) -> bytes:
    return b""


def _header(sock: TLSSocket, *, version: str, certified: bool) -> bytes:
    """The header for a connection. Raises OSError where the client has gone."""
    client = proxy_header.Client(sock.getpeername()[:2], sock.getsockname()[:2])
    if version == proxy_header.V2:
        cipher = _text(sock, ssa.TLS_CHOSEN_CIPHER)
        client = client._replace(
            version=sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_CONN, 16).decode(),
            cipher=SUITES[cipher].openssl if cipher in SUITES else cipher,
            alpn=_text(sock, ssa.TLS_ALPN),
            server_name=_text(sock, ssa.TLS_HOSTNAME),
            certified=certified,
            common_name=_common_name_untrusted(sock) if certified else "",
            resumed=bool(sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION)),
        )
    return proxy_header.header(client, version)


def _text(sock: TLSSocket, option: int) -> str:
    value: bytes = sock.getsockopt(ssa.IPPROTO_TLS, option)
    return value.decode()


def _common_name_untrusted(sock: TLSSocket) -> str:
    """The CN of the client's certificate; empty where it has none, or more than one."""
    from cryptography import x509  # late: few servers ask for certificates

    pem = sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN)
    try:
        subject = x509.load_pem_x509_certificate(pem).subject
        (name,) = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    except ValueError:
        return ""
    return name.value if isinstance(name.value, str) else ""


# --- serving --------------------------------------------------------------------------------------------------------


class _Service:
    """Serves until a signal comes or the command ends.

    The first SIGTERM or SIGINT ends the listeners and is passed on to the command; connections may go on for `_GRACE`
    seconds. The second one ends everything.
    """

    def __init__(
        self, forwarder: forwarding.Forwarder, listeners: list[TLSSocket], start: Callable[[], int] | None
    ) -> None:
        """`start` starts the command, where there is one, and returns the number of its process."""
        self._forwarder = forwarder
        self._listeners = listeners
        self._start = start
        self._command: int | None = None
        self._accepting = trio.CancelScope()
        self._forwarding = trio.CancelScope()
        self._command_ended = trio.Event()
        self._ending = False
        self._status = 0

    async def run(self) -> int:
        """Serve. Returns the exit status: the command's, where that has ended by itself. Raises OSError."""
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            self._command = self._start() if self._start else None
            _allow_all_descriptors()
            async with trio.open_nursery() as watching:
                watching.start_soon(self._obey, signals)
                if self._command is not None:
                    watching.start_soon(self._wait_for_command, self._command)
                await self._serve()
                if self._command is not None:
                    await self._end_command(self._command)
                watching.cancel_scope.cancel()
        return self._status

    async def _serve(self) -> None:
        with self._forwarding:
            async with trio.open_nursery() as connections:
                with self._accepting:
                    async with trio.open_nursery() as acceptors:
                        for sock in self._listeners:
                            acceptors.start_soon(self._forwarder.serve, TLSListener(sock), connections)
                    self._status = 1  # they all listen no more, and nobody has asked for that
                    self._stop()
                for sock in self._listeners:
                    sock.close()

    async def _obey(self, signals: AsyncIterable[int]) -> None:
        async for _ in signals:
            if self._ending:
                self._forwarding.cancel()
                self._signal_command(signal.SIGKILL)
            else:
                self._signal_command(signal.SIGTERM)
                self._stop()

    def _stop(self) -> None:
        self._ending = True
        self._accepting.cancel()
        self._forwarding.deadline = trio.current_time() + _GRACE

    def _signal_command(self, number: signal.Signals) -> None:
        if self._command is not None and not self._command_ended.is_set():
            os.kill(self._command, number)

    async def _wait_for_command(self, process: int) -> None:
        watched = os.pidfd_open(process)
        try:
            await trio.lowlevel.wait_readable(watched)
        finally:
            os.close(watched)
        _, waited = os.waitpid(process, os.WNOHANG)  # noqa: ASYNC222 - it has ended, and WNOHANG never waits
        status = os.waitstatus_to_exitcode(waited)
        self._command_ended.set()
        if not self._ending:
            self._status = status if status >= 0 else 128 - status
            _say(f"the command has ended (status {self._status})")
            self._stop()

    async def _end_command(self, process: int) -> None:
        """Have the command end, if it has not ended."""
        self._signal_command(signal.SIGTERM)
        with trio.move_on_after(_GRACE):
            await self._command_ended.wait()
            return
        os.kill(process, signal.SIGKILL)
        await self._command_ended.wait()


# --- arguments ------------------------------------------------------------------------------------------------------


def _place(text: str) -> re.Match[str]:
    found = _LISTEN.fullmatch(text)
    if found is None or int(found["port"] or 0) >= 1 << 16:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no place to listen at, expected such as 443, 192.0.2.1:443, [::1]:443, fd://3"
        )
    return found


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        type=_place,
        required=True,
        action="append",
        metavar="[ADDRESS:]PORT",
        help="where clients connect; several times for several. fd://N is a socket that this process was started with",
    )
    parser.add_argument(
        "--to",
        type=backend.address,
        metavar="ADDRESS",
        help="where the server listens: unix:/path, unix:@name (abstract), or an address of the loopback with a port",
    )
    parser.add_argument(
        "command",
        nargs="*",
        metavar="COMMAND",
        help="start the server, and pass it a listening socket that only this user can reach, as descriptor 3",
    )
    parser.add_argument(
        "--activation", action="store_true", help="tell COMMAND of descriptor 3 as systemd does (LISTEN_FDS)"
    )
    parser.add_argument(
        "--proxy-protocol",
        choices=(proxy_header.V1, proxy_header.V2),
        help="begin each connection with the client's addresses; v2 says besides what TLS knows of the client",
    )
    parser.add_argument("--certificate", metavar="FILE", help="the certificate with its chain, PEM; else ssad chooses")
    parser.add_argument("--key", metavar="FILE", help="its private key, PEM; only ssad reads it")
    parser.add_argument("--alpn", type=protocols, metavar="A,B", help="application protocols that the server speaks")
    parser.add_argument(
        "--client-certificate", action="store_true", help="refuse clients without a certificate that the policy trusts"
    )
    parser.add_argument("--trusted", metavar="FILE", help="anchors that clients have to satisfy besides the policy's")
    parser.add_argument(
        "--patience",
        type=seconds,
        default=_PATIENCE,
        metavar="S",
        help=f"seconds that the server may take to accept a connection (default: {_PATIENCE:g})",
    )


VERB = Verb(
    name="serve",
    summary="forward TLS connections to a server without TLS",
    description="""\
Listens for TLS clients. ssad makes their handshakes under the policy, with this user's certificate or one of the
administrator's. Each connection is then forwarded to a server on this machine, in plain text: to an AF_UNIX socket, to
the loopback, or to a COMMAND that is started with a listening socket, as descriptor 3. If the server cannot be reached,
the client's stream is cut, and standard error says so. SIGTERM ends the listeners; connections may go on for a while.
""",
    examples="""\
ssa serve --listen 443 -- gunicorn --bind fd://3 app:app
ssa serve --listen 443 --proxy-protocol v2 -- gunicorn --bind fd://3 --proxy-protocol v2 app:app
ssa serve --listen 443 -- hypercorn --bind fd://3 app:app
ssa serve --listen 443 --activation -- /usr/lib/some-server          # one that knows systemd's sockets
ssa serve --listen 192.0.2.1:443 --to unix:/run/app.sock             # a server that is there already
ssa serve --listen 8443 --to 127.0.0.1:8000 --certificate server.pem --key server.key
""",
    run=_run,
    arguments=_arguments,
    json=False,
)
