"""What the tests of the libraries for PHP and Node share: how their programs are run, and what is left over."""

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path

from tests.peers import settled

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PHP = ROOT / "clients" / "php"
NODE = ROOT / "clients" / "node"
COMMANDS = {"php": ["php", "-d", "ffi.enable=1"], "node": ["node"]}

# The test kernel is slow, and what knows of no data path is tested on the host.
HOST = os.environ.get("SSA_EXPECT_KTLS") != "1"


def run(language, program, environment, *, directory, fails=False, **words):
    """Run a program's text: what it prints, a line each. It fails where it says a word on the standard error."""
    script = directory / f"program.{'php' if language == 'php' else 'js'}"
    begin = {
        "php": f"<?php require '{PHP}/autoload.php'; set_error_handler(static function (int $kind, string $text) "
        '{ if (error_reporting() & $kind) echo "warning: $text\\n"; return true; });\n',
        "node": f"const ssa = require({str(NODE)!r});\n",
    }
    script.write_text(begin[language] + program)
    done = subprocess.run(
        [*COMMANDS[language], script],
        env=os.environ | environment | {name: str(value) for name, value in words.items()},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert fails or (done.stderr, done.returncode) == ("", 0), (done.stdout, done.stderr, done.returncode)
    return done.stdout.splitlines()


def node():
    """Node's program; a machine that was set up has one."""
    found = shutil.which("node")
    assert found, "`make setup` installs Node"
    return found


@contextlib.contextmanager
def killed(daemon, tell):
    """Kill an ssad and its workers when a program writes the file `tell`."""

    def wait():
        assert settled(tell.exists, 30)
        daemon.kill()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield tell
    thread.join(10)
