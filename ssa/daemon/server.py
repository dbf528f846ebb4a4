"""Accepts applications, asks the kernel who each is, and hands its connection on, unread, to that user's worker."""

from __future__ import annotations

import array
import contextlib
import fcntl
import logging
import select
import termios
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.daemon import who
from ssa.protocol import wire
from ssa.worker import ipc

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from ssa.daemon.handle import Handle
    from ssa.daemon.state import State
    from ssa.daemon.workers import Workers
    from ssa.worker.closing import Closer
    from ssa.worker.quota import Table
    from ssa.worker.records import Application

_log = logging.getLogger("ssa.daemon")

_GIVEN_UP = 64  # connections that are let go of at once
_MOMENTS, _MOMENT = 20, 0.001  # how often, and how many seconds, to wait for threads that close
_TOGETHER = 16  # connections that are accepted in one go, before others get their turn


async def serve(state: State, workers: Workers, listener: socket.socket) -> None:
    """Serve applications until cancelled."""
    listener.setblocking(False)
    async with trio.open_nursery() as nursery:
        while True:
            await trio.lowlevel.wait_readable(listener)
            await _have_room(workers.table)
            try:
                for connection in _accepted(listener, workers.nobody, workers.table):
                    _pass_on(state, workers, connection, nursery)
            except OSError as exc:  # out of descriptors or memory: for now
                _log.error("no application can be served at the moment: %s", exc.strerror)
                await trio.sleep(0.1)


async def _have_room(table: Table) -> None:
    """Wait for a moment where few descriptors are left: threads close refused connections meanwhile."""
    for _ in range(_MOMENTS):
        if not table.is_scarce():
            return
        await trio.sleep(_MOMENT)


def _accepted(listener: socket.socket, closer: Closer, table: Table) -> Iterator[socket.socket]:
    """The next connections. Those that were given up are passed over. Raises OSError."""
    given_up: list[int] = []
    try:
        for _ in range(max(1, min(_TOGETHER, table.unused() // _TOGETHER))):
            connection, _ = listener.accept()
            if _is_given_up(connection):
                given_up.append(connection.detach())
            else:
                yield connection
    except BlockingIOError:
        return
    finally:
        if given_up:
            closer.give_up(given_up)


def _is_given_up(connection: socket.socket) -> bool:
    """True where the application has hung up, and has sent nothing."""
    poll = select.poll()
    poll.register(connection, 0)
    if not poll.poll(0):  # as a rule: POLLHUP cannot be declined
        return False
    size = array.array("i", [0])
    fcntl.ioctl(connection, termios.FIONREAD, size)
    return not size[0]


def _pass_on(state: State, workers: Workers, connection: socket.socket, nursery: trio.Nursery) -> None:
    """Give an application's connection to its user's worker. Whatever happens here, the others are served on."""
    try:
        application = who.asks(connection)
    except OSError as exc:
        _log.debug("an application went away: %s", exc.strerror)
        workers.nobody.end_requests(connection, has_ended=False)
        return
    if (handle := workers.running(application.uid)) is not None and handle.has_room:
        _give(state, handle, application, connection, workers.closers.of(application.uid))
    else:
        nursery.start_soon(_wait_for_a_worker, state, workers, application, connection)


async def _wait_for_a_worker(
    state: State, workers: Workers, application: Application, connection: socket.socket
) -> None:
    """Have a worker started, or wait until there is room in its channel. Then give it the connection."""
    closer = workers.closers.of(application.uid)
    try:
        handle = await workers.with_room(application.uid)
    except errors.SSAError as exc:
        state.count("requests_refused")
        with contextlib.suppress(OSError):
            ipc.send_now(connection, wire.Reply(reason=exc.reason, detail=exc.detail, alert=exc.alert, errno=exc.errno))
        closer.end_requests(connection, has_ended=False)
    else:
        _give(state, handle, application, connection, closer)


def _give(state: State, handle: Handle, application: Application, connection: socket.socket, closer: Closer) -> None:
    """Give a worker an application's connection. It is told in passing that it has the trust store as it is now."""
    source = state.policy.current.trust_store
    if (store := state.trust_stores.unchanged(source)) is not None:
        handle.store_is(source, store)
    fresh = "" if store is None else source
    handle.pass_on(application, connection, fresh, lambda: closer.drop_soon(connection))
