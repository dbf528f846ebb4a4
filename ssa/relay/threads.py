"""A user's relayed connections: all in one thread, with one epoll set.

A thread, because to go round the daemon's event loop takes longer than to seal a question or open its answer. One for
each user, because an application has the TCP socket too and can make a call on it last as long as it likes: it makes
its own user's connections wait. Not one for each connection: an idle one would cost more than its OpenSSL does.

The threads read, write and shut down. To open sockets, to close and to remember them is the event loop's, so that a
descriptor's number that is looked at there is still what it was.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.ktls.control import shut_down
from ssa.relay.channel import Channel, Workspace
from ssa.relay.connection import Relay, bytes_carried

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from OpenSSL import SSL

    from ssa.handshake.session_cache import Harvest
    from ssa.suites import Suite

_BATCH = 16  # turns between two looks at what else there is to do
_LOOK = 0.1  # seconds between looks at connections that wait for their peers only

# Options of the application's socket that hold for its end of the pair too, as that is what it calls on.
_CARRIED = ((socket.SO_RCVTIMEO, 16), (socket.SO_SNDTIMEO, 16), (socket.SO_RCVLOWAT, 4))


class Relays:
    """One user's connections, and the thread that serves them. Its methods are for the event loop's thread."""

    def __init__(
        self,
        held: Callable[[int], bool],
        let_go: Callable[[Relay], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """`held` tells of an inode whether some process has the socket; it is called in any thread.

        `let_go` closes the sockets of a connection that is over. It must not wait: to close what others have opened can
        take as long as they like. `log` takes lines about this user's connections.
        """
        self._held = held
        self._let_go = let_go
        self._log = log
        self._thread: _Thread | None = None  # while there are connections
        self._token: trio.lowlevel.TrioToken | None = None

    def add(
        self, connection: SSL.Connection, suite: Suite, sock: socket.socket, harvest: Harvest | None = None
    ) -> tuple[Relay, socket.socket]:
        """Relay a stream behind its handshake: the relay, and the application's end. `sock` is taken over.

        `harvest` makes sessions of the tickets that come in it. Raises OSError, `ssa.SSAError` OVERLOADED.
        """
        inner, outer = socket.socketpair()
        for option, size in _CARRIED:
            outer.setsockopt(socket.SOL_SOCKET, option, sock.getsockopt(socket.SOL_SOCKET, option, size))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # a bare descriptor takes MSG_OOB: no byte is lost
        carried = bytes_carried(sock)
        thread = self._running()
        relay = Relay(
            Channel(connection, suite, thread.workspace),
            sock,
            inner,
            functools.partial(self._held, os.fstat(outer.fileno()).st_ino),
            thread.do,
            carried,
            None if harvest is None else functools.partial(self._keep_session, harvest),
            self._log,
        )
        thread.add(relay)
        return relay, outer

    def descriptors(self) -> int:
        """How many descriptors the connections take here, with those that the thread waits with."""
        return 0 if self._thread is None else 2 * (len(self._thread.relays) + 1)

    def _running(self) -> _Thread:
        if self._thread is None:
            self._token = trio.lowlevel.current_trio_token()
            thread = _Thread(
                functools.partial(self._on_the_loop, self._over),
                functools.partial(self._on_the_loop, self._ended),
                self._log,
            )
            try:
                thread.start()
            except RuntimeError as exc:  # there are too many
                thread.close()
                raise errors.error("OVERLOADED", str(exc)) from exc
            self._thread = thread
        return self._thread

    def _over(self, relay: Relay) -> None:
        self._let_go(relay)
        if (thread := self._thread) is not None:
            thread.relays.remove(relay)
            if not thread.relays:
                self._thread = None
                thread.stop()

    def _ended(self, thread: _Thread) -> None:
        thread.close()
        if self._thread is thread:  # unasked, by a fault
            self._thread = None
            for relay in thread.relays:
                relay.lose()
                self._let_go(relay)

    def _keep_session(self, harvest: Harvest, connection: SSL.Connection) -> None:
        if (session := harvest.glean(connection)) is not None:
            self._on_the_loop(harvest.keep, session)

    def _on_the_loop(self, do: Callable[..., object], *arguments: object) -> None:
        """Called in the threads: leave it to the event loop."""
        if (token := self._token) is not None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._guarded, do, *arguments)

    def _guarded(self, do: Callable[..., object], *arguments: object) -> None:
        """What such a call raises would be the end of trio, and of the daemon."""
        try:
            do(*arguments)
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            self._log.exception("a fault of ssad's own")

    def stop(self) -> None:
        """Have the thread end: applications and peers are told by the kernel, as when the daemon dies."""
        if self._thread is not None:
            self._thread.stop()

    def close(self, deadline: float) -> None:
        """Let go of what is left, behind `stop` and once there is no event loop; `deadline` is on time.monotonic."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.join(max(0, deadline - time.monotonic()))
        if not thread.is_alive():
            thread.close()
            for relay in thread.relays:
                self._let_go(relay)


