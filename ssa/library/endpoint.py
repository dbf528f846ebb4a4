"""A TLS socket beside its stream: what it was told, how it is connected, and what it is meanwhile.

Theory of operation. A socket is in a *phase*. Only in `LIVE` is its descriptor a TLS socket; before, no byte may pass.
connect, listen, accept and upgrade are requests to the daemon. While one is under way without anybody waiting for it,
and for as long as the socket listens, the descriptor's number is the connection to the daemon (`ssa.library.fdswap`),
and the TCP socket is `_aside`. There it is too where the daemon relays the stream: then
the number is one end of a pair.

What passes a socket that is `LIVE` is the subject of `ssa.library.tlssocket`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import struct
import time

from ssa import errors
from ssa.ktls import control
from ssa.ktls.constants import TCP_CLOSE, TCP_ULP
from ssa.library import connection, deadlines, fdswap, sharing
from ssa.library.flags import SO_PEEK_OFF
from ssa.library.option_values import Settings, option_of, shown, upgrade_role
from ssa.protocol import wire
from ssa.protocol.options import AF_HOSTNAME, CONNECTED, IPPROTO_TLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, ClassVar, NoReturn, Self, TypeVar

    from ssa.protocol.options import Option

    _T = TypeVar("_T")

_socket = socket.socket

LIVE, FRESH, PLAIN, CONNECTING, LISTENING, FAILED, BROKEN = range(7)
GATHERING = 16  # of datagrams only: bound, and served for all clients at once
_PHASES = {
    LIVE: "it is connected",
    CONNECTING: "its handshake is under way",
    FRESH: "it is not connected",
    PLAIN: "it is connected, and in plain text until TLS_UPGRADE",
    LISTENING: "it listens",
    FAILED: "its handshake failed",
    GATHERING: "it serves all its clients",
    BROKEN: "its connection has failed",
}

_forks = 0  # how often this process, or one that it comes from, has forked: a socket that is older may be shared


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - it is of the process
    _forks += 1


os.register_at_fork(after_in_parent=_count_fork, after_in_child=_count_fork)


class _Holders:
    """How many socket objects of this process share an open file, and since when."""

    __slots__ = ("broken", "count", "forks", "write_ended")

    def __init__(self) -> None:
        self.count = 1
        self.broken: OSError | None = None  # why the connection can be used no more, in either direction
        self.write_ended = False
        self.forks = _forks


class Endpoint(_socket):
    """All of a TLS socket but its stream."""

    __slots__ = (
        "_answer_due",
        "_aside",
        "_backlog",
        "_before",
        "_budget",
        "_error",
        "_failure",
        "_holders",
        "_info",
        "_phase",
        "_read_ended",
        "_rekeyable",
        "_resting",
        "_settings",
        "_turns",
        "_watched",
        "_write_ended",
    )

    _below: ClassVar = (socket.SOCK_STREAM, socket.IPPROTO_TCP)  # type and protocol
    _control: ClassVar[int | None] = 1  # whether there are control records to read, of a request

    def __init__(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 - as the inherited one has it
        proto: int = IPPROTO_TLS,
        fileno: int | None = None,
    ) -> None:
        """As `socket.socket`. Raises OSError: EPROTONOSUPPORT, EAFNOSUPPORT for what TLS does not run over."""
        self._begin(Settings(), FRESH)
        if fileno is None:
            check_kind(family, type, proto, self._below[0])
            super().__init__(family, type, self._below[1])
        else:
            super().__init__(fileno=fileno)
            try:
                self._phase = self._found_phase()
            except BaseException:
                super().detach()  # it stays its owner's
                raise

    def _begin(self, settings: Settings, phase: int, info: wire.Reply | None = None) -> None:
        self._settings = settings
        self._phase = phase
        self._info = info  # what the daemon has said of the live socket
        self._rekeyable = info is None or bool(info.rekeyable)  # whether the peer may change its key
        self._error = ""  # why the last operation failed
        self._failure: OSError | None = None  # of a connect that was under way, until it is told
        self._aside: _socket | None = None
        self._backlog = 0
        self._watched = True  # epoll sets may have the descriptor
        self._before: Settings | None = None  # before the connect that is under way
        self._holders = _Holders()
        self._read_ended = self._write_ended = False  # by ourselves
        self._resting = 0.0  # until when a listener does not look for another daemon
        self._answer_due = False  # the peer wants a KeyUpdate of ours before the next data
        self._budget = (
            0  # what may be sent before a look at what is due, see `ssa.library.control_records.STRIDE`; below 0: now
        )
        self._turns = sharing.Turns()
        self._turns.of(self)
        if not self._rekeyable:
            self._turns.give_up()

    def _found_phase(self) -> int:
        """The phase of a descriptor that comes from elsewhere."""
        if self.family == socket.AF_UNIX and self.type == socket.SOCK_STREAM:
            self._find_relayed()
            return LIVE
        if self.family == socket.AF_UNIX:
            return LISTENING  # the connection to the daemon that stands for a listener
        if self.family not in (socket.AF_INET, socket.AF_INET6) or self.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTONOSUPPORT, "the descriptor is not a TCP socket")
        try:
            super().getpeername()
        except OSError:
            return FRESH
        layer = super().getsockopt(socket.IPPROTO_TCP, TCP_ULP, 16)
        return LIVE if layer.startswith(b"tls\0") else PLAIN

    @classmethod
    def adopt(cls, fd: int, family: int, settings: Settings, phase: int, info: wire.Reply | None = None) -> Self:
        """A socket object for a descriptor whose state is known."""
        sock = cls.__new__(cls)
        _socket.__init__(sock, family, *cls._below, fileno=fd)
        sock._begin(settings, phase, info)  # noqa: SLF001 - it is one of ours
        return sock

    def _find_relayed(self) -> None:
        """The descriptor is the application's end of a pair: the rest of it is with the daemon."""
        try:
            with self._plain() as plain:
                self._info, passed = connection.describe_relayed(plain)
        except errors.SSAError as exc:
            raise OSError(errno.EPROTONOSUPPORT, f"the descriptor is not a TLS socket: {exc}") from None
        if not passed:
            raise OSError(errno.ENOTCONN, "the connection is at its end")
        aside = _socket(fileno=passed[0])
        _socket.__init__(self, aside.family, aside.type, aside.proto, fileno=self.fileno())
        self._relay_with(aside)

    def _relay_with(self, aside: _socket) -> None:
        """The descriptor's number is our end of the daemon's pair by now; the TCP socket aside tells the rest."""
        self._aside, self._rekeyable, self._budget = aside, False, _ENDLESS
        self._turns.give_up()

    @property
    def _relayed(self) -> bool:
        return self._phase == LIVE and self._aside is not None

    @classmethod
    def adopt_relayed(cls, fd: int, tcp: _socket, settings: Settings, info: wire.Reply) -> Self:
        """The same for the application's end of a pair and its TCP socket."""
        sock = cls.adopt(fd, tcp.family, settings, LIVE, info)
        sock._relay_with(tcp)  # noqa: SLF001 - it is one of ours
        return sock

    # --- connecting ---------------------------------------------------------------------------------------------

    def connect(self, address: Any) -> None:
        """Connect and make the handshake. `address` is (host name or IP address, port), and what IPv6 adds.

        The server is verified to be TLS_REMOTE_HOSTNAME, or the host of the address where that is not set. On a
        non-blocking socket raises BlockingIOError (EINPROGRESS): the descriptor is writable when all is done, and
        SO_ERROR tells how it went.

        Raises what `socket.socket.connect` does, and `ssa.SSAError` for what goes wrong after that.
        """
        if self.fileno() >= 0 and (self._phase == CONNECTING or self._failure is not None):
            self._connect_again()
            return
        if not self._is_connectable():
            number = errno.EINVAL if self._phase == FAILED else errno.EISCONN  # which retry loops take for success
            raise self._unfit(number, "the socket cannot connect")
        timeout, deadline = self.gettimeout(), deadlines.of(self)
        hostname, self._before = "", self._settings
        try:
            hostname, addresses = self._look_up(address)
            request = wire.Connect(hostname, control=self._control, **self._wishes())
            with connection.DaemonConnection(deadlines.to_be_taken(timeout, deadline)) as daemon:
                if timeout == 0:
                    self._start_connecting(daemon, request, addresses[0])
                self._connect_to_one(daemon, request, addresses, deadline)
        except OSError as exc:
            raise self._failed(exc) from None
        finally:
            if self._phase != FRESH:  # one that was never reached is forgotten
                self._settings = self._settings.having(hostname=hostname)

    def _is_connectable(self) -> bool:
        return self._phase == FRESH and self.fileno() >= 0

    def _connect_to_one(
        self, daemon: connection.DaemonConnection, request: wire.Connect, addresses: list[Any], deadline: float | None
    ) -> None:
        self._connect_tcp(addresses, deadline)
        self._phase = FAILED  # unless all goes well
        request.timeout_ms = deadlines.milliseconds_left(deadline)
        self._go_live(*daemon.ask_for_tls(request, self, self._settings.descriptors()))

    def connect_ex(self, address: Any) -> int:
        """As `connect`, with the error's number in place of an exception; 0 when all is well."""
        try:
            self.connect(address)
        except OSError as exc:
            if exc.errno is None:
                raise
            return exc.errno
        return 0

    def _look_up(self, address: Any) -> tuple[str, list[Any]]:
        """Whom the certificate has to be for, and the addresses to connect to."""
        if not isinstance(address, tuple):
            raise TypeError(f"an address has to be a tuple, not {type(address).__name__}")
        host, port, *more = address
        if not isinstance(host, (str, bytes)):
            raise TypeError(f"the host of an address has to be a str, not {type(host).__name__}")
        host = host.decode("ascii") if isinstance(host, bytes) else host
        found = socket.getaddrinfo(looked_up(host), port, self.family, socket.SOCK_STREAM)
        addresses = [(*sockaddr[:2], *(more or sockaddr[2:])) for *_, sockaddr in found]
        return self._settings.get("hostname") or host.partition("%")[0], addresses

    def _wishes(self) -> dict[str, Any]:
        """The options as a client's request has them; the host name stands for itself."""
        return {name: value for name, value in self._settings.request().items() if name not in _NOT_A_CLIENTS}

    def _connect_tcp(self, addresses: list[Any], deadline: float | None) -> None:
        """Connect to the first address that answers."""
        timeout = self.gettimeout()
        failure: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
        try:
            for address in addresses:
                if deadline is not None:
                    self.settimeout(max(deadline - time.monotonic(), 0.001))
                try:
                    self._connect_to(address)
                except OSError as exc:
                    failure = afresh(exc)
                else:
                    return
        finally:
            self.settimeout(timeout)
        raise afresh(failure)

    def _connect_to(self, address: Any) -> None:
        try:
            super().connect(address)
        except ConnectionAbortedError:  # about an attempt before, whose error somebody has read
            super().connect(address)
        except TimeoutError:
            self._fall_back()
            raise

    def _fall_back(self) -> None:
        """A connect has failed: where TCP has never reached its peer, the socket is as before and can try again."""
        self._phase = FAILED
        with self._plain() as plain:
            if self._before is None or control.was_connected(plain):
                return
            if control.tcp_state(plain) != TCP_CLOSE:  # nobody waits for it any more
                plain.shutdown(socket.SHUT_RDWR)
        self._phase, self._settings = FRESH, self._before

    def _start_connecting(
        self, daemon: connection.DaemonConnection, request: wire.Message, address: Any | None
    ) -> NoReturn:
        """Begin, and leave the rest to the daemon; its connection is what the descriptor is meanwhile."""
        if address is not None:
            started = super().connect_ex(address)
            if started == errno.ECONNABORTED:  # as in `_connect_to`
                started = super().connect_ex(address)
            if started not in (0, errno.EINPROGRESS):
                raise OSError(started, os.strerror(started))
        daemon.start(request, self, self._settings.descriptors())
        self._put_aside(daemon.fileno())
        self._phase = CONNECTING
        raise BlockingIOError(errno.EINPROGRESS, "the connection and its handshake are under way")

    def _connect_again(self) -> None:
        """connect(2) while one is under way: EALREADY, or it waits; when it is done: how it went, once."""
        self._wait_for_handshake()
        if self._phase == CONNECTING and not self._finish():
            raise BlockingIOError(errno.EALREADY, "the connection and its handshake are under way")
        failure, self._failure = self._failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # see `afresh`

    def _finish(self) -> bool:
        """Whether what was under way is done; then the descriptor is the TCP socket again, or what is in its place."""
        try:
            with self._plain() as plain:
                reply, passed = connection.reply_with_sockets(plain, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._take_back()
            self._failure = self._failed(exc.with_traceback(None))  # see `afresh`
            self._fall_back()
        else:
            if not passed:
                self._take_back()
            self._go_live(reply, passed)
        return True

    def _put_aside(self, other: int) -> None:
        """Let the descriptor's number be another open file, in the same mode."""
        os.set_blocking(other, self.gettimeout() is None)
        fd = fdswap.swap(self.fileno(), other, watched=self._watched)
        self._aside = _socket(self.family, self.type, self.proto, fileno=fd)

    def _take_back(self) -> None:
        """The TCP socket again."""
        if self._aside is None:
            raise RuntimeError("there is no socket to take back")
        os.set_blocking(self._aside.fileno(), self.gettimeout() is None)  # it may have changed meanwhile
        os.close(fdswap.swap(self.fileno(), self._aside.fileno(), watched=self._watched))
        self._aside.close()
        self._aside = None

    def _go_live(self, reply: wire.Reply, passed: Sequence[int] = ()) -> None:
        self._info, self._phase, self._error = reply, LIVE, ""
        self._rekeyable = bool(reply.rekeyable)
        if not self._rekeyable:
            self._turns.give_up()
        for end in passed:  # one, where the daemon relays
            if self._aside is None:
                self._put_aside(end)
            else:
                os.set_blocking(end, self.gettimeout() is None)
                os.close(fdswap.swap(self.fileno(), end, watched=self._watched))
            os.close(end)
            if self._aside is not None:
                self._relay_with(self._aside)

    def _failed(self, exc: OSError) -> OSError:
        """Note down why, for TLS_ERROR."""
        if not isinstance(exc, BlockingIOError):
            self._error = str(exc.strerror or exc)
        return exc

    # --- upgrading ----------------------------------------------------------------------------------------------

    def upgrade(self, *, server_side: bool) -> None:
        """Make the handshake on the connected socket, which was used as plain text before."""
        if self._phase == CONNECTING:
            self._connect_again()
            return
        if self._phase != PLAIN:
            raise self._unfit(errno.EISCONN if self._phase == LIVE else errno.ENOTCONN, "there is nothing to upgrade")
        timeout, deadline = self.gettimeout(), deadlines.of(self)
        request = self._upgrade_request(server_side=server_side, timeout_ms=deadlines.milliseconds_left(deadline))
        try:
            with connection.DaemonConnection(deadlines.to_be_taken(timeout, deadline)) as daemon:
                self._phase = FAILED  # unless all goes well
                if timeout == 0:
                    self._start_connecting(daemon, request, None)
                self._go_live(*daemon.ask_for_tls(request, self, self._settings.descriptors()))
        except OSError as exc:
            raise self._failed(exc) from None

    def _upgrade_request(self, *, server_side: bool, timeout_ms: int | None) -> wire.Request:
        common: dict[str, Any] = {"timeout_ms": timeout_ms, "control": 1, "upgrade": 1}
        if server_side:
            return wire.Accept(**common, **self._settings.request())
        hostname = self._settings.get("hostname") or super().getpeername()[0]
        return wire.Connect(hostname, **common, **self._wishes())

    # --- serving ------------------------------------------------------------------------------------------------

    def listen(self, backlog: int = 128, /) -> None:
        """Listen, and have the daemon make the handshakes: what `accept` gives is ready.

        Raises what `socket.socket.listen` does, and `ssa.SSAError`: NO_CREDENTIALS where there is no certificate.
        """
        if self._phase == LISTENING and self._aside is not None:
            self._aside.listen(backlog)
            return
        if self._phase != FRESH:
            raise self._unfit(errno.EINVAL, "the socket cannot listen")
        super().listen(backlog)
        self._backlog = max(0, backlog)
        try:
            with self._served(self) as queue:
                self._put_aside(queue.fileno())
        except OSError as exc:
            super().shutdown(socket.SHUT_RDWR)  # no longer listens
            raise self._failed(exc) from None
        self._phase = LISTENING

    def _served(self, listener: _socket) -> connection.DaemonConnection:
        """Have a listening TCP socket served: the connection on which what is ready comes."""
        daemon = connection.DaemonConnection(deadlines.local())
        try:
            daemon.ask(wire.Listen(self._backlog, **self._settings.request()), listener, self._settings.descriptors())
        except BaseException:
            daemon.close()
            raise
        return daemon

    def _serve_again(self) -> None:
        """The daemon has gone: have its successor go on. Who has connected meanwhile waits in TCP's queue."""
        if self._aside is None:
            raise errors.error("DAEMON_FAULT", "it went away; who made this listener can go on with another one")
        if self.gettimeout() == 0 and time.monotonic() < self._resting:
            raise BlockingIOError(errno.EAGAIN, "nobody serves this listener for now")  # asyncio tries 100 times
        try:
            with self._served(self._aside) as queue:
                os.set_blocking(queue.fileno(), self.gettimeout() is None)
                os.close(fdswap.swap(self.fileno(), queue.fileno()))
        except OSError as exc:
            if self.gettimeout() == 0:
                # Of what accept(2) says, this is what event loops take a rest at before they try again: the
                # descriptor stays readable, so at anything else they would be here again at once.
                self._resting = time.monotonic() + _REST
                exc = OSError(errno.ENOBUFS, f"nobody serves this listener for now: {exc.strerror or exc}")
            raise self._failed(exc) from None

    def accept(self) -> tuple[Self, Any]:
        """A connection whose handshake is done, and the peer's address. It has this socket's options.

        Raises what `socket.socket.accept` does; ConnectionRefusedError while no daemon runs, on a non-blocking socket
        ENOBUFS.
        """
        if self._phase != LISTENING:
            raise self._unfit(errno.EINVAL, "the socket does not listen")
        while True:
            packet, ancillary, flags, _ = super().recvmsg(wire.MAX_REPLY, connection.ROOM, socket.MSG_CMSG_CLOEXEC)
            if not packet:
                if self._read_ended:
                    raise OSError(errno.EINVAL, "the socket does not listen any more")
                self._serve_again()
                continue
            fds = connection.descriptors_of(ancillary)
            connection.check_room(fds, flags)
            reply = connection.reply_of(packet)
            if fds:
                sock = self._accepted(*fds, reply=reply)
                return sock, _peer_of(sock, reply)

    def _accepted(self, fd: int, tcp: int | None = None, *, reply: wire.Reply) -> Self:
        if tcp is not None:
            sock = self.adopt_relayed(fd, _socket(fileno=tcp), self._settings, reply)
        elif self._aside is None:  # this listener came from elsewhere
            sock = self.__class__(fileno=fd)
            sock._info = reply  # noqa: SLF001 - it is one of ours
        else:
            sock = self.adopt(fd, self.family, self._settings, LIVE, reply)
        if socket.getdefaulttimeout() is None and self.gettimeout():
            sock.setblocking(True)
        return sock

    # --- options ------------------------------------------------------------------------------------------------

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """As `socket.socket.setsockopt`; at level `IPPROTO_TLS` see `ssa.protocol.options`.

        Raises there: ENOPROTOOPT for an option that is none or can't be set, EINVAL for a value that is none, EACCES
        for one that the policy does not allow, EISCONN after the handshake.
        """
        if level == IPPROTO_TLS:
            option = option_of(optname, "set")
            self._settle_open()
            try:
                self._set(option, value)
            except OSError as exc:
                raise self._failed(exc) from None
        elif (level, optname) == _PEEK_OFF:
            raise OSError(errno.EOPNOTSUPP, "SO_PEEK_OFF: not on a TLS stream")
        elif optlen is None:
            self._tcp(_socket.setsockopt, (level, optname))(level, optname, value)
        else:
            self._tcp(_socket.setsockopt, (level, optname))(level, optname, value, optlen)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """As `socket.socket.getsockopt`; at level `IPPROTO_TLS` see `ssa.protocol.options`.

        There a number is an int when `buflen` is 0, else as many bytes as C has for it; a text is bytes, however long
        where `buflen` is 0. Raises there: ENOPROTOOPT, ENOTCONN before the handshake, ENOBUFS when `buflen` is too
        little.
        """
        if level == IPPROTO_TLS:
            option = option_of(optname, "read")
            self._settle_open()
            return shown(option, self._get(option), buflen)
        if (level, optname) == (socket.SOL_SOCKET, socket.SO_ERROR) and self._knows_of_errors():
            number = self._so_error()
            return struct.pack("=i", number)[:buflen] if buflen else number
        return self._tcp(_socket.getsockopt, (level, optname))(level, optname, buflen)

    def _knows_of_errors(self) -> bool:
        return self._failure is not None or self._phase in (CONNECTING, FAILED, LIVE)

    def _so_error(self) -> int:
        """SO_ERROR: how a connect that was under way went, told once."""
        if self._phase == CONNECTING and not self._finish():
            return errno.EINPROGRESS
        failure, self._failure = self._failure, None
        if failure is None:
            return super().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return ErrorNumber(failure.errno or errno.EIO).because(failure)

    def _set(self, option: Option, value: Any) -> None:
        if option.name == "TLS_UPGRADE":
            self.upgrade(server_side=upgrade_role(option, value) == 2)
            return
        if self._phase in (LIVE, CONNECTING, FAILED, BROKEN, GATHERING):
            raise self._unfit(errno.EISCONN, f"{option.name} has to be set before the handshake")
        if self._phase == LISTENING and self._aside is None:
            raise OSError(errno.EOPNOTSUPP, f"{option.name} is set by who made this listener")
        told = self._settings.told(option, value)
        with connection.DaemonConnection(deadlines.local()) as daemon:
            daemon.ask(wire.Check(**told.request()), files=told.descriptors())
        self._settings = told
        if self._phase == LISTENING:
            self._serve_on()

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[Self]:
        """For this time no epoll set has the descriptor, as the caller knows: so none has to be looked for."""
        self._watched = False
        try:
            yield self
        finally:
            self._watched = True

    def tell(self, **values: Any) -> None:
        """Set options by their fields, several at once; None leaves one as it is. Nothing is checked yet."""
        self._settings = Settings.of(self._settings, **values)

    def _serve_on(self) -> None:
        """Have a listener that is being served go on with the options as they are now."""
        packet = wire.pack(wire.Listen(None, **self._settings.request()))
        done, theirs = os.pipe()
        try:
            try:
                with self._plain() as plain:
                    socket.send_fds(plain, [packet], [theirs, *self._settings.descriptors()])
            finally:
                os.close(theirs)
            _wait_for_end(done, deadlines.LOCAL)
        except ConnectionError:  # that daemon has gone, and another one has just agreed
            self._serve_again()
        finally:
            os.close(done)

    def _get(self, option: Option) -> Any:
        """The value of an option, as it was set or told; None where nobody has."""
        if option.name == "TLS_ERROR":
            return self._error
        if option.name == "TLS_UPGRADE":
            return int(self._phase == LIVE)
        if self._phase in (LIVE, BROKEN) and option.field in _TOLD:
            return self._told(option.field)
        if option.readable == CONNECTED:
            raise self._unfit(errno.ENOTCONN, f"{option.name} can be read after the handshake")
        value = self._settings.get(option.field)
        if value is None and option.field in _OF_POLICY:
            value = self._policy_says(option.field)
        return value

    def _told(self, field: str) -> Any:
        """What the daemon has said of the live socket, or says now: it may come from elsewhere, and chains are long."""
        if self._info is None or getattr(self._info, field) is None:
            self._info = connection.describe(self)
        return getattr(self._info, field)

    def _policy_says(self, field: str) -> Any:
        with connection.DaemonConnection(deadlines.local()) as daemon:
            reply = daemon.ask(wire.Check(**self._settings.request()), files=self._settings.descriptors())
        return getattr(reply, field)

    # --- who holds it -----------------------------------------------------------------------------------------------

    def _is_last(self) -> bool:
        """Whether nobody else holds the open file, as far as can be known without asking for each socket."""
        self._holders.count -= 1
        if self._holders.count:
            return False
        self._turns.close_waiting()
        return self._holders.forks == _forks or not fdswap.is_held_elsewhere(self.fileno())

    def _let_go(self) -> None:
        """Close the descriptor: where another process may have the socket, not in the midst of a twin's send."""
        if self._turns.in_processes and self.fileno() >= 0:
            self._turns.close(_socket.detach(self))
        else:
            _socket._real_close(self)  # type: ignore[attr-defined]  # noqa: SLF001 - what socket.close() calls

    def detach(self) -> int:
        """As `socket.socket.detach`: the descriptor is the caller's, who ends the stream with `ssa.close`.

        Raises OSError EBUSY while a connect is under way or the socket listens: it is more than a descriptor then.
        """
        if self._relayed and self._aside is not None:
            linger = self._aside.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(control.ABORT))
            super().setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # `ssa.close` looks at it
            self._aside.close()
            self._aside = None
        if self._aside is not None:
            raise OSError(errno.EBUSY, "the socket cannot be detached: " + _PHASES[self._phase])
        return super().detach()

    def dup(self) -> Self:
        """As `socket.socket.dup`. The stream is ended when the last of them is closed."""
        if self._phase == CONNECTING:
            raise OSError(errno.EALREADY, "the connection and its handshake are under way")
        fd = os.dup(self.fileno())
        twin = self.adopt(fd, self.family, self._settings, self._phase, self._info)
        twin.settimeout(self.gettimeout())
        twin._aside = None if self._aside is None else self._aside.dup()  # noqa: SLF001 - it is one of ours
        if not self._relayed:
            self._budget = -1  # each send has to look whether the other has ended the stream
        twin._budget = self._budget  # noqa: SLF001
        twin._holders, twin._turns = self._holders, self._turns  # noqa: SLF001
        self._turns.of(twin)
        self._holders.count += 1
        return twin

    # --- what the TCP socket knows --------------------------------------------------------------------------------

    def getpeername(self) -> Any:
        """As `socket.socket.getpeername`."""
        return self._tcp(_socket.getpeername)()

    def getsockname(self) -> Any:
        """As `socket.socket.getsockname`."""
        return self._tcp(_socket.getsockname)()

    def _settle_open(self) -> None:
        """The same for an option, of which a closed socket has none. Raises OSError EBADF."""
        if self.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._settle()

    def _settle(self) -> None:
        """Take note of a handshake that is done by now."""
        if self._phase == CONNECTING and self.fileno() >= 0:
            self._finish()

    def _unfit(self, number: int, what: str) -> OSError:
        """The error for a call that the phase does not allow; of a closed socket nothing else counts."""
        if self.fileno() < 0:
            return OSError(errno.EBADF, os.strerror(errno.EBADF))
        why = f": {self._error}" if self._phase == FAILED and self._error else ""
        return OSError(number, f"{what}: {_PHASES[self._phase]}{why}")

    def _tcp(self, method: Callable[..., _T], option: tuple[int, int] | None = None) -> Callable[..., _T]:
        """A method of `socket.socket`, of the TCP socket wherever it is; but what is for our own calls is ours."""
        self._settle()
        sock = self if self._aside is None or (option in _OF_CALLS and self._relayed) else self._aside
        bound: Callable[..., _T] = method.__get__(sock)
        return bound

    def _plain(self) -> fdswap.Borrowed:
        """The descriptor as the functions below take it: they must not come back here, nor wait for a timeout."""
        if self.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return fdswap.Borrowed(self.fileno())

    def _wait_for_handshake(self) -> None:
        """Where one was begun without waiting, and the socket is to wait by now. Raises TimeoutError."""
        if self._phase != CONNECTING or self.fileno() < 0 or self.gettimeout() == 0:
            return
        if not deadlines.wait(self, select.POLLIN, deadlines.of(self)):
            raise TimeoutError("timed out")

    def _check_live(self) -> None:
        """Raise what a socket says to who would read or write before it can: EAGAIN, ENOTCONN."""
        self._wait_for_handshake()
        if self._phase == CONNECTING and not self._finish():
            raise BlockingIOError(errno.EAGAIN, "the connection and its handshake are under way")
        if (broken := self._holders.broken) is not None and self.fileno() >= 0:
            raise OSError(broken.errno, broken.strerror)
        if self._phase:
            why = f" ({self._error})" if self._phase == FRESH and self._error else ""
            raise self._unfit(errno.ENOTCONN, f"the socket is no TLS connection{why}")


