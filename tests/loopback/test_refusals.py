"""What a peer does, and the words of the refusal: they name the step at which it was, and what was narrowed here."""

import contextlib
import functools
import re
import socket
import ssl
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

import ssa
from tests import peers
from tests.loopback.test_hostile_peers import client_hello
from tests.peers import Daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 2\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(daemon, monkeypatch):
    """With the policy as at the start afterwards."""
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    before = {name: daemon.get(f"policy/{name}") for name in SETTINGS}
    yield daemon
    for name in SETTINGS:
        if daemon.get(f"policy/{name}") != before[name]:
            daemon.set(name, before[name])


DEMANDING = ("-Verify", "1", "-verify_return_error")
DEMANDED = "demands a client certificate, and the application brought none.*in answer to our Finished"

SETTINGS = ("max_version", "min_version", "ciphersuites", "ciphers", "groups", "signature_algorithms")


def record(kind, content):
    return bytes([kind, 3, 3]) + len(content).to_bytes(2, "big") + content


def message(kind, content):
    return bytes([kind]) + len(content).to_bytes(3, "big") + content


def listed(*parts):
    return b"".join(len(part).to_bytes(3, "big") + part for part in parts)


def alert(number, level=2):
    return record(21, bytes([level, number]))


def hello(suite=b"\xc0\x2b", version=b"\x03\x03", extensions=b"\xff\1\0\1\0"):
    content = version + bytes(32) + b"\0" + suite + b"\0" + len(extensions).to_bytes(2, "big") + extensions
    return record(22, message(2, content))


def certificate(der):
    return record(22, message(11, listed(listed(der))))


def der_of(pki):
    return x509.load_pem_x509_certificate(pki.cert.read_bytes()).public_bytes(serialization.Encoding.DER)


def says(*flight):
    """A server that answers the ClientHello with this, and listens on."""

    def serve(sock):
        sock.recv(65536)
        sock.sendall(b"".join(flight))
        with contextlib.suppress(OSError):
            while sock.recv(65536):
                pass

    return serve


def hangs_up(*flight):
    def serve(sock):
        sock.recv(65536)
        sock.sendall(b"".join(flight))

    return serve


def resets(sock):
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def forges(sock):
    """A TLS 1.3 server whose ServerHello is right, and the records behind it are of no key."""
    asked = sock.recv(65536)
    session = asked[5 + 4 + 2 + 32 :][: 1 + 32]
    extensions = b"\0\x2b\0\2\3\4" + b"\0\x33\0\x24\0\x1d\0\x20" + bytes(31) + b"\x09"
    content = b"\3\3" + bytes(32) + session + b"\x13\x01\0" + len(extensions).to_bytes(2, "big") + extensions
    sock.sendall(record(22, message(2, content)) + record(23, b"x" * 60))
    sock.recv(65536)


