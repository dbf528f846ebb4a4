"""The sockets that this daemon made and that some process still holds."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import trio

from ssa.daemon.liveness import Liveness
from ssa.ktls.diag import MOST_AT_ONCE, KernelState
from ssa.ktls.rekey import Incoming
from ssa.logfmt import fields
from ssa.suites import SUITES

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterable, Iterator, Sequence

    from ssa.ktls.diag import Diag, SocketKey
    from ssa.ktls.rekey import TrafficSecrets
    from ssa.policy.schema import Policy
    from ssa.relay import Relay
    from ssa.worker.turns import Turn

_log = logging.getLogger("ssa.daemon")

_TIDY = 2  # seconds
_UNTOLD = "unknown"

_T = TypeVar("_T", bound=Hashable)


@functools.lru_cache(maxsize=1024)
def _shared(value: Hashable) -> Hashable:
    return value


def shared(value: _T) -> _T:
    """An equal value that is in memory already, if one was seen lately: peers and programs repeat themselves."""
    return cast("_T", _shared(value))


@dataclass(frozen=True, slots=True)
class Application:
    """Who asked: the process that connected to the daemon, as the kernel vouches for it (`ssa.daemon.who`).

    Attributes:
        exe: the path of its program; empty where it is not known.
        groups: the supplementary ones.
        settled: the program is no longer looked at.
    """

    pid: int
    uid: int
    gid: int
    exe: str
    groups: tuple[int, ...] = ()
    settled: bool = False


class _AskedFor:
    """What an application has asked for: who it was."""

    __slots__ = ()
    application: Application

    @property
    def pid(self) -> int:
        """The process that asked for it; others may hold it by now."""
        return self.application.pid

    @property
    def uid(self) -> int:
        """Its user."""
        return self.application.uid

    @property
    def exe(self) -> str:
        """Its program."""
        return self.application.exe


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSocket(_AskedFor):
    """What is remembered of one TLS socket; what the kernel knows better is asked of the kernel.

    It is made to be small, as there can be thousands: texts that repeat are shared, certificates too.
    """

    id: int
    key: SocketKey
    application: Application
    role: str
    hostname: str
    identity: str
    chain: tuple[bytes, ...] = field(repr=False)
    verdicts: tuple[str, ...]
    suite: str
    group: str
    alpn: str
    resumed: bool
    data_path: str
    profile: str
    opened: float  # seconds since the epoch
    diag: Diag | None = field(repr=False)  # None: it is of a network namespace that we may not enter
    complies: Callable[[LiveSocket, Policy], Sequence[str]] = field(repr=False)
    secrets: TrafficSecrets | None = field(repr=False)  # None: its keys cannot change, or OpenSSL sees to it
    incoming: Incoming = field(default_factory=Incoming, repr=False)
    turns: dict[str, Turn] = field(default_factory=dict, repr=False)  # who changes which of its keys, see `living`
    relay: Relay | None = field(default=None, repr=False)  # None: the kernel does it
    presented: tuple[bytes, ...] = field(default=(), repr=False)  # a server's own certificates
    credential: str = ""  # their name
    took: float = 0  # seconds of the handshake
    session_age: float = 0  # seconds since the peer of a session that was resumed had proved itself

    @property
    def local(self) -> str:
        """Our end, as address:port."""
        return address(self.key.local)

    @property
    def remote(self) -> str:
        """The other end, as address:port."""
        return address(self.key.remote)

    @property
    def protocol(self) -> str:
        """The protocol and its version, as TLSv1.3."""
        return SUITES[self.suite].version.label

    def told(self) -> dict[str, Any]:
        """What a reply says of it besides what it says of all."""
        return {}

    def kernel(self) -> KernelState:
        """The kernel's word on this socket, now. Raises OSError.

        Where it tells us of the bytes only, as we are not privileged, the rest is what it was given.
        """
        return self._completed(self._ask().state(self.key)) if self.relay is None else self._relayed(self.relay)

    def _relayed(self, relay: Relay) -> KernelState:
        suite = SUITES[self.suite]
        return KernelState(
            suite.version.label, suite.aead.name, "relay", "relay", *relay.counts(), _RELAYED.get(relay.ended, "ended")
        )

    def _completed(self, state: KernelState) -> KernelState:
        if state.version:
            return state
        suite = SUITES[self.suite]
        return replace(state, version=suite.version.label, cipher=suite.aead.name, tx=_UNTOLD, rx=_UNTOLD)

    def unmet(self, policy: Policy) -> Sequence[str]:
        """Which settings of a policy it does not meet, and how; none if it would be made under that policy."""
        return self.complies(self, policy)

    def end(self) -> None:
        """End the connection, whoever holds it. Raises OSError."""
        if self.relay is None:
            self._ask().destroy(self.key)
        else:
            self.relay.abort("ECONNABORTED")

    def _ask(self) -> Diag:
        if self.diag is None:
            raise OSError(errno.EPERM, "the socket is of a network namespace that this ssad may not enter")
        return self.diag


_LOGGED = (
    *("id", "role", "hostname", "local", "remote", "version", "suite", "group", "alpn", "resumed", "data_path"),
    *("identity", "pid", "uid", "exe"),
)


def _fields(live: LiveSocket) -> str:
    """A handshake that was completed, for the log."""
    return fields(**{name: live.protocol if name == "version" else getattr(live, name) for name in _LOGGED})


# How a relayed connection stands, by what its relay says of the peer's end.
_RELAYED = {None: "open", "close_notify": "ended by the peer"}


def address(end: tuple[str, int]) -> str:
    """An end as address:port, with brackets around an IPv6 address."""
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _asked(group: Sequence[LiveSocket]) -> dict[int, KernelState | OSError]:
    """The state of each of a group, all of which have one `Diag`, or none."""
    diag = group[0].diag
    if diag is None or group[0].relay is not None:
        return {live.id: _own_word(live) for live in group}
    try:
        states = diag.states([live.key for live in group])
    except OSError as failure:
        return {live.id: failure for live in group}
    told = zip(group, states, strict=True)
    return {
        live.id: state if isinstance(state, OSError) else live._completed(state)  # noqa: SLF001 - of the same module
        for live, state in told
    }


def _own_word(live: LiveSocket) -> KernelState | OSError:
    try:
        return live.kernel()
    except OSError as failure:
        return failure


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveListener(_AskedFor):
    """One socket that listens: it is asked each time with what it serves."""

    id: int
    application: Application
    local: str
    hostname: str  # the one name that is served, or nothing
    protocol: str
    opened: float  # seconds since the epoch
    offers: Callable[[], tuple[Iterable[str], Iterable[str]]] = field(repr=False)  # credentials' names, ALPN

    def credentials(self) -> tuple[str, ...]:
        """The names of the credentials that it serves with now."""
        return tuple(self.offers()[0])

    def alpn(self) -> tuple[str, ...]:
        """The application protocols that it agrees to now."""
        return tuple(self.offers()[1])


class Listeners:
    """The listening sockets by id, in order of their making, each as long as the block that serves it."""

    def __init__(self) -> None:
        self._listeners: dict[int, LiveListener] = {}

    @contextlib.contextmanager
    def serving(self, listener: LiveListener) -> Iterator[None]:
        """A block in which a listener is there."""
        self._listeners[listener.id] = listener
        try:
            yield
        finally:
            del self._listeners[listener.id]

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
        self._sockets: dict[int, LiveSocket] = {}
        self._inodes: dict[int, int] = {}
        self._by_inode: dict[int, int] = {}
        self._relayed: Counter[int] = Counter()  # by uid
        self._ids = itertools.count(1)

    def new_id(self) -> int:
        """A number for a socket that is about to be added."""
        return next(self._ids)

    def add(self, live: LiveSocket, sock: socket.socket) -> None:
        """Take it in. The caller closes its descriptor then."""
        self.join(live, self.watch(sock))

    def watch(self, sock: socket.socket) -> int:
        """Look after a socket that others may `join`: its inode. The caller closes its descriptor then."""
        return self._liveness.watch(sock)

    def join(self, live: LiveSocket, inode: int) -> None:
        """Take in one that lives as long as a socket that was added before, unless it is forgotten first."""
        self._sockets[live.id], self._inodes[live.id] = live, inode
        self._by_inode[inode] = live.id
        self._relayed[live.uid] += live.data_path == "relay"
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("handshake %s", _fields(live))

    def relayed(self, uid: int) -> int:
        """How many open sockets of a user the daemon itself has to keep descriptors for."""
        self._sweep()
        return self._relayed[uid]

    def ids(self) -> list[int]:
        """The ids of the sockets that are open now."""
        return list(self._sweep())

    def all(self) -> list[LiveSocket]:
        """The sockets that are open now, in order of their making."""
        return list(self._sweep().values())

    def ask(self, sockets: Sequence[LiveSocket]) -> list[KernelState | OSError]:
        """The kernel's word on several sockets; those of one network namespace are asked about at once."""
        answers: dict[int, KernelState | OSError] = {}
        by_diag: dict[int, list[LiveSocket]] = {}
        for live in sockets:
            by_diag.setdefault(id(live.diag) if live.relay is None else 0, []).append(live)
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
        """Let go of one that has ended, though its descriptor may be open still."""
        inode = self._inodes.pop(socket_id, None)
        if inode is not None:
            self._drop(socket_id, inode)

    def _drop(self, socket_id: int, inode: int) -> None:
        if self._by_inode.get(inode) == socket_id:  # numbers of inodes are used again
            del self._by_inode[inode]
        live = self._sockets.pop(socket_id)
        self._relayed[live.uid] -= live.data_path == "relay"

    def is_held(self, inode: int) -> bool:
        """Whether some process holds the socket of that inode at this very moment."""
        return self._liveness.is_held(inode)

    def _sweep(self) -> dict[int, LiveSocket]:
        alive = self._liveness.alive()
        for socket_id in [socket_id for socket_id, inode in self._inodes.items() if inode not in alive]:
            self._drop(socket_id, self._inodes.pop(socket_id))
        return self._sockets

    async def tidy(self) -> None:
        """Forget what is gone now and then, so that nothing is kept alive for its sake. Runs until cancelled."""
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
