"""Makes a worker for each user, and answers its questions: the daemon's side of `ssa.worker.monitor`."""

from __future__ import annotations

import logging
import os
import resource
import time
from typing import TYPE_CHECKING

from ssa import errors
from ssa.daemon import quota, who
from ssa.logfmt import charged, fields
from ssa.worker import post_handshake
from ssa.worker.service import Worker
from ssa.worker.user import NOBODY, Process

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ssa.credentials import Credential
    from ssa.daemon.state import State
    from ssa.ktls.probe import Capabilities
    from ssa.policy.schema import Policy
    from ssa.protocol.wire import Message, Reply
    from ssa.trust import TrustStore
    from ssa.worker.packets import Handover
    from ssa.worker.records import Application, ListenerRecord, Refusal, SocketRecord

_OWN = 16  # descriptors that the daemon itself opens after its start, at most
_PATIENCE = 1  # seconds for the threads to end: one that an application keeps waiting ends with the process


class Workers:
    """The workers by user: each is made when the user's first request comes, and stays."""

    def __init__(self, state: State) -> None:
        self._state = state
        size, own = resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(os.listdir("/proc/self/fd")) + _OWN
        self.process = Process(size, own)
        self.log = charged(logging.getLogger("ssa.daemon"), NOBODY)
        self._workers: dict[int, Worker] = {}

    def of(self, uid: int) -> Worker:
        """The worker of a user."""
        if (worker := self._workers.get(uid)) is None:
            link = Link(self._state, uid)
            worker = link.worker = Worker(uid, quota.limit(self.process.table.free, uid), link, self.process)
            self._workers[uid] = worker
        return worker

    def close(self) -> None:
        """Close what the workers have open. Sockets that applications hold live on."""
        for worker in self._workers.values():
            worker.stop()
        deadline = time.monotonic() + _PATIENCE
        for worker in self._workers.values():
            worker.close(deadline)
        self.process.close()


class Link:
    """The daemon, as one worker sees it: a `Monitor`."""

    worker: Worker

    def __init__(self, state: State, uid: int) -> None:
        self._state = state
        self._uid = uid
        self._log = charged(logging.getLogger("ssa.daemon"), uid)
        self._log_of_ends = charged(logging.getLogger("ssa.daemon"), uid, "truncated")

    # --- what is in force ---

    @property
    def policy(self) -> Policy:
        """The policy in force at this moment."""
        return self._state.policy.current

    def capabilities(self, *, urgent: bool) -> Capabilities:
        """The kernel's TLS features."""
        return self._state.capabilities(urgent=urgent)

    async def fresh_trust(self, source: str) -> None:
        """Have a trust store read again where its files may have changed."""
        await self._state.trust_stores.refresh(source)

    def trust_store(self, source: str) -> TrustStore:
        """The trust store as it was read last. Raises `ssa.SSAError` TRUST_STORE."""
        return self._state.trust_stores.get(source)

    async def fresh_credentials(self) -> None:
        """Have the administrator's credentials read again where their files may have changed."""
        await self._state.credential_files.refresh()

    def look_soon(self) -> None:
        """Have `fresh_credentials` begin in the background."""
        self._state.credential_files.look_soon()

    def usable(self, groups: Sequence[int]) -> tuple[tuple[Credential, ...], tuple[str, ...]]:
        """The administrator's credentials that this user may serve with; the names of the others."""
        return self._state.credentials.usable(self._uid, groups)

    # --- who asks ---

    def with_groups(self, application: Application, connection: socket.socket) -> Application:
        """The application at the other end of a connection, with its supplementary groups."""
        return who.with_groups(application, connection)

    def settled(self, application: Application) -> Application:
        """The application of a listener, whose program is that which began to listen."""
        return who.settled(application)

    # --- the sockets that applications hold ---

    def new_id(self) -> int:
        """A number for a socket or a listener."""
        return self._state.sockets.new_id()

    def watch(self, sock: socket.socket) -> int:
        """Watch a socket for as long as some process holds it. Returns its inode."""
        return self._state.sockets.watch(sock)

    def is_held(self, inode: int) -> bool:
        """True if some process holds a watched socket at this very moment."""
        return self._state.sockets.is_held(inode)

    def add(self, record: SocketRecord, inode: int, sock: socket.socket | None) -> None:
        """Register a TLS socket."""
        self._state.sockets.add(record, inode, sock, self.worker)

    async def elsewhere(self, request: Message, sock: socket.socket) -> Reply | Handover | None:
        """The answer to a request about a TLS socket of another user's worker, at the cost of the user who asks."""
        if (live := self._state.sockets.of(sock)) is None:
            raise errors.error("UNKNOWN_SOCKET")
        return await post_handshake.respond(live.worker.sockets.get(live.id), self.worker, request, sock)

    def forget(self, number: int) -> None:
        """Remove a TLS socket that has ended."""
        self._state.sockets.forget(number)

    def relayed(self, limit: int) -> int:
        """The number of this user's open sockets whose descriptors ssad itself keeps; exact from `limit` on."""
        return self._state.sockets.relayed(self._uid, limit)

    def listens(self, record: ListenerRecord) -> None:
        """Register a listener."""
        self._state.listeners.add(record, self.worker)

    def listens_no_more(self, number: int) -> None:
        """Remove a listener."""
        self._state.listeners.remove(number)

    # --- what has happened ---

    def count(self, counter: str, number: int = 1) -> None:
        """Count events."""
        self._state.count(counter, number)

    def refused(self, refusal: Refusal) -> None:
        """Count and log a refusal, on this user's account."""
        self._state.count(refusal.counter)
        who = {"pid": refusal.pid, "uid": self._uid, "exe": refusal.exe}
        why = {"reason": refusal.reason, "fault": refusal.fault, "alert": refusal.alert, "detail": refusal.detail}
        self._log.info("refused %s", fields(**dict(refusal.asked), **who, **why))

    def was_cut(self, record: SocketRecord) -> None:
        """Count and log that the peer's stream has ended without close_notify, on this user's account."""
        self._state.count("truncated")
        who = {name: getattr(record, name) for name in ("id", "hostname", "local", "remote", "pid", "uid", "exe")}
        self._log_of_ends.info("truncated %s", fields(**who))

    def note_relayed(self, reason: str) -> None:
        """Log, once for each reason, that connections go by the relay."""
        self._state.note_relayed(reason)
