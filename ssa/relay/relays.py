"""All relayed connections of the daemon: one task, one epoll set, a turn for each that is ready.

A task for each direction would cost an idle connection more than OpenSSL does, and a busy one a switch of tasks for
every turn.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import select
import socket
import time
from typing import TYPE_CHECKING

import trio

from ssa.ktls.install import shut_down
from ssa.relay.channel import Channel
from ssa.relay.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL import SSL

    from ssa.suites import Suite

_log = logging.getLogger("ssa.relay")

_BATCH = 16  # turns in one go, before the rest of the daemon gets its own
_STINT = 0.001  # seconds until then in any case
_MOMENT = 0.001  # seconds: the shortest that epoll_wait(2) knows
_VAIN = 16  # times
_LOOK = 0.1  # seconds between looks at connections that wait for their peers only

# Options of the application's socket that hold for its end of the pair too, as that is what it calls on.
_CARRIED = ((socket.SO_RCVTIMEO, 16), (socket.SO_SNDTIMEO, 16), (socket.SO_RCVLOWAT, 4))


class Relays:
    """The connections, and what serves them."""

    def __init__(
        self,
        held: Callable[[int], bool],
        close_tcp: Callable[[socket.socket], None],
        close_pair: Callable[[socket.socket], None],
        close_elsewhere: Callable[[Callable[[], None]], None],
    ) -> None:
        """`held` tells of an inode whether some process has the socket; the others close without waiting for anybody.

        To close what others have opened, or have put into a queue, can take as long as they like.
        """
        self._held = held
        self._close_tcp = close_tcp
        self._close_pair = close_pair
        self._close_elsewhere = close_elsewhere
        self._epoll = select.epoll()
        self._by_fd: dict[int, tuple[Relay, bool]] = {}  # whether it is the peer's
        self._masks: dict[Relay, tuple[int, int]] = {}
        self._next_look = 0.0
        self._vain = 0  # how often nothing is waited for yet
        self._leaving: set[Relay] = set()  # that wait for their peers only

    def __len__(self) -> int:
        return len(self._by_fd) // 2

    def add(
        self,
        connection: SSL.Connection,
        suite: Suite,
        sock: socket.socket,
        keep_session: Callable[[SSL.Connection], None] | None = None,
    ) -> tuple[Relay, socket.socket]:
        """Relay a stream behind its handshake: the relay, and the application's end. `sock` is taken over.

        `keep_session` is called when the peer has sent something that is no data: session tickets, as a rule.
        """
        inner, outer = socket.socketpair()
        for option, size in _CARRIED:
            outer.setsockopt(socket.SOL_SOCKET, option, sock.getsockopt(socket.SOL_SOCKET, option, size))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        held = functools.partial(self._held, os.fstat(outer.fileno()).st_ino)
        relay = Relay(Channel(connection, suite), sock, inner, held, self.settle, keep_session)
        self._masks[relay] = relay.wanted()
        for fd, mask, is_peer in zip((sock.fileno(), inner.fileno()), relay.wanted(), (True, False), strict=True):
            self._by_fd[fd] = relay, is_peer
            self._epoll.register(fd, mask)
        return relay, outer

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            with trio.move_on_after(_LOOK if self._leaving else math.inf):
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            while self._take_turns():
                self._let_go_of_the_late()
                await trio.lowlevel.checkpoint()
            self._let_go_of_the_late()

    def _take_turns(self) -> bool:
        """Serve one after the other; whether others are ready still, or may be, when that has taken long enough."""
        until = time.monotonic() + _STINT
        while ready := self._ready():
            for fd, events in ready:
                if fd in self._by_fd:  # its connection can have ended by the event before
                    self._serve(*self._by_fd[fd], events)
            if time.monotonic() > until:
                return True
        return False

    def _ready(self) -> list[tuple[int, int]]:
        """What is ready now, or in a moment.

        A question is often followed by its answer at once, and to go round the daemon's event loop in between takes
        longer than both. So that moment is waited for, as long as it comes: a vain one is not repeated for a while,
        as the rest of the daemon waits too.
        """
        ready = self._epoll.poll(0 if self._vain else _MOMENT, _BATCH)
        if not ready:
            self._vain = self._vain - 1 if self._vain else _VAIN
        return ready

    def _serve(self, relay: Relay, is_peer: bool, events: int) -> None:  # noqa: FBT001 - as it is kept
        try:
            if is_peer:
                relay.serve_peer(events)
            else:
                for fd in relay.serve_application(events):
                    self._close_elsewhere(functools.partial(os.close, fd))
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            _log.exception("a fault of ssad's own: a relayed connection is ended")
            relay.give_up()
        self.settle(relay)

    def settle(self, relay: Relay) -> None:
        """Wait for what a connection wants now; let go of one that is over."""
        if relay.over:
            self._remove(relay)
            return
        if relay.deadline is not None:
            self._leaving.add(relay)
        wanted, masks = relay.wanted(), self._masks[relay]
        if wanted == masks:
            return
        self._masks[relay] = wanted
        for sock, mask, former in zip(relay.sockets(), wanted, masks, strict=True):
            if mask != former:
                self._epoll.modify(sock.fileno(), mask)

    def _remove(self, relay: Relay) -> None:
        tcp, inner = relay.sockets()
        self._leaving.discard(relay)
        if tcp.fileno() not in self._by_fd:
            return
        for sock in (tcp, inner):
            self._epoll.unregister(sock.fileno())
            del self._by_fd[sock.fileno()]
        del self._masks[relay]
        self._close_pair(inner)
        self._close_tcp(tcp)

    def _let_go_of_the_late(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + _LOOK
        for relay in list(self._leaving):
            relay.look(now)
            self.settle(relay)

    def close(self) -> None:
        """End what is left: applications and peers are told by the kernel, as when the daemon dies."""
        for relay, is_peer in list(self._by_fd.values()):
            if is_peer:
                tcp, inner = relay.sockets()
                shut_down(tcp)  # the application has a copy
                tcp.close()
                inner.close()
        self._by_fd.clear()
        self._epoll.close()