class _Thread(threading.Thread):
    """One user's connections: a turn for each that is ready."""

    def __init__(
        self,
        over: Callable[[Relay], None],
        ended: Callable[[_Thread], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """`over` is called with a connection whose sockets can be closed, `ended` when the thread is at its end."""
        super().__init__(name="relay", daemon=True)
        self.relays: set[Relay] = set()  # the event loop's: those whose sockets are open
        self.workspace = Workspace()
        self._log = log
        self._over = over
        self._ended = ended
        self._stopped = False
        self._jobs: deque[tuple[Relay, Callable[[], None]]] = deque()
        self._by_fd: dict[int, tuple[Relay, Callable[[int], None]]] = {}
        self._masks: dict[Relay, tuple[int, int]] = {}
        self._leaving: set[Relay] = set()  # that wait for their peers only
        self._next_look = 0.0
        self._epoll = select.epoll()
        try:
            self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            self._epoll.close()
            raise
        self._epoll.register(self._bell, select.EPOLLIN)

    # --- called by the event loop ---------------------------------------------------------------------------------

    def add(self, relay: Relay) -> None:
        """Serve one more."""
        self.relays.add(relay)
        self.do(relay, functools.partial(self._register, relay))

    def do(self, relay: Relay, job: Callable[[], None]) -> None:
        """Have something done about a connection, between two events of it."""
        self._jobs.append((relay, job))
        os.eventfd_write(self._bell, 1)

    def stop(self) -> None:
        """Have it end."""
        self._stopped = True
        os.eventfd_write(self._bell, 1)

    def close(self) -> None:
        """Give back what it waited with, once it has ended."""
        self._epoll.close()
        os.close(self._bell)

    # --- in the thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stopped. Peers of what is left then are told: the application has a copy of its TCP socket."""
        try:
            while not self._stopped:
                self._take_turns()
        except Exception:  # noqa: BLE001 - logged whole, and the other users are served on
            self._log.exception("a fault of ssad's own: a user's relayed connections are ended")
        for relay in list(self.relays):
            shut_down(relay.sockets()[0])
        self._ended(self)

    def _take_turns(self) -> None:
        rung = False
        for fd, events in self._epoll.poll(_LOOK if self._leaving else None, _BATCH):
            if fd in self._by_fd:  # its connection can have ended by the event before
                relay, serve = self._by_fd[fd]
                self._attend(relay, serve, events)
            rung = rung or fd == self._bell
        if rung:  # behind the events: a connection that is new can have the numbers of one that they were of
            os.eventfd_read(self._bell)
            while self._jobs:
                self._attend(*self._jobs.popleft())
        if self._leaving:
            self._look_at_the_leaving()

    def _look_at_the_leaving(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK
            for relay in list(self._leaving):
                self._attend(relay, relay.look, now)

    def _attend(self, relay: Relay, do: Callable[..., None], *arguments: object) -> None:
        """Do what is due for a connection, then wait for what it wants, or let go of it."""
        try:
            if not relay.over:
                do(*arguments)
            if not relay.over:
                self._settle(relay)
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            self._log.exception("a fault of ssad's own: a relayed connection is ended")
            with contextlib.suppress(OSError):
                relay.give_up()
            relay.lose()
        if relay.over:
            self._remove(relay)

    def _register(self, relay: Relay) -> None:
        tcp, inner = relay.sockets()
        self._masks[relay] = peers, applications = relay.wanted()
        self._watch(tcp, peers, relay, relay.serve_peer)
        self._watch(inner, applications, relay, relay.serve_application)

    def _watch(self, sock: socket.socket, mask: int, relay: Relay, serve: Callable[[int], None]) -> None:
        self._epoll.register(sock.fileno(), mask)
        self._by_fd[sock.fileno()] = relay, serve

    def _settle(self, relay: Relay) -> None:
        if relay.deadline is not None:
            self._leaving.add(relay)
        wanted, formerly = relay.wanted(), self._masks[relay]
        if wanted == formerly:
            return
        for sock, mask, former in zip(relay.sockets(), wanted, formerly, strict=True):
            if mask != former:
                self._epoll.modify(sock.fileno(), mask)
        self._masks[relay] = wanted

    def _remove(self, relay: Relay) -> None:
        if self._masks.pop(relay, None) is None:
            return  # it has been over before
        self._leaving.discard(relay)
        for sock in relay.sockets():
            if self._by_fd.pop(sock.fileno(), None) is not None:
                self._epoll.unregister(sock.fileno())
        self._over(relay)
