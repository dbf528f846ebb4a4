"""What many threads, signals, processes and a careless program do at once: stress.c, as it is and under sanitizers."""

import itertools
import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from ssa.ktls.probe import probe
from ssa.suites import TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA
from tests import peers
from tests.interop import raw

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "build" / "native"
WHAT = re.findall(r'\{"(\w+)", \1\}', (Path(__file__).parent / "stress.c").read_text())
SANITIZERS = {
    "": {},
    "asan": {"ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1"},
    "tsan": {"TSAN_OPTIONS": "halt_on_error=1:report_signal_unsafe=0"},
}


@pytest.fixture(scope="module")
def echo(pki):
    def serve(tls, tcp):
        while data := tls.recv(65536):
            tls.sendall(data)
        tls.unwrap()

    with peers.python_server(pki, serve, ssl.TLSVersion.TLSv1_3) as port:
        yield port


def asking_echo(pki, trouble):
    """A peer that sends data back, and asks for a KeyUpdate each third time: what does not decrypt is noted."""

    def serve(connection):
        ours = raw.Raw(connection, raw.context(pki, TLSVersion.TLSv1_3, server=True), server=True)
        for number in itertools.count():
            try:
                kind, content = ours.read()
            except (EOFError, OSError):
                break
            except Exception as exc:
                trouble.append(repr(exc))
                raise
            if kind == ALERT:
                ours.send(ours.seal(content, ALERT))
                break
            ours.send(ours.seal(content) if kind == APPLICATION_DATA else b"")
            if number % 3 == 2:
                ours.send(ours.key_update(requested=True))
        trouble.append(ours.updates)

    return peers.script(serve)


@pytest.mark.skipif(not probe().rekey, reason="this kernel cannot change keys")
@pytest.mark.parametrize("path", ["ktls"])
@pytest.mark.parametrize("what", ["shared", "signals", "forks", "threads"])
def test_under_key_updates(what, pki, ssad):
    """Under one key no number comes twice, and nothing goes out under the old one."""
    noted = []
    with asking_echo(pki, noted) as port:
        assert stress("", what, port, ssad.environment) == (0, "")
    assert all(isinstance(updates, int) for updates in noted)
    assert sum(noted) > 0 or what == "forks"  # whose processes say little


def stress(build, what, port, environment, **files):
    """The exit status of a run, and what it has said."""
    command = [NATIVE / build / "tests" / "stress", what, str(port)]
    done = subprocess.run(
        command,
        env=os.environ | environment | SANITIZERS[build] | {"LIBSSA": str(NATIVE / "libssa.so")} | files,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("what", WHAT)
def test_stress(what, echo, ssad, pki):
    files = {"CERT": str(pki.cert), "KEY": str(pki.key), "CA": str(pki.ca)}
    assert stress("", what, echo, ssad.environment, **files) == (0, "")


@pytest.mark.skipif(os.environ.get("SSA_EXPECT_KTLS") == "1", reason="user-mode Linux has no room for their shadows")
@pytest.mark.parametrize("build", ["asan", "tsan"])
@pytest.mark.parametrize("what", WHAT)
def test_under_sanitizers(build, what, echo, ssad, pki):
    files = {"CERT": str(pki.cert), "KEY": str(pki.key), "CA": str(pki.ca)}
    if (build, what) in NOT_THERE:
        pytest.skip(NOT_THERE[build, what])
    assert stress(build, what, echo, ssad.environment, **files) == (0, "")


NOT_THERE = {
    ("tsan", "execs"): "head is no program of ours",
    ("asan", "execs"): "head is no program of ours",
    ("tsan", "careless"): "ThreadSanitizer tells the program's own race on the descriptor",
    ("tsan", "exhausted"): "ThreadSanitizer itself needs descriptors",
    ("asan", "exhausted"): "AddressSanitizer itself needs descriptors",
}
