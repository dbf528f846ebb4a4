"""A KeyUpdate that is asked for while much is sent: the key changes before the next 1 MiB (RFC 8446 section 4.6.3)."""

import os
import socket
import threading

import pytest

from ssa.suites import TLSVersion
from ssa.tls import APPLICATION_DATA, HANDSHAKE
from tests.interop import raw as peer

TLS13 = TLSVersion.TLSv1_3
MIB = 1 << 20
SIZE = 6 * MIB
ROOM = 64 * 1024  # bytes in each buffer on the way


def sendfile(ours, path, **options):
    with path.open("rb") as file:
        assert ours.sendfile(file, **options) == SIZE


def sendmsg(ours, path):
    data = path.read_bytes()
    assert ours.sendmsg([data[:100], data[100:]]) == SIZE


def write_many(ours, path):
    data = path.read_bytes()
    for at in range(0, SIZE, 16384):
        ours.sendall(data[at : at + 16384])


def with_a_timeout(ours, path):
    ours.settimeout(60)
    ours.sendall(path.read_bytes())


def send(ours, path):
    assert ours.send(path.read_bytes()) == SIZE


WAYS = {
    "sendall": ("connected", lambda ours, path: ours.sendall(path.read_bytes())),
    "sendall with a timeout": ("connected", with_a_timeout),
    "send": ("connected", send),
    "many sends": ("connected", write_many),
    "sendmsg": ("connected", sendmsg),
    "sendfile": ("connected", sendfile),
    "sendfile of a count": ("connected", lambda ours, path: sendfile(ours, path, count=SIZE)),
    "sendall of a server": ("accepted", lambda ours, path: ours.sendall(path.read_bytes())),
    "ssa.send": ("bare", send),
}


@pytest.fixture
def rekeys(ssad, capabilities):
    """Skip where the kernel cannot change keys."""
    if not capabilities.rekey:
        pytest.skip("this kernel cannot change keys")


@pytest.mark.parametrize("reader", [False, True], ids=["nobody reads", "another thread reads"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.usefixtures("rekeys")
def test_the_answer_comes_soon(pki, tmp_path, way, reader):
    kind, do = WAYS[way]
    path = tmp_path / "content"
    path.write_bytes(os.urandom(MIB) * (SIZE // MIB))
    with peer.KINDS[kind](pki, TLS13) as (ours, raw):
        if kind != "bare":
            ours.settimeout(None)
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
        with socket.socket(fileno=os.dup(ours.fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
        received, asked, answered = b"", 0, 0
        threads = [threading.Thread(target=do, args=(ours, path), daemon=True)]
        if reader:
            threads.append(threading.Thread(target=ours.recv, args=(1,), daemon=True))
        for thread in threads:
            thread.start()
        while len(received) < SIZE:
            record, content = raw.read()
            received += content if record == APPLICATION_DATA else b""
            if record == HANDSHAKE and content[:1] == b"\x18":
                answered = len(received)
            if not asked and len(received) > MIB:
                raw.send(raw.key_update(requested=True))
                asked = len(received)
        threads[0].join(30)
        raw.send(raw.seal(b"x"))
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert received == path.read_bytes()
        assert asked < answered < asked + MIB + 12 * ROOM
