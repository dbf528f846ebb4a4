"""asyncio's TLS as ssa's: one class in the place of `asyncio.sslproto.SSLProtocol`.

Theory of operation. `loop.create_connection`, `create_server`, `start_tls` and the streams all come down to three
lines, whose signature is the same from Python 3.11 to 3.14:

    protocol = sslproto.SSLProtocol(loop, app_protocol, sslcontext, waiter, server_side, server_hostname, ...)
    # then a plain transport with that protocol is made, or `protocol.connection_made(the transport that there is)`
    return protocol._app_transport

`connection_made` takes the socket from under the plain transport, the *carrier*: it duplicates the descriptor and
aborts the carrier, which does not end the TCP connection. `ssa.inject.handshake` has ssad make the handshake; then
`_app_transport`, a `TLSTransport`, reads and writes the TLS socket itself.

Before that, start_tls has to care for what the carrier still holds:
* plain text that was not sent yet: the handshake begins when it has gone;
* bytes that were read already: a server takes them for the beginning of the ClientHello (PROXY protocol); to a client
  they are an injection of plain text (CVE-2011-0411), and the handshake is refused.
"""

# ruff: noqa: SLF001 - asyncio's own code looks for these private names

from __future__ import annotations

import os
import socket
from asyncio import constants, protocols, sslproto
from typing import TYPE_CHECKING, Any

from ssa.inject import plaintext
from ssa.inject.base import is_ssa
from ssa.inject.failures import error
from ssa.inject.handshake import PAUSE, Handshake
from ssa.inject.transport import TLSTransport

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Self

THEIRS: Any = sslproto.SSLProtocol


