"""`DTLSSocket`: a TLS socket over datagrams (RFC 6347), in the words of the socket API.

Theory of operation. The daemon does the records, and keeps the UDP socket. The descriptor's number is one end of a
SOCK_SEQPACKET pair from the handshake on: each packet is a datagram's content, so that read, write, poll and a second
process mean what they mean on a UDP socket. The library holds the UDP socket beside it (`_held`), for its addresses and
options. The ends of a session differ in what the descriptor tells:

    the peer's close_notify      end of file: the daemon has ended its writing, and stays
    the session was cut          end of file and a hang-up: the daemon, or its end, has gone

A server has two ways. After `listen`, `accept` gives a socket for each client. Without, `recvfrom` and `sendto` on the
bound socket serve all of them: then each packet on the pair has its client's address before it
(`ssa.protocol.addresses`).
"""

from __future__ import annotations

import errno
import os
import select
import socket

from ssa.library import connection, deadlines, fdswap
from ssa.library.endpoint import Endpoint
from ssa.library.phases import (
    BORROWED,
    DATAGRAMS,
    FAILED,
    FRESH,
    GATHERING,
    LISTEN,
    LISTENING,
    LIVE,
    REFUSALS,
    SERVE_ALL,
    TRANSFER,
    UPGRADE,
)
from ssa.protocol import addresses, wire
from ssa.protocol.options import IPPROTO_TLS, TLS_VERSION_CONN, TLS_VERSION_MAX, TLS_VERSION_MIN
from ssa.tls import DTLS_1_2, DTLS_1_2_NAME, MAX_CONTENT, TLS_1_2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn, Self

    from typing_extensions import Buffer

    from ssa.library.option_values import Settings

_socket = socket.socket

_TWINS: dict[Any, int] = dict.fromkeys((DTLS_1_2, DTLS_1_2_NAME, DTLS_1_2_NAME.encode()), TLS_1_2)
_CUT = "the session was cut: it failed, or the ssad that served it has gone"


