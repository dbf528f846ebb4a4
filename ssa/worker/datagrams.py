"""DTLS for applications: the same requests as for TLS, on a UDP socket, which stays here.

What the application gets in its place is one end of a SOCK_SEQPACKET pair: a datagram is a packet, the peer's
close_notify an end of file, and the end of this process a hang-up, which is another thing (`ssa.library.dtlssocket`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from ssa import errors
from ssa.daemon import who
from ssa.daemon.quota import Crowd
from ssa.daemon.registry import Application, LiveSocket, shared
from ssa.dtls import records
from ssa.dtls.association import Association
from ssa.dtls.cookies import Cookies
from ssa.dtls.engine import DatagramClient, DatagramServer
from ssa.dtls.port import Port
from ssa.dtls.queue import Queue, packets
from ssa.handshake.refusal import explaining
from ssa.ktls.diag import KernelState, SocketKey
from ssa.logfmt import fields
from ssa.protocol import addresses, wire
from ssa.worker import ipc as requests
from ssa.worker.closing import drop, hang_up
from ssa.worker.pipeline import Judge, deadline, sni_of
from ssa.worker.post_handshake import description
from ssa.worker.server_context import DatagramServing
from ssa.worker.terms import agree, hostname_untrusted

if TYPE_CHECKING:
    from ssa.dtls.port import Greet
    from ssa.dtls.udp import Way
    from ssa.worker.service import Service
    from ssa.worker.terms import Terms

_log = logging.getLogger("ssa.daemon")

_MOST = 4096  # sessions on a port
_MOST_BEGUN = 256  # of those whose handshake is under way: strangers begin them
_PORT = 2  # descriptors: the UDP socket, and the end of a pair where all sessions share one
_PROTOCOL = "DTLSv1.2"
_OURS = "relay"  # who encrypts and decrypts
_WHY = "DTLS is never the kernel's"


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAssociation(LiveSocket):
    """A session over datagrams, as the registry has it: what the kernel knows of others is known here."""

    association: Association

    @property
    def protocol(self) -> str:
        """The protocol and its version."""
        return _PROTOCOL

    def told(self) -> dict[str, Any]:
        """The addresses, which the application's end of the pair does not know, and how much goes into a datagram."""
        of = self.association
        return {"peer": of.key, "local": addresses.packed(of.local), "largest": of.largest}

    def kernel(self) -> KernelState:
        """Our own word on this session, in the kernel's place."""
        sent, received = self.association.sent, self.association.received
        state = "ended by the peer" if self.association.engine.closed else "open"
        return KernelState(_PROTOCOL, self.association.engine.suite.aead.name, _OURS, _OURS, sent, received, state)

    def end(self) -> None:
        """End the session; who holds the socket finds it cut."""
        self.association.end()


async def connect(
    service: Service, application: Application, request: wire.Connect, sock: socket.socket, files: list[int]
) -> requests.Handover:
    """Make a session with the peer that the application's UDP socket is connected to. Raises `ssa.SSAError`."""
    hostname = hostname_untrusted(request.hostname or "")
    terms = await _agree(service, request, files)
    address = _peer(sock)
    context = service.contexts.datagrams("client", terms.policy, terms.credentials)
    judge = Judge(service, terms, hostname)
    port = _port(service, application, sock)
    try:
        await port.start()
        engine = DatagramClient(context, sni_of(hostname), terms.policy.alpn, port.mtu(address))
        association = Association(port, address, engine, judge)
        with explaining(engine, terms.policy), deadline(terms.policy.handshake_timeout):
            await association.handshake()
        return _hand_over(service, application, association, judge)
    except BaseException:
        port.close()
        raise


async def listen(  # noqa: PLR0913, PLR0917 - as `accepting.run`, which knows the socket by now
    service: Service,
    application: Application,
    request: wire.Listen,
    packet: requests.Packet,
    sock: socket.socket,
    connection: socket.socket,
) -> None:
    """Serve a bound UDP socket until the application closes its end: a reply with a descriptor for each client.

    The sessions that have been handed over by then go on. Raises `ssa.SSAError` for what is wrong with the request.
    """
    serving = await _serving(service, application, request, packet.descriptors)
    await packet.close_files()
    backlog = max(1, min(request.backlog or 128, _MOST))
    door = _Listening(service, application, serving, _bound(sock), connection, backlog)
    try:
        await door.port.start()
        if await requests.send(connection, wire.Reply()):
            with door.listed():
                await requests.follow(connection, application, service.quota, door.renew)
    finally:
        door.port.shut()


async def gather(
    service: Service, application: Application, request: wire.Gather, sock: socket.socket, files: list[int]
) -> requests.Handover:
    """Serve a bound UDP socket: all clients on one descriptor. Raises `ssa.SSAError`."""
    serving = await _serving(service, application, request, files)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        door = _Gathering(service, application, serving, _bound(sock), ours, service.sockets.watch(theirs))
        await door.port.start()
        door.port.start_soon(door.relay)
        return requests.Handover(wire.Reply(), theirs)
    except BaseException:
        hang_up(ours)
        drop(theirs)
        raise


