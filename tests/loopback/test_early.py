"""`early`: the relayed descriptor comes before the handshake is done (docs/library.md)."""

import contextlib
import os
import select
import socket
import ssl
import threading

import pytest

from tests import peers
from tests.peers import Daemon
from tests.raw_requests import ACCEPT, CONNECT, HOST, answer, connected, message, number, read

RELAY, EARLY, REASON, RELAYED, CERTIFICATE, KEY = 528, 560, 513, 530, 88, 89
IN, OUT, HUP = select.POLLIN, select.POLLOUT, select.POLLHUP


def shows(fd, timeout=0):
    poll = select.poll()
    poll.register(fd, IN | OUT)
    return dict(poll.poll(timeout)).get(fd.fileno(), 0)


def early(found, fds):
    assert (number(found, RELAYED), len(fds)) == (1, 1)
    return socket.socket(fileno=fds[0])


@pytest.fixture(scope="module")
def ssad(tmp_path_factory, pki):
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        yield daemon
        assert "Traceback" not in daemon.log


@pytest.fixture
def server(pki):
    def echo(tls, _tcp):
        tls.sendall(tls.recv(64))
        tls.unwrap()

    with peers.python_server(pki, echo) as port:
        yield port


def test_the_descriptor_comes_first(ssad, server):
    with connected(ssad) as connection, socket.create_connection(("127.0.0.1", server)) as tcp:
        socket.send_fds(connection, [message(CONNECT, HOST, (RELAY, 1), (EARLY, 1))], [tcp.fileno()])
        found, fds = answer(connection)
        with early(found, fds) as ours:
            told, more = answer(connection)
            assert (REASON in told, number(told, RELAYED), more) == (False, 1, [])
            assert shows(ours, 5000) & OUT
            ours.sendall(b"hello")
            assert ours.recv(64) == b"hello"
            assert ours.recv(64) == b""


def test_it_takes_and_gives_nothing_before(ssad):
    with (
        connected(ssad) as connection,
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_connection(silent.getsockname()) as tcp,
    ):
        socket.send_fds(connection, [message(CONNECT, HOST, (RELAY, 1), (EARLY, 1))], [tcp.fileno()])
        with early(*answer(connection)) as ours:
            ours.setblocking(False)
            assert shows(ours, 200) == 0
            for call in (lambda: ours.send(b"x"), lambda: ours.recv(1)):
                with pytest.raises(BlockingIOError):
                    call()


def test_it_is_hung_up_where_the_handshake_fails(ssad, server):
    host = (85, b"wrong.test")
    with connected(ssad) as connection, socket.create_connection(("127.0.0.1", server)) as tcp:
        socket.send_fds(connection, [message(CONNECT, host, (RELAY, 1), (EARLY, 1))], [tcp.fileno()])
        with early(*answer(connection)) as ours:
            told, _ = answer(connection)
            assert told[REASON] == b"HOSTNAME_MISMATCH"
            assert shows(ours, 5000) & HUP
            with pytest.raises(ConnectionError):
                ours.send(b"x")


def test_it_is_for_a_relayed_descriptor(ssad):
    with connected(ssad) as connection, socket.socket() as tcp:
        socket.send_fds(connection, [message(CONNECT, HOST, (EARLY, 1))], [tcp.fileno()])
        told, fds = answer(connection)
        assert (told[REASON], fds) == (b"BAD_REQUEST", [])


def say_hello(pki, port):
    context = ssl.create_default_context(cafile=pki.ca)
    with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost") as tls:
        tls.sendall(b"hello")


def test_a_server_takes_it_too(ssad, pki):
    files = [os.open(path, os.O_RDONLY) for path in (pki.cert, pki.key)]
    request = message(ACCEPT, (RELAY, 1), (EARLY, 1), (CERTIFICATE, 1), (KEY, 1))
    with connected(ssad) as connection, socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=say_hello, args=(pki, listener.getsockname()[1]), daemon=True).start()
        with listener.accept()[0] as tcp:
            socket.send_fds(connection, [request], [tcp.fileno(), *files])
            with early(*answer(connection)) as ours:
                told, more = answer(connection)
                assert (REASON in told, more) == (False, [])
                assert ours.recv(64) == b"hello"
    for fd in files:
        os.close(fd)


def test_nothing_is_left(ssad, server):
    def descriptors():
        return len(os.listdir(f"/proc/{ssad.process.pid}/fd"))

    def one(host):
        with connected(ssad) as connection, socket.create_connection(("127.0.0.1", server)) as tcp:
            socket.send_fds(connection, [message(CONNECT, host, (RELAY, 1), (EARLY, 1))], [tcp.fileno()])
            with early(*answer(connection)), contextlib.suppress(OSError):
                connection.settimeout(5)
                read(connection.recv(1 << 17))

    one(HOST)
    one((85, b"wrong.test"))
    before = descriptors()
    for _ in range(10):
        one(HOST)
        one((85, b"wrong.test"))
    assert peers.settled(lambda: descriptors() <= before + 2)