class DTLSSocket(Endpoint):
    """A DTLS socket: made by `ssa.socket(type=SOCK_DGRAM)` or `ssa.create_server(type=SOCK_DGRAM)`.

    What `send` is given arrives as one `recv`, or not at all; nothing is repeated or put in order. An empty `recv` is
    the peer's close_notify. A datagram that is longer than the path takes is refused with EMSGSIZE.
    """

    __slots__ = ("_largest", "_peer", "_peers")

    _below = (socket.SOCK_DGRAM, socket.IPPROTO_UDP)
    _calls = DATAGRAMS
    _control = None
    _always_passed = True

    def __init__(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_DGRAM,  # noqa: A002 - as socket.socket has it
        proto: int = IPPROTO_TLS,
        fileno: int | None = None,
    ) -> None:
        """Make a socket, as `socket.socket` does. Raises OSError EPROTONOSUPPORT, EAFNOSUPPORT for other kinds."""
        super().__init__(family, type, proto, fileno)

    def _begin(self, settings: Settings, phase: int, info: wire.Reply | None = None) -> None:
        super()._begin(settings, phase, info)
        self._largest = (info and info.largest) or MAX_CONTENT  # bytes of a datagram
        self._peer: Any = None
        self._peers: set[bytes] = set()  # clients, of a socket that serves all of them

    def _found_phase(self) -> int:
        if self.family == socket.AF_UNIX and self.type == socket.SOCK_SEQPACKET:
            return BORROWED if _socket.getpeername(self) else LIVE  # the daemon's socket has a name, a pair none
        if self.family not in (socket.AF_INET, socket.AF_INET6) or self.type != socket.SOCK_DGRAM:
            raise OSError(errno.EPROTONOSUPPORT, "the descriptor is not a UDP socket")
        return FRESH

    # --- connecting ---------------------------------------------------------------------------------------------

    def _connect_to_one(
        self, daemon: connection.DaemonConnection, request: wire.Connect, addresses: list[Any], deadline: float | None
    ) -> None:
        """Connect to the first address that answers. One that refuses (ICMP) is passed over for the next."""
        failure: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        for address in addresses:
            try:
                _socket.connect(self, address)
                self._phase = FAILED  # unless all goes well
                request.timeout_ms = deadlines.milliseconds_left(deadline)
                reply, end = daemon.ask_for_socket(request, self, self._settings.descriptors())
                self._go_live(reply, [end])
            except ConnectionRefusedError as exc:
                failure = exc.with_traceback(None)
            except OSError:
                self._fail_closed()
                raise
            else:
                return
        self._fail_closed()
        try:
            raise failure
        finally:
            del failure  # see `ssa.library.held.afresh`

    def _fall_back(self) -> None:
        self._phase = FAILED
        self._fail_closed()
        if self._before is not None:
            self._settings = self._before

    def _fail_closed(self) -> None:
        """Disconnect the UDP socket after a failure, so that no plain text can be written to it."""
        if self._phase == FAILED:
            fdswap.disconnect(self.fileno())

    def _go_live(self, reply: wire.Reply, passed: Sequence[int]) -> None:
        super()._go_live(reply, passed)
        self._largest = reply.largest or self._largest

    def upgrade(self, *, server_side: bool) -> NoReturn:
        """Raises OSError EOPNOTSUPP: DTLS does not begin in the midst of plain datagrams."""
        del server_side
        self._check_open()
        raise OSError(self._calls[self._phase][UPGRADE], "TLS_UPGRADE is for streams")

    # --- serving ------------------------------------------------------------------------------------------------

    def listen(self, backlog: int = 128, /) -> None:
        """Listen, and have the daemon make the handshakes. `accept` returns sessions whose handshake is done.

        Raises `ssa.SSAError`: NO_CREDENTIALS where there is no certificate.
        """
        self._check(LISTEN)
        if self._phase == LISTENING:
            return
        self._bind_somewhere()
        self._backlog = max(1, backlog)
        try:
            with self._served(self) as queue:
                self._hold(queue.fileno())
        except OSError as exc:
            raise self._failed(exc) from None
        self._phase = LISTENING

    def _bind_somewhere(self) -> None:
        if not _socket.getsockname(self)[1]:
            _socket.bind(self, ("", 0))

    def _accepted(self, fd: int, tcp: int | None = None, *, reply: wire.Reply) -> Self:
        del tcp  # of a stream there is one
        family = self.family if self._held is not None else addresses.family_of(reply.peer or b"")  # else: AF_UNIX
        return self.adopt(fd, family, self._settings, LIVE, reply)

    def _gather(self) -> None:
        """Ask the daemon to serve all clients of the port on this descriptor."""
        if not _socket.getsockname(self)[1]:
            raise OSError(errno.ENOTCONN, "the socket is neither connected nor bound")
        request = wire.Gather(**self._settings.request())
        try:
            with connection.DaemonConnection(deadlines.local()) as daemon:
                _, fd = daemon.ask_for_socket(request, self, self._settings.descriptors())
        except OSError as exc:
            raise self._failed(exc) from None
        try:
            self._hold(fd)
        finally:
            os.close(fd)
        self._phase = GATHERING

    # --- options ------------------------------------------------------------------------------------------------

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """Set an option, see `Endpoint.setsockopt`. TLS_VERSION_MIN and _MAX take DTLS's names and numbers too."""
        if (
            level == IPPROTO_TLS
            and optname in (TLS_VERSION_MIN, TLS_VERSION_MAX)
            and isinstance(value, (int, str, bytes))
        ):
            value = _TWINS.get(value, value)
        super().setsockopt(level, optname, value, optlen)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """Read an option, see `Endpoint.getsockopt`. TLS_VERSION_CONN is 0xFEFD, or b"DTLSv1.2"."""
        if (level, optname) == (IPPROTO_TLS, TLS_VERSION_CONN):
            self._settle()
            if self._phase == LIVE:
                return DTLS_1_2_NAME.encode() if buflen else DTLS_1_2
        return super().getsockopt(level, optname, buflen)

    # --- reading ------------------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """The next datagram, or as much of it as fits; empty when the peer has ended the session.

        Raises ConnectionAbortedError when the session was cut.
        """
        return self.recvfrom(bufsize, flags)[0]

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """The next datagram, and the address that sent it. A bound socket that is not connected serves all clients."""
        buffer = bytearray(bufsize)
        size, _, address = self._receive([buffer], flags)
        return bytes(memoryview(buffer)[:size]), address

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Receive a datagram into a buffer; its size, 0 when the peer has ended the session."""
        return self.recvfrom_into(buffer, nbytes, flags)[0]

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Receive a datagram into a buffer; its size, and the address that sent it."""
        view = memoryview(buffer).cast("B")
        size, _, address = self._receive([view[: nbytes or len(view)]], flags)
        return size, address

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """Receive a datagram: content, no ancillary data, flags (MSG_TRUNC where it was longer), address."""
        del ancbufsize
        buffer = bytearray(bufsize)
        size, found, address = self._receive([buffer], flags)
        return bytes(memoryview(buffer)[:size]), [], found, address

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Receive a datagram into buffers: size, no ancillary data, flags, address."""
        del ancbufsize
        size, found, address = self._receive(list(buffers), flags)
        return size, [], found, address

    def _receive(self, buffers: list[Any], flags: int) -> tuple[int, int, Any]:
        """Receive a datagram: its size, the flags of recvmsg(2), and the address that sent it."""
        if self._phase and self._check_live() == SERVE_ALL:
            self._gather()
        if self._phase == GATHERING:
            return self._receive_of_any(buffers, flags)
        size, _, found, _ = self._reading(buffers, flags)
        if not size and not self._read_ended:
            self._end()
        return size, found & ~socket.MSG_EOR, self.getpeername()

    def _receive_of_any(self, buffers: list[Any], flags: int) -> tuple[int, int, Any]:
        prefix = bytearray(addresses.SIZE)
        while True:
            size, _, found, _ = self._reading([prefix, *buffers], flags)
            if size < addresses.SIZE:
                if not self._read_ended:
                    self._end()
                return 0, 0, None
            kind, address = addresses.unpacked(bytes(prefix))
            if kind == addresses.DATA:
                self._peers.add(bytes(prefix))
                return size - addresses.SIZE, found & ~socket.MSG_EOR, address
            self._peers.discard(addresses.packed(address))
            if flags & socket.MSG_PEEK:
                _socket.recv(self, 1)

    def _reading(self, buffers: list[Any], flags: int) -> tuple[int, list[Any], int, Any]:
        try:
            return _socket.recvmsg_into(self, buffers, 0, flags)
        except ConnectionResetError:
            raise self._failed(ConnectionAbortedError(errno.ECONNABORTED, _CUT)) from None

    def _end(self) -> None:
        """Note the peer's close_notify: nothing more comes. Raises ConnectionAbortedError if the session was cut."""
        poll = select.poll()
        poll.register(self.fileno(), 0)
        if poll.poll(0) and not self._write_ended:  # a hang-up
            raise self._failed(ConnectionAbortedError(errno.ECONNABORTED, _CUT))
        self._read_ended = True

    # --- writing ------------------------------------------------------------------------------------------------

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Send one datagram. Raises OSError: EMSGSIZE where the path takes less, EINVAL for an empty one."""
        return self.sendmsg([data], (), flags)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Send one datagram, whole or not at all. Raises as `send`."""
        self.sendmsg([data], (), flags)

    def sendto(self, data: Buffer, *flags_and_address: Any) -> int:
        """Send one datagram. On a socket that serves all clients the address says to which.

        Raises as `send`, and OSError ENOTCONN where there is no session with that client.
        """
        *flags, address = flags_and_address
        return self.sendmsg([data], (), flags[0] if flags else 0, address)

    def sendmsg(
        self, buffers: Iterable[Buffer], ancdata: Iterable[Any] = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """Send one datagram from several buffers. Raises as `sendto`, and EINVAL for ancillary data."""
        if list(ancdata):
            raise OSError(errno.EINVAL, "there is no ancillary data for DTLS")
        parts = [memoryview(buffer).cast("B") for buffer in buffers]
        prefix = self._addressed(address)
        size = sum(map(len, parts))
        if not size:
            raise OSError(errno.EINVAL, "DTLS carries no empty datagrams")
        if size > self._largest:
            raise OSError(errno.EMSGSIZE, f"a datagram of {size} bytes, where the path takes {self._largest}")
        return _socket.sendmsg(self, [prefix, *parts], (), flags) - len(prefix)

    def _addressed(self, address: Any) -> bytes:
        """The bytes before a datagram's content: the client's address, on a socket that serves all clients."""
        if self._phase and self._check_live() == SERVE_ALL:
            if address is None:
                raise self._refusal(errno.ENOTCONN, REFUSALS[TRANSFER])
            self._gather()
        if self._phase == GATHERING:
            if address is None:
                raise OSError(errno.EDESTADDRREQ, "the socket serves many clients: sendto() says which")
            prefix = self._looked_up(address)
            if prefix not in self._peers:
                raise OSError(errno.ENOTCONN, f"there is no session with {address[0]} port {address[1]}")
            return prefix
        if address is not None and self._looked_up(address) != addresses.packed(self.getpeername()):
            raise OSError(errno.EISCONN, "the socket is connected to another address")
        return b""

    def _looked_up(self, address: Any) -> bytes:
        try:
            return addresses.packed(address)
        except OSError:
            host, port, *_ = address
            return addresses.packed(socket.getaddrinfo(host, port, self.family, socket.SOCK_DGRAM)[0][4])

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> NoReturn:
        """Files are for streams: ValueError, as of a UDP socket."""
        del file, offset, count
        raise ValueError("only SOCK_STREAM type sockets are supported")

    # --- ending -------------------------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """End one direction or both. The end of our writing ends the session (RFC 5246 section 7.2.1)."""
        self._settle()
        if self._phase not in (LIVE, LISTENING, BORROWED, GATHERING):
            self._transport(_socket.shutdown)(how)
            return
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            self._write_ended = True
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self._read_ended = True
        _socket.shutdown(self, how)

    def _real_close(self) -> None:  # the daemon sends close_notify when the last descriptor of the pair's end is closed
        try:
            self._release()
        finally:
            _socket._real_close(self)  # type: ignore[attr-defined]  # noqa: SLF001 - what socket.close() calls

    def dup(self) -> Self:
        """A second object and descriptor for the socket. The session ends when the last of them is closed."""
        twin = super().dup()
        twin._peers = self._peers  # noqa: SLF001 - it is one of ours
        return twin

    # --- what the UDP socket knows --------------------------------------------------------------------------------

    def getpeername(self) -> Any:
        """The peer's address, as `socket.socket.getpeername` gives it. Raises OSError ENOTCONN."""
        self._settle()
        if self._phase != LIVE:
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        if self._peer is None:
            self._peer = self._told_address("peer") if self._held is None else self._held.getpeername()
        return self._peer

    def getsockname(self) -> Any:
        """The own address, as `socket.socket.getsockname` gives it."""
        return self._told_address("local") if self._phase == LIVE and self._held is None else super().getsockname()

    def _told_address(self, which: str) -> Any:
        """An address of a session that has no UDP socket of its own here."""
        if self._info is None or getattr(self._info, which) is None:
            self._info = connection.describe(self)
        return addresses.unpacked(getattr(self._info, which))[1]

    def __repr__(self) -> str:
        return _socket.__repr__(self).replace("ssa.library.dtlssocket.", "ssa.", 1)
