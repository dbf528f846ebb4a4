"""A worker's TLS sockets: for each the record that the daemon has too, and the data path."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa import errors
from ssa.protocol.wire import Reply
from ssa.worker.records import NOTHING, Presented, SocketRecord, shared

if TYPE_CHECKING:
    import socket

    from ssa.dtls.engine import DatagramEngine
    from ssa.handshake.engine import Engine
    from ssa.ktls.diag import SocketKey
    from ssa.worker.datapath import DataPath
    from ssa.worker.judge import Judge
    from ssa.worker.monitor import Monitor
    from ssa.worker.records import Application
    from ssa.worker.watching import Watching

_SHARED = 16 * 1024  # bytes of certificates: a longer chain is no usual one, and shall not outlive its socket


@dataclass(frozen=True, slots=True)
class Made:
    """A handshake that is done: all that the steps before have found.

    Attributes:
        presented: our own certificates, where we are the server.
        session_age: seconds since the peer of a session that was resumed had proved itself.
        with_chain: the application wants the peer's certificates with the reply.
    """

    application: Application
    engine: Engine | DatagramEngine
    judge: Judge
    key: SocketKey
    presented: Presented = NOTHING
    session_age: float = 0
    with_chain: bool = False


@dataclass(slots=True)
class LiveSocket:
    """One TLS socket.

    Attributes:
        was_cut: the peer's stream has ended without close_notify, and that was counted.
        namespace: the number of its network namespace, where the kernel does its TLS.
    """

    record: SocketRecord
    path: DataPath
    was_cut: bool = False
    namespace: bytes | None = None


def description(live: LiveSocket, *, whole: bool = False) -> Reply:
    """The reply that describes a socket; with the peer's certificates if `whole`."""
    record = live.record
    is_server = record.role == "server"
    return Reply(
        socket_id=record.id,
        version=record.protocol,
        cipher=record.suite,
        alpn=(record.alpn,) if record.alpn else (),
        peer_identity=record.identity,
        server_name=record.hostname if is_server else None,
        resumed=int(record.resumed),
        remote="{} {}".format(*record.key.remote) if is_server else None,
        chain=b"".join(record.chain) if whole else None,
        cut_is_error=1 if record.cut_is_error else None,
        **live.path.reply(),
    )


class LiveSockets:
    """One user's TLS sockets, by number and by inode.

    Attributes:
        relayed: how many of them have keys in this process. Some that were closed a moment ago can be among them.
    """

    def __init__(self, monitor: Monitor, watching: Watching) -> None:
        self._monitor = monitor
        self._watching = watching
        self._sockets: dict[int, tuple[LiveSocket, int]] = {}  # with the inode of what the application holds
        self._by_inode: dict[int, int] = {}
        self.relayed = 0

    def __len__(self) -> int:
        return len(self._sockets)

    def register(self, made: Made, path: DataPath) -> LiveSocket:
        """Register a socket with the daemon, and keep it here while some process holds the application's end."""
        engine, judge, monitor = made.engine, made.judge, self._monitor
        chain, verified = judge.chain, judge.verified
        inode, tcp = path.watch()
        record = SocketRecord(
            id=monitor.new_id(),
            key=made.key,
            application=shared(made.application),
            role=engine.role,
            hostname=shared(judge.hostname or engine.server_name),
            identity=shared(verified.identity),
            chain=shared(chain) if sum(map(len, chain)) <= _SHARED else chain,
            verdicts=shared(verified.verdicts),
            protocol=path.protocol,
            suite=engine.suite.name,
            group=shared(engine.group),
            alpn=shared(engine.alpn),
            resumed=engine.resumed,
            data_path=path.name,
            profile="",
            opened=time.time(),
            presented=shared(made.presented.chain),
            credential=shared(made.presented.credential),
            took=judge.took,
            session_age=made.session_age,
            cut_is_error=judge.cut_is_error,
        )
        namespace = monitor.add(record, inode, tcp)
        live = LiveSocket(record, path, namespace=namespace)
        self._sockets[record.id] = live, inode
        self._by_inode[inode] = record.id
        self.relayed += path.name != "ktls"
        path.begin(record.id)
        monitor.count("handshakes")
        monitor.count("resumed", int(record.resumed))
        return live

    def all(self) -> list[tuple[LiveSocket, int]]:
        """All of them, each with the inode of what the application holds."""
        return list(self._sockets.values())

    def get(self, number: int) -> LiveSocket:
        """The socket of a number. Raises `ssa.SSAError` UNKNOWN_SOCKET."""
        if (found := self._sockets.get(number)) is None:
            raise errors.error("UNKNOWN_SOCKET")
        return found[0]

    def of(self, sock: socket.socket) -> LiveSocket | None:
        """The live socket that a descriptor refers to; None if it is not one of this user's."""
        number = self._by_inode.get(os.fstat(sock.fileno()).st_ino)
        return None if number is None or not self._watching.has(sock) else self._sockets[number][0]

    def forget(self, number: int) -> None:
        """Remove a socket that nobody holds any more."""
        live, inode = self._sockets.pop(number, (None, 0))
        self.relayed -= live is not None and live.path.name != "ktls"
        if self._by_inode.get(inode) == number:  # the kernel gives an inode's number out again
            del self._by_inode[inode]
            self._watching.forget(inode)