# --- what the steps are made of -----------------------------------------------------------------------------------


async def _agree(service: Service, request: wire.Request, files: list[int]) -> Terms:
    terms = await agree(service, request, files)
    await service.fresh_trust(terms.policy)
    await service.fresh_credentials()
    if terms.policy.data_path == "ktls":
        raise errors.error("POLICY_DENIED", "data_path is ktls, and no kernel does the records of DTLS")
    return terms


async def _serving(
    service: Service, application: Application, request: wire.Request, files: list[int]
) -> DatagramServing:
    return DatagramServing(service, application, await _agree(service, request, files), request.server_name)


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


def _port(service: Service, application: Application, sock: socket.socket, greet: Greet | None = None) -> Port:
    """A port on the application's socket, counted as its user's. Raises `ssa.SSAError` OVERLOADED."""
    quota, uid = service.quota, application.uid

    def close(sock: socket.socket) -> None:
        drop(sock)
        quota.give(uid, _PORT)

    with contextlib.ExitStack() as undo:
        quota.take(uid, _PORT)
        undo.callback(quota.give, uid, _PORT)
        ours = requests.twin(sock)
        undo.callback(drop, ours)
        port = Port(ours, close, greet)
        undo.pop_all()
    return port


def _hand_over(service: Service, application: Application, association: Association, judge: Judge) -> requests.Handover:
    """The session on a descriptor of its own."""
    service.check_room(application.uid)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    service.quota.take(application.uid)
    live = _live(service, application, association, judge)
    service.sockets.add(live, theirs)
    service.count("handshakes")
    queue = Queue(ours)
    association.deliver_to(queue, queue.end)
    association.port.start_soon(_relay, service, live, ours)
    return requests.Handover(description(live, whole=judge.with_chain), theirs)


async def _relay(service: Service, live: LiveAssociation, ours: socket.socket) -> None:
    """Send what the application writes, until it closes its end or the session is over."""
    association = live.association
    with trio.CancelScope() as scope:
        association.gone = scope.cancel
        if association.over:
            scope.cancel()
        try:
            await packets(ours, association.seal_and_send, requests.in_a_thread)
        except errors.SSAError as exc:
            _log.info("a session over datagrams has failed %s", fields(reason=exc.reason, detail=exc.detail))
        finally:
            association.end()
            service.sockets.forget(live.id)
            hang_up(ours)
            service.quota.give(live.uid)


def _live(service: Service, application: Application, association: Association, judge: Judge) -> LiveAssociation:
    service.note_relayed(_WHY)
    engine, local, remote = association.engine, association.local, association.address
    family = socket.AF_INET if len(remote) == 2 else socket.AF_INET6
    return LiveAssociation(
        id=service.sockets.new_id(),
        key=SocketKey(family, local[:2], remote[:2], interface=0, cookie=0),
        application=shared(who.confirmed(application)),
        role=engine.role,
        hostname=shared(judge.hostname or engine.server_name),
        identity=shared(judge.verified.identity),
        chain=judge.chain,
        verdicts=shared(judge.verified.verdicts),
        suite=engine.suite.name,
        group=shared(engine.group),
        alpn=shared(engine.alpn),
        resumed=engine.resumed,
        data_path="relay",
        profile="",
        opened=time.time(),
        diag=None,
        complies=service.complies,
        secrets=None,
        association=association,
        **judge.kept(),
    )


