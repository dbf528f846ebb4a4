"""One application's connection: its packets, our replies, and how to be rid of what it passed.

The sockets here are plain ones, asked without waiting first: a request is there as a rule when it is looked for, and
each turn of the event loop costs more than the system call.
"""

from __future__ import annotations

import array
import contextlib
import functools
import logging
import math
import os
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import trio

from ssa import errors
from ssa.daemon.quota import Threads
from ssa.logfmt import fields
from ssa.protocol import wire
from ssa.worker.closing import close_descriptors, drop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ssa.daemon.quota import Quota
    from ssa.daemon.registry import Application

_log = logging.getLogger("ssa.daemon")

_IDLE = 300  # seconds that an application may take to send its request: it may be connecting meanwhile
_FD = struct.Struct("=i")
UCRED = struct.Struct("=iII")  # struct ucred (include/linux/socket.h): pid, uid, gid
_SCM_MAX_FD = 253  # descriptors of a message at most
_CREDENTIALS = socket.CMSG_SPACE(UCRED.size)  # come first
_ANCILLARY = _CREDENTIALS + socket.CMSG_LEN(_SCM_MAX_FD * _FD.size)


@dataclass(slots=True)
class Packet:
    """What an application sent.

    Attributes:
        sender: the process that sent it, as the kernel vouches for it.
        too_long: it was longer than a request can be.
        cut: it came with more descriptors than there was room for.
    """

    data: bytes
    descriptors: list[int] = field(default_factory=list)
    sender: int = 0
    too_long: bool = False
    cut: bool = False
    _taken: socket.socket | None = None

    async def close(self) -> None:
        """Close all that came with it, and wait until that is done."""
        fds, self.descriptors = self.descriptors, []
        if self._taken is not None and (fd := self._taken.detach()) >= 0:
            fds.append(fd)
        if fds:
            await close_descriptors(fds).wait()

    async def close_files(self) -> None:
        """Close all but the socket that was taken."""
        fds, self.descriptors = self.descriptors, []
        if fds:
            await close_descriptors(fds).wait()

    def take_socket(self) -> socket.socket:
        """The first descriptor, as a socket, which the packet closes. What is left are files.

        Raises `ssa.SSAError` NO_DESCRIPTOR, NOT_TCP.
        """
        if not self.descriptors:
            raise errors.error("NO_DESCRIPTOR")
        try:
            self._taken = socket.socket(fileno=self.descriptors[0])
        except OSError as exc:
            raise errors.error("NOT_TCP", exc.strerror or "") from exc
        del self.descriptors[0]
        return self._taken


class Handover:
    """A reply with descriptors, which are ours, and closed when it was sent or cannot be."""

    __slots__ = ("passed", "reply")

    def __init__(self, reply: wire.Reply, *passed: socket.socket) -> None:
        self.reply = reply
        self.passed = passed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in self.passed:
            drop(sock)


def log_refusal(application: Application, refusal: errors.SSAError, **asked: str) -> None:
    """Log that a request, or a connection to a listener, came to nothing."""
    who = {"pid": application.pid, "uid": application.uid}
    why = {"reason": refusal.reason, "fault": refusal.whose_fault, "alert": refusal.alert or ""}
    _log.info("refused %s", fields(**asked, **who, **why, detail=refusal.detail))


async def receive_untrusted(
    connection: socket.socket, quota: Quota, uid: int, patience: float = _IDLE
) -> Packet | None:
    """The next packet; None when the application has hung up, or is silent for too long.

    A packet is left unread where its user has no descriptor left. Raises OSError, `ssa.SSAError` OVERLOADED.
    """
    waited = False
    while True:
        try:
            if quota.left(uid) > 0:
                return _parsed_untrusted(await _receive_untrusted(connection, quota, uid))
        except BlockingIOError:
            pass
        if waited:
            quota.check(uid)
        with trio.move_on_after(patience) as silence:
            await trio.lowlevel.wait_readable(connection)
        if silence.cancelled_caught:
            return None
        waited = True


