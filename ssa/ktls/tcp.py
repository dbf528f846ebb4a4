"""Questions to the kernel about a TCP socket: ioctl(2) and poll(2)."""

from __future__ import annotations

import fcntl
import select
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


def unread(sock: socket.socket) -> int:
    """How many bytes there are to read. Raises OSError."""
    return _queued(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """How many bytes the peer's kernel has not acknowledged; our FIN counts as one. Raises OSError."""
    return _queued(sock, termios.TIOCOUTQ)


def _queued(sock: socket.socket, which: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), which, bytes(4)))[0])


def shows(sock: socket.socket, events: int = 0) -> bool:
    """True where poll(2) tells one of these events of a socket now, or a hang-up or an error, which it always tells."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(0))
