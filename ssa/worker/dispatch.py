"""Answers an application's requests, one after the other. A table has the function for each kind of request."""

from __future__ import annotations

import functools
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa._version import __version__
from ssa.logfmt import fields
from ssa.protocol import wire
from ssa.worker import acceptor, datagrams, ipc, pipeline, post_handshake
from ssa.worker.answers import answer
from ssa.worker.early import early_end
from ssa.worker.packets import Handover, Packet
from ssa.worker.records import Refusal

if TYPE_CHECKING:
    from ssa.relay.early import EarlyPair
    from ssa.worker.records import Application
    from ssa.worker.service import Worker
    from ssa.worker.user import User


async def serve(worker: Worker, application: Application, connection: socket.socket) -> bool:
    """Serve one connection of an application; it is ours. True where the application has ended it. Raises OSError."""
    try:
        with worker.quota.of():
            return await _converse(worker, application, connection)
    except errors.SSAError as exc:
        worker.monitor.count("requests_refused")
        await ipc.send(connection, _refusal(exc))
        return False


async def receive_visit(worker: Worker, guest: User, application: Application, connection: socket.socket) -> None:
    """Answer a request of another user's about a socket of this one's, which that user's worker passes on.

    Raises OSError.
    """
    try:
        with guest.quota.of():
            await _visit(worker, guest, application, connection)
    except errors.SSAError as exc:
        await ipc.send(connection, _refusal(exc))


async def _visit(worker: Worker, guest: User, application: Application, connection: socket.socket) -> None:
    packet = await ipc.receive_untrusted(guest, connection)
    if packet is None:
        return
    async with packet:
        reply = await _visited(worker, guest, application, packet)
        await worker.monitor.told()
        await answer(connection, packet, wire.Reply() if reply is None else reply)


async def _visited(
    worker: Worker, guest: User, application: Application, packet: Packet
) -> wire.Reply | Handover | None:
    try:
        request, sock = _parse_untrusted(packet), packet.take_socket()
        if (live := worker.sockets.of(sock)) is None:
            raise errors.error("UNKNOWN_SOCKET")
        return await post_handshake.respond(live, guest, request, sock)
    except errors.SSAError as exc:
        return _refusal(exc)
    except Exception as exc:  # fails closed: logged whole, and the application is refused
        guest.log.exception("a fault of ssad's own %s", fields(pid=application.pid))
        return _refusal(errors.error("DAEMON_FAULT", type(exc).__name__))


async def _converse(worker: Worker, connector: Application, connection: socket.socket) -> bool:
    """Answer request after request, until the application hangs up. True where its end was read.

    The descriptors of a request are closed before its answer is sent, and before the next request is read.
    Raises OSError, `ssa.SSAError` OVERLOADED.
    """
    is_first = True
    while (packet := await ipc.receive_untrusted(worker, connection)) is not None:
        async with packet:
            if not is_first:
                await trio.lowlevel.checkpoint()  # who asks again and again takes turns with the others
            is_first = False
            reply = await _served(worker, connector, packet, connection)
            await worker.monitor.told()
            if reply is _LISTENED or not await answer(connection, packet, reply):
                return False
    worker.hang_ups.without_a_word |= is_first
    return True


async def _served(
    worker: Worker, connector: Application, packet: Packet, connection: socket.socket
) -> wire.Reply | Handover | None:
    """Do what a packet asks for. The answer; `_LISTENED` where a listener was served to its end. Raises OSError."""
    application = connector if packet.sender == connector.pid else connector.of_unknown_program()
    asked, reply = {"request": "unknown"}, None
    try:
        request = _parse_untrusted(packet)
        asked = _asked(request)
        with worker.quota.of(len(packet.descriptors)):
            if isinstance(request, wire.Listen):
                await acceptor.run(worker, application, request, packet, connection)
                return _LISTENED
            async with early_end(worker, request, connection) as early:
                with worker.hang_ups.cancelling(connection):
                    reply = await _answer(worker, application, request, packet, early)
    except errors.SSAError as exc:
        worker.monitor.refused(Refusal.of(exc, application, **asked))
        return _refusal(exc)
    return reply


