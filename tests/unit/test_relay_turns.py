"""One relayed connection, turn by turn: its end told from a crash, and tickets that come with data."""

import contextlib
import socket

import pytest
import trustme
from OpenSSL import SSL

from ssa.relay.channel import Channel, Workspace
from ssa.relay.connection import Relay
from ssa.suites import BY_OPENSSL_NAME


def tls_in_memory():
    """Both ends of a TLS connection, behind its handshake."""
    leaf = trustme.CA().issue_cert("localhost")
    context = SSL.Context(SSL.TLS_METHOD)
    leaf.configure_cert(context)
    client, server = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None), SSL.Connection(context, None)
    client.set_connect_state()
    server.set_accept_state()
    for one, other in ((client, server), (server, client)) * 2:
        with contextlib.suppress(SSL.WantReadError):
            one.do_handshake()
        other.bio_write(one.bio_read(1 << 16))
    return client, server


@pytest.mark.parametrize("announces", [True, False])
def test_an_end_that_is_announced_while_it_is_looked_at(announces):
    """An application announces, and then closes; the thread that relays may look between any two of these."""
    client, server = tls_in_memory()
    suite = BY_OPENSSL_NAME[client.get_cipher_name()]
    inner, outer = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()

    def held():  # what an application does between two looks
        if announces:
            relay.announce_end()
        outer.close()
        return False

    outer.shutdown(socket.SHUT_RDWR)
    with inner, outer, tcp, peer:
        relay = Relay(Channel(client, suite, Workspace()), tcp, inner, held, lambda *_: None)
        relay.serve_application(1)
        if records := peer.recv(100):
            server.bio_write(records)
        try:
            server.recv(1)
        except SSL.ZeroReturnError:
            ended = True
        except SSL.WantReadError:
            ended = False
        assert ended == announces


def test_a_ticket_that_comes_with_data():
    client, server = tls_in_memory()
    suite = BY_OPENSSL_NAME[client.get_cipher_name()]
    server.send(b"and the first data")
    inner, outer = socket.socketpair()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tcp = socket.create_connection(listener.getsockname())
        peer, _ = listener.accept()
    kept = []
    with inner, outer, tcp, peer:
        peer.sendall(server.bio_read(1 << 16))
        relay = Relay(
            Channel(client, suite, Workspace()), tcp, inner, lambda: True, lambda *_: None, keep_session=kept.append
        )
        relay.serve_peer(1)
        assert outer.recv(100) == b"and the first data"
    assert kept == [client]