class SSLProtocol(protocols.BufferedProtocol):
    """The protocol of the plain transport until the handshake begins. It then takes the handshake to its end."""

    def __new__(cls, loop: Any, app_protocol: Any, sslcontext: Any, *args: Any, **kwargs: Any) -> Any:
        """An object of asyncio's own class for a context that was made before the injection."""
        if sslcontext is not None and not is_ssa(sslcontext):
            return THEIRS(loop, app_protocol, sslcontext, *args, **kwargs)
        return super().__new__(cls)

    def __init__(  # noqa: PLR0913, PLR0917 - as asyncio has it
        self,
        loop: asyncio.AbstractEventLoop,
        app_protocol: asyncio.BaseProtocol,
        sslcontext: Any,
        waiter: asyncio.Future[None] | None,
        server_side: bool = False,  # noqa: FBT001, FBT002 - as asyncio calls it
        server_hostname: str | None = None,
        call_connection_made: bool = True,  # noqa: FBT001, FBT002 - as asyncio calls it
        ssl_handshake_timeout: float | None = None,
        ssl_shutdown_timeout: float | None = None,
    ) -> None:
        """Does what asyncio's does. `waiter` is woken when the handshake is done, or has failed.

        Raises ValueError for a timeout that is not positive, `ssa.SSAError` for what the context cannot mean.
        """
        self._timeout = _seconds("handshake", ssl_handshake_timeout, constants.SSL_HANDSHAKE_TIMEOUT)
        shutdown_timeout = _seconds("shutdown", ssl_shutdown_timeout, constants.SSL_SHUTDOWN_TIMEOUT)
        if not sslcontext:
            sslcontext = sslproto._create_transport_context(server_side, server_hostname)
        self._parameters = sslcontext.parameters(
            server_side=server_side, server_hostname=None if server_side else server_hostname or None
        )
        self._loop, self._waiter = loop, waiter
        self._is_upgrade = not call_connection_made
        self._carrier: Any = None  # the plain transport, until the handshake begins
        self._handshake: Handshake | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._ahead = bytearray()  # what was read already of the peer's first flight
        self._scratch = memoryview(b"")
        self._app_transport = TLSTransport(loop, app_protocol, self, sslcontext)
        self._app_transport.shutdown_timeout = shutdown_timeout
        if self._is_upgrade:
            self._take_what_was_read(app_protocol)
        if waiter is not None:
            waiter.add_done_callback(self._on_waiter)

    def _take_what_was_read(self, app_protocol: object) -> None:
        """Take the bytes that a StreamReader has read before the handshake. CPython does so since 2026 (gh-142352)."""
        reader = getattr(app_protocol, "_stream_reader", None)
        if reader is not None and reader._buffer:
            if not self._parameters.server_side:
                raise plaintext.pending(reader._buffer)
            self._ahead += reader._buffer
            reader._buffer.clear()

    @property
    def _incoming(self) -> Self:
        """The object to which start_tls writes what the StreamReader has read, since 2026 (gh-142352)."""
        return self

    def write(self, data: bytes) -> None:
        """Take what the StreamReader has read."""
        self._ahead += data

    @property
    def _extra(self) -> dict[str, Any]:  # of which aiosmtpd's server takes a copy
        transport = self._app_transport
        for name in ("peercert", "cipher", "compression"):
            transport.get_extra_info(name)
        return transport._extra

    # --- as the carrier's protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The plain transport is there: take its socket, once its unsent plain text has gone."""
        self._carrier = transport
        if self._app_transport.is_closing():
            self._drop_carrier()
            return
        self._after(self._timeout, self._too_slow)
        if transport.get_write_buffer_size():
            # Later, as start_tls has it resumed behind this call; and in 3.11 a new transport is not to be paused yet.
            self._loop.call_soon(self._hush)
            transport.set_write_buffer_limits(high=0)  # `resume_writing` comes when all is sent
        else:
            self._begin()

    def _hush(self) -> None:
        if self._carrier is not None and not self._carrier.is_closing():
            self._carrier.pause_reading()

    def pause_writing(self) -> None:
        """The carrier has plain text to send."""

    def resume_writing(self) -> None:
        """It has sent all."""
        # Later: a transport that is aborted in this call (from its _write_ready) would end itself twice.
        self._loop.call_soon(self._begin)

    def get_buffer(self, sizehint: int) -> memoryview:
        """The buffer into which the carrier reads next."""
        del sizehint
        self._scratch = memoryview(bytearray(_SCRATCH))
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """The carrier has read something in spite of all: a part of the first flight."""
        self._ahead += self._scratch[:nbytes]

    def eof_received(self) -> None:
        """The peer has gone before the handshake."""
        self._fail(ConnectionResetError())

    def connection_lost(self, exc: BaseException | None) -> None:
        """The carrier has ended. If `_begin` has not ended it, the connection is lost."""
        if self._carrier is not None:
            self._carrier = None
            self._fail(exc or ConnectionResetError())

    # --- the handshake --------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Take the carrier's socket, and ask ssad for the handshake."""
        carrier, self._carrier = self._carrier, None
        if carrier is None or self._app_transport.is_closing():
            return
        transport = self._app_transport
        try:
            plain = _taken_from(carrier)
        except OSError as exc:
            carrier.abort()
            self._fail(exc)
            return
        transport.know(peername=carrier.get_extra_info("peername"), sockname=carrier.get_extra_info("sockname"))
        server = getattr(carrier, "_server", None)
        if hasattr(server, "_attach"):  # uvloop's has none
            transport.attach(server)
        carrier.abort()
        self._make_handshake(plain)

    def take(self, sock: socket.socket) -> None:
        """Make the handshake on a connected plain socket, with no transport around it."""
        transport = self._app_transport
        self._after(self._timeout, self._too_slow)
        try:
            transport.know(peername=sock.getpeername(), sockname=sock.getsockname())
            if sock.family in (socket.AF_INET, socket.AF_INET6):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as exc:
            sock.close()
            self._fail(exc)
            return
        self._make_handshake(sock)

    def _make_handshake(self, plain: socket.socket) -> None:
        try:
            self._handshake = Handshake(self._parameters, plain, upgrade=self._is_upgrade, ahead=bytes(self._ahead))
        except OSError as exc:
            self._fail(exc)
            return
        self._loop.call_soon(self._ask)  # in a round of its own: to ask takes as long as all this has taken

    def _ask(self) -> None:
        if self._handshake is None:
            return
        try:
            if self._handshake.ask():
                self._loop.add_reader(self._handshake.fileno(), self._answered)
            else:
                self._after(PAUSE, self._ask)
        except OSError as exc:
            self._fail(exc)

    def _answered(self) -> None:
        """Take ssad's answer about the handshake."""
        if (handshake := self._handshake) is None:
            return
        fd = handshake.fileno()
        try:
            sock = handshake.finish()
        except BlockingIOError:
            return
        except OSError as exc:
            self._fail(exc)
            return
        self._loop.remove_reader(fd)
        self._handshake = None
        self._cancel_timers()
        self._app_transport.made(sock)
        self._tell_protocol()

    def _tell_protocol(self) -> None:
        """The protocol learns of its connection, whoever waits is woken, and reading begins."""
        transport, failure = self._app_transport, None
        protocol: Any = transport.get_protocol()
        if self._is_upgrade:
            _read_by(getattr(protocol, "_stream_reader", None), transport)
        else:
            try:
                protocol.connection_made(transport)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as exc:  # noqa: BLE001 - as asyncio's transports do
                failure = exc
                transport._fatal_error(exc, "Fatal error: protocol.connection_made() call failed.")
        self._wake(failure)
        self._loop.call_soon(transport.start)

    def _after(self, seconds: float, call: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, call))

    def _cancel_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()

    def _too_slow(self) -> None:
        words = f"SSL handshake is taking longer than {self._timeout} seconds: aborting the connection"
        self._fail(ConnectionAbortedError(words))

    def _on_waiter(self, waiter: asyncio.Future[None]) -> None:
        """Abort the handshake if the task that waits for it was cancelled. After start_tls nobody else would end it."""
        if waiter.cancelled():
            self._waiter = None
            self._app_transport.abort()

    def give_up(self, exc: BaseException | None) -> None:
        """The program has closed the transport while the handshake is under way."""
        self._fail(exc or ConnectionAbortedError("the transport was closed in the middle of the handshake"), lost=exc)

    def _fail(self, exc: BaseException, lost: BaseException | None = None) -> None:
        """End the handshake and the connection. The protocol of start_tls hears that it has lost its connection."""
        transport = self._app_transport
        if transport.is_closing():
            return
        self._cancel_timers()
        if self._handshake is not None:
            if self._handshake.fileno() >= 0:
                self._loop.remove_reader(self._handshake.fileno())
            self._handshake.close()
            self._handshake = None
        self._drop_carrier()
        transport.failed()
        if self._is_upgrade:
            self._loop.call_soon(transport._protocol.connection_lost, lost or exc)
        self._wake(exc)

    def _drop_carrier(self) -> None:
        carrier, self._carrier = self._carrier, None
        if carrier is not None:
            carrier.abort()

    def _wake(self, exc: BaseException | None) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            return
        if exc is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(exc)


def _seconds(what: str, value: float | None, default: float) -> float:
    if value is None:
        return default
    if value <= 0:
        raise ValueError(f"ssl_{what}_timeout should be a positive number, got {value}")
    return value


def _taken_from(carrier: Any) -> socket.socket:
    """A socket object for the carrier's connection, which is the caller's. Raises OSError."""
    under = carrier.get_extra_info("socket")
    if isinstance(carrier, TLSTransport) or under is None:
        raise error("NO_COUNTERPART", "TLS in TLS: a TCP socket carries one TLS stream")
    return socket.socket(fileno=os.dup(under.fileno()))


def _read_by(reader: Any, transport: TLSTransport) -> None:
    """Let a StreamReader pause the new transport: before 2026 (gh-152431) it went on with the old one."""
    if reader is not None:
        reader._transport, reader._paused = transport, False


_SCRATCH = 64 * 1024  # bytes
