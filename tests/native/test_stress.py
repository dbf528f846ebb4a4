"""What many threads, signals, processes and a careless program do at once: stress.c, as it is and under sanitizers."""

import os
import re
import ssl
import subprocess
from pathlib import Path

import pytest

from tests import peers

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "build" / "native"
WHAT = re.findall(r'\{"(\w+)", \w+\}', (Path(__file__).parent / "stress.c").read_text())
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


def stress(build, what, port, environment):
    """The exit status of a run, and what it has said."""
    command = [NATIVE / build / "tests" / "stress", what, str(port)]
    done = subprocess.run(
        command,
        env=os.environ | environment | SANITIZERS[build] | {"LIBSSA": str(NATIVE / "libssa.so")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize("what", WHAT)
def test_stress(what, echo, ssad):
    assert stress("", what, echo, ssad.environment) == (0, "")


@pytest.mark.skipif(os.environ.get("SSA_EXPECT_KTLS") == "1", reason="user-mode Linux has no room for their shadows")
@pytest.mark.parametrize("build", ["asan", "tsan"])
@pytest.mark.parametrize("what", WHAT)
def test_under_sanitizers(build, what, echo, ssad):
    if (build, what) in NOT_THERE:
        pytest.skip(NOT_THERE[build, what])
    assert stress(build, what, echo, ssad.environment) == (0, "")


NOT_THERE = {
    ("tsan", "execs"): "head is no program of ours",
    ("asan", "execs"): "head is no program of ours",
    ("tsan", "careless"): "ThreadSanitizer tells the program's own race on the descriptor",
    ("tsan", "exhausted"): "ThreadSanitizer itself needs descriptors",
    ("asan", "exhausted"): "AddressSanitizer itself needs descriptors",
}
