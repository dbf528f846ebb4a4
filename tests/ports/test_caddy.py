"""Caddy with ssa's modules, as tools/caddy-build makes it: `make test-ports`."""

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests import peers
from tests.native.test_go_bad_luck import serving
from tests.peers import Daemon

ROOT = Path(__file__).resolve().parents[2]
CADDY = ROOT / "build" / "ports" / "caddy" / "caddy"

CADDYFILE = """
{{
	auto_https off
	admin localhost:{admin}
	grace_period 10s
	servers {{
		protocols h1 h2c
		listener_wrappers {{
			ssa {{
				{listener}
			}}
		}}
	}}
}}

http://localhost:{port} {{
	bind 127.0.0.1
	root * {files}
	file_server
	respond /hello "hello, {greeting}"
	handle_path /upstream/* {{
		rewrite * /
		reverse_proxy 127.0.0.1:{upstream} {{
			transport ssa {{
				{transport}
			}}
		}}
	}}
}}
"""
BOTH = "alpn h2 http/1.1"
NOBODY = 65534


@pytest.fixture
def daemon(tmp_path, pki):
    assert CADDY.exists(), "`tools/caddy-build` makes it"
    (tmp_path / "ssad").mkdir()
    with Daemon(tmp_path / "ssad", policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        serving(daemon, pki)
        yield daemon


class Caddy:
    """A Caddy of the test's own, and its configuration."""

    def __init__(self, directory, daemon):
        self.port, self.admin = peers.free_port(), peers.free_port()
        self.file, self.log = directory / "Caddyfile", directory / "caddy.log"
        self.files = directory / "files"
        self.files.mkdir()
        homes = {name: str(directory / "home") for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
        self.environment = os.environ | daemon.environment | homes

    def write(self, *, listener=BOTH, transport="server_name localhost", upstream=1, greeting="world"):
        self.file.write_text(
            CADDYFILE.format(
                admin=self.admin, port=self.port, files=self.files, listener=listener,
                transport=transport, upstream=upstream, greeting=greeting,
            )
        )  # fmt: skip

    def command(self, word):
        return [CADDY, word, "--config", self.file, "--adapter", "caddyfile"]

    def run(self, word):
        return subprocess.run(
            self.command(word), env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    @contextlib.contextmanager
    def running(self, **configuration):
        self.write(**configuration)
        with self.log.open("w") as log:
            options = {"env": self.environment, "stdout": log, "stderr": log}
            with peers.program(*self.command("run"), port=self.port, **options):
                yield self
        assert peers.settled(lambda: not peers.listens(self.port))  # ssad has seen that it was killed

    def curl(self, path, *options):
        """Status and version of HTTP, and what came."""
        command = ["curl", "-sS", "--cacert", self.ca, "-w", "\n%{http_code} %{http_version}", *options]
        done = subprocess.run(
            [*command, f"https://localhost:{self.port}{path}"], capture_output=True, text=True, timeout=60, check=False
        )
        body, _, told = done.stdout.rpartition("\n")
        return (told, body) if done.returncode == 0 else (done.stderr, "")

    def says(self, words):
        return peers.settled(lambda: words in self.log.read_text(), 5)


@pytest.fixture
def caddy(tmp_path, daemon, pki):
    made = Caddy(tmp_path, daemon)
    made.ca = pki.ca
    return made


def test_pages_by_both_versions_of_http(caddy):
    (caddy.files / "page").write_text("a page\n" * 100000)
    with caddy.running():
        assert caddy.curl("/hello", "--http1.1") == ("200 1.1", "hello, world")
        assert caddy.curl("/hello", "--http2") == ("200 2", "hello, world")
        for version in ("--http1.1", "--http2"):
            assert caddy.curl("/page", version)[1] == (caddy.files / "page").read_text()


def test_without_h2_among_its_protocols_the_client_speaks_http_1_1(caddy):
    with caddy.running(listener=""):
        assert caddy.curl("/hello", "--http2") == ("200 1.1", "hello, world")


def test_many_requests_of_one_connection(caddy):
    with caddy.running():
        url = f"https://localhost:{caddy.port}/hello"
        for version in ("--http1.1", "--http2"):
            command = ["curl", "-sS", version, "--cacert", caddy.ca, "-w", "%{num_connects}\n", *[url] * 20]
            lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("hello, world")
            assert [line.strip() for line in lines if line.strip()] == ["1"] + ["0"] * 19


def test_the_policy_holds_for_what_caddy_serves(caddy, daemon):
    with caddy.running():
        daemon.set("min_version", "TLSv1.3")
        assert caddy.curl("/hello")[0] == "200 2"
        assert "alert" in caddy.curl("/hello", "--tls-max", "1.2")[0]


# --- upstreams ---


def test_an_upstream(caddy, pki):
    with peers.openssl(pki, "-www") as (upstream, _), caddy.running(upstream=upstream):
        status, page = caddy.curl("/upstream/")
        assert status == "200 2"
        assert "TLS_AES_256_GCM_SHA384" in page


UPSTREAM = """
{{
	auto_https off
	admin off
}}

https://localhost:{port} {{
	bind 127.0.0.1
	tls {pki.cert} {pki.key}
	respond "{{http.request.proto}}"
}}
"""


def test_an_upstream_of_http_2(caddy, pki, tmp_path):
    """By x/net's client over ssa; the upstream is Caddy by Go's own TLS."""
    upstream, file = peers.free_port(), tmp_path / "Upstream"
    file.write_text(UPSTREAM.format(port=upstream, pki=pki))
    command = [CADDY, "run", "--config", file, "--adapter", "caddyfile"]
    with peers.program(*command, port=upstream, env=caddy.environment, stderr=subprocess.DEVNULL):
        for version, protocol in (("2", "HTTP/2.0"), ("1.1", "HTTP/1.1")):
            with caddy.running(upstream=upstream, transport=f"server_name localhost\nversion {version}"):
                assert caddy.curl("/upstream/") == ("200 2", protocol)


def test_an_upstream_with_the_wrong_name(caddy, pki):
    configuration = {"transport": "server_name wrong.example"}
    with peers.openssl(pki, "-www") as (upstream, _), caddy.running(upstream=upstream, **configuration):
        assert caddy.curl("/upstream/")[0] == "502 2"
        assert caddy.says("certificate is for another name")


def test_an_upstream_of_an_unknown_authority(caddy, tmp_path):
    other = peers.PKI(tmp_path / "other")
    with peers.openssl(other, "-www") as (upstream, _), caddy.running(upstream=upstream):
        assert caddy.curl("/upstream/")[0] == "502 2"
        assert caddy.says("no path from the certificate to a trust anchor")


# --- configuration ---


def test_a_reload_keeps_what_is_under_way(caddy):
    (caddy.files / "large").write_bytes(bytes(3 << 20))
    with caddy.running():
        for version in ("--http1.1", "--http2"):
            command = ["curl", "-sS", version, "--cacert", caddy.ca, "--limit-rate", "1M", "-w", "%{size_download}"]
            url = f"https://localhost:{caddy.port}/large"
            slow = subprocess.Popen([*command, "-o", "/dev/null", url], stdout=subprocess.PIPE, text=True)
            time.sleep(0.5)
            caddy.write(greeting=version)
            assert caddy.run("reload").returncode == 0
            assert caddy.curl("/hello", version)[1] == f"hello, {version}"
            assert slow.communicate(timeout=30) == (str(3 << 20), None)


def test_a_configuration_that_ssad_would_not_serve_is_refused(caddy, daemon):
    caddy.write(listener="certificate /no/such/file /no/such/key")
    refused = caddy.run("run")
    assert refused.returncode != 0
    assert "/no/such/file: no such file" in refused.stderr
    (daemon.mount / "credentials" / "www").rmdir()
    caddy.write()
    refused = caddy.run("run")
    assert refused.returncode != 0
    assert "there is no certificate to serve with" in refused.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"listener": "min_version ssl3"}, "min_version is tls1.2 or tls1.3"),
        ({"listener": "no_such_option"}, "ssa has no option no_such_option"),
        ({"listener": "alpn"}, "Wrong argument count"),
        ({"transport": "version 3"}, "version is one of 1.1, 2"),
        ({"transport": "client_auth require"}, "client_auth is for listeners"),
    ],
)
def test_options_that_there_are_not(caddy, options, words):
    caddy.write(**options)
    refused = caddy.run("validate")
    assert refused.returncode != 0
    assert words in refused.stderr


