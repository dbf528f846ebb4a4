"""What is asked about sockets that exist: before their handshake, and for the rest of their lives."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.daemon import farewell, requests
from ssa.daemon.quota import Threads
from ssa.daemon.requests import Handover
from ssa.daemon.terms import agree
from ssa.ktls import control
from ssa.ktls.constants import HANDSHAKE, KEY_UPDATE
from ssa.ktls.rekey import advance_rx, advance_tx, parse_key_update_untrusted
from ssa.suites import SUITES, TLSVersion
from ssa.wire import Reply

if TYPE_CHECKING:
    from ssa.daemon.registry import Application, LiveSocket, TrafficSecrets
    from ssa.daemon.service import Service
    from ssa.suites import Suite
    from ssa.wire import Check, Close, Describe, Rekey, Ticket


async def check(service: Service, request: Check, files: list[int]) -> Reply:
    """Whether options would be accepted, and what the policy makes of them. Raises `ssa.SSAError`."""
    policy = (await agree(service, request, files, complete=False)).policy
    return Reply(session_ttl=policy.session_ttl, version_min=policy.min_version, version_max=policy.max_version)


async def describe(
    service: Service, _application: Application, _request: Describe, sock: socket.socket, _files: list[int]
) -> Reply | Handover:
    """What a TLS socket is. Who has its descriptor may know. Raises `ssa.SSAError` UNKNOWN_SOCKET."""
    live = _live(service, sock)
    reply = description(live, whole=True)
    tcp = None if live.relay is None else live.relay.tcp()
    return reply if tcp is None else Handover(reply, tcp)


def description(live: LiveSocket, *, whole: bool = False) -> Reply:
    """A socket in the terms of its options; `whole` with the certificates."""
    return Reply(
        socket_id=live.id,
        version=live.protocol,
        cipher=live.suite,
        alpn=(live.alpn,) if live.alpn else (),
        peer_identity=live.identity,
        server_name=live.hostname if live.role == "server" else None,
        resumed=int(live.resumed),
        rekeyable=int(live.secrets is not None),
        remote="{} {}".format(*live.key.remote) if live.role == "server" else None,
        chain=b"".join(live.chain) if whole else None,
        relayed=None if live.relay is None else 1,
        ended=None if live.relay is None else live.relay.ended,
        **live.told(),
    )


async def rekey(
    service: Service, _application: Application, request: Rekey, sock: socket.socket, _files: list[int]
) -> Reply:
    """Go on to the next keys, after the peer has or because ours have served long enough (RFC 8446 section 4.6.3).

    Raises `ssa.SSAError`: NO_REKEY where the kernel or the version can't, WOULD_BLOCK where our KeyUpdate finds no
    room in the send buffer, CONNECTION_LOST.
    """
    live = _live(service, sock)
    if live.secrets is None:
        raise errors.error(
            "NO_REKEY",
            "TLS 1.2 has no KeyUpdate" if SUITES[live.suite].version < TLSVersion.TLSv1_3 else "Linux 6.14 can",
        )
    suite = SUITES[live.suite]
    answer = False
    if request.receiving and (update := _take_key_update_untrusted(sock)):
        try:
            answer = parse_key_update_untrusted(update)
        except ValueError as exc:
            raise errors.error("PROTOCOL_VIOLATION", str(exc)) from exc
        live.secrets.rx = advance_rx(sock, suite, live.secrets.rx)
    if request.sending:
        try:
            # In a thread: while the application is blocked in a send of its own, the kernel makes ours wait for that.
            await trio.to_thread.run_sync(
                _advance_tx, requests.twin(sock), suite, live.secrets, abandon_on_cancel=True, limiter=_SENDERS.mine()
            )
        except BlockingIOError as exc:
            raise errors.error("WOULD_BLOCK") from exc
        except ConnectionError as exc:
            raise errors.error("CONNECTION_LOST") from exc
    service.count("key_updates")
    return Reply(sending=int(answer))


# Each user has threads of his own: who blocks in a send that nobody reads keeps one.
_SENDERS = Threads(16)


def _advance_tx(sock: socket.socket, suite: Suite, secrets: TrafficSecrets) -> None:
    """Nobody may wait for this any more: so it owns the socket, and notes down the secret itself."""
    with sock:
        secrets.tx = advance_tx(sock, suite, secrets.tx)


def _take_key_update_untrusted(sock: socket.socket) -> bytes | None:
    """The KeyUpdate that is next in the socket; None where another reader was faster, or the stream has ended."""
    try:
        kind, content = control.receive_record(sock, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:  # nothing there; or what the application will meet itself
        return None
    types = control.handshake_types_untrusted(content)[0] if kind == HANDSHAKE else []
    if KEY_UPDATE not in types:
        return None
    content = control.receive_record(sock, socket.MSG_DONTWAIT)[1]
    # What is before it, tickets, is lost and no worse; nothing may be behind it (RFC 8446 section 5.1).
    return content[-_KEY_UPDATE:] if types.count(KEY_UPDATE) == 1 else content


async def ticket(
    service: Service, application: Application, request: Ticket, sock: socket.socket, _files: list[int]
) -> None:
    """Keep a session ticket that the application's library has read, of a socket that this user has made."""
    live = service.sockets.of(sock)
    if live is not None and live.uid == application.uid:
        service.sessions.tickets_untrusted(live.id, request.ticket)


async def close(
    service: Service, application: Application, request: Close, sock: socket.socket, _files: list[int]
) -> Reply:
    """What was written is all: the peer is told so, behind the last byte.

    For a relayed socket that is how its end is told from a crash. For one of the kernel's it is asked where the send
    buffer has no room for it. An abort takes it back: nothing more is said.
    """
    if (relay := _live(service, sock).relay) is not None:
        relay.announce_end(abort=bool(request.abort))
    elif request.abort:
        farewell.cut(sock, application.uid)
    else:
        farewell.see_off(requests.twin(sock), application.uid)
    return Reply()


_KEY_UPDATE = 5  # bytes of the message


def _live(service: Service, sock: socket.socket) -> LiveSocket:
    live = service.sockets.of(sock)
    if live is None:
        raise errors.error("UNKNOWN_SOCKET")
    return live
