"""Small programs under inject, each in a process of its own that is forked from one that has imported all they need."""

import json
import os
import subprocess
import sys
import traceback
from pathlib import Path

SERVER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
import ssa; ssa.inject_into_ssl()
import asyncio, ssl, socket, gc, threading
from tests.programs import serve
serve()
"""


class Programs:
    """Starts the process at the first program."""

    def __init__(self):
        self._process = None

    def run(self, script, *arguments, timeout=30, fails=False, **environment):
        """What a program prints, line by line. What it says on the standard error comes behind."""
        if self._process is None:
            command = [sys.executable, "-P", "-W", "ignore", "-c", SERVER]
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd="/tmp")
        environment = dict(os.environ) | {name: str(value) for name, value in environment.items()}
        asked = {"script": script, "arguments": list(map(str, arguments)), "environment": environment}
        self._process.stdin.write(json.dumps(asked | {"timeout": timeout}).encode() + b"\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        assert fails == (told["status"] != 0), told
        return told["text"].splitlines()

    def close(self):
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(10)


def serve():
    """Fork for each program that comes."""
    for line in sys.stdin.buffer:
        asked = json.loads(line)
        output = os.memfd_create("output")
        child = os.fork()
        if not child:
            _be(asked, output)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = os.pread(output, 1 << 20, 0).decode(errors="replace").strip()
        os.close(output)
        sys.stdout.write(json.dumps({"status": status, "text": text}) + "\n")
        sys.stdout.flush()


def _be(asked, output):
    import faulthandler
    import signal

    status = 1
    try:
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        faulthandler.dump_traceback_later(asked["timeout"] - 1)
        signal.alarm(asked["timeout"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.argv = ["program", *asked["arguments"]]
        sys.stdout.reconfigure(line_buffering=True)
        exec(compile(asked["script"], "<program>", "exec"), {"__name__": "__main__"})
        status = 0
    except SystemExit as exc:
        status = int(exc.code or 0)
    except BaseException:  # noqa: BLE001 - as the interpreter does it
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
