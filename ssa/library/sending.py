"""Sending on a live TLS stream: send, sendall, sendmsg, sendto, sendfile, and what can be due before.

A send is the system call and a countdown. `_sendable` is what may be sent before the next look at what is due, in the
unit of `ssa.library.key_lifetime.STRIDE`; below 0 the look comes before the next send. Whatever concerns the next send
has a name of its own, and has `_sendable` set below 0 by `_look_before_sending`:

    _answer_due               the peer has asked for a KeyUpdate of ours (RFC 8446 section 4.6.3)
    _write_ended              this object has ended its writing; after shutdown(2) or a reset the kernel accepts further
                              data and discards it
    _open_file.write_ended    a twin of this object (`dup`) has
    _open_file.count          there are twins: one can end the stream at any moment, so each send looks
    _open_file.broken         the connection has failed
"""

from __future__ import annotations

import errno
import os
import select
import socket
from _thread import _count

from ssa.library import control_records, deadlines, sharing
from ssa.library.datapath import BOTH_WAYS, KERNEL, NOTHING
from ssa.library.endpoint import Endpoint
from ssa.library.flags import NOT_SENT, refuse
from ssa.library.key_lifetime import PART
from ssa.library.phases import BROKEN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from typing_extensions import Buffer

    from ssa.ktls.post_handshake import Broken
    from ssa.library.datapath import KernelStream, RelayedStream
    from ssa.library.option_values import Settings
    from ssa.protocol import wire

_socket = socket.socket


