"""A user's relayed connections: all in one thread, with one epoll set.

Why a thread: one round of the daemon's event loop takes longer than to seal a question or open its answer. Why one for
each user: an application has the TCP socket too, and can make a call on it last as long as it likes; so it delays its
own user's connections alone. Why not one for each connection: an idle thread costs more memory than OpenSSL does.

The thread reads, writes and shuts down. The event loop opens, remembers and closes the sockets, so that a descriptor's
number does not change its meaning while the event loop looks at it.
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
from ssa.ktls.tcp import bytes_carried
from ssa.relay.channel import Channel, Workspace
from ssa.relay.connection import Relay

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from OpenSSL import SSL

    from ssa.handshake.session_cache import Harvest
    from ssa.relay.early import EarlyPair
    from ssa.suites import Suite

_BATCH = 16  # turns, before the thread looks at its jobs
_LOOK = 0.1  # seconds between looks at connections whose application has gone
_IDLE = 5  # seconds that a thread without connections waits for the next one: to start one costs 0.2 ms

# The application's calls go to its end of the pair from now on. So these options of its socket are set there.
_CARRIED = ((socket.SO_RCVTIMEO, 16), (socket.SO_SNDTIMEO, 16), (socket.SO_RCVLOWAT, 4))


class Relays:
    """One user's connections, and the thread that serves them. Its methods are for the event loop's thread."""

    def __init__(
        self,
        held: Callable[[int], bool],
        let_go: Callable[[Relay], None],
        log: logging.LoggerAdapter[logging.Logger],
        running: set[Relays],
    ) -> None:
        """`held` returns whether some process has the socket of that inode. It is called in any thread.

        `let_go` closes the sockets of a connection that is over. It must not wait, as close(2) may. `log` takes lines
        about this user's connections. This object is in `running` while there is a thread.
        """
        self._held = held
        self._let_go = let_go
        self._log = log
        self._running = running
        self._thread: _Thread | None = None  # while there are connections, and for a few seconds after the last one
        self._token: trio.lowlevel.TrioToken | None = None

    def add(
        self,
        connection: SSL.Connection,
        suite: Suite,
        sock: socket.socket,
        harvest: Harvest | None = None,
        early: EarlyPair | None = None,
    ) -> tuple[Relay, socket.socket]:
        """Relay a stream after its handshake. Returns the relay, which owns `sock` now, and the application's end.

        Nothing that the peer sends is read before `begin`. `harvest` makes sessions of the tickets that come then.
        `early` is a pair whose one end the application has already. Raises OSError, `ssa.SSAError` OVERLOADED.
        """
        inner, outer = (early.inner, early.outer) if early else socket.socketpair()
        for option, size in () if early else _CARRIED:
            outer.setsockopt(socket.SOL_SOCKET, option, sock.getsockopt(socket.SOL_SOCKET, option, size))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        inner.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # a bare descriptor takes MSG_OOB: no byte is lost
        carried = bytes_carried(sock)
        thread = self._serving()
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
        if early:
            early.open()
            early.taken = True
        thread.add(relay)
        return relay, outer

    def begin(self, relay: Relay) -> None:
        """Read what the peer sends, from now on: nobody else uses the OpenSSL connection any more."""
        if (thread := self._thread) is not None:
            thread.begin(relay)

    def descriptors(self) -> int:
        """The number of descriptors that the connections take in the daemon, with those that the thread waits by."""
        return 0 if self._thread is None else 2 * (len(self._thread.relays) + 1)

    def _serving(self) -> _Thread:
        if self._thread is None:
            self._token = trio.lowlevel.current_trio_token()
            thread = _Thread(
                functools.partial(self._on_the_loop, self._over),
                functools.partial(self._on_the_loop, self._idle),
                functools.partial(self._on_the_loop, self._ended),
                self._log,
            )
            try:
                thread.start()
            except RuntimeError as exc:  # there are too many
                thread.close()
                raise errors.error("OVERLOADED", str(exc)) from exc
            self._thread = thread
            self._running.add(self)
        return self._thread

    def _forget_thread(self) -> None:
        self._thread = None
        self._running.discard(self)

    def _over(self, relay: Relay) -> None:
        self._let_go(relay)
        if (thread := self._thread) is not None:
            thread.relays.remove(relay)

    def _idle(self, thread: _Thread) -> None:
        """A thread has had no connection for a while: end it, unless it has got one meanwhile."""
        if self._thread is thread and not thread.relays:
            self._forget_thread()
            thread.stop()

    def _ended(self, thread: _Thread) -> None:
        thread.close()
        if self._thread is thread:  # it was not asked to end: a fault
            self._forget_thread()
            for relay in thread.relays:
                relay.lose()
                self._let_go(relay)

    def _keep_session(self, harvest: Harvest, connection: SSL.Connection) -> None:
        if (session := harvest.glean(connection)) is not None:
            self._on_the_loop(harvest.keep, session)

    def _on_the_loop(self, do: Callable[..., object], *arguments: object) -> None:
        """Called in the thread: have the event loop do it."""
        if (token := self._token) is not None:
            with contextlib.suppress(trio.RunFinishedError):
                token.run_sync_soon(self._guarded, do, *arguments)

    def _guarded(self, do: Callable[..., object], *arguments: object) -> None:
        """Do it and catch everything: an exception would end trio, and the daemon."""
        try:
            do(*arguments)
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            self._log.exception("a fault of ssad's own")

    def stop(self) -> None:
        """Ask the thread to end. The kernel tells applications and peers, as it does when the daemon dies."""
        if self._thread is not None:
            self._thread.stop()

    def close(self, deadline: float) -> None:
        """Close what is left after `stop`, once there is no event loop. `deadline` is on time.monotonic's clock."""
        if (thread := self._thread) is None:
            return
        self._forget_thread()
        thread.join(max(0, deadline - time.monotonic()))
        if not thread.is_alive():
            thread.close()
            for relay in thread.relays:
                self._let_go(relay)