_LISTENED = wire.Reply()


def _parse_untrusted(packet: Packet) -> wire.Message:
    if packet.cut:
        raise errors.error("OVERLOADED", "there are not as many descriptors left as the request came with")
    if packet.too_long:
        raise errors.error("BAD_REQUEST", "message too long")
    try:
        return wire.parse_untrusted(packet.data, *wire.REQUESTS)
    except wire.OtherVersion as exc:
        raise errors.error("VERSION_MISMATCH", f"{exc}, where ssad {__version__} speaks {wire.SPOKEN}") from exc
    except wire.WireError as exc:
        raise errors.error("BAD_REQUEST", str(exc)) from exc


async def _answer(
    worker: Worker, application: Application, request: wire.Message, packet: Packet, early: EarlyPair | None
) -> wire.Reply | Handover | None:
    """Answer one request. `early` is the pair of one whose application has its end already. Raises `ssa.SSAError`."""
    try:
        if isinstance(request, wire.Plug):
            return None
        if isinstance(request, wire.Check):
            return await post_handshake.check(worker, request, packet.descriptors)
        if isinstance(request, wire.Fallback):
            return _fall_back(worker, application, request)
        sock = packet.take_socket()
        handlers = _ON_DATAGRAMS if sock.type == socket.SOCK_DGRAM and early is None else _ON_A_SOCKET
        if (handler := handlers.get(type(request))) is None:
            raise errors.error("BAD_REQUEST", f"{_kind(request)} on a {sock.type.name}")
        if early is not None:
            handler = functools.partial(handler, early=early)
        return await handler(worker, application, request, sock, packet.descriptors)
    except errors.SSAError:
        raise
    except Exception as exc:  # fails closed: logged whole, and the application is refused
        worker.log.exception("a fault of ssad's own %s", fields(pid=application.pid, **_asked(request)))
        raise errors.error("DAEMON_FAULT", type(exc).__name__) from exc


def _fall_back(worker: Worker, application: Application, request: wire.Fallback) -> wire.Reply:
    """Let a program's own TLS library do what ssa cannot. Raises `ssa.SSAError` POLICY_DENIED."""
    what = request.detail or "no reason was given"
    if worker.monitor.policy.coercion != "fallback":
        worker.monitor.count("fallbacks_refused")
        raise errors.error("POLICY_DENIED", f"coercion is strict, and ssa cannot do this for the program: {what}")
    worker.monitor.count("fallbacks")
    worker.log.info(
        "left to the program's own TLS library %s", fields(pid=application.pid, exe=application.exe, what=what)
    )
    return wire.Reply()


def _kind(request: wire.Message) -> str:
    return type(request).__name__.lower()


# What the log says of a program that may not want its server verified, by the request's `lenient`.
_UNVERIFIED = {1: "asked for by the program, and not done", 2: "perhaps asked for by the program, and not done"}


def _asked(request: wire.Message) -> dict[str, str]:
    """The fields of a request for a line of the log: its kind, and the host name if it has one."""
    hostname: str | None = getattr(request, "hostname", None)
    unverified = _UNVERIFIED.get(getattr(request, "lenient", None) or 0)
    asked = {"hostname": hostname, "unverified": unverified}
    return {"request": _kind(request)} | {name: value for name, value in asked.items() if value}


_OnASocket = Callable[..., Awaitable[wire.Reply | Handover | None]]
_ON_A_SOCKET: dict[type[wire.Message], _OnASocket] = {
    wire.Connect: pipeline.connect,
    wire.Accept: pipeline.accept,
    wire.Describe: post_handshake.answer,
    wire.Rekey: post_handshake.answer,
    wire.Ticket: post_handshake.answer,
    wire.Close: post_handshake.answer,
}
_ON_DATAGRAMS: dict[type[wire.Message], _OnASocket] = {
    wire.Connect: datagrams.connect,
    wire.Gather: datagrams.gather,
}


def _refusal(exc: errors.SSAError) -> wire.Reply:
    """The reply that reports an error."""
    return wire.Reply(reason=exc.reason, detail=exc.detail, alert=exc.alert, errno=exc.errno)