class _Door(ABC):
    """A server's port: what comes before a session."""

    def __init__(
        self, service: Service, application: Application, serving: DatagramServing, sock: socket.socket
    ) -> None:
        self._service = service
        self._application = application
        self._serving = serving
        self._begun = Crowd(lambda _: _MOST_BEGUN)
        self._cookies = Cookies(trio.current_time())
        self._spare: tuple[Terms, DatagramServer] | None = None  # which no client has taken yet
        self._turn = trio.Lock()
        self.port = _port(service, application, sock, self._greet_untrusted)

    def _greet_untrusted(self, datagram: bytes, key: bytes, address: Any, way: Way) -> None:
        """A first hello is answered and forgotten, whatever it says; one with its cookie begins a session."""
        if not self._has_room():
            return
        try:
            terms, engine = self._engine()
            known, answer = engine.listen_untrusted(datagram, self._cookies.of(key, trio.current_time()))
        except errors.SSAError as exc:
            self._spare = None
            _log.debug("a datagram from %s: %s", address, exc)
            return
        if known:
            self._spare = None
            engine.fit(self.port.mtu(address))
            judge = Judge(self._service, terms, None)
            hello = records.hello_untrusted(datagram)
            association = Association(self.port, address, engine, judge, hello=hello, way=way)
            association.received = len(datagram)
            self.port.start_soon(self._serve, association, judge, terms)
        elif answer:
            self.port.send([answer], address, way)

    def _engine(self) -> tuple[Terms, DatagramServer]:
        """One for whoever comes next. It is kept until somebody has its cookie, so that a flood costs no memory."""
        self._service.look_soon()  # a client's second hello finds what has changed
        terms, serving = self._serving.terms(), self._serving
        if self._spare is None or self._spare[0] is not terms:
            context = serving.context(None)
            engine = DatagramServer(context, serving.context, terms.policy.alpn, terms.ask_certificate, 0)
            self._spare = terms, engine
        return self._spare

    async def _serve(self, association: Association, judge: Judge, terms: Terms) -> None:
        admitted = False
        try:
            uid = self._application.uid
            with (
                self._service.crowd.place(uid),
                self._begun.place(uid),
                deadline(terms.policy.handshake_timeout),
            ):
                if terms.ask_certificate:
                    await self._service.fresh_trust(terms.policy)
                async with self._turn:  # to begin takes a signature: one of a port in each round of the event loop
                    await trio.lowlevel.checkpoint()
                await association.handshake()
            if association.established:
                judge.presented = self._serving.presented(association.engine)
                await self._admit(association, judge)
                admitted = True
        except errors.SSAError as exc:
            self._service.count_failure(exc)
            requests.log_refusal(self._application, exc, request="datagrams")
        finally:
            if not admitted:
                association.abort()

    def listed(self) -> contextlib.AbstractContextManager[None]:
        """A block in which /ssa shows who listens here."""
        return self._service.listed(self._application, self.port.local, lambda: self._serving, "DTLS")

    @abstractmethod
    def _has_room(self) -> bool:
        """Whether another client could be served now."""

    @abstractmethod
    async def _admit(self, association: Association, judge: Judge) -> None:
        """A client whose handshake is done."""


class _Listening(_Door):
    """Each client on a descriptor of its own."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        service: Service,
        application: Application,
        serving: DatagramServing,
        sock: socket.socket,
        connection: socket.socket,
        backlog: int,
    ) -> None:
        super().__init__(service, application, serving, sock)
        self._connection = connection
        self._backlog = backlog
        self._ready = 0  # that the application has not taken
        self._delivering = trio.Lock()

    async def renew(self, request: wire.Listen, files: list[int]) -> None:
        """Go on with other options. Raises `ssa.SSAError`; then it is served as before."""
        self._serving = await _serving(self._service, self._application, request, files)
        self._spare = None

    def _has_room(self) -> bool:
        return self._ready < self._backlog and len(self.port.living) < _MOST

    async def _admit(self, association: Association, judge: Judge) -> None:
        handover = _hand_over(self._service, self._application, association, judge)
        self._ready += 1
        try:
            with handover:
                async with self._delivering:
                    await requests.send(self._connection, handover.reply, *handover.passed)
        except OSError as exc:
            _log.debug("listener of pid %d: its application went away: %s", self._application.pid, exc.strerror)
        finally:
            self._ready -= 1


class _Gathering(_Door):
    """All clients on one descriptor, each packet behind whose it is."""

    def __init__(  # noqa: PLR0913, PLR0917 - what it is made of
        self,
        service: Service,
        application: Application,
        serving: DatagramServing,
        sock: socket.socket,
        ours: socket.socket,
        inode: int,
    ) -> None:
        super().__init__(service, application, serving, sock)
        self._ours = ours
        self._inode = inode  # of the other end

    async def relay(self) -> None:
        """Send what the application writes, until it closes its end."""
        try:
            with self.listed():
                await packets(self._ours, self._send, requests.in_a_thread)
        finally:
            self.port.open = False
            for association in list(self.port.living):
                association.end()
            self.port.close()
            hang_up(self._ours)

    async def _send(self, packet: bytes) -> None:
        association = self.port.associations.get(packet[: addresses.SIZE])
        if association is not None:
            try:
                await association.seal_and_send(packet[addresses.SIZE :])
            except errors.SSAError as exc:
                _log.info("a session over datagrams has failed %s", fields(reason=exc.reason, detail=exc.detail))
                association.abort()

    def _has_room(self) -> bool:
        return True

    async def _admit(self, association: Association, judge: Judge) -> None:
        """The application has no way to end a session: so the one that was silent for longest gives way to this one."""
        if len(self.port.living) > _MOST:
            min(self.port.living, key=lambda other: other.heard).end()
        live = _live(self._service, self._application, association, judge)
        self._service.sockets.join(live, self._inode)
        self._service.count("handshakes")
        farewell = addresses.packed(association.address, addresses.GONE)

        def gone() -> None:
            queue.end()
            self._service.sockets.forget(live.id)

        queue = Queue(self._ours, association.key, farewell)
        association.gone = gone
        association.deliver_to(queue, association.abort)
