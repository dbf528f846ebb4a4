"""Chains, good and bad, by unmodified curl: none is accepted that the Python library refuses.

The chains are those of the unit tests, and a matrix of name constraints as in BetterTLS's. Here is a part of them;
SSA_ALL_CHAINS=1 in the environment has all of them.
"""

import itertools
import os
import socket
import ssl
import threading

import pytest

import ssa
from ssa.errors import REASONS
from tests.native.openssl.conftest import run
from tests.unit.test_trust_judge import BAD, GOOD, limited
from tests.unit.trust_factory import HOST, Made

ALL = os.environ.get("SSA_ALL_CHAINS") == "1"
ADDRESS = "127.0.0.1"
NOT_SENT = {"empty chain", "junk", "bytes behind it", "odd curve"}  # by no server of OpenSSL's


def _one_of_each(cases):
    """A case for each reason, and all of name constraints."""
    seen = set()
    for name, (reason, _, _) in cases.items():
        if name not in NOT_SENT and (ALL or reason == "NAME_CONSTRAINT" or reason not in seen):
            seen.add(reason)
            yield name


REFUSED = list(_one_of_each(BAD))
ACCEPTED = [name for at, name in enumerate(GOOD) if ALL or at % 4 == 0]

# What a CA is limited to, for a name and for an address: something that has it in it, or something else, or nothing.
LISTS = {HOST: {"": (), "has": ("example.com",), "other": ("example.org",)}}
LISTS[ADDRESS] = {"": (), "has": ("127.0.0.0/8",), "other": ("192.0.2.0/24",)}
MATRIX = [
    (host, permitted, excluded)
    for host, permitted, excluded in itertools.product(LISTS, LISTS[HOST], LISTS[HOST])
    if permitted or excluded
]


class Server:
    """A TLS server whose certificates can be exchanged. It says "hello" to each client."""

    def __init__(self, directory):
        self._directory = directory
        self._listener = socket.create_server((ADDRESS, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def show(self, chain):
        """Serve with that chain from now on."""
        first = chain[0]
        certificate, key = self._directory / "shown.pem", self._directory / "shown.key"
        certificate.write_bytes(b"".join(_pem(link) for link in chain))
        key.write_bytes(first.key_pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.load_cert_chain(certificate, key)
        self._context = context

    def _serve(self):
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    tls.recv(1000)
                    tls.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
                    tls.unwrap()
            except OSError:
                connection.close()

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _pem(link):
    return link.pem if isinstance(link, Made) else ssl.DER_cert_to_PEM_cert(link).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("shown"))
    yield server
    server.close()


@pytest.fixture
def tried(ssad, server, everybodys, monkeypatch):
    """What becomes of a chain: by curl, and by the Python library. Both say "" or why it was refused."""
    for name, value in ssad.environment.items():
        if name != "LD_PRELOAD":
            monkeypatch.setenv(name, value)

    def tried(chain, anchors, host=HOST):
        server.show(chain)
        store = everybodys / "chains.pem"
        store.write_bytes(b"".join(anchor.pem for anchor in anchors))
        ssad.set("trust_store", str(store))
        return _by_curl(ssad, server.port, host), _by_python(server.port, host)

    return tried


def _by_curl(ssad, port, host):
    command = ["curl", "-sS", "-m", "20", "--connect-to", f"::{ADDRESS}:{port}", f"https://{host}:{port}/"]
    done = run(ssad, command)
    assert done.returncode in {0, 35, 60}, done.stderr
    assert (done.stdout == b"hello") is (done.returncode == 0)
    return done.stderr.decode()


def _by_python(port, host):
    try:
        with socket.create_connection((ADDRESS, port)) as tcp, ssa.upgrade(tcp, server_hostname=host) as tls:
            tls.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert tls.recv(100).startswith(b"HTTP/1.0 200")
    except OSError as exc:
        return str(exc)
    return ""


@pytest.mark.parametrize("case", ACCEPTED)
def test_accepted_by_both(case, tried):
    assert tried(*GOOD[case]()) == ("", "")


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_both(case, tried):
    reason, _, build = BAD[case]
    for said in tried(*build()):
        assert REASONS[reason].text in said


@pytest.mark.parametrize(("host", "permitted", "excluded"), MATRIX)
def test_name_constraints(host, permitted, excluded, tried):
    lists = LISTS[host]
    chain, anchors = limited([host], permitted=lists[permitted], excluded=lists[excluded])
    by_curl, by_python = tried(chain, anchors, host)
    assert (by_curl == "") is (by_python == "") is (permitted != "other" and excluded != "has")
