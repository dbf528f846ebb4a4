"""gnutls-serv as a server, unmodified: ssad makes its handshakes, with its own certificates."""

import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import threading

import pytest

from tests.native.gnutls.conftest import counted
from tests.peers import free_port, program

SOME = b"".join(b"%06d\n" % number for number in range(20000))


@contextlib.contextmanager
def serving_echo(ssad, pki, *options, certificates=()):
    port = free_port()
    files = ["--x509certfile", pki.cert, "--x509keyfile", pki.key]
    for cert, key in certificates:
        files += ["--x509certfile", cert, "--x509keyfile", key]
    command = ["gnutls-serv", "--echo", "--quiet", "-p", port, *files, *options]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with program(*command, port=port, env=os.environ | ssad.environment, **quiet):
        yield port


def connect(pki, port, **limits):
    context = ssl.create_default_context(cafile=pki.ca)
    for name, value in limits.items():
        setattr(context, name, value)
    return context.wrap_socket(socket.create_connection(("localhost", port), 20), server_hostname="localhost")


def _echoed(tls, data):
    sender = threading.Thread(target=tls.sendall, args=(data,))
    sender.start()
    digest, size = hashlib.sha256(), 0
    while size < len(data) and (came := tls.recv(65536)):
        digest.update(came)
        size += len(came)
    sender.join()
    return digest.digest()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_it_serves_by_ssa(ssad, pki, version):
    made = counted(ssad)[0]
    with serving_echo(ssad, pki) as port:
        with connect(pki, port, minimum_version=version, maximum_version=version) as tls:
            assert _echoed(tls, b"hello\n") == hashlib.sha256(b"hello\n").digest()
            assert len(ssad.sockets()) == 1
        with connect(pki, port) as one, connect(pki, port) as other:  # at once
            for tls in other, one:
                assert _echoed(tls, b"hello\n") == hashlib.sha256(b"hello\n").digest()
    assert counted(ssad)[0] == made + 3


def test_much_comes_back_whole(ssad, pki):
    with serving_echo(ssad, pki) as port, connect(pki, port) as tls:
        assert _echoed(tls, SOME) == hashlib.sha256(SOME).digest()


def test_a_certificate_for_each_kind_of_key(ssad, pki):
    rsa = pki.issue("rsa", "localhost", key_type="RSA")
    with serving_echo(ssad, pki, certificates=[rsa]) as port:
        for ciphers in "ECDHE+AESGCM+aRSA", "ECDHE+AESGCM+aECDSA":
            context = ssl.create_default_context(cafile=pki.ca)
            context.set_ciphers(ciphers)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            sock = socket.create_connection(("localhost", port), 20)
            with context.wrap_socket(sock, server_hostname="localhost") as tls:
                assert ("RSA" in tls.cipher()[0].replace("ECDSA", "")) is ciphers.endswith("aRSA")


def test_clients_certificates_are_demanded(ssad, pki):
    with serving_echo(ssad, pki, "--require-client-cert", "--x509cafile", pki.ca) as port:
        context = ssl.create_default_context(cafile=pki.ca)
        context.load_cert_chain(*pki.issue("client3", "me.test"))
        sock = socket.create_connection(("localhost", port), 20)
        with context.wrap_socket(sock, server_hostname="localhost") as tls:
            assert _echoed(tls, b"hello\n") == hashlib.sha256(b"hello\n").digest()
        with connect(pki, port) as tls, pytest.raises(OSError, match="certificate"):
            tls.recv(1)


def test_the_policy_counts(ssad, pki):
    ssad.set("min_version", "TLSv1.3")
    with serving_echo(ssad, pki) as port, pytest.raises(OSError, match="version"):
        connect(pki, port, maximum_version=ssl.TLSVersion.TLSv1_2)
