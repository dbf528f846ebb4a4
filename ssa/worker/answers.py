"""Answers a request when all that came with it is closed: a thread closes, and then sends the answer.

The application may go on as soon as it has the answer, so its descriptors are closed before. To close them may block:
a thread does it, and then sends the answer. The event loop has nothing to do until the application goes on.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Self

import trio

from ssa.worker.ipc import IDLE, send, send_now
from ssa.worker.packets import Handover

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ssa.protocol import wire
    from ssa.worker.closing import Closer, Job
    from ssa.worker.packets import Packet


async def answer(connection: socket.socket, packet: Packet, reply: wire.Reply | Handover | None) -> bool:
    """Close all that came with a packet, and then send the answer to it. The next packet may be read then.

    False where the application did not take the answer in time, or has said nothing for too long. Raises OSError.
    """
    with _Answer(packet.closer, connection, reply) as sending:
        if fds := packet.release():
            job = packet.closer.close(fds, then=sending.try_in_a_thread)
            if not job.done and not await sending.waited_for(job):
                return False
            if sending.failure is None:
                return True
            if not isinstance(sending.failure, BlockingIOError):
                raise sending.failure
        return await sending.send()


class _Answer:
    """An answer to an application. As a context manager it closes the descriptors to be passed.

    Attributes:
        failure: the error with which a thread failed to send it.
    """

    def __init__(self, closer: Closer, connection: socket.socket, answer: wire.Reply | Handover | None) -> None:
        self.failure: OSError | None = None
        self._reply = answer.reply if isinstance(answer, Handover) else answer
        self._passed = answer.passed if isinstance(answer, Handover) else ()
        self._closer = closer
        self._connection = connection
        self._token = trio.lowlevel.current_trio_token()
        self._tell: Callable[[], object] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in self._passed:
            self._closer.drop(sock)

    async def send(self) -> bool:
        """Send it, if there is one. False where the application did not take it in time. Raises OSError."""
        return self._reply is None or await send(self._connection, self._reply, *self._passed)

    def try_in_a_thread(self) -> None:
        """Send it, if there is one, where the application's queue has room; and close what was passed with it."""
        passed = self._passed
        try:
            if self._reply is not None:
                send_now(self._connection, self._reply, *passed)
        except OSError as exc:
            self.failure = exc  # before `_tell` is looked at: `waited_for` looks the other way round
            if (tell := self._tell) is not None:
                with contextlib.suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(tell)
        else:
            for sock in passed:
                sock.close()

    async def waited_for(self, job: Job) -> bool:
        """Wait until the thread is done and the application goes on. False if the application stays silent."""
        try:
            with trio.move_on_after(IDLE) as silence:
                self._tell = silence.cancel
                if self.failure is None:  # else nobody calls `_tell`
                    await trio.lowlevel.wait_readable(self._connection)
            await job.wait()
        except BaseException:
            if not job.done:  # ssad ends: these numbers must not become others' while the thread may still use them
                self._connection.detach()
                self._passed = ()
            raise
        return self.failure is not None or not silence.cancelled_caught
