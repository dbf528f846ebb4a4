"""The data paths: each encrypts and decrypts a live socket's records in its way, and answers the requests about it.

class       records are the work of    the application holds
KernelTLS   the kernel                 its own TCP socket
Relayed     a thread of ssad's         one end of a stream pair
Datagrams   ssad's event loop (DTLS)   one end of a packet pair; with `Gathered` one pair for all peers of a port
"""

from __future__ import annotations

import contextlib
import errno
import socket
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import trio

from ssa import errors
from ssa.dtls.queue import Queue, packets
from ssa.ktls.diag import KernelState
from ssa.ktls.post_handshake import Broken
from ssa.ktls.rekey import Followed, Incoming, change_sending_key, follow_untrusted
from ssa.logfmt import fields
from ssa.protocol import addresses
from ssa.protocol.wire import Reply
from ssa.suites import TLSVersion
from ssa.tls import DTLS_1_2_NAME
from ssa.worker.ipc import in_a_thread
from ssa.worker.packets import Handover, twin
from ssa.worker.turns import Turn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssa.dtls.association import Association
    from ssa.handshake.engine import Engine
    from ssa.handshake.session_cache import Harvest
    from ssa.ktls.rekey import TrafficSecrets
    from ssa.protocol.wire import Rekey
    from ssa.relay.early import EarlyPair
    from ssa.worker.user import User

_OURS = "relay"  # who encrypts and decrypts, as the file system says it
_STATES = {None: "open", "close_notify": "ended by the peer"}  # of a relayed stream, by how the peer's side has ended


class DataPath(Protocol):
    """The interface of the data paths to a live socket.

    `charged` is the user who asks about the socket, whose threads and descriptors are used: not always the user that
    the socket was made for.
    """

    @property
    def name(self) -> str:
        """The data path, as /ssa/sockets/*/data_path says it: who holds the keys."""

    @property
    def protocol(self) -> str:
        """The protocol and its version, as TLSv1.3."""

    def watch(self) -> tuple[int, socket.socket | None]:
        """Watch the socket that the application will hold. Returns its inode, and the socket that the kernel knows."""

    def begin(self, number: int) -> None:
        """Begin to carry data: the socket has been registered under that number."""

    def hand_over(self, reply: Reply) -> Reply | Handover:
        """A handshake's reply, with the descriptor that the application will hold."""

    def reply(self) -> dict[str, Any]:
        """Reply fields specific to this data path."""

    def describe(self, reply: Reply) -> Reply | Handover:
        """The reply to a describe request, with a descriptor that the application may need for its answer."""

    async def rekey(self, charged: User, number: int, request: Rekey, sock: socket.socket) -> Reply:
        """Follow the peer's KeyUpdates, or change our sending key. Raises `ssa.SSAError` NO_REKEY and others."""

    def close(self, charged: User, sock: socket.socket, *, abort: bool, half: bool) -> None:
        """End the stream in order, behind the last byte. With `abort`, send no close_notify any more.

        With `half`, the application goes on reading: the FIN goes out when it has closed its descriptor.
        """

    def state(self) -> KernelState | None:
        """The connection's state; None where the kernel has to be asked."""

    def end(self) -> None:
        """End the connection, whoever holds it."""


