"""Stand-ins for servers that Debian does not have: so much of Kafka and MongoDB as answers the first requests."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket
    import ssl


def smtp(connection: socket.socket) -> None:
    """An SMTP server that takes every mail and keeps none."""
    lines = connection.makefile("rwb", buffering=0)
    lines.write(b"220 ready\r\n")
    while line := lines.readline():
        command = line[:4].upper().strip()
        if command == b"DATA":
            lines.write(b"354 go on\r\n")
            while lines.readline() not in (b".\r\n", b""):
                pass
        lines.write({b"EHLO": b"250-here\r\n250 8BITMIME\r\n", b"QUIT": b"221 bye\r\n"}.get(command, b"250 OK\r\n"))


# --- Kafka: protocol.html#protocol_messages, each number big-endian ------------------------------------------------

API_VERSIONS, METADATA = 18, 3
UNSUPPORTED_VERSION = 35


def kafka(tls: ssl.SSLSocket, _tcp: socket.socket) -> None:
    """Says that it speaks the oldest versions of ApiVersions and Metadata, and that it is the only broker."""
    host, port = b"localhost", tls.getsockname()[1]
    with tls.makefile("rb") as requests:
        while size := requests.read(4):
            request = requests.read(*struct.unpack(">i", size))
            api, version, correlation = struct.unpack(">hhi", request[:8])
            if api == API_VERSIONS:
                apis = struct.pack(">i", 2) + struct.pack(">hhhhhh", API_VERSIONS, 0, 0, METADATA, 0, 1)
                answer = struct.pack(">h", UNSUPPORTED_VERSION if version else 0) + apis
            elif api == METADATA and version <= 1:
                broker = struct.pack(">iih", 1, 0, len(host)) + host + struct.pack(">i", port)
                rack_and_controller = struct.pack(">hi", -1, 0) if version else b""
                answer = broker + rack_and_controller + struct.pack(">i", 0)
            else:
                return
            tls.sendall(struct.pack(">ii", 4 + len(answer), correlation) + answer)


# --- MongoDB: OP_MSG with one document of BSON, each number little-endian ------------------------------------------

OP_MSG = 2013
HELLO = {"isWritablePrimary": True, "minWireVersion": 0, "maxWireVersion": 21, "maxBsonObjectSize": 1 << 24, "ok": 1.0}


def bson(document: dict[str, bool | int | float]) -> bytes:
    """A document of BSON; a bool before an int, as Python's bool is one."""
    forms = {bool: (b"\x08", "<?"), int: (b"\x10", "<i"), float: (b"\x01", "<d")}
    fields = b""
    for name, value in document.items():
        tag, form = forms[type(value)]
        fields += tag + name.encode() + b"\0" + struct.pack(form, value)
    return struct.pack("<i", len(fields) + 5) + fields + b"\0"


def mongodb(tls: ssl.SSLSocket, _tcp: socket.socket) -> None:
    """Says that it is a server of its own that may be written to, and yes to all else, as to a ping."""
    with tls.makefile("rb") as requests:
        while header := requests.read(16):
            size, number, _, _ = struct.unpack("<iiii", header)
            body = requests.read(size - 16)
            answer = bson(HELLO if b"\x10hello\0" in body or b"ismaster" in body.lower() else {"ok": 1.0})
            head = struct.pack("<iiiiiB", 21 + len(answer), 1, number, OP_MSG, 0, 0)
            tls.sendall(head + answer)
