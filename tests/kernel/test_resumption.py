"""Sessions: resumed where they may be, and nowhere else."""

import contextlib
import os
import socket
import subprocess
import time

import pytest
import trustme

import ssa
from tests import peers

TLS13, TLS12 = ("-tls1_3",), ("-tls1_2",)
VERSIONS = pytest.mark.parametrize("version", [TLS13, TLS12], ids=["1.3", "1.2"])


def by_socket(port, *, host="localhost", options=()):
    """Connect with a TLSSocket that reads; whether it resumed."""
    with ssa.socket() as sock:
        sock.settimeout(10)
        for option, value in options:
            sock.setsockopt(ssa.IPPROTO_TLS, option, value)
        sock.connect((host, port))
        sock.sendall(b"abc\n")
        assert sock.recv(100)
        return bool(sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION))


def by_descriptor(port, *, host="localhost"):
    """Connect with a bare descriptor."""
    before = counted()
    fd = ssa.connect_tls(host, port, timeout=10)
    try:
        ssa.send(fd, b"abc\n")
        assert ssa.recv(fd, 100)
    finally:
        ssa.close(fd)
    return counted() - before == 1


def counted():
    with open(os.environ["SSA_MOUNT"] + "/stats/resumed") as file:
        return int(file.read())


WAYS = pytest.mark.parametrize("connect", [by_socket, by_descriptor])


@VERSIONS
@WAYS
def test_openssl(ssad, pki, connect, version):
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        assert [connect(port) for _ in range(4)] == [False, True, True, True]


@WAYS
@pytest.mark.parametrize("version", ["TLS1.3", "TLS1.2"])
def test_gnutls(ssad, pki, connect, version):
    with peers.gnutls(pki, f"NORMAL:-VERS-ALL:+VERS-{version}") as port:
        assert [connect(port) for _ in range(3)] == [False, True, True]


def get(port):
    """A page of nginx's; whether the handshake resumed."""
    with ssa.create_connection(("localhost", port), timeout=10) as sock:
        sock.sendall(b"GET /hello HTTP/1.0\r\n\r\n")
        assert b"hello from nginx" in b"".join(iter(lambda: sock.recv(4096), b""))
        return bool(sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION))


NGINX = {
    "1.3": "ssl_protocols TLSv1.3; ssl_session_cache shared:s:1m;",
    "1.2 tickets": "ssl_protocols TLSv1.2;",
    "1.2 session ids": "ssl_protocols TLSv1.2; ssl_session_tickets off; ssl_session_cache shared:s:1m;",
}


@pytest.mark.parametrize("extra", NGINX.values(), ids=NGINX)
def test_nginx(ssad, pki, tmp_path, extra):
    with peers.nginx(pki, tmp_path / "nginx", extra) as port:
        assert [get(port) for _ in range(3)] == [False, True, True]


def test_a_server_that_wants_none(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx", "ssl_session_tickets off; ssl_session_cache off;") as port:
        assert [get(port) for _ in range(3)] == [False, False, False]


def test_what_is_told(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        assert not by_socket(port)
        with ssa.create_connection(("localhost", port), timeout=10) as sock:
            (number,) = ssad.sockets()
            assert ssad.get(f"sockets/{number}/resumed") == "yes\n"
            assert ssad.get(f"sockets/{number}/peer_identity") == "localhost\n"
            assert "BEGIN CERTIFICATE" in ssad.get(f"sockets/{number}/peer_chain")
            assert sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_IDENTITY) == b"localhost"
            assert b"BEGIN CERTIFICATE" in sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN)


# --- not to others ------------------------------------------------------------------------------------------------


@VERSIONS
def test_not_for_another_host_name(ssad, pki, version):
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        assert not by_socket(port)
        assert not by_socket(port, host="127.0.0.1")
        assert by_socket(port)


def test_not_for_another_user(ssad, pki, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    for directory in (base.parent, base, ssad.run_dir.parent):
        directory.chmod(0o755)
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        assert not by_socket(port)
        child = os.fork()
        if child == 0:
            status = 2
            with contextlib.suppress(BaseException):
                os.setuid(65534)
                with ssa.create_connection(("localhost", port), timeout=10) as sock:
                    status = sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION)
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert by_socket(port)


