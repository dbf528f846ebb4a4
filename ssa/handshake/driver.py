"""Moves records between the application's TCP socket and an engine.

Two rules make it possible to hand the socket to the kernel afterwards. *Never over-read*: the driver looks at bytes
with MSG_PEEK, and consumes them only up to the end of the record that the engine needs. What follows the handshake
stays in the socket. *Leave the flags alone*: O_NONBLOCK belongs to the open file, which the application has too. So
every call says MSG_DONTWAIT, and the driver waits for readiness by itself.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.handshake import records
from ssa.handshake.states import AWAITING
from ssa.trust import Verified

if TYPE_CHECKING:
    from ssa.handshake.engine import Engine

PEEK = 16 * 1024  # bytes: more than a usual flight, and what OpenSSL gets through in a quarter of a millisecond
BATCH = 16  # records
# In one handshake, far above what honest peers need: a flight with 100 kB of certificates, in records of 64 bytes; a
# ClientHello of 1.5 kB, in records of a byte.
MAX_RECORDS = 2048
MAX_BYTES = 256 * 1024
_LEFTOVERS = 64 * 1024  # bytes
POLL = 0.005  # seconds between looks, where readiness cannot be waited for

Judge = Callable[[tuple[bytes, ...]], Verified]


class RecordReader:
    """Reads whole records from a socket, and not a byte more than was asked for.

    A peer that always has more to send gets one turn in each round of the event loop, and `MAX_RECORDS` in all.
    """

    def __init__(self, sock: socket.socket, ahead: bytes = b"") -> None:
        """`ahead` comes before what is in the socket: the application has read it already."""
        self._socket = sock
        self._partial = ahead  # consumed already: what was read ahead, or the beginning of the next record
        self._whole = bool(ahead)  # there may be a whole record in it
        self._records = self._bytes = 0  # consumed so far
        self._looks = 0  # since this task waited
        self._turn_is_the_peers = False

    async def peek(self) -> list[bytes]:
        """Wait for records. Returns 1 to `BATCH` whole ones, which stay in the socket until `consume`.

        Raises `ssa.HandshakeError` for what is no TLS, for too much of it, and when the peer is gone.
        """
        while True:
            self._refuse_endless()
            await self._take_turns()
            if self._whole and (ahead := records.split_untrusted(self._partial, BATCH)[0]):
                return ahead
            self._whole = False
            data = self._partial + await self._peek_bytes()
            found, rest = records.split_untrusted(data, BATCH)
            if found:
                return found
            # Half a record. The socket would be readable at once again, so consume it: the record is ours in any case.
            self._discard(len(rest) - len(self._partial))
            self._partial = rest

    def consume(self, found: list[bytes]) -> None:
        """Take these records, the first of those that `peek` returned, out of the socket."""
        count = sum(map(len, found))
        self._discard(count - len(self._partial))
        self._partial = self._partial[count:]
        self._records += len(found)
        self._bytes += count

    def await_answer(self) -> None:
        """Wait before the next look: the peer can have sent nothing since, as it was our turn."""
        self._turn_is_the_peers = True

    def check_nothing_is_left(self) -> None:
        """Raise `ssa.HandshakeError` where something of `ahead` is behind the handshake: the kernel could not read it.

        No client sends it: it cannot have the keys before our answer.
        """
        if self._partial:
            raise errors.error("PROTOCOL_VIOLATION", f"{len(self._partial)} bytes behind the handshake were read ahead")

    def _refuse_endless(self) -> None:
        if self._records >= MAX_RECORDS or self._bytes >= MAX_BYTES:
            raise errors.error("HANDSHAKE_TOO_LONG", f"{self._records} records, {self._bytes} bytes")

    async def _take_turns(self) -> None:
        """Let the other tasks run after two looks that found data at once: only so can the deadline end this task."""
        if self._looks == 2:
            await trio.lowlevel.checkpoint()
            self._looks = 0
        self._looks += 1

    async def _peek_bytes(self) -> bytes:
        if self._turn_is_the_peers:  # a look would find nothing, as a rule
            await self._wait()
        while True:
            try:
                data = self._socket.recv(PEEK, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                await self._wait()
                continue
            except OSError as exc:
                raise network_error(exc) from exc
            if not data:
                raise errors.error("CONNECTION_CLOSED")
            return data

    async def _wait(self) -> None:
        await wait_readable(self._socket)
        self._looks, self._turn_is_the_peers = 0, False

    def _discard(self, count: int) -> None:
        while count > 0:
            try:
                taken = len(self._socket.recv(count, socket.MSG_DONTWAIT))
            except OSError as exc:
                raise network_error(exc) from exc
            if not taken:
                raise errors.error("NETWORK", "somebody else reads from this socket")
            count -= taken


async def wait_readable(sock: socket.socket) -> None:
    """Wait until there may be something to read, even where the application has set SO_RCVLOWAT, which epoll obeys."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) > 1:
        await trio.sleep(POLL)
    else:
        await trio.lowlevel.wait_readable(sock)


