"""Settings in force in a real ssad, each with a handshake that passes and one that fails."""

import base64
import contextlib
import hashlib
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import ssa
from ssa.cli.main import main
from ssa.policy.levels import NAMES
from tests.peers import PKI, Daemon, openssl

CHANGED = (*reversed(NAMES), "allowed_hosts", "client_auth", "denied_hosts", "pinned_keys", "session_tickets")


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


def pin(cert):
    """The hash of a certificate's key, as `pinned_keys` has it."""
    key = x509.load_pem_x509_certificate(cert.read_bytes()).public_key()
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return f"sha256/{base64.b64encode(hashlib.sha256(spki).digest()).decode()}"


def test_pinned_keys(ssad, server, pki, tmp_path):
    other, _ = PKI(tmp_path / "other").issue("other", "localhost")
    ssad.set("pinned_keys", f"localhost {pin(other)}\nlocalhost {pin(pki.ca)}\n")
    assert connected(server) == "done"
    ssad.set("pinned_keys", f"localhost {pin(other)}\n")
    has = f"localhost has {pin(pki.cert)}, {pin(pki.ca)}"
    assert connected(server) == f"KEY_NOT_PINNED localhost in pinned_keys, {has}"  # a session is not resumed either
    ssad.set("pinned_keys", f"localhost {pin(pki.cert)}\n")
    assert connected(server) == "done"


def served(pki, own, *, asks):
    """What a client comes to at a server: the identity that it has proved, or the reason for which it was refused."""
    context = ssl.create_default_context(cafile=pki.ca)
    if own:
        context.load_cert_chain(*own)
    options = {"certificate": pki.cert, "private_key": pki.key, "request_peer_auth": asks}
    with ssa.create_server(("127.0.0.1", 0), **options) as listener, ThreadPoolExecutor() as threads:
        listener.settimeout(3)
        accepted = threads.submit(identity, listener)
        try:
            with (
                socket.create_connection(listener.getsockname(), timeout=5) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as client,
            ):
                assert client.recv(1) == b"x"
        except ssl.SSLError as refused:
            assert isinstance(accepted.exception(), TimeoutError)
            return refused.reason
        return accepted.result().decode()


def identity(listener):
    with listener.accept()[0] as sock:
        sock.sendall(b"x")
        return sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_IDENTITY)


@pytest.fixture(scope="module")
def certificates(pki, tmp_path_factory):
    return {
        "pki": pki,
        "none": (),
        "good": pki.issue("someone", "someone.test", common_name="someone"),
        "strange": PKI(tmp_path_factory.mktemp("strange")).issue("someone", "someone.test"),
    }


@pytest.mark.parametrize(
    ("asked", "own", "expected"),  # who asks: the policy, and the program
    [
        (("as-program", False), "none", ""),
        (("as-program", True), "none", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        (("required", False), "none", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
        (("required", False), "strange", "TLSV1_ALERT_UNKNOWN_CA"),
        (("required", False), "good", "CN=someone"),
        (("optional", False), "none", ""),
        (("optional", False), "strange", "TLSV1_ALERT_UNKNOWN_CA"),
        (("optional", False), "good", "CN=someone"),
        (("optional", True), "none", "TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    ],
)
def test_client_auth(ssad, certificates, asked, own, expected):
    policy, asks = asked
    ssad.set("client_auth", policy)
    assert served(certificates["pki"], certificates[own], asks=asks).partition(",")[0] == expected


def test_a_host_that_is_denied_gets_no_byte(ssad):
    ssad.set("denied_hosts", "127.0.0.0/8")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert connected(port).startswith("POLICY_DENIED denied_hosts: ")
        with listener.accept()[0] as peer:
            assert peer.recv(1) == b""


def is_resumed(server):
    with ssa.create_connection(("127.0.0.1", server), server_hostname="localhost") as sock:
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            sock.recv(1)  # the tickets
        return bool(sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION))


def test_session_tickets(ssad, server):
    is_resumed(server)
    assert is_resumed(server)
    ssad.set("session_tickets", "off")
    assert not is_resumed(server)
    assert not is_resumed(server)
    ssad.set("session_tickets", "on")
    is_resumed(server)
    assert is_resumed(server)


def test_levels(ssad, server, capsys):
    """Debian's OpenSSL 3.0 has no ML-KEM."""
    assert main(["policy", "use", "pq", "--dry-run"]) == 0
    assert connected(server) == "done"
    assert main(["policy", "use", "pq"]) == 0
    assert "without x25519 secp256r1" in capsys.readouterr().out
    assert connected(server).startswith("PEER_ALERT ")
    assert main(["policy", "use", "intermediate"]) == 0
    assert connected(server) == "done"


def test_a_connection_that_is_denied_by_now_is_named(ssad, server):
    with ssa.create_connection(("127.0.0.1", server), server_hostname="localhost") as sock:
        number = sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ID)
        path = f"sockets/{number}/compliant"
        assert ssad.get(path) == "yes\n"
        ssad.set("denied_hosts", "localhost")
        assert ssad.get(path) == "no: denied_hosts: localhost (127.0.0.1) is denied by localhost\n"
