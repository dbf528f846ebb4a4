"""Answers an application's requests, one after the other: one table of what each kind of request is answered by."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa._version import __version__
from ssa.logfmt import fields
from ssa.protocol import wire
from ssa.worker import acceptor, datagrams, ipc, pipeline, post_handshake
from ssa.worker.packets import Handover, Packet
from ssa.worker.records import Refusal

if TYPE_CHECKING:
    from ssa.worker.records import Application
    from ssa.worker.service import Worker


async def serve(worker: Worker, application: Application, connection: socket.socket) -> None:
    """Serve one connection of an application until it hangs up; the connection is ours. Raises OSError."""
    try:
        with worker.quota.of():
            await _converse(worker, application, connection)
    except errors.SSAError as exc:
        worker.monitor.count("requests_refused")
        await ipc.send(connection, _refusal(exc))


async def _converse(worker: Worker, connector: Application, connection: socket.socket) -> None:
    """Answer request after request, until the application hangs up. Raises OSError, `ssa.SSAError` OVERLOADED.

    All that came with one is closed before its answer is sent, and before the next one is read.
    """
    while (packet := await ipc.receive_untrusted(worker, connection)) is not None:
        application = connector if packet.sender == connector.pid else connector.of_unknown_program()
        asked, reply = {"request": "unknown"}, None
        try:
            request = _parse_untrusted(packet)
            asked = _asked(request)
            with worker.quota.of(len(packet.descriptors)):
                if isinstance(request, wire.Listen):
                    await acceptor.run(worker, application, request, packet, connection)
                    return
                with worker.hang_ups.cancelling(connection):
                    reply = await _answer(worker, application, request, packet)
                await _close(packet, reply)
        except errors.SSAError as exc:
            worker.monitor.refused(Refusal.of(exc, application.pid, **asked))
            reply = _refusal(exc)
        finally:
            await packet.close()
        if reply is not None and not await _deliver(connection, reply):
            return
        await trio.lowlevel.checkpoint()  # who asks again and again takes turns with the others


async def _close(packet: Packet, answer: wire.Reply | Handover | None) -> None:
    try:
        await packet.close()
    except BaseException:
        if isinstance(answer, Handover):
            with answer:
                raise
        raise


async def _deliver(connection: socket.socket, answer: wire.Reply | Handover) -> bool:
    if isinstance(answer, wire.Reply):
        return await ipc.send(connection, answer)
    with answer:
        return await ipc.send(connection, answer.reply, *answer.passed)


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
    worker: Worker, application: Application, request: wire.Message, packet: Packet
) -> wire.Reply | Handover | None:
    """Answer one request. Raises `ssa.SSAError`."""
    try:
        if isinstance(request, wire.Plug):
            return None
        if isinstance(request, wire.Check):
            return await post_handshake.check(worker, request, packet.descriptors)
        sock = packet.take_socket()
        handlers = _ON_DATAGRAMS if sock.type == socket.SOCK_DGRAM else _ON_A_SOCKET
        if (handler := handlers.get(type(request))) is None:
            raise errors.error("BAD_REQUEST", f"{_kind(request)} on a {sock.type.name}")
        return await handler(worker, application, request, sock, packet.descriptors)
    except errors.SSAError:
        raise
    except Exception as exc:  # fails closed: logged whole, and the application is refused
        worker.log.exception("a fault of ssad's own %s", fields(pid=application.pid, **_asked(request)))
        raise errors.error("DAEMON_FAULT", type(exc).__name__) from exc


def _kind(request: wire.Message) -> str:
    return type(request).__name__.lower()


def _asked(request: wire.Message) -> dict[str, str]:
    """A request, for the log: what was asked, and for whom."""
    hostname: str | None = getattr(request, "hostname", None)
    return {"request": _kind(request)} | ({"hostname": hostname} if hostname else {})


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
    """The reply that an error is."""
    return wire.Reply(reason=exc.reason, detail=exc.detail, alert=exc.alert, errno=exc.errno)
