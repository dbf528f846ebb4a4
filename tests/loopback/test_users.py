"""Each user has a worker. A process may ask about a TLS socket that another user has given to it."""

import os
import socket
from pathlib import Path

import pytest

import ssa
from ssa.library.connection import DaemonConnection
from ssa.protocol import wire
from tests import peers

NOBODY = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")


@pytest.fixture(scope="module")
def ssad(tmp_path_factory, pki):
    directory = tmp_path_factory.mktemp("users")
    with peers.Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as daemon:
        for parent in daemon.run_dir.parents:
            if parent.is_relative_to("/tmp") and parent != Path("/tmp"):
                parent.chmod(0o755)
        yield daemon


@pytest.fixture(autouse=True)
def environment(ssad, monkeypatch):
    for name, value in ssad.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def port(pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        yield port


def asked(request, sock):
    """What ssad answers, or what it refuses with."""
    try:
        with DaemonConnection() as daemon:
            return daemon.ask(request, sock).peer_identity
    except ssa.SSAError as exc:
        return exc.reason


def told(request, sock):
    """What ssad says when a packet is not answered: nothing, until it is asked the next thing."""
    with DaemonConnection() as daemon:
        daemon.tell(request, sock)
        return daemon.ask(wire.Describe(), sock).peer_identity


def test_another_user_may_ask_about_a_socket_that_it_was_given(ssad, port):
    with ssa.create_connection(("localhost", port), timeout=10) as sock:
        by_nobody = {request: peers.as_user(NOBODY, lambda request=request: asked(request, sock)) for request in ASKED}
        assert by_nobody == {request: repr(asked(request, sock)) for request in ASKED}
        assert by_nobody[wire.Describe()] == repr("localhost")
        assert by_nobody[wire.Rekey(sending=1)] == repr("NO_REKEY")
        assert peers.as_user(NOBODY, lambda: told(wire.Ticket(b"\4\0\0\0"), sock)) == repr("localhost")
        assert peers.as_user(NOBODY, lambda: asked(wire.Close(), sock)) == repr(None)
    assert "refused request=ticket" not in ssad.log
    assert peers.settled(lambda: ssad.sockets() == [])


ASKED = wire.Describe(), wire.Rekey(receiving=1), wire.Rekey(sending=1)


def test_a_socket_that_is_none_of_ssads_is_nobodys(ssad):
    with socket.socket() as plain:
        assert asked(wire.Describe(), plain) == "UNKNOWN_SOCKET"
        assert peers.as_user(NOBODY, lambda: asked(wire.Describe(), plain)) == repr("UNKNOWN_SOCKET")


def test_what_another_user_asks_is_on_its_own_account(ssad, port):
    """Refusals are logged with the user who asks, and a user's flood of them leaves root's lines alone."""

    def flood(sock):
        for _ in range(50):
            asked(wire.Rekey(sending=1), sock)

    with ssa.create_connection(("localhost", port), timeout=10) as sock:
        peers.as_user(NOBODY, lambda: flood(sock))
        assert asked(wire.Rekey(sending=1), sock) == "NO_REKEY"
    refused = [line for line in ssad.log.splitlines() if "refused request=rekey" in line]
    assert f"uid={NOBODY}" in refused[-2]
    assert "uid=0" in refused[-1]
    assert peers.settled(lambda: f"uid={NOBODY} lines=" in ssad.log)


def test_a_session_over_datagrams_refuses_what_it_cannot_do(ssad, pki):
    certificate = {"certificate": pki.cert, "private_key": pki.key}
    with (
        ssa.create_server(("127.0.0.1", 0), type=socket.SOCK_DGRAM, **certificate) as listener,
        ssa.socket(type=socket.SOCK_DGRAM) as client,
    ):
        client.settimeout(10)
        client.connect(("localhost", listener.getsockname()[1]))
        assert asked(wire.Describe(), client) == "localhost"
        assert asked(wire.Rekey(receiving=1), client) == "NO_REKEY"
        assert asked(wire.Close(), client) == "BAD_REQUEST"
        assert asked(wire.Close(1), client) == "BAD_REQUEST"
        client.send(b"it goes on")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(100) == b"it goes on"
