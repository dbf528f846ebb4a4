"""What a server's certificate may be: who is refused, with what words, and what Debian's openssl is told of it."""

import contextlib
import os
import select
import socket
import subprocess
import threading
import time
from datetime import timedelta

import pytest

import ssa
from tests import peers
from tests.unit import trust_factory as make

DAY = timedelta(days=1)


class World:
    """A root in the trust store, and what it has issued."""

    def __init__(self, directory):
        self.directory = directory
        self.root = make.root("Test Root", key_=make.key())
        self.ca = directory / "root.pem"
        self.ca.write_bytes(self.root.pem)

    def files(self, *chain):
        cert, key = self.directory / "leaf.pem", self.directory / "leaf.key"
        cert.write_bytes(b"".join(part.pem for part in chain))
        key.write_bytes(chain[0].key_pem)
        return cert, key

    def under(self, intermediate, *names, **options):
        return (make.leaf(intermediate, *(names or ("localhost",)), **options), intermediate)


def wait_for(stream, words):
    """Whether the server says these words, within some seconds."""
    said, deadline = "", time.monotonic() + 5
    while words not in said and select.select([stream], [], [], max(0, deadline - time.monotonic()))[0]:
        said += os.read(stream.fileno(), 65536).decode()
    return words in said


def self_signed(world):
    return (make.leaf(None, "localhost", subject="own"),)


# what is wrong: (the chain that the server sends, reason, alert, words of the message)
REFUSED = {
    "expired": (
        lambda w: (make.leaf(w.root, "localhost", start=-9 * DAY, end=-2 * DAY),),
        ("CERTIFICATE_EXPIRED", "certificate_expired", "leaf"),
    ),
    "not yet valid": (
        lambda w: (make.leaf(w.root, "localhost", start=2 * DAY),),
        ("CERTIFICATE_NOT_YET_VALID", "certificate_expired", "leaf"),
    ),
    "self-signed": (self_signed, ("SELF_SIGNED_CERTIFICATE", "unknown_ca", "own")),
    "unknown CA": (
        lambda w: w.under(make.root("Somebody Else")),
        ("UNKNOWN_CA", "unknown_ca", "Somebody Else"),
    ),
    "another name": (
        lambda w: (make.leaf(w.root, "elsewhere.example"),),
        ("HOSTNAME_MISMATCH", "bad_certificate", "elsewhere.example"),
    ),
    "for clients only": (
        lambda w: (make.leaf(w.root, "localhost", eku=(make.CLIENT,)),),
        ("WRONG_PURPOSE", "unsupported_certificate", "leaf"),
    ),
    "name constraint": (
        lambda w: w.under(make.authority("Narrow CA", w.root, limits=make.constraints(permitted=["example.com"]))),
        ("NAME_CONSTRAINT", "bad_certificate", "permitted subtree"),
    ),
    "path length": (
        lambda w: (
            lambda first: (lambda second: (make.leaf(second, "localhost"), second, first))(
                make.authority("Second", first)
            )
        )(make.authority("First", w.root, length=0)),
        ("PATH_LENGTH", "bad_certificate", "First"),
    ),
    "issued by a leaf": (
        lambda w: w.under(make.leaf(w.root, "ca.example", subject="No CA")),
        ("NOT_A_CA", "unknown_ca", "No CA"),
    ),
    "weak key": (
        lambda w: (make.leaf(w.root, "localhost", key_=make.key("rsa1024")),),
        ("WEAK_KEY", "insufficient_security", "1024"),
    ),
}


@pytest.fixture
def world(ssad, tmp_path):
    world = World(tmp_path)
    ssad.set("trust_store", str(world.ca))
    return world


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
@pytest.mark.parametrize("fault", REFUSED)
def test_refused_and_told_why(ssad, pki, world, fault, version):
    chain, (reason, alert, words) = REFUSED[fault]
    cert = world.files(*chain(world))
    # Security level 0: openssl itself would not load a weak key.
    arguments = (version, "-cipher", "DEFAULT@SECLEVEL=0")
    with peers.openssl(pki, *arguments, cert=cert, stderr=subprocess.STDOUT, stdout=subprocess.PIPE) as (port, server):
        with pytest.raises(ssa.CertificateError) as caught:
            ssa.connect_tls("localhost", port)
        assert caught.value.reason == reason
        assert caught.value.alert == alert
        assert caught.value.whose_fault == "peer"
        assert caught.value.errno
        assert words in str(caught.value)
        assert wait_for(server.stdout, f"alert {alert.replace('_', ' ')}")
    assert ssad.sockets() == []


