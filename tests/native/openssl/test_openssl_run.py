"""`ssa run`: the program in its place, with its own arguments, status, signals and terminal."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.openssl.conftest import counted

SSA = [sys.executable, "-m", "ssa.cli.main", "run"]


@pytest.fixture
def ssa_run(ssad):
    """`ssa run` as a function."""
    environment = os.environ | {name: value for name, value in ssad.environment.items() if name != "LD_PRELOAD"}

    def run(*words, **options):
        command = [*SSA, *(str(word) for word in words)]
        options.setdefault("env", environment)
        return subprocess.run(command, capture_output=True, timeout=60, check=False, **options)

    return run


def test_a_program_is_coerced(ssad, ssa_run, serving):
    made = counted(ssad)[0]
    done = ssa_run("curl", "-sS", f"https://localhost:{serving('web')}/hello")
    assert done.stdout == b"hello from the web\n", done.stderr
    assert counted(ssad)[0] == made + 1


def test_a_refusal_is_said_unless_quiet(ssa_run, serving):
    words = (
        "curl",
        "-s",
        "--resolve",
        "wrong.test:1:127.0.0.1",
        "https://wrong.test:1/",
        "--connect-to",
        f"::localhost:{serving('web')}",
    )
    done = ssa_run(*words)
    assert done.returncode == 60
    assert done.stderr.startswith(b"ssa: certificate is for another name")
    assert ssa_run("--quiet", *words).stderr == b""


def test_its_arguments_and_its_status_are_its_own(ssa_run):
    done = ssa_run("sh", "-c", 'printf "%s|" "$@"; exit 7', "--list", "--help", "a b", "--", "--json")
    assert (done.returncode, done.stdout) == (7, b"--help|a b|--|--json|")


def test_its_signals_are_its_own(ssa_run):
    assert ssa_run("sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM
    ignored = ssa_run("grep", "SigIgn", "/proc/self/status").stdout.split()[1]
    plain = subprocess.run(["grep", "SigIgn", "/proc/self/status"], capture_output=True, check=True).stdout.split()[1]
    assert ignored == plain


def test_it_has_the_same_process(ssad, ssa_run):
    command = [*SSA, "sh", "-c", "echo $$"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | ssad.environment) as process:
        assert int(process.stdout.read()) == process.pid


@pytest.mark.parametrize(
    ("program", "status", "words"),
    [
        ("no-such-program", 127, b"there is no such program"),
        ("/etc/passwd", 127, b"there is no such program"),
    ],
)
def test_what_cannot_be_run(ssa_run, program, status, words):
    done = ssa_run(program)
    assert done.returncode == status
    assert words in done.stderr


def test_a_static_program_is_refused(ssa_run, tmp_path):
    (tmp_path / "static.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-static", "-o", tmp_path / "static", tmp_path / "static.c"], check=True)
    done = ssa_run(tmp_path / "static")
    assert done.returncode == 126
    assert b"linked statically" in done.stderr


def test_a_program_with_its_own_tls_is_refused(ssa_run):
    refused = ssa_run("node", "-e", "console.log('hello')")
    assert (refused.returncode, refused.stdout) == (126, b"")
    assert b"ssa: node would go on without ssa: it has a TLS library of its own in it" in refused.stderr
    warned = ssa_run("--seccomp", "node", "-e", "console.log('hello')")
    assert (warned.returncode, warned.stdout) == (0, b"hello\n")
    assert b"--seccomp leaves them alone" in warned.stderr
    plain = ssa_run("--tls", "node", "-e", "console.log('hello')")
    assert (plain.returncode, plain.stdout, plain.stderr) == (0, b"hello\n", b"")


def test_a_program_of_musls_is_refused(ssad, ssa_run, tmp_path):
    (tmp_path / "hello.c").write_text('#include <stdio.h>\nint main(void) { return puts("hello") < 0; }\n')
    hello = tmp_path / "hello"
    subprocess.run(["musl-gcc", "-o", hello, tmp_path / "hello.c"], check=True)
    refused = ssa_run(hello)
    assert (refused.returncode, refused.stdout) == (126, b"")
    assert b"its dynamic linker is /lib/ld-musl" in refused.stderr
    assert b"libssa-tls.so needs glibc's" in refused.stderr
    # Without `ssa run`: it is not started, as musl's linker says.
    preloaded = subprocess.run([hello], env=os.environ | ssad.environment, capture_output=True, timeout=60, check=False)
    assert (preloaded.returncode, preloaded.stdout) == (127, b"")
    assert b"symbol not found" in preloaded.stderr


def test_what_is_preloaded_already_stays(ssa_run, ssad):
    environment = os.environ | ssad.environment | {"LD_PRELOAD": "libm.so.6"}
    shown = ssa_run("sh", "-c", "echo $LD_PRELOAD", env=environment).stdout.decode().split()
    assert [Path(path).name for path in shown] == ["libssa-tls.so", "libm.so.6"]


def test_the_list(ssa_run):
    listed = json.loads(ssa_run("--list", "--json").stdout)
    assert {way["name"] for way in listed["ways"]} == {program["way"] for program in listed["programs"]}
    assert b"curl" in ssa_run("--list").stdout
