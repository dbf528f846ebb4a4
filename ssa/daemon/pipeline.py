"""A request's way through the daemon: one step a line, top to bottom. Read this file first."""

from __future__ import annotations

import contextlib
import ipaddress
import select
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.daemon.registry import Application, LiveSocket, shared
from ssa.handshake import driver, tickets
from ssa.handshake.engine import ClientEngine
from ssa.ktls.constants import TCP_CLOSE_WAIT, TCP_ESTABLISHED
from ssa.ktls.diag import SocketKey
from ssa.ktls.install import attach, install, shut_down
from ssa.names import normalise
from ssa.policy.resolve import Narrowing, narrow
from ssa.wire import Connect, Reply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssa.daemon.service import Service
    from ssa.handshake.secrets import TrafficKeys
    from ssa.ktls.diag import Diag
    from ssa.policy.schema import Policy
    from ssa.trust import Verified


async def connect(service: Service, application: Application, request: Connect, sock: socket.socket) -> Reply:
    """Make the application's connected TCP socket a TLS socket, as a client.

    Raises `ssa.SSAError`. From the first byte sent on, a failure has ended the connection: a socket that an
    application might still write plain text to must not be left behind.
    """
    hostname = _hostname_untrusted(request.hostname)
    policy = narrow(service.policy.current, _narrowing(request))
    _check_data_path(policy)
    connection = _connection(service, sock)
    attach(sock)
    context = service.contexts.client(policy, service.kernel_tls())
    engine = ClientEngine(context, _server_name(hostname), policy.alpn)
    judge = _Judge(service, policy, hostname)
    try:
        with _deadline(policy.handshake_timeout):
            await driver.run(engine, sock, judge)
            keys = await _take_tickets(service, engine.keys(), connection, hostname)
        install(sock, keys.tx, keys.rx)
        live = _register(service, application, engine, judge.outcome, connection)
    except BaseException:
        shut_down(sock)
        raise
    return Reply(
        socket_id=live.id,
        version=engine.version.label,
        cipher=live.suite,
        alpn=(live.alpn,) if live.alpn else (),
        peer_identity=live.identity,
    )


def _hostname_untrusted(text: str) -> str:
    try:
        return str(normalise(text))
    except ValueError as exc:
        raise errors.error("BAD_VALUE", f"host name: {exc}") from exc


def _server_name(hostname: str) -> str | None:
    """What SNI says: a DNS name, never an address (RFC 6066 section 3)."""
    try:
        ipaddress.ip_address(hostname)
    except ValueError:
        return hostname
    return None


def _narrowing(request: Connect) -> Narrowing:
    timeout = None if request.timeout_ms is None else max(request.timeout_ms, 1) / 1000
    return Narrowing(alpn=request.alpn, handshake_timeout=timeout)


def _check_data_path(policy: Policy) -> None:
    if policy.data_path == "relay":
        raise errors.error("POLICY_DENIED", "data_path is relay, which this version of ssad cannot do")


@dataclass(frozen=True, slots=True)
class _Connection:
    """The descriptor, and how to find its socket again: a connection that has ended meanwhile no longer tells."""

    sock: socket.socket
    key: SocketKey
    diag: Diag | None


def _connection(service: Service, sock: socket.socket) -> _Connection:
    """Raises `ssa.SSAError` for anything but a TCP socket that is open in both directions."""
    if (sock.family, sock.type, sock.proto) not in _TCP:
        raise errors.error("NOT_TCP", f"{sock.family.name} {sock.type.name} protocol {sock.proto}")
    state = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    if state == TCP_CLOSE_WAIT:
        raise errors.error("PEER_CLOSED")
    if state != TCP_ESTABLISHED or _is_half_closed(sock):
        raise errors.error("NOT_CONNECTED", "a TLS handshake wants a connection that is open in both directions")
    try:
        return _Connection(sock, SocketKey.of(sock), service.diags.of(sock))
    except OSError as exc:
        raise errors.error("NOT_CONNECTED", exc.strerror or "") from exc


def _is_half_closed(sock: socket.socket) -> bool:
    """Whether the application has ended its reading side, which the connection's state does not tell."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))


_SHARED = 16 * 1024  # bytes of certificates: a longer chain is no usual one, and shall not outlive its socket

_TCP = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) for family in (socket.AF_INET, socket.AF_INET6)]


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise errors.error("HANDSHAKE_TIMEOUT", f"{seconds:g} s")


@dataclass(frozen=True, slots=True)
class _Outcome:
    """A verdict, and what it was about."""

    hostname: str
    chain: tuple[bytes, ...]
    verified: Verified


class _Judge:
    """Asks ssa.trust for its verdict on a chain, and keeps it for the registry."""

    def __init__(self, service: Service, policy: Policy, hostname: str) -> None:
        self._service = service
        self._policy = policy
        self._hostname = hostname
        self._outcome: _Outcome | None = None

    def __call__(self, chain: tuple[bytes, ...]) -> Verified:
        verified = self._service.judge(self._policy, self._hostname, chain)
        self._outcome = _Outcome(self._hostname, chain, verified)
        return verified

    @property
    def outcome(self) -> _Outcome:
        if self._outcome is None:
            raise RuntimeError("keys were installed for a peer that nobody judged")
        return self._outcome


async def _take_tickets(service: Service, keys: TrafficKeys, connection: _Connection, hostname: str) -> TrafficKeys:
    server = (hostname, connection.key.remote)
    drain = tickets.Drain(keys, connection.sock)
    await drain.run(service.tickets.expected(server), tickets.patience(connection.sock))
    service.tickets.saw(server, drain.tickets)
    service.count("tickets", drain.tickets)
    return drain.keys


def _register(
    service: Service, application: Application, engine: ClientEngine, outcome: _Outcome, connection: _Connection
) -> LiveSocket:
    live = LiveSocket(
        id=service.sockets.new_id(),
        key=connection.key,
        application=shared(application),
        role="client",
        hostname=shared(outcome.hostname),
        identity=shared(outcome.verified.identity),
        chain=shared(outcome.chain) if sum(map(len, outcome.chain)) <= _SHARED else outcome.chain,
        verdicts=shared(outcome.verified.verdicts),
        suite=engine.suite.name,
        group=shared(engine.group),
        alpn=shared(engine.alpn),
        resumed=False,
        data_path="ktls",
        profile="",
        opened=time.time(),
        diag=connection.diag,
        complies=service.complies,
    )
    service.sockets.add(live, connection.sock)
    service.count("handshakes")
    return live
