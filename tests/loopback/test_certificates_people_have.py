"""Certificates and keys that people have, live: served, presented, trusted. No kernel TLS is needed."""

import shutil
import subprocess
import sys
import threading

import pytest

import ssa
from tests import peers
from tests.peers import Daemon
from tests.unit import trust_factory as factory
from tests.unit.test_trust_tolerance import LATIN, armoured, common, with_null

OTHER = factory.tlv(0x14, b"\xd1")  # another TeletexString


def start(tmp_path, monkeypatch, trust_store):
    daemon = Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{trust_store}"\ndata_path = "relay"\n')
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)
    return daemon


def served(port, *arguments):
    """What Debian's openssl says of a server."""
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"localhost:{port}", "-servername", "localhost", *arguments],
        input=b"",
        capture_output=True,
        timeout=20,
        check=False,
    )
    return done.returncode, (done.stdout + done.stderr).decode()


def accept_all(server):
    def run():
        while True:
            try:
                server.accept()[0].close()
            except OSError:
                if server.fileno() < 0:
                    return

    threading.Thread(target=run, daemon=True).start()


@pytest.mark.parametrize(
    "options", [[], ["rsa_pss_keygen_md:sha384", "rsa_pss_keygen_mgf1_md:sha384", "rsa_pss_keygen_saltlen:48"]]
)
def test_a_key_for_pss_only_is_served(tmp_path, monkeypatch, options):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    words = [word for option in options for word in ("-pkeyopt", option)]
    factory.openssl("genpkey", "-algorithm", "RSA-PSS", "-pkeyopt", "rsa_keygen_bits:2048", *words, "-out", key)
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    factory.openssl("req", "-x509", "-sha384", "-key", key, *names, "-out", cert)
    with start(tmp_path, monkeypatch, cert) as daemon:
        (daemon.mount / "credentials" / "pss").mkdir()
        shutil.copyfile(cert, daemon.mount / "credentials/pss/certificate")
        shutil.copyfile(key, daemon.mount / "credentials/pss/key")
        with ssa.create_server(("localhost", 0)) as server:
            port = server.getsockname()[1]
            accept_all(server)
            for version in ("-tls1_3", "-tls1_2"):
                status, said = served(port, version, "-CAfile", cert, "-verify_return_error")
                assert status == 0, said
                assert "RSA-PSS" in said
            ssa.create_connection(("localhost", port), timeout=10).close()
        with peers.openssl(peers.PKI(tmp_path / "pki"), cert=(cert, key)) as (port, _):
            ssa.create_connection(("localhost", port), timeout=10).close()


def test_names_in_latin_1_live(tmp_path, monkeypatch):
    """A trust store with such an anchor, a server under it, a client that is such a one."""
    anchor = factory.root("Odd")
    odd = factory.changed(anchor, None, (common("Odd"), OTHER))
    good = factory.root("Good")
    (tmp_path / "store.pem").write_bytes(good.pem + armoured(odd) + armoured(b"\x30\x03abc"))
    end = factory.leaf(anchor, "localhost", subject="leaf", eku=())
    end_pem = armoured(factory.changed(end, anchor, (common("Odd"), OTHER), (common("leaf"), LATIN)))
    with start(tmp_path, monkeypatch, tmp_path / "store.pem") as daemon:
        options = {"certificate": end_pem, "private_key": end.key_pem}
        with ssa.create_server(("localhost", 0), **options, request_peer_auth=True) as server:
            identities = []
            accepting = threading.Thread(target=lambda: identities.append(accepted_identity(server)))
            accepting.start()
            with ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10, **options) as client:
                client.settimeout(10)
                number = daemon.sockets()[0]
                assert client.recv(1) == b"x"
            accepting.join(10)
            assert identities == [rb"CN=COMPA\xd1IA"]
            assert number
        stranger = factory.root("Stranger")
        other = factory.leaf(stranger, "localhost")
        with (
            ssa.create_server(("localhost", 0), certificate=other.pem, private_key=other.key_pem) as server,
            pytest.raises(ssa.CertificateError, match=r"1 anchor was skipped: .*certificate 3"),
        ):
            ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10)
    assert "2 trust anchors, 1 skipped" in daemon.log
    assert "could not be judged" not in daemon.log
    assert "DAEMON_FAULT" not in daemon.log


