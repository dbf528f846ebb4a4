"""Forwards TLS streams to a backend, each on a connection of its own: the way of a byte behind `ssa serve`.

    client ── TLS ── ssa.trio.TLSStream ── Forwarder ── AF_UNIX or loopback ── backend

ssad makes the handshake before a stream comes here. So a client that it refuses never reaches the backend.

what happens                      what the other end is told
client: close_notify              the backend: end of file; its answer goes on
client: cut, reset, forged        the backend: a reset; on AF_UNIX, which has none, end of file, and EPIPE at a write
client: takes nothing more        the same
backend: end of file              the client: close_notify, behind the last byte; what it sends is taken for a while yet
backend: reset, or unreachable    the client: a FIN without close_notify, behind the last byte: a truncation
backend: reads no more            the client: nothing; what it sends is thrown away until the backend's own end
this process is killed            both: the kernel ends their connections; the client's stream is cut
"""

from __future__ import annotations

import contextlib
import errno
import math
from typing import TYPE_CHECKING, NamedTuple

import trio

from ssa.cli import backend
from ssa.cli.failure import explain

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.library.tlssocket import TLSSocket
    from ssa.trio import TLSListener, TLSStream

    Header = Callable[[TLSSocket], bytes]  # makes what the backend is sent before the client's first byte

_SIZE = 1 << 16  # bytes of a read
_LINGER = 5  # seconds that a client may be silent after the backend has ended its own stream
_REST = 0.1  # seconds, where nothing can be accepted for now
_BROKEN = (trio.BrokenResourceError, OSError)  # of a connection that has failed, or that its peer has ended
_FINAL = frozenset({errno.EINVAL, errno.EBADF})  # of accept(2): the socket listens no more


class Forwarder:
    """Forwards what a listener accepts to one backend.

    Args:
        to: where the backend listens.
        header: makes what the backend is sent before the client's first byte.
        patience: seconds that the backend may take to accept a connection.
        places: how many connections there may be at once. The next ones wait, as ssad's listeners wait.
        say: prints a line for the administrator.
    """

    def __init__(
        self,
        to: backend.Address,
        header: Header,
        *,
        patience: float,
        places: int,
        say: Callable[[str], None],
    ) -> None:
        self._to = to
        self._header = header
        self._patience = patience
        self._places = trio.Semaphore(places)
        self._say, self._faults = _Once(say), _Once(say)
        self._backend = _Outage(to, say)

    async def serve(self, listener: TLSListener, nursery: trio.Nursery) -> None:
        """Accept until cancelled, or until the socket listens no more. Each stream is a task of the nursery."""
        while True:
            await self._places.acquire()
            try:
                stream = await listener.accept()
            except BaseException as exc:
                self._places.release()
                if not isinstance(exc, OSError):
                    raise
                if exc.errno in _FINAL:
                    self._say.say(f"nothing can be accepted any more: {explain(exc)}")
                    return
                self._say.say(f"nothing can be accepted for now: {explain(exc)}")
                await trio.sleep(_REST)
            else:
                self._say.forget()
                nursery.start_soon(self._forward, stream)

    async def _forward(self, stream: TLSStream) -> None:
        try:
            if (plain := await self._connected(stream)) is not None:
                await _Pair(stream, plain).run()
        except Exception as exc:  # noqa: BLE001 - it is said, and the other connections go on
            self._faults.say(f"a fault of ssa's own: a connection is cut: {exc!r}")
        finally:
            self._places.release()
            await trio.aclose_forcefully(stream)  # cuts it where it has not been closed in order

    async def _connected(self, stream: TLSStream) -> trio.SocketStream | None:
        """A connection to the backend that has got the header; None where there is none."""
        try:
            header = self._header(stream.socket)
        except OSError:  # the client has gone
            return None
        try:
            plain = await backend.connect(self._to, self._patience)
            try:
                if header:
                    await plain.send_all(header)
            except BaseException:
                plain.socket.close()
                raise
        except _BROKEN as exc:
            self._backend.failed(exc)
            return None
        self._backend.works()
        return plain


class _Once:
    """Says a line when it differs from the line before."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said = ""

    def say(self, line: str) -> None:
        if line != self._said:
            self._said = line
            self._say(line)

    def forget(self) -> None:
        """Say the next line, even if it is the one that was said last."""
        self._said = ""


class _Outage:
    """Tells the administrator when the backend cannot be reached, and when it can again: a line each."""

    def __init__(self, to: backend.Address, say: Callable[[str], None]) -> None:
        self._to = to
        self._reason = _Once(say)
        self._say = say
        self._lost = 0

    def failed(self, exc: BaseException) -> None:
        """A connection could not be made, and its client's stream is cut."""
        self._lost += 1
        why = f"{exc.strerror or exc}" if isinstance(exc, OSError) else str(exc)
        self._reason.say(f"the backend {self._to} cannot be reached, so its clients are cut off: {why}")

    def works(self) -> None:
        """A connection could be made."""
        if self._lost:
            self._say(f"the backend {self._to} can be reached again, after {self._lost} connections that were cut off")
            self._lost = 0
            self._reason.forget()


class _Directions(NamedTuple):
    """Which directions of a pair have ended in order."""

    up: bool = False
    down: bool = False


class _Pair:
    """A TLS stream and its connection to the backend."""

    def __init__(self, stream: TLSStream, plain: trio.SocketStream) -> None:
        self._stream = stream
        self._plain = plain
        self._ended = _Directions()
        self._reads = True  # the backend does
        self._scope = trio.CancelScope()

    async def run(self) -> None:
        """Forward both ways until both have ended, or until one is cut, which cuts the other."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._up)
                    nursery.start_soon(self._down)
            if self._ended.down:
                await self._stream.aclose()
        except _BROKEN:  # the client has gone
            pass
        finally:
            if all(self._ended):
                self._plain.socket.close()
            else:
                backend.reset(self._plain)

    async def _up(self) -> None:
        """From the client to the backend."""
        try:
            while data := await self._stream.receive_some(_SIZE):
                await self._give(data)
            if self._reads:
                with contextlib.suppress(*_BROKEN):  # the backend has gone, which `_down` finds
                    await self._plain.send_eof()
        except _BROKEN:
            self._scope.cancel()
        else:
            self._ended = self._ended._replace(up=True)

    async def _give(self, data: bytes) -> None:
        """Send the backend something. Where it reads no more, that is thrown away: its answer is not over for that."""
        if not self._reads:
            return
        try:
            await self._plain.send_all(data)
        except _BROKEN:
            self._reads = False
        else:
            self._wait_on()

    async def _down(self) -> None:
        """From the backend to the client."""
        try:
            while data := await self._plain.receive_some(_SIZE):
                await self._stream.send_all(data)
            await self._stream.send_eof()
        except _BROKEN:
            self._scope.cancel()
        else:
            self._ended = self._ended._replace(down=True)
            self._wait_on()

    def _wait_on(self) -> None:
        """After the backend's end the client has a limited time to send something that the backend still takes."""
        self._scope.deadline = trio.current_time() + _LINGER if self._ended.down else math.inf
