"""A UDP socket and the sessions on it: one loop reads, and gives each datagram to whom it is from.

Theory of operation. The socket is the application's, passed to us with its addresses and its network namespace. What
comes in is decrypted on the spot and put into the application's queue, a socket pair's, where it is lost when the
queue is full, as in any datagram socket's. The other way the application waits: what it writes is taken from the pair
only when the network takes more. So memory is bounded by the buffers of the sockets.

Errors that the network reports (ICMP) are not authenticated: they end a handshake, as they end a connect(2), and
nothing that was established.
"""

from __future__ import annotations

import contextvars
import errno
import functools
import logging
import math
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.dtls import records
from ssa.handshake.engine import Step
from ssa.ktls.constants import SO_NETNS_COOKIE
from ssa.logfmt import fields
from ssa.protocol import addresses
from ssa.tls import MAX_CONTENT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from ssa.dtls.engine import DatagramEngine
    from ssa.trust import Verified

    Way = list[tuple[int, int, bytes]]  # which of our addresses a datagram came to, as sendmsg(2) takes it
    Greet = Callable[[bytes, bytes, Any, Way], None]  # a first datagram, whose it is, the address, and to which of ours

_log = logging.getLogger("ssa.daemon")

_BATCH = 16  # datagrams, before others get their turn
_TURN = 0.002  # seconds, likewise
_MOST_RECORDS = 32  # of a datagram: OpenSSL goes through all of them at once
_MOST_BYTES = 256 * 1024  # of the peer's in one handshake: more than a flight with 100 kB of certificates, sent twice
_NOTHING = 0.005  # seconds to wait, when a socket that was ready has nothing
_ETHERNET = 1500  # bytes: the path's MTU where it cannot be asked for
_HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}  # bytes of IP's and UDP's
# include/uapi/linux/in.h and in6.h: level, what to do with what is too large, the path's MTU
_MTU_OPTIONS = {socket.AF_INET: (socket.IPPROTO_IP, 10, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 24)}
_PMTUDISC_DONT, _PMTUDISC_DO = 0, 2  # fragment; don't, and say EMSGSIZE
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_IN_PKTINFO = struct.Struct("=i4s4s")  # interface, the address of ours, the datagram's
_IN6_PKTINFO = struct.Struct("=16si")  # the address, interface
_PKTINFO = {socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO), socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO)}
_ROOM = socket.CMSG_SPACE(_IN6_PKTINFO.size)
_QUIETLY = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

_REASONS = {
    errno.ECONNREFUSED: "CONNECTION_REFUSED",
    errno.EHOSTUNREACH: "UNREACHABLE",
    errno.ENETUNREACH: "UNREACHABLE",
}


