"""TLS sockets for trio: `open_stream`, `serve`, and any connected `ssa.TLSSocket` as a stream.

    async with await ssa.trio.open_stream("example.com", 443) as stream:
        await stream.send_all(b"...")

Theory of operation. A non-blocking TLSSocket says by BlockingIOError that there is something to wait for, and its
descriptor is ready when there is: also while a handshake is under way. So each operation is a call and a wait, in
turns, and nothing here needs a thread or a lock. Two things take care:

* A message that was cut in sending, because its sender was cancelled or the stream closed meanwhile, leaves the peer
  with a part of it. After that nothing is sent any more, close_notify neither: the peer has to see a truncation.
* close_notify needs room in the send buffer as data does. `aclose` waits for it. A program that does not want to wait
  for a slow peer cancels it, and the stream is closed at once, without close_notify.
"""

from __future__ import annotations

import errno
import math
import os
import socket as stdlib
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, NoReturn, TypeVar

import trio

from ssa.ktls.control import aborts
from ssa.library import deadlines
from ssa.library.api import create_server, upgradable
from ssa.library.connecting import looked_up
from ssa.library.tlssocket import TLSSocket
from ssa.protocol.attributes import MAX_BACKLOG

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from ssa.library.api import Blob
    from ssa.library.connection import DaemonConnection

__all__ = ["TLSListener", "TLSStream", "from_stdlib_socket", "open_listeners", "open_stream", "serve"]

_T = TypeVar("_T")

_RECEIVE_SIZE = 65536  # bytes, where the caller names none
_PAUSE = 0.02  # seconds until ssad is asked again, where its queue of connections is full


