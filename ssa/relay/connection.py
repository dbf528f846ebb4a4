"""One relayed connection: between the peer's TCP socket and our end of the application's pair.

What is known of an end, and what it means for the other one:

    the application's end              the peer gets
    its writing side was shut down     close_notify and a FIN, behind the last byte; the other direction goes on
    it was closed, which was said      the same; then the connection is let go
    it was closed without a word       a FIN alone, a truncation: the application crashed, or did not end its stream
    it was closed with SO_LINGER       a reset: what was not sent yet is thrown away
    {1, 0}, on the TCP socket or said
    it does not read                   no more is read from TCP, whose window closes

    the peer                           the application's end
    close_notify                       can be read to its end; writing goes on
    FIN without close_notify           the same; asked how, the daemon says "truncated"
    a forged record, a fatal alert     is at its end in both directions; the daemon says which
    a reset, a timeout                 is at its end in both directions; the daemon says which
    it does not read                   no more is read from the pair, whose buffer fills

That an end was closed without a word shows as a hang-up that nobody announced, of a socket that nobody holds: shut down
in both directions it looks the same to poll(2), but some process has it still.

Memory: what one turn has read and the other side had no room for, in each direction; while there is such, nothing
more is read.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import socket
import struct
import time
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ssa.ktls.control import ABORT, aborts
from ssa.ktls.tcp import shows, unacknowledged, unread
from ssa.relay.channel import CLOSE_NOTIFY, TURN, Channel

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("ssa.relay")

TRUNCATED = "truncated"

_IN, _OUT, _EDGE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET
_GONE = select.EPOLLHUP | select.EPOLLERR
_QUIET = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MOST_UNSENT = 2 * TURN  # bytes: more are answers to a peer that sends and sends KeyUpdates, and reads nothing
_LEFTOVERS = 16  # turns of reading what nobody wants
_NOBODYS = bytearray(TURN)  # where that goes, of all threads: nobody looks at it

# struct tcp_info (include/uapi/linux/tcp.h): tcpi_bytes_received and tcpi_bytes_sent
_TCP_INFO = struct.Struct("=128xQ64xQ")


class Relay:
    """One connection. Whoever has it calls `serve` when one of its sockets is ready for what it wants of it."""

    __slots__ = (
        "_aborted",
        "_announced",
        "_channel",
        "_do",
        "_down",
        "_held",
        "_inner",
        "_keep_session",
        "_log",
        "_reading",
        "_received",
        "_sent",
        "_tcp",
        "_unsent",
        "_up",
        "_writing",
        "deadline",
        "ended",
        "over",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        channel: Channel,
        tcp: socket.socket,
        inner: socket.socket,
        held: Callable[[], bool],
        do: Callable[[Relay, Callable[[], None]], None],
        carried: tuple[int, int] = (0, 0),
        keep_session: Callable[[SSL.Connection], None] | None = None,
        log: logging.LoggerAdapter[logging.Logger] | logging.Logger = _log,
    ) -> None:
        """It owns both sockets. `held` tells whether any process has the application's end.

        `do` has something done in the thread that serves the connection; `carried` are the bytes of its handshake.
        """
        self._channel: Channel | None = channel  # None: there is nothing more to be said or heard
        self._tcp, self._inner = tcp, inner
        self._held = held
        self._do: Callable[[Relay, Callable[[], None]], None] | None = do
        self._keep_session = keep_session
        self._log = log
        self._up = self._down = b""  # for the peer, sealed; for the application
        self._writing = True  # the application may write: its data is taken
        self._reading = True  # the peer may write
        self._announced = False  # the application has said that its stream ends in order
        self._aborted = False  # the application has said that it aborts the connection
        self._sent, self._received = carried
        self._unsent = -1  # bytes, when it was looked at last
        self.over = False  # both sockets can be closed
        self.deadline: float | None = None  # on time.monotonic's clock, once the application has gone
        self.ended: str | None = None  # how the peer's stream has ended

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """The peer's and the application's."""
        return self._tcp, self._inner

    def tcp(self) -> socket.socket | None:
        """Another descriptor of the peer's socket, while there is one."""
        if self.over:
            return None
        return socket.socket(self._tcp.family, self._tcp.type, self._tcp.proto, os.dup(self._tcp.fileno()))

    def wanted(self) -> tuple[int, int]:
        """The events to wait for, of the peer's socket and of the application's.

        Hang-ups and errors can't be declined. Where nothing else is wanted they are to be told once.
        """
        if self._channel is None:
            return _IN, _EDGE
        tcp = (_IN if self._reading and not self._down and len(self._up) <= _MOST_UNSENT else 0) | (
            _OUT if self._up else 0
        )
        inner = (_IN if self._writing and not self._up else 0) | (_OUT if self._down else 0)
        return tcp or _EDGE, inner or _EDGE

    def counts(self) -> tuple[int, int]:
        """TCP's bytes, sent and received. The kernel is not asked: an application can make it wait with its answer."""
        return self._sent, self._received

    def announce_end(self, *, abort: bool = False) -> None:
        """The application says that what it has written is all, or that its close(2) is to `abort` the connection."""
        if abort:
            self._aborted = True
        else:
            self._announced = True

    # --- what happens -------------------------------------------------------------------------------------------

    def serve_peer(self, events: int) -> None:
        """The peer's socket is ready."""
        if self._channel is None:
            self._discard()
            return
        if events & (_OUT | _GONE):
            self._flush_up()
        if events & (_IN | _GONE) and self._reading and not self._down:
            self._read_peer_untrusted()

    def serve_application(self, events: int) -> None:
        """The application's end is ready."""
        if events & select.EPOLLHUP and self._is_aborted():
            self._reset()
            return
        if events & _OUT or (events & _GONE and self._down):
            self._flush_down()
        if events & (_IN | _GONE) and self._writing and not self._up:
            self._read_application_untrusted()
        if events & select.EPOLLHUP and self.deadline is None and self._channel is not None:
            self._hung_up()

    def _hung_up(self) -> None:
        """Nobody can read any more. What was written is sent yet, but nobody waits for it for ever."""
        self.deadline = time.monotonic() + _LINGER
        self._stop_reading()

    def give_up(self) -> None:
        """The peer does not take what is left, or does not end."""
        self._leave()
        self._finish()

    def abort(self, how: str) -> None:
        """End the connection at once, in the thread that serves it; one that is over may have none any more."""
        do = self._do
        if do is not None and not self.over:
            do(self, functools.partial(self._abort, how))

    def _abort(self, how: str) -> None:
        self._up = self._down = b""
        self._fail(how)
        self.give_up()

    # --- the application's data ---------------------------------------------------------------------------------

    def _read_application_untrusted(self) -> None:
        """Descriptors in the stream are closed by the kernel, here: if that takes long, it is their user's own time."""
        if self._channel is None:
            return
        try:
            size = self._inner.recv_into(self._channel.room.content, TURN, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # ECONNRESET: it was closed with something unread
            size = 0
        if size:
            self._send(size)
        else:
            self._end_writing()

    def _send(self, size: int) -> None:
        if self._channel is None:
            return
        if self._channel.records_left < TURN:  # as many could be in a turn, if each had a byte
            self._fail("EKEYEXPIRED")
            return
        try:
            sealed = self._channel.seal(size)
        except SSL.Error as exc:
            self._log.error("OpenSSL seals no more: %s", exc)
            self._fail("EPROTO")
        else:
            self._to_peer(sealed)

    def _end_writing(self) -> None:
        """The application's stream ends here: in order, or by its end."""
        self._writing = False
        # The announcement is looked at last. An application announces, and closes only then: looked at first, it
        # could be announced and closed between that look and the next.
        in_order = not shows(self._inner) or self._held() or self._announced
        if in_order and self._channel is not None:
            self._to_peer(self._channel.end())
        self._flush_up()

    def _to_peer(self, records: memoryview) -> None:
        if self._up:
            self._up += records
        else:
            self._send_up(records)

    def _send_up(self, records: bytes | memoryview) -> None:
        """Send as much as there is room for; the rest is kept."""
        sent = 0
        try:
            sent = self._tcp.send(records, _QUIET)
        except BlockingIOError:
            pass
        except OSError as exc:
            self._peer_refuses(exc)
            return
        self._sent += sent
        self._up = bytes(records[sent:])

    def _flush_up(self) -> None:
        if self._up:
            self._send_up(self._up)
        if self._up or self._writing or self._channel is None:
            return
        _shut_down(self._tcp, socket.SHUT_WR)
        if not self._reading and not self._down:
            self._leave()

    def _peer_refuses(self, exc: OSError) -> None:
        """The peer takes nothing more. What it has sent before is read yet: there can be a close_notify in it."""
        self._up = b""
        self._writing = False
        if self.ended is None and exc.errno != errno.EPIPE:
            self.ended = _name(exc)
        _shut_down(self._inner, socket.SHUT_RD)
        if not self._reading and not self._down:
            self._leave()

    # --- the peer's data ----------------------------------------------------------------------------------------

    def _read_peer_untrusted(self) -> None:
        if self._channel is None:
            return
        try:
            size = self._tcp.recv_into(self._channel.room.records, TURN, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as exc:
            self._fail(_name(exc))
            return
        if not size:
            self.ended = self.ended or TRUNCATED
            self._stop_reading()
            return
        self._received += size
        content, ended = self._channel.open_untrusted(size)
        if self._keep_session is not None:  # before the application can connect again: a ticket can come with data
            self._keep_session(self._channel.connection)
        if content:
            self._to_application(content)
        if said := self._channel.say():
            self._to_peer(said)
        if ended == CLOSE_NOTIFY:
            self.ended = ended
            self._stop_reading()
        elif ended:
            self._fail(ended)

    def _to_application(self, content: memoryview) -> None:
        try:
            sent = self._inner.send(content, _QUIET)
        except BlockingIOError:
            sent = 0
        except OSError:  # nobody reads any more
            return
        if sent < len(content):
            self._down = bytes(content[sent:])

    def _flush_down(self) -> None:
        try:
            self._down = self._down[self._inner.send(self._down, _QUIET) :]
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            self._down = b""
        if not self._down and not self._reading:
            self._stop_reading()

    def _stop_reading(self) -> None:
        """Nothing more comes for the application, behind what it has not read yet."""
        self._reading = False
        if self.deadline is not None:
            self._down = b""
        if self._down:
            return
        _shut_down(self._inner, socket.SHUT_WR)
        if not self._writing and not self._up:
            self._leave()

    # --- the end ------------------------------------------------------------------------------------------------

    def _fail(self, how: str) -> None:
        """The connection is at its end, in both directions."""
        _log.debug("a relayed connection ends: %s", how)
        self.ended = how
        self._writing = False
        _shut_down(self._inner, socket.SHUT_RD)
        self._flush_up()
        if self._channel is not None:
            self._stop_reading()

    def _leave(self) -> None:
        """Nothing more is to be said or heard. But what comes has to be read until the peer has all that we sent.

        The kernel resets a connection in which something comes for a socket that is closed, as a session ticket that
        was on its way, and what is in the send buffer then is lost.
        """
        if self._channel is None:
            return
        self._channel.close()
        self._channel, self._keep_session, self._up, self._down = None, None, b"", b""
        self._writing = self._reading = False
        _shut_down(self._inner, socket.SHUT_RDWR)
        _shut_down(self._tcp, socket.SHUT_WR)
        if self.deadline is None:
            self.deadline = time.monotonic() + _LINGER
        self._discard()

    def _discard(self) -> None:
        try:
            for _ in range(_LEFTOVERS):
                if not self._tcp.recv_into(_NOBODYS, TURN, socket.MSG_DONTWAIT):
                    break
            else:
                return  # others have their turn
        except BlockingIOError:
            if unacknowledged(self._tcp):
                return
        except OSError as exc:
            _log.debug("what was left of a connection: %s", exc.strerror)
        self._finish()

    def look(self, now: float) -> None:
        """Nobody tells that something was acknowledged: so it has to be looked at now and then.

        A slow peer is waited for as long as it takes something.
        """
        if self._channel is None:
            self._discard()
        if self.over or self.deadline is None:
            return
        try:
            unsent = unacknowledged(self._tcp) + len(self._up)
        except OSError as exc:  # the application has made a listener of it
            _log.debug("a relayed connection is none any more: %s", exc.strerror)
            self.give_up()
            return
        if unsent != self._unsent:
            self._unsent, self.deadline = unsent, now + _LINGER
        elif self.deadline < now:
            self.give_up()

    def _is_aborted(self) -> bool:
        """The application's end is hung up: whether it was closed, and as close(2) closes a TCP socket to reset it."""
        return (self._aborted or aborts(self._tcp)) and not self._held()

    def _reset(self) -> None:
        """Over, with a reset as the only word to the peer: the kernel sends it when the TCP socket is closed."""
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        if self._channel is not None:
            self._channel.close()
        self._channel, self._keep_session, self._up, self._down = None, None, b"", b""
        self._writing = self._reading = False
        self.over = True
        self._do = None

    def _finish(self) -> None:
        """Over: whoever has it closes the sockets. An application may keep its end for long: that keeps no thread's."""
        self.over = True
        self._do = None
        _shut_down(self._tcp, socket.SHUT_RDWR)


def bytes_carried(tcp: socket.socket) -> tuple[int, int]:
    """How many bytes TCP has sent so far, and how many of those that it has received were read. Raises OSError."""
    waiting = -1
    while waiting != (waiting := unread(tcp)):  # more can come between the two
        info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    if len(info) < _TCP_INFO.size:  # before Linux 4.19
        return 0, 0
    received, sent = _TCP_INFO.unpack(info)
    return sent, received - waiting


_LINGER = 60  # seconds, as the kernel gives a socket that was closed (net.ipv4.tcp_fin_timeout)


def _name(exc: OSError) -> str:
    return errno.errorcode.get(exc.errno or errno.EIO, "EIO")


def _shut_down(sock: socket.socket, how: int) -> None:
    """One whose other end has gone already is as good."""
    try:
        sock.shutdown(how)
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
