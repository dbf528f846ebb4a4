"""A request's way through the daemon: one step a line, top to bottom. Read this file first."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import select
import socket
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from ssa import errors, trust
from ssa.daemon.registry import Application, LiveSocket, shared
from ssa.daemon.who import confirmed
from ssa.handshake import driver, records, tickets
from ssa.handshake.client import ClientEngine
from ssa.handshake.contexts import withheld
from ssa.handshake.refusal import explaining
from ssa.handshake.secrets import application_secrets
from ssa.handshake.server import ServerEngine
from ssa.handshake.session_cache import Server
from ssa.ktls.constants import TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_RECV, TCP_SYN_SENT
from ssa.ktls.control import shut_down, tcp_state
from ssa.ktls.diag import SocketKey
from ssa.ktls.install import attach, install, limit
from ssa.ktls.rekey import TrafficSecrets
from ssa.ktls.tcp import shows
from ssa.protocol.wire import Accept, Connect, Reply
from ssa.relay import reason_for, reason_for_limit, reason_for_suite
from ssa.suites import TLSVersion
from ssa.tls import HANDSHAKE
from ssa.worker.closing import drop
from ssa.worker.ipc import Handover, twin
from ssa.worker.post_handshake import description
from ssa.worker.server_context import NOTHING, Serving
from ssa.worker.terms import agree, ahead_untrusted, hostname_untrusted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from OpenSSL import SSL

    from ssa.handshake.engine import Engine
    from ssa.handshake.secrets import TrafficKeys
    from ssa.handshake.session_cache import Harvest, Resumption
    from ssa.ktls.diag import Diag
    from ssa.ktls.probe import Capabilities
    from ssa.relay import Relay
    from ssa.trust import Verified
    from ssa.worker.service import Service
    from ssa.worker.terms import Terms


async def connect(
    service: Service, application: Application, request: Connect, sock: socket.socket, files: list[int]
) -> Reply | Handover:
    """Make the application's connected TCP socket a TLS socket, as a client.

    Raises `ssa.SSAError`. From the first byte sent on, a failure has ended the connection: a socket that an
    application might still write plain text to must not be left behind.
    """
    hostname = hostname_untrusted(request.hostname or "")
    terms = await agree(service, request, files)
    await service.fresh_trust(terms.policy)
    began = trio.current_time()
    with deadline(terms.policy.handshake_timeout, began, "CONNECT_TIMEOUT"):
        connection = await _connected(service, sock)
    kernel = service.kernel_tls(terms.policy)
    relayed = "" if connection.deferred else _attach(sock, terms, kernel)
    _refuse_plaintext(sock, request)
    context = service.contexts.client(terms.policy, kernel, terms.credentials)
    judge = Judge(service, terms, hostname)
    server = Server(application.uid, hostname, connection.key.remote[1], context, terms.policy.alpn, terms.anchors)
    resumption = service.sessions.resume(server, terms.policy.session_ttl, judge.trusts)
    engine = ClientEngine(context, sni_of(hostname), terms.policy.alpn, resumption.session)
    with _ending(sock), resumption:
        with (
            explaining(engine, terms.policy, partial(withheld, terms.policy, kernel)),
            deadline(terms.policy.handshake_timeout, began),
        ):
            await driver.start(engine, sock)
            if connection.deferred:  # until now: that was the data that it waited for
                await _open(sock)
                relayed = _attach(sock, terms, kernel)
            await driver.run(engine, sock, judge)
            judge.session_age = resumption.age if engine.resumed else 0
            if relayed := relayed or reason_for_suite(engine.suite, kernel):
                harvest = resumption.harvest(judge.chain, engine)
                return _relay(service, application, engine, judge, connection, reason=relayed, harvest=harvest)
            keys = engine.keys() if request.control else await _take_tickets(service, engine, connection, resumption)
        install(sock, keys.tx, keys.rx)
        live = _register(service, application, engine, judge, connection, secrets=_next_secrets(engine, kernel))
        resumption.keep(live.id, live.chain, engine)
    return description(live, whole=terms.with_chain)


async def accept(
    service: Service, application: Application, request: Accept, sock: socket.socket, files: list[int]
) -> Reply | Handover:
    """Make the application's connected TCP socket a TLS socket, as a server. Raises as `connect`."""
    terms = await agree(service, request, files)
    await service.fresh_credentials()
    serving = Serving(service, application, terms, request.server_name)
    ahead = ahead_untrusted(request)
    _refuse_plaintext(sock, request, ahead)
    return await serve(service, application, serving, sock, ahead)


