"""ssad and a library that is not `ssa.library`: raw packets, written from docs/library.md and the vectors alone."""

import contextlib
import errno
import os
import re
import select
import socket
import ssl
import struct

import pytest

from tests import peers
from tests.peers import Daemon, settled
from tests.raw_requests import (
    CHECK,
    CLOSE,
    CONNECT,
    DESCRIBE,
    GATHER,
    HOST,
    LISTEN,
    PLUG,
    answer,
    ask,
    connected,
    message,
    number,
)

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


def credential(pki, name="server", *names):
    """A certificate and its key, as open files; of other names than the usual ones where some are given."""
    certificate, key = pki.issue(name, *names) if names else (pki.cert, pki.key)
    return certificate.open(), key.open()


@contextlib.contextmanager
def listening(ssad, pki, kind=socket.SOCK_STREAM):
    """A listener that is served: the connection to ssad, and the port."""
    family = (socket.AF_INET, kind)
    with socket.socket(*family) as listener, connected(ssad) as queue, contextlib.ExitStack() as files:
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen()
        own = [files.enter_context(file) for file in credential(pki)]
        socket.send_fds(queue, [message(LISTEN, (88, 1), (89, 1))], [listener.fileno(), *(f.fileno() for f in own)])
        assert answer(queue) == ({}, [])
        yield queue, listener.getsockname()[1]


def test_a_listener_gives_a_packet_for_each_connection(ssad, pki):
    with listening(ssad, pki) as (queue, port):
        assert select.select([queue], [], [], 0.2)[0] == []
        with ssl_client(pki, port) as client:
            found, fds = answer(queue)
            with socket.socket(fileno=fds[0]) as end, socket.socket(fileno=fds[1]) as tcp:
                assert (end.family, tcp.family) == (socket.AF_UNIX, socket.AF_INET)
                assert tcp.getpeername() == client.getsockname()
                assert found[522].decode() == "{} {}".format(*client.getsockname())
                client.sendall(b"hello")
                assert end.recv(100) == b"hello"


def ssl_client(pki, port):
    context = ssl.create_default_context(cafile=pki.ca)
    context.check_hostname = False
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


def test_other_options_count_when_the_pipe_hangs_up(ssad, pki):
    with listening(ssad, pki) as (queue, port), contextlib.ExitStack() as files:
        done, theirs = os.pipe()
        own = [files.enter_context(file) for file in credential(pki, "renewed", "renewed.test")]
        socket.send_fds(queue, [message(LISTEN, (88, 1), (89, 1))], [theirs, *(file.fileno() for file in own)])
        os.close(theirs)
        poll = select.poll()
        poll.register(done, 0)
        assert poll.poll(5000) == [(done, select.POLLHUP)]
        os.close(done)
        with ssl_client(pki, port) as client:
            assert dict(client.getpeercert()["subjectAltName"]) == {"DNS": "renewed.test"}
            for fd in answer(queue)[1]:
                os.close(fd)


def udp(port):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect(("127.0.0.1", port))
    return sock


def prefixed(address, event=0):
    """An address before a datagram, as docs/library.md has it."""
    host, port = address
    return struct.pack("=BBH16sI", event, socket.AF_INET, port, socket.inet_aton(host), 0)


def test_all_clients_of_a_port_on_one_descriptor(ssad, pki):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, contextlib.ExitStack() as files:
        server.bind(("127.0.0.1", 0))
        own = [files.enter_context(file) for file in credential(pki)]
        found, fds = ask(ssad, message(GATHER, (88, 1), (89, 1)), server.fileno(), *(file.fileno() for file in own))
        assert (found, len(fds)) == ({}, 1)
        with socket.socket(fileno=fds[0]) as all_clients, udp(server.getsockname()[1]) as client:
            all_clients.settimeout(10)
            where = client.getsockname()
            found, ends = ask(ssad, message(CONNECT, HOST), client.fileno())
            assert found[113] == b"DTLSv1.2"
            assert found[525] == prefixed(where)
            with socket.socket(fileno=ends[0]) as end:
                end.settimeout(10)
                end.send(b"from the client")
                assert all_clients.recv(2000) == prefixed(where) + b"from the client"
                all_clients.send(prefixed(where) + b"to the client")
                assert end.recv(2000) == b"to the client"
            assert all_clients.recv(2000) == prefixed(where, event=1)  # the client has closed


def test_a_session_over_datagrams_ends_with_and_without_a_word(ssad, pki):
    for word in (True, False):
        with listening(ssad, pki, socket.SOCK_DGRAM) as (queue, port), udp(port) as client:
            found, ends = ask(ssad, message(CONNECT, HOST), client.fileno())
            assert 0 < number(found, 523) <= 2**14
            told, fds = answer(queue)
            assert told[524] == prefixed(client.getsockname())
            with socket.socket(fileno=ends[0]) as end, socket.socket(fileno=fds[0]) as accepted:
                end.settimeout(10)
                if word:
                    accepted.shutdown(socket.SHUT_WR)
                else:
                    (ssad.mount / "sockets" / str(struct.unpack("=Q", found[96])[0]) / "close").write_text("1")
                assert end.recv(100) == b""
                poll = select.poll()
                poll.register(end, 0)
                assert bool(poll.poll(200)) == (not word)
