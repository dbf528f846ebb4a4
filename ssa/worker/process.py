"""A worker's process: its log, its limits, its event loop, and the connections that the daemon passes to it."""

from __future__ import annotations

import codecs
import contextlib
import importlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ssa import errors, names
from ssa.handshake.contexts import ContextCache
from ssa.ktls.netns import own_cookie
from ssa.ktls.probe import Capabilities
from ssa.logfmt import Lines
from ssa.policy.schema import Policy
from ssa.worker import dispatch, frames, ipc, messages, sandbox
from ssa.worker.link import Link
from ssa.worker.service import Worker
from ssa.worker.user import Process

if TYPE_CHECKING:
    from ssa.worker.sandbox import Ids

_OWN = 16  # descriptors that the process itself opens after its start, at most
_PATIENCE = 1  # seconds for the threads to end: one that an application keeps waiting ends with the process
_FOR_KEYS, _FOR_NOTHING = 600, 5  # seconds to wait for the next daemon: sockets need the worker for new keys; nobody
_IDLE, _SESSIONS = 60.0, 1800.0  # seconds without anything to do, after which a worker ends; one that has sessions
_GARBAGE = 10_000  # objects between two looks of the collector, which a handshake rarely leaves anything for
_MOST_LINES = 1000  # that wait for room
_LONGEST = 16_384  # characters of a line or a traceback


def prepare() -> None:
    """Load what workers need later, when they can open no file. Called before they are forked."""
    for encoding in ("idna", "punycode", "latin-1", "ascii", "utf-8", "unicode_escape", "backslashreplace"):
        with contextlib.suppress(LookupError):
            codecs.lookup(encoding)
    names.normalise("bücher.example")  # loads the tables of IDNA
    importlib.import_module("cryptography.hazmat.backends.openssl.backend")  # which it imports with the first signature
    frames.prepare(messages.TO_WORKER, messages.TO_DAEMON, messages.CONTENTS)
    Policy.default().replace_many(dict(Policy.default().texts))
    with contextlib.suppress(errors.SSAError):
        ContextCache(lambda *_: None).client(Policy.default(), Capabilities(frozenset(), rekey=False, reason=""))


