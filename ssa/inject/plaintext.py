"""Plain text on a connection before its TLS: recognises STARTTLS, and refuses what an attacker may have put there."""

from __future__ import annotations

import socket
import struct

from ssa.inject.failures import error

# struct tcp_info (include/uapi/linux/tcp.h): tcpi_bytes_sent, from Linux 4.19 on
_TCP_INFO = struct.Struct("=200xQ")
_SHOWN = 64  # bytes


def was_used(sock: socket.socket) -> bool:
    """True where bytes were sent on a connected TCP socket already: then TLS begins behind an agreement in plain text.

    An older kernel does not say; then it is taken for used.
    """
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
    except OSError:
        return True
    return len(info) < _TCP_INFO.size or _TCP_INFO.unpack(info)[0] > 0


def pending(data: bytes | bytearray) -> OSError:
    """The error for plain text that came before the server's first TLS record (compare CVE-2011-0411)."""
    return error("PLAINTEXT_PENDING", repr(bytes(data[:_SHOWN]))[1:])
