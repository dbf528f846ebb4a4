"""The common part of TLS and DTLS sockets: all but the application's data.

`Endpoint` is four files, each built on the one before: `ssa.library.held` (phase, number, what is held beside it),
`connecting`, `listening`, and here options, names, `dup` and `detach`. The data is the subject of
`ssa.library.tlssocket` and `ssa.library.dtlssocket`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from ssa.library import connection, deadlines
from ssa.library.flags import SO_PEEK_OFF
from ssa.library.listening import Listening
from ssa.library.option_values import Settings, option_of, shown, upgrade_role
from ssa.library.phases import BROKEN, CONNECTING, DETACH, DUP, FAILED, FRESH, LISTENING, LIVE, READ, SET
from ssa.protocol import wire
from ssa.protocol.options import AF_HOSTNAME, CONNECTED, IPPROTO_TLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, Self, TypeVar

    from ssa.protocol.options import Option

    _T = TypeVar("_T")

_socket = socket.socket


class Endpoint(Listening):
    """A TLS or DTLS socket without its reading, writing and ending: `ssa.TLSSocket` and `DTLSSocket` have those."""

    __slots__ = ()

    def __init__(
        self,
        family: int = socket.AF_INET,
        type: int = socket.SOCK_STREAM,  # noqa: A002 - as the inherited one has it
        proto: int = IPPROTO_TLS,
        fileno: int | None = None,
    ) -> None:
        """Make a socket, as `socket.socket` does. Raises OSError EPROTONOSUPPORT, EAFNOSUPPORT for other kinds."""
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

    def _found_phase(self) -> int:
        """The phase of a descriptor that comes from elsewhere. Raises OSError EPROTONOSUPPORT for another kind."""
        raise NotImplementedError

    # --- options --------------------------------------------------------------------------------------------------

    def setsockopt(self, level: int, optname: int, value: Any, optlen: int | None = None) -> None:
        """Set an option, as `socket.socket.setsockopt` does; at level `IPPROTO_TLS` see `ssa.protocol.options`.

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
            self._transport(_socket.setsockopt, (level, optname))(level, optname, value)
        else:
            self._transport(_socket.setsockopt, (level, optname))(level, optname, value, optlen)

    def getsockopt(self, level: int, optname: int, buflen: int = 0) -> Any:
        """Read an option, as `socket.socket.getsockopt` does; at level `IPPROTO_TLS` see `ssa.protocol.options`.

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
        return self._transport(_socket.getsockopt, (level, optname))(level, optname, buflen)

    def tell(self, **values: Any) -> None:
        """Set options by their fields, several at once; None leaves one as it is. Nothing is checked yet."""
        self._settings = Settings.of(self._settings, **values)

    def _set(self, option: Option, value: Any) -> None:
        if option.name == "TLS_UPGRADE":
            self.upgrade(server_side=upgrade_role(option, value) == 2)
            return
        self._check(SET, option.name)
        told = self._settings.told(option, value)
        with connection.DaemonConnection(deadlines.local()) as daemon:
            daemon.ask(wire.Check(**told.request()), files=told.descriptors())
        self._settings = told
        if self._phase == LISTENING:
            self._serve_with_new_options()

    def _get(self, option: Option) -> Any:
        """The value of an option, as the program set it or the daemon says it; None where neither did."""
        if option.name == "TLS_ERROR":
            return self._error
        if option.name == "TLS_UPGRADE":
            return int(self._phase == LIVE)
        if self._phase in (LIVE, BROKEN) and option.field in _TOLD:
            return self._told(option.field)
        if option.readable == CONNECTED:
            self._check(READ, option.name)
        value = self._settings.get(option.field)
        if value is None and option.field in _OF_POLICY:
            value = self._policy_says(option.field)
        return value

    def _told(self, field: str) -> Any:
        """A field of the daemon's reply to the handshake, or to a describe request now.

        A socket that comes from elsewhere has no reply to a handshake, and such a reply may lack the certificates.
        """
        if self._info is None or getattr(self._info, field) is None:
            self._info = connection.describe(self)
        return getattr(self._info, field)

    def _policy_says(self, field: str) -> Any:
        with connection.DaemonConnection(deadlines.local()) as daemon:
            reply = daemon.ask(wire.Check(**self._settings.request()), files=self._settings.descriptors())
        return getattr(reply, field)

    def _knows_of_errors(self) -> bool:
        return self._failure is not None or self._phase in (CONNECTING, FAILED, LIVE)

    def _so_error(self) -> int:
        """SO_ERROR: the errno of a connect that was under way. It is told once."""
        if self._phase == CONNECTING and not self._finish():
            return errno.EINPROGRESS
        failure, self._failure = self._failure, None
        if failure is None:
            return super().getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return ErrorNumber(failure.errno or errno.EIO).because(failure)

    # --- names ----------------------------------------------------------------------------------------------------

    def getpeername(self) -> Any:
        """The peer's address, as `socket.socket.getpeername` gives it."""
        return self._transport(_socket.getpeername)()

    def getsockname(self) -> Any:
        """The own address, as `socket.socket.getsockname` gives it."""
        return self._transport(_socket.getsockname)()

    def _transport(self, method: Callable[..., _T], option: tuple[int, int] | None = None) -> Callable[..., _T]:
        """A method of `socket.socket`, bound to the TCP or UDP socket, whether that is on the number or held beside it.

        Options that concern calls on a live socket, such as SO_RCVTIMEO, are those of the file on the number.
        """
        self._settle()
        sock = self if self._held is None or (self._phase == LIVE and option in _OF_CALLS) else self._held
        bound: Callable[..., _T] = method.__get__(sock)
        return bound

    def _settle_open(self) -> None:
        """Take note of a handshake that is done by now. Raises OSError EBADF for a closed socket."""
        self._check_open()
        self._settle()

    # --- the object and its descriptor ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def unwatched(self) -> Iterator[Self]:
        """While the block runs, the library looks for no epoll set: the caller knows that none has the descriptor."""
        self._watched = False
        try:
            yield self
        finally:
            self._watched = True

    def detach(self) -> int:
        """Give the descriptor up, as `socket.socket.detach` does: its new owner ends the stream with `ssa.close`.

        Raises OSError EBUSY while a connect is under way or the socket listens: it is more than a descriptor then.
        """
        if self.fileno() >= 0:
            self._check(DETACH)
        self._release()
        return super().detach()

    def dup(self) -> Self:
        """A second object and descriptor for the socket. The stream ends when the last of them is closed."""
        self._check(DUP)
        twin = self.adopt(os.dup(self.fileno()), self.family, self._settings, self._phase, self._info)
        twin.settimeout(self.gettimeout())
        twin._held = None if self._held is None else self._held.dup()  # noqa: SLF001 - it is one of ours
        twin._open_file = self._open_file  # noqa: SLF001 - it is one of ours
        self._open_file.count += 1
        return twin


_OF_CALLS = frozenset(
    (socket.SOL_SOCKET, name) for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO, socket.SO_RCVLOWAT)
)
_PEEK_OFF = (socket.SOL_SOCKET, SO_PEEK_OFF)
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
        """Remember the words."""
        self._why = exc.strerror or str(exc)
        return self

    def __str__(self) -> str:
        return f"{int(self)}: {self._why}"