def run(channel: socket.socket, door: socket.socket, uid: int, ids: Ids | None, *, trusted: bool) -> None:
    """Serve a user until the daemon says stop, and longer than the daemon lives.

    `door` listens: there the next daemon takes the worker up. `trusted`: the user may have more descriptors than
    others.
    """
    _shun_signals()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    own = len(os.listdir("/proc/self/fd")) + _OWN
    own_cookie()
    sandbox.name(f"ssad:{uid}")
    with Path(os.devnull).open("r+b", buffering=0) as nothing:
        sandbox.enter(ids)
        for number in range(3):  # the log is the daemon's: a worker's lines go through it
            os.dup2(nothing.fileno(), number)
    sys.stderr = Lines(logging.getLogger("ssa.daemon"))
    process = Process(most, own)
    process.closers.end_lingering()
    free = process.table.free
    trio.run(_serve, channel, door, uid, free * 3 // 4 if trusted else free // 4, process)


def _shun_signals() -> None:
    """Ignore what is meant for the daemon: it ends its workers itself."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


async def _serve(channel: socket.socket, door: socket.socket, uid: int, limit: int, process: Process) -> None:
    link = Link(channel)
    worker = link.worker = Worker(uid, limit, link, process)
    logging.getLogger().addHandler(_ToDaemon(link))
    try:
        await _serve_until_the_end(link, worker, door, _peer(channel))
    except Exception:
        worker.log.exception("a fault of ssad's own, which ends this worker")
        link.outbox.flush()
        raise
    worker.stop()
    worker.close(time.monotonic() + _PATIENCE)
    process.close()


async def _serve_until_the_end(link: Link, worker: Worker, door: socket.socket, owner: int) -> None:
    async with trio.open_nursery() as nursery:

        def serve(message: messages.Serve | messages.Visit, connection: socket.socket) -> None:
            nursery.start_soon(_serve_one, worker, message, connection)

        nursery.start_soon(worker.process.run)
        nursery.start_soon(link.outbox.run)
        nursery.start_soon(_end_when_idle, worker, link, nursery.cancel_scope)
        while not await link.run(serve):
            if (following := await _next_daemon(door, owner, worker)) is None:
                break
            link.attach(following)
        nursery.cancel_scope.cancel()


async def _end_when_idle(worker: Worker, link: Link, scope: trio.CancelScope) -> None:
    """Tell the daemon when there has been nothing to do for a while, and end when it says so."""
    while not link.retires.is_set():
        idle_since = trio.current_time()
        while worker.is_idle() and not link.retires.is_set():
            await trio.sleep(_IDLE / 10)
            if trio.current_time() - idle_since > (_SESSIONS if len(worker.sessions) else _IDLE):
                link.outbox.put(messages.Idle())
                idle_since = trio.current_time()
        await trio.sleep(_IDLE / 10)
    while worker.is_needed():  # noqa: ASYNC110 - nobody tells, and it is for moments
        await trio.sleep(_IDLE / 100)
    scope.cancel()


def _peer(channel: socket.socket) -> int:
    """The uid of the process that has made the other end of a channel."""
    return int(ipc.UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, ipc.UCRED.size))[1])


async def _next_daemon(door: socket.socket, owner: int, worker: Worker) -> socket.socket | None:
    """The channel to the next daemon, which is of the same user as the last one; None where it is not waited for.

    Streams that this process carries, and listeners, wait for it as long as they last. Sockets of the kernel's TLS need
    this process for their next keys: they wait for some minutes.
    """
    began = trio.current_time()
    while True:
        with trio.move_on_after(1):
            await trio.lowlevel.wait_readable(door)
            channel, _ = door.accept()
            if _peer(channel) == owner:
                return channel
            channel.close()
        waited = trio.current_time() - began
        if not worker.is_needed() and waited > (_FOR_KEYS if worker.has_keys() else _FOR_NOTHING):
            return None


async def _serve_one(worker: Worker, message: messages.Serve | messages.Visit, connection: socket.socket) -> None:
    """Serve one application's connection, or a neighbour's. Whatever happens here, the others are served on."""
    has_ended, guest = False, worker if isinstance(message, messages.Serve) else worker.guest(message.application.uid)
    try:
        if isinstance(message, messages.Serve):
            Link.has_looked(message)
            has_ended = await dispatch.serve(worker, message.application, connection)
        else:
            await dispatch.receive_visit(worker, guest, message.application, connection)
    except OSError as exc:
        worker.log.debug("an application went away: %s", exc.strerror)
    except Exception:
        worker.log.exception("a fault of ssad's own")
    finally:
        guest.closer.end_requests(connection, has_ended=has_ended)


class _ToDaemon(logging.Handler):
    """Sends the lines of the log to the daemon: in order with what else is sent, where the event loop logs."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._loop = threading.get_ident()
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Send a line; count it as dropped where there is no room."""
        try:
            self._emit(_line(record))
        except Exception:  # noqa: BLE001 - there is nobody to tell
            self._dropped += 1

    def _emit(self, line: messages.Line) -> None:
        if threading.get_ident() != self._loop:
            self._link.channel.send(frames.pack([line]), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        elif len(self._link.outbox) < _MOST_LINES:
            self._link.outbox.put(line)
        else:
            self._dropped += 1
            return
        if self._dropped and threading.get_ident() == self._loop:
            self._link.outbox.put(messages.Dropped(self._dropped))
            self._dropped = 0


def _line(record: logging.LogRecord) -> messages.Line:
    trace = "".join(traceback.format_exception(*record.exc_info)) if record.exc_info else ""
    charged = getattr(record, "uid", -1) >= 0
    return messages.Line(record.name, record.levelno, record.getMessage()[:_LONGEST], charged, trace[-_LONGEST:])