def test_what_private_authorities_issue_is_accepted(ssad, pki, tmp_path):
    """A CA of `openssl req -x509` and a leaf of `openssl x509`, as a thousand tutorials have it."""
    run = lambda *words: subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)  # noqa: E731 - one line says it
    ca, ca_key, leaf, key = (tmp_path / name for name in ("ca.pem", "ca.key", "leaf.pem", "leaf.key"))
    run(
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        ca_key,
        "-out",
        ca,
        "-subj",
        "/CN=Mine",
        "-days",
        "9",
    )
    run("req", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", tmp_path / "csr", "-subj", "/CN=localhost")
    (tmp_path / "ext").write_text("subjectAltName=DNS:localhost\n")
    run(
        "x509",
        "-req",
        "-in",
        tmp_path / "csr",
        "-CA",
        ca,
        "-CAkey",
        ca_key,
        "-CAcreateserial",
        "-days",
        "9",
        "-extfile",
        tmp_path / "ext",
        "-out",
        leaf,
    )
    ssad.set("trust_store", str(ca))
    with peers.openssl(pki, "-rev", "-quiet", cert=(leaf, key)) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        os.write(fd, b"abc\n")
        assert os.read(fd, 16) == b"cba\n"
        ssa.close(fd)


def test_a_self_signed_certificate_that_is_trusted(ssad, pki, tmp_path):
    cert, key = tmp_path / "c.pem", tmp_path / "k.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key,
         "-out", cert, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    ssad.set("trust_store", str(cert))
    with peers.openssl(pki, "-rev", "-quiet", cert=(cert, key)) as (port, _):
        for host in ("localhost", "127.0.0.1"):
            ssa.close(ssa.connect_tls(host, port))


@pytest.mark.parametrize("order", ["good first", "bad first"])
def test_a_path_past_an_expired_alternative(ssad, pki, world, order):
    key = make.key()
    good = make.authority("Shared CA", world.root, key_=key)
    bad = make.authority("Shared CA", world.root, key_=key, start=-9 * DAY, end=-2 * DAY)
    others = [good, bad] if order == "good first" else [bad, good]
    cert = world.files(make.leaf(good, "localhost"), *others)
    with peers.openssl(pki, "-rev", "-quiet", cert=cert) as (port, _):
        fd = ssa.connect_tls("localhost", port)
        (number,) = ssad.sockets()
        assert "anchor CN=Test Root" in ssad.get(f"sockets/{number}/verdicts")
        ssa.close(fd)


def test_nothing_of_the_application_leaves_before_the_verdict(ssad, pki, world):
    """The client's Finished is held back: a refused TLS 1.3 server gets one alert record, and nothing else."""
    cert = world.files(*self_signed(world))
    sent, ended = bytearray(), threading.Event()

    def relay(client):
        with socket.create_connection(("localhost", server_port)) as server:
            threading.Thread(target=forward, args=(server, client, bytearray()), daemon=True).start()
            forward(client, server, sent)
        ended.set()

    def forward(source, target, record):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                record.extend(data)
                target.sendall(data)

    with peers.openssl(pki, "-tls1_3", cert=cert) as (server_port, _), peers.script(relay) as port:
        with pytest.raises(ssa.CertificateError):
            ssa.connect_tls("localhost", port)
        assert ended.wait(5)
    hello = 5 + int.from_bytes(sent[3:5], "big")
    alert = bytes(sent[hello:])
    assert alert[:3] == b"\x17\x03\x03"
    assert len(alert) == 5 + 2 + 1 + 16  # the header, the alert, its type and the tag