async def serve(
    service: Service, application: Application, serving: Serving, sock: socket.socket, ahead: bytes = b""
) -> Reply | Handover:
    """The same for one connection of a listener. `ahead` was read from it already. Raises `ssa.SSAError`."""
    terms = serving.terms()
    await service.fresh_credentials()
    if terms.ask_certificate:
        await service.fresh_trust(terms.policy)
    began = trio.current_time()
    with deadline(terms.policy.handshake_timeout, began, "CONNECT_TIMEOUT"):
        connection = await _connected(service, sock, speaks_first=False)
    kernel = service.kernel_tls(terms.policy)
    relayed = _attach(sock, terms, kernel)
    context = _first_context(serving, sock)
    engine = ServerEngine(context, serving.context, terms.policy.alpn, terms.ask_certificate)
    judge = Judge(service, terms, None)
    with _ending(sock):
        with (
            explaining(engine, terms.policy, partial(withheld, terms.policy, kernel)),
            deadline(terms.policy.handshake_timeout, began),
        ):
            await driver.run(engine, sock, judge, ahead)
        judge.presented = serving.presented(engine)
        largest, path = engine.largest, terms.policy.data_path
        if relayed := relayed or reason_for_suite(engine.suite, kernel) or reason_for_limit(largest, path, kernel):
            return _relay(service, application, engine, judge, connection, reason=relayed)
        keys = engine.keys()
        if largest:
            limit(sock, largest)
        install(sock, keys.tx, keys.rx)
        live = _register(service, application, engine, judge, connection, secrets=_next_secrets(engine, kernel))
    return description(live, whole=terms.with_chain)


def _first_context(serving: Serving, sock: socket.socket) -> SSL.Context:
    """A server's context before its client has said a word. Where there is none by now, the client is told."""
    try:
        return serving.context(None)
    except errors.SSAError as exc:
        driver.send_farewell(sock, records.plain_alert(exc.alert or "internal_error"))
        raise


# --- what the steps are made of -----------------------------------------------------------------------------------


