"""DTLS for applications: the pipeline's steps on a UDP socket, which ssad keeps.

The application gets one end of a SOCK_SEQPACKET pair instead. A datagram is a packet. The peer's close_notify is an end
of file. The end of this process is a hang-up, which poll(2) tells apart (`ssa.library.dtlssocket`).
"""

from __future__ import annotations

import contextlib
import socket
from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ssa import errors
from ssa.dtls import records
from ssa.dtls.association import Association
from ssa.dtls.cookies import Cookies
from ssa.dtls.engine import DatagramClient, DatagramServer
from ssa.dtls.port import Port
from ssa.dtls.queue import packets
from ssa.handshake.refusal import explaining
from ssa.ktls.diag import SocketKey
from ssa.logfmt import fields
from ssa.protocol import addresses, wire
from ssa.worker import ipc, steps
from ssa.worker.datapath import Datagrams, Gathered
from ssa.worker.judge import Judge
from ssa.worker.livesocket import Made, description
from ssa.worker.packets import Handover, Packet, twin
from ssa.worker.quota import Crowd
from ssa.worker.records import NOTHING, Presented, Refusal
from ssa.worker.server_context import DatagramServing
from ssa.worker.terms import agree, hostname_untrusted

if TYPE_CHECKING:
    from ssa.dtls.port import Greet
    from ssa.dtls.udp import Way
    from ssa.worker.records import Application
    from ssa.worker.service import Worker
    from ssa.worker.terms import Terms

_MOST = 4096  # sessions on a port
_MOST_BEGUN = 256  # of those whose handshake is under way: strangers begin them
_PORT = 2  # descriptors: the UDP socket, and the end of a pair where all sessions share one


async def connect(
    worker: Worker, application: Application, request: wire.Connect, sock: socket.socket, files: list[int]
) -> wire.Reply | Handover:
    """Make a session with the peer that the application's UDP socket is connected to. Raises `ssa.SSAError`."""
    hostname = hostname_untrusted(request.hostname or "")
    terms = await _agree(worker, application, request, files)
    policy = terms.policy
    address = _peer(sock)
    steps.refuse_host(policy, hostname, address[0])
    context = worker.contexts.datagrams("client", policy, terms.credentials)
    judge = Judge(worker.monitor, terms, hostname, steps.since(trio.current_time()))
    port = _port(worker, sock)
    try:
        await port.start()
        engine = DatagramClient(context, steps.sni_of(hostname), policy.alpn, port.mtu(address))
        handshake = Association(port, address, engine)
        with explaining(engine, policy), steps.deadline(policy.handshake_timeout):
            await handshake.start()
            chain = await handshake.peer_chain()
            verdict = handshake.verdict(judge, chain)
            await handshake.finish(verdict)
        session = Datagrams(worker, handshake)
        made = _made(application, handshake, judge, terms)
        live = worker.sockets.register(made, session)
        return session.hand_over(description(live, whole=made.with_chain))
    except BaseException:
        port.close()
        raise


async def listen(  # noqa: PLR0913, PLR0917 - as `acceptor.run`, which knows the socket by now
    worker: Worker,
    application: Application,
    request: wire.Listen,
    packet: Packet,
    sock: socket.socket,
    connection: socket.socket,
) -> None:
    """Serve a bound UDP socket until the application closes its end: a reply with a descriptor for each client.

    The sessions that have been handed over by then go on. Raises `ssa.SSAError` for what is wrong with the request.
    """
    serving = await _serving(worker, application, request, packet.descriptors)
    await packet.close_files()
    backlog = max(1, min(request.backlog or 128, _MOST))
    door = _Listening(worker, application, serving, _bound(sock), connection, backlog)
    try:
        await door.port.start()
        with door.listed():
            await worker.monitor.told()
            if await ipc.send(connection, wire.Reply()):
                await ipc.follow(worker, application, connection, door.renew)
    finally:
        door.port.shut()


async def gather(
    worker: Worker, application: Application, request: wire.Gather, sock: socket.socket, files: list[int]
) -> Handover:
    """Serve a bound UDP socket: all clients on one descriptor. Raises `ssa.SSAError`."""
    serving = await _serving(worker, application, request, files)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door = _Gathering(worker, application, serving, _bound(sock), ours, worker.watching.watch(theirs))
        await door.port.start()
        door.port.start_soon(door.relay)
        return Handover(worker.closer, wire.Reply(), theirs)
    except BaseException:
        worker.closer.hang_up(ours)
        worker.closer.drop(theirs)
        raise


