"""The sockets that the workers made and that some process still holds, and those that listen."""

from __future__ import annotations

import dataclasses
import errno
import logging
import os
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from ssa.daemon.who import confirmed
from ssa.ktls.diag import MOST_AT_ONCE, KernelState
from ssa.logfmt import fields
from ssa.suites import SUITES
from ssa.worker import messages
from ssa.worker.records import ListenerRecord, SocketRecord, shared

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssa.daemon.handle import Handle
    from ssa.ktls.diag import Diag
    from ssa.policy.schema import Policy

_log = logging.getLogger("ssa.daemon")

_T = TypeVar("_T")

_TIDY = 2  # seconds
_UNTOLD = "unknown"


def _silence() -> OSError:
    return OSError(errno.ETIMEDOUT, "its worker was not asked yet")


@dataclass(slots=True)
class Told:
    """A worker's answer about a socket or listener, when it was asked last."""

    state: KernelState | OSError = field(default_factory=_silence)
    unmet: Sequence[str] | OSError = field(default_factory=_silence)
    offers: tuple[Sequence[str], Sequence[str]] = ((), ())


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSocket(SocketRecord):
    """One TLS socket, as the file system shows it.

    Attributes:
        worker: the worker that made it.
        inode: of what the application holds.
        told: what the worker has told of it, when it was asked last.
        diag: the netlink socket to ask the kernel about it; None where the kernel does not have its keys, or where
            ssad may not enter its network namespace.
    """

    worker: Handle = field(repr=False)
    inode: int
    told: Told = field(repr=False, default_factory=Told, compare=False)
    diag: Diag | None = field(repr=False)

    def kernel(self) -> KernelState:
        """The connection's state, as the kernel or the worker has told it: whichever has the keys. Raises OSError."""
        return _or_raise(self.told.state)

    @property
    def is_relayed(self) -> bool:
        """True where ssad has its keys, and not the kernel."""
        return self.data_path == "relay"

    def completed(self, state: KernelState) -> KernelState:
        """The kernel's answer, completed by what it tells privileged processes only: as the handshake has agreed."""
        if state.version:
            return state
        cipher = SUITES[self.suite].aead.name
        return replace(state, version=self.protocol, cipher=cipher, tx=_UNTOLD, rx=_UNTOLD)

    def unmet(self, _policy: Policy) -> Sequence[str]:
        """The settings of the policy in force that the socket does not meet, as the worker has told them.

        Raises OSError where the worker has not.
        """
        return _or_raise(self.told.unmet)

    async def look(self) -> None:
        """Ask the worker and the kernel how the socket stands."""
        await look([self])

    async def end(self) -> None:
        """End the connection, whoever holds it. Raises OSError."""
        if not self.is_relayed:
            await self.worker.kernel.ask(partial(self._diag().destroy, self.key, self.inode))
        elif failed := (await self.worker.ask(lambda call: messages.End(call, self.id))).errno:
            raise OSError(failed, os.strerror(failed))

    def _diag(self) -> Diag:
        if self.diag is None:
            raise OSError(errno.EPERM, "the socket is of a network namespace that this ssad may not enter")
        return self.diag


def _or_raise(told: _T | OSError) -> _T:
    if isinstance(told, OSError):
        raise OSError(told.errno, told.strerror)
    return told


_RECORD = tuple(column.name for column in dataclasses.fields(SocketRecord))
_LOGGED = (
    *("id", "role", "hostname", "local", "remote", "version", "suite", "group", "alpn", "resumed", "data_path"),
    *("identity", "pid", "uid", "exe"),
)


def _fields(live: LiveSocket) -> str:
    """A handshake that was completed, for the log."""
    return fields(**{name: live.protocol if name == "version" else getattr(live, name) for name in _LOGGED})


async def _ask_kernel(worker: Handle, sockets: Sequence[LiveSocket]) -> None:
    """Ask the kernel about sockets of one worker's. It waits for whoever has one of them locked: not here."""
    by_diag: dict[int, list[LiveSocket]] = {}
    for live in sockets:
        by_diag.setdefault(id(live.diag), []).append(live)
    for group in by_diag.values():
        for start in range(0, len(group), MOST_AT_ONCE):
            await _ask_about(worker, group[start : start + MOST_AT_ONCE])


