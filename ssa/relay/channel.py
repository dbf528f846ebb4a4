"""A stream's records, sans I/O: from what the peer has sent to its content, and back.

OpenSSL's connection comes from the handshake (`Engine.stream`) and goes on with all that TLS has after it: KeyUpdate,
session tickets, alerts. It works on memory, as the TCP socket's O_NONBLOCK belongs to the application too.

The buffers are a thread's: all its channels share them, and none keeps anything there between two calls. What
a connection keeps for itself is as little as OpenSSL can do with, because it is fed no more than a record's length at
a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from ssa.handshake.reasons import alert_of
from ssa.tls import MAX_CONTENT

if TYPE_CHECKING:
    from ssa.suites import Suite

_ffi, _lib = _openssl.ffi, _openssl.lib

TURN = 64 * 1024  # bytes that one direction of a connection may move before others get their turn
_PIECE = MAX_CONTENT  # bytes: OpenSSL's memory grows with what it is given at once, and stays so
_ROOM = TURN + 32 * 1024  # with what records add, or what was left of the one before

CLOSE_NOTIFY, FORGED = "close_notify", "EBADMSG"


class _Buffer:
    """Memory that OpenSSL and Python both see."""

    def __init__(self, size: int) -> None:
        self.pointer: Any = _ffi.new("char[]", size)
        self.view = memoryview(_ffi.buffer(self.pointer, size))


class Workspace:
    """The buffers of a thread."""

    def __init__(self) -> None:
        self.sealed_in, self.plain, self.sealed_out = _Buffer(TURN), _Buffer(_ROOM), _Buffer(_ROOM)
        self.unread: Any = _ffi.new("char**")  # where OpenSSL says what it has not read yet
        self.records = self.sealed_in.view  # where to put what the peer has sent
        self.content = self.plain.view[:TURN]  # where to put what the application has written


class Channel:
    """One connection's OpenSSL."""

    __slots__ = ("_connection", "_from_ssl", "_into_ssl", "_ssl", "records_left", "room")

    def __init__(self, connection: SSL.Connection, suite: Suite, room: Workspace) -> None:
        self._connection = connection
        self.room = room  # the buffers that it works with
        self._ssl: Any = connection._ssl  # noqa: SLF001 - pyOpenSSL's own calls copy all data twice more
        self._into_ssl: Any = connection._into_ssl  # noqa: SLF001 - likewise
        self._from_ssl: Any = connection._from_ssl  # noqa: SLF001 - likewise
        self.records_left = suite.aead.limit  # that may be sent under the present key

    @property
    def connection(self) -> SSL.Connection:
        """OpenSSL's, for who wants its session."""
        return self._connection

    def open_untrusted(self, size: int) -> tuple[memoryview, str]:
        """The content of `size` bytes of the room's records, and how the stream has ended behind; empty if it goes on.

        The content is valid until the next call of any channel. OpenSSL may have something to `say` now. A stream ends
        with `CLOSE_NOTIFY`, with `FORGED` where a record does not decrypt or makes no sense, or with a fatal alert's
        name.
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
        if _lib.SSL_get_error(self._ssl, result) == _lib.SSL_ERROR_WANT_READ:
            return ""
        try:
            self._connection._raise_ssl_error(self._ssl, result)  # noqa: SLF001 - it knows OpenSSL's queue of errors
        except SSL.ZeroReturnError:
            return CLOSE_NOTIFY
        except SSL.Error as exc:
            return alert_of(exc) or FORGED
        raise RuntimeError("OpenSSL read nothing and has no error")

    def seal(self, size: int) -> memoryview:
        """The first `size` bytes of the room's content as records, valid until the next call of any channel.

        Raises `SSL.Error` where the connection has failed before.
        """
        at = total = 0
        while at < size:
            _lib.ERR_clear_error()
            written = _lib.SSL_write(self._ssl, self.room.plain.pointer + at, min(_PIECE, size - at))
            if written <= 0:  # not for want of room: it is memory
                self._connection._raise_ssl_error(self._ssl, written)  # noqa: SLF001 - it knows OpenSSL's queue of errors
            at += written
            self.records_left -= 1
            total += self._take(total)
        return self.room.sealed_out.view[:total]

    def say(self) -> memoryview:
        """What OpenSSL wants to send by itself: alerts, answers to a KeyUpdate. Valid as the others."""
        return self.room.sealed_out.view[: self._take(0)]

    def end(self) -> memoryview:
        """Our close_notify. Valid as the others."""
        _lib.ERR_clear_error()
        _lib.SSL_shutdown(self._ssl)  # its verdict is on the peer's close_notify, which is not waited for
        return self.say()

    def close(self) -> None:
        """The connection is over. However it ended, its session is not spoilt by that, as OpenSSL would have it."""
        self._connection.set_shutdown(SSL.SENT_SHUTDOWN)

    def _take(self, start: int) -> int:
        taken: int = _lib.BIO_read(self._from_ssl, self.room.sealed_out.pointer + start, _ROOM - start)
        return max(0, taken)  # -1: there is nothing
