"""A GnuTLS program's own wishes narrow the policy: anchors, certificates, CRLs, pins, versions, cipher suites."""

import base64
import datetime as dt
import os
import subprocess
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.native.gnutls.conftest import HELLO, counted, run
from tests.native.openssl import servers
from tests.peers import gnutls, nginx, openssl


def wget(ssad, port, *options, what="hello", host="localhost"):
    command = ["wget", "-nv", "-O", "-", "--tries=1", "--timeout=20", *options, f"https://{host}:{port}/{what}"]
    return run(ssad, command)


def cli(ssad, port, *options, host="localhost"):
    return run(ssad, (["gnutls-cli", *options, "-p", port, host], b""))


@pytest.fixture
def empty(tmp_path):
    """A directory of trust anchors without any, for wget's --ca-directory."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


@pytest.fixture(scope="session")
def of_clients(pki, everybodys):
    """A server that asks for a client's certificate."""
    extra = f"ssl_client_certificate {pki.ca}; ssl_verify_client on; location /who {{ return 200 $ssl_client_verify; }}"
    with nginx(pki, everybodys / "clients", extra) as port:
        yield port


def test_wgets_own_ca_narrows(ssad, serving, pki, strangers, empty):
    port = serving("web")
    assert wget(ssad, port, f"--ca-certificate={pki.ca}", f"--ca-directory={empty}").stdout == HELLO["web"]
    refused = wget(ssad, port, f"--ca-certificate={strangers.ca}", f"--ca-directory={empty}")
    assert refused.returncode
    assert b"no path from the certificate to a trust anchor" in refused.stderr


def test_a_directory_of_anchors_narrows(ssad, serving, pki, strangers, tmp_path):
    for name, ca in ("own", pki.ca), ("other", strangers.ca):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ca.pem").write_bytes(ca.read_bytes())
    assert wget(ssad, serving("web"), f"--ca-directory={tmp_path}/own").stdout == HELLO["web"]
    assert wget(ssad, serving("web"), f"--ca-directory={tmp_path}/other").returncode


def test_gits_own_ca_narrows(ssad, serving, pki, strangers, tmp_path):
    url = f"https://localhost:{serving('web')}/hello.git"
    clone = ["git", "-c", f"http.sslCAPath={tmp_path}", "clone", "-q", url]
    assert run(ssad, [*clone, tmp_path / "a"], GIT_SSL_CAINFO=str(pki.ca)).returncode == 0
    refused = run(ssad, [*clone, tmp_path / "b"], GIT_SSL_CAINFO=str(strangers.ca))
    assert refused.returncode
    assert b"no path from the certificate to a trust anchor" in refused.stderr


def test_git_fetches_again_by_another_process(ssad, serving, tmp_path):
    url = f"https://localhost:{serving('web')}/hello.git"
    made = counted(ssad)[0]
    run(ssad, ["git", "clone", "-q", url, tmp_path / "it"])
    assert run(ssad, ["git", "-C", tmp_path / "it", "fetch", "-q"]).returncode == 0
    assert counted(ssad)[0] >= made + 2


def test_a_clients_certificate(ssad, of_clients, pki):
    cert, key = pki.issue("client", "me.test")
    own = (f"--certificate={cert}", f"--private-key={key}")
    assert wget(ssad, of_clients, *own, what="who").stdout == b"SUCCESS"
    assert wget(ssad, of_clients, what="who").stdout != b"SUCCESS"


CURVES = [*[ec.SECP256R1()] * 6, *[ec.SECP384R1()] * 3, *[ec.SECP521R1()] * 3]  # half of the keys have a high bit


def test_clients_keys_of_each_curve(ssad, of_clients, pki, tmp_path):
    authority = x509.load_pem_x509_certificate(pki.ca.read_bytes())
    signing = serialization.load_pem_private_key(pki.authority.private_key_pem.bytes(), None)
    now = dt.datetime.now(dt.UTC)
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for number, curve in enumerate(CURVES):
        key = ec.generate_private_key(curve)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "me")])
        made = x509.CertificateBuilder(authority.subject, name, key.public_key(), number + 1)
        made = made.not_valid_before(now - dt.timedelta(1)).not_valid_after(now + dt.timedelta(1))
        (tmp_path / "cert").write_bytes(made.sign(signing, hashes.SHA256()).public_bytes(form[0]))
        (tmp_path / "key").write_bytes(key.private_bytes(*form))
        own = (f"--certificate={tmp_path}/cert", f"--private-key={tmp_path}/key")
        done = wget(ssad, of_clients, *own, what="who")
        assert done.stdout == b"SUCCESS", (curve.name, done.stderr)