# --- what the steps are made of -----------------------------------------------------------------------------------


async def _agree(worker: Worker, application: Application, request: wire.Request, files: list[int]) -> Terms:
    terms = await agree(worker, request, files)
    await worker.monitor.fresh_trust(terms.policy.trust_store)
    await worker.monitor.fresh_credentials(application)
    if terms.policy.data_path == "ktls":
        raise errors.error("POLICY_DENIED", "data_path is ktls, and no kernel does the records of DTLS")
    return terms


async def _serving(
    worker: Worker, application: Application, request: wire.Request, files: list[int]
) -> DatagramServing:
    terms = await _agree(worker, application, request, files)
    return DatagramServing(worker, application, terms, request.server_name)


def _checked(sock: socket.socket) -> socket.socket:
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.proto != socket.IPPROTO_UDP:
        raise errors.error("NOT_UDP", f"{sock.family.name} {sock.type.name} protocol {sock.proto}")
    return sock


def _peer(sock: socket.socket) -> Any:
    try:
        return _checked(sock).getpeername()
    except OSError as exc:
        if isinstance(exc, errors.SSAError):
            raise
        raise errors.error("NOT_CONNECTED", exc.strerror or "") from exc


def _bound(sock: socket.socket) -> socket.socket:
    if not _checked(sock).getsockname()[1]:
        raise errors.error("NOT_LISTENING", "it is not bound to a port")
    return sock


def _port(worker: Worker, sock: socket.socket, greet: Greet | None = None) -> Port:
    """A port on the application's socket, counted as its user's. Raises `ssa.SSAError` OVERLOADED."""

    def close(sock: socket.socket) -> None:
        worker.closer.drop(sock)
        worker.quota.give(_PORT)

    with contextlib.ExitStack() as undo:
        worker.quota.take(_PORT)
        undo.callback(worker.quota.give, _PORT)
        ours = twin(sock)
        undo.callback(worker.closer.drop, ours)
        port = Port(ours, close, worker.log, greet)
        undo.pop_all()
    return port


def _made(
    application: Application, association: Association, judge: Judge, terms: Terms, presented: Presented = NOTHING
) -> Made:
    """The facts of a completed handshake over datagrams. The kernel knows no session, so the key has no cookie."""
    local, remote = association.local, association.address
    family = socket.AF_INET if len(remote) == 2 else socket.AF_INET6
    key = SocketKey(family, local[:2], remote[:2], interface=0, cookie=0)
    return Made(application, association.engine, judge, key, presented=presented, with_chain=terms.with_chain)


class _Door(ABC):
    """A server's port: it answers ClientHellos, and makes a session of each client that returns its cookie."""

    def __init__(self, worker: Worker, application: Application, serving: DatagramServing, sock: socket.socket) -> None:
        self._worker = worker
        self._application = application
        self._serving = serving
        self._begun = Crowd(_MOST_BEGUN)
        self._cookies = Cookies(trio.current_time())
        self._spare: tuple[Terms, DatagramServer] | None = None  # which no client has taken yet
        self._turn = trio.Lock()
        self.port = _port(worker, sock, self._greet_untrusted)

    def _greet_untrusted(self, datagram: bytes, key: bytes, address: Any, way: Way) -> None:
        """Answer a first ClientHello with a cookie, and forget it; begin a session for one that has its cookie."""
        if not self._has_room():
            return
        try:
            terms, engine = self._engine()
            known, answer = engine.listen_untrusted(datagram, self._cookies.of(key, trio.current_time()))
        except errors.SSAError as exc:
            self._spare = None
            self._worker.log.debug("a datagram from %s: %s", address, exc)
            return
        if known:
            self._spare = None
            engine.fit(self.port.mtu(address))
            hello = records.hello_untrusted(datagram)
            association = Association(self.port, address, engine, hello=hello, way=way)
            association.received = len(datagram)
            self.port.start_soon(self._serve, association, terms)
        elif answer:
            self.port.send([answer], address, way)

    def _engine(self) -> tuple[Terms, DatagramServer]:
        """The engine for the next client. It is kept until a client returns its cookie: a flood costs no memory."""
        self._worker.monitor.look_soon(self._application)  # a client's second hello finds what has changed
        terms, serving = self._serving.terms(), self._serving
        if self._spare is None or self._spare[0] is not terms:
            context = serving.context(None)
            asks, alpn = terms.ask_certificate, terms.policy.alpn
            engine = DatagramServer(context, serving.context, alpn, asks, 0, optional=terms.optional)
            self._spare = terms, engine
        return self._spare

    async def _serve(self, handshake: Association, terms: Terms) -> None:
        admitted = False
        judge = Judge(self._worker.monitor, terms, None, steps.since(trio.current_time()))
        try:
            with (
                self._worker.crowd.place(),
                self._begun.place(),
                steps.deadline(terms.policy.handshake_timeout),
            ):
                if terms.ask_certificate:
                    await self._worker.monitor.fresh_trust(terms.policy.trust_store)
                async with self._turn:  # to begin takes a signature: one of a port in each round of the event loop
                    await trio.lowlevel.checkpoint()
                await handshake.start()
                chain = await handshake.peer_chain()
                verdict = handshake.verdict(judge, chain)
                await handshake.finish(verdict)
            if handshake.established:
                presented = self._serving.presented(handshake.engine)
                await self._admit(handshake, _made(self._application, handshake, judge, terms, presented))
                admitted = True
        except errors.SSAError as exc:
            self._worker.monitor.refused(Refusal.of(exc, self._application, request="datagrams"))
        finally:
            if not admitted:
                handshake.abort()

    def listed(self) -> contextlib.AbstractContextManager[None]:
        """List the listener under /ssa/listeners while the block runs."""
        return self._worker.listed(self._application, self.port.local, lambda: self._serving, "DTLS")

    @abstractmethod
    def _has_room(self) -> bool:
        """True where another client could be served now."""

    @abstractmethod
    async def _admit(self, association: Association, made: Made) -> None:
        """Hand over the session of a client whose handshake is done."""


