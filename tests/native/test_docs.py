"""The program of docs/c.md, built as that page says."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import peers

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "c.md").read_text()


@pytest.fixture(scope="module")
def hello(tmp_path_factory, libssa):
    directory = tmp_path_factory.mktemp("hello")
    (source,) = re.findall(r"```c\n(.*?)```", PAGE, re.DOTALL)
    (directory / "hello.c").write_text(source)
    (command,) = re.findall(r"^ {4}(gcc .*)$", PAGE, re.MULTILINE)
    command = command.replace("hello.c", f"{directory}/hello.c").replace(
        "-o hello", f"-Wall -Werror -o {directory}/hello"
    )
    subprocess.run(command, shell=True, check=True, cwd=ROOT, env=os.environ | {"PWD": str(ROOT)})
    return directory / "hello"


def run(hello, ssad, *arguments):
    return subprocess.run(
        [hello, *map(str, arguments)],
        env=os.environ | ssad.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_example(hello, ssad, pki):
    with peers.openssl(pki, "-www") as (port, _):
        done = run(hello, ssad, "localhost", port)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("HTTP/1.0 200 ok")
        refused = run(hello, ssad, "127.0.0.2", port)
        assert refused.returncode == 1
        assert "certificate is for another name" in refused.stderr


def test_the_functions_that_are_named_are_those_that_are_replaced(libssa):
    exported = subprocess.run(["nm", "-D", "--defined-only", libssa], capture_output=True, text=True, check=True).stdout
    replaced = {name for name in re.findall(r" T (\w+)@@GLIBC", exported) if not name.startswith("__")}
    (named,) = re.findall(r"\*\*What is replaced\*\*: (.*?)\. Each", PAGE, re.DOTALL)
    words = set(re.findall(r"\w+", named)) - {"F_DUPFD"}
    assert replaced - {"fcntl64", "sendfile64"} == words
