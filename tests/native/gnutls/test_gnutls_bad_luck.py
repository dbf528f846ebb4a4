"""No daemon, one that dies; signals, forks, few descriptors; peers that say nothing; what the sanitizers see."""

import os
import subprocess
import time

import pytest

from tests.native.conftest import ROOT
from tests.native.gnutls.test_gnutls_calls import calls, echo, program_of
from tests.native.openssl.conftest import counted, run
from tests.peers import Daemon, script

__all__ = ["echo"]


@pytest.fixture(scope="session")
def silent():
    with script(lambda connection: time.sleep(20)) as port:
        yield port


def test_without_a_daemon_nothing_goes_in_plain_or_by_gnutls(ssad, serving, tmp_path):
    command = ["wget", "-nv", "-O", "-", f"https://localhost:{serving('web')}/hello"]
    done = run(ssad, command, SSA_RUN_DIR=str(tmp_path))
    assert done.returncode == 4
    assert not done.stdout
    assert f"no ssad listens at {tmp_path}/ssad.sock".encode() in done.stderr


def test_without_a_daemon_nothing_is_left_to_gnutls(ssad, echo, tmp_path):
    (said,) = calls(ssad, echo, "anonymous", SSA_RUN_DIR=str(tmp_path))
    assert "no ssad listens" in said


def test_a_daemon_that_dies_in_the_middle(preload, serving, pki, everybodys):
    directory = everybodys / "dies"
    directory.mkdir()
    with Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as ssad:
        environment = os.environ | ssad.environment | {"LD_PRELOAD": preload}
        command = ["wget", "-nv", "--tries=1", "--limit-rate=4M", "-O", "/dev/null"]
        command.append(f"https://localhost:{serving('web')}/big")
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as wget:
            time.sleep(1)
            ssad.kill()
            _, said = wget.communicate(timeout=20)
        assert wget.returncode, said
        refused = subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False)
        assert b"no ssad listens" in refused.stderr


def test_a_peer_that_says_nothing(ssad, silent, echo):
    assert calls(ssad, silent, "handshake-timeout") == ["timed out", "it ended in time"]
    assert calls(ssad, echo, "record-timeout") == ["timed out", "it ended in time", "echo: still there"]


def test_a_signal_ends_a_read(ssad, echo):
    assert calls(ssad, echo, "signal") == ["interrupted", "it came in time", "echo: still there"]


def test_a_fork_in_the_handshake_and_behind_it(ssad, echo):
    assert calls(ssad, echo, "fork") == ["echo: the child", "echo: the parent"]


def test_no_descriptor_is_left(ssad, echo):
    handshake, later = calls(ssad, echo, "few-descriptors")
    assert handshake == "handshake: Too many open files"
    assert later == "echo: later"


@pytest.mark.parametrize("what", ["report", "nonblocking", "threads", "many", "fork", "corked", "verify-function"])
@pytest.mark.parametrize("sanitizer", ["asan", "tsan"])
def test_the_sanitizers_see_nothing(ssad, echo, sanitizer, what):
    library = ROOT / "build" / "native" / sanitizer / "libssa-gnutls.so"
    if not library.exists():
        pytest.fail("`make native-sanitized` makes it")
    runtime = subprocess.check_output(["gcc", f"-print-file-name=lib{sanitizer}.so"], text=True).strip()
    environment = {"LD_PRELOAD": f"{runtime} {library}", "ASAN_OPTIONS": "detect_leaks=0:exitcode=99"}
    quiet = "exitcode=99:ignore_noninstrumented_modules=1"
    made = counted(ssad)[0]
    done = run(ssad, [program_of(what), "localhost", echo, what], TSAN_OPTIONS=quiet, **environment)
    assert counted(ssad)[0] > made
    assert done.returncode == 0, done.stderr.decode()
    assert b"Sanitizer" not in done.stderr
