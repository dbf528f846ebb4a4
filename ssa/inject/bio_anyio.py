"""anyio's side of `ssa.inject.bio`: `anyio.streams.tls.TLSStream._call_sslobject_method`.

All that a TLSStream does goes through that method. With an `SSLObject` of ours it takes the socket from under the
stream in the handshake, on asyncio or on trio, and then calls and waits on the TLS socket.
"""

# ruff: noqa: SLF001, S610 - to stand in for it is to know what it is made of; and it is not Django's `extra`

from __future__ import annotations

import errno
import functools
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams import tls as theirs

from ssa.inject import bio, loops
from ssa.inject.failures import error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ssa.inject.sslsocket import SSLSocket

_WAITS = bio.Waits(anyio.wait_readable, anyio.wait_writable, anyio.sleep)
_call = theirs.TLSStream._call_sslobject_method


def teach() -> None:
    """Put `_call_sslobject_method` below in the place of anyio's, once."""
    if theirs.TLSStream._call_sslobject_method is _call:
        loops.replace(theirs.TLSStream, "_call_sslobject_method", _call_with_ssa)


async def _call_with_ssa(self: Any, func: Callable[..., Any], *args: Any) -> Any:
    ours = self._ssl_object
    if not isinstance(ours, bio.SSLObject):
        return await _call(self, func, *args)
    if self._broken:
        raise anyio.BrokenResourceError
    await anyio.lowlevel.checkpoint_if_cancelled()
    if ours.sock is None:
        await _handshake(self, ours)
        return None
    try:
        result = await ours.call(func, args, _WAITS)
    except ssl.SSLEOFError as exc:
        if self.standard_compatible or ours.policy_refuses_cuts:
            raise anyio.BrokenResourceError from exc
        raise anyio.EndOfStream from None
    except ssl.SSLError:
        raise
    except OSError as exc:
        if exc.errno == errno.EBADF:
            raise anyio.ClosedResourceError from None
        raise anyio.BrokenResourceError from exc
    finally:
        self._broken = ours.cut
    await anyio.lowlevel.cancel_shielded_checkpoint()  # what was read must not be lost
    return result


async def _handshake(stream: Any, ours: bio.SSLObject) -> None:
    """Make the handshake. Where the peer closes or resets the connection, the stream is broken, as it is with anyio."""
    try:
        await _take(stream, ours)
    except OSError as exc:
        if isinstance(exc, ConnectionResetError) or getattr(exc, "reason", None) == "PEER_CLOSED":
            raise anyio.BrokenResourceError from exc
        raise


async def _take(stream: Any, ours: bio.SSLObject) -> None:
    """Make the handshake on the socket of the stream's transport stream. To close that one then closes the socket."""
    below = stream.transport_stream
    facts = _facts(below)
    plain, ahead = _taken_from(below)
    stream.transport_stream = _Socketed(ours, await ours.take(plain, _WAITS, ahead), facts)
    below.aclose = stream.transport_stream.aclose


def _facts(stream: Any) -> dict[Any, Callable[[], Any]]:
    """A stream's attributes, as they are now: after its end they could not be asked for."""
    return {key: functools.partial(_same, stream.extra(key, None)) for key in stream.extra_attributes}


def _same(value: Any) -> Any:
    return value


def _taken_from(stream: Any) -> tuple[socket.socket, bytes]:
    """The plain socket from under a SocketStream, which ends by that; and what it has read already."""
    transport: Any = getattr(stream, "_transport", None)
    of_trio: Any = getattr(stream, "_trio_socket", None)
    if transport is None and of_trio is None:
        words = f"TLS over a {type(stream).__name__}: it has to be an anyio SocketStream, which has a TCP socket"
        raise error("NO_COUNTERPART", words)
    if transport is None:
        return socket.socket(fileno=of_trio.detach()), b""
    plain = socket.socket(fileno=os.dup(stream.extra(SocketAttribute.raw_socket).fileno()))
    transport.abort()
    stream._closed = True
    return plain, b"".join(stream._protocol.read_queue)  # of a listener it reads at once


class _Socketed(ByteStream):
    """Stands below a TLSStream after its handshake. It has the socket's facts, and closes it. No data passes it."""

    def __init__(self, ours: bio.SSLObject, sock: SSLSocket, facts: dict[Any, Callable[[], Any]]) -> None:
        self._ours, self._sock = ours, sock
        self._facts = facts | {SocketAttribute.raw_socket: lambda: sock}

    @property
    def extra_attributes(self) -> Mapping[Any, Callable[[], Any]]:
        """Those of the stream that was there."""
        return self._facts

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Raises `ssa.SSAError` NO_COUNTERPART."""
        del max_bytes
        raise bio.no_plain_text()

    async def send(self, item: bytes) -> None:
        """Raises `ssa.SSAError` NO_COUNTERPART."""
        del item
        raise bio.no_plain_text()

    async def send_eof(self) -> None:
        """Raises `ssa.SSAError` NO_COUNTERPART."""
        raise bio.no_plain_text()

    async def aclose(self) -> None:
        """Close the socket, at once."""
        if self._sock.fileno() >= 0:
            anyio.notify_closing(self._sock)
            self._ours.close()
        await anyio.lowlevel.checkpoint()
