"""The worker: it serves one user, in a process of its own."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from ssa import errors
from ssa.worker import messages
from ssa.worker.compliance import unmet
from ssa.worker.livesocket import LiveSockets
from ssa.worker.messages import SocketState
from ssa.worker.records import ListenerRecord, address
from ssa.worker.user import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ssa.policy.schema import Policy
    from ssa.worker.monitor import Monitor
    from ssa.worker.records import Application, SocketRecord
    from ssa.worker.server_context import Serving
    from ssa.worker.user import Process


_IDLE_THREAD = 2  # descriptors of the thread that relays, for some seconds after the last stream
_GUEST = 16  # the part of a user's descriptors that the requests of another one may take


class Worker(User):
    """Serves one user: makes and keeps that user's TLS sockets, and tells the daemon of them when it asks.

    The arguments are those of `User`.
    """

    def __init__(self, uid: int, limit: int, monitor: Monitor, process: Process) -> None:
        super().__init__(uid, limit, monitor, process)
        self.sockets = LiveSockets(monitor, self.watching)
        self._listeners: dict[int, tuple[ListenerRecord, Callable[[], Serving]]] = {}
        self._guests: dict[int, User] = {}

    def check_room(self) -> None:
        """Raise `ssa.SSAError` OVERLOADED where the user has as many relayed sockets as one may."""
        super().check_room()
        if self.sockets.relayed >= (limit := self.quota.limit):
            raise errors.error("OVERLOADED", f"uid {self.uid} has {limit} sockets that are relayed")

    def guest(self, uid: int) -> User:
        """Another user, who asks about sockets of this one's."""
        if (found := self._guests.get(uid)) is None:
            found = self._guests[uid] = User(uid, max(1, self.quota.limit // _GUEST), self.monitor, self.process)
        return found

    @contextlib.contextmanager
    def listed(
        self, application: Application, local: Any, serving: Callable[[], Serving], protocol: str
    ) -> Iterator[None]:
        """List a listener under /ssa/listeners while the block runs."""
        record = ListenerRecord(
            id=self.monitor.new_id(),
            application=application,
            local=address(local[:2]),
            hostname=serving().only or "",
            protocol=protocol,
            opened=time.time(),
        )
        self._listeners[record.id] = record, serving
        self.monitor.listens(record)
        try:
            yield
        finally:
            self.monitor.listens_no_more(record.id)
            del self._listeners[record.id]

    # --- what the daemon asks and tells -------------------------------------------------------------------------------

    def stands(self, number: int) -> SocketState | None:
        """How a socket stands; None where it is gone."""
        try:
            live = self.sockets.get(number)
        except errors.SSAError:
            return None
        return SocketState(number, live.path.state(), tuple(self.unmet(live.record, self.monitor.policy)))

    def all_told(self) -> Iterator[tuple[Any, int | None]]:
        """All that a daemon has to know that comes after the one that has started this worker."""
        yield from self.watching.all_told()
        yield from ((messages.Add(live.record, inode, live.namespace), None) for live, inode in self.sockets.all())
        yield from ((messages.Listens(record), None) for record, _ in self._listeners.values())

    def end(self, number: int) -> None:
        """End a connection whose records this process protects, whoever holds it. Raises OSError where it is gone."""
        self.sockets.get(number).path.end()

    def unmet(self, record: SocketRecord, policy: Policy) -> Sequence[str]:
        """The settings of a policy that a socket does not meet, and why. The peer's chain is judged anew."""
        return unmet(record, policy, self.monitor.trust_store)

    def offers(self, number: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The names of the credentials that a listener serves with now, and its application protocols."""
        found = self._listeners.get(number)
        names, alpn = ((), ()) if found is None else found[1]().offers()
        return tuple(names), alpn

    def is_needed(self) -> bool:
        """True while it carries a stream, or serves a request or a listener."""
        threads = _IDLE_THREAD if self.relays.descriptors() else 0
        return bool(self.quota.used() > threads)

    def is_idle(self) -> bool:
        """True while it has nothing to do, and no socket."""
        return not self.is_needed() and not len(self.sockets)

    def has_keys(self) -> bool:
        """True where the kernel has TLS sockets whose next keys are made here."""
        return len(self.sockets) > self.sockets.relayed

    def gone(self, number: int) -> None:
        """Remove a socket that no process holds any more, or that the daemon was told to forget."""
        self.sockets.forget(number)

    def stop(self) -> None:
        """Ask the thread that relays to end. Sockets that applications hold live on."""
        self.relays.stop()

    def close(self, deadline: float) -> None:
        """Close the relayed connections, after `stop`. `deadline` is on time.monotonic's clock."""
        self.relays.close(deadline)
