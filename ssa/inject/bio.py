"""The objects that `SSLContext.wrap_bio` makes for trio and anyio, whose TLS is two buffers and a stream.

ssa's TLS is on a socket, so two buffers are not enough. The object has no socket until the library calls the one method
in which its buffers and its stream meet. ssa replaces that method: `trio.SSLStream._retry` in `ssa.inject.bio_trio`,
`anyio.streams.tls.TLSStream._call_sslobject_method` in `ssa.inject.bio_anyio`. The new method takes the socket from
under the stream, and from then on calls the TLS socket and waits for it. The rest of both libraries stays as it is.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl

from ssa.inject.failures import error
from ssa.inject.handshake import PAUSE, Handshake

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from ssa.inject.parameters import Parameters
    from ssa.inject.sslsocket import SSLSocket

# What an `ssl.SSLObject` answers to before its handshake.
_NOT_YET = frozenset(
    {
        "cipher",
        "compression",
        "get_channel_binding",
        "getpeercert",
        "selected_alpn_protocol",
        "selected_npn_protocol",
        "shared_ciphers",
        "version",
    }
)


class SSLObject:
    """Stands for an `ssl.SSLObject`. From the handshake on it has an `SSLSocket`, and answers by that.

    Attributes:
        sock: the socket; None before the handshake.
        cut: a message was sent in part only, as its sender was cancelled: the stream must not end in order any more.
    """

    def __init__(self, parameters: Parameters) -> None:
        self._parameters = parameters
        self.context, self.server_side = parameters.context, parameters.server_side
        self.server_hostname, self.session = parameters.server_hostname, None
        self.sock: SSLSocket | None = None
        self.cut = False

    def __getattr__(self, name: str) -> Any:
        if self.sock is not None and not name.startswith("_"):
            return getattr(self.sock, name)
        if name in _NOT_YET:
            return lambda *_args, **_kwargs: None
        raise AttributeError(name)

    def do_handshake(self) -> None:
        """Raises `ssa.SSAError` NO_COUNTERPART: `take` makes the handshake."""
        raise error("NO_COUNTERPART", "do_handshake: this version of trio or anyio is not known to ssa")

    def read(self, size: int = 1024, buffer: Any = None) -> Any:
        """Does what `ssl.SSLObject` documents."""
        return self._live().read(size, buffer)

    def write(self, data: Any) -> int:
        """Does what `ssl.SSLObject` documents."""
        return self._live().send(data)

    def unwrap(self) -> None:
        """End our half of the stream (close_notify). What the peer still sends is not waited for.

        A connection that has ended already is as good.
        """
        try:
            self._live().shutdown(socket.SHUT_WR)
        except ConnectionError:
            return
        except OSError as exc:
            if exc.errno != errno.ENOTCONN:
                raise

    def _live(self) -> SSLSocket:
        if self.sock is None:
            raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "the handshake is not done")
        return self.sock

    async def take(self, sock: socket.socket, waits: Waits, ahead: bytes = b"") -> SSLSocket:
        """Make the handshake on a connected plain socket, which is taken over. Cancelled, it closes the socket.

        `ahead` is what was read already of a client's first flight. Raises OSError as `ssl` does.
        """
        handshake = Handshake(self._parameters, sock, ahead=ahead)
        try:
            while not handshake.ask():
                await waits.sleep(PAUSE)
            while self.sock is None:
                await waits.readable(handshake)
                try:
                    self.sock = handshake.finish()
                except BlockingIOError:
                    continue
        except BaseException:
            handshake.close()
            raise
        return self.sock

    async def call(self, method: Callable[..., Any], args: tuple[Any, ...], waits: Waits) -> Any:
        """The result of `read`, `write` (of all the data) or `unwrap`, once the socket has let it. Raises OSError."""
        if method.__name__ == "write":
            return await self._send_all(args[0], waits)
        while True:
            try:
                return method(*args)
            except ssl.SSLWantReadError:
                await waits.readable(self._live())
            except ssl.SSLWantWriteError:
                await waits.writable(self._live())

    async def _send_all(self, data: Any, waits: Waits) -> int:
        with memoryview(data).cast("B") as view:
            sent = 0
            while sent < len(view):
                try:
                    sent += self._live().send(view[sent:])
                except ssl.SSLWantWriteError:
                    self.cut = sent > 0
                    await waits.writable(self._live())
            self.cut = False
            return sent

    def close(self) -> None:
        """Close the socket: in order, unless a message was cut. It never waits."""
        if self.sock is None:
            return
        if self.cut:
            os.close(self.sock.detach())
        else:
            self.sock.close()


class Waits:
    """An event loop's three waits: until a socket is readable, until it is writable, and for a time."""

    __slots__ = ("readable", "sleep", "writable")

    def __init__(
        self,
        readable: Callable[[Any], Awaitable[None]],
        writable: Callable[[Any], Awaitable[None]],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.readable, self.writable, self.sleep = readable, writable, sleep


def no_plain_text() -> OSError:
    """The error of the stream below a TLS stream, which its socket has left."""
    return error("NO_COUNTERPART", "after TLS there is no way back to plain text on this connection")
