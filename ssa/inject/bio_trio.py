"""trio's side of `ssa.inject.bio`: `trio.SSLStream._retry`, through which all that an SSLStream does goes.

With an `SSLObject` of ours it takes the socket from under the stream in the handshake, and then calls and waits on the
TLS socket. The SSLStream goes on as it is, with a `_Socketed` in the place of its `transport_stream`.
"""

# ruff: noqa: SLF001 - to stand in for it is to know what it is made of

from __future__ import annotations

import errno
import select
import socket
from typing import TYPE_CHECKING, Any

import trio
from trio import _ssl as theirs

from ssa.inject import bio, loops
from ssa.inject.failures import StreamCut, error

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.inject.sslsocket import SSLSocket

_WAITS = bio.Waits(trio.lowlevel.wait_readable, trio.lowlevel.wait_writable, trio.sleep)
_retry = theirs.SSLStream._retry


def teach() -> None:
    """Put `_retry` below in the place of trio's, once."""
    if theirs.SSLStream._retry is _retry:
        loops.replace(theirs.SSLStream, "_retry", _retry_with_ssa)


async def _retry_with_ssa(
    self: Any, fn: Callable[..., Any], *args: Any, ignore_want_read: bool = False, is_handshake: bool = False
) -> Any:
    ours = self._ssl_object
    if not isinstance(ours, bio.SSLObject):
        return await _retry(self, fn, *args, ignore_want_read=ignore_want_read, is_handshake=is_handshake)
    await trio.lowlevel.checkpoint_if_cancelled()
    try:
        result = await (_take(self, ours) if ours.sock is None else ours.call(fn, args, _WAITS))
    except OSError as exc:
        self._state = theirs._State.BROKEN
        if getattr(exc, "reason", None) == "NO_COUNTERPART":
            raise
        if exc.errno == errno.EBADF:
            raise trio.ClosedResourceError("this socket was closed") from None
        if isinstance(exc, StreamCut) and ours.policy_refuses_cuts:
            exc = ConnectionAbortedError(errno.ECONNABORTED, exc.strerror)  # trio would take the other one for an end
        raise trio.BrokenResourceError from exc
    except BaseException:
        if is_handshake or ours.cut:
            self._state = theirs._State.BROKEN
        raise
    await trio.lowlevel.cancel_shielded_checkpoint()
    return result


async def _take(stream: Any, ours: bio.SSLObject) -> None:
    """Make the handshake on the socket of the stream's transport stream. To close that one then closes the socket."""
    under = stream.transport_stream
    if not isinstance(under, trio.SocketStream) or isinstance(under, _Socketed):
        words = f"TLS over a {type(under).__name__}: it has to be a trio.SocketStream, which has a TCP socket"
        raise error("NO_COUNTERPART", words)
    plain = socket.socket(fileno=under.socket.detach())
    stream.transport_stream = _Socketed(ours, await ours.take(plain, _WAITS))
    under.aclose = stream.transport_stream.aclose  # type: ignore[method-assign]  # of this one stream


class _Socket:
    """A socket with the methods that trio's have and Python's don't; the rest is the TLS socket's."""

    def __init__(self, sock: SSLSocket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def is_readable(self) -> bool:
        """Does what `trio.socket.SocketType` documents."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))


class _Socketed(trio.abc.HalfCloseableStream):
    """Stands below an SSLStream after its handshake. It has the socket's facts, and closes it. No data passes it."""

    def __init__(self, ours: bio.SSLObject, sock: SSLSocket) -> None:
        self._ours = ours
        self.socket = _Socket(sock)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Raises `ssa.SSAError` NO_COUNTERPART."""
        del data
        raise bio.no_plain_text()

    async def wait_send_all_might_not_block(self) -> None:
        """Does what `trio.abc.SendStream` documents."""
        await trio.lowlevel.wait_writable(self.socket._sock)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Raises `ssa.SSAError` NO_COUNTERPART."""
        del max_bytes
        raise bio.no_plain_text()

    async def send_eof(self) -> None:
        """Raises `ssa.SSAError` NO_COUNTERPART."""
        raise bio.no_plain_text()

    async def aclose(self) -> None:
        """Close the socket, at once."""
        if self.socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self.socket._sock)
            self._ours.close()
        await trio.lowlevel.checkpoint()


trio.SocketStream.register(_Socketed)  # httpcore asks for one
