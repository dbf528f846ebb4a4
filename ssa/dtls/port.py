"""A UDP socket and the sessions on it: one loop reads, and gives each datagram to the session that it is for.

Theory of operation. The socket is the application's, passed to us with its addresses and its network namespace. What
comes in is decrypted on the spot and put into the application's queue, a socket pair's, where it is lost when the
queue is full, as in any datagram socket's. The other way the application waits: what it writes is taken from the pair
only when the network takes more. So memory is bounded by the buffers of the sockets.

Errors that the network reports (ICMP) are not authenticated. They end a handshake, as they end a connect(2), and
nothing that was established.
"""

from __future__ import annotations

import errno
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

import trio

from ssa import errors
from ssa.dtls import records, udp
from ssa.dtls.udp import PMTUDISC_DO, PMTUDISC_DONT, QUIETLY, WAY_SIZE, Way
from ssa.protocol import addresses

if TYPE_CHECKING:
    import logging
    from collections.abc import Awaitable, Callable

    Greet = Callable[[bytes, bytes, Any, Way], None]  # a first datagram, whose it is, the address, and to which of ours

_BATCH = 16  # datagrams, before others get their turn
_TURN = 0.002  # seconds, likewise
_NOTHING = 0.005  # seconds to wait, when a socket that was ready has nothing

_REASONS = {
    errno.ECONNREFUSED: "CONNECTION_REFUSED",
    errno.EHOSTUNREACH: "UNREACHABLE",
    errno.ENETUNREACH: "UNREACHABLE",
}


class Session(Protocol):
    """A session on a port, as the port sees it. `ssa.dtls.association.Association` implements it."""

    key: bytes  # the peer's address, packed
    hello: bytes  # that a server's began with
    heard: float  # when there was a datagram from the peer, on trio's clock

    def arrived_untrusted(self, datagram: bytes) -> None:
        """Take a datagram from the peer's address."""

    def doubt(self, failure: errors.SSAError) -> None:
        """Take an error that ends a handshake, and nothing else."""

    async def seal_and_send(self, content: bytes) -> None:
        """Send what the application wrote."""

    def end(self) -> None:
        """Send close_notify, and leave the port."""

    def abort(self) -> None:
        """Leave the port without a word to the peer."""


