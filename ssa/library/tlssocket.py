"""A TLS socket in the words of the socket API: `socket.socket`, and what differs where TLS does.

Theory of operation. A connected TLSSocket is a TCP socket whose records the kernel protects, so nearly all that is
inherited is right as it is, and costs what it costs on TCP. What is overridden here is overridden for one of these
reasons; the rest, before there is a stream and beside it, is in `ssa.library.endpoint`:

* Before the handshake no byte may pass the descriptor. (`_phase` is 0 after it, so that the price is a test.)
* A read can meet a record that is no data (EIO), and the end of a stream is another thing than in TCP: `_read_on`.
* A write may be due for another key first: `_budget` counts down to the moment when that has to be looked at.
* close and shutdown end the stream in TLS's way before TCP's. A socket that another process or descriptor holds too
  is not ended by closing one of them: a fork is noticed, and `dup` counted; who passes a descriptor on over a Unix
  socket closes its own with `os.close(sock.detach())`.
* Where the daemon relays the stream (`_relayed`), there are no records: then the end is what the daemon says it was.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from _thread import _count

from ssa.ktls import control
from ssa.ktls.constants import TCP_CLOSE
from ssa.ktls.post_handshake import Broken, unreadable, violation
from ssa.library import control_records, deadlines, relay_end
from ssa.library.endpoint import BROKEN, LISTENING, LIVE, Endpoint, afresh
from ssa.library.flags import NOT_RECEIVED, NOT_SENT, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, TypeVar

    from typing_extensions import Buffer

    _T = TypeVar("_T")

_socket = socket.socket


class TLSSocket(Endpoint):
    """A TLS socket: made by `ssa.socket`, `ssa.create_connection`, `ssa.create_server` or `ssa.upgrade`.

    It is a `socket.socket`: what is said there holds here. Besides, `getsockopt` and `setsockopt` know the level
    `ssa.IPPROTO_TLS`, `connect` takes a host name, which the server's certificate has to be for, and a stream that was
    cut raises ConnectionAbortedError where one that the peer has ended reads as empty.
    """

    __slots__ = ()

    # --- reading ------------------------------------------------------------------------------------------------

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.socket.recv`. Empty at the peer's close_notify; ECONNABORTED when the stream was cut without."""
        if self._phase:
            self._check_live()
        if flags and self._wants_all(flags):
            buffer = bytearray(bufsize)
            return bytes(memoryview(buffer)[: self._fill([buffer], flags)])
        try:
            data = _socket.recv(self, bufsize, flags)
        except OSError as exc:
            return self._read_on(exc, lambda: _socket.recv(self, bufsize, flags), b"")
        if len(data) < bufsize and self._rekeyable:
            self._came_short(len(data), flags)
        if data or self._is_over(bufsize):
            return data
        return self._read_on(_NO_DATA, lambda: _socket.recv(self, bufsize, flags), b"")

    def recv_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> int:
        """As `recv`, into a buffer."""
        if self._phase:
            self._check_live()
        if flags and self._wants_all(flags):
            view = memoryview(buffer).cast("B")
            return self._fill([view[: nbytes or len(view)]], flags)
        try:
            size = _socket.recv_into(self, buffer, nbytes, flags)
        except OSError as exc:
            return self._read_on(exc, lambda: _socket.recv_into(self, buffer, nbytes, flags), 0)
        wanted = nbytes or memoryview(buffer).nbytes
        if size < wanted and self._rekeyable:
            self._came_short(size, flags)
        if size or self._is_over(wanted):
            return size
        return self._read_on(_NO_DATA, lambda: _socket.recv_into(self, buffer, nbytes, flags), 0)

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]:
        """As `recv`; of a stream there is no address to tell."""
        return self.recv(bufsize, flags), None

    def recvfrom_into(self, buffer: Buffer, nbytes: int = 0, flags: int = 0) -> tuple[int, Any]:
        """As `recv_into`; of a stream there is no address to tell."""
        return self.recv_into(buffer, nbytes, flags), None

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> tuple[bytes, list[Any], int, Any]:
        """As `recv`. There is never ancillary data: what the kernel would put there are the records' types."""
        del ancbufsize
        return self.recv(bufsize, flags), [], 0, None

    def recvmsg_into(
        self, buffers: Iterable[Buffer], ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[int, list[Any], int, Any]:
        """As `recvmsg`, into buffers."""
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
        """Whether a read with these flags has to go on until the buffer is full, over records that are no data.

        Raises OSError EOPNOTSUPP for flags that ask for something else than the stream's bytes.
        """
        if flags & NOT_RECEIVED:
            refuse(flags & NOT_RECEIVED)
        return flags & _WAITING == socket.MSG_WAITALL and self.gettimeout() is None

    def _fill(self, buffers: Iterable[Buffer], flags: int) -> int:
        """Read until the buffers are full, or the stream ends or fails: behind data the next read tells of that."""
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
        """Serve what the read stumbled over, and read again; `nothing` at the end of the stream. Raises OSError."""
        deadline = deadlines.of(self)
        patience, served, rounds = control_records.Patience(), control_records.GO_ON, 0
        while exc.errno == errno.EIO:
            served = self._serve_control(patience, unfinished=served == control_records.MORE)
            if served == control_records.END:
                return nothing
            rounds += 1
            self._wait_to_read_on(deadline, rounds, served)
            if served == control_records.MORE:
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
        if exc.errno == errno.ECONNRESET and self._relayed:
            self._is_over(1)
            return nothing
        raise self._cannot_read(exc) from None

    def _cannot_read(self, exc: OSError) -> OSError:
        """What a read has to raise for an error of the kernel's, and remember of it."""
        if exc.errno in _GONE:
            self._end_writing()
        if not self._relayed and (broken := unreadable(exc.errno)) is not None:
            return self._break(broken)
        if exc.errno in _MEANINGS:
            return self._failed(OSError(exc.errno, _MEANINGS[exc.errno]))
        return afresh(exc)

    def _wait_to_read_on(self, deadline: float | None, rounds: int, served: str) -> None:
        """Wait for what comes behind a record that was served, where a plain read would not do it as it has to."""
        if deadline is not None:
            if time.monotonic() >= deadline or not deadlines.wait(self, select.POLLIN, deadline):
                raise TimeoutError("timed out")
            return
        if self.gettimeout() is None:
            if served == control_records.MORE:
                deadlines.wait(self, select.POLLIN, None)
        elif rounds >= _ROUNDS or (
            served == control_records.MORE and not deadlines.wait(self, select.POLLIN, time.monotonic())
        ):
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
            return control_records.MORE if unfinished else control_records.GO_ON
        except OSError as exc:
            raise self._failed(exc) from None
        if served == control_records.ANSWER:
            self._answer_due, self._budget = True, -1
        return served

    def _is_server(self) -> bool | None:
        """Our role; None where a descriptor came from elsewhere, and nobody has asked yet."""
        return None if self._info is None else self._info.remote is not None

    def _break(self, broken: Broken) -> OSError:
        """The connection has failed: end it, tell the peer, and remember why for every later call. The error."""
        if self._holders.broken is None:
            self._holders.broken = OSError(broken.errno, broken.strerror)
            with self._plain() as plain:
                control_records.fail(plain, broken)
        self._end_writing()
        self._phase = BROKEN
        return self._failed(OSError(broken.errno, broken.strerror))

    def _came_short(self, size: int, flags: int) -> None:
        """A read had room to spare: there may be a KeyUpdate behind it, which hides from poll."""
        if not size or flags or (not self.gettimeout() and not self._is_control_next()):
            return
        with self._plain() as plain:
            if control_records.look_behind_untrusted(plain) == control_records.ANSWER:
                self._answer_due, self._budget = True, -1

    def _is_control_next(self) -> bool:
        """A cheap look, where Python does not wait for a timeout before it."""
        try:
            _socket.recv(self, 1, _LOOK)
        except OSError as exc:
            return exc.errno == errno.EIO
        return False

    def _is_over(self, wanted: int) -> bool:
        """A read gave nothing: whether that is all. So it is if we have ended the stream, or if nothing was wanted.

        Raises OSError for a stream that was cut.
        """
        if not wanted or self._read_ended:
            return True
        with self._plain() as plain:
            if not self._relayed:
                if control_records.is_cut_untrusted(plain):
                    if control.tcp_state(plain) == TCP_CLOSE:  # a reset, as a rule
                        self._end_writing()
                    raise self._failed(control_records.truncated())
                return False
            relay_end.check_end(plain, self._relay_failed)
        self._read_ended = True
        return True

    # --- writing ------------------------------------------------------------------------------------------------

    def send(self, data: Buffer, flags: int = 0, /) -> int:
        """As `socket.socket.send`."""
        if self._phase:
            self._check_live()
        if flags & NOT_SENT:
            refuse(flags & NOT_SENT)
        if self._rekeyable and memoryview(data).nbytes > _PART:
            view = memoryview(data).cast("B")
            return self._send_parts(lambda at: self.send(view[at : at + _PART], flags), len(view))
        turns = self._turns
        if turns.in_processes or (turns.in_threads and _count()):
            with turns.turn:
                return self._send_now(data, flags)
        return self._send_now(data, flags)

    def _send_now(self, data: Buffer, flags: int) -> int:
        if self._budget < 0:
            self._change_keys()
        try:
            sent = _socket.send(self, data, flags)
        except OSError as exc:
            raise self._cannot_write(exc) from None
        self._budget -= 1 + (sent >> 10)
        return sent

    def _send_parts(self, send: Callable[[int], int], size: int) -> int:
        """Send so much that the key may have to change meanwhile: part by part, as far as one call would come."""
        with self._turns.turn:
            sent = send(0)
            try:
                while sent < size and sent % _PART == 0 and not self.gettimeout():
                    sent += send(sent)
            except OSError:
                pass  # what was sent is told first, and the next call meets this again
            return sent

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """As `socket.socket.sendall`."""
        if self._phase:
            self._check_live()
        if flags & NOT_SENT:
            refuse(flags & NOT_SENT)
        size = memoryview(data).nbytes
        if self._rekeyable and size > _PART:
            self._send_all_parts(memoryview(data).cast("B"), flags)
            return
        turns = self._turns
        if turns.in_processes or (turns.in_threads and _count()):
            with turns.turn:
                self._send_all_now(data, flags, size)
        else:
            self._send_all_now(data, flags, size)
        if self._budget < 0 and self._holders.broken is not None:
            self._check_live()  # it failed meanwhile: the kernel took the rest, and threw it away

    def _send_all_now(self, data: Buffer, flags: int, size: int) -> None:
        if self._budget < 0:
            self._change_keys()
        try:
            _socket.sendall(self, data, flags)
        except OSError as exc:
            raise self._cannot_write(exc) from None
        self._budget -= 1 + (size >> 10)

    def _send_all_parts(self, view: memoryview, flags: int) -> None:
        deadline = deadlines.of(self)
        with self._turns.turn:
            while view:
                if deadline is not None and not deadlines.wait(self, select.POLLOUT, deadline):
                    raise TimeoutError("timed out")
                view = view[self.send(view[:_PART], flags) :]

    def sendto(self, data: Buffer, *flags_and_address: Any) -> int:
        """As `send`: the address of a stream that is connected does not count."""
        return self.send(data, *flags_and_address[:-1])

    def sendmsg(
        self, buffers: Iterable[Buffer], ancdata: Iterable[Any] = (), flags: int = 0, address: Any = None, /
    ) -> int:
        """As `socket.socket.sendmsg`; the address of a stream does not count.

        Where the daemon relays, nothing can be sent beside the bytes: ancillary data is EOPNOTSUPP.
        """
        del address
        if self._relayed and (ancdata := list(ancdata)):
            raise OSError(errno.EOPNOTSUPP, "there is no ancillary data on a stream that is relayed")
        if self._phase:
            self._check_live()
        if flags & NOT_SENT:
            refuse(flags & NOT_SENT)
        views = list(buffers)
        size = sum(memoryview(view).nbytes for view in views)
        if self._rekeyable and size > _PART:
            ancillary = list(ancdata)
            return self._send_parts(lambda at: self.sendmsg(_cut(views, at), ancillary if not at else (), flags), size)
        with self._turns.turn:
            if self._budget < 0:
                self._change_keys()
            try:
                sent = _socket.sendmsg(self, views, ancdata, flags)
            except OSError as exc:
                raise self._cannot_write(exc) from None
            self._budget -= 1 + (sent >> 10)
            return sent

    def sendfile(self, file: Any, offset: int = 0, count: int | None = None) -> int:
        """As `socket.socket.sendfile`: the kernel reads, encrypts and sends, nothing passes through here.

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
                    sent = self._send_of_file(file, offset + total, min(_PART, due - total))
                except OSError as exc:
                    if not total and exc.errno in _NO_SENDFILE and self._holders.broken is None:
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
                if self._budget < 0:
                    self._change_keys()
                try:
                    sent = os.sendfile(self.fileno(), file.fileno(), start, size)
                except BlockingIOError:
                    sent = -1
                except OSError as exc:
                    raise self._cannot_write(exc) from None
            if sent >= 0:
                self._budget -= 1 + (sent >> 10)
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

    def _cannot_write(self, exc: OSError) -> OSError:
        """Remember that writing has ended: the kernel tells of it once, and then takes data that goes nowhere."""
        if exc.errno in (errno.EPIPE, errno.ECONNRESET):
            self._end_writing()
            if self._relayed:
                with self._plain() as plain:
                    return self._relay_failed(relay_end.write_failure(plain))
        elif not self._relayed and exc.errno in (errno.EBADMSG, errno.EMSGSIZE):  # what came, and nobody has read yet
            return self._break(unreadable(exc.errno) or violation(os.strerror(exc.errno)))
        return exc

    def _relay_failed(self, exc: OSError) -> OSError:
        """Remember how the daemon says that the connection has ended, unless one direction has only."""
        if exc.errno not in (errno.EPIPE, errno.ECONNABORTED):
            self._holders.broken = OSError(exc.errno, exc.strerror)
            self._end_writing()
        return self._failed(exc)

    def _end_writing(self) -> None:
        self._write_ended, self._budget = True, -1
        self._holders.write_ended = True

    def _change_keys(self) -> None:
        """Send a KeyUpdate if one is due: in answer to the peer's, or before the key has served for too long.

        Raises OSError: EPIPE where writing has ended, EKEYEXPIRED where the keys cannot change and this one has served
        its time.
        """
        if self._holders.broken is not None:
            self._check_live()
        if self._write_ended or self._holders.write_ended:
            raise BrokenPipeError(errno.EPIPE, "the stream has been ended: nothing can be sent any more")
        answer, self._answer_due = self._answer_due, False  # before: another may read of the next one meanwhile
        try:
            with self._plain() as plain:
                self._budget = control_records.renew_key(
                    plain, self.gettimeout(), answer=answer, rekeyable=self._rekeyable
                )
        except OSError as exc:
            self._answer_due |= answer
            raise self._failed(self._cannot_write(exc)) from None
        if self._answer_due or self._holders.count > 1:  # a twin can end the stream meanwhile, and the kernel won't say
            self._budget = -1

    # --- ending -------------------------------------------------------------------------------------------------

    def shutdown(self, how: int, /) -> None:
        """As `socket.socket.shutdown`: what ends our writing tells the peer so (close_notify); reading can go on."""
        self._settle()
        if self._phase != LIVE:
            self._tcp(_socket.shutdown)(how)
            if self._phase == LISTENING and how != socket.SHUT_WR:
                self._read_ended = True
                super().shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
            return
        if how in (socket.SHUT_WR, socket.SHUT_RDWR) and not self._write_ended:
            with self._plain() as plain:
                (relay_end.end_writing if self._relayed else relay_end.say_goodbye)(plain)
            self._end_writing()
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            self._read_ended = True
            super().shutdown(socket.SHUT_RD)

    def _real_close(self) -> None:  # what close() calls when no file object of makefile() is left
        try:
            self._settle()  # a handshake that is done deserves a proper end
            was_relayed, aborts = self._relayed, self._aborts()
            if self._aside is not None:
                self._aside.close()
                self._aside = None
            if self._phase in (LIVE, BROKEN) and self.fileno() >= 0 and self._is_last():
                with self._plain() as plain:
                    self._end_stream(plain, was_relayed=was_relayed, aborts=aborts)
        finally:
            self._let_go()

    def _aborts(self) -> bool:
        """True where SO_LINGER makes this close(2) a reset."""
        if self._phase != LIVE or self.fileno() < 0:
            return False
        with self._plain() as plain:
            return control.aborts(self._aside or plain)

    def _end_stream(self, plain: socket.socket, *, was_relayed: bool, aborts: bool) -> None:
        """Tell the peer that the stream ends, as its last holder closes it. Of an abort the kernel tells by itself."""
        if aborts:
            if self._write_ended and not was_relayed:  # the daemon may be at it still
                relay_end.abort(plain)
        elif not was_relayed:
            control.end(plain, relay_end.say_goodbye if self._holders.broken is None else control.say_nothing)
        elif not self._write_ended:
            relay_end.end_writing(plain)

    def __repr__(self) -> str:
        return super().__repr__().replace("ssa.library.tlssocket.", "ssa.", 1)


_WAITING = socket.MSG_WAITALL | socket.MSG_DONTWAIT | socket.MSG_PEEK
_LOOK = int(socket.MSG_PEEK | socket.MSG_DONTWAIT)
_PART = 2**20  # bytes that are sent between two looks at whether the key has to change
_ROUNDS = 64  # records that one call serves on a socket that does not wait: others have their turn
_READ = 2**16  # bytes
_NO_SENDFILE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESPIPE})  # the file system has none
_NO_DATA = OSError(errno.EIO, os.strerror(errno.EIO))  # what a read says of a record that is no data
# What a read says once of a connection that is gone. The kernel takes data for it still, and throws that away.
_GONE = frozenset(
    {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}
)
_MEANINGS = {
    errno.EKEYEXPIRED: "the peer has changed its key, and no ssad was there to follow",
}


def _size(file: Any) -> int:
    """A file's size in bytes; 0 where it has none to tell."""
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, OSError):
        return 0


def _due(size: int, offset: int, count: int | None) -> int:
    """How many bytes of a file are to be sent."""
    return max(0, size - offset if count is None else min(size - offset, count))


def _cut(buffers: list[Buffer], start: int) -> list[memoryview]:
    """A part of what the buffers hold together, from there on."""
    cut, room = [], _PART
    for view in (memoryview(buffer).cast("B") for buffer in buffers):
        piece = view[start : start + room]
        start = max(0, start - len(view))
        room -= len(piece)
        cut.append(piece)
    return cut
