"""Receiving on a live TLS stream: recv and its relatives, and what a read meets that is no data.

A read is the system call. Three things can make it more:

* It meets a record that is no data (EIO). `_read_on` has it served, and reads again.
* It gives nothing. That is the end of the stream, or the stream was cut, or an empty record came: `_is_over`.
* It had room to spare. A KeyUpdate may wait behind the data, and hide from poll(2): `_came_short`. Where no key can
  change (`_rekeyable` is false), none does.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from functools import partial

from ssa.ktls.post_handshake import Broken
from ssa.library import control_records, deadlines
from ssa.library.control_records import END, GO_ON, MORE
from ssa.library.flags import NOT_RECEIVED, refuse
from ssa.library.held import afresh
from ssa.library.sending import Sending

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from typing_extensions import Buffer

    _T = TypeVar("_T")

_socket = socket.socket
_recv, _recv_into = _socket.recv, _socket.recv_into  # `partial` makes the second read: a lambda would slow the first


class Receiving(Sending):
    """A TLS socket that can send and receive."""

    __slots__ = ()

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """Read up to `bufsize` bytes; empty at the peer's close_notify.

        Raises as `socket.socket.recv`; OSError ECONNABORTED when the stream was cut without close_notify, and what else
        has ended the connection (docs/options.md has the table).
        """
        if self._phase:
            self._check_live()
        if flags and self._wants_all(flags):
            buffer = bytearray(bufsize)
            return bytes(memoryview(buffer)[: self._fill([buffer], flags)])
        try:
            data = _recv(self, bufsize, flags)
        except OSError as exc:
            return self._read_on(exc, partial(_recv, self, bufsize, flags), b"")
        if data and not self._rekeyable:
            return data
        if len(data) < bufsize and self._rekeyable:
            self._came_short(len(data), flags)
        if data or self._is_over(bufsize):
            return data
        return self._read_on(_NO_DATA, partial(_recv, self, bufsize, flags), b"")

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """Read into a buffer. Returns the number of bytes, 0 at the peer's close_notify. Raises as `recv`."""
        if self._phase:
            self._check_live()
        if flags and self._wants_all(flags):
            view = memoryview(buffer).cast("B")
            return self._fill([view[: nbytes or len(view)]], flags)
        try:
            size = _recv_into(self, buffer, nbytes, flags)
        except OSError as exc:
            return self._read_on(exc, partial(_recv_into, self, buffer, nbytes, flags), 0)
        if size and not self._rekeyable:
            return size
        wanted = nbytes or memoryview(buffer).nbytes
        if size < wanted and self._rekeyable:
            self._came_short(size, flags)
        if size or self._is_over(wanted):
            return size
        return self._read_on(_NO_DATA, partial(_recv_into, self, buffer, nbytes, flags), 0)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """Read as `recv` does. The address is None, as of every stream."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """Read as `recv_into` does. The address is None, as of every stream."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """Read as `recv` does. Ancillary data is never given: the kernel's would be the records' types."""
        del ancbufsize
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """Read into several buffers. Raises as `recv`."""
        del ancbufsize
        if self._phase:
            self._check_live()
        views = list(buffers)
        if flags and self._wants_all(flags):
            return self._fill(views, flags), [], 0, None
        try:
            size = _socket.recvmsg_into(self, views, 0, flags)[0]
        except OSError as exc:
            size = self._read_on(exc, lambda: _socket.recvmsg_into(self, views, 0, flags)[0], 0)
        else:
            if self._rekeyable:
                self._came_short(size, flags)
            if not size and not self._is_over(sum(memoryview(view).nbytes for view in views)):
                size = self._read_on(_NO_DATA, lambda: _socket.recvmsg_into(self, views, 0, flags)[0], 0)
        return size, [], 0, None

    def _wants_all(self, flags: int) -> bool:
        """True where a read with these flags has to go on until the buffer is full, over records that are no data.

        Raises OSError EOPNOTSUPP for flags that ask for something else than the stream's bytes.
        """
        if flags & NOT_RECEIVED:
            refuse(flags & NOT_RECEIVED)
        return flags & _WAITING == socket.MSG_WAITALL and self.gettimeout() is None

    def _fill(self, buffers: Iterable[Buffer], flags: int) -> int:
        """Read until the buffers are full, or the stream ends or fails. The next read tells failures behind data."""
        total = 0
        for view in (memoryview(buffer).cast("B") for buffer in buffers):
            at = 0
            while at < len(view):
                try:
                    got = self.recv_into(view[at:], 0, flags & ~socket.MSG_WAITALL)
                except OSError:
                    if total:
                        return total
                    raise
                at, total = at + got, total + got
                if not got:
                    return total
        return total

    def _read_on(self, exc: OSError, read: Callable[[], _T], nothing: _T) -> _T:
        """Serve the record that the read met, and read again. `nothing` at the end of the stream. Raises OSError."""
        deadline = deadlines.of(self)
        patience, served, rounds = control_records.Patience(), GO_ON, 0
        while exc.errno == errno.EIO:
            served = self._serve_control(patience, unfinished=served == MORE)
            if served == END:
                return nothing
            rounds += 1
            self._wait_to_read_on(deadline, rounds, served)
            if served == MORE:
                continue
            try:
                got = read()
            except OSError as again:
                exc = afresh(again)
                continue
            if not got and not self._is_over(1):
                exc = _NO_DATA
                continue
            if self._rekeyable:
                self._came_short(1, 0)  # how much room there was does not matter here: this is rare
            return got or nothing
        if exc.errno == errno.ECONNRESET and self._path.ends_by_reset:
            self._is_over(1)
            return nothing
        raise self._cannot_read(exc) from None

    def _cannot_read(self, exc: OSError) -> OSError:
        """The error to raise in place of an error of recv(2). Remembers what that has ended."""
        if exc.errno in _GONE:
            self._end_writing()
        if (broken := self._path.unreadable(exc.errno)) is not None:
            return self._break(broken)
        if exc.errno in _MEANINGS:
            return self._failed(OSError(exc.errno, _MEANINGS[exc.errno]))
        return afresh(exc)

    def _wait_to_read_on(self, deadline: float | None, rounds: int, served: str) -> None:
        """Wait for what follows a served record, where the next plain read would not wait as the mode says."""
        if deadline is not None:
            if time.monotonic() >= deadline or not deadlines.wait(self, select.POLLIN, deadline):
                raise TimeoutError("timed out")
            return
        if self.gettimeout() is None:
            if served == MORE:
                deadlines.wait(self, select.POLLIN, None)
        elif rounds >= _ROUNDS or (served == MORE and not deadlines.wait(self, select.POLLIN, time.monotonic())):
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def _serve_control(self, patience: control_records.Patience, *, unfinished: bool) -> str:
        """Serve the record that the read stumbled over: a word of `ssa.library.control_records`. Raises OSError."""
        try:
            with self._plain() as plain:
                served = control_records.serve_control_untrusted(plain, server=self._is_server(), unfinished=unfinished)
            patience.tried_by(served)
        except Broken as exc:
            raise self._break(exc) from None
        except BlockingIOError:  # another reader was faster; or no more has come of what goes on
            return MORE if unfinished else GO_ON
        except OSError as exc:
            raise self._failed(exc) from None
        self._note_served(served)
        return served

    def _is_server(self) -> bool | None:
        """Our role; None where a descriptor came from elsewhere, and nobody has asked yet."""
        return None if self._info is None else self._info.remote is not None

    def _came_short(self, size: int, flags: int) -> None:
        """Serve a KeyUpdate that may wait behind a read with room to spare: poll(2) would not report it."""
        if not size or flags or (not self.gettimeout() and not self._is_control_next()):
            return
        with self._plain() as plain:
            self._note_served(control_records.look_behind_untrusted(plain))

    def _is_control_next(self) -> bool:
        """True if a record that is no data comes next. One recv(2), where Python does not poll(2) before it."""
        try:
            _socket.recv(self, 1, _LOOK)
        except OSError as exc:
            return exc.errno == errno.EIO
        return False

    def _is_over(self, wanted: int) -> bool:
        """True if a read of no bytes means the end: the peer's, our own shutdown(2), or a read that wanted none.

        Raises OSError for a stream that was cut.
        """
        if not wanted or self._read_ended:
            return True
        try:
            with self._plain() as plain:
                self._read_ended = self._path.is_over_untrusted(plain)
        except OSError as exc:
            raise self._ended_by(exc) from None
        return self._read_ended


_WAITING = socket.MSG_WAITALL | socket.MSG_DONTWAIT | socket.MSG_PEEK
_LOOK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_ROUNDS = 64  # records that one call serves on a socket that does not wait: others have their turn
_NO_DATA = OSError(errno.EIO, os.strerror(errno.EIO))  # what a read says of a record that is no data
# What a read says once of a connection that is gone. The kernel takes data for it still, and throws that away.
_GONE = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
)
_MEANINGS = {
    errno.EKEYEXPIRED: "the peer has changed its key, and no ssad was there to follow",
}
