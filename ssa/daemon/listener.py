"""Takes requests from applications, each on a SOCK_SEQPACKET connection of its own, and answers them."""

from __future__ import annotations

import array
import errno
import logging
import os
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ssa import errors, wire
from ssa.daemon import pipeline
from ssa.daemon.registry import Application

if TYPE_CHECKING:
    from ssa.daemon.service import Service

_log = logging.getLogger("ssa.daemon")

_BACKLOG = 1024  # connections
_IDLE = 300  # seconds that an application may take to send its request: it may be connecting meanwhile
_ANCILLARY = socket.CMSG_SPACE(4 * 4)  # more descriptors than any message has, to tell that there were too many
_UCRED = struct.Struct("=iII")

# Nothing is wrong with us when one of these comes from accept(2): the machine is out of something for now.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


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
    async with trio.open_nursery() as nursery:
        while True:
            try:
                connection, _ = await acceptor.accept()
            except OSError as exc:
                if exc.errno not in _EXHAUSTED:
                    raise
                _log.error("no application can be served at the moment: %s", exc.strerror)
                await trio.sleep(0.1)
                continue
            nursery.start_soon(_serve_one, service, connection)


async def _serve_one(service: Service, connection: trio.socket.SocketType) -> None:
    """One application's connection. Whatever happens here, the others are served on."""
    with connection:
        try:
            application = _application(connection)
            while (packet := await _receive_untrusted(connection)) is not None:
                reply = await _until_hang_up(connection, service, application, packet)
                if reply is None:
                    return
                await connection.send(wire.pack(reply))
        except OSError as exc:
            _log.debug("an application went away: %s", exc.strerror)
        except Exception:  # noqa: BLE001 - logged whole, and the others are served on
            _log.exception("a fault of ssad's own")


@dataclass(slots=True)
class _Packet:
    data: bytes
    descriptors: list[int] = field(default_factory=list)
    truncated: bool = False

    def close(self) -> None:
        while self.descriptors:
            os.close(self.descriptors.pop())

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
    try:
        if await connection.recv(1, socket.MSG_PEEK):
            return
    except OSError as exc:
        _log.debug("an application went away: %s", exc.strerror)
    scope.cancel()


async def _answer_untrusted(service: Service, application: Application, packet: _Packet) -> wire.Reply:
    """Answer one request. The descriptor that came with it is closed before the reply can be sent."""
    hostname = "?"
    try:
        if packet.truncated:
            raise errors.error("BAD_REQUEST", "message too long, or too many descriptors")
        try:
            request = wire.parse_untrusted(packet.data, wire.Connect)
        except wire.WireError as exc:
            raise errors.error("BAD_REQUEST", str(exc)) from exc
        hostname = request.hostname
        with packet.take_socket() as sock:
            reply = await pipeline.connect(service, application, request, sock)
    except errors.SSAError as exc:
        service.count(_COUNTERS.get(type(exc), "requests_refused"))
        _log.info("pid %d uid %d, %s: %s", application.pid, application.uid, ascii(hostname), exc)
        return _refusal(exc)
    except Exception as exc:  # noqa: BLE001 - fails closed: logged whole, and the application is refused
        _log.exception("a fault of ssad's own, serving pid %d for %s", application.pid, ascii(hostname))
        return _refusal(errors.error("DAEMON_FAULT", type(exc).__name__))
    finally:
        packet.close()
    _log.debug("pid %d uid %d, %s: socket %s", application.pid, application.uid, hostname, reply.socket_id)
    return reply


_COUNTERS: dict[type[errors.SSAError], str] = {
    errors.CertificateError: "certificates_refused",
    errors.HandshakeError: "handshakes_failed",
    errors.HandshakeTimeout: "handshakes_failed",
    errors.HandshakeReset: "handshakes_failed",
}


def _refusal(exc: errors.SSAError) -> wire.Reply:
    # A detail can quote what a peer sent; the message has to fit all the same.
    return wire.Reply(reason=exc.reason, detail=exc.detail[:4096], alert=exc.alert)
