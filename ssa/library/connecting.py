"""Connecting: connect, connect_ex and upgrade, waiting for the handshake or not.

Each is one request to the daemon. On a socket that waits, the call waits for the reply. On a non-blocking one the
request is sent, the connection to the daemon is put on the descriptor's number (`ssa.library.held`), and whatever call
comes next looks for the reply (`_finish`).
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from ssa import errors
from ssa.ktls import control
from ssa.ktls.constants import TCP_CLOSE
from ssa.library import connection, deadlines
from ssa.library.held import SocketState, afresh
from ssa.library.phases import CONNECT, CONNECTING, FAILED, FINISH, FRESH, LIVE, TRANSFER, UPGRADE
from ssa.protocol import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, ClassVar, NoReturn

_socket = socket.socket


class Connecting(SocketState):
    """A TLS socket that can connect."""

    __slots__ = ()

    _control: ClassVar[int | None] = 1  # of a request: whether the program's side reads control records
    _always_passed: ClassVar[bool] = False  # whether each handshake's reply has a descriptor with it

    def connect(self, address: Any) -> None:
        """Connect and make the handshake. `address` is (host name or IP address, port), and what IPv6 adds.

        The server is verified to be TLS_REMOTE_HOSTNAME, or the host of the address where that is not set. On a
        non-blocking socket raises BlockingIOError (EINPROGRESS): the descriptor is writable when all is done, and
        SO_ERROR tells how it went.

        Raises what `socket.socket.connect` does, and `ssa.SSAError` for what goes wrong after that.
        """
        if self._failure is not None or self._check(CONNECT) == FINISH:
            self._check_open()
            self._connect_again()
            return
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

    def connect_ex(self, address: Any) -> int:
        """Call `connect`. Returns the error's number in place of raising it; 0 when all is well."""
        try:
            self.connect(address)
        except OSError as exc:
            if exc.errno is None:
                raise
            return exc.errno
        return 0

    def upgrade(self, *, server_side: bool) -> None:
        """Make the handshake on the connected socket, which was used as plain text before. Waits as `connect` does."""
        if self._check(UPGRADE) == FINISH:
            self._connect_again()
            return
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

    def begin_upgrade(self, *, server_side: bool) -> connection.DaemonConnection:
        """Ask for the handshake, as `upgrade` does, and return the connection to the daemon, which is the caller's.

        For event loops: the connection is readable when `finish_upgrade` has something to take. Nothing else is on the
        descriptor's number meanwhile, so no epoll set has to be looked for. To close the connection is to give up.

        Raises BlockingIOError where the daemon's queue of connections is full: nothing was done, and it can be tried
        again a moment later. Else as `upgrade`.
        """
        self._check(UPGRADE)
        request = self._upgrade_request(server_side=server_side, timeout_ms=None)
        try:
            daemon = connection.DaemonConnection(time.monotonic())
        except TimeoutError as exc:
            raise BlockingIOError(errno.EAGAIN, exc.strerror) from None
        self._phase = FAILED  # unless all goes well
        try:
            daemon.tell(request, self, self._settings.descriptors())
        except OSError as exc:
            daemon.close()
            raise self._failed(exc) from None
        return daemon

    def finish_upgrade(self, daemon: connection.DaemonConnection) -> None:
        """Take the reply to `begin_upgrade`. Raises BlockingIOError where there is none yet, else as `upgrade`."""
        try:
            self._go_live(*daemon.reply_now())
        except OSError as exc:
            raise self._failed(exc) from None

    # --- the request ------------------------------------------------------------------------------------------------

    def _look_up(self, address: Any) -> tuple[str, list[Any]]:
        """The name that the certificate has to be for, and the addresses to connect to."""
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
        """The options as a client's request has them. The host name is an attribute of its own there."""
        return {name: value for name, value in self._settings.request().items() if name not in _NOT_A_CLIENTS}

    def _upgrade_request(self, *, server_side: bool, timeout_ms: int | None) -> wire.Request:
        common: dict[str, Any] = {"timeout_ms": timeout_ms, "control": 1, "upgrade": 1}
        if server_side:
            return wire.Accept(**common, **self._settings.request())
        hostname = self._settings.get("hostname") or super().getpeername()[0]
        return wire.Connect(hostname, **common, **self._wishes())

    # --- waiting ----------------------------------------------------------------------------------------------------

    def _connect_to_one(
        self,
        daemon: connection.DaemonConnection,
        request: wire.Connect,
        addresses: list[Any],
        deadline: float | None,
    ) -> None:
        self._connect_tcp(addresses, deadline)
        self._phase = FAILED  # unless all goes well
        request.timeout_ms = deadlines.milliseconds_left(deadline)
        self._go_live(*daemon.ask_for_tls(request, self, self._settings.descriptors()))

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
        """Enter FAILED after a connect; or FRESH, to try again, if TCP never reached its peer."""
        self._phase = FAILED
        with self._plain() as plain:
            if self._before is None or control.was_connected(plain):
                return
            if control.tcp_state(plain) != TCP_CLOSE:  # nobody waits for it any more
                plain.shutdown(socket.SHUT_RDWR)
        self._phase, self._settings = FRESH, self._before

    # --- not waiting ------------------------------------------------------------------------------------------------

    def _start_connecting(
        self, daemon: connection.DaemonConnection, request: wire.Message, address: Any | None
    ) -> NoReturn:
        """Send the request, and put the connection to the daemon on the descriptor's number until the reply comes."""
        if address is not None:
            started = super().connect_ex(address)
            if started == errno.ECONNABORTED:  # as in `_connect_to`
                started = super().connect_ex(address)
            if started not in (0, errno.EINPROGRESS):
                raise OSError(started, os.strerror(started))
        daemon.start(request, self, self._settings.descriptors())
        self._hold(daemon.fileno())
        self._open_file.connecting = os.getpid()
        self._phase = CONNECTING
        raise BlockingIOError(errno.EINPROGRESS, "the connection and its handshake are under way")

    def _connect_again(self) -> None:
        """A connect call while another is under way: wait for that, or raise EALREADY. Its failure is raised once."""
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
        """Take the reply to what is under way. False where there is none yet. Raises OSError EBADF."""
        self._check_open()
        try:
            with self._plain() as plain:
                reply, passed = connection.reply_with_sockets(plain, socket.MSG_DONTWAIT, always=self._always_passed)
        except BlockingIOError:
            return False
        except OSError as exc:
            self._take_back()
            self._failure = self._failed(exc.with_traceback(None))  # see `afresh`
            self._fall_back()
        else:
            self._go_live(reply, passed)
        return True

    def _go_live(self, reply: wire.Reply, passed: Sequence[int]) -> None:
        """Make the socket live after its handshake. `passed` has one end of the daemon's pair, if it relays."""
        for end in passed:
            try:
                (self._hold if self._held is None else self._replace)(end)
            finally:
                os.close(end)
        if not passed and self._held is not None:
            self._take_back()
        self._info, self._phase, self._error = reply, LIVE, ""

    def _settle(self) -> None:
        """Take note of a handshake that is done by now."""
        if self._phase == CONNECTING and self.fileno() >= 0:
            self._finish()

    def _wait_for_handshake(self) -> None:
        """Wait, where one was begun without waiting and the socket is to wait by now. Raises TimeoutError."""
        if self._phase != CONNECTING or self.fileno() < 0 or self.gettimeout() == 0:
            return
        if not deadlines.wait(self, select.POLLIN, deadlines.of(self)):
            raise TimeoutError("timed out")

    def _check_live(self) -> int:
        """Finish a handshake that is under way, and look TRANSFER up in the table of phases.

        Raises OSError: EAGAIN, ENOTCONN, EBADF, and what has ended the connection.
        """
        self._wait_for_handshake()
        if self._phase == CONNECTING and not self._finish():
            raise BlockingIOError(errno.EAGAIN, "the connection and its handshake are under way")
        if (broken := self._open_file.broken) is not None and self.fileno() >= 0:
            raise OSError(broken.errno, broken.strerror)
        return self._check(TRANSFER)


_NOT_A_CLIENTS = frozenset({"hostname", "server_name", "peer_auth"})  # settings that a client's request has not


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
