"""Accepts applications, asks the kernel who each is, and hands its connection on to that user's worker."""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

import trio

from ssa.daemon import who
from ssa.worker import dispatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssa.daemon.workers import Workers
    from ssa.worker.closing import Closer
    from ssa.worker.hang_ups import HangUps
    from ssa.worker.quota import Table

_log = logging.getLogger("ssa.daemon")

_GIVEN_UP = 64  # connections that are let go of at once
_MOMENTS, _MOMENT = 20, 0.001  # how often, and how many seconds, to wait for threads that close


async def serve(workers: Workers, listener: socket.socket) -> None:
    """Serve applications until cancelled."""
    listener.setblocking(False)
    process = workers.process
    process.closers.end_lingering()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.run)
        while True:
            await trio.lowlevel.wait_readable(listener)
            await _have_room(process.table)
            try:
                for connection in _accepted(listener, process.nobody, process.hang_ups):
                    nursery.start_soon(_serve_one, workers, connection)
            except OSError as exc:  # out of descriptors or memory: for now
                _log.error("no application can be served at the moment: %s", exc.strerror)
                await trio.sleep(0.1)


async def _have_room(table: Table) -> None:
    """Wait for a moment where few descriptors are left: threads close refused connections meanwhile."""
    for _ in range(_MOMENTS):
        if not table.is_scarce():
            return
        await trio.sleep(_MOMENT)


def _accepted(listener: socket.socket, closer: Closer, hang_ups: HangUps) -> Iterator[socket.socket]:
    """The next connection. Behind one that was given up, others that were given up are passed over. Raises OSError."""
    given_up: list[int] = []
    try:
        while len(given_up) < _GIVEN_UP:
            connection, _ = listener.accept()
            if not hang_ups.without_a_word or not _is_given_up(connection):
                hang_ups.without_a_word = False
                yield connection
                return
            given_up.append(connection.detach())
    except BlockingIOError:
        return
    finally:
        if given_up:
            closer.give_up(given_up)


def _is_given_up(connection: socket.socket) -> bool:
    """True where the application has hung up and sent nothing."""
    try:
        data, _, flags, _ = connection.recvmsg(1, 0, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return not (data or flags & socket.MSG_CTRUNC)  # a packet has its sender's credentials at least


async def _serve_one(workers: Workers, connection: socket.socket) -> None:
    """Serve one application's connection. Whatever happens here, the others are served on."""
    closer, log, has_ended = workers.process.nobody, workers.log, False
    try:
        application = who.connected(connection)
        worker = workers.of(application.uid)
        closer, log = worker.closer, worker.log
        has_ended = await dispatch.serve(worker, application, connection)
    except OSError as exc:
        log.debug("an application went away: %s", exc.strerror)
    except Exception:
        log.exception("a fault of ssad's own")
    finally:
        closer.end_requests(connection, has_ended=has_ended)
