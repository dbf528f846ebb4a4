"""The Go package with real servers and clients, on the data paths that this kernel has; its own tests, and its form."""

import hashlib
import json
import os
import random
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from ssa.errors import ALERTS
from ssa.ktls.probe import probe
from ssa.tls import ALERT, HANDSHAKE
from tests import peers
from tests.native import golang
from tests.native.test_c_vectors import VERSIONS, meaning, message
from tests.native.test_go_bad_luck import administrators, chaos, run, started
from tests.native.test_stress import asking_echo

__all__ = ["administrators", "chaos"]

ROOT = Path(__file__).resolve().parents[2]
once = pytest.mark.skipif(os.environ.get("SSA_EXPECT_KTLS") == "1", reason="tested on this machine's own kernel")


def whole(path):
    data = path.read_bytes()
    return f"{len(data)} {hashlib.sha256(data).hexdigest()} none"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("files")
    (directory / "large").write_bytes(os.urandom(1 << 20) * 5 + b"end")
    (directory / "small").write_text("small\n")
    (directory / "empty").write_text("")
    return directory


# --- as a client ---


def get(program, environment, *urls):
    done = subprocess.run(
        [program, "get", *urls], env=os.environ | environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


def test_net_http_gets_files_from_nginx(ssad, pki, chaos, files):
    with peers.nginx(pki, files) as port:
        base = f"https://localhost:{port}"
        names = ("small", "large", "empty")
        assert get(chaos, ssad.environment, *[f"{base}/{name}" for name in names]) == [
            whole(files / name) for name in names
        ]


def test_net_http_gets_a_page_of_openssl(ssad, pki, chaos):
    with peers.openssl(pki, "-www") as (port, _):
        page, wrong = get(chaos, ssad.environment, f"https://localhost:{port}/", f"https://127.0.0.2:{port}/")
        assert re.fullmatch(r"\d{3,} [0-9a-f]{64} none", page)
        assert "ssa: certificate is for another name" in wrong


def test_another_authority_is_refused_in_words(ssad, tmp_path, chaos):
    with peers.openssl(peers.PKI(tmp_path / "other"), "-www") as (port, _):
        (line,) = get(chaos, ssad.environment, f"https://localhost:{port}/")
        assert "ssa: no path from the certificate to a trust anchor" in line or "self-signed" in line


# --- as a server ---


@pytest.mark.usefixtures("administrators")
def test_net_http_serves_files_to_curl(ssad, pki, chaos, files, tmp_path):
    with started(chaos, "serve", ssad.environment, FILES=files) as process:
        port = int(process.stdout.readline())
        for name in ("large", "small", "empty"):
            done = subprocess.run(
                ["curl", "-sS", "--cacert", pki.ca, "-w", "%{http_version}", "-o", tmp_path / name,
                 f"https://localhost:{port}/{name}"],
                capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert (done.stdout, done.stderr) == ("1.1", "")
            assert (tmp_path / name).read_bytes() == (files / name).read_bytes()


@pytest.mark.usefixtures("administrators")
def test_a_server_is_scraped_by_its_own_client(ssad, chaos, files):
    with started(chaos, "serve", ssad.environment, FILES=files) as process:
        port = int(process.stdout.readline())
        assert get(chaos, ssad.environment, *[f"https://localhost:{port}/large"] * 3) == [whole(files / "large")] * 3


# --- what is known of a connection, and options ---


def lines(process):
    return [line.rstrip() for line in process.stdout]


def test_what_is_known_of_a_server(ssad, path, pki, chaos):
    with peers.openssl(pki, "-alpn", "http/1.1", "-ciphersuites", "TLS_AES_128_GCM_SHA256") as (port, _):
        told = run(chaos, "state", ssad.environment, PORT=port)
    certificate = x509.load_pem_x509_certificate(pki.cert.read_bytes())
    assert told[:2] == ["true TLS_AES_128_GCM_SHA256 http/1.1  true", f'"localhost" {str(path == "relay").lower()}']
    assert told[2].startswith(f"{certificate.serial_number} [")
    assert told[-1] == "<nil>"


def test_what_is_known_of_a_client(ssad, path, pki, chaos):
    certificate, key = pki.issue("client", "client.example")
    words = {"CERTIFICATE": str(pki.cert), "KEY": str(pki.key)}
    context = ssl.create_default_context(cafile=pki.ca)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(certificate, key)
    serial = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
    with started(chaos, "state-server", ssad.environment, **words) as process:
        port = int(process.stdout.readline())
        tcp = socket.create_connection(("127.0.0.1", port))
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            assert tls.recv(10) == b""
        told = lines(process)
    assert told[0].startswith("true TLS_")
    assert told[0].endswith("http/1.1 localhost true")
    assert re.fullmatch(f'"OU=Testing .+" {str(path == "relay").lower()}', told[1])
    assert (told[2], told[-1]) == (f"{serial} [client.example]", "<nil>")


@once
def test_options_that_cannot_be(ssad, pki, chaos, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    words = {"CA": pki.ca, "KEY": pki.key, "FIFO": tmp_path / "fifo", "SOCKET": tmp_path / "socket"}
    invalid = "false true false false caller"
    assert run(chaos, "options", ssad.environment, **words) == [
        "good false false false true ",
        "loosens true false false false policy",
        f"no protocol {invalid}",
        f"no version {invalid}",
        "no file false false true false ",
        f"a fifo {invalid}",
        f"a directory {invalid}",
        f"no certificate {invalid}",
        f"no suite {invalid}",
        f"not ASCII {invalid}",
        "dial unix localhost:1: unknown network unix",
        "dial tcp localhost: address localhost: missing port in address",
        "true",
        "clean",
    ]


# --- its own tests, and its form ---


@once
def test_the_vectors():
    done = golang.go("test", "-count=1", ".")
    assert done.returncode == 0, done.stdout + done.stderr


@once
def test_records_by_chance_mean_the_same_to_both_libraries(tmp_path):
    """The Python library's judgement of them as vectors for Go's."""
    chance = random.Random(11)
    rows = []
    for _ in range(4000):
        kind, content = record_by_chance(chance)
        version, server = chance.choice(list(VERSIONS)), chance.choice([True, False])
        outcome, _, alert = meaning(VERSIONS[version], server, kind, content).partition("fail ")
        alert = ALERTS.get(int(alert)) if alert else None
        row = {"version": version, "role": "server" if server else "client", "type": kind, "hex": content.hex()}
        rows.append(row | {"meaning": str(row), "outcome": outcome or "fail", "alert": alert})
    (tmp_path / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = golang.go("test", "-count=1", "-run", "TestWhatRecordsMean", ".", SSA_VECTORS=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def record_by_chance(chance):
    kind = chance.choice([ALERT, HANDSHAKE, HANDSHAKE, HANDSHAKE, chance.choice([0, 20, 24, 255])])
    if kind == ALERT:
        size = chance.choice([0, 1, 2, 2, 2, 3])
        return kind, bytes(chance.choice([0, 1, 2, 40, 90, 100, 255]) for _ in range(size))
    whole = b"".join(message(chance) for _ in range(chance.randrange(4)))
    return kind, whole[: chance.choice([1, 3, 5, 9, 1000])]


@once
def test_gofmt_and_vet():
    sources = [golang.LIBRARY, golang.PROGRAMS]
    done = subprocess.run(["gofmt", "-l", *sources], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("", "")
    for directory in sources:
        done = golang.go("vet", "./...", cwd=directory)
        assert done.returncode == 0, done.stderr


def test_the_tables_are_as_the_python_ones():
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "make-go-tables", "--check"], capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_tables_that_differ_are_told(tmp_path):
    for part in ("ssa", "tools"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "tools").unlink()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "make-go-tables").write_text((ROOT / "tools" / "make-go-tables").read_text())
    tables = tmp_path / "clients" / "go" / "tables.go"
    tables.parent.mkdir(parents=True)
    tables.write_text(
        (golang.LIBRARY / "tables.go").read_text().replace("attributeALPN         = 90", "attributeALPN = 91")
    )
    script = tmp_path / "tools" / "make-go-tables"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"clients/go/tables.go differs" in done.stderr


def test_nothing_but_the_standard_library():
    """No cgo, and no other module."""
    imported = set()
    for path in golang.LIBRARY.glob("*.go"):
        (block,) = re.findall(r"^import \((.*?)^\)", path.read_text(), re.MULTILINE | re.DOTALL) or [""]
        imported |= set(re.findall(r'"([^"]+)"', block))
    assert "C" not in imported
    assert not [name for name in imported if "." in name.split("/")[0]]


# --- the page ---

PAGE = ROOT / "docs" / "go.md"


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The program of docs/go.md, compiled as that page says."""
    made = golang.BUILD / "example"
    (source,) = re.findall(r"```go\n(package main.*?)```", PAGE.read_text(), re.DOTALL)
    if not golang.is_fresh(made, golang.LIBRARY) or made.stat().st_mtime < PAGE.stat().st_mtime:
        directory = tmp_path_factory.mktemp("example")
        (directory / "main.go").write_text(source)
        (directory / "go.mod").write_text(
            f"module example\n\ngo 1.19\n\nrequire ssa v0.0.0\n\nreplace ssa => {golang.LIBRARY}\n"
        )
        done = golang.go("build", "-o", str(made), ".", cwd=directory, CGO_ENABLED="0")
        assert done.returncode == 0, done.stderr
    return made


@once
def test_the_example(example, ssad, pki, files):
    with peers.nginx(pki, files) as port, peers.openssl(pki, "-www") as (other, _):
        done = subprocess.run(
            [example, f"https://localhost:{port}/small", f"https://127.0.0.2:{other}/"],
            env=os.environ | ssad.environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stdout == "small\n"
        assert "it is the fault of: peer" in done.stderr
        assert "certificate is for another name" in done.stderr


def test_what_the_page_names_is_there():
    text = PAGE.read_text()
    sources = "\n".join(path.read_text() for path in golang.LIBRARY.glob("*.go"))
    for name in re.findall(r"`ssa\.(\w+)", text):
        assert re.search(rf"^(func|type) {name}\b", sources, re.MULTILINE), name


# --- many goroutines, and keys that change ---


def test_writers_and_readers_at_once(ssad, pki, chaos):
    def serve(tls, tcp):
        while data := tls.recv(65536):
            tls.sendall(data)
        tls.unwrap()

    with peers.python_server(pki, serve) as port:
        assert run(chaos, "stress", ssad.environment, PORT=port) == [str(4 << 20)]


@pytest.mark.skipif(not probe().rekey, reason="this kernel cannot change keys")
@pytest.mark.parametrize("path", ["ktls"])
def test_writers_and_readers_while_the_keys_change(ssad, pki, chaos):
    noted = []
    with asking_echo(pki, noted) as port:
        assert run(chaos, "stress", ssad.environment, PORT=port) == [str(4 << 20)]
    assert peers.settled(lambda: len(noted) == 1)
    assert isinstance(noted[0], int)
    assert noted[0] > 0  # KeyUpdates of ours
