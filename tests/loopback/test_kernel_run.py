"""tools/kernel-run: what goes in and what comes out, whichever kernel it takes."""

import hashlib
import os
import random
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
TOOL = TOP / "tools" / "kernel-run"


def kernel_run(*command, cwd=TOP, **options):
    return subprocess.run([TOOL, *command], capture_output=True, cwd=cwd, timeout=60, **options)  # noqa: PLW1510 - options may say it


def test_what_goes_in_and_what_comes_out(tmp_path):
    """One start for all of it, since each is a second or two."""
    (tmp_path / "a directory" / ".git").mkdir(parents=True)
    (tmp_path / "a directory" / "within").mkdir()
    data = random.Random(1).randbytes(1 << 16)  # a pipe is slow
    script = """
        pwd; id -u; echo "$SSA_EXPECT_KTLS $GREETING"; printf '<%s>' "$@"; echo
        grep -wo tls /proc/sys/net/ipv4/tcp_available_ulp
        echo written >../file
        cat >&2
        exit 3
    """
    result = kernel_run(
        *("sh", "-c", script, "sh", "two words", "", "it's", '"*"', "line\nline"),
        cwd=tmp_path / "a directory" / "within",
        env=os.environ | {"GREETING": "a\n'b'"},
        input=data,
    )
    assert result.returncode == 3
    where, *lines = result.stdout.decode().splitlines()
    assert where == str(tmp_path / "a directory" / "within")
    assert lines == ["0", "1 a", "'b'", '<two words><><it\'s><"*"><line', "line>", "tls"]
    assert hashlib.sha256(result.stderr).digest() == hashlib.sha256(data).digest()
    assert (tmp_path / "a directory" / "file").read_text() == "written\n"


@pytest.mark.parametrize(("script", "status"), [("kill -SEGV $$", 139), ("exec /nonexistent", 127)])
def test_statuses_that_are_not_exits(script, status):
    assert kernel_run("sh", "-c", script).returncode == status


def test_an_unknown_kernel_is_refused_by_name():
    result = kernel_run("true", env=os.environ | {"KERNEL": "2.4"})
    assert (result.returncode, result.stdout) == (125, b"")
    assert b"KERNEL=2.4" in result.stderr
