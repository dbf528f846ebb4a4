"""Takes requests from applications, each on a SOCK_SEQPACKET connection of its own, and answers them."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa._version import __version__
from ssa.daemon import who
from ssa.daemon.quota import work_for
from ssa.logfmt import fields
from ssa.protocol import wire
from ssa.worker import acceptor as accepting
from ssa.worker import closing, datagrams, pipeline
from ssa.worker import ipc as requests
from ssa.worker import post_handshake as living

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssa.daemon.registry import Application
    from ssa.worker.service import Service

_log = logging.getLogger("ssa.daemon")

_GIVEN_UP = 64  # connections that are let go of at once


async def serve(service: Service, listener: socket.socket) -> None:
    """Serve applications until cancelled."""
    listener.setblocking(False)
    closing.CLOSERS.end_lingering()
    with contextlib.closing(requests.HangUps()) as hang_ups:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hang_ups.watch)
            while True:
                await trio.lowlevel.wait_readable(listener)
                try:
                    for connection in _accepted(listener):
                        nursery.start_soon(_serve_one, service, hang_ups, connection)
                except OSError as exc:  # out of descriptors or memory: for now
                    _log.error("no application can be served at the moment: %s", exc.strerror)
                    await trio.sleep(0.1)


def _accepted(listener: socket.socket) -> Iterator[socket.socket]:
    """The next connection, without those before it that have been given up. Raises OSError."""
    given_up: list[int] = []
    try:
        while len(given_up) < _GIVEN_UP:
            connection, _ = listener.accept()
            if not _is_given_up(connection):
                yield connection
                return
            given_up.append(connection.detach())
    except BlockingIOError:
        return
    finally:
        if given_up:
            closing.CLOSERS.close(given_up, ours=True)


def _is_given_up(connection: socket.socket) -> bool:
    """Whether the application has hung up without a word."""
    try:
        data, _, flags, _ = connection.recvmsg(1, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return not (data or flags & socket.MSG_CTRUNC)  # a packet has its sender's credentials at least


async def _serve_one(service: Service, hang_ups: requests.HangUps, connection: socket.socket) -> None:
    """One application's connection. Whatever happens here, the others are served on."""
    try:
        application = who.asks(connection)
        work_for(application.uid)
        try:
            with service.quota.of(application.uid):
                await _converse(service, hang_ups, application, connection)
        except errors.SSAError as exc:
            service.count("requests_refused")
            await requests.send(connection, refusal(exc))
    except OSError as exc:
        _log.debug("an application went away: %s", exc.strerror)
    except Exception:  # noqa: BLE001 - logged whole, and the others are served on
        _log.exception("a fault of ssad's own")
    finally:
        closing.end_requests(connection)


async def _converse(
    service: Service, hang_ups: requests.HangUps, connector: Application, connection: socket.socket
) -> None:
    """Answer request after request, until the application hangs up. Raises OSError, `ssa.SSAError` OVERLOADED.

    All that came with one is closed before its answer is sent, and before the next one is read.
    """
    quota, uid = service.quota, connector.uid
    while (packet := await requests.receive_untrusted(connection, quota, uid)) is not None:
        application = connector if packet.sender == connector.pid else who.unknown_program(connector)
        asked, reply = {"request": "unknown"}, None
        try:
            request = _parse_untrusted(packet)
            asked = _asked(request)
            with quota.of(uid, len(packet.descriptors)):
                if isinstance(request, wire.Listen):
                    await accepting.run(service, application, request, packet, connection)
                    return
                with hang_ups.cancelling(connection):
                    reply = await _answer(service, application, request, packet)
                await _close(packet, reply)
        except errors.SSAError as exc:
            service.count_failure(exc)
            requests.log_refusal(application, exc, **asked)
            reply = refusal(exc)
        finally:
            await packet.close()
        if reply is not None and not await _deliver(connection, reply):
            return
        await trio.lowlevel.checkpoint()  # who asks again and again takes turns with the others


async def _close(packet: requests.Packet, answer: wire.Reply | requests.Handover | None) -> None:
    try:
        await packet.close()
    except BaseException:
        if isinstance(answer, requests.Handover):
            with answer:
                raise
        raise


async def _deliver(connection: socket.socket, answer: wire.Reply | requests.Handover) -> bool:
    if isinstance(answer, wire.Reply):
        return await requests.send(connection, answer)
    with answer:
        return await requests.send(connection, answer.reply, *answer.passed)


def _parse_untrusted(packet: requests.Packet) -> wire.Message:
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
    service: Service, application: Application, request: wire.Message, packet: requests.Packet
) -> wire.Reply | requests.Handover | None:
    """Answer one request. Raises `ssa.SSAError`."""
    try:
        if isinstance(request, wire.Plug):
            return None
        if isinstance(request, wire.Check):
            return await living.check(service, request, packet.descriptors)
        sock = packet.take_socket()
        handlers = _ON_DATAGRAMS if sock.type == socket.SOCK_DGRAM else _ON_A_SOCKET
        if (handler := handlers.get(type(request))) is None:
            raise errors.error("BAD_REQUEST", f"{_kind(request)} on a {sock.type.name}")
        return await handler(service, application, request, sock, packet.descriptors)
    except errors.SSAError:
        raise
    except Exception as exc:  # fails closed: logged whole, and the application is refused
        _log.exception("a fault of ssad's own %s", fields(pid=application.pid, **_asked(request)))
        raise errors.error("DAEMON_FAULT", type(exc).__name__) from exc


def _kind(request: wire.Message) -> str:
    return type(request).__name__.lower()


def _asked(request: wire.Message) -> dict[str, str]:
    """A request, for the log: what was asked, and for whom."""
    hostname: str | None = getattr(request, "hostname", None)
    return {"request": _kind(request)} | ({"hostname": hostname} if hostname else {})


_OnASocket = Callable[..., Awaitable[wire.Reply | requests.Handover | None]]
_ON_A_SOCKET: dict[type[wire.Message], _OnASocket] = {
    wire.Connect: pipeline.connect,
    wire.Accept: pipeline.accept,
    wire.Describe: living.describe,
    wire.Rekey: living.rekey,
    wire.Ticket: living.ticket,
    wire.Close: living.close,
}
_ON_DATAGRAMS: dict[type[wire.Message], _OnASocket] = {
    wire.Connect: datagrams.connect,
    wire.Gather: datagrams.gather,
}


def refusal(exc: errors.SSAError) -> wire.Reply:
    """The reply that an error is."""
    return wire.Reply(reason=exc.reason, detail=exc.detail, alert=exc.alert, errno=exc.errno)