def test_not_for_other_protocols_or_ciphers(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet", "-alpn", "a,b") as (port, _):
        assert not by_socket(port, options=[(ssa.TLS_ALPN, b"a")])
        assert not by_socket(port, options=[(ssa.TLS_ALPN, b"b")])
        assert not by_socket(port, options=[(ssa.TLS_DISABLE_CIPHER, b"TLS_AES_256_GCM_SHA384")])
        assert not by_socket(port, options=[(ssa.TLS_TRUSTED_PEER_CERTIFICATES, os.fsencode(pki.ca))])
        assert by_socket(port, options=[(ssa.TLS_ALPN, b"a")])
        assert by_socket(port, options=[(ssa.TLS_TRUSTED_PEER_CERTIFICATES, os.fsencode(pki.ca))])


# --- for how long -------------------------------------------------------------------------------------------------


@VERSIONS
def test_a_socket_that_wants_none(ssad, pki, version):
    never = [(ssa.TLS_SESSION_TTL, 0)]
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        assert not by_socket(port, options=never)
        assert not by_socket(port)  # nothing was kept
        assert not by_socket(port, options=never)  # nothing is offered
        assert by_socket(port)


@VERSIONS
def test_a_policy_that_wants_none(ssad, pki, version):
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        ssad.set("session_ttl", "0")
        assert not by_socket(port)
        ssad.set("session_ttl", "7200")
        assert not by_socket(port)
        assert by_socket(port)


def test_a_session_ends(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        assert not by_socket(port, options=[(ssa.TLS_SESSION_TTL, 1)])
        time.sleep(1.1)
        assert not by_socket(port)


# --- the verdict --------------------------------------------------------------------------------------------------


def test_not_under_another_policy(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet", *TLS12) as (port, _):
        assert not by_socket(port)
        ssad.set("min_version", "TLSv1.3")
        with pytest.raises(ssa.HandshakeError):
            by_socket(port)
        ssad.set("min_version", "TLSv1.2")
        assert by_socket(port)


@VERSIONS
def test_not_when_it_is_no_longer_trusted(ssad, pki, tmp_path, version):
    other = peers.PKI(tmp_path / "other")
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        assert not by_socket(port)
        ssad.set("trust_store", str(other.ca))
        with pytest.raises(ssa.CertificateError) as caught:
            by_socket(port)
        assert caught.value.reason == "UNKNOWN_CA"
        ssad.set("trust_store", str(pki.ca))
        assert not by_socket(port)


@contextlib.contextmanager
def restarted(port, cert, key, *arguments):
    """A server on a port that another one was on."""
    command = ("openssl", "s_server", "-rev", "-quiet", "-accept", port, "-cert", cert, "-key", key, *arguments)
    with peers.program(*command, port=port, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL):
        yield


@VERSIONS
def test_a_server_that_forgot(ssad, pki, version):
    cert, key = pki.issue("again", "localhost")
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        assert not by_socket(port)
    with restarted(port, cert, key, *version):
        with ssa.create_connection(("localhost", port), timeout=10) as sock:
            assert not sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION)
            first = trustme.Blob(sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN)).bytes()
            assert first.startswith(cert.read_bytes()[:200])
        assert by_socket(port) or by_socket(port)  # the tickets of the one above were not read


@VERSIONS
def test_a_session_excuses_no_certificate(ssad, pki, tmp_path, version):
    other = peers.PKI(tmp_path / "other")
    with peers.openssl(pki, "-rev", "-quiet", *version) as (port, _):
        assert not by_socket(port)
    with restarted(port, other.cert, other.key, *version):
        for _ in range(2):
            with pytest.raises(ssa.CertificateError) as caught:
                by_socket(port)
            assert caught.value.reason == "UNKNOWN_CA"


@WAYS
def test_another_hello_is_asked_for(ssad, pki, connect):
    ssad.set("groups", "X25519\nP-256")
    with peers.openssl(pki, "-rev", "-quiet", *TLS13, "-groups", "P-256") as (port, _):
        assert [connect(port) for _ in range(3)] == [False, True, True]


def test_tickets_are_used_once(ssad, pki, tmp_path):
    """Two tickets came: of three at once one has none."""
    with peers.nginx(pki, tmp_path / "nginx", NGINX["1.3"]) as port:
        assert not get(port)
        with contextlib.ExitStack() as held:
            socks = [held.enter_context(ssa.create_connection(("localhost", port), timeout=10)) for _ in range(3)]
            resumed = [sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION) for sock in socks]
        assert resumed == [1, 1, 0]