class TLSStream(trio.abc.HalfCloseableStream):
    """A live TLS socket as a trio stream; it behaves as `trio.SocketStream` does, and reads as TLS demands.

    `receive_some` gives ``b""`` at the peer's close_notify; a stream that was cut without is a BrokenResourceError.

    Attributes:
        socket: the `ssa.TLSSocket`, for its options and addresses; it must not be read, written or closed directly.
    """

    def __init__(self, sock: TLSSocket) -> None:
        """Take over a connected TLSSocket, and make it non-blocking. Raises TypeError for what is none."""
        if not isinstance(sock, TLSSocket):
            raise TypeError(f"a TLSStream is made of an ssa.TLSSocket, not of a {type(sock).__name__}")
        sock.setblocking(False)
        self.socket = sock
        self._sending = False  # a task is
        self._cut = False  # something was sent in part only
        self._ended = False  # by send_eof
        self._closed = False

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it: `trio.abc.SendStream.send_all`. Cancelled, it may have sent a part; nothing can follow."""
        with self._turn_to_send(), memoryview(data).cast("B") as view:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            sent = 0
            while sent < len(view):
                self._cut = self._cut or sent > 0
                sent += await self._when_ready(trio.lowlevel.wait_writable, partial(self.socket.send, view[sent:]))
            self._cut = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait for room to send: `trio.abc.SendStream.wait_send_all_might_not_block`."""
        with self._turn_to_send():
            await trio.lowlevel.checkpoint()
            self._check_open()
            await self._wait(trio.lowlevel.wait_writable)

    async def send_eof(self) -> None:
        """End our half of the stream (close_notify), when there is room for that; reading can go on."""
        with self._turn_to_send():
            await trio.lowlevel.checkpoint()
            if self._ended:
                return
            self._check_sendable()
            await self._wait(trio.lowlevel.wait_writable)
            with _translated():
                self.socket.shutdown(stdlib.SHUT_WR)
            self._ended = True

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to `max_bytes`; empty at the peer's close_notify: `trio.abc.ReceiveStream.receive_some`.

        Raises BrokenResourceError, also for a stream that was cut without close_notify.
        """
        size = _RECEIVE_SIZE if max_bytes is None else max_bytes
        if size < 1:
            raise ValueError("max_bytes has to be 1 or more")
        await trio.lowlevel.checkpoint()
        self._check_open()
        return await self._when_ready(trio.lowlevel.wait_readable, partial(self.socket.recv, size))

    async def aclose(self) -> None:
        """End the stream in order and close it: close_notify goes behind the last byte, as soon as there is room.

        Cancelled, it closes at once, and the peer sees a stream that was cut; so it does where `send_all` was
        interrupted.
        """
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        trio.lowlevel.notify_closing(self.socket)  # tasks that wait for the stream learn that it is closed
        try:
            await trio.lowlevel.checkpoint()
            if not self._cut:
                if not aborts(self.socket):
                    await trio.lowlevel.wait_writable(self.socket)
                self.socket.close()
        finally:
            if self.socket.fileno() >= 0:
                os.close(self.socket.detach())

    @contextmanager
    def _turn_to_send(self) -> Iterator[None]:
        if self._sending:
            raise trio.BusyResourceError("another task is sending on this stream")
        self._sending = True
        try:
            yield
        finally:
            self._sending = False

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")

    def _check_sendable(self) -> None:
        self._check_open()
        if self._ended:
            raise trio.ClosedResourceError("can't send after sending EOF")
        if self._cut:
            raise trio.BrokenResourceError("what was sent before was interrupted")

    async def _when_ready(self, wait: Callable[[TLSSocket], Awaitable[None]], call: Callable[[], _T]) -> _T:
        while True:
            try:
                with _translated():
                    return call()
            except BlockingIOError:
                await self._wait(wait)

    async def _wait(self, wait: Callable[[TLSSocket], Awaitable[None]]) -> None:
        await wait(self.socket)
        self._check_open()


@contextmanager
def _translated() -> Iterator[None]:
    """Raise a socket's errors as trio's: ClosedResourceError, BrokenResourceError."""
    try:
        yield
    except BlockingIOError:
        raise
    except OSError as exc:
        if exc.errno == errno.EBADF:
            raise trio.ClosedResourceError("this socket was closed") from None
        raise trio.BrokenResourceError(f"the connection is broken: {exc}") from exc


def from_stdlib_socket(sock: TLSSocket) -> TLSStream:
    """A stream from a connected `ssa.TLSSocket`, which is the stream's from now on.

    Raises TypeError for another kind of socket.
    """
    return TLSStream(sock)


async def open_stream(  # noqa: PLR0913 - as trio.open_tcp_stream, and what TLS adds
    host: str,
    port: int,
    *,
    alpn: Sequence[str] | None = None,
    server_hostname: str | None = None,
    certificate: Blob | None = None,
    private_key: Blob | None = None,
    trusted: Blob | None = None,
    happy_eyeballs_delay: float | None = 0.25,
    local_address: str | None = None,
) -> TLSStream:
    """Connect to a TLS server: `trio.open_tcp_stream`, and the handshake under the administrator's policy.

    Args:
        host: a host name, in any script, or an IP address.
        port: its port.
        alpn: application protocols to offer, the preferred one first (RFC 7301).
        server_hostname: the name that the certificate has to be for, if it is not `host`.
        certificate: the own certificate and its chain, for a server that asks: PEM, or the path of a PEM file.
        private_key: its key.
        trusted: trust anchors that the server has to satisfy besides the administrator's.
        happy_eyeballs_delay: seconds before the next address is tried beside the last.
        local_address: the address to connect from.

    Raises OSError where no connection can be made, and `ssa.SSAError` for what goes wrong after that.
    """
    name = looked_up(host).decode("ascii")
    tcp = await trio.open_tcp_stream(name, port, happy_eyeballs_delay=happy_eyeballs_delay, local_address=local_address)
    plain = stdlib.socket(fileno=tcp.socket.detach())
    plain.setblocking(False)
    sock = upgradable(plain, server_hostname or host, alpn, certificate, private_key, trusted)
    try:
        with sock.unwatched():  # but by trio's own set, which needs no help
            await _handshake(sock)
    except BaseException:
        sock.close()
        raise
    return TLSStream(sock)


async def _handshake(sock: TLSSocket) -> None:
    """Make the handshake. Raises `ssa.SSAError`. Cancelled, nothing is left of it, here or in the daemon."""
    with await _asked(sock) as daemon:
        while True:
            await trio.lowlevel.wait_readable(daemon)
            try:
                sock.finish_upgrade(daemon)
            except BlockingIOError:
                continue
            return


async def _asked(sock: TLSSocket) -> DaemonConnection:
    """The connection on which the handshake was asked for. Raises OSError, TimeoutError where ssad takes no request."""
    deadline = deadlines.local()
    while True:
        try:
            return sock.begin_upgrade(server_side=False)
        except BlockingIOError as exc:
            if time.monotonic() > deadline:
                raise TimeoutError(errno.ETIMEDOUT, exc.strerror) from None
            await trio.sleep(_PAUSE)


class TLSListener(trio.abc.Listener[TLSStream]):
    """A listening `ssa.TLSSocket`. `accept` returns completed handshakes, and never waits behind a slow client."""

    def __init__(self, sock: TLSSocket) -> None:
        """Take over a listening TLSSocket, and make it non-blocking. Raises TypeError for another kind of socket."""
        if not isinstance(sock, TLSSocket):
            raise TypeError(f"a TLSListener is made of an ssa.TLSSocket, not of a {type(sock).__name__}")
        sock.setblocking(False)
        self.socket = sock

    async def accept(self) -> TLSStream:
        """The next connection whose handshake is done.

        Raises ClosedResourceError; OSError as accept(2), ENOBUFS while no daemon runs.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self.socket.fileno() < 0:
                raise trio.ClosedResourceError("this listener was closed")
            try:
                return TLSStream(self.socket.accept()[0])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.socket)

    async def aclose(self) -> None:
        """Stop listening."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket)
            self.socket.close()
        await trio.lowlevel.checkpoint()


async def open_listeners(  # noqa: PLR0913 - as trio.open_tcp_listeners, and what TLS adds
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: float | None = None,
    certificate: Blob | Sequence[Blob] | None = None,
    private_key: Blob | Sequence[Blob] | None = None,
    server_hostname: str | None = None,
    alpn: Sequence[str] | None = None,
    request_peer_auth: bool = False,
    trusted: Blob | None = None,
) -> list[TLSListener]:
    """Listen on a port of all addresses, as `trio.open_tcp_listeners`; the rest is as for `ssa.create_server`."""
    if not isinstance(port, int):
        raise TypeError(f"port has to be an int, not {port!r}")
    found = await trio.socket.getaddrinfo(host, port, type=stdlib.SOCK_STREAM, flags=stdlib.AI_PASSIVE)
    listeners: list[TLSListener] = []
    unsupported: list[OSError] = []
    try:
        for family, *_, address in found:
            try:
                sock = create_server(
                    address,  # type: ignore[arg-type] # of IPv6 it has four parts, which bind(2) wants
                    family=family,
                    backlog=MAX_BACKLOG if backlog in (None, math.inf) else int(backlog or 0),
                    certificate=certificate,
                    private_key=private_key,
                    server_hostname=server_hostname,
                    alpn=alpn,
                    request_peer_auth=request_peer_auth,
                    trusted=trusted,
                )
            except OSError as exc:
                if exc.errno != errno.EAFNOSUPPORT:
                    raise
                unsupported.append(exc)  # a host without IPv6, or without IPv4
            else:
                listeners.append(TLSListener(sock))
        if not listeners:
            raise unsupported[0]
    except BaseException:
        for listener in listeners:
            listener.socket.close()
        raise
    return listeners


async def serve(  # noqa: PLR0913 - as trio.serve_tcp, and what TLS adds
    handler: Callable[[TLSStream], Awaitable[object]],
    port: int,
    *,
    host: str | bytes | None = None,
    backlog: float | None = None,
    certificate: Blob | Sequence[Blob] | None = None,
    private_key: Blob | Sequence[Blob] | None = None,
    server_hostname: str | None = None,
    alpn: Sequence[str] | None = None,
    request_peer_auth: bool = False,
    trusted: Blob | None = None,
    handler_nursery: trio.Nursery | None = None,
    task_status: trio.TaskStatus[list[TLSListener]] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Serve TLS clients as `trio.serve_tcp` serves TCP's: a task running ``handler(stream)`` for each.

    A handler's stream is ended in order when it returns, and cut when it raises. As with trio, what it raises goes on
    to the nursery: a handler that is to outlive its errors catches them.

    Without a certificate of its own it serves the administrator's (/ssa/credentials).

    Args:
        handler: run for each connection, once its handshake is done.
        port: 0 for one that the kernel picks.
        host: the interface to listen on; None: all.
        backlog: connections that may wait.
        certificate: as for `ssa.create_server`, as the others down to `trusted`.
        private_key: its key.
        server_hostname: serve this name only.
        alpn: application protocols in order of preference.
        request_peer_auth: refuse clients without a certificate that the policy trusts.
        trusted: trust anchors that a client has to satisfy besides the administrator's.
        handler_nursery: where the handlers run, if not in one of this function's own.
        task_status: for ``await nursery.start(ssa.trio.serve, ...)``, which gives the list of `TLSListener`.

    Raises what `ssa.create_server` does. While no daemon runs it waits for one.
    """
    listeners = await open_listeners(
        port,
        host=host,
        backlog=backlog,
        certificate=certificate,
        private_key=private_key,
        server_hostname=server_hostname,
        alpn=alpn,
        request_peer_auth=request_peer_auth,
        trusted=trusted,
    )

    async def handle(stream: TLSStream) -> None:
        await handler(stream)
        await stream.aclose()

    await trio.serve_listeners(handle, listeners, handler_nursery=handler_nursery, task_status=task_status)