async def _ask_about(worker: Handle, group: Sequence[LiveSocket]) -> None:
    try:
        ask = partial(group[0]._diag().states, [live.key for live in group], [live.inode for live in group])  # noqa: SLF001 - of this module
        for live, state in zip(group, await worker.kernel.ask(ask), strict=True):
            live.told.state = state if isinstance(state, OSError) else live.completed(state)
    except OSError as failure:
        for live in group:
            live.told.state = failure


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveListener(ListenerRecord):
    """One socket that listens: its worker is asked each time with what it serves."""

    worker: Handle = field(repr=False)
    told: Told = field(repr=False, default_factory=Told, compare=False)

    def credentials(self) -> Sequence[str]:
        """The names of the credentials that it serves with, as its worker has told them."""
        return self.told.offers[0]

    def alpn(self) -> Sequence[str]:
        """The application protocols that it agrees to, as its worker has told them."""
        return self.told.offers[1]

    async def look(self) -> None:
        """Ask the worker what it serves with."""
        await look([], [self])


_LOOKED_AT = 256  # sockets that a worker is asked about at once


async def look(sockets: Sequence[LiveSocket], listeners: Sequence[LiveListener] = ()) -> None:
    """Ask the workers how sockets stand, and what listeners serve with: each worker beside the others."""
    by_worker: dict[Handle, tuple[list[LiveSocket], list[LiveListener]]] = {}
    for live in sockets:
        by_worker.setdefault(live.worker, ([], []))[0].append(live)
    for listener in listeners:
        by_worker.setdefault(listener.worker, ([], []))[1].append(listener)
    async with trio.open_nursery() as nursery:
        for worker, (its, listening) in by_worker.items():
            nursery.start_soon(_look_there, worker, its, listening)
            nursery.start_soon(_ask_kernel, worker, [live for live in its if not live.is_relayed])


async def _look_there(worker: Handle, sockets: list[LiveSocket], listeners: list[LiveListener]) -> None:
    listening = tuple(listener.id for listener in listeners)
    try:
        for start in range(0, max(1, len(sockets)), _LOOKED_AT):
            numbers = tuple(live.id for live in sockets[start : start + _LOOKED_AT])
            looked = await worker.ask(lambda call: messages.Look(call, numbers, () if start else listening))  # noqa: B023 - it is called at once
            _take(looked, sockets, listeners)
    except OSError as failure:
        for live in sockets:
            live.told.unmet = failure
            if live.is_relayed:
                live.told.state = failure


def _take(looked: messages.Looked, sockets: list[LiveSocket], listeners: list[LiveListener]) -> None:
    by_number = {live.id: live.told for live in sockets}
    for found in looked.sockets:
        if (told := by_number.get(found.number)) is not None:
            told.unmet = found.unmet
            if found.state is not None:
                told.state = found.state
    offers = {offer.number: offer for offer in looked.listeners}
    for listener in listeners:
        if (offer := offers.get(listener.id)) is not None:
            listener.told.offers = offer.credentials, offer.alpn


class Listeners:
    """The listening sockets by id, in order of their making."""

    def __init__(self) -> None:
        self._listeners: dict[int, LiveListener] = {}

    def add(self, record: ListenerRecord, worker: Handle) -> None:
        """Register a worker's listener. One whose number is in use is not registered."""
        known = {column.name: getattr(record, column.name) for column in dataclasses.fields(ListenerRecord)}
        self._listeners.setdefault(record.id, LiveListener(**known, worker=worker))

    def remove(self, number: int, worker: Handle) -> None:
        """Remove a worker's listener."""
        if (found := self._listeners.get(number)) is not None and found.worker is worker:
            del self._listeners[number]

    def has_ended(self, worker: Handle) -> None:
        """Remove the listeners of a worker that has ended."""
        for number in [number for number, live in self._listeners.items() if live.worker is worker]:
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


_GRANTED = 1000  # numbers that a worker gets at once


