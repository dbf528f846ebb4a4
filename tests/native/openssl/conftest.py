"""Unmodified programs that link OpenSSL, with libssa-openssl preloaded: on the kernel's TLS where there is some."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import pytest

from tests.native.conftest import PATHS, ROOT
from tests.native.openssl import programs, servers
from tests.peers import PKI, Daemon

# The test kernel starts programs slowly, and has no room for a sanitizer: there, what the data path changes is tested.
ON_HOST = ["test_openssl_bad_luck.py", "test_openssl_run.py", "test_openssl_chains.py"]
collect_ignore = ON_HOST if PATHS[0] == "ktls" else []

BIG = bytes(range(256)) * (programs.WEB_SIZE >> 8)


@pytest.fixture(scope="session")
def everybodys():
    """A directory that every user can enter: some servers do not run as root."""
    directory = Path(tempfile.mkdtemp(prefix="ssa-programs-", dir="/tmp"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def running(everybodys, pki):
    """One ssad for all tests in this directory."""
    directory = everybodys / "ssad"
    directory.mkdir()
    with Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 10\n') as daemon:
        yield daemon


@pytest.fixture(scope="session")
def preload(everybodys):
    made = ROOT / "build" / "native" / "libssa-openssl.so"
    assert made.exists(), "`make native` makes it"
    return shutil.copy(made, everybodys)


@pytest.fixture
def ssad(cleaned, preload, monkeypatch):
    """The running ssad, by the kernel's TLS where there is some. Its `environment` coerces a program."""
    cleaned.set("data_path", PATHS[0])
    monkeypatch.setitem(cleaned.environment, "LD_PRELOAD", preload)
    for name in ("SSA_RUN_DIR", "SSA_MOUNT", "SSA_CONFIG"):  # servers of the tests run without ssa
        monkeypatch.delenv(name)
    return cleaned


def counted(ssad):
    """What /ssa/stats says of handshakes: made, refused for their certificate, failed otherwise."""
    return [int(ssad.get(f"stats/{name}")) for name in ("handshakes", "certificates_refused", "handshakes_failed")]


def run(ssad, command, **environment):
    command, stdin = command if isinstance(command, tuple) else (command, b"")
    return subprocess.run(
        [str(word) for word in command],
        input=stdin,
        capture_output=True,
        timeout=90,
        check=False,
        env=os.environ | ssad.environment | {"LC_ALL": "C.UTF-8"} | environment,
    )


# --- the servers, which run without ssa ----------------------------------------------------------------------------


def _wheel(directory):
    directory.mkdir(parents=True)
    with zipfile.ZipFile(directory / "big-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("big-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: big\nVersion: 1\n")
        wheel.writestr(
            "big-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("big-1.dist-info/RECORD", "")
        wheel.writestr("big.bin", BIG[: programs.SIZE])


@contextlib.contextmanager
def _web(pki, directory, versions):
    directory.mkdir()
    (directory / "hello").write_text("hello from the web\n")
    (directory / "big").write_bytes(BIG)
    _wheel(directory / "wheels")
    (directory / "wheels" / "index.html").write_text('<a href="big-1-py3-none-any.whl">big-1-py3-none-any.whl</a>')
    limit = f'ssl.openssl.ssl-conf-cmd = ("MaxProtocol" => "{versions}")' if versions else ""
    index = 'index-file.names = ("index.html")\nmimetype.assign = (".html" => "text/html")\n'
    with servers.lighttpd(pki, directory, extra=index + limit) as port:
        yield port


@contextlib.contextmanager
def _redis(pki, directory, versions):
    with servers.redis(pki, directory, versions=versions or "TLSv1.2 TLSv1.3") as port:
        command = ["redis-cli", "--tls", "--cacert", pki.ca, "-h", "localhost", "-p", str(port)]
        subprocess.run([*command, "set", "hello", "hello"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(
            [*command, "-x", "set", "big"], input=BIG[: programs.SIZE], check=True, stdout=subprocess.DEVNULL
        )
        yield port


@contextlib.contextmanager
def _mosquitto(pki, directory, versions):
    with servers.mosquitto(pki, directory, versions=versions) as port:
        command = ["mosquitto_pub", "--cafile", pki.ca, "-h", "localhost", "-p", str(port), "-q", "1", "-r", "-s"]
        for what, data in ("hello", b"hello"), ("big", BIG[: programs.SIZE]):
            subprocess.run([*command, "-t", what], input=data, check=True)
        yield port


_SERVERS = {
    "web": _web,
    "redis": _redis,
    "mosquitto": _mosquitto,
    "postgres": lambda pki, directory, versions: servers.postgres(pki, directory, versions=versions),
    "mariadb": lambda pki, directory, versions: servers.mariadb(pki, directory, versions=versions),
}


@pytest.fixture(scope="session")
def serving(everybodys, pki):
    """The port of a server by its name; it is started when it is first wanted. `versions`: TLSv1.2 for no later one."""
    ports = {}
    with contextlib.ExitStack() as stack:

        def port(name, versions=None):
            if (name, versions) not in ports:
                directory = everybodys / f"{name}-{versions}"
                ports[name, versions] = stack.enter_context(_SERVERS[name](pki, directory, versions))
            return ports[name, versions]

        yield port


@pytest.fixture(scope="session")
def strangers(tmp_path_factory):
    return PKI(tmp_path_factory.mktemp("strangers"))