class _Thread(threading.Thread):
    """Serves one user's connections: a turn for each that is ready."""

    def __init__(
        self,
        over: Callable[[Relay], None],
        idle: Callable[[_Thread], None],
        ended: Callable[[_Thread], None],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """`over` is called with each connection whose sockets can be closed.

        `idle` is called when the thread has had no connection for a while, `ended` when it ends.
        """
        super().__init__(name="relay", daemon=True)
        self.relays: set[Relay] = set()  # those whose sockets are open; the event loop changes it
        self.workspace = Workspace()
        self._log = log
        self._over = over
        self._idle = idle
        self._ended = ended
        self._stopped = False
        self._jobs: deque[tuple[Relay, Callable[[], None]]] = deque()
        self._by_fd: dict[int, tuple[Relay, Callable[[int], None]]] = {}
        self._masks: dict[Relay, tuple[int, int]] = {}
        self._leaving: set[Relay] = set()  # whose application has gone
        self._next_look = 0.0
        self._epoll = select.epoll()
        try:
            self._wakeup = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        except OSError:
            self._epoll.close()
            raise
        self._epoll.register(self._wakeup, select.EPOLLIN)

    # --- called by the event loop ---------------------------------------------------------------------------------

    def add(self, relay: Relay) -> None:
        """Serve one more connection: the application's end of it. Raises OSError."""
        _, inner = relay.sockets()
        self._masks[relay] = wanted = relay.wanted()
        try:
            self._watch(inner, wanted[1], relay, relay.serve_application)
        except OSError:
            del self._masks[relay]
            raise
        self.relays.add(relay)

    def begin(self, relay: Relay) -> None:
        """Serve the peer's socket of it, too. Where there is no memory for that, the connection is ended."""
        tcp, _ = relay.sockets()
        try:
            self._watch(tcp, relay.wanted()[0], relay, relay.serve_peer)
        except OSError as exc:
            self._log.error("a connection cannot be relayed: %s", exc.strerror)
            self.do(relay, relay.give_up)

    def do(self, relay: Relay, job: Callable[[], None]) -> None:
        """Have the thread do a job for a connection, between two events of it."""
        self._jobs.append((relay, job))
        os.eventfd_write(self._wakeup, 1)

    def stop(self) -> None:
        """Ask the thread to end."""
        self._stopped = True
        os.eventfd_write(self._wakeup, 1)

    def close(self) -> None:
        """Close the thread's own descriptors, once it has ended."""
        self._epoll.close()
        os.close(self._wakeup)

    # --- in the thread --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until stopped. Then shut down what is left: the applications have copies of the TCP sockets."""
        try:
            while not self._stopped:
                self._take_turns()
        except Exception:  # noqa: BLE001 - logged whole, and the other users are served on
            self._log.exception("a fault of ssad's own: a user's relayed connections are ended")
        for relay in list(self.relays):
            shut_down(relay.sockets()[0])
        self._ended(self)

    def _take_turns(self) -> None:
        happened = self._epoll.poll(self._patience(), _BATCH)
        if not (happened or self._masks):
            self._idle(self)
        # All are looked up at once: what a step ends is closed, and a new connection can get its number.
        ready = [(self._by_fd.get(fd), events) for fd, events in happened]
        for known, events in ready:
            if known is not None:
                self._step(*known, events)
        if (None, select.EPOLLIN) in ready:
            os.eventfd_read(self._wakeup)
            while self._jobs:
                self._step(*self._jobs.popleft())
        if self._leaving:
            self._look_at_leaving()

    def _patience(self) -> float | None:
        """How many seconds to wait for events; None for ever."""
        if self._masks:
            return _LOOK if self._leaving else None
        return _IDLE

    def _look_at_leaving(self) -> None:
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK
            for relay in list(self._leaving):
                self._step(relay, relay.look, now)

    def _step(self, relay: Relay, do: Callable[..., None], *arguments: object) -> None:
        """Call `do` for a connection. Then wait for the events that it wants, or remove it if it is over."""
        try:
            if not relay.over:
                do(*arguments)
            if not relay.over:
                self._update_events(relay)
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            self._log.exception("a fault of ssad's own: a relayed connection is ended")
            with contextlib.suppress(OSError):
                relay.give_up()
            relay.lose()
        if relay.over:
            self._remove(relay)

    def _watch(self, sock: socket.socket, mask: int, relay: Relay, serve: Callable[[int], None]) -> None:
        fd = sock.fileno()
        self._by_fd[fd] = relay, serve  # first: the thread may be told of an event at once
        try:
            self._epoll.register(fd, mask)
        except OSError:
            del self._by_fd[fd]
            raise

    def _update_events(self, relay: Relay) -> None:
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
