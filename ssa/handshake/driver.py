"""Moves records between a socket and an engine, on the application's own descriptor.

Two rules make the hand-over possible. *Never over-read*: bytes are looked at with MSG_PEEK, and consumed only up
to the end of the record that the engine needs; what follows the handshake stays in the socket for the kernel.
*Leave the flags alone*: O_NONBLOCK belongs to the open file that the application holds too, so every call
says MSG_DONTWAIT and waits for readiness by itself.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import trio

from ssa import errors
from ssa.handshake import records
from ssa.handshake.engine import Engine, Step
from ssa.trust import Verified

PEEK = 64 * 1024  # bytes: more than a usual flight
POLL = 0.005  # seconds between looks, where readiness cannot be waited for

Judge = Callable[[tuple[bytes, ...]], Verified]


class RecordReader:
    """Whole records from a socket, and not a byte more than was asked for."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._partial = b""  # the beginning of the next record, consumed already

    async def peek(self) -> list[bytes]:
        """The whole records that are there, at least one. They are not consumed until `consume`.

        Raises `ssa.HandshakeError` for what is no TLS, and when the peer is gone.
        """
        while True:
            data = self._partial + await self._peek_bytes()
            found, rest = records.split_untrusted(data)
            if found:
                return found
            # Half a record: to peek at it again would spin. The record is ours in any case, so take what is there.
            self._discard(len(rest) - len(self._partial))
            self._partial = rest

    def consume(self, count: int) -> None:
        """Take the first `count` bytes of what was peeked at out of the socket."""
        self._discard(count - len(self._partial))
        self._partial = b""

    async def _peek_bytes(self) -> bytes:
        while True:
            try:
                data = self._socket.recv(PEEK, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except BlockingIOError:
                await wait_readable(self._socket)
                continue
            except OSError as exc:
                raise _network_error(exc) from exc
            if not data:
                raise errors.error("CONNECTION_CLOSED")
            return data

    def _discard(self, count: int) -> None:
        while count > 0:
            try:
                taken = len(self._socket.recv(count, socket.MSG_DONTWAIT))
            except OSError as exc:
                raise _network_error(exc) from exc
            if not taken:
                raise errors.error("NETWORK", "somebody else reads from this socket")
            count -= taken


async def wait_readable(sock: socket.socket) -> None:
    """Wait until there may be something to read, even where the application has set SO_RCVLOWAT, which epoll obeys."""
    if sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) > 1:
        await trio.sleep(POLL)
    else:
        await trio.lowlevel.wait_readable(sock)


def _network_error(exc: OSError) -> errors.SSAError:
    reset = exc.errno in (errno.ECONNRESET, errno.EPIPE)
    stolen = exc.errno == errno.EAGAIN  # there was something a moment ago
    detail = "somebody else reads from this socket" if stolen else exc.strerror or ""
    return errors.error("CONNECTION_RESET" if reset else "NETWORK", detail)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it. Raises `ssa.HandshakeError` when the connection fails."""
    while data:
        try:
            data = data[sock.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError as exc:
            raise _network_error(exc) from exc


async def run(engine: Engine, sock: socket.socket, judge: Judge) -> None:
    """Handshake to the end. What `judge` raises is raised here, after the peer has been told."""
    reader = RecordReader(sock)
    await send(sock, engine.start())
    while engine.step is not Step.DONE:
        try:
            found = await reader.peek()
        except errors.SSAError as exc:
            send_farewell(sock, _alert_for(exc))
            raise
        try:
            answer = await _feed(engine, reader, found)
        except errors.SSAError:
            send_farewell(sock, engine.farewell())
            raise
        if engine.step is Step.JUDGE:
            answer = _judge(engine, sock, judge)
        await send(sock, answer)


async def _feed(engine: Engine, reader: RecordReader, found: list[bytes]) -> bytes:
    """Feed as many of the records as the engine wants, and consume just those.

    OpenSSL's work is done on the event loop, as a thread for each step costs more than it gains; except where a
    server could make it last, at everybody's cost.
    """
    used, answer = 0, b""
    for record in found:
        used += len(record)
        try:
            if engine.is_costly_untrusted(record):
                answer = await trio.to_thread.run_sync(engine.feed_untrusted, record)
            else:
                answer = engine.feed_untrusted(record)
        except errors.SSAError:
            reader.consume(used)
            raise
        if answer or engine.step is not Step.READ:
            break
    reader.consume(used)
    return answer


def _judge(engine: Engine, sock: socket.socket, judge: Judge) -> bytes:
    try:
        verified = judge(engine.chain)
    except errors.SSAError as exc:
        send_farewell(sock, engine.refuse(exc.alert or "bad_certificate"))
        raise
    except Exception:
        send_farewell(sock, engine.refuse("internal_error"))
        raise
    return engine.admit(verified)


def _alert_for(exc: errors.SSAError) -> bytes:
    """The alert for a fault that OpenSSL never saw. What is no TLS gets none."""
    row = errors.REASONS[exc.reason]
    return records.plain_alert(row.alert) if row.alert else b""


def send_farewell(sock: socket.socket, alert: bytes) -> None:
    """Say why and hang up, without waiting: the peer may not even be reading.

    What is left to read is read first: closing over unread bytes resets the connection, and the alert with it.
    """
    try:
        if alert:
            sock.send(alert, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        sock.shutdown(socket.SHUT_WR)
        for _ in range(16):
            if not sock.recv(PEEK, socket.MSG_DONTWAIT):
                break
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The connection is over in any case, and the error that ended it is on its way to the caller.
        return