def accepted_identity(server):
    sock, _ = server.accept()
    with sock:
        sock.sendall(b"x")
        return sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_IDENTITY)


def test_null_parameters_live(tmp_path, monkeypatch):
    """As Debian's curl takes them."""
    anchor = factory.root()
    end = factory.leaf(anchor, "localhost")
    (tmp_path / "root.pem").write_bytes(armoured(with_null(anchor, anchor)))
    (tmp_path / "cert.pem").write_bytes(armoured(with_null(end, anchor)))
    (tmp_path / "key.pem").write_bytes(end.key_pem)
    with start(tmp_path, monkeypatch, tmp_path / "root.pem"):
        certificate = (tmp_path / "cert.pem", tmp_path / "key.pem")
        with peers.openssl(peers.PKI(tmp_path / "pki"), "-www", cert=certificate) as (port, _):
            ssa.create_connection(("localhost", port), timeout=10).close()
            url = f"https://localhost:{port}/"
            curl = ["curl", "-s", "-o", tmp_path / "out", "--cacert", tmp_path / "root.pem", url]
            assert subprocess.run(curl, check=False).returncode == 0


def test_one_file_for_certificate_and_key(tmp_path, monkeypatch):
    """In an application's options, in /ssa, and in the directory; with a BOM, CRLF, and a comment in Latin-1."""
    made = factory.leaf(None, "localhost", ca=None)
    comment = b"\xef\xbb\xbf# se\xf1or\r\n"
    both = comment + made.pem.replace(b"CERTIFICATE", b"X509 CERTIFICATE").replace(b"\n", b"\r\n") + made.key_pem
    (tmp_path / "both.pem").write_bytes(both)
    (tmp_path / "both.pem").chmod(0o600)
    (tmp_path / "anchor.pem").write_bytes(comment + made.pem)
    lasting = tmp_path / "credentials" / "lasting"
    lasting.mkdir(parents=True)
    for name in ("certificate", "key"):
        (lasting / name).symlink_to(tmp_path / "both.pem")
    with start(tmp_path, monkeypatch, tmp_path / "anchor.pem") as daemon:
        assert daemon.get("credentials/lasting/status").startswith("in service")
        assert "KEY" not in daemon.get("credentials/lasting/certificate")
        live = daemon.mount / "credentials" / "live"
        live.mkdir()
        for name in ("certificate", "key"):
            shutil.copyfile(tmp_path / "both.pem", live / name)
        assert daemon.get("credentials/live/status").startswith("in service")
        own = {"certificate": str(tmp_path / "both.pem"), "private_key": str(tmp_path / "both.pem")}
        for options in ({}, own):
            with ssa.create_server(("localhost", 0), **options) as server:
                accept_all(server)
                ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10).close()


@pytest.mark.parametrize(("days", "words"), [(-1, "expired on"), (3, "expires on"), (300, "")])
def test_a_certificate_that_expires_is_told_of(tmp_path, monkeypatch, days, words):
    period = {"start": factory.timedelta(days=-30), "end": factory.timedelta(days=days)}
    made = factory.leaf(None, "localhost", ca=None, **period)
    (tmp_path / "anchor.pem").write_bytes(made.pem)
    lasting = tmp_path / "credentials" / "lasting"
    lasting.mkdir(parents=True)
    (lasting / "certificate").write_bytes(made.pem)
    (lasting / "key").write_bytes(made.key_pem)
    (lasting / "key").chmod(0o600)
    with start(tmp_path, monkeypatch, tmp_path / "anchor.pem") as daemon:
        live = daemon.mount / "credentials" / "live"
        live.mkdir()
        (live / "certificate").write_bytes(made.pem)
        (live / "key").write_bytes(made.key_pem)
        for name in ("lasting", "live"):
            assert words in daemon.get(f"credentials/{name}/status")
            told = f"warning: credential {name}: its certificate {words}" in daemon.log
            assert told == bool(words)
        doctor = subprocess.run(
            [sys.executable, "-m", "ssa.cli.main", "doctor"], capture_output=True, text=True, check=False, timeout=60
        )
        assert (f"lasting: in service, and its certificate {words}" in " ".join(doctor.stdout.split())) == bool(words)
