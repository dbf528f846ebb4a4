"""The first of two replies to a request with `early`: the descriptor comes before the handshake."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ssa import errors
from ssa.protocol import wire
from ssa.relay.early import EarlyPair
from ssa.worker import ipc

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from ssa.worker.service import Worker

_ENDS = 2


@contextlib.asynccontextmanager
async def early_end(
    worker: Worker, request: wire.Message, connection: socket.socket
) -> AsyncIterator[EarlyPair | None]:
    """Hand the application's end over, where the request wants it early; None where it does not.

    Raises OSError, `ssa.SSAError` BAD_REQUEST, OVERLOADED.
    """
    if not getattr(request, "early", None):
        yield None
        return
    if not getattr(request, "relay", None):
        raise errors.error("BAD_REQUEST", "early is for a relayed descriptor: relay is to be 1")
    worker.check_room()
    with worker.quota.of(_ENDS):
        pair = EarlyPair()
        try:
            await ipc.send(connection, wire.Reply(relayed=1), pair.outer)
            yield pair
        finally:
            if not pair.taken:
                worker.closer.drop(pair.outer)
                worker.closer.hang_up(pair.inner)