# What the server does, and what the error says.
SERVERS = {
    "handshake_failure at once": (says(alert(40)), "PEER_ALERT", "handshake_failure.*in answer to our ClientHello"),
    "a name that it does not serve": (says(alert(112)), "PEER_ALERT", "does not serve this host name.*our ClientHello"),
    "no protocol of ours": (says(alert(120)), "PEER_ALERT", "ALPN.*our ClientHello"),
    "an older version by alert": (says(alert(70)), "UNSUPPORTED_VERSION", "protocol_version.*our ClientHello"),
    "an alert without a name": (says(alert(200)), "PEER_ALERT", "alert_200.*our ClientHello"),
    "a close_notify": (says(alert(0, 1)), "CONNECTION_CLOSED", "close_notify.*our ClientHello"),
    "nothing, and hangs up": (hangs_up(), "CONNECTION_CLOSED", "our ClientHello"),
    "a reset": (resets, "CONNECTION_RESET", "our ClientHello"),
    "nothing at all": (says(), "HANDSHAKE_TIMEOUT", "2 s.*our ClientHello"),
    "plain HTTP": (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "NOT_TLS", "plain HTTP.*our ClientHello"),
    "TLS 1.1": (says(hello(version=b"\3\2")), "UNSUPPORTED_VERSION", "our ClientHello"),
    "a suite that was not offered": (says(hello(b"\0\x2f")), "NO_COMMON_CIPHER", "our ClientHello"),
    "a ServerHello and no more": (says(hello()), "HANDSHAKE_TIMEOUT", "after its ServerHello"),
    "a ServerHello, and hangs up": (hangs_up(hello()), "CONNECTION_CLOSED", "after its ServerHello"),
    "a Finished too early": (
        says(hello(), record(22, message(20, bytes(12)))),
        "PROTOCOL_VIOLATION",
        "after its Server",
    ),
    "data too early": (says(hello(), record(23, b"x" * 30)), "PROTOCOL_VIOLATION", "after its ServerHello"),
    "forged records": (forges, "PROTOCOL_VIOLATION", "after its ServerHello"),
    "too long a record": (says(hello(), b"\x16\3\3\x48\1"), "RECORD_OVERFLOW", "after its ServerHello"),
    "a certificate that is none": (
        says(hello(), certificate(b"\x30\3junk")),
        "BAD_CERTIFICATE",
        "cannot be read",
    ),
    "a certificate, and hangs up": (None, "CONNECTION_CLOSED", "after its Certificate"),
}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_and_the_words(ssad, pki, name):
    serve, reason, words = SERVERS[name]
    if name == "a certificate, and hangs up":
        serve = hangs_up(hello(), certificate(der_of(pki)))
    with peers.script(serve) as port, pytest.raises(ssa.SSAError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.reason == reason, caught.value
    assert re.search(words, str(caught.value))


def with_a_bad_time(pki, directory):
    """A certificate whose notBefore, a UTCTime of 13 characters, is no time."""
    der = der_of(pki)
    at = der.index(b"\x17\x0d")
    path = directory / "bad-time.pem"
    path.write_text(ssl.DER_cert_to_PEM_cert(der[: at + 2] + b"99-9-9 junk!Z" + der[at + 15 :]))
    return path, pki.key


# What Debian's s_server is told to be, what the policy says, and what the error says.
OPENSSL = {
    "TLS 1.2 that demands a certificate": (["-tls1_2", *DEMANDING], {}, "PEER_ALERT", DEMANDED),
    "TLS 1.2 alone": (
        ["-tls1_2"],
        {"min_version": "TLSv1.3"},
        "UNSUPPORTED_VERSION",
        "ClientHello.*min_version: TLSv1.3",
    ),
    "TLS 1.3 alone": (
        ["-tls1_3"],
        {"max_version": "TLSv1.2"},
        "UNSUPPORTED_VERSION",
        "ClientHello.*max_version: TLSv1.2",
    ),
    "no hybrid group": ([], {"groups": "X25519MLKEM768"}, "PEER_ALERT", "ClientHello.*groups: X25519MLKEM768"),
    "one group": (["-groups", "P-384"], {"groups": "x25519"}, "PEER_ALERT", "ClientHello.*groups: x25519"),
    "one suite": (
        ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"],
        {"ciphers": "ECDHE-ECDSA-AES128-GCM-SHA256"},
        "PEER_ALERT",
        "ClientHello.*ciphers: TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    ),
    "one suite of TLS 1.3": (
        ["-tls1_3", "-ciphersuites", "TLS_AES_256_GCM_SHA384"],
        {"ciphersuites": "TLS_AES_128_GCM_SHA256"},
        "PEER_ALERT",
        "ClientHello.*ciphersuites: TLS_AES_128_GCM_SHA256",
    ),
    "an ECDSA key": (
        [],
        {"signature_algorithms": "ed25519"},
        "PEER_ALERT",
        "ClientHello.*signature_algorithms: ed25519",
    ),
    "nothing narrowed": (["-tls1_2", "-cipher", "AES128-SHA"], {}, "PEER_ALERT", r"\(in answer to our ClientHello\)$"),
}


@pytest.mark.parametrize("name", OPENSSL)
def test_openssls_server_and_the_words(ssad, pki, name):
    arguments, policy, reason, words = OPENSSL[name]
    for setting, value in policy.items():
        ssad.set(setting, value)
    with peers.openssl(pki, *arguments) as (port, _), pytest.raises(ssa.HandshakeError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.reason == reason, caught.value
    assert re.search(words, str(caught.value)), caught.value


def test_a_malformed_time_in_a_certificate(ssad, pki, tmp_path):
    with peers.openssl(pki, cert=with_a_bad_time(pki, tmp_path)) as (port, _), pytest.raises(ssa.SSAError) as caught:
        ssa.connect_tls("localhost", port)
    assert caught.value.reason != "PROTOCOL_VIOLATION"
    assert caught.value.whose_fault == "peer"
    assert "certificate" in str(caught.value)


def test_a_client_certificate_that_is_not_accepted(ssad, pki, tmp_path):
    other = peers.PKI(tmp_path / "other")
    with peers.openssl(pki, "-tls1_2", *DEMANDING, "-verifyCAfile", pki.ca) as (port, _), ssa.socket() as sock:
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_CERTIFICATE_CHAIN, str(other.cert))
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_PRIVATE_KEY, str(other.key))
        with pytest.raises(ssa.HandshakeError, match=r"does not accept the client certificate.*our Finished"):
            sock.connect(("localhost", port))


# How Debian's s_client connects, what the policy says, and what the log says.
CLIENTS = {
    "an older version": (
        ["-tls1_1", "-cipher", "ALL@SECLEVEL=0"],
        {},
        "UNSUPPORTED_VERSION",
        "it offers .*TLSv1.1; the",
    ),
    "a version that is no longer allowed": (
        ["-tls1_2"],
        {"min_version": "TLSv1.3"},
        "UNSUPPORTED_VERSION",
        "versions: it offers .*TLSv1.2; the policy allows TLSv1.3",
    ),
    "another group": (
        ["-tls1_3", "-groups", "P-521"],
        {"groups": "x25519"},
        "NO_COMMON_GROUP",
        "groups: .*p521.*x25519",
    ),
    "another group, TLS 1.2": (
        ["-tls1_2", "-groups", "P-521"],
        {"groups": "x25519"},
        "NO_COMMON_GROUP",
        "groups: it offers secp521r1; the policy allows x25519",
    ),
    "another suite": (
        ["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
        {"ciphersuites": "TLS_AES_256_GCM_SHA384"},
        "NO_COMMON_CIPHER",
        "cipher suites: it offers TLS_AES_128_GCM_SHA256; the policy allows TLS_AES_256_GCM_SHA384",
    ),
    "another suite, TLS 1.2": (
        ["-tls1_2", "-cipher", "AES128-SHA"],
        {},
        "NO_COMMON_CIPHER",
        "cipher suites: it offers 0x002f; the policy allows TLS_ECDHE",
    ),
    "another signature algorithm": (
        ["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"],
        {"signature_algorithms": "ecdsa_secp256r1_sha256"},
        "NO_COMMON_SIGNATURE",
        "signature algorithms: it offers rsa_pss_rsae_sha256; the policy allows ecdsa_secp256r1_sha256",
    ),
    "a signature algorithm that fits no certificate here": (
        ["-tls1_3", "-sigalgs", "rsa_pss_rsae_sha256"],
        {},
        "NO_COMMON_SIGNATURE",
        "no suitable signature algorithm",
    ),
    "no trust in our certificate": (
        ["-verify_return_error"],
        {},
        "PEER_ALERT",
        "does not trust",
    ),
}


def _tells(daemon, before, words):
    return re.search(words, daemon.log[before:]) is not None


@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_and_the_words(ssad, pki, name):
    arguments, policy, reason, words = CLIENTS[name]
    for setting, value in policy.items():
        ssad.set(setting, value)
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        command = ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.getsockname()[1]}", *arguments]
        for _ in range(3):  # the log takes ten lines of one user in a second: those before may have had them all
            before = len(ssad.log)
            subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)
            told = functools.partial(_tells, ssad, before, f"reason={reason} |lines left out")
            assert peers.settled(told, 5), ssad.log[before:]
            if f"reason={reason} " in ssad.log[before:]:
                break
            time.sleep(1)
    assert re.search(words, ssad.log[before:]), ssad.log[before:]


HANGING_UP = {
    "nothing": (0, "at the first flight"),
    "half a hello": (100, "at the first flight"),
    "a hello": (None, "in answer to our Finished"),
}


@pytest.mark.parametrize("name", HANGING_UP)
def test_a_client_that_hangs_up(ssad, pki, name):
    size, words = HANGING_UP[name]
    before = len(ssad.log)
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        with socket.create_connection(listener.getsockname()) as sock:
            sock.sendall(record(22, client_hello(pki))[:size])
            if size is None:
                sock.recv(1)
            time.sleep(0.3)
        assert peers.settled(lambda: re.search(f"reason=CONNECTION_(CLOSED|RESET).*{words}", ssad.log[before:]), 5)


def test_what_the_application_narrowed_is_named_too(ssad, pki):
    with peers.openssl(pki, "-tls1_2") as (port, _), ssa.socket() as sock:
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_MIN, 0x0304)
        with pytest.raises(ssa.HandshakeError, match=r"ClientHello.*narrower.*min_version: TLSv1\.3"):
            sock.connect(("localhost", port))
