"""The group of the key exchange: post-quantum where both ends can do it, in one round trip with everybody."""

import contextlib
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.bindings._rust import _openssl
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL

import ssa
from ssa.handshake import records
from ssa.suites import TLSVersion
from ssa.tls import CLIENT_HELLO, HANDSHAKE, RECORD_HEADER
from tests import peers
from tests.interop import raw

HYBRID = "X25519MLKEM768"


def client_hellos(flight):
    found, _ = records.split_untrusted(flight)
    return sum(record[0] == HANDSHAKE and record[RECORD_HEADER] == CLIENT_HELLO for record in found)


class Modern:
    """The OpenSSL of the `cryptography` package, which knows the hybrids, over memory BIOs."""

    def __init__(self, pki, *, server, groups=None, version=None):
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD if server else SSL.TLS_CLIENT_METHOD)
        if version is not None:
            self.context = raw.context(pki, version, server=server)
        elif server:
            self.context.use_certificate_chain_file(str(pki.cert))
            self.context.use_privatekey_file(str(pki.key))
        if groups:
            assert _openssl.lib.SSL_CTX_set1_curves_list(self.context._context, groups.encode())
        self.server = server
        self.hellos = 0  # ClientHellos on the wire

    def shake(self, sock):
        tls = SSL.Connection(self.context, None)
        if self.server:
            tls.set_accept_state()
        else:
            tls.set_tlsext_host_name(b"localhost")
            tls.set_connect_state()
        sock.settimeout(10)
        while True:
            with contextlib.suppress(SSL.WantReadError):
                tls.do_handshake()
                self._send(sock, tls)
                return
            self._send(sock, tls)
            data = sock.recv(65536)
            if not data:
                raise EOFError
            self.hellos += self.server and client_hellos(data)
            tls.bio_write(data)

    def _send(self, sock, tls):
        with contextlib.suppress(SSL.WantReadError):
            data = tls.bio_read(65536)
            self.hellos += not self.server and client_hellos(data)
            sock.sendall(data)


class Debians:
    """The OpenSSL of Debian 12, 3.0, by Python's `ssl`: x25519 is its first."""

    def __init__(self, pki, *, server):
        assert ssl.OPENSSL_VERSION_INFO < (3, 5), "this is no longer the old one"
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        self.context._msg_callback = self._saw
        self.server, self.hellos = server, 0
        if server:
            self.context.load_cert_chain(pki.cert, pki.key)
        else:
            self.context.load_verify_locations(pki.ca)

    def _saw(self, _connection, _direction, _version, _kind, message, _data):
        self.hellos += message is ssl._TLSMessageType.CLIENT_HELLO

    def shake(self, sock):
        names = {} if self.server else {"server_hostname": "localhost"}
        self.kept = self.context.wrap_socket(sock, server_side=self.server, **names)


def serving(pki):
    return ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key)


@contextlib.contextmanager
def served_by(peer):
    """Such a server; its port."""
    gone = threading.Event()

    def serve(sock):
        peer.shake(sock)
        gone.wait(10)

    with peers.script(serve) as port:
        yield port
        gone.set()


@contextlib.contextmanager
def connected_to(peer):
    """A TLSSocket of ours that has connected to such a server."""
    with served_by(peer) as port, ssa.create_connection(("localhost", port), timeout=10) as sock:
        yield sock


@contextlib.contextmanager
def accepted_from(peer, pki):
    """A TLSSocket of ours that has accepted such a client."""
    with serving(pki) as listener, socket.create_connection(listener.getsockname()) as sock:
        client = threading.Thread(target=peer.shake, args=(sock,))
        client.start()
        accepted, _ = listener.accept()
        with accepted:
            yield accepted
        client.join(10)


def group_of(daemon):
    """Of the only socket; where both ends are ours, of the first."""
    return daemon.get(f"sockets/{daemon.sockets()[0]}/group").strip()


PEERS = {
    "Debian's OpenSSL 3.0": (Debians, {}, "x25519"),
    "OpenSSL 4.0": (Modern, {}, HYBRID),
    "OpenSSL 4.0 without the hybrid": (Modern, {"groups": "x25519:secp256r1"}, "x25519"),
    "OpenSSL 4.0 that ends at TLS 1.2": (Modern, {"version": TLSVersion.TLSv1_2}, "x25519"),
}


@pytest.mark.parametrize("name", PEERS)
def test_as_a_client(either, pki, name):
    make, options, group = PEERS[name]
    peer = make(pki, server=True, **options)
    with connected_to(peer):
        assert group_of(either) == group
    assert peer.hellos == 1  # no HelloRetryRequest


@pytest.mark.parametrize("name", PEERS)
def test_as_a_server(either, pki, name):
    make, options, group = PEERS[name]
    peer = make(pki, server=False, **options)
    with accepted_from(peer, pki):
        assert group_of(either) == group
    assert peer.hellos == 1