def test_a_clients_certificate_that_a_function_gives(ssad, of_clients, pki):
    cert, key = pki.issue("client2", "me.test")
    command = ["sh", "-c", 'printf "GET /who HTTP/1.0\\r\\n\\r\\n" | (cat; sleep 1) | exec "$@"', "-", "gnutls-cli"]
    done = run(ssad, [*command, "--x509certfile", cert, "--x509keyfile", key, "-p", of_clients, "localhost"])
    assert b"SUCCESS" in done.stdout, done.stderr


def test_a_revoked_certificate_is_refused(ssad, serving, pki, empty, tmp_path):
    (tmp_path / "none").write_bytes(pki.revocations())
    (tmp_path / "it").write_bytes(pki.revocations(pki.cert))
    own = (f"--ca-certificate={pki.ca}", f"--ca-directory={empty}")
    assert wget(ssad, serving("web"), *own, f"--crl-file={tmp_path}/none").stdout == HELLO["web"]
    refused = wget(ssad, serving("web"), *own, f"--crl-file={tmp_path}/it")
    assert refused.returncode
    assert b"revoked" in refused.stderr


def test_pins_count(ssad, serving, pki):
    public = x509.load_pem_x509_certificate(pki.cert.read_bytes()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(serialization.Encoding.DER, form))
    pin = base64.b64encode(digest.finalize()).decode()
    assert wget(ssad, serving("web"), f"--pinnedpubkey=sha256//{pin}").stdout == HELLO["web"]
    assert wget(ssad, serving("web"), f"--pinnedpubkey=sha256//{pin[::-1]}").returncode


def test_versions_and_ciphers(ssad, serving):
    port = serving("web")
    assert wget(ssad, port, "--secure-protocol=TLSv1_3").stdout == HELLO["web"]
    assert wget(ssad, serving("web", "TLSv1.2"), "--secure-protocol=TLSv1_3").returncode
    assert wget(ssad, port, "--ciphers=NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305").stdout == HELLO["web"]
    assert wget(ssad, port, "--ciphers=NORMAL:-CIPHER-ALL:+AES-128-CBC").returncode
    said = cli(ssad, port, "--priority=NORMAL:-VERS-ALL:+VERS-TLS1.2").stdout
    assert b"Description: (TLS1.2)-(ECDHE-ECDSA)-(AES-256-GCM)" in said


def test_gnutls_cli_knows_the_server_again(ssad, serving, tmp_path):
    for _ in range(2):
        done = run(
            ssad,
            (["gnutls-cli", "--tofu", "--strict-tofu", "-p", serving("web"), "localhost"], b"y\n"),
            HOME=str(tmp_path),
        )
    assert b"Handshake was completed" in done.stdout or b"Host localhost" in done.stdout + done.stderr


def test_application_protocols(ssad, pki):
    with openssl(pki, "-alpn", "http/1.1", "-quiet") as (port, _):
        assert b"Application protocol: http/1.1" in cli(ssad, port, "--alpn=http/1.1").stdout


def test_a_server_that_is_gnutls(ssad, pki):
    with gnutls(pki) as port:
        assert b"Handshake was completed" in cli(ssad, port).stdout


def test_not_verifying_is_said_in_the_log(ssad, serving):
    with servers.forwarder(serving("web"), "127.0.0.2") as port:
        wget(ssad, port, "--no-check-certificate", host="127.0.0.2")
    assert 'hostname=127.0.0.2 unverified="perhaps asked for by the program, and not done"' in ssad.log
    with servers.forwarder(serving("smtp"), "127.0.0.2") as port:
        options = ["--tls=on", "--tls-certcheck=off", "--auth=off"]
        done = run(ssad, ["msmtp", "--host=127.0.0.2", f"--port={port}", *options, "-S"])
    assert b"verification cannot be turned off: certificate is for another name" in done.stderr
    assert 'unverified="asked for by the program, and not done"' in ssad.log


def test_both_libraries_in_one_program(ssad, serving, everybodys):
    """`ssa run` has one library for OpenSSL and for GnuTLS."""
    environment = {name: value for name, value in ssad.environment.items() if name != "LD_PRELOAD"}
    web = f"https://localhost:{serving('web')}/hello"
    made = counted(ssad)[0]
    for words in (
        ["wget", "-nv", "-O", "-", web],
        ["curl", "-sS", web],
        ["sh", "-c", f"wget -qO- {web} && curl {web}"],
    ):
        command = [sys.executable, "-m", "ssa.cli.main", "run", *words]
        done = subprocess.run(command, env=os.environ | environment, capture_output=True, timeout=60, check=False)
        assert HELLO["web"] in done.stdout, done.stderr
    assert counted(ssad)[0] == made + 4
