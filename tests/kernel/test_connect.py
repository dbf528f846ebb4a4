"""The first promise: connect_tls gives a plain kernel TLS descriptor, whatever the real server at the other end."""

import contextlib
import hashlib
import os
import socket
import subprocess
import threading

import pytest

import ssa
from ssa.ktls.constants import SOL_TLS, TLS_RX, TLS_TX
from ssa.ktls.crypto_info import parse_header
from ssa.library.connection import DaemonConnection
from ssa.protocol.wire import Connect
from ssa.suites import AEADS, SUITES, TLSVersion
from tests import peers

SIZE = 64 * 1024 * 1024


def kernel_state(fd):
    """(version, algorithm) of both directions, as the kernel tells whoever holds the descriptor."""
    with contextlib.closing(socket.socket(fileno=os.dup(fd))) as sock:
        return [parse_header(sock.getsockopt(SOL_TLS, direction, 4)) for direction in (TLS_TX, TLS_RX)]


def read_line(fd):
    line = b""
    while not line.endswith(b"\n"):
        line += os.read(fd, 1)
    return line


def test_plain_reads_and_writes(ssad, pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        fd = ssa.connect_tls("localhost", port)
        try:
            assert os.get_blocking(fd)
            assert not os.get_inheritable(fd)
            os.write(fd, b"hello\n")
            assert read_line(fd) == b"olleh\n"
        finally:
            ssa.close(fd)


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_with_openssl(ssad, pki, tmp_path, name, capabilities):
    suite = SUITES[name]
    assert capabilities.offers(suite)
    cert = pki.issue("rsa", "localhost", key_type="RSA") if "RSA" in name else None
    choice = "-ciphersuites" if suite.version is TLSVersion.TLSv1_3 else "-cipher"
    version = "-tls1_3" if suite.version is TLSVersion.TLSv1_3 else "-tls1_2"
    with peers.openssl(pki, "-rev", "-quiet", version, choice, suite.openssl, cert=cert) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        try:
            assert kernel_state(fd) == [(suite.version, suite.aead)] * 2
            for size in (1, 1000, 8000):  # -rev reverses a line of 16 KiB at most
                text = os.urandom(size).hex().encode()
                os.write(fd, text + b"\n")
                received = b""
                while not received.endswith(b"\n"):
                    received += os.read(fd, 65536)
                assert received == text[::-1] + b"\n"
        finally:
            ssa.close(fd)


GNUTLS = {
    "AES-256-GCM": "aes-gcm-256",
    "AES-128-GCM": "aes-gcm-128",
    "CHACHA20-POLY1305": "chacha20-poly1305",
    "AES-128-CCM": "aes-ccm-128",
}


@pytest.mark.parametrize("version", TLSVersion, ids=lambda v: v.label)
@pytest.mark.parametrize("cipher", GNUTLS)
def test_every_algorithm_with_gnutls(ssad, pki, version, cipher):
    priority = (
        f"NONE:+VERS-{version.label.replace('v', '')}:+{cipher}:+AEAD:+ECDHE-ECDSA:+GROUP-ALL:+SIGN-ALL:+CTYPE-ALL"
    )
    aead = next(a for a in AEADS.values() if a.name == GNUTLS[cipher])
    with peers.gnutls(pki, priority) as port:
        fd = ssa.connect_tls("127.0.0.1", port)
        try:
            assert kernel_state(fd) == [(version, aead)] * 2
            os.write(fd, b"echo this\n")
            assert read_line(fd) == b"echo this\n"
        finally:
            ssa.close(fd)


@pytest.mark.parametrize("protocols", ["TLSv1.2", "TLSv1.3"])
def test_nginx_serves_a_big_file(ssad, pki, tmp_path, protocols):
    content = os.urandom(1 << 20) * (SIZE >> 20)
    with peers.nginx(pki, tmp_path / "nginx", f"ssl_protocols {protocols};") as port:
        (tmp_path / "nginx" / "big").write_bytes(content)
        fd = ssa.connect_tls("localhost", port)
        try:
            os.write(fd, b"GET /big HTTP/1.0\r\nHost: localhost\r\n\r\n")
            received = bytearray()
            while data := ssa.recv(fd, 1 << 20):
                received += data
        finally:
            ssa.close(fd)
    head, _, body = bytes(received).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert hashlib.sha256(body).digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_64_mib_each_way_at_once(ssad, pki, tmp_path, version):
    block = os.urandom(1 << 20)
    blocks = SIZE >> 20
    expected = hashlib.sha256()
    for _ in range(blocks):
        expected.update(block)
    there = hashlib.sha256()
    with peers.openssl(pki, "-quiet", version, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as (port, server):
        fd = ssa.connect_tls("localhost", port)

        def feed():
            for _ in range(blocks):
                server.stdin.write(block)
            server.stdin.flush()

        def swallow():
            left = SIZE
            while left:
                data = server.stdout.read1(1 << 16)
                there.update(data)
                left -= len(data)

        def write():
            for _ in range(blocks):
                view = memoryview(block)
                while view:
                    view = view[os.write(fd, view) :]

        threads = [threading.Thread(target=f, daemon=True) for f in (feed, swallow, write)]
        for thread in threads:
            thread.start()
        here, left = hashlib.sha256(), SIZE
        while left:
            data = os.read(fd, 1 << 16)
            here.update(data)
            left -= len(data)
        for thread in threads:
            thread.join(60)
        ssa.close(fd)
    assert here.digest() == expected.digest()
    assert there.digest() == expected.digest()


def test_ipv6_and_addresses_as_names(ssad, pki):
    with peers.nginx(pki, ssad.run_dir.parent / "n6") as port:
        for host in ("::1", "127.0.0.1", "localhost"):
            fd = ssa.connect_tls(host, port)
            os.write(fd, b"GET /hello HTTP/1.0\r\n\r\n")
            assert b"hello from nginx" in os.read(fd, 4096)
            ssa.close(fd)


@pytest.mark.parametrize("group", ["P-384", "X25519", "P-256"])
def test_a_server_that_asks_for_another_key_share(ssad, pki, group):
    """HelloRetryRequest (RFC 8446 section 4.1.4), unless the first share was the right one."""
    with peers.openssl(pki, "-rev", "-quiet", "-tls1_3", "-groups", group) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        os.write(fd, b"abc\n")
        assert read_line(fd) == b"cba\n"
        ssa.close(fd)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_certificate_message_longer_than_a_record(ssad, pki, tmp_path, version):
    """The peer's certificates come in several records."""
    chain = tmp_path / "chain.pem"
    leaf = pki.cert.read_bytes()
    others = [pki.issue(f"other{n}", *(f"{'x' * 50}{m}.example" for m in range(60)))[0] for n in range(6)]
    chain.write_bytes(leaf + b"".join(other.read_bytes() for other in others))
    with peers.openssl(pki, "-rev", "-quiet", version, cert=(chain, pki.key)) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        (number,) = ssad.sockets()
        shown = ssad.get(f"sockets/{number}/peer_chain")
        assert len(shown) > 20_000
        assert shown.count("BEGIN") >= 7
        os.write(fd, b"abc\n")
        assert read_line(fd) == b"cba\n"
        ssa.close(fd)


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_server_that_would_like_a_client_certificate(ssad, pki, version):
    """It asks, none is sent, and it goes on: what each side's Finished covers is not the usual."""
    with peers.openssl(pki, "-rev", "-quiet", "-verify", "1", version) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        os.write(fd, b"abc\n")
        assert read_line(fd) == b"cba\n"
        ssa.close(fd)


def test_an_internationalised_name(ssad, pki):
    """Sent and verified as A-labels."""
    cert = pki.issue("idn", "xn--bcher-kva.example")
    with (
        peers.openssl(pki, "-rev", "-quiet", cert=cert) as (port, _),
        socket.create_connection(("localhost", port)) as sock,
        DaemonConnection() as daemon,
    ):
        reply = daemon.ask(Connect("Bücher.example"), sock)
        assert reply.peer_identity == "xn--bcher-kva.example"
        os.write(sock.fileno(), b"abc\n")
        assert read_line(sock.fileno()) == b"cba\n"
