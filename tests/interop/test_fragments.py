"""Handshake messages that come in several records (RFC 8446 section 5.1): before the hand-over, and later."""

import os

import pytest

import ssa
from ssa.ktls.constants import HANDSHAKE
from ssa.suites import TLSVersion
from tests import peers
from tests.interop import raw as peer

TLS12, TLS13 = TLSVersion


def ticket(size):
    """A NewSessionTicket whose ticket has `size` bytes: some of them look like the beginning of a KeyUpdate."""
    body = b"\0\0\1\0" + b"\0\0\0\1" + b"\1\1" + size.to_bytes(2, "big") + b"\x18" * size + b"\0\0"
    return b"\4" + len(body).to_bytes(3, "big") + body


def pieces(raw, message, size):
    return [raw.seal(message[at : at + size], HANDSHAKE) for at in range(0, len(message), size)]


@pytest.mark.parametrize("size", [1, 100, 512, 1400])
def test_a_plain_read_does_not_meet_tickets_in_pieces(ssad, pki, size):
    """They are taken before the kernel has the keys."""
    before = int(ssad.get("stats/tickets"))

    def serve(sock):
        raw = peer.Raw(sock, peer.context(pki, TLS13, server=True), server=True)
        for record in pieces(raw, ticket(1500 if size > 100 else 100) * 2, size):
            raw.send(record)
        raw.read()
        raw.send(raw.seal(b"data"))
        raw.read()

    with peers.script(serve) as port:
        fd = ssa.connect_tls("localhost", port)
        os.write(fd, b"ready")
        assert os.read(fd, 100) == b"data"
        ssa.close(fd)
    assert int(ssad.get("stats/tickets")) == before + 2
