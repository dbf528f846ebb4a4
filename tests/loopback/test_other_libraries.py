"""ssad and a library that is not `ssa.library`: raw packets, written from docs/library.md and the vectors alone."""

import contextlib
import errno
import os
import re
import select
import socket
import ssl

import pytest

from tests import peers
from tests.peers import Daemon, settled
from tests.raw_requests import CHECK, CLOSE, CONNECT, DESCRIBE, HOST, PLUG, answer, ask, connected, message, number

POLICY = '[policy]\ntrust_store = "{}"\ndata_path = "relay"\n'


@pytest.fixture(scope="module")
def ssad(tmp_path_factory, pki):
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=POLICY.format(pki.ca)) as daemon:
        yield daemon
        assert "Traceback" not in daemon.log


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


def test_the_chain_comes_with_the_reply_where_it_was_asked_for(ssad, pki):
    chain = b"".join(
        map(ssl.PEM_cert_to_DER_cert, re.findall(r"-----BEGIN.*?END CERT.*?-----", pki.cert.read_text(), re.DOTALL))
    )
    with peers.python_server(pki, echo) as port:
        for options, expected in ((), None), ([(527, 1)], chain), ([(527, 0)], None):
            with tls_client(ssad, port, *options) as (_, found):
                assert found.get(95) == expected


def test_the_relay_is_refused_where_the_policy_is_ktls(ssad, pki):
    ssad.set("data_path", "ktls")
    try:
        found, _ = ask(ssad, message(CHECK, (528, 1)))
    finally:
        ssad.set("data_path", "relay")
    assert (found[513], number(found, 526)) == (b"POLICY_DENIED", errno.EACCES)
    assert found[100] == b"data_path: relay asked for, the policy allows ktls"
    assert 513 not in ask(ssad, message(CHECK, (528, 1)))[0]


def test_the_log_says_that_a_program_asked_for_the_relay(tmp_path, pki):
    with (
        Daemon(tmp_path, policy=POLICY.format(pki.ca).replace('"relay"', '"ktls-or-relay"')) as daemon,
        peers.python_server(pki, echo) as port,
        tls_client(daemon, port, (528, 1)) as (_, found),
    ):
        assert number(found, 530) == 1
        assert "data path: relay, as a program asked for it" in daemon.log


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
