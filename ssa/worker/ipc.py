"""One application's connection: receives its packets, and sends our replies.

The sockets are plain ones, and are read before anything waits for them: as a rule the request is there already, and a
round of the event loop costs more than the system call.
"""

from __future__ import annotations

import array
import contextlib
import errno
import functools
import math
import os
import socket
import struct
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from ssa import errors
from ssa.logfmt import fields
from ssa.protocol import wire
from ssa.worker.packets import Packet

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ssa.worker.closing import Closer
    from ssa.worker.records import Application
    from ssa.worker.user import User

IDLE = 300  # seconds that an application may take to send its request: it may be connecting meanwhile
_FD = struct.Struct("=i")
UCRED = struct.Struct("=iII")  # struct ucred (include/linux/socket.h): pid, uid, gid
_SCM_MAX_FD = 253  # descriptors of a message at most
_CREDENTIALS = socket.CMSG_SPACE(UCRED.size)  # come first
_ANCILLARY = _CREDENTIALS + socket.CMSG_LEN(_SCM_MAX_FD * _FD.size)


async def receive_untrusted(user: User, connection: socket.socket, patience: float = IDLE) -> Packet | None:
    """The next packet; None when the application has hung up.

    A packet is left unread where its user has no descriptor left. Raises OSError (ETIMEDOUT: the application says
    nothing for `patience` seconds), `ssa.SSAError` OVERLOADED.
    """
    waited = False
    while True:
        try:
            if user.quota.left() > 0:
                return _parsed_untrusted(await _receive_untrusted(user, connection), user.closer)
        except BlockingIOError:
            pass
        if waited:
            user.quota.check()
        with trio.move_on_after(patience) as silence:
            await trio.lowlevel.wait_readable(connection)
        if silence.cancelled_caught:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        waited = True


async def _receive_untrusted(user: User, connection: socket.socket) -> _Received:
    """A packet with its descriptors. Raises BlockingIOError where there is none.

    recvmsg(2) closes the descriptors that have no room, and that may block. So where a packet could bring more than
    there is room for, a thread calls it.
    """
    # One byte more than fits tells a message that is too long.
    receive = functools.partial(connection.recvmsg, wire.MAX_MESSAGE + 1)
    quota = user.quota
    if quota.unused() >= _SCM_MAX_FD:
        return receive(_ANCILLARY, _FLAGS)
    async with user.threads.receive_last:  # one at a time, as each may take all that is left
        room = max(0, min(quota.unused(), quota.left(), _SCM_MAX_FD))
        receive = functools.partial(receive, _CREDENTIALS + socket.CMSG_LEN(room * _FD.size), _FLAGS)
        return await in_a_thread(user, receive)


async def in_a_thread(user: User, do: Callable[[], _T]) -> _T:
    """Run a call in one of the user's threads, as the user can make it last for ever."""
    return await trio.to_thread.run_sync(do, abandon_on_cancel=True, limiter=user.threads.discard)


_T = TypeVar("_T")
_Received = tuple[bytes, list[tuple[int, int, bytes]], int, Any]


def _parsed_untrusted(received: _Received, closer: Closer) -> Packet | None:
    data, ancillary, flags, _ = received
    packet = Packet(data, closer, too_long=bool(flags & socket.MSG_TRUNC), cut=bool(flags & socket.MSG_CTRUNC))
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            packet.descriptors += array.array("i", value[: len(value) - len(value) % 4])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            packet.sender = UCRED.unpack(value)[0]
    return packet if data or ancillary or packet.cut else None


async def follow(
    user: User,
    application: Application,
    connection: socket.socket,
    renew: Callable[[wire.Listen, list[int]], Awaitable[None]],
) -> None:
    """Pass the requests with new options for a listener to `renew`, until the application hangs up."""
    while (packet := await _next_packet(user, connection)) is not None:
        try:
            if packet.cut:
                raise errors.error("OVERLOADED", "no room for all descriptors of the request")
            # The first descriptor is a pipe's end: that it is closed, as all of them, says that it was done.
            with user.quota.of(len(packet.descriptors)):
                await renew(wire.parse_untrusted(packet.data, wire.Listen), packet.descriptors[1:])
        except (wire.WireError, errors.SSAError) as exc:
            user.log.warning("a listener is served as before %s", fields(pid=application.pid, reason=str(exc)))
        finally:
            await packet.close()
        await trio.sleep(_BETWEEN)


async def _next_packet(user: User, connection: socket.socket) -> Packet | None:
    while True:
        try:
            return await receive_untrusted(user, connection, patience=math.inf)
        except errors.SSAError:  # the user has no descriptor left, for now
            await trio.sleep(_FOR_NOW)
        except OSError:  # it has gone, and left what was ready for it
            return None


_BETWEEN = 0.001  # seconds between two packets about a listener, so that other applications get their turn
_FOR_NOW = 0.05  # seconds until the next attempt
_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT


def send_request(connection: socket.socket, request: wire.Message, sock: socket.socket) -> None:
    """Send a request about a socket to another worker. Raises OSError."""
    fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _FD.pack(sock.fileno()))]
    connection.sendmsg([wire.pack(request)], fds, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)  # nothing is queued before


def send_now(connection: socket.socket, reply: wire.Reply, *passed: socket.socket) -> None:
    """Send a reply. Does not wait. Raises BlockingIOError where the application's queue has no room, OSError."""
    fds = b"".join(_FD.pack(sock.fileno()) for sock in passed)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
    connection.sendmsg([wire.pack(reply)], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


async def send(connection: socket.socket, reply: wire.Reply, *passed: socket.socket) -> bool:
    """Send a reply. False where the application did not take it in time: one that never reads is not waited for.

    Raises OSError.
    """
    with contextlib.suppress(BlockingIOError):  # as a rule there is room
        send_now(connection, reply, *passed)
        return True
    with trio.move_on_after(math.inf if passed else IDLE):
        while True:
            await trio.lowlevel.wait_writable(connection)
            with contextlib.suppress(BlockingIOError):
                send_now(connection, reply, *passed)
                return True
    return False
