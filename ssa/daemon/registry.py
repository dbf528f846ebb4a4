"""The sockets that the workers made and that some process still holds, and those that listen."""

from __future__ import annotations

import dataclasses
import errno
import itertools
import logging
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import trio

from ssa.daemon.liveness import Liveness
from ssa.daemon.who import confirmed
from ssa.ktls.diag import MOST_AT_ONCE, KernelState
from ssa.ktls.netns import Diags
from ssa.logfmt import fields
from ssa.suites import SUITES
from ssa.worker.records import ListenerRecord, SocketRecord, shared

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from ssa.ktls.diag import Diag
    from ssa.policy.schema import Policy
    from ssa.worker.service import Worker

_log = logging.getLogger("ssa.daemon")

_TIDY = 2  # seconds
_UNTOLD = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSocket(SocketRecord):
    """One TLS socket, as the file system shows it.

    Attributes:
        worker: the worker that made it.
        diag: the netlink socket to ask the kernel about it; None where the kernel does not have its keys, or where
            ssad may not enter its network namespace.
    """

    worker: Worker = field(repr=False)
    diag: Diag | None = field(repr=False)

    def kernel(self) -> KernelState:
        """The connection's state now, from the kernel or from the worker: whichever has the keys. Raises OSError.

        The kernel tells an unprivileged ssad the byte counts only. The rest is then what the handshake has agreed on.
        """
        if self.is_relayed:
            return self.worker.state(self.id)
        return self.completed(self._ask().state(self.key))

    @property
    def is_relayed(self) -> bool:
        """True where ssad has its keys, and not the kernel."""
        return self.data_path == "relay"

    def completed(self, state: KernelState) -> KernelState:
        """The kernel's answer, completed by what the kernel tells privileged processes only."""
        if state.version:
            return state
        cipher = SUITES[self.suite].aead.name
        return replace(state, version=self.protocol, cipher=cipher, tx=_UNTOLD, rx=_UNTOLD)

    def unmet(self, policy: Policy) -> Sequence[str]:
        """The settings of a policy that the socket does not meet, and why; empty if it meets all."""
        return self.worker.unmet(self, policy)

    def end(self) -> None:
        """End the connection, whoever holds it. Raises OSError."""
        if self.is_relayed:
            self.worker.end(self.id)
        else:
            self._ask().destroy(self.key)

    def _ask(self) -> Diag:
        if self.diag is None:
            raise OSError(errno.EPERM, "the socket is of a network namespace that this ssad may not enter")
        return self.diag


_RECORD = tuple(column.name for column in dataclasses.fields(SocketRecord))
_LOGGED = (
    *("id", "role", "hostname", "local", "remote", "version", "suite", "group", "alpn", "resumed", "data_path"),
    *("identity", "pid", "uid", "exe"),
)


def _fields(live: LiveSocket) -> str:
    """A handshake that was completed, for the log."""
    return fields(**{name: live.protocol if name == "version" else getattr(live, name) for name in _LOGGED})


def _asked(group: Sequence[LiveSocket]) -> dict[int, KernelState | OSError]:
    """The state of each socket of a group that shares one `Diag`, or has none."""
    diag = group[0].diag
    if diag is None:
        return {live.id: _own_word(live) for live in group}
    try:
        states = diag.states([live.key for live in group])
    except OSError as failure:
        return {live.id: failure for live in group}
    told = zip(group, states, strict=True)
    return {live.id: state if isinstance(state, OSError) else live.completed(state) for live, state in told}


def _own_word(live: LiveSocket) -> KernelState | OSError:
    try:
        return live.kernel()
    except OSError as failure:
        return failure


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveListener(ListenerRecord):
    """One socket that listens: its worker is asked each time with what it serves."""

    worker: Worker = field(repr=False)

    def credentials(self) -> Sequence[str]:
        """The names of the credentials that it serves with now."""
        return self.worker.offers(self.id)[0]

    def alpn(self) -> Sequence[str]:
        """The application protocols that it agrees to now."""
        return self.worker.offers(self.id)[1]


class Listeners:
    """The listening sockets by id, in order of their making."""

    def __init__(self) -> None:
        self._listeners: dict[int, LiveListener] = {}

    def add(self, record: ListenerRecord, worker: Worker) -> None:
        """Register a worker's listener."""
        known = {column.name: getattr(record, column.name) for column in dataclasses.fields(record)}
        self._listeners[record.id] = LiveListener(**known, worker=worker)

    def remove(self, number: int) -> None:
        """Remove a listener."""
        del self._listeners[number]

    def ids(self) -> list[int]:
        """The ids of all."""
        return list(self._listeners)

    def get(self, number: int) -> LiveListener | None:
        """The listener of an id, if it is there."""
        return self._listeners.get(number)

    def all(self) -> list[LiveListener]:
        """All of them."""
        return list(self._listeners.values())


