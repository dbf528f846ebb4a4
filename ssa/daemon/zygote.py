"""The zygote: a process with one thread and all code loaded, which the daemon has fork the workers.

A process with threads cannot fork safely, and a fresh interpreter takes a quarter of a second. The zygote is forked
before the daemon has threads or secrets. It reads the daemon's requests only, and ends with the daemon.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import select
import signal
import socket
import struct
import traceback
from typing import TYPE_CHECKING, NamedTuple

from ssa.worker import process, sandbox
from ssa.worker.sandbox import Ids

if TYPE_CHECKING:
    from collections.abc import Callable

_REQUEST = struct.Struct("=III?")  # number of the request, uid, the worker's own uid or 0, trusted
_STARTED = struct.Struct("=Ii")  # number of the request, pid or minus an errno
_ENDED = struct.Struct("=ii?")  # pid, status as waitpid(2) gives it
_FLAGS = socket.MSG_CMSG_CLOEXEC
_STANDARD = range(3)  # descriptors of the standard streams


class Started(NamedTuple):
    """A worker was forked, or could not be: then `pid` is minus an errno."""

    call: int
    pid: int


class Ended(NamedTuple):
    """A worker has ended, with a status as waitpid(2) gives it."""

    pid: int
    status: int


# --- the daemon's side --------------------------------------------------------------------------------------------


def fork() -> socket.socket:
    """Start the zygote, and give the daemon's end of the channel to it. The process must have one thread only."""
    process.prepare()
    gc.collect()
    gc.freeze()  # what all processes have stays theirs in common: the collector writes to what it looks at
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _end_with(lambda: _serve(theirs))
    theirs.close()
    return ours


def ask(zygote: socket.socket, call: int, uid: int, own: int, *ends: socket.socket, trusted: bool) -> None:
    """Have a worker forked, and a uid of its own given to it where that is not 0. Raises OSError.

    `ends` are a channel, and a socket that listens for the next daemon.
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [end.fileno() for end in ends]))]
    zygote.sendmsg([_REQUEST.pack(call, uid, own, trusted)], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


def told(zygote: socket.socket) -> Started | Ended | None:
    """The zygote's next message; None where it has ended. Raises BlockingIOError where there is none yet."""
    data = zygote.recv(_ENDED.size, socket.MSG_DONTWAIT)
    if not data:
        return None
    return Started(*_STARTED.unpack(data)) if len(data) == _STARTED.size else Ended(*_ENDED.unpack(data)[:2])


# --- the zygote ---------------------------------------------------------------------------------------------------


def _end_with(serve: Callable[[], object]) -> None:
    """Run something, and end the process with it."""
    status = 1
    try:
        serve()
        status = 0
    except Exception:  # noqa: BLE001 - nobody else tells of it
        traceback.print_exc()
    finally:
        os._exit(status)


def _serve(channel: socket.socket) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _close_others(channel.fileno())
    sandbox.name("ssad:zygote")
    if os.geteuid() == 0:
        sandbox.keep_only_ids()
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    waiting = select.poll()
    waiting.register(channel, select.POLLIN)
    waiting.register(reading, select.POLLIN)
    while True:
        ready = {fd for fd, _ in waiting.poll()}
        if reading in ready:
            os.read(reading, 4096)
            _bury(channel)
        if channel.fileno() in ready and not _fork_one(channel, (reading, writing)):
            return


def _close_others(kept: int) -> None:
    """Close what the daemon was started with, such as the descriptor on which it tells that it is ready."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor not in {*_STANDARD, kept}:
            with contextlib.suppress(OSError):  # the directory's own
                os.close(descriptor)


def _bury(channel: socket.socket) -> None:
    """Tell of the workers that have ended."""
    with contextlib.suppress(ChildProcessError, OSError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            channel.send(_ENDED.pack(*found, True), socket.MSG_NOSIGNAL)


def _fork_one(channel: socket.socket, own: tuple[int, int]) -> bool:
    """Fork a worker, which closes the zygote's own descriptors. False where the daemon has gone."""
    try:
        data, fds, _, _ = socket.recv_fds(channel, _REQUEST.size, 2, _FLAGS)
    except ConnectionError:  # with what we have told it and it has not read
        return False
    if not data or len(fds) != 2:
        return False
    call, uid, own_uid, trusted = _REQUEST.unpack(data)
    end, door = (socket.socket(fileno=fd) for fd in fds)
    try:
        pid = os.fork()
    except OSError as exc:
        pid = -(exc.errno or 1)
    if pid == 0:
        signal.set_wakeup_fd(-1)
        channel.close()
        for fd in own:
            os.close(fd)
        _end_with(lambda: process.run(end, door, uid, Ids(own_uid, uid) if own_uid else None, trusted=trusted))
    end.close()
    door.close()
    with contextlib.suppress(OSError):
        channel.send(_STARTED.pack(call, pid), socket.MSG_NOSIGNAL)
    return True