class Sending(Endpoint):
    """A TLS socket that can send."""

    __slots__ = ("_answer_due", "_path", "_rekeyable", "_sendable", "_turns")

    def _begin(self, settings: Settings, phase: int, info: wire.Reply | None = None) -> None:
        super()._begin(settings, phase, info)
        self._path: KernelStream | RelayedStream = KERNEL
        self._rekeyable = info is None or bool(info.rekeyable)  # whether the peer may change its key
        self._answer_due = False
        self._sendable = 0
        self._turns = sharing.Turns()
        self._turns.of(self)
        if not self._rekeyable:
            self._turns.give_up()

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """Write. Returns the number of bytes taken. Raises as `socket.socket.send`, and what ended the connection."""
        if self._phase:
            self._check_live()
        if flags & NOT_SENT:
            refuse(flags & NOT_SENT)
        if self._rekeyable and memoryview(data).nbytes > PART:
            view = memoryview(data).cast("B")
            return self._send_parts(lambda at: self.send(view[at : at + PART], flags), len(view))
        turns = self._turns
        if turns.in_processes or (turns.in_threads and _count()):
            with turns.turn:
                return self._send_now(data, flags)
        return self._send_now(data, flags)

    def _send_now(self, data: Buffer, flags: int) -> int:
        if self._sendable < 0:
            self._serve_what_is_due()
        try:
            sent = _socket.send(self, data, flags)
        except OSError as exc:
            raise self._cannot_write(exc) from None
        self._sendable -= 1 + (sent >> 10)
        return sent

    def _send_parts(self, send: Callable[[int], int], size: int) -> int:
        """Send so much that the key may have to change meanwhile: part by part, as far as one call would come."""
        with self._turns.turn:
            sent = send(0)
            try:
                while sent < size and sent % PART == 0 and not self.gettimeout():
                    sent += send(sent)
            except OSError:
                pass  # what was sent is told first, and the next call meets this again
            return sent

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Write all of it. Raises as `socket.socket.sendall`, and what has ended the connection."""
        if self._phase:
            self._check_live()
        if flags & NOT_SENT:
            refuse(flags & NOT_SENT)
        size = memoryview(data).nbytes
        if self._rekeyable and size > PART:
            self._send_all_parts(memoryview(data).cast("B"), flags)
            return
        turns = self._turns
        if turns.in_processes or (turns.in_threads and _count()):
            with turns.turn:
                self._send_all_now(data, flags, size)
        else:
            self._send_all_now(data, flags, size)
        if self._sendable < 0 and self._open_file.broken is not None:
            self._check_live()  # it failed meanwhile: the kernel took the rest, and threw it away

    def _send_all_now(self, data: Buffer, flags: int, size: int) -> None:
        if self._sendable < 0:
            self._serve_what_is_due()
        try:
            _socket.sendall(self, data, flags)
        except OSError as exc:
            raise self._cannot_write(exc) from None
        self._sendable -= 1 + (size >> 10)

    def _send_all_parts(self, view: memoryview, flags: int) -> None:
        deadline = deadlines.of(self)
        with self._turns.turn:
            while view:
                if deadline is not None and not deadlines.wait(self, select.POLLOUT, deadline):
                    raise TimeoutError("timed out")
                view = view[self.send(view[:PART], flags) :]

    def sendto(self, data: Buffer, *flags_and_address: Any) -> int:
        """Write as `send` does. The address is ignored, as on a connected TCP socket."""
        return self.send(data, *flags_and_address[:-1])

    def sendmsg(
        self, buffers: Iterable[Buffer], ancdata: Iterable[Any] = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """Write from several buffers. The address is ignored, as on a connected TCP socket.

        Where the daemon relays, nothing can be sent beside the bytes: ancillary data is EOPNOTSUPP.
        """
        del address
        if ancdata:
            ancdata = self._check_ancillary(ancdata)
        if self._phase:
            self._check_live()
        if flags & NOT_SENT:
            refuse(flags & NOT_SENT)
        views = list(buffers)
        size = sum(memoryview(view).nbytes for view in views)
        if self._rekeyable and size > PART:
            ancillary = list(ancdata)
            return self._send_parts(lambda at: self.sendmsg(_cut(views, at), ancillary if not at else (), flags), size)
        with self._turns.turn:
            if self._sendable < 0:
                self._serve_what_is_due()
            try:
                sent = _socket.sendmsg(self, views, ancdata, flags)
            except OSError as exc:
                raise self._cannot_write(exc) from None
            self._sendable -= 1 + (sent >> 10)
            return sent

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """Send a file, as `socket.socket.sendfile` does: the kernel reads, encrypts and sends it.

        What has no size (a pipe, a file of /proc, an object in memory) is read and sent.
        """
        self._check_live()
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined] # typeshed does not know it
        if not (size := _size(file)):
            return self._send_what_is_read(file, offset, count)
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        total, due = 0, _due(size, offset, count)
        try:
            while total < due:
                try:
                    sent = self._send_of_file(file, offset + total, min(PART, due - total))
                except OSError as exc:
                    if not total and exc.errno in NO_SENDFILE and self._open_file.broken is None:
                        return self._send_what_is_read(file, offset, count)
                    raise
                total += sent
                if not sent:  # the file is shorter by now
                    break
                if total == due != count:  # it may be longer by now
                    due = _due(_size(file), offset, count)
        finally:
            if total and hasattr(file, "seek"):
                file.seek(offset + total)
        return total

    def _send_of_file(self, file: Any, start: int, size: int) -> int:
        """sendfile(2), with the socket's timeout. It never asks for more than the file has, as far as is known.

        While the kernel has not sent as many bytes as it was asked for it says to TCP that more is to come, behind the
        file's last byte too before Linux 6.5 (fs/splice.c, SPLICE_F_MORE): the last bytes would wait for 200 ms.
        """
        timeout = self.gettimeout()
        while True:
            if timeout and not deadlines.wait(self, select.POLLOUT, deadlines.of(self)):
                raise TimeoutError("timed out")
            with self._turns.turn:
                if self._sendable < 0:
                    self._serve_what_is_due()
                try:
                    sent = os.sendfile(self.fileno(), file.fileno(), start, size)
                except BlockingIOError:
                    sent = -1
                except OSError as exc:
                    raise self._cannot_write(exc) from None
            if sent >= 0:
                self._sendable -= 1 + (sent >> 10)
                return sent
            deadlines.wait(self, select.POLLOUT, deadlines.of(self))

    def _send_what_is_read(self, file: Any, offset: int, count: int | None) -> int:
        if self.gettimeout() == 0:
            raise ValueError("non-blocking sockets are not supported")
        if offset:
            file.seek(offset)
        read, total = getattr(file, "read1", file.read), 0
        while data := read(_READ if count is None else min(_READ, count - total)):
            self.sendall(data)
            total += len(data)
        return total

    def _check_ancillary(self, ancillary: Iterable[Any]) -> list[Any]:
        """The ancillary data in a list. Raises OSError EOPNOTSUPP if the data path cannot send any."""
        if (listed := list(ancillary)) and not self._path.has_ancillary:
            raise OSError(errno.EOPNOTSUPP, "there is no ancillary data on a stream that is relayed")
        return listed

    # --- what is due ------------------------------------------------------------------------------------------------

    def _look_before_sending(self) -> None:
        self._sendable = -1

    def _note_served(self, served: str) -> None:
        """Remember that the peer has asked for a KeyUpdate, if that is what was served."""
        if served == control_records.ANSWER:
            self._answer_due = True
            self._look_before_sending()

    def _serve_what_is_due(self) -> None:
        """Send a KeyUpdate if one is due: in answer to the peer's, or before the key has served for too long.

        Raises OSError: EPIPE where writing has ended, EKEYEXPIRED where the keys cannot change and this one has served
        its time; what has ended the connection.
        """
        if self._open_file.broken is not None:
            self._check_live()
        if self._write_ended or self._open_file.write_ended:
            raise BrokenPipeError(errno.EPIPE, "the stream has been ended: nothing can be sent any more")
        answer, self._answer_due = self._answer_due, False  # before: another may read of the next one meanwhile
        try:
            with self._plain() as plain:
                self._sendable = self._path.renew_key(
                    plain, self.gettimeout(), answer=answer, rekeyable=self._rekeyable
                )
        except OSError as exc:
            self._answer_due |= answer
            raise self._failed(self._cannot_write(exc)) from None
        if self._answer_due or self._open_file.count > 1:  # of what a twin ends the kernel does not tell
            self._look_before_sending()

    # --- what has ended -----------------------------------------------------------------------------------------------

    def _cannot_write(self, exc: OSError) -> OSError:
        """The error for a failed write. Remembers that writing has ended: the kernel tells of it once."""
        if exc.errno in (errno.EPIPE, errno.ECONNRESET):
            self._end_writing()
            with self._plain() as plain:
                failure = self._path.why_closed(plain, exc)
            return exc if failure is exc else self._ended_by(failure)
        if (broken := self._path.unwritable(exc.errno)) is not None:
            return self._break(broken)
        return exc

    def _end_writing(self) -> None:
        self._write_ended = self._open_file.write_ended = True
        self._look_before_sending()

    def _ended_by(self, exc: OSError) -> OSError:
        """Remember which directions a failure has ended. Returns the failure."""
        with self._plain() as plain:
            what = self._path.ended_by(plain, exc)
        if what == BOTH_WAYS:
            self._open_file.broken = OSError(exc.errno, exc.strerror)
        if what != NOTHING:
            self._end_writing()
        return self._failed(exc)

    def _break(self, broken: Broken) -> OSError:
        """End a connection that has failed, send the peer the alert, and remember why. Returns the error."""
        if self._open_file.broken is None:
            self._open_file.broken = OSError(broken.errno, broken.strerror)
            with self._plain() as plain:
                control_records.fail(plain, broken)
        self._end_writing()
        self._phase = BROKEN
        return self._failed(OSError(broken.errno, broken.strerror))


_READ = 2**16  # bytes
NO_SENDFILE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESPIPE})  # the file system has none


def _size(file: Any) -> int:
    """A file's size in bytes; 0 where it has none to tell."""
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, OSError):
        return 0


def _due(size: int, offset: int, count: int | None) -> int:
    """The number of bytes of a file that are to be sent."""
    return max(0, size - offset if count is None else min(size - offset, count))


def _cut(buffers: list[Buffer], start: int) -> list[memoryview]:
    """The next part of what the buffers hold together, from `start` on."""
    cut, room = [], PART
    for view in (memoryview(buffer).cast("B") for buffer in buffers):
        piece = view[start : start + room]
        start = max(0, start - len(view))
        room -= len(piece)
        cut.append(piece)
    return cut
