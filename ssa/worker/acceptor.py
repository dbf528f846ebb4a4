"""Serves a listening socket in its application's place: accepts, makes the handshakes, and hands over what is done.

An application whose `accept` had to make a handshake would wait behind its slowest client, and its `poll` would report
connections that are not ready. So we do what the kernel does for TCP: connections whose handshake is under way are kept
apart from those that are ready, and only ready ones can be accepted. The application's descriptor is its end of the
connection to us, which is readable when a connection is ready.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.logfmt import fields
from ssa.protocol import wire
from ssa.protocol.attributes import MAX_BACKLOG
from ssa.worker import datagrams, ipc, pipeline
from ssa.worker.packets import Handover, twin
from ssa.worker.records import Refusal
from ssa.worker.server_context import Serving
from ssa.worker.terms import agree

if TYPE_CHECKING:
    from ssa.worker.packets import Packet
    from ssa.worker.records import Application
    from ssa.worker.service import Worker

_BATCH = 16  # connections accepted in one go at most, before others get their turn
_FOR_NOW, _FOR_LONG = 0.05, 1.0  # seconds


async def run(
    worker: Worker,
    application: Application,
    request: wire.Listen,
    packet: Packet,
    connection: socket.socket,
) -> None:
    """Serve until the application closes its end. The caller closes the packet.

    Raises `ssa.SSAError` for what is wrong with the request.
    """
    sock = packet.take_socket()
    application = await worker.monitor.settled(application)
    if sock.type == socket.SOCK_DGRAM:
        await datagrams.listen(worker, application, request, packet, sock, connection)
        return
    _check(sock)
    terms = await agree(worker, request, packet.descriptors)
    await worker.monitor.fresh_credentials(application)
    serving = Serving(worker, application, terms, request.server_name)
    await packet.close_files()
    listener = _Listener(worker, application, serving, sock, connection, backlog=request.backlog)
    with worker.listed(application, sock.getsockname(), listener.serving, "TLS"):
        await worker.monitor.told()
        if not await ipc.send(connection, wire.Reply()):
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept, nursery)
            await ipc.follow(worker, application, connection, listener.renew)
            nursery.cancel_scope.cancel()


def _listens(sock: socket.socket) -> bool:
    """True until shutdown(2): then poll(2) reports a socket ready that has nothing to accept."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _check(sock: socket.socket) -> None:
    if not _listens(sock) or sock.proto != socket.IPPROTO_TCP:
        raise errors.error("NOT_LISTENING")


