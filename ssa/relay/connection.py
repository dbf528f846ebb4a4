"""One relayed connection: between the peer's TCP socket and our end of the application's pair.

`ssa.relay.states` has the tables of its states. This module reads and writes the sockets as the tables say.

poll(2) shows a hang-up both where the application's end was closed and where it was shut down in both directions. So
the relay asks whether any process still has it. An application that closes tells the daemon before (`announce_end`).
Where nobody has told and nobody has the end, the application has crashed, or did not end its stream.

Memory: what one turn has read and the other side had no room for, in each direction.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import select
import socket
import time
from typing import TYPE_CHECKING

from OpenSSL import SSL

from ssa.ktls.control import ABORT, aborts
from ssa.ktls.tcp import shows, unacknowledged
from ssa.protocol.attributes import CLOSE_NOTIFY, TRUNCATED
from ssa.relay.channel import TURN, Channel
from ssa.relay.states import EFFECTS, End, Event, Flow, Phase, Pipe, Step, follow

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger("ssa.relay")

_IN, _OUT, _EDGE = select.EPOLLIN, select.EPOLLOUT, select.EPOLLET
_GONE = select.EPOLLHUP | select.EPOLLERR
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
_MOST_UNSENT = 2 * TURN  # bytes: a peer could send KeyUpdates for ever, and not read the answers
_LEFTOVERS = 16  # turns of reading what nobody wants
_DISCARDED = bytearray(TURN)  # all threads write to it, nobody reads it
_LINGER = 60  # seconds, as the kernel gives a socket that was closed (net.ipv4.tcp_fin_timeout)


class Relay:
    """One relayed connection. Its thread calls `serve_peer` and `serve_application` when the socket is ready."""

    __slots__ = (
        "_aborted",
        "_announced",
        "_channel",
        "_do",
        "_down",
        "_half",
        "_held",
        "_inner",
        "_keep_session",
        "_log",
        "_received",
        "_sent",
        "_tcp",
        "_unsent",
        "_up",
        "deadline",
        "ended",
        "phase",
        "told",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - a connection is made of its OpenSSL, two sockets, and what others do for it
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
        """It owns both sockets. `held` returns whether any process has the application's end.

        `do` runs a job in the thread that serves the connection. `carried` are the bytes of its handshake, sent and
        received. `keep_session` is called when a session ticket may have come.
        """
        self._channel = channel  # while it is RELAYING
        self._tcp, self._inner = tcp, inner
        self._held = held
        self._do: Callable[[Relay, Callable[[], None]], None] | None = do
        self._keep_session = keep_session
        self._log = log
        self._up = Pipe()  # from the application to the peer; it keeps sealed records
        self._down = Pipe()  # from the peer to the application
        self._announced = False  # the application has said that its stream ends in order
        self._half = False  # no FIN goes behind our close_notify before the application has gone
        self._aborted = False  # the application has said that it aborts the connection
        self._sent, self._received = carried
        self._unsent = -1  # bytes, when it was looked at last
        self.phase = Phase.RELAYING
        self.deadline: float | None = None  # on time.monotonic's clock, once the application has gone
        self.ended: str | None = None  # how the peer's stream has ended
        self.told = False  # the TCP connection is shut down both ways: close(2) tells the peer nothing new

    @property
    def over(self) -> bool:
        """True where both sockets can be closed."""
        return self.phase is Phase.OVER

    def sockets(self) -> tuple[socket.socket, socket.socket]:
        """The peer's socket, and our end of the application's pair."""
        return self._tcp, self._inner

    def tcp(self) -> socket.socket | None:
        """A new descriptor of the peer's socket; None once the connection is over."""
        if self.over:
            return None
        return socket.socket(self._tcp.family, self._tcp.type, self._tcp.proto, os.dup(self._tcp.fileno()))

    def wanted(self) -> tuple[int, int]:
        """The events to wait for, of the peer's socket and of the application's.

        epoll(7) tells hang-ups and errors in any case. Where nothing else is wanted, EPOLLET has them told once.
        """
        if self.phase is not Phase.RELAYING:
            return _IN, _EDGE
        up, down = self._up, self._down
        tcp = (_IN if down.flow is Flow.OPEN and len(up.kept) <= _MOST_UNSENT else 0) | (_OUT if up.kept else 0)
        inner = (_IN if up.flow is Flow.OPEN else 0) | (_OUT if down.kept else 0)
        return tcp or _EDGE, inner or _EDGE

    def counts(self) -> tuple[int, int]:
        """TCP's bytes, sent and received. They are counted here, as an application can make getsockopt(2) wait."""
        return self._sent, self._received

    def announce_end(self, *, abort: bool = False, half: bool = False) -> None:
        """The application has said that it has written all, or that its close(2) is to `abort` the connection.

        `half`: it is about to end its writing, and goes on reading: the FIN comes when it has gone.
        """
        if half:
            self._half = True
        elif abort:
            self._aborted = True
        else:
            self._announced = True

    # --- what happens -------------------------------------------------------------------------------------------

    def serve_peer(self, events: int) -> None:
        """The peer's socket is ready."""
        if self.phase is not Phase.RELAYING:
            self._discard()
            return
        if events & (_OUT | _GONE):
            self._flush_up()
        if events & (_IN | _GONE) and self._down.flow is Flow.OPEN:
            self._read_peer_untrusted()

    def serve_application(self, events: int) -> None:
        """The application's end is ready."""
        if events & select.EPOLLHUP and self._is_aborted():
            self._reset()
            return
        if events & _OUT or (events & _GONE and self._down.kept):
            self._flush_down()
        if events & (_IN | _GONE) and self._up.flow is Flow.OPEN:
            self._read_application_untrusted()
        if events & select.EPOLLHUP and self.deadline is None and self.phase is Phase.RELAYING:
            self._end_half()
            # What was written is sent yet, but nobody waits for it for ever.
            self.deadline = time.monotonic() + _LINGER
            self._ends(End.UNREAD)

    def give_up(self) -> None:
        """End without waiting any longer: the peer does not take what is left, or does not end."""
        self._leave()
        if self.phase is Phase.LEAVING:
            self._finish()

    def lose(self) -> None:
        """Count the connection as over, after a fault of ssa's own."""
        self.phase = follow(self.phase, Step.LOSE)

    def abort(self, how: str) -> None:
        """End the connection at once, in its thread. One that is over may have no thread, and stays as it is."""
        do = self._do
        if do is not None and not self.over:
            do(self, functools.partial(self._abort, how))

    def _abort(self, how: str) -> None:
        self._ends(End.STOPPED, how)
        self.give_up()

    def _ends(self, end: End, how: str = "") -> None:
        """Do what the table says for an end. `how` is what the daemon answers when it is asked how the stream ended."""
        effect = EFFECTS[end]
        if how:
            self.ended = how if effect.final else self.ended or how
        if effect.close_notify and self.phase is Phase.RELAYING:
            self._to_peer(self._channel.end())
        if effect.writing_fails:
            self._log.debug("a relayed connection ends: %s", self.ended)
            _shut_down(self._inner, socket.SHUT_RD)
        if effect.up is not None:
            self._moved_up(ended=self._up.move(effect.up))
        if effect.down is not None:
            self._moved_down(ended=self._down.move(effect.down))

    def _end_half(self) -> None:
        if self._half and self._up.flow is Flow.SHUT:
            _shut_down(self._tcp, socket.SHUT_WR)
        self._half = False

    def _moved_up(self, *, ended: bool) -> None:
        if ended:
            if not self._half:
                _shut_down(self._tcp, socket.SHUT_WR)
            self._leave_where_both_have_ended()

    def _moved_down(self, *, ended: bool) -> None:
        if ended:
            _shut_down(self._inner, socket.SHUT_WR)
            self._leave_where_both_have_ended()

    def _leave_where_both_have_ended(self) -> None:
        if self.phase is Phase.RELAYING and self._up.flow is self._down.flow is Flow.SHUT:
            self._leave()

    # --- from the application to the peer -----------------------------------------------------------------------

    def _read_application_untrusted(self) -> None:
        """Read from the application. The kernel closes descriptors in the stream here: only their user waits."""
        try:
            size = self._inner.recv_into(self._channel.room.content, TURN, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:  # ECONNRESET: it was closed with something unread
            size = 0
        if size:
            self._seal(size)
        else:
            self._ends(self._how_writing_ended())

    def _how_writing_ended(self) -> End:
        if not shows(self._inner) or self._held():
            return End.SHUT
        # The announcement is looked at last. An application announces, and closes only then: looked at first, it
        # could be announced and closed between that look and the next.
        return End.CLOSED if self._announced else End.CRASHED

    def _seal(self, size: int) -> None:
        if self._channel.records_left < TURN:  # as many could be in a turn, if each had a byte
            self._ends(End.BROKEN, "EKEYEXPIRED")
            return
        try:
            sealed = self._channel.seal(size)
        except SSL.Error as exc:
            self._log.error("a relayed connection ends: OpenSSL could not encrypt a record: %s", exc)
            self._ends(End.BROKEN, "EPROTO")
        else:
            self._to_peer(sealed)

    def _to_peer(self, records: memoryview) -> None:
        if self._up.kept:
            self._up.keep(self._up.kept + records)
        elif self._up.flow is not Flow.SHUT:
            self._send_up(records)

    def _flush_up(self) -> None:
        if self._up.kept:
            self._send_up(self._up.kept)

    def _send_up(self, records: bytes | memoryview) -> None:
        """Send as much as there is room for; the rest is kept."""
        sent = 0
        try:
            sent = self._tcp.send(records, _SEND_FLAGS)
        except BlockingIOError:
            pass
        except OSError as exc:
            # Reading goes on: the peer may have sent a close_notify before.
            self._ends(End.WRITE_FAILED, "" if exc.errno == errno.EPIPE else _name(exc))
            return
        self._sent += sent
        if self._up.kept or sent < len(records):
            self._moved_up(ended=self._up.keep(bytes(records[sent:])))

    # --- from the peer to the application -----------------------------------------------------------------------

    def _read_peer_untrusted(self) -> None:
        try:
            size = self._tcp.recv_into(self._channel.room.records, TURN, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError as exc:
            self._ends(End.BROKEN, _name(exc))
            return
        if not size:
            self._ends(End.FIN, TRUNCATED)
            return
        self._received += size
        content, ended = self._channel.open_untrusted(size)
        if self._keep_session is not None:  # before the application gets the data, and can connect again
            self._keep_session(self._channel.connection)
        if content:
            self._to_application(content)
        if pending := self._channel.take_pending():
            self._to_peer(pending)
        if ended:
            self._ends(End.CLOSE_NOTIFY if ended == CLOSE_NOTIFY else End.BROKEN, ended)

    def _to_application(self, content: memoryview) -> None:
        try:
            sent = self._inner.send(content, _SEND_FLAGS)
        except BlockingIOError:
            sent = 0
        except OSError:  # nobody reads any more
            return
        if sent < len(content):
            self._down.keep(bytes(content[sent:]))

    def _flush_down(self) -> None:
        if not self._down.kept:
            return
        try:
            rest = self._down.kept[self._inner.send(self._down.kept, _SEND_FLAGS) :]
        except BlockingIOError:
            return
        except OSError:  # nobody reads any more
            rest = b""
        self._moved_down(ended=self._down.keep(rest))

    # --- the end ------------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Go to LEAVING, as both directions have ended: discard what comes, until the peer has acknowledged all.

        The kernel resets a connection if something comes for a socket that is closed, such as a late session ticket,
        and throws away what is in its send buffer.
        """
        if self.phase is not Phase.RELAYING:
            return
        self._let_go(Step.LEAVE)
        _shut_down(self._inner, socket.SHUT_RDWR)
        _shut_down(self._tcp, socket.SHUT_WR)
        if self.deadline is None:
            self.deadline = time.monotonic() + _LINGER
        self._discard()

    def _let_go(self, step: Step) -> None:
        """Free OpenSSL's connection, and go to the next phase."""
        if self.phase is Phase.RELAYING:
            self._channel.close()
            del self._channel  # with all its memory: an application may keep its end for long
        self.phase = follow(self.phase, step)
        self._keep_session = None
        self._up.move(Event.CUT)
        self._down.move(Event.CUT)

    def _discard(self) -> None:
        try:
            for _ in range(_LEFTOVERS):
                if not self._tcp.recv_into(_DISCARDED, TURN, socket.MSG_DONTWAIT):
                    break
            else:
                return  # others have their turn
        except BlockingIOError:
            if unacknowledged(self._tcp):
                return
        except OSError as exc:
            self._log.debug("what was left of a connection: %s", exc.strerror)
        self._finish()

    def look(self, now: float) -> None:
        """Look at how much the peer has acknowledged, as no event tells it.

        A slow peer is waited for as long as it takes something.
        """
        if self.phase is Phase.LEAVING:
            self._discard()
        if self.over or self.deadline is None:
            return
        try:
            unsent = unacknowledged(self._tcp) + len(self._up.kept)
        except OSError as exc:  # the application has made a listener of it
            self._log.debug("a relayed connection is none any more: %s", exc.strerror)
            self.give_up()
            return
        if unsent != self._unsent:
            self._unsent, self.deadline = unsent, now + _LINGER
        elif self.deadline < now:
            self.give_up()

    def _is_aborted(self) -> bool:
        """True where the application's end, which is hung up, was closed, and close(2) is to reset the connection."""
        return (self._aborted or aborts(self._tcp)) and not self._held()

    def _reset(self) -> None:
        """End the connection. The kernel sends the peer a reset when the TCP socket is closed."""
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self._let_go(Step.RESET)
        self._do = None

    def _finish(self) -> None:
        """End the connection: its sockets can be closed. Drop the thread, as others may keep this object for long."""
        self.phase = follow(self.phase, Step.FINISH)
        self._do = None
        _shut_down(self._tcp, socket.SHUT_RDWR)
        self.told = True


def _name(exc: OSError) -> str:
    return errno.errorcode.get(exc.errno or errno.EIO, "EIO")


def _shut_down(sock: socket.socket, how: int) -> None:
    """Call shutdown(2). An error, as the other end has gone already, is ignored."""
    try:
        sock.shutdown(how)
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