def test_without_ssad_it_says_so(caddy, daemon):
    daemon.kill()
    caddy.write()
    refused = caddy.run("run")
    assert refused.returncode != 0
    assert "no ssad listens at" in refused.stderr


def test_the_page_has_a_configuration_that_is_valid(caddy, pki, daemon):
    (text,) = re.findall(r"```caddyfile\n(.*?)```", (ROOT / "docs" / "go.md").read_text(), re.DOTALL)
    caddy.file.write_text(text)
    done = caddy.run("validate")
    assert (done.returncode, "Valid configuration" in done.stdout + done.stderr) == (0, True), done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="needs two users")
def test_keys_that_caddy_may_not_read(pki):
    """Caddy is nobody, to whom root has granted the certificate, and not the key."""
    with tempfile.TemporaryDirectory(prefix="ssa-caddy-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        (directory / "ssad").mkdir()
        binary = shutil.copy(CADDY, directory / "caddy")
        with Daemon(directory / "ssad", policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
            serving(daemon, pki)
            caddy = Caddy(directory, daemon)
            caddy.ca = pki.ca
            (directory / "home").mkdir()
            shutil.chown(directory / "home", NOBODY, NOBODY)
            caddy.write()
            as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
            command = [*as_nobody, binary, "run", "--config", caddy.file, "--adapter", "caddyfile"]
            refused = subprocess.run(
                command, env=caddy.environment, capture_output=True, text=True, timeout=60, check=False
            )
            assert refused.returncode != 0
            assert "this user may not serve with the administrator's certificate" in refused.stderr
            (daemon.mount / "credentials" / "www" / "users").write_text(f"{NOBODY}\n")
            with peers.program(*command, port=caddy.port, env=caddy.environment, stderr=subprocess.DEVNULL) as process:
                assert f"\nUid:\t{NOBODY}\t" in Path(f"/proc/{process.pid}/status").read_text()
                assert caddy.curl("/hello") == ("200 2", "hello, world")