class _Listening(_Door):
    """A server that gives each client a descriptor of its own."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        worker: Worker,
        application: Application,
        serving: DatagramServing,
        sock: socket.socket,
        connection: socket.socket,
        backlog: int,
    ) -> None:
        super().__init__(worker, application, serving, sock)
        self._connection = connection
        self._backlog = backlog
        self._ready = 0  # that the application has not taken
        self._delivering = trio.Lock()

    async def renew(self, request: wire.Listen, files: list[int]) -> None:
        """Go on with other options. Raises `ssa.SSAError`; then it is served as before."""
        self._serving = await _serving(self._worker, self._application, request, files)
        self._spare = None

    def _has_room(self) -> bool:
        return self._ready < self._backlog and len(self.port.living) < _MOST

    async def _admit(self, association: Association, made: Made) -> None:
        session = Datagrams(self._worker, association)
        live = self._worker.sockets.register(made, session)
        self._ready += 1
        try:
            with session.hand_over(description(live, whole=made.with_chain)) as handover:
                await self._worker.monitor.told()
                async with self._delivering:
                    await ipc.send(self._connection, handover.reply, *handover.passed)
        except OSError as exc:
            self._worker.log.debug(
                "listener of pid %d: its application went away: %s", self._application.pid, exc.strerror
            )
        finally:
            self._ready -= 1


class _Gathering(_Door):
    """A server that has all clients on one descriptor, where the client's address precedes each packet."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        worker: Worker,
        application: Application,
        serving: DatagramServing,
        sock: socket.socket,
        ours: socket.socket,
        inode: int,
    ) -> None:
        super().__init__(worker, application, serving, sock)
        self._ours = ours
        self._inode = inode  # of the other end

    async def relay(self) -> None:
        """Send what the application writes, until it closes its end."""
        try:
            with self.listed():
                await packets(self._ours, self._send, partial(ipc.in_a_thread, self._worker))
        finally:
            self.port.open = False
            for association in list(self.port.living):
                association.end()
            self.port.close()
            self._worker.closer.hang_up(self._ours)

    async def _send(self, packet: bytes) -> None:
        association = self.port.associations.get(packet[: addresses.SIZE])
        if association is not None:
            try:
                await association.seal_and_send(packet[addresses.SIZE :])
            except errors.SSAError as exc:
                self._worker.log.info(
                    "a session over datagrams has failed %s", fields(reason=exc.reason, detail=exc.detail)
                )
                association.abort()

    def _has_room(self) -> bool:
        return True

    async def _admit(self, association: Association, made: Made) -> None:
        """Admit a session. If there are too many, it replaces the one that was silent for longest."""
        if len(self.port.living) > _MOST:
            min(self.port.living, key=lambda other: other.heard).end()
        self._worker.sockets.register(made, Gathered(self._worker, association, self._ours, self._inode))
