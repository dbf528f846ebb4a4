"""ssad and a library that is not `ssa.library`: raw packets, written from docs/library.md and the vectors alone."""

import array
import contextlib
import errno
import os
import select
import socket
import struct

import pytest

from tests import peers
from tests.peers import Daemon, settled

POLICY = '[policy]\ntrust_store = "{}"\ndata_path = "relay"\n'


@pytest.fixture(scope="module")
def ssad(tmp_path_factory, pki):
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=POLICY.format(pki.ca)) as daemon:
        yield daemon
        assert "Traceback" not in daemon.log


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


HOST = (85, b"localhost")
CONNECT, ACCEPT, LISTEN, CHECK, DESCRIBE, CLOSE, PLUG = 1, 3, 4, 5, 6, 11, 9


@contextlib.contextmanager
def tls_client(ssad, port, *options):
    """A relayed connection as a client: the descriptor, and the reply."""
    with socket.create_connection(("localhost", port)) as tcp:
        found, fds = ask(ssad, message(CONNECT, HOST, (515, 1), *options), tcp.fileno())
        assert 513 not in found, found
        with socket.socket(fileno=fds[0]) as end:
            yield end, found


def echo(tls, _tcp):
    while data := tls.recv(65536):
        tls.sendall(data)


def test_a_client_reads_writes_and_ends(ssad, pki):
    ended = []

    def serve(tls, _tcp):
        tls.sendall(tls.recv(100))
        ended.append(tls.recv(100))  # b"": our close_notify; a bare end raises
        tls.unwrap()

    with peers.python_server(pki, serve) as port, tls_client(ssad, port) as (end, found):
        assert found[113] == b"TLSv1.3"
        assert found[93] == b"localhost"
        assert number(found, 530) == 1
        end.sendall(b"hello")
        assert end.recv(100) == b"hello"
        end.shutdown(socket.SHUT_WR)
        assert ask(ssad, message(CLOSE), end.fileno()) == ({}, [])
        assert settled(lambda: ended == [b""])
        assert end.recv(100) == b""
        described, fds = ask(ssad, message(DESCRIBE), end.fileno())
        for fd in fds:
            os.close(fd)
        assert described[531] == b"close_notify"


def test_a_connect_under_way_is_not_writable(ssad, pki):
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        tcp = stack.enter_context(socket.create_connection(listener.getsockname()))
        connection = stack.enter_context(connected(ssad))
        socket.send_fds(connection, [message(CONNECT, HOST)], [tcp.fileno()])
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        connection.send(message(PLUG, (520, bytes(2048))))
        assert select.select([connection], [connection], [], 0.3) == ([], [], [])
        stack.enter_context(listener.accept()[0]).close()
        assert select.select([], [connection], [], 5)[1] == [connection]
        found, _ = answer(connection)
        assert (found[513], number(found, 526)) == (b"CONNECTION_RESET", errno.ECONNRESET)


def test_an_error_has_its_errno(ssad, pki):
    with peers.python_server(pki, echo) as port, socket.create_connection(("localhost", port)) as tcp:
        found, _ = ask(ssad, message(CONNECT, (85, b"other.example")), tcp.fileno())
    assert (found[513], number(found, 526)) == (b"HOSTNAME_MISMATCH", errno.EKEYREJECTED)
    assert b"other.example" in found[100]
    assert found[514] == b"bad_certificate"


LATER = {
    "another version": (message(CONNECT, HOST, magic=b"SSA2"), b"version 'SSA2'"),
    "another version, not understood otherwise": (b"SSA7", b"version 'SSA7'"),
    "a later kind": (message(77, HOST), b"kind 77"),
    "a later attribute": (message(CONNECT, HOST, (9999, 1)), b"attributes [9999]"),
}


@pytest.mark.parametrize(("packet", "named"), LATER.values(), ids=LATER)
def test_a_later_library_is_told_what_is_spoken_here(ssad, packet, named):
    with connected(ssad) as connection:
        connection.send(packet)
        found, _ = answer(connection)
        assert (found[513], number(found, 526)) == (b"VERSION_MISMATCH", errno.EPROTONOSUPPORT)
        assert named in found[100]
        assert b"speaks SSA1" in found[100]
        connection.send(message(CHECK))  # and it may go on in terms that are known here
        assert 513 not in answer(connection)[0]


def test_what_is_no_message_is_no_version_of_one(ssad):
    for packet in (b"GET / HTTP/1.1\r\n\r\n", b"SSA", message(CONNECT), message(CONNECT, HOST, (516, 1))):
        with connected(ssad) as connection:
            connection.send(packet)
            assert answer(connection)[0][513] == b"BAD_REQUEST"
