"""The address that stands before each packet of a descriptor on which all clients of a UDP port are served.

docs/library.md has the layout. `SIZE` is its length in bytes.
"""

from __future__ import annotations

import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# the event, the family, the port, the address (IPv4's in its first four bytes), the scope
_PREFIX = struct.Struct("=BBH16sI")
SIZE = _PREFIX.size

DATA, GONE = 0, 1  # events: a datagram follows; this client's session has ended, and nothing follows


def packed(address: Any, kind: int = DATA) -> bytes:
    """Write a socket address of AF_INET or AF_INET6. Raises OSError where its host is a name, or its zone is none."""
    host, port, *more = address
    host, _, zone = host.partition("%")
    scope = more[1] if len(more) > 1 else 0
    if zone and not scope:
        scope = int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return _PREFIX.pack(kind, family, port, socket.inet_pton(family, host), scope)


def unpacked(prefix: bytes) -> tuple[int, Any]:
    """Read the event, and the address as `socket.recvfrom` gives it."""
    kind, family, port, host, scope = _PREFIX.unpack_from(prefix)
    if family == socket.AF_INET:
        return kind, (socket.inet_ntop(family, host[:4]), port)
    text = socket.inet_ntop(family, host)
    if scope and host[:2] == b"\xfe\x80":
        text = f"{text}%{_zone(scope)}"
    return kind, (text, port, 0, scope)


def family_of(prefix: bytes) -> int:
    """Read the address family."""
    family: int = _PREFIX.unpack_from(prefix)[1]
    return family


def _zone(scope: int) -> str:
    try:
        return socket.if_indextoname(scope)
    except OSError:
        return str(scope)
