"""Messages to another process of ssad: they are sent in order, and who sends one need not wait."""

from __future__ import annotations

import array
import contextlib
import itertools
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

import trio

from ssa.worker import frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_ROOM = 212_992  # bytes for packets that the other end has not read (net.core.wmem_max, as a rule)
_LEVEL, _RIGHTS = socket.SOL_SOCKET, socket.SCM_RIGHTS
_ANCILLARY = socket.CMSG_SPACE(4 * 253)  # SCM_MAX_FD: what has no room the kernel closes here and now, which may block


def pair() -> tuple[socket.socket, socket.socket]:
    """The two ends of a channel between processes of ssad. Raises OSError."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _ROOM)
    return ends


class _Waiting(NamedTuple):
    message: Any
    descriptor: int | None
    then: Callable[[], object] | None


class Outbox:
    """The messages that wait to be sent on a channel. `run` has to run. For one thread.

    Where nobody reads the channel any more they wait, until there is another channel.
    """

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._is_broken = False
        self._waiting: deque[_Waiting] = deque()
        self._stirred = trio.Event()
        self._moved = trio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Any, descriptor: int | None = None, then: Callable[[], object] | None = None) -> None:
        """Send a message soon. A descriptor goes with it, which has to be open until `then` is called."""
        self._waiting.append(_Waiting(message, descriptor, then))
        self._stirred.set()

    async def sent(self) -> None:
        """Send all that was put, and wait for room as long as that takes."""
        while not self.flush():
            await self._moved.wait()

    def flush(self) -> bool:
        """Send what there is room for. True where nothing is left."""
        while self._waiting and not self._is_broken:
            batch = self._batch()
            try:
                self._send(batch)
            except BlockingIOError:
                return False
            except ConnectionError:
                self._is_broken = True
                return False
            for _ in batch:
                if (then := self._waiting.popleft().then) is not None:
                    then()
        return not self._waiting

    def _batch(self) -> list[_Waiting]:
        """The next packet's messages. A descriptor goes with one message alone."""
        first = self._waiting[0]
        if len(self._waiting) == 1 or first.descriptor is not None:
            return [first]
        together = itertools.islice(self._waiting, frames.TOGETHER)
        return list(itertools.takewhile(lambda waiting: waiting.descriptor is None, together))

    def _send(self, batch: list[_Waiting]) -> None:
        data = frames.pack(waiting.message for waiting in batch)
        while len(data) > frames.MOST and len(batch) > 1:
            del batch[1:]
            data = frames.pack([batch[0].message])
        passed = [waiting.descriptor for waiting in batch if waiting.descriptor is not None]
        rights = [(_LEVEL, _RIGHTS, array.array("i", passed))] if passed else []
        self._channel.sendmsg([data], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    async def run(self) -> None:
        """Send what nobody waits for, until cancelled."""
        while True:
            await self._stirred.wait()
            self._stirred = trio.Event()
            while not self.flush() and not self._is_broken:
                with contextlib.suppress(trio.ClosedResourceError):
                    await trio.lowlevel.wait_writable(self._channel)
            self._move()

    def _move(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    def attach(self, channel: socket.socket, first: Iterable[tuple[Any, int | None]], keep: tuple[type, ...]) -> None:
        """Go on with another channel: first send these messages, then of what waits those of the kinds to keep."""
        kept = [waiting for waiting in self._waiting if isinstance(waiting.message, keep)]
        for waiting in self._waiting:
            if waiting.then is not None and not isinstance(waiting.message, keep):
                waiting.then()
        self._waiting = deque(_Waiting(message, descriptor, None) for message, descriptor in first)
        self._waiting.extend(kept)
        self._channel, self._is_broken = channel, False
        self._stirred.set()
        self._move()

    def close(self) -> None:
        """Drop what waits."""
        while self._waiting:
            if (then := self._waiting.popleft().then) is not None:
                then()


class Inbox:
    """Reads the packets of a channel, each with the descriptors that came with it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._room = bytearray(frames.MOST)

    def read(self) -> tuple[bytes, list[int]] | None:
        """The next packet; None where the other end has gone. Raises BlockingIOError where there is none."""
        flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
        try:
            size, ancillary, _, _ = self._channel.recvmsg_into([self._room], _ANCILLARY, flags)
        except ConnectionResetError:
            return None
        fds = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (_LEVEL, _RIGHTS):
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
        if not size and not fds:
            return None
        return bytes(self._room[:size]), list(fds)


class Question:
    """A question to the other end. `message` is kept where another end may have to be asked again."""

    def __init__(self, message: Any = None) -> None:
        self.message = message
        self.answered = trio.Event()
        self.answer: Any = None

    def settle(self, answer: Any) -> None:
        """Take the answer."""
        self.answer = answer
        self.answered.set()
