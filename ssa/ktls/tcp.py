"""Questions to the kernel about a TCP socket: how much is in its queues, how much it has carried, its events."""

from __future__ import annotations

import fcntl
import select
import socket
import struct
import termios

from ssa.ktls.constants import TCPI_BYTES_RECEIVED, TCPI_BYTES_SENT


def unread(sock: socket.socket) -> int:
    """The number of bytes that can be read. Raises OSError."""
    return _queued(sock, termios.FIONREAD)


def unacknowledged(sock: socket.socket) -> int:
    """The number of bytes that the peer's kernel has not acknowledged; our FIN counts as one. Raises OSError."""
    return _queued(sock, termios.TIOCOUTQ)


def _queued(sock: socket.socket, which: int) -> int:
    return int(struct.unpack("=i", fcntl.ioctl(sock.fileno(), which, bytes(4)))[0])


def shows(sock: socket.socket, events: int = 0) -> bool:
    """True where poll(2) tells one of these events of a socket now, or a hang-up or an error, which it always tells."""
    poll = select.poll()
    poll.register(sock, events)
    return bool(poll.poll(0))


def bytes_carried(tcp: socket.socket) -> tuple[int, int]:
    """The number of bytes that TCP has sent, and the number of received bytes that were read. Raises OSError."""
    waiting = -1
    while waiting != (waiting := unread(tcp)):  # more can come between the two
        info = tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _CARRIED.size)
    if len(info) < _CARRIED.size:  # before Linux 4.19
        return 0, 0
    received, sent = _CARRIED.unpack(info)
    return sent, received - waiting


_CARRIED = struct.Struct(f"={TCPI_BYTES_RECEIVED}xQ{TCPI_BYTES_SENT - TCPI_BYTES_RECEIVED - 8}xQ")  # of struct tcp_info