def sni_of(hostname: str) -> str | None:
    """What SNI says: a DNS name, never an address (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return hostname
    return None


@dataclass(frozen=True, slots=True)
class _Connection:
    """The descriptor, and how to find its socket again: a connection that has ended meanwhile no longer tells."""

    sock: socket.socket
    key: SocketKey
    diag: Diag | None
    deferred: bool = False  # our first flight is what will open it


def _refuse_plaintext(sock: socket.socket, request: Connect | Accept, ahead: bytes = b"") -> None:
    """Refuse what was sent behind the agreement on TLS, before TLS: an attacker could have put it there (RFC 3207, 6).

    A server that is upgraded speaks second: nothing can be there for a client. For a server there can be, and is
    as a rule, the ClientHello: a handshake record, and so nothing that the protocol before could have meant. It can be
    `ahead`, where the application has read it already.
    """
    if not request.upgrade:
        return
    try:
        waiting = ahead[:_GREETING] or sock.recv(_GREETING, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return  # nothing is there; an error will come again
    if waiting and (isinstance(request, Connect) or waiting[0] != HANDSHAKE):
        shut_down(sock)
        raise errors.error("PLAINTEXT_PENDING", repr(waiting)[1:])


_GREETING = 64  # bytes to show


async def _connected(service: Service, sock: socket.socket, *, speaks_first: bool = True) -> _Connection:
    """The connection of a socket; one that is being made is waited for.

    A connection that TCP_FASTOPEN_CONNECT has put off (tcp(7)) is left so where we speak first.

    Raises `ssa.SSAError` for anything but a TCP socket that is open in both directions.
    """
    if (sock.family, sock.type, sock.proto) not in _TCP:
        raise errors.error("NOT_TCP", f"{sock.family.name} {sock.type.name} protocol {sock.proto}")
    deferred = _is_deferred(sock)
    if deferred and not speaks_first:
        with contextlib.suppress(OSError):  # to send nothing makes the connection; what becomes of it, the state tells
            sock.send(b"", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        deferred = False
    if not deferred:
        await _open(sock)
    try:
        return _Connection(sock, SocketKey.of(sock), service.diags.of(sock), deferred)
    except OSError as exc:
        raise errors.error("NOT_CONNECTED", exc.strerror or "") from exc


async def _open(sock: socket.socket) -> None:
    """Wait while the connection is being made. Raises `ssa.SSAError` where it is not open in both directions then."""
    while True:
        half_closed, state = _is_half_closed(sock), tcp_state(sock)  # so a FIN in between shows as what it is
        if state not in (TCP_SYN_SENT, TCP_SYN_RECV):
            break
        if shows(sock, select.POLLOUT):  # with TCP's fast open that does not mean that the connection is made
            await trio.sleep(driver.POLL)
        else:
            await trio.lowlevel.wait_writable(sock)
    if failed := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise driver.network_error(OSError(failed, os.strerror(failed)))
    if state == TCP_CLOSE_WAIT:
        raise errors.error("PEER_CLOSED")
    if state != TCP_ESTABLISHED or half_closed:
        raise errors.error("NOT_CONNECTED", "a TLS handshake wants a connection that is open in both directions")


def _is_deferred(sock: socket.socket) -> bool:
    """Whether connect(2) has sent nothing yet, as it is to go with the first data: poll(2) invites to send it."""
    return tcp_state(sock) == TCP_SYN_SENT and shows(sock, select.POLLOUT)


def _is_half_closed(sock: socket.socket) -> bool:
    """Whether the application has ended its reading side, which the connection's state does not tell."""
    return shows(sock, select.POLLRDHUP)


_TCP = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) for family in (socket.AF_INET, socket.AF_INET6)]


def _attach(sock: socket.socket, terms: Terms, kernel: Capabilities) -> str:
    """Have the kernel ready for the keys; or why it will be the relay. Raises `ssa.SSAError`."""
    data_path = terms.policy.data_path
    if reason := reason_for(data_path, kernel, asked=terms.asks_for_relay):
        return reason
    try:
        attach(sock)
    except errors.SSAError as exc:
        if exc.reason != "NO_KERNEL_TLS" or data_path == "ktls":
            raise
        return f"this kernel has no TLS any more: {exc.detail}"
    return ""


