"""The pipeline's steps on a TCP socket."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.handshake import driver, records, tickets
from ssa.handshake.secrets import application_secrets
from ssa.ktls.constants import TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_SYN_RECV, TCP_SYN_SENT
from ssa.ktls.control import shut_down, tcp_state
from ssa.ktls.diag import SocketKey
from ssa.ktls.install import attach
from ssa.ktls.rekey import TrafficSecrets
from ssa.ktls.tcp import shows
from ssa.names import normalise
from ssa.policy.hosts import denial, peer, refusal
from ssa.protocol.wire import Accept, Connect
from ssa.relay import reason_for
from ssa.suites import TLSVersion
from ssa.tls import HANDSHAKE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from OpenSSL import SSL

    from ssa.handshake.engine import Engine
    from ssa.handshake.secrets import TrafficKeys
    from ssa.handshake.session_cache import Resumption
    from ssa.ktls.probe import Capabilities
    from ssa.policy.schema import Policy
    from ssa.worker.server_context import Serving
    from ssa.worker.terms import Terms
    from ssa.worker.user import User

_GREETING = 64  # bytes to show
_TCP = [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) for family in (socket.AF_INET, socket.AF_INET6)]


def sni_of(hostname: str) -> str | None:
    """The name for SNI: a DNS name, never an address (RFC 6066 section 3)."""
    return hostname if isinstance(normalise(hostname), str) else None


@dataclass(frozen=True, slots=True)
class Connection:
    """A TCP socket and its key. The key is taken now, as a connection that has ended no longer tells its addresses.

    Attributes:
        deferred: connect(2) has sent nothing yet (TCP_FASTOPEN_CONNECT, tcp(7)): our first flight opens the connection.
    """

    sock: socket.socket
    key: SocketKey
    deferred: bool = False


async def connected(sock: socket.socket, patience: float, began: float, *, speaks_first: bool = True) -> Connection:
    """The connection of a socket. If it is being made, wait for it until `patience` seconds after `began`.

    A client does not wait for a connection that TCP_FASTOPEN_CONNECT has put off (tcp(7)): its ClientHello opens it.

    Raises `ssa.SSAError` for anything but a TCP socket that is open in both directions.
    """
    if (sock.family, sock.type, sock.proto) not in _TCP:
        raise errors.error("NOT_TCP", f"{sock.family.name} {sock.type.name} protocol {sock.proto}")
    half_closed, state = _ends(sock)
    deferred = state == TCP_SYN_SENT and shows(sock, select.POLLOUT)  # connect(2) has sent nothing: poll(2) invites to
    if deferred and not speaks_first:
        with contextlib.suppress(OSError):  # to send nothing makes the connection; what becomes of it, the state tells
            sock.send(b"", socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        deferred = False
    if not deferred and state in _BEING_MADE:
        with deadline(patience, began, "CONNECT_TIMEOUT"):
            await opened(sock)
    elif not deferred:
        _refuse_unopened(sock, state, half_closed=half_closed)
    try:
        return Connection(sock, SocketKey.of(sock), deferred)
    except OSError as exc:
        raise errors.error("NOT_CONNECTED", exc.strerror or "") from exc


async def opened(sock: socket.socket) -> None:
    """Wait while the connection is being made. Raises `ssa.SSAError` where it is not open in both directions then."""
    while True:
        half_closed, state = _ends(sock)
        if state not in _BEING_MADE:
            break
        if shows(sock, select.POLLOUT):  # with TCP's fast open that does not mean that the connection is made
            await trio.sleep(driver.POLL)
        else:
            await trio.lowlevel.wait_writable(sock)
    _refuse_unopened(sock, state, half_closed=half_closed)


_BEING_MADE = (TCP_SYN_SENT, TCP_SYN_RECV)


def _ends(sock: socket.socket) -> tuple[bool, int]:
    """Returns whether the connection is half closed for reading, and the TCP state, which does not tell that.

    The order of the two matters: a FIN that arrives in between shows as CLOSE_WAIT.
    """
    return shows(sock, select.POLLRDHUP), tcp_state(sock)


def _refuse_unopened(sock: socket.socket, state: int, *, half_closed: bool) -> None:
    """Raise `ssa.SSAError` where a connection is not open in both directions."""
    if failed := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise driver.network_error(OSError(failed, os.strerror(failed)))
    if state == TCP_CLOSE_WAIT:
        raise errors.error("PEER_CLOSED")
    if state != TCP_ESTABLISHED or half_closed:
        raise errors.error("NOT_CONNECTED", "a TLS handshake wants a connection that is open in both directions")


def refuse_host(policy: Policy, hostname: str, address: str) -> None:
    """Refuse a host that programs may not connect to. Raises `ssa.PolicyError`; nothing was sent to it by then."""
    if not policy.denied_hosts and not policy.allowed_hosts:
        return
    host = peer(hostname, address)
    for setting, reason in (
        ("denied_hosts", denial(policy.denied_hosts, host)),
        ("allowed_hosts", refusal(policy.allowed_hosts, host)),
    ):
        if reason:
            raise errors.error("POLICY_DENIED", f"{setting}: {reason}")


def refuse_plaintext(sock: socket.socket, request: Connect | Accept, ahead: bytes = b"") -> None:
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


def attached(sock: socket.socket, terms: Terms, kernel: Capabilities) -> str:
    """Attach the kernel's TLS to the socket. Returns the reason for relaying instead, if any. Raises `ssa.SSAError`."""
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


def first_context(serving: Serving, sock: socket.socket) -> SSL.Context:
    """The context with which a server begins, before the client names a host. Without one, the client gets an alert."""
    try:
        return serving.context(None)
    except errors.SSAError as exc:
        driver.send_farewell(sock, records.plain_alert(exc.alert or "internal_error"))
        raise


@contextlib.contextmanager
def deadline(seconds: float, began: float | None = None, reason: str = "HANDSHAKE_TIMEOUT") -> Iterator[None]:
    """Limit a block to `seconds` from `began` on trio's clock, or from now. Raises `ssa.HandshakeTimeout`."""
    with trio.move_on_at((trio.current_time() if began is None else began) + seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise errors.error(reason, f"{seconds:g} s")


def since(began: float) -> Callable[[], float]:
    """A function that returns the seconds since a moment of trio's clock."""
    return lambda: trio.current_time() - began


@contextlib.contextmanager
def ending(sock: socket.socket) -> Iterator[None]:
    """Shut the connection down if the block raises anything."""
    try:
        yield
    except BaseException:
        shut_down(sock)
        raise


async def keys(
    user: User, engine: Engine, connection: Connection, resumption: Resumption, *, plain_reads: bool
) -> TrafficKeys:
    """The keys for the kernel. If the application will use `plain_reads`, read the session tickets first."""
    if not plain_reads:
        return engine.keys()
    server = (resumption.server.hostname, connection.key.remote, engine.resumed)
    drain = tickets.Drain(engine.keys(), connection.sock, engine.from_alert)
    await drain.run(user.tickets.expected(server))
    user.tickets.saw(server, drain.tickets)
    user.monitor.count("tickets", drain.tickets)
    resumption.tickets = drain.messages
    return drain.keys


def next_secrets(engine: Engine, kernel: Capabilities) -> TrafficSecrets | None:
    """The secrets that the next keys are made of; None for TLS 1.2, and for a kernel that cannot change keys."""
    if engine.version is not TLSVersion.TLSv1_3 or not kernel.rekey:
        return None
    return TrafficSecrets(*application_secrets(engine.secrets, engine.role))
