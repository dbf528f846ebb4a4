"""`ssa.TLSSocket`: `socket.socket`, and what differs where TLS does.

Theory of operation. A connected TLSSocket is a TCP socket whose records the kernel protects, so nearly all that is
inherited is right as it is, and costs what it costs on TCP. What is overridden is overridden for one of these reasons:

* Before the handshake no byte may pass the descriptor (`ssa.library.endpoint`, `ssa.library.phases`). `_phase` is 0
  after it, so that the price is a test.
* A read can meet a record that is no data, and the end of a stream is another thing than in TCP
  (`ssa.library.receiving`).
* A write may be due for another key first (`ssa.library.sending`).
* close and shutdown end the stream in TLS's way before TCP's. A socket that another process or descriptor holds too
  is not ended by closing one of them: a fork is noticed, and `dup` counted. A program that passes a descriptor on over
  a Unix socket closes its own with `os.close(sock.detach())`.
* Where the daemon relays the stream, there are no records, and the daemon says how it ended: `_path` is the object
  that knows the difference (`ssa.library.datapath`).
"""

# ruff: noqa: SLF001 - the objects whose insides are seen here are of this class

from __future__ import annotations

import errno
import socket

from ssa import errors
from ssa.ktls import control
from ssa.ktls.constants import TCP_ULP
from ssa.library import connection
from ssa.library.datapath import KERNEL, RELAYED
from ssa.library.fdswap import Borrowed
from ssa.library.phases import BORROWED, BROKEN, CONNECTING, FRESH, LISTENING, LIVE, PLAIN
from ssa.library.receiving import Receiving

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from ssa.library.option_values import Settings
    from ssa.protocol import wire

_socket = socket.socket