class Port:
    """A UDP socket of an application, which the daemon owns from now on."""

    def __init__(
        self,
        sock: socket.socket,
        close: Callable[[socket.socket], None],
        log: logging.LoggerAdapter[logging.Logger],
        greet: Greet | None = None,
    ) -> None:
        """`close` closes the socket at the end, and must not wait: an application has a part in it.

        `log` takes lines about the socket's user. `greet` is a server's: it is told of datagrams that may begin a
        session.
        """
        self._socket = sock
        self._close_socket = close
        self.log = log
        self._greet = greet
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._started = trio.Event()
        self._writable = trio.Lock()
        self.associations: dict[bytes, Session] = {}  # by the peer's address: those that get its datagrams
        self.living: set[Session] = set()  # those, and those that have ended and the application still reads
        self.open = greet is not None  # for new sessions; otherwise the port ends with its last session
        udp.discover_mtu(sock, PMTUDISC_DO)
        self.local = sock.getsockname()
        udp.tell_ways(sock)

    async def start(self) -> None:
        """Begin to read, in a task of its own. A caller that is cancelled here has no port."""
        trio.lowlevel.spawn_system_task(self._run)
        try:
            await self._started.wait()
        except BaseException:
            self.close()
            raise

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Run `work` in a task that ends with the port at the latest."""
        if self._nursery is None:
            raise RuntimeError("the port was not started")
        self._nursery.start_soon(self._guarded, work, *arguments)

    def shut(self) -> None:
        """Accept no new sessions. Those that are there go on."""
        self.open = False
        self._close_when_empty()

    def close(self) -> None:
        """End the port and its sessions."""
        self._scope.cancel()

    def leave(self, association: Session) -> None:
        """Forget a session that is over."""
        self.cut(association)
        self.living.discard(association)
        self._close_when_empty()

    def cut(self, association: Session) -> None:
        """Give a session no more datagrams."""
        if self.associations.get(association.key) is association:
            del self.associations[association.key]

    def _close_when_empty(self) -> None:
        if not self.living and not self.open:
            self.close()

    def mtu(self, address: Any) -> int:
        """The most bytes of a datagram to that address, by what the kernel knows of the path."""
        return udp.mtu(self._socket, address)

    def send(self, datagrams: list[bytes], address: Any, way: Way) -> int:
        """Send at once or not at all, as DTLS repeats what is lost. Returns how many bytes were sent."""
        return sum(len(datagram) for datagram in datagrams if self._sent(datagram, address, way))

    async def send_when_possible(self, datagram: bytes, address: Any, way: Way) -> bool:
        """Send as soon as the socket has room. Returns False where the datagram cannot be sent.

        The application was told how large a datagram can be. Where the path has a smaller MTU since, the datagram goes
        in fragments.
        """
        while True:
            try:
                return self._sent(datagram, address, way, wait=True) or self._sent_in_fragments(datagram, address, way)
            except BlockingIOError:
                async with self._writable:
                    await trio.lowlevel.wait_writable(self._socket)

    def _sent_in_fragments(self, datagram: bytes, address: Any, way: Way) -> bool:
        udp.discover_mtu(self._socket, PMTUDISC_DONT)
        try:
            return self._sent(datagram, address, way, wait=True)
        finally:
            udp.discover_mtu(self._socket, PMTUDISC_DO)

    def _sent(self, datagram: bytes, address: Any, way: Way, *, wait: bool = False) -> bool:
        for _ in range(2):  # the first call may fail with the error of an earlier datagram, and send nothing
            try:
                self._socket.sendmsg([datagram], way, QUIETLY, address)
            except BlockingIOError:
                if wait:
                    raise
                return False
            except OSError as exc:
                self._reported(exc)
                if exc.errno == errno.EMSGSIZE:
                    return False
            else:
                return True
        return False

    async def _run(self) -> None:
        try:
            with self._scope:
                async with trio.open_nursery() as self._nursery:
                    self._started.set()
                    await self._receive()
                    self.close()
        except Exception:
            self.log.exception("a fault of ssad's own, with a UDP socket")
        finally:
            self._started.set()
            for association in list(self.living):
                association.abort()
            self._close_socket(self._socket)

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception:
            self.log.exception("a fault of ssad's own, in a session over datagrams")

    async def _receive(self) -> None:
        """Read until the application shuts down the reading side of its socket, of which it may have a copy."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            taken, end = 0, time.perf_counter() + _TURN
            while taken < _BATCH and self._take_untrusted():
                taken += 1
                if time.perf_counter() > end:
                    break
            if not taken:
                if udp.is_ended(self._socket):
                    return
                udp.discard_errors(self._socket, _BATCH)
                await trio.sleep(_NOTHING)
            await trio.lowlevel.checkpoint()

    def _take_untrusted(self) -> bool:
        """Take one datagram. Returns False where there was neither a datagram nor an error."""
        try:
            datagram, found, _, address = self._socket.recvmsg(records.PACKET, WAY_SIZE, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._reported(exc)
            return True
        try:
            self._dispatch_untrusted(datagram, address, udp.way_back(found))
        except Exception:
            self.log.exception("a fault of ssad's own, with a datagram of %s", address)
        return True

    def _dispatch_untrusted(self, datagram: bytes, address: Any, way: Way) -> None:
        key = addresses.packed(address)
        association = self.associations.get(key)
        hello = records.hello_untrusted(datagram) if self.open else b""
        if hello and (association is None or association.hello != hello):
            # A new client, or one that has begun anew. It has to show a cookie; then its session replaces the old one
            # (RFC 6347 section 4.2.8).
            if self._greet is not None:
                self._greet(datagram, key, address, way)
        elif association is not None:
            association.arrived_untrusted(datagram)

    def _reported(self, exc: OSError) -> None:
        """Take an error that the network reports. It ends a handshake on a port that has one session."""
        self.log.debug("UDP: %s", exc.strerror)
        if exc.errno in _REASONS and not self.open:
            for association in list(self.living):
                association.doubt(errors.error(_REASONS[exc.errno], exc.strerror or ""))