class Port:
    """A UDP socket of an application's, which we own from now on."""

    def __init__(self, sock: socket.socket, close: Callable[[socket.socket], None], greet: Greet | None = None) -> None:
        """`close` closes the socket at the end, and must not wait: an application has a part in it.

        `greet` is a server's: it is told of datagrams that may begin a session.
        """
        self._socket = sock
        self._close_socket = close
        self._greet = greet
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._started = trio.Event()
        self._writable = trio.Lock()
        self.associations: dict[bytes, Association] = {}  # who is reached by datagrams
        self.living: set[Association] = set()  # those that an application holds, besides
        self.open = greet is not None  # for sessions to come: else it ends with its last one
        self._discover(_PMTUDISC_DO)
        self.local = sock.getsockname()
        if self.local[0] in ("0.0.0.0", "::"):
            sock.setsockopt(*_PKTINFO[sock.family], 1)

    async def start(self) -> None:
        """Begin to read, in a task of its own, which works for the caller's user. Who is cancelled here has no port."""
        trio.lowlevel.spawn_system_task(self._run, context=contextvars.copy_context())
        try:
            await self._started.wait()
        except BaseException:
            self.close()
            raise

    def start_soon(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Do something as long as this port is there at most."""
        if self._nursery is None:
            raise RuntimeError("the port was not started")
        self._nursery.start_soon(self._guarded, work, *arguments)

    def shut(self) -> None:
        """No new sessions; those that are there go on."""
        self.open = False
        self._close_when_empty()

    def close(self) -> None:
        """End all of it."""
        self._scope.cancel()

    def leave(self, association: Association) -> None:
        """A session is over."""
        self.cut(association)
        self.living.discard(association)
        self._close_when_empty()

    def cut(self, association: Association) -> None:
        """A session is no longer reached by datagrams."""
        if self.associations.get(association.key) is association:
            del self.associations[association.key]

    def _close_when_empty(self) -> None:
        if not self.living and not self.open:
            self.close()

    def mtu(self, address: Any) -> int:
        """How large a datagram to that address can be, by what the kernel knows of the path."""
        family = self._socket.family
        level, _, option = _MTU_OPTIONS[family]
        try:
            try:
                found = self._socket.getsockopt(level, option)  # of one that is connected
            except OSError:
                found = self._asked_elsewhere(address)
        except OSError:
            found = _ETHERNET
        return found - _HEADERS[family]

    def _asked_elsewhere(self, address: Any) -> int:
        level, _, option = _MTU_OPTIONS[self._socket.family]
        with socket.socket(self._socket.family, socket.SOCK_DGRAM) as probe:
            cookies = [sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8) for sock in (probe, self._socket)]
            if cookies[0] != cookies[1]:
                return _ETHERNET  # the path is of another network namespace
            probe.connect(address)
            return probe.getsockopt(level, option)

    def send(self, datagrams: list[bytes], address: Any, way: Way) -> int:
        """Send at once or not at all, as DTLS has its own ways with what is lost. The bytes that were sent."""
        return sum(len(datagram) for datagram in datagrams if self._sent(datagram, address, way))

    async def send_when_possible(self, datagram: bytes, address: Any, way: Way) -> bool:
        """Send when the socket takes more; False where it cannot be sent.

        The application was told how large a datagram can be. When the path has become narrower since, the datagram goes
        in fragments.
        """
        while True:
            try:
                return self._sent(datagram, address, way, wait=True) or self._sent_in_fragments(datagram, address, way)
            except BlockingIOError:
                async with self._writable:
                    await trio.lowlevel.wait_writable(self._socket)

    def _sent_in_fragments(self, datagram: bytes, address: Any, way: Way) -> bool:
        self._discover(_PMTUDISC_DONT)
        try:
            return self._sent(datagram, address, way, wait=True)
        finally:
            self._discover(_PMTUDISC_DO)

    def _discover(self, how: int) -> None:
        level, option, _ = _MTU_OPTIONS[self._socket.family]
        self._socket.setsockopt(level, option, how)

    def _sent(self, datagram: bytes, address: Any, way: Way, *, wait: bool = False) -> bool:
        for _ in range(2):  # what an earlier one came to is told first, in place of sending
            try:
                self._socket.sendmsg([datagram], way, _QUIETLY, address)
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
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            _log.exception("a fault of ssad's own, with a UDP socket")
        finally:
            self._started.set()
            for association in list(self.living):
                association.abort()
            self._close_socket(self._socket)

    async def _guarded(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        try:
            await work(*arguments)
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            _log.exception("a fault of ssad's own, in a session over datagrams")

    async def _receive(self) -> None:
        """Read until the application ends the reading side of its socket, which it may still have."""
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            taken, end = 0, time.perf_counter() + _TURN
            while taken < _BATCH and self._take_untrusted():
                taken += 1
                if time.perf_counter() > end:
                    break
            if not taken:
                if is_ended(self._socket):
                    return
                await self._calm()
            await trio.lowlevel.checkpoint()

    def _take_untrusted(self) -> bool:
        """Whether there was a datagram, or an error."""
        try:
            datagram, found, _, address = self._socket.recvmsg(records.PACKET, _ROOM, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._reported(exc)
            return True
        try:
            self._dispatch_untrusted(datagram, address, _back(found))
        except Exception:  # noqa: BLE001 - as above
            _log.exception("a fault of ssad's own, with a datagram of %s", address)
        return True

    async def _calm(self) -> None:
        """A socket that wakes us for nothing: by what is in its queue of errors, if the application wants them told."""
        try:
            for _ in range(_BATCH):
                self._socket.recvmsg(1, 0, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
        except OSError as exc:
            _log.debug("UDP's queue of errors: %s", exc.strerror)
        await trio.sleep(_NOTHING)

    def _dispatch_untrusted(self, datagram: bytes, address: Any, way: Way) -> None:
        key = addresses.packed(address)
        association = self.associations.get(key)
        hello = records.hello_untrusted(datagram) if self.open else b""
        if hello and (association is None or association.hello != hello):
            # Of a new client, or of one that has begun anew: it shows that it can be reached, and then replaces the old
            # one (RFC 6347 section 4.2.8).
            if self._greet is not None:
                self._greet(datagram, key, address, way)
        elif association is not None:
            association.arrived_untrusted(datagram)

    def _reported(self, exc: OSError) -> None:
        """What the network says of something that was sent: meant for a handshake, where there is only one."""
        _log.debug("UDP: %s", exc.strerror)
        if exc.errno in _REASONS and not self.open:
            for association in list(self.living):
                association.doubt(errors.error(_REASONS[exc.errno], exc.strerror or ""))


def _back(found: Way) -> Way:
    """What sends an answer from the address that a datagram came to."""
    for level, kind, value in found:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, ours, _ = _IN_PKTINFO.unpack(value)
            return [(level, kind, _IN_PKTINFO.pack(0, ours, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            ours, interface = _IN6_PKTINFO.unpack(value)
            return [(level, kind, _IN6_PKTINFO.pack(ours, interface if ours[:2] == b"\xfe\x80" else 0))]
    return []


class Association:
    """A session with one peer (RFC 6347 calls it so)."""

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        port: Port,
        address: Any,
        engine: DatagramEngine,
        judge: Callable[[tuple[bytes, ...]], Verified],
        *,
        hello: bytes = b"",
        way: Way | None = None,
    ) -> None:
        self.port = port
        self.address = address
        self._way = way or []
        self.key = addresses.packed(address)
        self.engine = engine
        self.hello = hello  # that a server's began with
        self.sent = self.received = 0  # bytes over UDP
        self.heard = trio.current_time()  # when there was a datagram from the peer
        self._judge = judge
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
        """Our address in it."""
        for _, kind, value in self._way:
            if kind == _IP_PKTINFO:
                return (socket.inet_ntop(socket.AF_INET, _IN_PKTINFO.unpack(value)[1]), self.port.local[1])
            ours, interface = _IN6_PKTINFO.unpack(value)
            return (socket.inet_ntop(socket.AF_INET6, ours), self.port.local[1], 0, interface)
        return self.port.local

    @property
    def established(self) -> bool:
        """Whether there is a session: the handshake is done, and the peer admitted."""
        return self.engine.step is Step.DONE and self._failure is None

    @property
    def largest(self) -> int:
        """How many bytes the application can send in one datagram."""
        return min(self.port.mtu(self.address) - self.engine.costs, MAX_CONTENT)

    # --- the handshake --------------------------------------------------------------------------------------------

    async def handshake(self) -> None:
        """Handshake to the end. Raises `ssa.SSAError`, after the peer has been told."""
        try:
            self._send(self.engine.start())
            while self._failure is None and self.engine.step is not Step.DONE:
                self._progress = trio.Event()
                patience = self.engine.patience()
                with trio.move_on_after(math.inf if patience is None else patience):
                    await self._progress.wait()
                if not self._progress.is_set():
                    self._send(self.engine.retransmit())
            if self._failure is not None:
                raise self._failure
        except errors.SSAError:
            self._send(self.engine.farewell())
            raise

    def doubt(self, failure: errors.SSAError) -> None:
        """An error that ends a handshake, and nothing else."""
        if self.engine.step is not Step.DONE and self._failure is None:
            self._failure = failure
            self._progress.set()

    def arrived_untrusted(self, datagram: bytes) -> None:
        """A datagram from the peer's address."""
        self.received += len(datagram)
        self.heard = trio.current_time()
        if self._failure is not None or not datagram or self.engine.closed:
            return
        datagram = records.first_untrusted(datagram, _MOST_RECORDS)
        if self.engine.step is Step.DONE:
            self._open_untrusted(datagram)
            return
        try:
            if self.received > _MOST_BYTES:
                raise errors.error("PROTOCOL_VIOLATION", f"a handshake of more than {_MOST_BYTES >> 10} KiB")
            self._shake_untrusted(datagram)
        except errors.SSAError as exc:
            self._failure = exc
        self._progress.set()

    def _shake_untrusted(self, datagram: bytes) -> None:
        answer = self.engine.feed_untrusted(datagram)
        if self.engine.step is Step.JUDGE:
            answer = self._judged()
        self._send(answer)
        if self.engine.step is Step.DONE:
            self._open_untrusted(b"")

    def _judged(self) -> bytes:
        try:
            verified = self._judge(self.engine.chain)
        except errors.SSAError as exc:
            self._send(self.engine.refuse(exc.alert or "bad_certificate"))
            raise
        except Exception as exc:
            self._send(self.engine.refuse("internal_error"))
            _log.exception("a fault of ssad's own, judging a certificate")
            raise errors.error("DAEMON_FAULT", type(exc).__name__) from exc
        return self.engine.admit(verified)

    def _send(self, flight: bytes) -> None:
        if flight:
            self.sent += self.port.send(self.engine.packed(flight), self.address, self._way)

    # --- what follows it --------------------------------------------------------------------------------------------

    def deliver_to(self, queue: Queue, finish: Callable[[], None]) -> None:
        """From now on what comes goes there; `finish` is called after the last of it."""
        self._queue, self._finish = queue, finish
        self._left = self.engine.suite.aead.limit
        for content in self._early:
            queue.put(content)
        self._early.clear()
        if self.engine.closed:
            finish()

    async def seal_and_send(self, content: bytes) -> None:
        """Send what the application wrote. What cannot go is lost, as in the network. Raises `ssa.SSAError`."""
        if 0 < len(content) <= MAX_CONTENT and not self.engine.closed:
            self._left -= 1
            if self._left < 0:
                raise errors.error("CONNECTION_LOST", "its key has protected as many records as it may")
            datagram = self.engine.seal(content)
            if await self.port.send_when_possible(datagram, self.address, self._way):
                self.sent += len(datagram)

    def end(self) -> None:
        """Say farewell, and leave."""
        if not self.engine.closed and not self.over:
            self._send(self.engine.end())
        self.abort()

    def abort(self) -> None:
        """Leave, without a word to the peer: it has gone, or the address is another's by now."""
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
            _log.info("a session over datagrams has failed %s", fields(reason=exc.reason, detail=exc.detail))
            self.abort()
            return
        self._send(answer)
        if self._queue is None:
            self._early += contents[: _BATCH - len(self._early)]
        else:
            for content in contents:
                self._queue.put(content)
        if self.engine.closed:
            self._send(self.engine.end())
            self.port.cut(self)  # not `leave`: the application has not read all of it yet
            self._finish()


def _nothing() -> None:
    return


class Queue:
    """What comes from a peer, on its way to the application: our end of a socket pair."""

    def __init__(self, ours: socket.socket, prefix: bytes = b"", farewell: bytes = b"") -> None:
        """`prefix` goes before each packet; `farewell` is the last one, where the pair is not this peer's alone."""
        self._ours = ours
        self._prefix = prefix
        self._farewell = farewell

    def put(self, content: bytes) -> None:
        """A datagram; lost when there is no room."""
        try:
            self._ours.send(self._prefix + content, _QUIETLY)
        except OSError as exc:  # full, or the application has gone, of which its reader will know
            _log.debug("a datagram was lost on its way to the application: %s", exc.strerror)

    def end(self) -> None:
        """The peer has ended its side in order: an end of file, while our end stays open."""
        try:
            if self._farewell:
                self._ours.send(self._farewell, _QUIETLY)
            else:
                self._ours.shutdown(socket.SHUT_WR)
        except OSError as exc:  # as above
            _log.debug("an end was lost on its way to the application: %s", exc.strerror)


async def packets(
    ours: socket.socket,
    take: Callable[[bytes], Awaitable[None]],
    in_a_thread: Callable[[Callable[[], bytes]], Awaitable[bytes]],
) -> None:
    """Give each packet that the application writes to `take`, until it has closed its end, or ended its writing.

    Descriptors that come along are of no use. The kernel closes them where the packet is read, and that can block: such
    a packet is read `in_a_thread`.
    """
    read = functools.partial(ours.recv, records.PACKET, socket.MSG_DONTWAIT)
    while True:
        await trio.lowlevel.wait_readable(ours)
        for _ in range(_BATCH):
            try:
                packet = await in_a_thread(read) if _has_descriptors(ours) else read()
            except BlockingIOError:
                break
            except OSError:  # it has gone, and left something unread
                return
            if not packet and is_ended(ours):
                return
            await take(packet)
        await trio.lowlevel.checkpoint()


def _has_descriptors(ours: socket.socket) -> bool:
    """Whether descriptors come with the next packet. Raises as recvmsg(2)."""
    return bool(ours.recvmsg(0, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)[2] & socket.MSG_CTRUNC)


def is_ended(sock: socket.socket) -> bool:
    """Whether nothing more will come, where there is nothing."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
