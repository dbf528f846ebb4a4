"""One user: threads, descriptors, sessions. Functions get it as an argument; nothing of it is global."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ssa import errors
from ssa.handshake.contexts import ContextCache
from ssa.handshake.session_cache import SessionCache
from ssa.handshake.tickets import TicketMemory
from ssa.logfmt import charged
from ssa.relay import Relays
from ssa.worker.anchors import Anchors
from ssa.worker.closing import Closers
from ssa.worker.hang_ups import HangUps
from ssa.worker.lingering_close import LingeringCloses
from ssa.worker.quota import Crowd, Quota, Table, Threads
from ssa.worker.watching import Watching

if TYPE_CHECKING:
    from OpenSSL import SSL

    from ssa.ktls.probe import Capabilities
    from ssa.policy.schema import Policy
    from ssa.relay import Relay
    from ssa.worker.monitor import Monitor

NOBODY = -1  # the uid of work that is no user's
_RELAYED = 2  # descriptors of a relayed socket


class Process:
    """The things that all users of a process share: its descriptors, the threads that close them, caches.

    Args:
        size: how many descriptors the process may have.
        own: how many of them it needs for itself.
    """

    def __init__(self, size: int, own: int) -> None:
        self.table = Table(size, own, self._counted_elsewhere)
        self.relaying: set[Relays] = set()  # of users who have relayed connections
        self.closers = Closers()
        self.contexts = ContextCache(_keep_secret)
        self.anchors = Anchors()
        self.hang_ups = HangUps()
        self.nobody = self.closers.of(NOBODY)  # closes what is no user's

    def _counted_elsewhere(self) -> int:
        return self.closers.open(None) + sum(relays.descriptors() for relays in self.relaying)

    async def run(self) -> None:
        """Run the task that all users share, which notices hang-ups, until cancelled."""
        await self.hang_ups.watch()

    def close(self) -> None:
        """Close the epoll set of the hang-ups."""
        self.hang_ups.close()


def _keep_secret(connection: SSL.Connection, line: bytes) -> None:
    connection.get_app_data().secrets.add(line)


class User:
    """One user.

    Args:
        uid: the user's number.
        limit: how many descriptors the user may have.
        monitor: the daemon.
        process: what this user shares with the others of the process.
    """

    def __init__(self, uid: int, limit: int, monitor: Monitor, process: Process) -> None:
        self.uid = uid
        self.monitor = monitor
        self.log = charged(logging.getLogger("ssa.daemon"), uid)
        self.threads = Threads()
        self.closer = process.closers.of(uid)
        log = charged(logging.getLogger("ssa.relay"), uid)
        self.process = process
        self.watching = Watching(monitor)
        self.relays = Relays(self.watching.has_hung_up, self._let_go, log, process.relaying)
        self.quota = Quota(process.table, uid, limit, self._counted_elsewhere)
        self.crowd = Crowd(max(1, limit // 2))
        self.ready = 0  # connections of listeners that the application has not taken
        self.sessions = SessionCache()
        self.tickets = TicketMemory()
        self.lingering = LingeringCloses(self.threads.linger, self.quota, self.closer, self.log)
        self.contexts, self.anchors, self.hang_ups = process.contexts, process.anchors, process.hang_ups

    def _counted_elsewhere(self) -> int:
        return self.relays.descriptors() + self.closer.open()

    def _let_go(self, relay: Relay) -> None:
        tcp, inner = relay.sockets()
        self.closer.hang_up(inner)
        if relay.told:
            self.closer.drop_soon(tcp)
        else:
            self.closer.drop(tcp)

    def kernel_tls(self, policy: Policy) -> Capabilities:
        """The kernel's TLS features.

        Raises `ssa.SSAError` NO_KERNEL_TLS where it can do nothing and the policy's data_path allows nothing else.
        """
        found = self.monitor.capabilities()
        if policy.data_path == "ktls" and not found.tls:
            raise errors.error("NO_KERNEL_TLS", found.reason)
        return found

    async def fresh_kernel(self, policy: Policy) -> Capabilities:
        """The kernel's TLS features, which it may have got since the last look. Raises as `kernel_tls` does."""
        await self.monitor.fresh_capabilities(urgent=policy.data_path == "ktls")
        return self.kernel_tls(policy)

    def check_room(self) -> None:
        """Raise `ssa.SSAError` OVERLOADED where the user has as many relayed sockets as one may."""
        self.quota.check(_RELAYED)

    def room_for_ready(self) -> int:
        """The number of further connections that may be ready and wait to be accepted."""
        return min(self.quota.left(), max(1, self.quota.limit // 4) - self.ready)
