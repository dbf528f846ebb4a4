"""Handshake messages that come in several records (RFC 8446 section 5.1): before the hand-over, and later."""

import contextlib
import os
import time

import pytest

import ssa
from ssa.ktls.rekey import key_update
from ssa.suites import TLSVersion
from ssa.tls import HANDSHAKE
from tests import peers
from tests.interop import raw as peer

TLS12, TLS13 = TLSVersion


def ticket(size):
    """A NewSessionTicket whose ticket has `size` bytes: some of them look like the beginning of a KeyUpdate."""
    body = b"\0\0\1\0" + b"\0\0\0\1" + b"\1\1" + size.to_bytes(2, "big") + b"\x18" * size + b"\0\0"
    return b"\4" + len(body).to_bytes(3, "big") + body


def pieces(raw, message, size):
    return [raw.seal(message[at : at + size], HANDSHAKE) for at in range(0, len(message), size)]


@pytest.mark.parametrize("size", [20, 100, 512, 1400])
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


CLIENTS = {name: peer.KINDS[name] for name in ("connected", "bare")}


@pytest.mark.parametrize("size", [1, 3, 512, 1400])
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_ticket_in_pieces_is_no_obstacle(ssad, pki, kind, size):
    """However small the pieces are, and whatever they begin with: some look like a KeyUpdate to the kernel."""
    with CLIENTS[kind](pki, TLS13) as (ours, raw):
        for word in (b"one", b"two"):
            raw.send(*pieces(raw, ticket(1500 if size > 3 else 40), size), raw.seal(word))
            assert ours.recv(100) == word
        for record in pieces(raw, ticket(30), 7):
            raw.send(record)
            time.sleep(0.02)
        raw.send(raw.seal(b"three"))
        assert ours.recv(100) == b"three"
        ours.sendall(b"four")
        assert raw.read_data() == b"four"


def test_a_key_update_in_pieces(ssad, capabilities, pki):
    """Behind the end of a ticket, and by itself: the key changes when all of it is there."""
    if not capabilities.rekey:
        return
    with peer.connected(pki, TLS13) as (ours, raw):
        for message in (ticket(20), b""):
            records = pieces(raw, message + key_update(requested=True), 3)
            raw.tx.advance()
            raw.send(*records, raw.seal(b"behind"))
            assert ours.recv(6) == b"behind"
            ours.sendall(b"answer")
            assert raw.read() == (HANDSHAKE, key_update(requested=False))
            assert raw.read_data() == b"answer"


def test_the_parts_can_be_read_by_several_processes(ssad, pki):
    """And through several descriptors: the daemon has what came before."""
    with peer.bare(pki, TLS13) as (ours, raw):
        records = pieces(raw, ticket(100), 40)
        raw.send(records[0])
        os.set_blocking(ours.fd, False)
        child = os.fork()
        if not child:
            time.sleep(0.1)
            with contextlib.suppress(BlockingIOError):
                ssa.recv(ours.fd, 100)
            os._exit(0)
        os.waitpid(child, 0)
        raw.send(*records[1:], raw.seal(b"data"))
        twin = os.dup(ours.fd)
        time.sleep(0.1)
        assert ssa.recv(twin, 100) == b"data"
        os.close(twin)


def test_without_a_daemon_one_process_joins_them(capabilities, pki, tmp_path, monkeypatch):
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        both = contextlib.ExitStack()
        ours, raw = both.enter_context(peer.connected(pki, TLS13))
    with both:
        raw.send(*pieces(raw, ticket(1500), 512), raw.seal(b"data"))
        assert ours.recv(100) == b"data"


def test_a_server_with_small_fragments(ssad, pki):
    """Its tickets hold the client's certificate, and are longer than a record of its."""
    cert, key = pki.issue("client", "client.test")
    options = ("-tls1_3", "-max_send_frag", 512, "-Verify", 1, "-CAfile", pki.ca, "-rev", "-quiet")
    with peers.openssl(pki, *options) as (port, _):
        for _ in range(3):
            with ssa.create_connection(("localhost", port), timeout=20, certificate=cert, private_key=key) as sock:
                sock.sendall(b"abc\n")
                assert sock.recv(100) == b"cba\n"
        assert sock.fileno() == -1
        with ssa.create_connection(("localhost", port), timeout=20, certificate=cert, private_key=key) as sock:
            sock.settimeout(None)
            fd = sock.detach()
        ssa.send(fd, b"abc\n")
        assert ssa.recv(fd, 100) == b"cba\n"
        ssa.close(fd)
