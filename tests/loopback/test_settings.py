"""Settings in force in a real ssad, each with a handshake that passes and one that fails."""

import socket

import pytest

import ssa
from tests.peers import Daemon, openssl

CHANGED = ("allowed_hosts", "denied_hosts")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 5\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(daemon, monkeypatch):
    """With the policy as at the start afterwards."""
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    before = {name: daemon.get(f"policy/{name}") for name in CHANGED}
    yield daemon
    for name, text in before.items():
        daemon.set(name, text)


@pytest.fixture(scope="module")
def server(pki):
    with openssl(pki, "-quiet") as (port, _):
        yield port


def connected(server, hostname="localhost"):
    """Whether a handshake is done, else why not."""
    try:
        with ssa.create_connection(("127.0.0.1", server), server_hostname=hostname):
            return "done"
    except ssa.SSAError as refused:
        return f"{refused.reason} {refused.detail}"


@pytest.mark.parametrize(
    ("setting", "hosts", "words"),
    [
        ("allowed_hosts", "localhost", "done"),
        ("allowed_hosts", "127.0.0.0/8", "done"),
        ("allowed_hosts", "*.example 10.0.0.0/8", "localhost (127.0.0.1) is not among *.example, 10.0.0.0/8"),
        ("denied_hosts", "*.example 10.0.0.0/8", "done"),
        ("denied_hosts", "localhost", "localhost (127.0.0.1) is denied by localhost"),
        ("denied_hosts", "127.0.0.1", "localhost (127.0.0.1) is denied by 127.0.0.1"),
    ],
)
def test_hosts(ssad, server, setting, hosts, words):
    ssad.set(setting, hosts)
    assert connected(server) == (words if words == "done" else f"POLICY_DENIED {setting}: {words}")


def test_a_host_that_is_denied_gets_no_byte(ssad):
    ssad.set("denied_hosts", "127.0.0.0/8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert connected(port).startswith("POLICY_DENIED denied_hosts: ")
        with listener.accept()[0] as peer:
            assert peer.recv(1) == b""


def test_a_connection_that_is_denied_by_now_is_named(ssad, server):
    with ssa.create_connection(("127.0.0.1", server), server_hostname="localhost") as sock:
        number = sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ID)
        path = f"sockets/{number}/compliant"
        assert ssad.get(path) == "yes\n"
        ssad.set("denied_hosts", "localhost")
        assert ssad.get(path) == "no: denied_hosts: localhost (127.0.0.1) is denied by localhost\n"