class Registry:
    """Live sockets by id, in order of their making. An id is never used twice in a daemon's life."""

    def __init__(self) -> None:
        self._sockets: dict[int, LiveSocket] = {}
        self._inodes: dict[int, int] = {}
        self._by_inode: dict[int, int] = {}
        self._next = 1

    def grant(self) -> range:
        """Numbers for sockets and listeners that are about to be made. No number is given out twice."""
        granted = range(self._next, self._next + _GRANTED)
        self._next = granted.stop
        return granted

    def pass_over(self, last: int) -> None:
        """Give out no number up to this one: an earlier daemon has."""
        self._next = max(self._next, last + 1)

    def add(self, record: SocketRecord, inode: int, namespace: bytes | None, worker: Handle) -> None:
        """Register a worker's TLS socket. Its record lasts as long as the watched socket, unless it is forgotten first.

        `namespace` is the cookie of its network namespace where the kernel does its TLS. Its program is looked at once
        more. A socket whose number or inode another worker has is not registered.
        """
        known = {name: getattr(record, name) for name in _RECORD}
        known["application"] = shared(confirmed(record.application))
        diag = None if namespace is None else worker.diags.of(namespace)
        live = LiveSocket(**known, worker=worker, inode=inode, diag=diag)
        if live.id in self._sockets or self._is_anothers(inode, worker):
            worker.tell(messages.Gone((live.id,)))
            return
        self._sockets[live.id], self._inodes[live.id] = live, inode
        self._by_inode[inode] = live.id
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("handshake %s", _fields(live))

    def _is_anothers(self, inode: int, worker: Handle) -> bool:
        """True where another worker has the socket of an inode. Its sockets of that inode that are gone are forgotten.

        The kernel gives the number of one that is gone out again.
        """
        former = self._by_inode.get(inode)
        if former is None or (live := self._sockets[former]).worker is worker:
            return False
        if inode in live.worker.liveness.alive():
            return True
        self._forget(*(number for number, other in self._inodes.items() if other == inode))
        return False

    def ids(self) -> list[int]:
        """The ids of the sockets that are open now."""
        return list(self._sweep())

    def all(self) -> list[LiveSocket]:
        """The sockets that are open now, in order of their making."""
        return list(self._sweep().values())

    def ask(self, sockets: Sequence[LiveSocket]) -> list[KernelState | OSError]:
        """The states of several sockets, as `look` found them last."""
        return [live.told.state for live in sockets]

    def get(self, socket_id: int) -> LiveSocket | None:
        """The socket of that id, if it is open now."""
        live = self._sockets.get(socket_id)
        return live if live is not None and self._inodes[socket_id] in live.worker.liveness.alive() else None

    def record(self, socket_id: int, worker: Handle) -> LiveSocket | None:
        """A worker's socket of that id, open or not."""
        live = self._sockets.get(socket_id)
        return live if live is not None and live.worker is worker else None

    def owner(self, inode: int) -> Handle | None:
        """The worker that has made the socket of an inode, if it is one of ours."""
        live = self._sockets.get(self._by_inode.get(inode, 0))
        return live.worker if live is not None and live.worker.alive and inode in live.worker.liveness.alive() else None

    def forget(self, socket_id: int, worker: Handle) -> None:
        """Remove a worker's socket that has ended, though a descriptor of it may still be open."""
        if self.record(socket_id, worker) is not None:
            self._forget(socket_id)

    def _forget(self, *numbers: int) -> None:
        gone: dict[Handle, list[int]] = {}
        for number in numbers:
            inode, live = self._inodes.pop(number), self._sockets.pop(number)
            if self._by_inode.get(inode) == number:  # numbers of inodes are used again
                del self._by_inode[inode]
            gone.setdefault(live.worker, []).append(number)
        for worker, its in gone.items():
            worker.tell(messages.Gone(tuple(its)))

    def has_ended(self, worker: Handle) -> None:
        """Forget the relayed sockets of a worker that has ended. Those of the kernel go on without it."""
        self._forget(*(number for number, live in self._sockets.items() if live.worker is worker and live.is_relayed))

    def _sweep(self) -> dict[int, LiveSocket]:
        alive = {live.worker: live.worker.liveness.alive() for live in self._sockets.values()}
        self._forget(*(id_ for id_, live in self._sockets.items() if self._inodes[id_] not in alive[live.worker]))
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
