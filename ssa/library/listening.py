"""Listening: the daemon accepts and makes the handshakes; accept(2) here takes a connection that is ready.

listen passes the listening socket to the daemon and puts the connection to the daemon on the descriptor's number. Each
packet on it is one connection that is ready, with its descriptor. When the daemon goes, that connection ends; `accept`
then has the daemon's successor serve the listening socket, which is held beside the number.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import time

from ssa import errors
from ssa.library import connection, deadlines
from ssa.library.connecting import Connecting
from ssa.library.phases import ACCEPT, LISTEN, LISTENING
from ssa.protocol import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Self

_socket = socket.socket


class Listening(Connecting):
    """A TLS socket that can connect or listen."""

    __slots__ = ()

    def listen(self, backlog: int = 128, /) -> None:
        """Listen, and have the daemon make the handshakes. `accept` returns connections whose handshake is done.

        Raises what `socket.socket.listen` does, and `ssa.SSAError`: NO_CREDENTIALS where there is no certificate.
        """
        self._check(LISTEN)
        if self._held is not None:  # it listens already
            self._held.listen(backlog)
            return
        super().listen(backlog)
        self._backlog = max(0, backlog)
        try:
            with self._served(self) as queue:
                self._hold(queue.fileno())
        except OSError as exc:
            super().shutdown(socket.SHUT_RDWR)  # no longer listens
            raise self._failed(exc) from None
        self._phase = LISTENING

    def accept(self) -> tuple[Self, Any]:
        """A connection whose handshake is done, and the peer's address. It has this socket's options.

        Raises what `socket.socket.accept` does; ConnectionRefusedError while no daemon runs, on a non-blocking socket
        ENOBUFS.
        """
        self._check(ACCEPT)
        while True:
            packet, ancillary, flags, _ = super().recvmsg(wire.MAX_REPLY, connection.ROOM, socket.MSG_CMSG_CLOEXEC)
            if not packet:
                if self._read_ended:
                    raise OSError(errno.EINVAL, "the socket does not listen any more")
                self._serve_again()
                continue
            fds = connection.descriptors_of(ancillary)
            connection.check_room(fds, flags)
            reply = connection.reply_of(packet)
            if fds:
                sock = self._accepted(*fds, reply=reply)
                if socket.getdefaulttimeout() is None and self.gettimeout():
                    sock.setblocking(True)
                return sock, _peer_of(sock, reply)

    def _served(self, listener: _socket) -> connection.DaemonConnection:
        """Ask the daemon to serve a listening socket. Returns the connection on which ready connections come."""
        daemon = connection.DaemonConnection(deadlines.local())
        try:
            daemon.ask(wire.Listen(self._backlog, **self._settings.request()), listener, self._settings.descriptors())
        except BaseException:
            daemon.close()
            raise
        return daemon

    def _serve_again(self) -> None:
        """Ask the successor of a daemon that has gone to serve this listener. Clients meanwhile wait in TCP's queue."""
        if self._held is None:
            raise errors.error(
                "DAEMON_FAULT", "it went away; only the program that made this listener can have another one serve it"
            )
        if self.gettimeout() == 0 and time.monotonic() < self._resting:
            raise BlockingIOError(errno.EAGAIN, "nobody serves this listener for now")  # asyncio tries 100 times
        try:
            with self._served(self._held) as queue:
                self._replace(queue.fileno())
        except OSError as exc:
            if self.gettimeout() == 0:
                # Of what accept(2) says, this is what event loops take a rest at before they try again: the
                # descriptor stays readable, so at anything else they would be here again at once.
                self._resting = time.monotonic() + _REST
                exc = OSError(errno.ENOBUFS, f"nobody serves this listener for now: {exc.strerror or exc}")
            raise self._failed(exc) from None

    def _serve_with_new_options(self) -> None:
        """Tell the daemon that serves this listener the options as they are now, and wait until it has them."""
        packet = wire.pack(wire.Listen(None, **self._settings.request()))
        done, theirs = os.pipe()
        try:
            try:
                with self._plain() as plain:
                    socket.send_fds(plain, [packet], [theirs, *self._settings.descriptors()])
            finally:
                os.close(theirs)
            _wait_for_end(done, deadlines.LOCAL)
        except ConnectionError:  # that daemon has gone, and another one has just agreed
            self._serve_again()
        finally:
            os.close(done)

    def _accepted(self, fd: int, tcp: int | None = None, *, reply: wire.Reply) -> Self:
        """The socket object of an accepted connection. `tcp`: its TCP socket, where the daemon relays the stream."""
        raise NotImplementedError


_REST = 0.05  # seconds: less than event loops rest


def _wait_for_end(fd: int, seconds: float) -> None:
    """Wait until nobody holds the other end of a pipe any more. Raises TimeoutError."""
    poll = select.poll()
    poll.register(fd, 0)  # the hang-up is told in any case
    if not poll.poll(seconds * 1000):
        raise TimeoutError(errno.ETIMEDOUT, "the ssad that serves this listener does not answer; is it stopped?")


def _peer_of(sock: Listening, reply: wire.Reply) -> Any:
    """The address of an accepted connection's peer, which may have gone already."""
    try:
        return sock.getpeername()
    except OSError:
        host, _, port = (reply.remote or " 0").partition(" ")
        return (host, int(port)) if sock.family == socket.AF_INET else (host, int(port), 0, 0)
