"""Takes requests from applications, each on a SOCK_SEQPACKET connection of its own, and answers them."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
from collections import Counter
from typing import TYPE_CHECKING

import trio

from ssa import errors, wire
from ssa.daemon import pipeline, requests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ssa.daemon.registry import Application
    from ssa.daemon.service import Service

_log = logging.getLogger("ssa.daemon")

_BACKLOG = 1024  # connections


def listen(path: Path, mode: int) -> socket.socket:
    """The socket that takes requests. The caller holds the run directory's lock, so one that is there is stale."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(path))
    path.chmod(mode)
    listener.listen(_BACKLOG)
    return listener


async def serve(service: Service, listener: socket.socket) -> None:
    """Serve applications until cancelled."""
    listener.setblocking(False)
    quota = Quota(max(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
    hang_ups = requests.HangUps()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hang_ups.watch)
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                continue
            except OSError as exc:  # out of descriptors or memory: for now
                _log.error("no application can be served at the moment: %s", exc.strerror)
                await trio.sleep(0.1)
                continue
            nursery.start_soon(_serve_one, service, quota, hang_ups, connection)


class Quota:
    """How many connections a user may have at once, so that none can take all descriptors. Root is not counted."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used: Counter[int] = Counter()

    @contextlib.contextmanager
    def of(self, uid: int) -> Iterator[None]:
        """A place for one connection of that user. Raises `ssa.SSAError` OVERLOADED when there is none."""
        if uid and self._used[uid] >= self._limit:
            raise errors.error("OVERLOADED", f"uid {uid} has {self._limit} requests under way")
        self._used[uid] += 1
        try:
            yield
        finally:
            self._used[uid] -= 1
            if not self._used[uid]:
                del self._used[uid]


async def _serve_one(service: Service, quota: Quota, hang_ups: requests.HangUps, connection: socket.socket) -> None:
    """One application's connection. Whatever happens here, the others are served on."""
    try:
        application = requests.application_of(connection)
        try:
            with quota.of(application.uid):
                await _converse(service, hang_ups, application, connection)
        except errors.SSAError as exc:
            service.count("requests_refused")
            await requests.send(connection, _refusal(exc))
    except OSError as exc:
        _log.debug("an application went away: %s", exc.strerror)
    except Exception:  # noqa: BLE001 - logged whole, and the others are served on
        _log.exception("a fault of ssad's own")
    finally:
        requests.hang_up(connection)


async def _converse(
    service: Service, hang_ups: requests.HangUps, application: Application, connection: socket.socket
) -> None:
    """Answer request after request, until the application hangs up. Raises OSError."""
    while (packet := await requests.receive_untrusted(connection)) is not None:
        reply = None
        with hang_ups.cancelling(connection):
            reply = await _answer_untrusted(service, application, packet)
        if reply is None or not await requests.send(connection, reply):
            return
        await trio.lowlevel.checkpoint()  # who asks again and again takes turns with the others


async def _answer_untrusted(service: Service, application: Application, packet: requests.Packet) -> wire.Reply:
    """Answer one request. The descriptor that came with it is closed before the reply can be sent."""
    shown = "?"
    try:
        if packet.truncated:
            raise errors.error("BAD_REQUEST", "message too long, or too many descriptors")
        try:
            request = wire.parse_untrusted(packet.data, wire.Connect)
        except wire.WireError as exc:
            raise errors.error("BAD_REQUEST", str(exc)) from exc
        shown = errors.printable(request.hostname, 80)
        sock = packet.take_socket()
        try:
            reply = await pipeline.connect(service, application, request, sock)
            await requests.give_back(sock)
        except BaseException:
            requests.drop(sock)
            raise
    except errors.SSAError as exc:
        service.count(_COUNTERS.get(type(exc), "requests_refused"))
        _log.info("pid %d uid %d, %s: %s", application.pid, application.uid, shown, exc)
        return _refusal(exc)
    except Exception as exc:  # noqa: BLE001 - fails closed: logged whole, and the application is refused
        _log.exception("a fault of ssad's own, serving pid %d for %s", application.pid, shown)
        return _refusal(errors.error("DAEMON_FAULT", type(exc).__name__))
    finally:
        packet.close()
    _log.debug("pid %d uid %d, %s: socket %s", application.pid, application.uid, shown, reply.socket_id)
    return reply


_COUNTERS: dict[type[errors.SSAError], str] = {
    errors.CertificateError: "certificates_refused",
    errors.HandshakeError: "handshakes_failed",
    errors.HandshakeTimeout: "handshakes_failed",
    errors.HandshakeReset: "handshakes_failed",
}


def _refusal(exc: errors.SSAError) -> wire.Reply:
    return wire.Reply(reason=exc.reason, detail=exc.detail, alert=exc.alert)