class _Listener:
    """One listening socket."""

    def __init__(  # noqa: PLR0913 - what it is made of
        self,
        worker: Worker,
        application: Application,
        serving: Serving,
        sock: socket.socket,
        connection: socket.socket,
        *,
        backlog: int | None,
    ) -> None:
        self._worker = worker
        self._application = application
        self._serving = serving
        self._socket = sock
        self._connection = connection
        self._backlog = max(1, min(backlog or 128, MAX_BACKLOG))
        self._ready = 0  # connections that the application has not taken
        self._room = trio.Event()
        self._delivering = trio.Lock()

    def serving(self) -> Serving:
        """The terms and certificates that it is served with now."""
        return self._serving

    async def renew(self, request: wire.Listen, files: list[int]) -> None:
        """Go on with other options. Raises `ssa.SSAError`; then it is served as before."""
        terms = await agree(self._worker, request, files)
        await self._worker.monitor.fresh_credentials(self._application)
        self._serving = Serving(self._worker, self._application, terms, request.server_name)

    async def accept(self, nursery: trio.Nursery) -> None:
        """Accept and serve until cancelled, or until the socket listens no more: then the nursery is cancelled."""
        failed, pause = None, _FOR_NOW
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            while not (room := self._room_for_more(nursery)):  # the next wait in TCP's queue
                await self._taken()
            try:
                accepted = await self._accept_some(room)
            except (
                OSError,
                RuntimeError,
            ) as exc:  # no descriptor, memory or thread is left, or the connection has gone
                if not _listens(self._socket):
                    self._worker.log.info("a socket listens no more %s", fields(pid=self._application.pid))
                    nursery.cancel_scope.cancel()
                    return
                if failed != (failed := getattr(exc, "errno", 0)):
                    self._worker.log.warning("a connection could not be accepted: %s", exc)
                await trio.sleep(pause)
                pause = min(2 * pause, _FOR_LONG)
                continue
            failed, pause = None, _FOR_NOW
            for sock in accepted:
                nursery.start_soon(self._serve, sock)

    def _room_for_more(self, nursery: trio.Nursery) -> int:
        """The number of connections that may be accepted now: one, and as many more as are under way.

        To look for one that has not come costs two system calls.
        """
        user = self._worker.room_for_ready()
        most = len(nursery.child_tasks)  # the task that accepts is one of them
        return max(0, min(_BATCH, most, self._backlog - self._ready, user))

    async def _taken(self) -> None:
        """Wait until the application takes a connection of this listener, or a moment, as it may take another's."""
        self._room = trio.Event()
        with trio.move_on_after(_FOR_NOW):
            await self._room.wait()

    async def _accept_some(self, most: int) -> list[socket.socket]:
        """Accept in a thread, as the application can clear O_NONBLOCK and take the connection before we do."""
        with self._worker.quota.of():  # it may wait for a thread
            batch = _Batch(self._application, twin(self._socket), most)
            try:
                await trio.to_thread.run_sync(batch.accept, abandon_on_cancel=True, limiter=self._worker.threads.accept)
            except BaseException:
                for sock in batch.abandon():
                    self._worker.closer.drop(sock)
                raise
            return batch.accepted

    async def _serve(self, sock: socket.socket) -> None:
        try:
            with self._worker.quota.of():
                await self._serve_in_place(sock)
        except errors.SSAError as exc:
            self._worker.monitor.refused(Refusal.of(exc, self._application, request="listener"))
        except OSError as exc:
            self._worker.log.debug(
                "listener of pid %d: its application went away: %s", self._application.pid, exc.strerror
            )
        except Exception:
            self._worker.log.exception("a fault of ssad's own, serving the listener of pid %d", self._application.pid)
        finally:
            self._worker.closer.drop(sock)  # it has the listener's options, SO_LINGER too

    async def _serve_in_place(self, sock: socket.socket) -> None:
        reply = None
        with self._worker.crowd.place():
            reply = await pipeline.serve(self._worker, self._application, self._serving, sock)
        if isinstance(reply, Handover):
            with reply:
                await self._deliver(reply.reply, *reply.passed, sock)
        elif reply is not None:
            await self._deliver(reply, sock)

    async def _deliver(self, reply: wire.Reply, *passed: socket.socket) -> None:
        """Hand over what the application reads and writes, and behind it a relayed connection's TCP socket."""
        self._ready += 1
        self._worker.ready += 1
        try:
            await self._worker.monitor.told()
            if self._delivering.locked():
                await self._delivering.acquire()
            else:
                self._delivering.acquire_nowait()  # without a turn of the event loop
            try:
                await ipc.send(self._connection, reply, *passed)
            finally:
                self._delivering.release()
        finally:
            self._ready -= 1
            self._worker.ready -= 1
            self._room.set()


_libc = ctypes.CDLL(None, use_errno=True)


class _Batch:
    """Connections that a thread accepts in the name of the application's user, whose firewall rules hold then.

    netfilter and sock_diag take the accepting thread's file system uid for the socket's owner.
    """

    def __init__(self, application: Application, listener: socket.socket, most: int) -> None:
        """The listener is taken over."""
        self.accepted: list[socket.socket] = []
        self._application = application
        self._listener = [listener]  # whoever takes it out closes it
        self._most = most
        self._abandoned = False

    def accept(self) -> None:
        """Accept the connections that wait, in a thread. Raises OSError where not even one can be accepted."""
        try:
            listener = self._listener.pop()
        except IndexError:  # abandoned
            return
        own = os.geteuid()
        foreign = self._application.uid != own
        if foreign:
            _libc.setfsgid(self._application.gid)
            _libc.setfsuid(self._application.uid)
        try:
            with listener:
                while len(self.accepted) < self._most:
                    # For each call anew: the flag belongs to the open file, which the application has too.
                    os.set_blocking(listener.fileno(), False)
                    self._keep(listener.accept()[0])
        except BlockingIOError:
            return
        except OSError:
            if not self.accepted:
                raise
        finally:
            if foreign:
                _libc.setfsuid(own)
                _libc.setfsgid(os.getegid())

    def _keep(self, sock: socket.socket) -> None:
        self.accepted.append(sock)
        if self._abandoned:  # `abandon` may have taken it out: whoever does so closes it
            with contextlib.suppress(ValueError):
                self.accepted.remove(sock)
                sock.close()
            raise BlockingIOError

    def abandon(self) -> list[socket.socket]:
        """Accept no more: the sockets that the caller has to close, a listener that no thread has among them."""
        self._abandoned = True  # before the lists are looked at: `_keep` looks the other way round
        left = []
        with contextlib.suppress(IndexError):
            while True:
                left.append((self._listener or self.accepted).pop())
        return left
