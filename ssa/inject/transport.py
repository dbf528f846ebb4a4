"""An asyncio transport over a non-blocking TLS socket: what `SSLProtocol` gives to programs.

It asks of its event loop what every loop has (add_reader, add_writer, call_soon, call_later), so uvloop's will do.
It behaves as the transport of asyncio's own TLS: it cannot be half closed, up to 512 KiB of unsent data are buffered
before `pause_writing`, and at the end of the peer's stream it calls `eof_received` and closes.
"""

# ruff: noqa: SLF001 - asyncio's own code looks for these private names

from __future__ import annotations

import os
import ssl
import warnings
from asyncio import constants, exceptions, trsock
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

from ssa.inject.ending import Ending
from ssa.inject.facts import Facts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from ssa.inject.sslsocket import SSLSocket

    class Handshaking(Protocol):
        """A handshake, as the transport that waits for it sees it."""

        def give_up(self, exc: BaseException | None) -> None:
            """End the handshake: the program has closed the transport."""


_AGAIN = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TLSTransport(Facts):
    """A stream transport over an `SSLSocket`, which it has from `start` on.

    Before, while the handshake is under way, what is written is kept; to close the transport ends the handshake.
    """

    max_size = 256 * 1024  # bytes of one read
    _start_tls_compatible = False  # one TLS stream does not run in another
    _sendfile_compatible = constants._SendfileMode.TRY_NATIVE

    def __init__(
        self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol, handshaking: Handshaking, context: Any
    ) -> None:
        super().__init__(loop, protocol, context)
        self._set_write_buffer_limits(high=constants.FLOW_CONTROL_HIGH_WATER_SSL_WRITE * 1024)
        self.shutdown_timeout: float = constants.SSL_SHUTDOWN_TIMEOUT
        self._handshaking: Handshaking | None = handshaking  # until it is done
        self._fd = -1
        self._buffer = bytearray()
        self._paused = self._reading = False
        self._conn_lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self._ending: Ending | None = None  # while ssad is asked how a relayed stream has ended
        self._emptied: asyncio.Future[None] | None = None  # while a file is sent: done when nothing is buffered

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open"
        return f"<{type(self).__name__} {state} fd={self._fd}>"

    # --- from the handshake ---------------------------------------------------------------------------------------

    def made(self, sock: SSLSocket) -> None:
        """Take the socket after its handshake. Nothing is read before `start`."""
        self._handshaking = None
        self._sock, self._fd = sock, sock.fileno()
        self.know(ssl_object=sock, socket=trsock.TransportSocket(sock))

    def failed(self) -> None:
        """End the transport: the handshake has failed, or was given up."""
        self._handshaking = None
        self._closing = True
        self._buffer.clear()
        self.detach()

    def start(self) -> None:
        """Begin to read, unless the program has paused that meanwhile, and send what it has written."""
        if self._closing or self._sock is None:
            return
        if not self._paused:
            self._read_on()
        if self._buffer:
            self._loop.add_writer(self._fd, self._write_ready)

    # --- reading ------------------------------------------------------------------------------------------------

    def is_reading(self) -> bool:
        """Does what `asyncio.ReadTransport` documents."""
        return not self._paused and not self._closing

    def pause_reading(self) -> None:
        """Stop reading. Data that comes meanwhile stays with the kernel, and the peer has to wait."""
        if not self._closing and not self._paused:
            self._paused = True
            self._read_no_more()

    def resume_reading(self) -> None:
        """Does what `asyncio.ReadTransport` documents."""
        if not self._closing and self._paused:
            self._paused = False
            if self._sock is not None:
                self._read_on()

    def _read_on(self) -> None:
        if not self._reading:
            self._reading = True
            self._loop.add_reader(self._fd, self._read_ready)

    def _read_no_more(self) -> None:
        if self._ending is not None:
            self._ending.close()
            self._ending = None
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._fd)

    def _read_ready(self) -> None:
        if self._conn_lost or self._sock is None:
            return
        try:
            data = self._read_into_buffer(self._sock) if self._buffered else self._sock.recv_now(self.max_size)
        except _AGAIN:
            return
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - as asyncio's transports do
            self._fatal_error(exc, "Fatal read error on TLS transport")
            return
        if data is None:
            self._read_no_more()
            self._ending = Ending(self._loop, self._sock, self._end_told)
            return
        try:
            if not data:
                self._at_end()
            elif self._buffered:
                self._protocol.buffer_updated(data)
            else:
                self._protocol.data_received(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - as asyncio's transports do
            self._fatal_error(exc, "Fatal error: a call of the protocol's failed.")

    def _end_told(self, exc: OSError | None) -> None:
        self._ending = None
        if exc is not None:
            self._fatal_error(exc, "Fatal read error on TLS transport")
        elif not self._paused and not self._conn_lost:
            self._read_ready()  # now the read says that it is the end

    def _read_into_buffer(self, sock: SSLSocket) -> int | None:
        buffer = self._protocol.get_buffer(-1)
        if not len(buffer):
            raise RuntimeError("get_buffer() returned an empty buffer")
        return sock.recv_into_now(buffer)

    def _at_end(self) -> None:
        """Act on the end of the peer's stream. TLS could go on in the other direction, asyncio's TLS does not."""
        self._read_no_more()
        if self._protocol.eof_received():
            logger.warning("returning true from eof_received() has no effect when using ssl")
        self.close()

    # --- writing ------------------------------------------------------------------------------------------------

    def get_write_buffer_size(self) -> int:
        """Does what `asyncio.WriteTransport` documents."""
        return len(self._buffer)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Does what `asyncio.WriteTransport` documents."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"data: expecting a bytes-like instance, got {type(data).__name__}")
        if self._emptied is not None:
            raise RuntimeError("unable to write; sendfile is in progress")
        if not data:
            return
        if self._conn_lost or self._closing:
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("SSL connection is closed")
            self._conn_lost += 1 if self._conn_lost else 0
            return
        if self._sock is not None and not self._buffer:
            sent = self._send(self._sock, data)
            if sent < 0 or sent == memoryview(data).nbytes:
                return
            data = memoryview(data).cast("B")[sent:]
            self._loop.add_writer(self._fd, self._write_ready)
        self._buffer += data
        self._maybe_pause_protocol()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Does what `asyncio.WriteTransport` documents: in one record where they fit in one."""
        self.write(b"".join(list_of_data))

    def _send(self, sock: SSLSocket, data: bytes | bytearray | memoryview) -> int:
        """Send some of `data`. Returns the number of bytes sent; -1 if the connection has failed."""
        try:
            return sock.send(data)
        except _AGAIN:
            return 0
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as exc:  # noqa: BLE001 - as asyncio's transports do
            self._fatal_error(exc, "Fatal write error on TLS transport")
            return -1

    def _write_ready(self) -> None:
        if self._conn_lost or self._sock is None:
            return
        sent = self._send(self._sock, self._buffer)
        if sent < 0:
            return
        del self._buffer[:sent]
        self._maybe_resume_protocol()  # which may have the protocol write, or end the connection
        if self._buffer or self._sock is None or self._conn_lost:
            return
        self._loop.remove_writer(self._fd)
        self._empty()
        if self._closing:
            self._conn_lost += 1
            self._lose(None)

    def _empty(self) -> None:
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    # What `loop.sendfile` needs (ssa.inject.sendfile).

    async def emptied(self) -> None:
        """Wait until nothing is buffered; until `written_to_again` nothing can be written."""
        if self._emptied is not None:
            raise RuntimeError("sendfile is in progress already")
        self._emptied = self._loop.create_future()
        if not self._buffer:
            self._emptied.set_result(None)
        await self._emptied

    def written_to_again(self) -> None:
        """Allow writing again: the file was sent."""
        self._emptied = None

    async def writable(self) -> None:
        """Wait until the socket has room. Raises ConnectionError where it is closed meanwhile."""
        self._emptied = self._loop.create_future()
        self._loop.add_writer(self._fd, self._empty)
        try:
            await self._emptied
        finally:
            if self._sock is not None:
                self._loop.remove_writer(self._fd)

    def can_write_eof(self) -> bool:
        """False, as of asyncio's TLS."""
        return False

    def write_eof(self) -> None:
        """Raises NotImplementedError, as of asyncio's TLS."""
        raise NotImplementedError

    # --- ending -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the transport. Buffered data is sent first, for at most `ssl_shutdown_timeout` seconds."""
        if self._closing:
            return
        if self._sock is None:
            self.abort()
            return
        self._closing = True
        self._read_no_more()
        if self._buffer:
            self._timer = self._loop.call_later(self.shutdown_timeout, self._too_slow)
        else:
            self._conn_lost += 1
            self._loop.call_soon(self._lose, None)

    def _too_slow(self) -> None:
        self._force_close(exceptions.TimeoutError("SSL shutdown timed out"))

    def abort(self) -> None:
        """Does what `asyncio.WriteTransport` documents: at once, and without close_notify."""
        self._force_close(None)

    def _force_close(self, exc: BaseException | None) -> None:
        if self._handshaking is not None:
            self._handshaking.give_up(exc)
            return
        if self._sock is None or self._conn_lost:
            return
        if self._buffer:
            self._buffer.clear()
            self._loop.remove_writer(self._fd)
        self._closing = True
        self._read_no_more()
        self._conn_lost += 1
        self._loop.call_soon(self._lose, exc, True)

    def _fatal_error(self, exc: BaseException, message: str = "Fatal error on transport") -> None:
        if isinstance(exc, OSError):
            if self._loop.get_debug():
                logger.debug("%r: %s", self, message, exc_info=True)
        elif not isinstance(exc, exceptions.CancelledError):
            self._loop.call_exception_handler(
                {"message": message, "exception": exc, "transport": self, "protocol": self._protocol}
            )
        self._force_close(exc)

    def _lose(self, exc: BaseException | None, cut: bool = False) -> None:  # noqa: FBT001, FBT002 - see `_force_close`
        """Tell the protocol and close the socket; `cut`: without close_notify."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_exception(exc or ConnectionError("Connection is closed by peer"))
        try:
            self._protocol.connection_lost(exc)
        finally:
            sock, self._sock = self._sock, None
            self._protocol = None
            if sock is not None:
                self._close_socket(sock, cut=cut)
            self.detach()

    def _close_socket(self, sock: SSLSocket, *, cut: bool) -> None:
        try:
            if cut:
                os.close(sock.detach())
            else:
                sock.close()
        except OSError as failure:
            logger.debug("%r: closing: %s", self, failure)

    def __del__(self, _warn: Callable[..., None] = warnings.warn) -> None:
        if self._sock is not None:
            _warn(f"unclosed transport {self!r}", ResourceWarning, source=self)
            self._sock.close()