_ENDLESS = 2**62  # records: whoever has the keys looks after them
_REST = 0.05  # seconds: less than event loops rest
_OF_CALLS = frozenset(
    (socket.SOL_SOCKET, name) for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO, socket.SO_RCVLOWAT)
)
_PEEK_OFF = (socket.SOL_SOCKET, SO_PEEK_OFF)
_NOT_A_CLIENTS = frozenset({"hostname", "server_name", "peer_auth"})  # settings that a client's request has not
_OF_POLICY = frozenset({"session_ttl", "version_min", "version_max"})  # what counts where nothing was set
_TOLD = frozenset({"server_name", "alpn", "peer_identity", "chain", "socket_id", "cipher", "resumed", "version"})


def check_kind(family: int, kind: int, proto: int, wanted: int) -> None:
    """Raises OSError EPROTONOSUPPORT, EAFNOSUPPORT for what is no kind of a TLS socket."""
    if proto not in (IPPROTO_TLS, 0):
        raise OSError(errno.EPROTONOSUPPORT, f"protocol {proto} is not IPPROTO_TLS")
    if family == AF_HOSTNAME:
        raise OSError(errno.EAFNOSUPPORT, "AF_HOSTNAME is of addresses: connect() takes a host name on any TLS socket")
    if family not in (socket.AF_INET, socket.AF_INET6):
        raise OSError(errno.EAFNOSUPPORT, "TLS runs over AF_INET and AF_INET6")
    if kind & ~(socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) != wanted:
        raise OSError(errno.EPROTONOSUPPORT, "TLS runs over SOCK_STREAM, and DTLS over SOCK_DGRAM")