@contextlib.contextmanager
def deadline(seconds: float, began: float | None = None, reason: str = "HANDSHAKE_TIMEOUT") -> Iterator[None]:
    """A block that may take so long, from now or from a moment of trio's clock on. Raises `ssa.HandshakeTimeout`."""
    with trio.move_on_at((trio.current_time() if began is None else began) + seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise errors.error(reason, f"{seconds:g} s")


@contextlib.contextmanager
def _ending(sock: socket.socket) -> Iterator[None]:
    """From here on whatever goes wrong ends the connection."""
    try:
        yield
    except BaseException:
        shut_down(sock)
        raise


class Judge:
    """Asks ssa.trust for its verdict on a chain, and keeps it for the registry."""

    def __init__(self, service: Service, terms: Terms, hostname: str | None) -> None:
        self._service = service
        self._terms = terms
        self.hostname = hostname  # of the server; None where we are one
        self.with_chain = terms.with_chain  # the reply has it
        self.chain: tuple[bytes, ...] = ()
        self.presented = NOTHING  # our own certificates
        self.session_age = 0.0  # seconds, of the session that was resumed
        self._began = time.monotonic()
        self._verified: Verified | None = None

    def __call__(self, chain: tuple[bytes, ...]) -> Verified:
        """The verdict. Raises `ssa.CertificateError`."""
        verified = self._verdict(chain)
        self.chain, self._verified = chain, verified
        return verified

    def trusts(self, chain: tuple[bytes, ...]) -> bool:
        """Whether the verdict on a chain that is known from before would still be good."""
        try:
            self._verdict(chain)
        except errors.SSAError:
            return False
        return True

    def _verdict(self, chain: tuple[bytes, ...]) -> Verified:
        terms = self._terms
        if self.hostname is None and not terms.ask_certificate:
            return trust.unasked()
        return self._service.judge(terms.policy, self.hostname, chain, terms.anchors, strict=terms.strict)

    def kept(self) -> dict[str, Any]:
        """What the registry keeps of the handshake besides what its engine tells."""
        return {
            "presented": shared(self.presented.chain),
            "credential": shared(self.presented.credential),
            "took": time.monotonic() - self._began,
            "session_age": self.session_age,
        }

    @property
    def verified(self) -> Verified:
        """The verdict."""
        if self._verified is None:
            raise RuntimeError("keys were installed for a peer that nobody judged")
        return self._verified


async def _take_tickets(
    service: Service, engine: Engine, connection: _Connection, resumption: Resumption
) -> TrafficKeys:
    """For a descriptor that plain reads will be made on: what they would stumble over."""
    server = (resumption.server.hostname, connection.key.remote, engine.resumed)
    drain = tickets.Drain(engine.keys(), connection.sock, engine.from_alert)
    await drain.run(service.tickets.expected(server), tickets.patience(connection.sock))
    service.tickets.saw(server, drain.tickets)
    service.count("tickets", drain.tickets)
    resumption.tickets = drain.messages
    return drain.keys


def _relay(  # noqa: PLR0913 - all that the steps before have found
    service: Service,
    application: Application,
    engine: Engine,
    judge: Judge,
    connection: _Connection,
    *,
    reason: str,
    harvest: Harvest | None = None,
) -> Handover:
    """Go on with OpenSSL in the kernel's place: the application's end of a pair goes with the reply."""
    service.check_room(application.uid)
    service.note_relayed(reason)
    if harvest is not None and engine.version is TLSVersion.TLSv1_2:
        harvest.keep(harvest.glean(engine.stream()))  # its ticket came inside the handshake
    sock = twin(connection.sock)
    try:
        relay, outer = service.relays.add(application.uid, engine.stream(), engine.suite, sock, harvest)
    except BaseException as exc:
        drop(sock)
        if isinstance(exc, OSError) and not isinstance(exc, errors.SSAError):
            raise errors.error("NETWORK", exc.strerror or "") from exc
        raise
    live = _register(service, application, engine, judge, connection, relay=relay, outer=outer)
    return Handover(description(live, whole=judge.with_chain), outer)


def _register(  # noqa: PLR0913 - all that the steps before have found
    service: Service,
    application: Application,
    engine: Engine,
    judge: Judge,
    connection: _Connection,
    *,
    secrets: TrafficSecrets | None = None,
    relay: Relay | None = None,
    outer: socket.socket | None = None,
) -> LiveSocket:
    """Remember it; it lives as long as some process has what the application holds."""
    chain, verified = judge.chain, judge.verified
    live = LiveSocket(
        id=service.sockets.new_id(),
        key=connection.key,
        application=shared(confirmed(application)),
        role=engine.role,
        hostname=shared(judge.hostname or engine.server_name),
        identity=shared(verified.identity),
        chain=shared(chain) if sum(map(len, chain)) <= _SHARED else chain,
        verdicts=shared(verified.verdicts),
        suite=engine.suite.name,
        group=shared(engine.group),
        alpn=shared(engine.alpn),
        resumed=engine.resumed,
        data_path="ktls" if relay is None else "relay",
        profile="",
        opened=time.time(),
        diag=connection.diag,
        complies=service.complies,
        secrets=secrets,
        relay=relay,
        **judge.kept(),
    )
    service.sockets.add(live, connection.sock if outer is None else outer)
    service.count("handshakes")
    service.count("resumed", int(engine.resumed))
    return live


def _next_secrets(engine: Engine, kernel: Capabilities) -> TrafficSecrets | None:
    """What a change of keys will need; TLS 1.2 and older kernels know none."""
    if engine.version is not TLSVersion.TLSv1_3 or not kernel.rekey:
        return None
    return TrafficSecrets(*application_secrets(engine.secrets, engine.role))


_SHARED = 16 * 1024  # bytes of certificates: a longer chain is no usual one, and shall not outlive its socket