def test_a_client_that_shows_its_hybrid_later(either, pki):
    """It sends x25519's share alone, as if it were old, and is asked for the other: one more round trip is worth it."""
    peer = Modern(pki, server=False, groups=f"x25519:{HYBRID}")
    with accepted_from(peer, pki):
        assert group_of(either) == HYBRID
    assert peer.hellos == 2


@pytest.mark.parametrize("group", ["secp256r1", "secp384r1", "secp521r1"])
def test_a_server_that_asks_for_another_share(either, pki, group):
    peer = Modern(pki, server=True, groups=group)
    with connected_to(peer):
        assert group_of(either) == group
    assert peer.hellos == 2


@pytest.mark.parametrize(
    "groups", [f"x25519 {HYBRID} secp256r1", "secp256r1 x25519", "SecP256r1MLKEM768 secp256r1", HYBRID]
)
def test_the_administrators_order_counts(either, pki, groups):
    either.set("groups", groups)
    first = groups.split()[0]
    peer = Modern(pki, server=True, groups=groups.replace(" ", ":"))
    with connected_to(peer):
        assert group_of(either) == first
    assert peer.hellos == 1
    peer = Modern(pki, server=False, groups=":".join(f"*{name}" for name in groups.split()))
    with accepted_from(peer, pki):
        assert group_of(either) == first


def test_a_session_that_is_resumed_is_post_quantum_too(either, pki):
    peer = Modern(pki, server=True)
    peer.context.set_session_id(b"test")
    with served_by(peer) as port:
        for resumed in (0, 1):
            with ssa.create_connection(("localhost", port), timeout=10) as sock:
                sock.settimeout(0.3)
                with contextlib.suppress(TimeoutError):
                    sock.recv(1)  # its tickets
                assert group_of(either) == HYBRID
                assert sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_RESUMED_SESSION) == resumed
            assert peers.settled(lambda: not either.sockets())


def test_both_ends_ours(either, pki):
    with serving(pki) as listener, ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10):
        accepted, _ = listener.accept()
        with accepted:
            assert {either.get(f"sockets/{number}/group") for number in either.sockets()} == {f"{HYBRID}\n"}


def test_openssl_s_client_of_debian(either, pki):
    """The program, as a user has it."""
    with serving(pki) as listener:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", "-CAfile", str(pki.ca)]
        run = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"Server Temp Key: X25519" in run.stdout


def test_tls12_needs_a_classical_group(either, pki):
    either.set("max_version", "TLSv1.2")
    either.set("groups", HYBRID)
    either.set("ciphers", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    with peers.openssl(pki, "-quiet") as (port, _), pytest.raises(ssa.PolicyError, match="groups"):
        ssa.create_connection(("localhost", port), timeout=10)


CURVES = {"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("version", ["TLSv1.2", "TLSv1.3"])
def test_certificates_of_each_curve(either, pki, tmp_path, curve, version):
    """In TLS 1.2 the groups are also the curves that a server's certificate may be on (RFC 8422 section 5.1)."""
    either.set("max_version", version)
    cert, key = issued_on(curve, pki, tmp_path)
    with contextlib.ExitStack() as stack:
        port, _ = stack.enter_context(peers.openssl(pki, "-rev", "-quiet", cert=(cert, key)))
        sock = stack.enter_context(ssa.create_connection(("localhost", port), timeout=10))
        sock.sendall(b"abc\n")
        assert sock.recv(4) == b"cba\n"
    with ssa.create_server(("127.0.0.1", 0), certificate=cert, private_key=key) as listener:
        address = listener.getsockname()
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{address[1]}", "-CAfile", str(pki.ca)]
        run = subprocess.run(command, input=b"", capture_output=True, timeout=20, check=False)
    assert b"Verify return code: 0 (ok)" in run.stdout


def test_a_certificate_on_a_curve_that_is_not_among_the_groups(either, pki, tmp_path):
    either.set("max_version", "TLSv1.2")
    either.set("groups", "x25519 secp256r1")
    server = peers.openssl(pki, "-quiet", cert=issued_on("secp521r1", pki, tmp_path))
    with server as (port, _), pytest.raises(ssa.HandshakeError, match="groups: x25519, secp256r1"):
        ssa.create_connection(("localhost", port), timeout=10)


def issued_on(curve, pki, directory):
    """A server's certificate with a key on that curve."""
    key = ec.generate_private_key(
        {"secp256r1": ec.SECP256R1, "secp384r1": ec.SECP384R1, "secp521r1": ec.SECP521R1}[curve]()
    )
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    (directory / "request.pem").write_bytes(request.public_bytes(serialization.Encoding.PEM))
    pki.authority.private_key_pem.write_to_path(directory / "ca.key")
    (directory / "extensions").write_text("subjectAltName=DNS:localhost\n")
    files = ["-in", "request.pem", "-CA", pki.ca, "-CAkey", "ca.key", "-extfile", "extensions", "-out", "cert.pem"]
    subprocess.run(["openssl", "x509", "-req", *files], cwd=directory, check=True, capture_output=True)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (directory / "key.pem").write_bytes(private)
    return directory / "cert.pem", directory / "key.pem"