# By errno. With TCP Fast Open a send connects, and can fail with all of these.
_REASONS = {
    errno.ECONNRESET: "CONNECTION_RESET",
    errno.EPIPE: "CONNECTION_RESET",
    errno.ECONNREFUSED: "CONNECTION_REFUSED",
    errno.ETIMEDOUT: "CONNECT_TIMEOUT",
    errno.EHOSTUNREACH: "UNREACHABLE",
    errno.ENETUNREACH: "UNREACHABLE",
}


def network_error(exc: OSError) -> errors.SSAError:
    """The error for an OSError of an operation on the TCP socket."""
    stolen = exc.errno == errno.EAGAIN  # MSG_PEEK has shown data a moment ago
    detail = "somebody else reads from this socket" if stolen else exc.strerror or ""
    return errors.error(_REASONS.get(exc.errno or 0, "NETWORK"), detail)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it. Raises `ssa.HandshakeError` when the connection fails."""
    while data:
        try:
            data = data[sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError as exc:
            raise network_error(exc) from exc


class Handshake:
    """One handshake on a socket, in the order of its methods: start, peer_chain, verdict, finish.

    `ahead` is what the application has read of the peer's already.
    """

    def __init__(self, engine: Engine, sock: socket.socket, ahead: bytes = b"") -> None:
        self._engine = engine
        self._socket = sock
        self._reader = RecordReader(sock, ahead)

    async def start(self) -> None:
        """Send our first flight, before the peer has said anything. Raises `ssa.HandshakeError`."""
        await send(self._socket, self._engine.start())
        self._reader.await_answer()

    async def peer_chain(self) -> tuple[bytes, ...]:
        """Handshake up to the flight that is held: the peer's certificates, DER, which are not judged yet.

        Raises `ssa.HandshakeError`, after the peer has been told.
        """
        await self._read_on()
        with self._refusing():
            return self._engine.chain

    def verdict(self, judge: Judge, chain: tuple[bytes, ...]) -> Verified:
        """The judge's verdict on the peer's chain. What `judge` raises is raised here, after the peer has been told."""
        with self._refusing():
            return judge(chain)

    async def finish(self, verified: Verified) -> None:
        """Send the held flight, and handshake to the end. Raises `ssa.HandshakeError`, after the peer has been told."""
        await send(self._socket, self._engine.admit(verified))
        self._reader.await_answer()
        await self._read_on()
        self._reader.check_nothing_is_left()

    async def _read_on(self) -> None:
        """Read and answer, until the engine waits for no record."""
        engine, sock = self._engine, self._socket
        while engine.state in AWAITING:
            try:
                found = await self._reader.peek()
            except errors.SSAError as exc:
                send_farewell(sock, engine.refuse(exc.alert) if exc.alert else b"")
                raise
            try:
                answer = await _feed(engine, self._reader, found)
            except errors.SSAError:
                send_farewell(sock, engine.farewell())
                raise
            if answer:
                await send(sock, answer)
                self._reader.await_answer()

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        """Refuse the peer, with the error's alert, if the block fails."""
        try:
            yield
        except errors.SSAError as exc:
            send_farewell(self._socket, self._engine.refuse(exc.alert or "bad_certificate"))
            raise
        except Exception:
            send_farewell(self._socket, self._engine.refuse("internal_error"))
            raise


async def _feed(engine: Engine, reader: RecordReader, found: list[bytes]) -> bytes:
    """Feed as many of the records as the engine wants, and consume just those.

    OpenSSL works on the event loop, as a thread for each step costs more than it gains. Only a step that a server could
    make last (`is_costly_untrusted`) is done in a thread.
    """
    answer = b""
    for used, record in enumerate(found, 1):
        try:
            if engine.is_costly_untrusted(record):
                answer = await trio.to_thread.run_sync(engine.feed_untrusted, record)
            else:
                answer = engine.feed_untrusted(record)
        except errors.SSAError:
            reader.consume(found[:used])
            raise
        if answer or engine.state not in AWAITING:
            break
    reader.consume(found[:used])
    return answer


def send_farewell(sock: socket.socket, alert: bytes) -> None:
    """Send the alert and end the connection, without waiting: the peer may not even be reading.

    What is left to read is read first. The kernel resets a connection that is closed over unread bytes, and the peer
    would lose the alert.
    """
    try:
        if alert:
            sock.send(alert, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sock.shutdown(socket.SHUT_WR)
        for _ in range(16):
            if not sock.recv(_LEFTOVERS, socket.MSG_DONTWAIT):
                break
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The connection is over in any case, and the error that ended it is on its way to the caller.
        return