async def _receive_untrusted(connection: socket.socket, quota: Quota, uid: int) -> _Received:
    """A packet with its descriptors. Raises BlockingIOError where there is none.

    The kernel closes here what has no room: so there is room for all that a packet can have, or it is done elsewhere.
    """
    # One byte more than fits tells a message that is too long.
    receive = functools.partial(connection.recvmsg, wire.MAX_MESSAGE + 1)
    if quota.unused() >= _SCM_MAX_FD:
        return receive(_ANCILLARY, _FLAGS)
    async with _READERS.mine():  # one at a time, as each may take all that is left
        room = max(0, min(quota.unused(), quota.left(uid), _SCM_MAX_FD))
        return await in_a_thread(functools.partial(receive, _CREDENTIALS + socket.CMSG_LEN(room * _FD.size), _FLAGS))


async def in_a_thread(do: Callable[[], _T]) -> _T:
    """Do in a thread what this task's user can make last."""
    return await trio.to_thread.run_sync(do, abandon_on_cancel=True, limiter=_RECEIVERS.mine())


_T = TypeVar("_T")
_RECEIVERS = Threads(16)
_READERS = Threads(1)
_Received = tuple[bytes, list[tuple[int, int, bytes]], int, Any]


def _parsed_untrusted(received: _Received) -> Packet | None:
    data, ancillary, flags, _ = received
    packet = Packet(data, too_long=bool(flags & socket.MSG_TRUNC), cut=bool(flags & socket.MSG_CTRUNC))
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            packet.descriptors += array.array("i", value[: len(value) - len(value) % 4])
        elif (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            packet.sender = UCRED.unpack(value)[0]
    return packet if data or ancillary or packet.cut else None


async def follow(
    connection: socket.socket,
    application: Application,
    quota: Quota,
    renew: Callable[[wire.Listen, list[int]], Awaitable[None]],
) -> None:
    """Have `renew` take what an application says about its listener's options later, until it hangs up."""
    while (packet := await _next_packet(connection, quota, application.uid)) is not None:
        try:
            if packet.cut:
                raise errors.error("OVERLOADED", "no room for all descriptors of the request")
            # The first descriptor is a pipe's end: that it is closed, as all of them, says that it was done.
            with quota.of(application.uid, len(packet.descriptors)):
                await renew(wire.parse_untrusted(packet.data, wire.Listen), packet.descriptors[1:])
        except (wire.WireError, errors.SSAError) as exc:
            _log.warning("a listener is served as before %s", fields(pid=application.pid, reason=str(exc)))
        finally:
            await packet.close()
        await trio.sleep(_BETWEEN)


async def _next_packet(connection: socket.socket, quota: Quota, uid: int) -> Packet | None:
    while True:
        try:
            return await receive_untrusted(connection, quota, uid, patience=math.inf)
        except errors.SSAError:  # the user has no descriptor left, for now
            await trio.sleep(_FOR_NOW)
        except OSError:  # it has gone, and left what was ready for it
            return None


_BETWEEN = 0.001  # seconds: who says more and more about a listener takes turns with the others
_FOR_NOW = 0.05  # seconds
_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT


async def send(connection: socket.socket, reply: wire.Reply, *passed: socket.socket) -> bool:
    """Whether the application took it in time: one that never reads is not waited for. Raises OSError."""
    packet = wire.pack(reply)
    fds = b"".join(_FD.pack(sock.fileno()) for sock in passed)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else []
    with trio.move_on_after(math.inf if passed else _IDLE):
        while True:
            try:
                connection.sendmsg([packet], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(connection)
            else:
                return True
    return False


class HangUps:
    """Ends the work for applications that have gone. One epoll set for all: a task for each would cost more."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._scopes: dict[int, trio.CancelScope] = {}

    @contextlib.contextmanager
    def cancelling(self, connection: socket.socket) -> Iterator[None]:
        """A block that is cancelled, quietly, when the application at the other end hangs up."""
        fd = connection.fileno()
        with trio.CancelScope() as scope:
            self._scopes[fd] = scope
            self._epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
            try:
                yield
            finally:
                self._epoll.unregister(fd)
                del self._scopes[fd]

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            for fd, _ in self._epoll.poll(0):
                self._scopes[fd].cancel()

    def close(self) -> None:
        """Give back what it waited with, once nobody is in such a block."""
        self._epoll.close()


def twin(sock: socket.socket) -> socket.socket:
    """Another descriptor. Not `sock.dup()`, which sets O_NONBLOCK or clears it: that is the application's too."""
    return socket.socket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
