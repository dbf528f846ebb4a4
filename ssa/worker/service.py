"""The worker: it serves one user. It is the unit that a process of its own will be."""

from __future__ import annotations

import contextlib
import errno
import time
from typing import TYPE_CHECKING

from ssa.worker.compliance import unmet
from ssa.worker.livesocket import LiveSockets
from ssa.worker.records import ListenerRecord, address
from ssa.worker.user import User

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ssa.ktls.diag import KernelState
    from ssa.policy.schema import Policy
    from ssa.worker.monitor import Monitor
    from ssa.worker.records import Application, SocketRecord
    from ssa.worker.server_context import Serving
    from ssa.worker.user import Process


class Worker(User):
    """Serves one user: makes and keeps that user's TLS sockets, and tells the daemon of them when it asks.

    The arguments are those of `User`.
    """

    def __init__(self, uid: int, limit: int, monitor: Monitor, process: Process) -> None:
        super().__init__(uid, limit, monitor, process)
        self.sockets = LiveSockets(monitor)
        self._listeners: dict[int, Callable[[], Serving]] = {}

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
        self._listeners[record.id] = serving
        self.monitor.listens(record)
        try:
            yield
        finally:
            self.monitor.listens_no_more(record.id)
            del self._listeners[record.id]

    # --- what the daemon asks and tells -------------------------------------------------------------------------------

    def state(self, number: int) -> KernelState:
        """The state of a socket whose records this process protects. Raises OSError for others."""
        state = self.sockets.get(number).path.state()
        if state is None:
            raise OSError(errno.EOPNOTSUPP, "the kernel has this connection")
        return state

    def end(self, number: int) -> None:
        """End a connection whose records this process protects, whoever holds it. Raises OSError where it is gone."""
        self.sockets.get(number).path.end()

    def unmet(self, record: SocketRecord, policy: Policy) -> Sequence[str]:
        """The settings of a policy that a socket does not meet, and why. The peer's chain is judged anew."""
        return unmet(record, policy, self.monitor.trust_store)

    def offers(self, number: int) -> tuple[Sequence[str], Sequence[str]]:
        """The names of the credentials that a listener serves with now, and its application protocols."""
        serving = self._listeners.get(number)
        return ((), ()) if serving is None else serving().offers()

    def gone(self, number: int) -> None:
        """Remove a socket that no process holds any more, or that the daemon was told to forget."""
        self.sockets.forget(number)

    def stop(self) -> None:
        """Ask the thread that relays to end. Sockets that applications hold live on."""
        self.relays.stop()

    def close(self, deadline: float) -> None:
        """Close the relayed connections, after `stop`. `deadline` is on time.monotonic's clock."""
        self.relays.close(deadline)
