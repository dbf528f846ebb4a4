"""The records of a stream, sans I/O: from sealed records to their content, and back.

OpenSSL's connection comes from the handshake (`Engine.stream`). It does all that TLS has after that: KeyUpdate, session
tickets, alerts. It works on memory and has no descriptor, as the TCP socket's O_NONBLOCK belongs to the
application too.

A thread has one set of buffers. All its channels share it, and none keeps anything there between two calls. OpenSSL's
memory for a connection grows with what it is fed at once: so it is fed a record's length at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from ssa.handshake.reasons import alert_of
from ssa.protocol.attributes import CLOSE_NOTIFY
from ssa.tls import MAX_CONTENT

if TYPE_CHECKING:
    from ssa.suites import Suite

_ffi, _lib = _openssl.ffi, _openssl.lib

TURN = 64 * 1024  # bytes that one direction of a connection may move before others get their turn
_PIECE = MAX_CONTENT  # bytes that OpenSSL is fed at once
_ROOM = TURN + 32 * 1024  # bytes: a turn, what its records add, and what was left of the record before

FORGED = "EBADMSG"


class _Buffer:
    """Memory that OpenSSL and Python both see."""

    def __init__(self, size: int) -> None:
        self.pointer: Any = _ffi.new("char[]", size)
        self.view = memoryview(_ffi.buffer(self.pointer, size))


class Workspace:
    """The buffers of a thread, which all its channels use."""

    def __init__(self) -> None:
        self.sealed_in, self.plain, self.sealed_out = _Buffer(TURN), _Buffer(_ROOM), _Buffer(_ROOM)
        self.unread: Any = _ffi.new("char**")  # where OpenSSL says what it has not read yet
        self.records = self.sealed_in.view  # where to put what the peer has sent
        self.content = self.plain.view[:TURN]  # where to put what the application has written


class Channel:
    """OpenSSL of one relayed connection."""

    __slots__ = ("_connection", "_from_ssl", "_into_ssl", "_ssl", "records_left", "room")

    def __init__(self, connection: SSL.Connection, suite: Suite, room: Workspace) -> None:
        self._connection = connection
        self.room = room
        self._ssl: Any = connection._ssl  # noqa: SLF001 - pyOpenSSL's own calls copy all data twice more
        self._into_ssl: Any = connection._into_ssl  # noqa: SLF001 - likewise
        self._from_ssl: Any = connection._from_ssl  # noqa: SLF001 - likewise
        self.records_left = suite.aead.limit  # that may be sent under the present key

    @property
    def connection(self) -> SSL.Connection:
        """OpenSSL's connection, which has the session."""
        return self._connection

    def open_untrusted(self, size: int) -> tuple[memoryview, str]:
        """Open `size` bytes of `room.records`. Returns their content, and how the stream has ended behind it.

        The second is empty where the stream goes on; `CLOSE_NOTIFY`; `FORGED` where a record does not decrypt or makes
        no sense; or the name of a fatal alert. The content is valid until the next call of any channel of the thread.
        OpenSSL may have something to send afterwards: `take_pending`.
        """
        total = 0
        for at in range(0, size, _PIECE):
            _lib.BIO_write(self._into_ssl, self.room.sealed_in.pointer + at, min(_PIECE, size - at))
            got, ended = self._read(total)
            total += got
            if ended:
                return self.room.plain.view[:total], ended
        return self.room.plain.view[:total], ""

    def _read(self, start: int) -> tuple[int, str]:
        at = start
        while True:
            _lib.ERR_clear_error()
            got = _lib.SSL_read(self._ssl, self.room.plain.pointer + at, _ROOM - at)
            if got <= 0:
                return at - start, self._ended(got)
            at += got
            if not _lib.BIO_get_mem_data(self._into_ssl, self.room.unread):  # to ask OpenSSL costs as much as a record
                return at - start, ""

    def _ended(self, result: int) -> str:
        error = _lib.SSL_get_error(self._ssl, result)
        if error == _lib.SSL_ERROR_WANT_READ:
            return ""
        if error == _lib.SSL_ERROR_SYSCALL and self._connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN:
            return CLOSE_NOTIFY  # behind user_canceled, OpenSSL has no word for it
        try:
            self._connection._raise_ssl_error(self._ssl, result)  # noqa: SLF001 - it knows OpenSSL's queue of errors
        except SSL.ZeroReturnError:
            return CLOSE_NOTIFY
        except SSL.Error as exc:
            return alert_of(exc) or FORGED
        raise RuntimeError("OpenSSL read nothing and has no error")

    def seal(self, size: int) -> memoryview:
        """Seal the first `size` bytes of `room.content`. Returns records, valid until the next call of any channel.

        Raises `SSL.Error` where the connection has failed before.
        """
        at = total = 0
        while at < size:
            _lib.ERR_clear_error()
            written = _lib.SSL_write(self._ssl, self.room.plain.pointer + at, min(_PIECE, size - at))
            if written <= 0:  # memory has always room: the connection has failed
                self._connection._raise_ssl_error(self._ssl, written)  # noqa: SLF001 - it knows OpenSSL's queue of errors
            at += written
            self.records_left -= 1
            total += self._take(total)
        return self.room.sealed_out.view[:total]

    def take_pending(self) -> memoryview:
        """The records that OpenSSL sends by itself: alerts, answers to a KeyUpdate. Valid until the next call."""
        return self.room.sealed_out.view[: self._take(0)]

    def end(self) -> memoryview:
        """The record of our close_notify. Valid until the next call."""
        _lib.ERR_clear_error()
        _lib.SSL_shutdown(self._ssl)  # it returns whether the peer has sent its own: we don't wait for that
        return self.take_pending()

    def close(self) -> None:
        """End the connection. OpenSSL is told that close_notify was sent, as without it the session is spoilt."""
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN)

    def _take(self, start: int) -> int:
        taken: int = _lib.BIO_read(self._from_ssl, self.room.sealed_out.pointer + start, _ROOM - start)
        return max(0, taken)  # -1: there is nothing
