"""The open file on a socket's number in each phase, and the socket that the library holds beside it.

The number that a program has is at times another open file than the TCP or UDP socket. Then the library *holds* that
socket beside it, under a number of its own (`SocketState._held`):

    phase                      the number is                                      held beside it
    CONNECTING                 the connection to the daemon, busy until it is     the TCP or UDP socket
                               answered (`ssa.protocol.wire.Plug`)
    LISTENING                  the connection to the daemon, on which each        the listening TCP socket, the bound
                               connection comes that is ready                     UDP socket
    LIVE, kernel TLS           the TCP socket                                     nothing
    LIVE, relayed stream       one end of the daemon's pair                       the TCP socket
    LIVE, datagrams            one end of the daemon's pair                       the UDP socket; of a session that a
    GATHERING                                                                     listener accepted nothing
    all others                 the TCP or UDP socket                              nothing
"""

from __future__ import annotations

import errno
import os
import socket

from ssa.library import fdswap, phases
from ssa.library.sharing import OpenFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar, Self

    from ssa.library.option_values import Settings
    from ssa.protocol import wire

_socket = socket.socket


class SocketState(_socket):
    """A socket object with its phase, its options, and what it holds beside its number. It makes no requests."""

    __slots__ = (
        "_backlog",
        "_before",
        "_error",
        "_failure",
        "_held",
        "_info",
        "_open_file",
        "_phase",
        "_read_ended",
        "_resting",
        "_settings",
        "_watched",
        "_write_ended",
    )

    _below: ClassVar = (socket.SOCK_STREAM, socket.IPPROTO_TCP)  # type and protocol of the socket that is held
    _calls: ClassVar[Mapping[int, tuple[int, ...]]] = phases.STREAM  # what each call does in each phase

    def _begin(self, settings: Settings, phase: int, info: wire.Reply | None = None) -> None:
        self._settings = settings
        self._phase = phase
        self._info = info  # what the daemon has said of the live socket
        self._error = ""  # why the last operation failed: TLS_ERROR
        self._failure: OSError | None = None  # how the connect that was under way failed, until it is told
        self._held: _socket | None = None
        self._backlog = 0
        self._watched = True  # epoll sets may have the descriptor
        self._before: Settings | None = None  # the options before the connect that is under way
        self._open_file = OpenFile()
        self._read_ended = self._write_ended = False  # by this object
        self._resting = 0.0  # until when a listener does not look for another daemon

    @classmethod
    def adopt(cls, fd: int, family: int, settings: Settings, phase: int, info: wire.Reply | None = None) -> Self:
        """A socket object for a descriptor whose state is known."""
        sock = cls.__new__(cls)
        _socket.__init__(sock, family, *cls._below, fileno=fd)
        sock._begin(settings, phase, info)  # noqa: SLF001 - it is one of ours
        return sock

    # --- phases ---------------------------------------------------------------------------------------------------

    def _check(self, call: int, option: str = "") -> int:
        """Look a call up in the table of phases. Raises OSError with the table's errno; EBADF for a closed socket."""
        said = self._calls[self._phase][call]
        if said > 0 or self.fileno() < 0:
            raise self._refusal(said, phases.REFUSALS[call].format(option))
        return said

    def _refusal(self, number: int, what: str) -> OSError:
        """The error for a call that the phase does not allow. Raises OSError EBADF for a closed socket."""
        self._check_open()
        why = f": {self._error}" if self._error and self._phase in (phases.FAILED, phases.FRESH) else ""
        return OSError(number, f"{what}: {phases.WORDS[self._phase]}{why}")

    def _check_open(self) -> None:
        """Raises OSError EBADF for a closed socket."""
        if self.fileno() < 0:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    def _failed(self, exc: OSError) -> OSError:
        """Keep an error's words for TLS_ERROR. Returns the error."""
        if not isinstance(exc, BlockingIOError):
            self._error = str(exc.strerror or exc)
        return exc

    # --- the number -----------------------------------------------------------------------------------------------

    def _plain(self) -> fdswap.Borrowed:
        """The number as a plain socket, for functions that must not come back here nor wait for a timeout."""
        self._check_open()
        return fdswap.Borrowed(self.fileno())

    def _hold(self, other: int) -> None:
        """Put another open file on the number, in this socket's mode, and hold the one that was there."""
        self._held = _socket(self.family, self.type, self.proto, fileno=self._put(other))

    def _replace(self, other: int) -> None:
        """Put another open file on the number. The one that was there is not held, and is closed."""
        os.close(self._put(other))

    def _put(self, other: int) -> int:
        os.set_blocking(other, self.gettimeout() is None)  # the mode may have changed meanwhile
        return fdswap.swap(self.fileno(), other, watched=self._watched)

    def _take_back(self) -> None:
        """Put the socket that is held on the number again."""
        if self._held is None:
            raise RuntimeError("no socket is held")
        self._replace(self._held.fileno())
        self._release()

    def _release(self) -> None:
        """Close the socket that is held."""
        if self._held is not None:
            self._held.close()
            self._held = None


def afresh(exc: OSError) -> OSError:
    """An error of a system call, made anew without its traceback.

    An exception that a function raises, and has in a variable, holds the function's frame, which holds the exception:
    the socket that was used there would stay open until Python's collector comes.
    """
    return type(exc)(*exc.args)