class KernelTLS:
    """A kernel TLS stream: the keys are in the application's own TCP socket."""

    name: ClassVar = "ktls"

    def __init__(self, user: User, engine: Engine, sock: socket.socket, secrets: TrafficSecrets | None) -> None:
        """`secrets` are those from which the next keys are made; None where the keys cannot change."""
        self._user = user
        self._sock: socket.socket | None = sock  # until it is the application's alone
        self._suite = engine.suite
        self._is_server = engine.role == "server"
        self._secrets = secrets
        self._incoming = Incoming()
        self._turns: dict[str, Turn] = {}  # who changes which of its keys

    @property
    def protocol(self) -> str:
        """The version of TLS."""
        return self._suite.version.label

    def watch(self) -> tuple[int, socket.socket]:
        """Watch the TCP socket, which the application holds. The kernel can be asked about it."""
        sock, self._sock = self._sock, None
        if sock is None:
            raise RuntimeError("a socket was registered twice")
        return self._user.watching.watch(sock), sock

    def begin(self, number: int) -> None:
        """Do nothing: the kernel has carried data since it got the keys."""

    def hand_over(self, reply: Reply) -> Reply:
        """The reply alone: the application has its socket already."""
        return reply

    def reply(self) -> dict[str, Any]:
        """Reply fields specific to this data path."""
        return {"rekeyable": int(self._secrets is not None)}

    def describe(self, reply: Reply) -> Reply:
        """The reply alone: no descriptor is kept here."""
        return reply

    async def rekey(self, charged: User, number: int, request: Rekey, sock: socket.socket) -> Reply:
        """Take the handshake messages that are next in the socket, or change our sending key (RFC 8446 section 4.6.3).

        KeyUpdates of the peer's are followed. In each direction one such step is done before the next begins, whoever
        asks, and whether or not the caller still waits: under one key no record number may be used twice.

        Raises `ssa.SSAError`: NO_REKEY where the kernel or the version can't, WOULD_BLOCK where our KeyUpdate finds no
        room in the send buffer, CONNECTION_LOST, PROTOCOL_VIOLATION with the alert that the peer has to be sent.
        """
        found, threads, closer = Followed(), charged.threads, charged.closer
        with _in_words():
            if request.receiving:
                found = await self._turn("receiving").run(self._follow_untrusted, sock, threads.follow_keys, closer)
            if request.sending:
                await self._turn("sending").run(self._change_sending_key, sock, threads.change_keys, closer)
        if found.tickets and charged is self._user:
            self._user.sessions.tickets_untrusted(number, found.tickets)
        charged.monitor.count("key_updates", found.updates + bool(request.sending))
        return Reply(sending=int(self._incoming.answer_due), unfinished=int(found.unfinished))

    def _turn(self, direction: str) -> Turn:
        return self._turns.setdefault(direction, Turn())

    def _change_sending_key(self, sock: socket.socket) -> None:
        """Send our KeyUpdate. The kernel makes this wait while the application is blocked in a send."""
        if self._secrets is None:
            old = self._suite.version < TLSVersion.TLSv1_3
            raise errors.error("NO_REKEY", "TLS 1.2 has no KeyUpdate" if old else "Linux 6.14 can")
        change_sending_key(sock, self._suite, self._secrets, self._incoming)

    def _follow_untrusted(self, sock: socket.socket) -> Followed:
        return follow_untrusted(sock, self._suite, self._secrets, self._incoming, server=self._is_server)

    def close(self, charged: User, sock: socket.socket, *, abort: bool, half: bool) -> None:
        """Send close_notify as soon as the send buffer has room. With `abort`, do so no longer.

        `half` is refused, as the library sends close_notify itself. Raises `ssa.SSAError` BAD_REQUEST.
        """
        if half:
            raise errors.error("BAD_REQUEST", "half is for a relayed stream")
        if abort:
            charged.lingering.cut(sock)
        else:
            charged.lingering.begin(twin(sock))

    def state(self) -> None:
        """The daemon asks the kernel."""

    def end(self) -> None:
        """Always raises OSError: the daemon has the kernel end this connection."""
        raise OSError(errno.EOPNOTSUPP, "the kernel has this connection")


class _OnAPair:
    """A data path whose descriptor is the application's end of a socket pair."""

    _user: User
    _outer: socket.socket | None  # until it is the application's alone

    def _handover(self, reply: Reply) -> Handover:
        outer, self._outer = self._outer, None
        if outer is None:
            raise RuntimeError("a socket was handed over that has no descriptor of its own, or had none any more")
        return Handover(self._user.closer, reply, outer)


