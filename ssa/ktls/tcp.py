"""What the daemon asks the kernel about a TCP socket in passing."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


def unread(sock: socket.socket) -> int:
    """How many bytes are there to be read. Raises OSError."""
    return _queued(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """How many bytes the peer's kernel does not have yet; our FIN counts as one. Raises OSError."""
    return _queued(sock, termios.TIOCOUTQ)


def _queued(sock: socket.socket, which: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), which, bytes(4)))[0])


def shows(sock: socket.socket, events: int = 0) -> bool:
    """Whether poll(2) tells one of these events of a socket now, or what can't be declined: a hang-up, an error."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(0))