class ErrorNumber(int):
    """An errno whose str() has the words too: event loops put what SO_ERROR says into exceptions of their own.

    asyncio's is then "[Errno 129: certificate is for another name: ...] Connect call failed".
    """

    def because(self, exc: OSError) -> Self:
        """Remember why."""
        self._why = exc.strerror or str(exc)
        return self

    def __str__(self) -> str:
        return f"{int(self)}: {self._why}"


def afresh(exc: OSError) -> OSError:
    """The same error, of a system call, without a traceback.

    An exception that a function raises, and has in a variable, holds the function's frame, which holds the exception:
    the socket that was used there would stay open until Python's collector comes.
    """
    return type(exc)(*exc.args)


def _wait_for_end(fd: int, seconds: float) -> None:
    """Wait until nobody holds the other end of a pipe any more. Raises TimeoutError."""
    poll = select.poll()
    poll.register(fd, 0)  # the hang-up is told in any case
    if not poll.poll(seconds * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "the ssad that serves this listener does not answer; is it stopped?")


def _peer_of(sock: Endpoint, reply: wire.Reply) -> Any:
    """The address of an accepted connection's peer, which may have gone already."""
    try:
        return sock.getpeername()
    except OSError:
        host, _, port = (reply.remote or " 0").partition(" ")
        return (host, int(port)) if sock.family == socket.AF_INET else (host, int(port), 0, 0)


def looked_up(host: str) -> bytes:
    """The name to ask the resolver for. Given a str, `socket` would convert it by the rules of 2003: another name."""
    if not isinstance(host, str):
        raise TypeError(f"host has to be a str, not {type(host).__name__}")
    if not host.isascii():
        from ssa.names import normalise  # late: few names need it

        try:
            host = str(normalise(host))
        except ValueError as exc:
            raise errors.error("BAD_VALUE", str(exc)) from None
    return host.encode("ascii")
