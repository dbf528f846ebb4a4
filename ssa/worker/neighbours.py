"""A request about a TLS socket that another user's worker has made: it is asked there, and the answer is passed on.

A program may ask about any TLS socket of which it has a descriptor. Its own user's worker takes the request, and the
daemon connects the two workers for this one request, so neither sees anything else of the other. The threads and
descriptors that the answer takes count as those of the user who asks.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.protocol import wire
from ssa.worker import ipc
from ssa.worker.packets import Handover

if TYPE_CHECKING:
    from ssa.worker.closing import Closer

_PATIENCE = 60.0  # seconds for the other worker to answer: it may wait for a send of an application's
_PASSED = 4  # descriptors of an answer at most
_FLAGS = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC


async def ask(
    closer: Closer, connection: socket.socket, request: wire.Message, sock: socket.socket
) -> wire.Reply | Handover:
    """The answer to a request about a socket, from the worker at the other end of a connection.

    Raises `ssa.SSAError`: what that worker raises, and UNKNOWN_SOCKET where it has ended.
    """
    try:
        ipc.send_request(connection, request, sock)
        with trio.move_on_after(_PATIENCE):
            return _answer_untrusted(closer, *await _received(connection))
    except errors.SSAError:
        raise
    except OSError as exc:
        raise errors.error("UNKNOWN_SOCKET", f"the worker of its user has ended: {exc.strerror}") from exc
    raise errors.error("UNKNOWN_SOCKET", "the worker of its user does not answer")


async def _received(connection: socket.socket) -> tuple[bytes, list[int]]:
    while True:
        try:
            data, descriptors, _, _ = socket.recv_fds(connection, wire.MAX_REPLY, _PASSED, _FLAGS)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(connection)
        else:
            return data, descriptors


def _answer_untrusted(closer: Closer, data: bytes, descriptors: list[int]) -> wire.Reply | Handover:
    passed = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    try:
        reply = wire.parse_untrusted(data, wire.Reply)
        if reply.reason is not None:
            raise errors.error(reply.reason, reply.detail or "", reply.alert)
    except (errors.SSAError, wire.WireError, KeyError) as exc:
        for sock in passed:
            closer.drop(sock)
        if isinstance(exc, errors.SSAError):
            raise
        raise errors.error("UNKNOWN_SOCKET", "the worker of its user has ended") from exc
    return Handover(closer, reply, *passed) if passed else reply
