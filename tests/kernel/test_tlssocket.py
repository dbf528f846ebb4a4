"""ssa.TLSSocket: the contract of `socket.socket`, kept on a TLS connection."""

import socket
import subprocess
import threading

import pytest

import ssa
from tests import peers

IPPROTO = ssa.IPPROTO_TLS


@pytest.fixture
def server(ssad, pki):
    """A listener of our own, with the throw-away authority's certificate."""
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        yield listener


@pytest.fixture
def pair(server):
    """Both ends of a connection: the client's, the server's."""
    with ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10) as client:
        accepted, address = server.accept()
        with accepted:
            accepted.settimeout(10)
            assert address == client.getsockname()
            yield client, accepted


def test_both_ways(pair):
    client, server = pair
    client.sendall(b"to the server")
    assert server.recv(100) == b"to the server"
    server.sendall(b"to the client")
    assert client.recv(100) == b"to the client"


def test_curl_talks_to_five_lines(server, pki):
    def serve():
        connection, _ = server.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")

    thread = threading.Thread(target=serve)
    thread.start()
    url = f"https://localhost:{server.getsockname()[1]}/"
    curl = subprocess.run(["curl", "-sS", "--cacert", pki.ca, url], capture_output=True, timeout=20, check=False)
    thread.join()
    assert (curl.stdout, curl.stderr) == (b"hello\n", b"")


def test_the_end_of_the_stream_is_an_end(pair):
    client, server = pair
    server.sendall(b"last words")
    server.close()
    assert client.recv(100) == b"last words"
    assert client.recv(100) == b""
    assert client.recv(100) == b""


def test_half_close(pair):
    client, server = pair
    client.shutdown(socket.SHUT_WR)
    assert server.recv(10) == b""
    server.sendall(b"still here")
    assert client.recv(100) == b"still here"


def test_an_openssl_server(ssad, pki):
    with peers.openssl(pki, "-rev") as (port, _), ssa.create_connection(("localhost", port), timeout=10) as sock:
        sock.sendall(b"abc\n")
        assert sock.recv(100) == b"cba\n"
        assert sock.getsockopt(IPPROTO, ssa.TLS_PEER_IDENTITY) == b"localhost"


def test_a_listener_outlives_the_daemon(capabilities, tmp_path, pki, monkeypatch):
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
            listener.settimeout(10)
            port = listener.getsockname()[1]
            daemon.stop()
            with pytest.raises(ConnectionRefusedError, match="no ssad"):
                listener.accept()
            daemon.start()
            waiting = threading.Thread(target=lambda: ssa.create_connection(("localhost", port), timeout=10).close())
            waiting.start()
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(1) == b""
            waiting.join()
