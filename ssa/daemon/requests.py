"""One application's connection: its packets, our replies, and how to be rid of what it passed.

The sockets here are plain ones, asked without waiting first: a request is there as a rule when it is looked for, and
each turn of the event loop costs more than the system call.
"""

from __future__ import annotations

import array
import contextlib
import contextvars
import functools
import logging
import math
import os
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import trio

from ssa import errors, wire
from ssa.daemon.quota import Threads
from ssa.daemon.registry import Application
from ssa.logfmt import fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

_log = logging.getLogger("ssa.daemon")

_IDLE = 300  # seconds that an application may take to send its request: it may be connecting meanwhile
# As many descriptors as a message can have (SCM_MAX_FD): what has no room the kernel closes, and that can block.
_ANCILLARY = socket.CMSG_SPACE(253 * 4)
_FD = struct.Struct("=i")
_UCRED = struct.Struct("=iII")


@dataclass(slots=True)
class Packet:
    """What an application sent."""

    data: bytes
    descriptors: list[int] = field(default_factory=list)
    truncated: bool = False

    def close(self) -> None:
        """Close what nobody has taken."""
        while self.descriptors:
            close_descriptor(self.descriptors.pop())

    def take_socket(self) -> socket.socket:
        """The first descriptor, as a socket of our own: what is left are files. Raises `ssa.SSAError`."""
        if not self.descriptors:
            raise errors.error("NO_DESCRIPTOR")
        try:
            sock = socket.socket(fileno=self.descriptors[0])
        except OSError as exc:
            raise errors.error("NOT_TCP", exc.strerror or "") from exc
        del self.descriptors[0]
        return sock


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


def application_of(connection: socket.socket) -> Application:
    """Who is at the other end, as the kernel vouches for it."""
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        exe = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115 - for every request, and twice as fast
    except OSError:
        exe = ""  # another user's process, or one that is gone: not ours to know
    return Application(pid, uid, gid, exe)


def log_refusal(application: Application, refusal: errors.SSAError, **asked: str) -> None:
    """Log that a request, or a connection to a listener, came to nothing."""
    who = {"pid": application.pid, "uid": application.uid}
    why = {"reason": refusal.reason, "fault": refusal.whose_fault, "alert": refusal.alert or ""}
    _log.info("refused %s", fields(**asked, **who, **why, detail=refusal.detail))


async def receive_untrusted(connection: socket.socket, patience: float = _IDLE) -> Packet | None:
    """The next packet; None when the application has hung up, or is silent for too long. Raises OSError."""
    # One byte more than fits tells a message that is too long.
    receive = functools.partial(connection.recvmsg, wire.MAX_MESSAGE + 1, _ANCILLARY, _FLAGS)
    while True:
        try:
            data, ancillary, flags, _ = receive()
        except BlockingIOError:
            with trio.move_on_after(patience) as silence:
                await trio.lowlevel.wait_readable(connection)
            if silence.cancelled_caught:
                return None
            continue
        packet = Packet(data, truncated=bool(flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)))
        for level, kind, value in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                packet.descriptors += array.array("i", value[: len(value) - len(value) % 4])
        return packet if data or packet.descriptors else None


async def follow(
    connection: socket.socket, application: Application, renew: Callable[[wire.Listen, list[int]], Awaitable[None]]
) -> None:
    """Have `renew` take what an application says about its listener's options later, until it hangs up."""
    while (packet := await _next_packet(connection)) is not None:
        try:
            # The first descriptor is a pipe's end: that it is closed, as all of them, says that it was done.
            await renew(wire.parse_untrusted(packet.data, wire.Listen), packet.descriptors[1:])
        except (wire.WireError, errors.SSAError) as exc:
            _log.warning("a listener is served as before %s", fields(pid=application.pid, reason=str(exc)))
        finally:
            packet.close()


async def _next_packet(connection: socket.socket) -> Packet | None:
    try:
        return await receive_untrusted(connection, patience=math.inf)
    except OSError:  # it has gone, and left what was ready for it
        return None


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


# --- closing what others have opened: close(2) can block, for as long as they like ---------------------------------
#
# A socket with SO_LINGER waits for its peer, a file on a user's own FUSE mount for that user's program, a Unix socket
# for all such that are in its queue. So nothing of the kind is closed on the event loop, and whoever makes closing
# threads wait makes his own wait.

_CLOSERS = Threads(64)


def close_elsewhere(close: Callable[[], None]) -> None:
    """Have a thread close it; nobody waits for that."""
    limiter = _CLOSERS.mine()  # of who passed it

    async def closing() -> None:
        while True:
            try:
                await trio.to_thread.run_sync(close, abandon_on_cancel=True, limiter=limiter)
            except OSError as exc:
                _log.debug("closing what an application passed: %s", exc.strerror)
            except RuntimeError as exc:  # there are too many threads: for now
                _log.error("what an application passed stays open: %s", exc)
                await trio.sleep(1)
                continue
            return

    trio.lowlevel.spawn_system_task(closing, context=contextvars.copy_context())


def close_descriptor(fd: int) -> None:
    """The same, of a number."""
    close_elsewhere(functools.partial(os.close, fd))


def hang_up(connection: socket.socket) -> None:
    """Close an application's connection. Descriptors in packets that nobody has read are closed with it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)  # so that nothing more can come
        unread = bool(connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        unread = False
    if unread:
        close_elsewhere(connection.close)
    else:
        connection.close()


async def give_back(sock: socket.socket) -> None:
    """Close our copy of an application's TCP socket, which has to be done before the application is told."""
    if _can_wait(sock):
        await trio.to_thread.run_sync(sock.close, abandon_on_cancel=True, limiter=_CLOSERS.mine())
    else:
        sock.close()


def drop(sock: socket.socket) -> None:
    """The same, when nobody waits for it."""
    if _can_wait(sock):
        close_elsewhere(sock.close)
    else:
        sock.close()


def _can_wait(sock: socket.socket) -> bool:
    """Whether closing it could wait for somebody, if the application has closed its own copy."""
    if sock.fileno() < 0:
        return False
    if sock.family == socket.AF_UNIX:
        return not _is_of_our_pair(sock)
    return bool(_LINGER.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8))[0])


def _is_of_our_pair(sock: socket.socket) -> bool:
    """Whether it is the end of a relay's pair, into whose queue nobody but ourselves puts anything."""
    creator = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))[0]
    return sock.type == socket.SOCK_STREAM and creator == os.getpid()


_LINGER = struct.Struct("=ii")
