"""A handshake that ssad makes while an event loop goes on: asked for in one call, fetched in another, never waited for.

The connection to ssad is readable when the answer is there, so an event loop watches that. Nothing is put on the number
of the TCP socket's descriptor meanwhile (compare `ssa.library.fdswap`), so no epoll set has to be looked through.
"""

from __future__ import annotations

import errno
import socket
import time

from ssa.inject import plaintext
from ssa.inject.failures import error
from ssa.library import connection
from ssa.library.phases import LIVE
from ssa.protocol import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ssa.inject.parameters import Parameters
    from ssa.inject.sslsocket import SSLSocket

PAUSE = 0.02  # seconds until ssad is asked again, where its queue of connections is full


class Handshake:
    """One handshake, on a connected plain TCP socket, which it owns from the beginning.

    `ask` until it returns True; then wait until `fileno` is readable, and `finish`. `close` at any time gives up:
    nothing is left of the handshake then, here or in ssad.
    """

    __slots__ = ("_ahead", "_daemon", "_parameters", "_plain", "_upgrade")

    def __init__(
        self, parameters: Parameters, sock: socket.socket, *, upgrade: bool = False, ahead: bytes = b""
    ) -> None:
        """Take `sock`. Nothing is asked yet.

        Args:
            parameters: what the connection is wrapped with.
            sock: closed if this raises.
            upgrade: the connection was in use as plain text before (STARTTLS).
            ahead: of a server: what was read already of the client's first flight.

        Raises `ssa.SSAError`: NO_COUNTERPART where the socket is not TCP's, PLAINTEXT_PENDING for a client's `ahead`.
        """
        self._parameters, self._ahead = parameters, ahead
        self._plain: socket.socket | None = sock
        self._daemon: connection.DaemonConnection | None = None
        try:
            if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
                raise error(
                    "NO_COUNTERPART", "TLS runs over TCP here: not over a Unix socket, nor over another TLS stream"
                )
            if ahead and not parameters.server_side:
                raise plaintext.pending(ahead)
            if len(ahead) > wire.MAX_AHEAD:
                raise error("NOT_TLS", f"the first {len(ahead)} bytes that the client sent are no ClientHello")
            self._upgrade = upgrade or plaintext.was_used(sock)
            sock.setblocking(False)
        except BaseException:
            self.close()
            raise

    def ask(self) -> bool:
        """Ask ssad for the handshake; False where its queue of connections is full: try again after `PAUSE`.

        Raises OSError as `ssa.library.connection.DaemonConnection` does, and where the TCP connection is lost.
        """
        plain, settings = self._connected(), self._parameters.settings
        try:
            self._daemon = connection.DaemonConnection(time.monotonic())
        except TimeoutError:
            return False
        try:
            self._daemon.tell(self._request(), plain, settings.descriptors())
        except OSError as exc:
            raise self._parameters.explained(exc) from None
        return True

    def _connected(self) -> socket.socket:
        if self._plain is None:
            raise OSError(errno.EBADF, "the handshake is done, or was given up")
        return self._plain

    def _request(self) -> wire.Request:
        options: dict[str, Any] = {**self._parameters.settings.request(), "control": 1}
        if self._upgrade:
            options["upgrade"] = 1
        if self._ahead:
            options["ahead"] = self._ahead
        if self._parameters.server_side:
            return wire.Accept(**options)
        return wire.Connect(options.pop("hostname"), **options)

    def fileno(self) -> int:
        """The descriptor that is readable when `finish` has something to give."""
        return -1 if self._daemon is None else self._daemon.fileno()

    def finish(self) -> SSLSocket:
        """The socket after its handshake, non-blocking, which is the caller's; this object is done then.

        Raises BlockingIOError where the handshake is under way still, else what went wrong, as `ssl` would raise it.
        """
        if self._daemon is None:
            raise OSError(errno.EBADF, "the handshake was not asked for, or was given up")
        try:
            reply, passed = self._daemon.reply_now()
        except BlockingIOError:
            raise
        except OSError as exc:
            raise self._parameters.explained(exc) from None
        made = self._made(reply, passed)
        made.setblocking(False)
        self._daemon.close()
        self._daemon = None
        return made.having(self._parameters)

    def _made(self, reply: wire.Reply, passed: list[int]) -> SSLSocket:
        kind: type[SSLSocket] = self._parameters.context.sslsocket_class
        tcp, settings = self._connected(), self._parameters.settings
        self._plain = None
        if passed:
            return kind.adopt_relayed(passed[0], tcp, settings, reply)
        return kind.adopt(tcp.detach(), tcp.family, settings, LIVE, reply)

    def close(self) -> None:
        """Give up, or do nothing where the handshake is done."""
        if self._daemon is not None:
            self._daemon.close()
            self._daemon = None
        if self._plain is not None:
            self._plain.close()
            self._plain = None