class Relayed(_OnAPair):
    """A relayed stream: a thread of this user's encrypts and decrypts (`ssa.relay`)."""

    name: ClassVar = _OURS

    def __init__(  # noqa: PLR0913, PLR0917 - a stream is made of its handshake, its socket, and what is kept of it
        self,
        user: User,
        engine: Engine,
        sock: socket.socket,
        reason: str,
        harvest: Harvest | None = None,
        early: EarlyPair | None = None,
    ) -> None:
        """Begin to relay; `reason` says why. `early`: the application has its end already.

        Raises `ssa.SSAError` OVERLOADED, NETWORK.
        """
        user.check_room()
        user.monitor.note_relayed(reason)
        if harvest is not None and engine.version is TLSVersion.TLSv1_2:
            harvest.keep(harvest.glean(engine.stream()))  # its ticket came inside the handshake
        self._user = user
        self._suite = engine.suite
        own = twin(sock)
        try:
            self._relay, outer = user.relays.add(engine.stream(), engine.suite, own, harvest, early)
        except BaseException as exc:
            user.closer.drop(own)
            if isinstance(exc, OSError) and not isinstance(exc, errors.SSAError):
                raise errors.error("NETWORK", exc.strerror or "") from exc
            raise
        self._outer = outer
        self._is_early = early is not None

    def hand_over(self, reply: Reply) -> Reply | Handover:
        """The reply, with the application's end of the pair unless the application has it already."""
        handover = self._handover(reply)
        if not self._is_early:
            return handover
        with handover:
            return reply

    @property
    def protocol(self) -> str:
        """The version of TLS."""
        return self._suite.version.label

    def watch(self) -> tuple[int, None]:
        """Watch the application's end of the pair."""
        if self._outer is None:
            raise RuntimeError("a socket was registered twice")
        return self._user.watching.watch(self._outer), None

    def begin(self, number: int) -> None:  # noqa: ARG002 - as the protocol has it
        """Have the thread read what the peer sends."""
        self._user.relays.begin(self._relay)

    def reply(self) -> dict[str, Any]:
        """Reply fields specific to this data path."""
        return {"rekeyable": 0, "relayed": 1, "ended": self._relay.ended}

    def describe(self, reply: Reply) -> Reply | Handover:
        """The reply, with the TCP socket while there is one: the library asks it for addresses and options."""
        tcp = self._relay.tcp()
        return reply if tcp is None else Handover(self._user.closer, reply, tcp)

    async def rekey(self, charged: User, number: int, request: Rekey, sock: socket.socket) -> Reply:  # noqa: ARG002 - as the protocol has it
        """The application has no record to take. Raises `ssa.SSAError` NO_REKEY."""
        raise errors.error("NO_REKEY", "it is relayed: OpenSSL sees to it")

    def close(self, charged: User, sock: socket.socket, *, abort: bool, half: bool) -> None:  # noqa: ARG002 - as the protocol has it
        """Note that the application has ended its stream, and did not crash."""
        self._relay.announce_end(abort=abort, half=half)

    def state(self) -> KernelState:
        """TCP's byte counts, and how the peer's side has ended."""
        version, cipher = self._suite.version.label, self._suite.aead.name
        sent, received = self._relay.counts()
        state = _STATES.get(self._relay.ended, "ended")
        return KernelState(version, cipher, _OURS, _OURS, sent, received, state)

    def end(self) -> None:
        """Abort the connection, for the application and the peer."""
        self._relay.abort("ECONNABORTED")