# --- our own server -----------------------------------------------------------------------------------------------


def s_client(listener, pki, session, *arguments):
    """Connect with `openssl s_client`; whether it says that it resumed."""
    port = listener.getsockname()[1]
    command = ("openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", pki.ca, *arguments)
    how = ("-sess_in", session) if os.path.exists(session) else ("-sess_out", session)
    client = subprocess.Popen(
        [str(word) for word in (*command, *how)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    accepted, _ = listener.accept()
    with accepted:
        accepted.settimeout(10)
        accepted.sendall(b"hello\n")
        told = bool(accepted.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION))
        said = b""
        while b"hello\n" not in said:
            said += os.read(client.stdout.fileno(), 4096)
        client.stdin.write(b"Q\n")
        client.stdin.flush()
        said += client.communicate(timeout=10)[0]
    assert told == (b"Reused, TLSv1" in said)
    return told


@pytest.fixture
def serving(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(10)
        yield listener


@VERSIONS
def test_our_server(serving, pki, tmp_path, version):
    session = tmp_path / "session"
    assert not s_client(serving, pki, session, *version)
    assert s_client(serving, pki, session, *version)


@VERSIONS
def test_our_server_without_sessions(serving, pki, tmp_path, version):
    serving.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_SESSION_TTL, 0)
    session = tmp_path / "session"
    assert not s_client(serving, pki, session, *version)
    assert not session.exists() or not s_client(serving, pki, session, *version)


@VERSIONS
def test_our_server_that_asks_for_certificates(serving, pki, tmp_path, version):
    serving.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REQUEST_PEER_AUTH, 1)
    mine = ("-cert", pki.cert, "-key", pki.key)
    session = tmp_path / "session"
    assert not s_client(serving, pki, session, *version, *mine)
    assert not session.exists() or not s_client(serving, pki, session, *version, *mine)


def test_our_server_and_our_client(serving):
    for resumed in (0, 1, 1):
        with ssa.create_connection(("localhost", serving.getsockname()[1]), timeout=10) as client:
            accepted, _ = serving.accept()
            with accepted:
                accepted.sendall(b"hello")
                assert client.recv(5) == b"hello"
                told = [end.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION) for end in (client, accepted)]
        assert told == [resumed, resumed]


def test_a_forged_ticket_is_no_harm(ssad, pki):
    """Whoever has the descriptor can hand in what they like; the next handshake is a whole one, and well."""
    from ssa.library import connection
    from ssa.protocol import wire

    forged = (
        b"\x04" + (4 + 4 + 1 + 2 + 3 + 2).to_bytes(3, "big") + bytes(2) + b"\x0e\x10" + bytes(4) + b"\0\0\x03abc\0\0"
    )
    with peers.openssl(pki, "-rev", "-quiet", *TLS13, "-num_tickets", 0) as (port, _):
        with (
            ssa.create_connection(("localhost", port), timeout=10) as sock,
            connection.DaemonConnection(None) as daemon,
        ):
            for ticket in (b"", b"junk", forged[:9], forged, b"\x04\0\0\0"):
                daemon.tell(wire.Ticket(ticket), sock)
            daemon.ask(wire.Describe(), sock)
        assert not by_socket(port)


def test_the_remote_address_does_not_count(ssad, pki):
    """The verdict is on the name."""
    with peers.openssl(pki, "-rev", "-quiet", *TLS13) as (port, _):
        assert not by_socket(port)
        with ssa.socket(socket.AF_INET6) as sock:
            sock.settimeout(10)
            sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REMOTE_HOSTNAME, b"localhost")
            sock.connect(("::1", port))
            assert sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION) == 1
