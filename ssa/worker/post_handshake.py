"""Answers what is asked about options before a handshake, and about a TLS socket after it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ssa import errors
from ssa.protocol import wire
from ssa.protocol.attributes import TRUNCATED
from ssa.protocol.wire import Reply
from ssa.worker.livesocket import description
from ssa.worker.packets import Handover
from ssa.worker.terms import agree

if TYPE_CHECKING:
    import socket

    from ssa.worker.livesocket import LiveSocket
    from ssa.worker.records import Application
    from ssa.worker.service import Worker
    from ssa.worker.user import User


async def check(worker: Worker, request: wire.Check, files: list[int]) -> Reply:
    """Check options without a handshake: the values that the policy leaves of them. Raises `ssa.SSAError`."""
    policy = (await agree(worker, request, files, complete=False)).policy
    return Reply(session_ttl=policy.resumable, version_min=policy.min_version, version_max=policy.max_version)


async def answer(
    worker: Worker, application: Application, request: wire.Message, sock: socket.socket, _files: list[int]
) -> Reply | Handover | None:
    """Answer a request about a TLS socket. A process that has its descriptor may ask, whoever made it.

    Raises `ssa.SSAError`: UNKNOWN_SOCKET, and what the data path raises.
    """
    if (live := worker.sockets.of(sock)) is not None:
        return await respond(live, worker, request, sock)
    if isinstance(request, wire.Ticket):  # sessions are for the user whose socket it is
        return None
    return await worker.monitor.elsewhere(application, request, sock)


async def respond(
    live: LiveSocket, charged: User, request: wire.Message, sock: socket.socket
) -> Reply | Handover | None:
    """Answer a request about a live socket; `charged` is the user who asks. Raises `ssa.SSAError`."""
    if (handler := _HANDLERS.get(type(request))) is None:
        raise errors.error("BAD_REQUEST", f"{type(request).__name__.lower()} on a TLS socket")
    return await handler(live, charged, request, sock)


async def _describe(live: LiveSocket, charged: User, request: wire.Describe, _sock: socket.socket) -> Reply | Handover:
    reply = description(live, whole=True)
    if (request.truncated or reply.ended == TRUNCATED) and not live.was_cut:
        live.was_cut = True
        charged.monitor.was_cut(live.record)
    return live.path.describe(reply)


async def _rekey(live: LiveSocket, charged: User, request: wire.Rekey, sock: socket.socket) -> Reply:
    return await live.path.rekey(charged, live.record.id, request, sock)


async def _ticket(live: LiveSocket, charged: User, request: wire.Ticket, _sock: socket.socket) -> None:
    """Keep a session ticket that the application's library has read."""
    charged.sessions.tickets_untrusted(live.record.id, request.ticket)


async def _close(live: LiveSocket, charged: User, request: wire.Close, sock: socket.socket) -> Reply:
    """End the stream in order behind the last byte that was written. An abort takes that back."""
    live.path.close(charged, sock, abort=bool(request.abort), half=bool(request.half))
    return Reply()


_Handler = Callable[..., Awaitable[Reply | Handover | None]]
_HANDLERS: dict[type[wire.Message], _Handler] = {
    wire.Describe: _describe,
    wire.Rekey: _rekey,
    wire.Ticket: _ticket,
    wire.Close: _close,
}