class TLSSocket(Receiving):
    """A TLS socket: made by `ssa.socket`, `ssa.create_connection`, `ssa.create_server` or `ssa.upgrade`.

    It is a `socket.socket`: what is said there holds here. Besides, `getsockopt` and `setsockopt` know the level
    `ssa.IPPROTO_TLS`, `connect` takes a host name, which the server's certificate has to be for, and a stream that was
    cut raises ConnectionAbortedError where one that the peer has ended reads as empty.
    """

    __slots__ = ()

    # --- beginning --------------------------------------------------------------------------------------------------

    def _found_phase(self) -> int:
        if self.family == socket.AF_UNIX and self.type == socket.SOCK_STREAM:
            self._find_relayed()
            return LIVE
        if self.family == socket.AF_UNIX:
            return BORROWED  # the connection to the daemon that stands for a listener
        if self.family not in (socket.AF_INET, socket.AF_INET6) or self.type != socket.SOCK_STREAM:
            raise OSError(errno.EPROTONOSUPPORT, "the descriptor is not a TCP socket")
        try:
            super().getpeername()
        except OSError:
            return FRESH
        layer = _socket.getsockopt(self, socket.IPPROTO_TCP, TCP_ULP, 16)
        return LIVE if layer.startswith(b"tls\0") else PLAIN

    def _find_relayed(self) -> None:
        """Ask the daemon about a descriptor that is the application's end of a pair."""
        try:
            with self._plain() as plain:
                self._info, passed = connection.describe_relayed(plain)
        except errors.SSAError as exc:
            raise OSError(errno.EPROTONOSUPPORT, f"the descriptor is not a TLS socket: {exc}") from None
        if not passed:
            raise OSError(errno.ENOTCONN, "the connection is at its end")
        tcp = _socket(fileno=passed[0])
        _socket.__init__(self, tcp.family, tcp.type, tcp.proto, fileno=self.fileno())
        self._relay_with(tcp)

    @classmethod
    def adopt_relayed(cls, fd: int, tcp: _socket, settings: Settings, info: wire.Reply) -> Self:
        """A socket object for the application's end of a pair and the TCP socket behind it."""
        sock = cls.adopt(fd, tcp.family, settings, LIVE, info)
        sock._relay_with(tcp)
        return sock

    def _relay_with(self, tcp: _socket | None) -> None:
        """The number is our end of the daemon's pair. The TCP socket is held beside it, for its names and options."""
        self._held, self._path, self._rekeyable, self._sendable = tcp, RELAYED, False, _ENDLESS
        self._turns.give_up()

    def _go_live(self, reply: wire.Reply, passed: Sequence[int]) -> None:
        super()._go_live(reply, passed)
        self._rekeyable = bool(reply.rekeyable)
        if not self._rekeyable:
            self._turns.give_up()
        if passed:
            self._relay_with(self._held)

    def _accepted(self, fd: int, tcp: int | None = None, *, reply: wire.Reply) -> Self:
        if tcp is not None:
            return self.adopt_relayed(fd, _socket(fileno=tcp), self._settings, reply)
        family = _domain(fd) if self._phase == BORROWED else self.family  # that listener's own family is AF_UNIX
        return self.adopt(fd, family, self._settings, LIVE, reply)

    def dup(self) -> Self:
        """A second object and descriptor for the socket. The stream ends when the last of them is closed."""
        twin = super().dup()
        twin._path, twin._rekeyable, twin._turns = self._path, self._rekeyable, self._turns
        self._turns.of(twin)
        if self._path is KERNEL:
            self._look_before_sending()  # each send has to look whether the twin has ended the stream
        twin._sendable = self._sendable
        return twin

    # --- ending -----------------------------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """End one direction or both, as `socket.socket.shutdown`: the end of our writing is told (close_notify)."""
        self._settle()
        if self._phase != LIVE:
            self._transport(_socket.shutdown)(how)
            if self._phase in (LISTENING, BORROWED) and how != socket.SHUT_WR:
                self._read_ended = True
                super().shutdown(socket.SHUT_RDWR)  # wakes a thread that waits in accept
            return
        if how in (socket.SHUT_WR, socket.SHUT_RDWR) and not self._write_ended:
            with self._plain() as plain:
                self._path.end_writing(plain)
            self._end_writing()
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self._read_ended = True
            super().shutdown(socket.SHUT_RD)

    def detach(self) -> int:
        """Give the descriptor up, as `socket.socket.detach` does: its new owner ends the stream with `ssa.close`.

        Raises OSError EBUSY while a connect is under way or the socket listens: it is more than a descriptor then.
        """
        if self._phase == LIVE and self._held is not None:  # `ssa.close` looks at the number's SO_LINGER
            linger = self._held.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, len(control.ABORT))
            _socket.setsockopt(self, socket.SOL_SOCKET, socket.SO_LINGER, linger)
        return super().detach()

    def _real_close(self) -> None:  # what close() calls when no file object of makefile() is left
        try:
            self._settle_own()
            aborts = self._aborts()
            self._release()
            if self._phase in (LIVE, BROKEN) and self.fileno() >= 0 and self._is_last():
                with self._plain() as plain:
                    self._end_stream(plain, aborts=aborts)
        finally:
            self._let_go()

    def _settle_own(self) -> None:
        """Finish a connect of this process's that is done by now: it deserves a proper end."""
        fd = self.fileno()
        if fd >= 0 and self._phase == CONNECTING and not self._open_file.is_anothers_connect(fd):
            self._finish()

    def _aborts(self) -> bool:
        """True where SO_LINGER makes this close(2) a reset."""
        if self._phase != LIVE or self.fileno() < 0:
            return False
        with self._plain() as plain:
            return control.aborts(self._held or plain)

    def _is_last(self) -> bool:
        """Note that this object is closed. True where nothing else holds the open file, as far as is known."""
        last = self._open_file.is_last(self.fileno())
        if not self._open_file.count:
            self._turns.close_waiting()
        return last

    def _end_stream(self, plain: _socket, *, aborts: bool) -> None:
        """Tell the peer that the stream ends, as its last holder closes it. Of an abort the kernel tells by itself."""
        if not aborts:
            self._path.end(plain, write_ended=self._write_ended, has_failed=self._open_file.broken is not None)
        elif self._write_ended:  # the daemon may be at it still
            self._path.abort_ended(plain)

    def _let_go(self) -> None:
        """Close the descriptor: where another process may have the socket, not in the midst of a twin's send."""
        if self._turns.in_processes and self.fileno() >= 0:
            self._turns.close(_socket.detach(self))
        else:
            _socket._real_close(self)  # type: ignore[attr-defined]  # what socket.close() calls

    def __repr__(self) -> str:
        return super().__repr__().replace("ssa.library.tlssocket.", "ssa.", 1)


def _domain(fd: int) -> int:
    with Borrowed(fd) as plain:
        return plain.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)


_ENDLESS = 2**62  # records: the daemon has the keys, and looks after them
