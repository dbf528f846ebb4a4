"""A DTLS association (RFC 6347): the handshake with one peer, and the data that follows."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import trio

from ssa import errors
from ssa.dtls import records, udp
from ssa.dtls.states import LIVE
from ssa.handshake.states import AWAITING, State
from ssa.logfmt import fields
from ssa.protocol import addresses
from ssa.tls import MAX_CONTENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ssa.dtls.engine import DatagramEngine
    from ssa.dtls.port import Port
    from ssa.dtls.queue import Queue
    from ssa.dtls.udp import Way
    from ssa.handshake.driver import Judge
    from ssa.trust import Verified

_EARLY = 16  # contents that came together with the end of the handshake, and are kept
_MOST_RECORDS = 32  # of a datagram: OpenSSL goes through all of them at once
_MOST_BYTES = 256 * 1024  # of the peer's in one handshake: more than a flight with 100 kB of certificates, sent twice


class Association:
    """A session with one peer, which RFC 6347 calls an association."""

    def __init__(
        self,
        port: Port,
        address: Any,
        engine: DatagramEngine,
        *,
        hello: bytes = b"",
        way: Way | None = None,
    ) -> None:
        self.port = port
        self.address = address
        self._way = way or []
        self.key = addresses.packed(address)
        self.engine = engine
        self.hello = hello  # of a server's session: the hello that it began with
        self.sent = self.received = 0  # bytes over UDP
        self.heard = trio.current_time()  # when the last datagram came from the peer, on trio's clock
        self._failure: errors.SSAError | None = None
        self._left = 0  # records that may be sent under the key
        self._progress = trio.Event()
        self._queue: Queue | None = None
        self._early: list[bytes] = []  # that came together with the end of the handshake
        self._finish: Callable[[], None] = _nothing  # what to do when the peer has ended the session in order
        self.gone: Callable[[], None] = _nothing  # what to do when it is over
        self.over = False
        replaced = port.associations.get(self.key)
        port.associations[self.key] = self
        port.living.add(self)
        if replaced is not None:
            replaced.abort()

    @property
    def local(self) -> Any:
        """Our own address in this session."""
        return udp.address_of(self._way, self.port.local)

    @property
    def established(self) -> bool:
        """True where there is a session: the handshake is done, and the peer was admitted."""
        return self.engine.state in LIVE and self._failure is None

    @property
    def largest(self) -> int:
        """The most bytes that the application can send in one datagram."""
        return min(self.port.mtu(self.address) - self.engine.costs, MAX_CONTENT)

    # --- the handshake --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Send our first flight. Raises `ssa.SSAError`, after the peer has been told."""
        with self._telling():
            if self._failure is not None:
                raise self._failure  # it was ended before it began
            self._send(self.engine.start())

    async def peer_chain(self) -> tuple[bytes, ...]:
        """Handshake up to the flight that is held: the peer's certificates, DER, which are not judged yet.

        Raises `ssa.SSAError`, after the peer has been told.
        """
        await self._read_on()
        with self._refusing():
            return self.engine.chain

    def verdict(self, judge: Judge, chain: tuple[bytes, ...]) -> Verified:
        """The judge's verdict on the peer's chain. What `judge` raises is raised here, after the peer has been told."""
        with self._refusing():
            return judge(chain)

    async def finish(self, verified: Verified) -> None:
        """Send the held flight, and handshake to the end. Raises `ssa.SSAError`, after the peer has been told."""
        self._send(self.engine.admit(verified))
        if self.engine.state is State.ESTABLISHED:
            self._open_untrusted(b"")
        await self._read_on()

    async def _read_on(self) -> None:
        """Wait until the engine expects no datagram; what is lost meanwhile is sent again."""
        with self._telling():
            while self._failure is None and self.engine.state in AWAITING:
                self._progress = trio.Event()
                patience = self.engine.patience()
                with trio.move_on_after(math.inf if patience is None else patience):
                    await self._progress.wait()
                if not self._progress.is_set():
                    self._send(self.engine.retransmit())
            if self._failure is not None:
                raise self._failure

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """Send the peer OpenSSL's alert if the block fails."""
        try:
            yield
        except errors.SSAError:
            self._send(self.engine.farewell())
            raise

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Refuse the peer, with the error's alert, if the block fails."""
        try:
            yield
        except errors.SSAError as exc:
            self._send(self.engine.refuse(exc.alert or "bad_certificate"))
            raise
        except Exception:
            self._send(self.engine.refuse("internal_error"))
            raise

    def doubt(self, failure: errors.SSAError) -> None:
        """Take an error that is not authenticated: it ends a handshake, and nothing else."""
        if self.engine.state not in LIVE and self._failure is None:
            self._failure = failure
            self._progress.set()

    def arrived_untrusted(self, datagram: bytes) -> None:
        """Take a datagram from the peer's address."""
        self.received += len(datagram)
        self.heard = trio.current_time()
        if self._failure is not None or not datagram:
            return
        datagram = records.first_untrusted(datagram, _MOST_RECORDS)
        if self.engine.state is State.ESTABLISHED:
            self._open_untrusted(datagram)
            return
        if self.engine.state not in AWAITING:
            return  # before our first flight, while the peer is judged, and behind its close_notify nothing is expected
        try:
            if self.received > _MOST_BYTES:
                raise errors.error("PROTOCOL_VIOLATION", f"a handshake of more than {_MOST_BYTES >> 10} KiB")
            self._shake_untrusted(datagram)
        except errors.SSAError as exc:
            self._failure = exc
        self._progress.set()

    def _shake_untrusted(self, datagram: bytes) -> None:
        self._send(self.engine.feed_untrusted(datagram))
        if self.engine.state is State.ESTABLISHED:
            self._open_untrusted(b"")

    def _send(self, flight: bytes) -> None:
        if flight:
            self.sent += self.port.send(self.engine.packed(flight), self.address, self._way)

    # --- what follows it --------------------------------------------------------------------------------------------

    def deliver_to(self, queue: Queue, finish: Callable[[], None]) -> None:
        """Put what comes into the queue from now on. `finish` is called after the last of it."""
        self._queue, self._finish = queue, finish
        self._left = self.engine.suite.aead.limit
        for content in self._early:
            queue.put(content)
        self._early.clear()
        if self.engine.closed:
            finish()

    async def seal_and_send(self, content: bytes) -> None:
        """Send what the application wrote. What cannot go is lost, as in the network. Raises `ssa.SSAError`."""
        if 0 < len(content) <= MAX_CONTENT and self.engine.state is State.ESTABLISHED:
            self._left -= 1
            if self._left < 0:
                raise errors.error("CONNECTION_LOST", "its key has protected as many records as it may")
            datagram = self.engine.seal(content)
            if await self.port.send_when_possible(datagram, self.address, self._way):
                self.sent += len(datagram)

    def end(self) -> None:
        """Send our close_notify, and leave the port."""
        if not self.engine.closed and not self.over:
            self._send(self.engine.end())
        self.abort()

    def abort(self) -> None:
        """Leave the port and send nothing: the peer has gone, or another session has its address by now."""
        self.over = True
        self._failure = self._failure or errors.error("CONNECTION_CLOSED")
        self._progress.set()
        self.port.leave(self)
        gone, self.gone = self.gone, _nothing
        gone()

    def _open_untrusted(self, datagram: bytes) -> None:
        try:
            contents, answer = self.engine.open_untrusted(datagram)
        except errors.SSAError as exc:
            self.port.log.info("a session over datagrams has failed %s", fields(reason=exc.reason, detail=exc.detail))
            self.abort()
            return
        self._send(answer)
        if self._queue is None:
            self._early += contents[: _EARLY - len(self._early)]
        else:
            for content in contents:
                self._queue.put(content)
        if self.engine.closed:
            self._send(self.engine.end())
            self.port.cut(self)  # not `leave`: the application has not read all of it yet
            self._finish()


def _nothing() -> None:
    return
