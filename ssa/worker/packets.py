"""Packets from applications and replies to them, with the descriptors that are passed along."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from ssa import errors

if TYPE_CHECKING:
    from ssa.protocol import wire
    from ssa.worker.closing import Closer


@dataclass(slots=True)
class Packet:
    """A packet that an application sent.

    Attributes:
        sender: the process that sent it, as the kernel vouches for it.
        too_long: it was longer than a request can be.
        cut: it came with more descriptors than there was room for.
    """

    data: bytes
    closer: Closer
    descriptors: list[int] = field(default_factory=list)
    sender: int = 0
    too_long: bool = False
    cut: bool = False
    _taken: socket.socket | None = None

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all descriptors that came with it, and wait until that is done."""
        if fds := self.release():
            await self.closer.close(fds).wait()

    def release(self) -> list[int]:
        """The descriptors that came with it and are still open. The caller has to close them."""
        fds, self.descriptors = self.descriptors, []
        if self._taken is not None and (fd := self._taken.detach()) >= 0:
            fds.append(fd)
        return fds

    async def close_files(self) -> None:
        """Close the files that came with it, and wait until that is done. The socket stays."""
        fds, self.descriptors = self.descriptors, []
        if fds:
            await self.closer.close(fds).wait()

    def take_socket(self) -> socket.socket:
        """The first descriptor, as a socket, which the packet closes. The others are files.

        Raises `ssa.SSAError` NO_DESCRIPTOR, NOT_TCP.
        """
        if not self.descriptors:
            raise errors.error("NO_DESCRIPTOR")
        try:
            self._taken = socket.socket(fileno=self.descriptors[0])
        except OSError as exc:
            raise errors.error("NOT_TCP", exc.strerror or "") from exc
        del self.descriptors[0]
        return self._taken


class Handover:
    """A reply and the descriptors to pass with it. It owns them, and closes them once it was sent or has failed."""

    __slots__ = ("_closer", "passed", "reply")

    def __init__(self, closer: Closer, reply: wire.Reply, *passed: socket.socket) -> None:
        self._closer = closer
        self.reply = reply
        self.passed = passed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in self.passed:
            self._closer.drop(sock)


def twin(sock: socket.socket) -> socket.socket:
    """Another descriptor of a socket. `sock.dup()` would change O_NONBLOCK, which is the application's too."""
    return socket.socket(sock.family, sock.type, sock.proto, os.dup(sock.fileno()))
