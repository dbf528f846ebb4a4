"""The Go package with real servers and clients, on the data paths that this kernel has; its own tests, and its form."""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import peers
from tests.native import golang
from tests.native.test_go_bad_luck import chaos, serving, started

__all__ = ["chaos"]

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


@pytest.fixture
def administrators(running, pki):
    """The administrator's certificate for localhost."""
    if not (running.mount / "credentials" / "www").exists():
        serving(running, pki)


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


# --- its own tests, and its form ---


@once
def test_the_vectors():
    done = golang.go("test", "-count=1", ".")
    assert done.returncode == 0, done.stdout + done.stderr


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
