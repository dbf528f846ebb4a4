"""Takes requests from applications, each on a SOCK_SEQPACKET connection of its own, and answers them."""

from __future__ import annotations

import array
import contextlib
import functools
import logging
import os
import resource
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ssa import errors, wire
from ssa.daemon import pipeline
from ssa.daemon.registry import Application

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ssa.daemon.service import Service

_log = logging.getLogger("ssa.daemon")

_BACKLOG = 1024  # connections
_IDLE = 300  # seconds that an application may take to send its request: it may be connecting meanwhile
# As many descriptors as a message can have (SCM_MAX_FD): what has no room the kernel closes, and that can block.
_ANCILLARY = socket.CMSG_SPACE(253 * 4)
_UCRED = struct.Struct("=iII")


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
    acceptor = trio.socket.from_stdlib_socket(listener)
    quota = Quota(max(256, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 8))
    async with trio.open_nursery() as nursery:
        while True:
            try:
                connection, _ = await acceptor.accept()
            except OSError as exc:  # out of descriptors or memory: for now
                _log.error("no application can be served at the moment: %s", exc.strerror)
                await trio.sleep(0.1)
                continue
            nursery.start_soon(_serve_one, service, quota, connection)


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


async def _serve_one(service: Service, quota: Quota, connection: trio.socket.SocketType) -> None:
    """One application's connection. Whatever happens here, the others are served on."""
    try:
        application = _application(connection)
        with quota.of(application.uid):
            while (packet := await _receive_untrusted(connection)) is not None:
                reply = await _until_hang_up(connection, service, application, packet)
                if reply is None or not await _send(connection, reply):
                    break
    except errors.SSAError as exc:
        service.count("requests_refused")
        await _send(connection, _refusal(exc))
    except OSError as exc:
        _log.debug("an application went away: %s", exc.strerror)
    except Exception:  # noqa: BLE001 - logged whole, and the others are served on
        _log.exception("a fault of ssad's own")
    finally:
        _hang_up(connection)


async def _send(connection: trio.socket.SocketType, reply: wire.Reply) -> bool:
    """Whether the application took it in time: one that never reads is not waited for."""
    with trio.move_on_after(_IDLE):
        await connection.send(wire.pack(reply))
        return True
    return False


# --- closing what others have opened: close(2) can block, for as long as they like ---------------------------------
#
# A socket with SO_LINGER waits for its peer, a file on a user's own FUSE mount for that user's program. So nothing
# of the kind is closed on the event loop, and whoever makes a closing thread wait fills the places of such only.

_CLOSERS = trio.CapacityLimiter(64)


def _close_elsewhere(close: Callable[[], None]) -> None:
    async def closing() -> None:
        try:
            await trio.to_thread.run_sync(close, abandon_on_cancel=True, limiter=_CLOSERS)
        except OSError as exc:
            _log.debug("closing what an application passed: %s", exc.strerror)

    trio.lowlevel.spawn_system_task(closing)


def _hang_up(connection: trio.socket.SocketType) -> None:
    """Close an application's connection. Descriptors in packets that nobody has read are closed with it."""
    stdlib = socket.socket(fileno=connection.detach())
    try:
        stdlib.shutdown(socket.SHUT_RDWR)  # so that nothing more can come
        unread = bool(stdlib.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        unread = False
    if unread:
        _close_elsewhere(stdlib.close)
    else:
        stdlib.close()


async def _give_back(sock: socket.socket) -> None:
    """Close our copy of an application's TCP socket, which has to be done before the application is told."""
    if _lingers(sock):
        await trio.to_thread.run_sync(sock.close, abandon_on_cancel=True, limiter=_CLOSERS)
    else:
        sock.close()


def _drop(sock: socket.socket) -> None:
    """The same, when nobody waits for it."""
    if _lingers(sock):
        _close_elsewhere(sock.close)
    else:
        sock.close()


def _lingers(sock: socket.socket) -> bool:
    """Whether closing it would wait for the peer, if the application has closed its own copy."""
    return bool(sock.fileno() >= 0 and _LINGER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0])


_LINGER = struct.Struct("=ii")


@dataclass(slots=True)
class _Packet:
    data: bytes
    descriptors: list[int] = field(default_factory=list)
    truncated: bool = False

    def close(self) -> None:
        """Close what nobody has taken."""
        while self.descriptors:
            _close_elsewhere(functools.partial(os.close, self.descriptors.pop()))

    def take_socket(self) -> socket.socket:
        """The one descriptor, as a socket of our own. Raises `ssa.SSAError`."""
        if len(self.descriptors) != 1:
            raise errors.error("NO_DESCRIPTOR", f"{len(self.descriptors)} descriptors")
        try:
            sock = socket.socket(fileno=self.descriptors[0])
        except OSError as exc:
            raise errors.error("NOT_TCP", exc.strerror or "") from exc
        self.descriptors.clear()
        return sock


async def _receive_untrusted(connection: trio.socket.SocketType) -> _Packet | None:
    """The next packet; None when the application has hung up, or is silent for too long."""
    with trio.move_on_after(_IDLE):
        # One byte more than fits tells a message that is too long.
        data, ancillary, flags, _ = await connection.recvmsg(wire.MAX_MESSAGE + 1, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        packet = _Packet(data, truncated=bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)))
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                packet.descriptors += array.array("i", value[: len(value) - len(value) % 4])
        return packet if data or packet.descriptors else None
    return None


def _application(connection: trio.socket.SocketType) -> Application:
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        exe = str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        exe = ""  # another user's process, or one that is gone: not ours to know
    return Application(pid, uid, gid, exe)


async def _until_hang_up(
    connection: trio.socket.SocketType, service: Service, application: Application, packet: _Packet
) -> wire.Reply | None:
    """Answer the request, unless the application goes away meanwhile: nobody would hold the socket then."""
    reply = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, connection, nursery.cancel_scope)
        reply = await _answer_untrusted(service, application, packet)
        nursery.cancel_scope.cancel()
    return reply


async def _watch(connection: trio.socket.SocketType, scope: trio.CancelScope) -> None:
    """End it when the application hangs up, or sends a second request before the first is answered: none may."""
    with contextlib.suppress(OSError):
        await connection.recv(1, socket.MSG_PEEK)
    scope.cancel()


async def _answer_untrusted(service: Service, application: Application, packet: _Packet) -> wire.Reply:
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
            await _give_back(sock)
        except BaseException:
            _drop(sock)
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
