"""Requests to ssad as a library writes them that is not `ssa.library`: from docs/library.md alone."""

import array
import socket
import struct

HOST = (85, b"localhost")
CONNECT, ACCEPT, LISTEN, CHECK, DESCRIBE, PLUG, GATHER, CLOSE = 1, 3, 4, 5, 6, 9, 10, 11


def connected(ssad):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(10)
    sock.connect(str(ssad.run_dir / "ssad.sock"))
    return sock


def attribute(number, value):
    value = struct.pack("=I", value) if isinstance(value, int) else value
    return struct.pack("=HHI", number, 0, len(value)) + value


def message(kind, *attributes, magic=b"SSA1"):
    body = b"".join(attribute(*one) for one in attributes)
    return struct.pack("=4sHHI", magic, kind, len(attributes), 12 + len(body)) + body


def read(packet):
    """A reply's attributes."""
    magic, kind, count, length = struct.unpack_from("=4sHHI", packet)
    assert (magic, kind, length) == (b"SSA1", 2, len(packet))
    found, at = {}, 12
    for _ in range(count):
        number, _, size = struct.unpack_from("=HHI", packet, at)
        found[number] = packet[at + 8 : at + 8 + size]
        at += 8 + size
    return found


def answer(connection):
    """A reply's attributes, and the descriptors that came with it."""
    packet, ancillary, flags, _ = connection.recvmsg(2**17, socket.CMSG_SPACE(8), socket.MSG_CMSG_CLOEXEC)
    assert not flags & socket.MSG_CTRUNC
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data)
    return read(packet), list(fds)


def ask(ssad, packet, *fds):
    with connected(ssad) as connection:
        socket.send_fds(connection, [packet], fds)
        return answer(connection)


def number(found, type_):
    return struct.unpack("=I", found[type_])[0] if type_ in found else None