class Registry:
    """Live sockets by id, in order of their making. An id is never used twice in a daemon's life."""

    def __init__(self) -> None:
        self._liveness = Liveness()
        self._diags = Diags()
        self._sockets: dict[int, LiveSocket] = {}
        self._inodes: dict[int, int] = {}
        self._by_inode: dict[int, int] = {}
        self._relayed: Counter[int] = Counter()  # by uid
        self._ids = itertools.count(1)

    def new_id(self) -> int:
        """A number for a socket that is about to be added."""
        return next(self._ids)

    def watch(self, sock: socket.socket) -> int:
        """Watch a socket, and return its inode. The caller may close its descriptor then."""
        return self._liveness.watch(sock)

    def add(self, record: SocketRecord, inode: int, sock: socket.socket | None, worker: Worker) -> None:
        """Register a worker's TLS socket. Its record lasts as long as the watched socket, unless it is forgotten first.

        `sock` is the TCP socket where the kernel does its TLS. Its program is looked at once more.
        """
        known = {name: getattr(record, name) for name in _RECORD}
        known["application"] = shared(confirmed(record.application))
        live = LiveSocket(**known, worker=worker, diag=None if sock is None else self._diags.of(sock))
        self._forget_former(inode, worker)
        self._sockets[live.id], self._inodes[live.id] = live, inode
        self._by_inode[inode] = live.id
        self._relayed[live.uid] += live.is_relayed
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("handshake %s", _fields(live))

    def _forget_former(self, inode: int, worker: Worker) -> None:
        """Forget another worker's sockets of an inode: the kernel has given the number out again, so they are gone."""
        former = self._by_inode.get(inode)
        if former is not None and self._sockets[former].worker is not worker:
            for number in [number for number, other in self._inodes.items() if other == inode]:
                self.forget(number)

    def relayed(self, uid: int, limit: int = 0) -> int:
        """The number of a user's open sockets whose descriptors the daemon itself keeps.

        Where it is less than `limit`, sockets that were closed a moment ago can be among them: to look costs.
        """
        if self._relayed[uid] >= limit:
            self._sweep()
        return self._relayed[uid]

    def ids(self) -> list[int]:
        """The ids of the sockets that are open now."""
        return list(self._sweep())

    def all(self) -> list[LiveSocket]:
        """The sockets that are open now, in order of their making."""
        return list(self._sweep().values())

    def ask(self, sockets: Sequence[LiveSocket]) -> list[KernelState | OSError]:
        """The kernel's answers about several sockets; with one message for those of one network namespace."""
        answers: dict[int, KernelState | OSError] = {}
        by_diag: dict[int, list[LiveSocket]] = {}
        for live in sockets:
            by_diag.setdefault(id(live.diag), []).append(live)
        for group in by_diag.values():
            for start in range(0, len(group), MOST_AT_ONCE):
                answers |= _asked(group[start : start + MOST_AT_ONCE])
        return [answers[live.id] for live in sockets]

    def get(self, socket_id: int) -> LiveSocket | None:
        """The socket of that id, if it is open now."""
        return self._sockets.get(socket_id) if self._inodes.get(socket_id) in self._liveness.alive() else None

    def of(self, sock: socket.socket) -> LiveSocket | None:
        """The socket that this descriptor is of, if it is one of ours."""
        inode = os.fstat(sock.fileno()).st_ino
        number = self._by_inode.get(inode)
        return None if number is None or not self._liveness.is_held(inode) else self._sockets[number]

    def forget(self, socket_id: int) -> None:
        """Remove a socket that has ended, though a descriptor of it may still be open."""
        inode = self._inodes.pop(socket_id, None)
        if inode is not None:
            self._drop(socket_id, inode)

    def _drop(self, socket_id: int, inode: int) -> None:
        if self._by_inode.get(inode) == socket_id:  # numbers of inodes are used again
            del self._by_inode[inode]
        live = self._sockets.pop(socket_id)
        self._relayed[live.uid] -= live.is_relayed
        live.worker.gone(socket_id)

    def is_held(self, inode: int) -> bool:
        """True if some process holds the socket of that inode at this very moment."""
        return self._liveness.is_held(inode)

    def _sweep(self) -> dict[int, LiveSocket]:
        alive = self._liveness.alive()
        for socket_id in [socket_id for socket_id, inode in self._inodes.items() if inode not in alive]:
            self._drop(socket_id, self._inodes.pop(socket_id))
        return self._sockets

    async def tidy(self) -> None:
        """Remove the records of closed sockets from time to time, so that they hold no memory. Runs until cancelled."""
        while True:
            await trio.sleep(_TIDY)
            if self._sockets:
                self._sweep()

    def close(self) -> None:
        """Forget everything."""
        self._sockets.clear()
        self._inodes.clear()
        self._by_inode.clear()
        self._relayed.clear()
        self._liveness.close()
        self._diags.close()