class Datagrams(_OnAPair):
    """A session over UDP (DTLS): no kernel does its records."""

    name: ClassVar = _OURS
    protocol: ClassVar = DTLS_1_2_NAME
    _WHY = "DTLS is never the kernel's"

    def __init__(self, user: User, association: Association) -> None:
        user.monitor.note_relayed(self._WHY)
        self._user = user
        self._association = association
        self._ours: socket.socket
        self._outer = None  # until `watch`

    def hand_over(self, reply: Reply) -> Handover:
        """The reply, with the application's end of the pair."""
        return self._handover(reply)

    def watch(self) -> tuple[int, None]:
        """Make the packet pair, and watch the application's end. Raises `ssa.SSAError` OVERLOADED."""
        user = self._user
        user.check_room()
        with contextlib.ExitStack() as undo:
            user.quota.take()
            undo.callback(user.quota.give)
            self._ours, self._outer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            undo.callback(user.closer.hang_up, self._ours)
            undo.callback(user.closer.drop, self._outer)
            inode = user.watching.watch(self._outer)
            undo.pop_all()
        return inode, None

    def begin(self, number: int) -> None:
        """Have the session deliver into the pair, and send what the application writes."""
        queue = Queue(self._ours)
        self._association.deliver_to(queue, queue.end)
        self._association.port.start_soon(self._send, number, self._ours)

    async def _send(self, number: int, ours: socket.socket) -> None:
        """Send what the application writes, until it closes its end or the session is over."""
        user, association = self._user, self._association
        with trio.CancelScope() as scope:
            association.gone = scope.cancel
            if association.over:
                scope.cancel()
            try:
                await packets(ours, association.seal_and_send, partial(in_a_thread, user))
            except errors.SSAError as exc:
                user.log.info("a session over datagrams has failed %s", fields(reason=exc.reason, detail=exc.detail))
            finally:
                association.end()
                user.monitor.forget(number)
                user.closer.hang_up(ours)
                user.quota.give()

    def reply(self) -> dict[str, Any]:
        """Reply fields specific to this data path: the addresses, and how much goes into a datagram."""
        of = self._association
        return {"rekeyable": 0, "peer": of.key, "local": addresses.packed(of.local), "largest": of.largest}

    def describe(self, reply: Reply) -> Reply:
        """The reply alone: the UDP socket stays here, as other sessions may be on it."""
        return reply

    async def rekey(self, charged: User, number: int, request: Rekey, sock: socket.socket) -> Reply:  # noqa: ARG002 - as the protocol has it
        """Always raises `ssa.SSAError` NO_REKEY."""
        raise errors.error("NO_REKEY", "DTLS 1.2 has no KeyUpdate")

    def close(self, charged: User, sock: socket.socket, *, abort: bool, half: bool) -> None:  # noqa: ARG002 - as the protocol has it
        """Refuse it: closing the descriptor says it. Raises `ssa.SSAError` BAD_REQUEST."""
        raise errors.error("BAD_REQUEST", "a session over datagrams ends when its descriptor is closed")

    def state(self) -> KernelState:
        """UDP's byte counts, and whether the peer has ended the session."""
        of = self._association
        state = "ended by the peer" if of.engine.closed else "open"
        return KernelState(self.protocol, of.engine.suite.aead.name, _OURS, _OURS, of.sent, of.received, state)

    def end(self) -> None:
        """End the session, for the application and the peer."""
        self._association.end()


class Gathered(Datagrams):
    """A session whose application holds one packet pair for all peers: each packet begins with the peer's address."""

    def __init__(self, user: User, association: Association, ours: socket.socket, inode: int) -> None:
        """`ours` is our end of the pair, `inode` the one of the application's end."""
        super().__init__(user, association)
        self._ours = ours
        self._inode = inode

    def watch(self) -> tuple[int, None]:
        """Return the inode of the pair that all sessions share, which is watched already."""
        return self._inode, None

    def begin(self, number: int) -> None:
        """Have the session deliver into the pair that all sessions share."""
        association = self._association
        queue = Queue(self._ours, association.key, addresses.packed(association.address, addresses.GONE))

        def gone() -> None:
            queue.end()
            self._user.monitor.forget(number)

        association.gone = gone
        association.deliver_to(queue, association.abort)


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """Turn the block's failures into `ssa.SSAError`, which an application can be told."""
    try:
        yield
    except Broken as exc:
        raise errors.error("PROTOCOL_VIOLATION", (exc.strerror or "").partition(": ")[2], exc.alert) from exc
    except BlockingIOError as exc:
        raise errors.error("WOULD_BLOCK") from exc
    except errors.SSAError:
        raise
    except OSError as exc:
        raise errors.error("CONNECTION_LOST", exc.strerror or "") from exc
