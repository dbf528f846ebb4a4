"""What is asked about sockets that exist: before their handshake, and for the rest of their lives."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from ssa import errors
from ssa.daemon.quota import Threads
from ssa.ktls.post_handshake import Broken
from ssa.ktls.rekey import Followed, change_sending_key, follow_untrusted
from ssa.protocol.wire import Reply
from ssa.suites import SUITES, TLSVersion
from ssa.worker import ipc as requests
from ssa.worker import lingering_close as farewell
from ssa.worker.ipc import Handover
from ssa.worker.terms import agree
from ssa.worker.turns import Turn

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from ssa.daemon.registry import Application, LiveSocket
    from ssa.protocol.wire import Check, Close, Describe, Rekey, Ticket
    from ssa.worker.service import Service


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
    service: Service, application: Application, request: Rekey, sock: socket.socket, _files: list[int]
) -> Reply:
    """Take the handshake messages that are next in the socket, or go on to our next key (RFC 8446 section 4.6.3).

    The first follows the peer's KeyUpdates. In each direction one such step is done before the next begins, whoever
    asks, and whether or not somebody still waits for it: under one key no number may come twice.

    Raises `ssa.SSAError`: NO_REKEY where the kernel or the version can't, WOULD_BLOCK where our KeyUpdate finds no
    room in the send buffer, CONNECTION_LOST, PROTOCOL_VIOLATION with the alert that the peer has to be sent.
    """
    live = _live(service, sock)
    found = Followed()
    with _in_words():
        if request.receiving:
            found = await _turn(live, "receiving", _READERS).run(partial(_follow_untrusted, live), sock)
        if request.sending:
            await _turn(live, "sending", _SENDERS).run(partial(_change_sending_key, live), sock)
    if found.tickets and live.uid == application.uid:
        service.sessions.tickets_untrusted(live.id, found.tickets)
    service.count("key_updates", found.updates + bool(request.sending))
    return Reply(sending=int(live.incoming.answer_due), unfinished=int(found.unfinished))


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """What the steps below raise, as errors that an application can be told."""
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


def _turn(live: LiveSocket, which: str, threads: Threads) -> Turn:
    """Whoever wants to change a key waits for those who came before."""
    return live.turns.setdefault(which, Turn(threads))


# Each user has threads of his own: who blocks in a send that nobody reads keeps one.
_SENDERS, _READERS = Threads(16), Threads(16)


def _change_sending_key(live: LiveSocket, sock: socket.socket) -> None:
    """While the application is blocked in a send of its own, the kernel makes this wait for that."""
    if live.secrets is None:
        version = SUITES[live.suite].version
        raise errors.error("NO_REKEY", "TLS 1.2 has no KeyUpdate" if version < TLSVersion.TLSv1_3 else "Linux 6.14 can")
    change_sending_key(sock, SUITES[live.suite], live.secrets, live.incoming)


def _follow_untrusted(live: LiveSocket, sock: socket.socket) -> Followed:
    if live.relay is not None:
        raise errors.error("NO_REKEY", "it is relayed: OpenSSL sees to it")
    return follow_untrusted(sock, SUITES[live.suite], live.secrets, live.incoming, server=live.role == "server")


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
        farewell.see_off(requests.twin(sock), application.uid, service.quota)
    return Reply()


def _live(service: Service, sock: socket.socket) -> LiveSocket:
    live = service.sockets.of(sock)
    if live is None:
        raise errors.error("UNKNOWN_SOCKET")
    return live
