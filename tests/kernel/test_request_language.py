"""Attributes of requests that choose or tell more: on a kernel with TLS."""

import os
import re
import socket
import ssl
import threading

import pytest

import ssa
from ssa.library.fdswap import Borrowed
from tests import peers
from tests.raw_requests import ACCEPT, CONNECT, HOST, LISTEN, answer, ask, connected, message, number

CHAIN, CERTIFICATE, KEY, WITH_CHAIN, RELAY, AHEAD, RELAYED, PEER_AUTH = 95, 88, 89, 527, 528, 529, 530, 94


def ders(path):
    text = path.read_text()
    return [ssl.PEM_cert_to_DER_cert(pem) for pem in re.findall(r"-----BEGIN.*?END CERT.*?-----", text, re.DOTALL)]


def echo(tls, _tcp):
    while data := tls.recv(65536):
        tls.sendall(data)


def tried(fd):
    """A descriptor of either kind carries data both ways."""
    assert ssa.send(fd, b"hello") == 5
    assert ssa.recv(fd, 100) == b"hello"
    ssa.close(fd)


@pytest.mark.parametrize("relay", [0, 1])
def test_a_client_gets_the_path_and_the_chain_that_it_asked_for(ssad, pki, relay):
    with peers.python_server(pki, echo) as port, socket.create_connection(("localhost", port)) as tcp:
        found, fds = ask(ssad, message(CONNECT, HOST, (RELAY, relay), (WITH_CHAIN, 1)), tcp.fileno())
        assert 513 not in found, found
        assert found[CHAIN] == b"".join(ders(pki.cert))
        assert (number(found, RELAYED), len(fds)) == ((1, 1) if relay else (None, 0))
        tried(fds[0] if relay else tcp.detach())


def test_ktls_alone_refuses_the_relay(ssad, pki):
    ssad.set("data_path", "ktls")
    with peers.python_server(pki, echo) as port, socket.create_connection(("localhost", port)) as tcp:
        found, fds = ask(ssad, message(CONNECT, HOST, (RELAY, 1)), tcp.fileno())
    assert (found[513], fds) == (b"POLICY_DENIED", [])
    assert found[100] == b"data_path: relay asked for, the policy allows ktls"


def client(pki, port, certificate=None):
    """Python's own `ssl`, in a thread: says hello, and waits for an answer."""
    context = ssl.create_default_context(cafile=pki.ca)
    if certificate:
        context.load_cert_chain(*certificate)
    got = []

    def run():
        with (
            socket.create_connection(("localhost", port), timeout=10) as tcp,
            context.wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            tls.sendall(b"hello")
            got.append(tls.recv(100))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, got


def echoed(fd):
    data = ssa.recv(fd, 100)
    ssa.send(fd, data)
    ssa.close(fd)


@pytest.mark.parametrize("most", [1, 100, 32768])
def test_a_hello_that_was_read_before_the_kernel_got_its_keys(ssad, pki, most):
    with socket.create_server(("127.0.0.1", 0)) as listener, pki.cert.open() as certificate, pki.key.open() as key:
        thread, got = client(pki, listener.getsockname()[1])
        tcp = listener.accept()[0]
        tcp.recv(1, socket.MSG_PEEK)
        packet = message(ACCEPT, (CERTIFICATE, 1), (KEY, 1), (AHEAD, tcp.recv(most)))
        found, fds = ask(ssad, packet, tcp.fileno(), certificate.fileno(), key.fileno())
        assert (found.get(513), number(found, RELAYED), fds) == (None, None, [])
        echoed(tcp.detach())
        thread.join(10)
    assert got == [b"hello"]


@pytest.mark.parametrize("relay", [0, 1])
def test_a_listeners_connections_come_as_it_asked(ssad, pki, relay):
    mine = pki.issue("client", "client.example")
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pki.cert.open() as certificate,
        pki.key.open() as key,
        connected(ssad) as connection,
    ):
        packet = message(LISTEN, (CERTIFICATE, 1), (KEY, 1), (RELAY, relay), (WITH_CHAIN, 1), (PEER_AUTH, 1))
        socket.send_fds(connection, [packet], [listener.fileno(), certificate.fileno(), key.fileno()])
        assert answer(connection) == ({}, [])
        thread, got = client(pki, listener.getsockname()[1], mine)
        found, fds = answer(connection)
        assert found[CHAIN] == b"".join([*ders(mine[0]), *ders(pki.ca)])  # OpenSSL's clients send the anchor too
        assert (number(found, RELAYED), len(fds)) == ((1, 2) if relay else (None, 1))
        with Borrowed(fds[0]) as sock:
            assert (sock.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN) == socket.AF_UNIX) == bool(relay)
        echoed(fds[0])
        for fd in fds[1:]:
            os.close(fd)
        thread.join(10)
    assert got == [b"hello"]
