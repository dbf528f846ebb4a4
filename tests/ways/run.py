"""Runs each program by each way, and writes down what came of it: `python -m tests.ways.run relay`, or ktls.

Every client is told not to verify its server, and meets two: one with the right name in its certificate, and one with a
wrong name. So what goes past ssa shows: it is served by both, and ssad has counted no handshake.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import types
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests import peers
from tests.tables import ROOT
from tests.ways.programs import HOST, PROGRAMS, WAYS, Program

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS = Path(__file__).parent / "results"
SECONDS = 30
LONGEST = 200  # characters of what a program says


@dataclass(frozen=True)
class Result:
    """What came of a program by a way.

    Attributes:
        outcome: "works", "refused", "past" (it had its TLS, and ssad knew nothing), or "loosened" (ssad has made a
            handshake that it has to refuse).
        words: why it was refused; for one that works, why the server with the wrong name was.
    """

    name: str
    serves: bool
    way: str
    outcome: str
    words: str

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def page(tls: ssl.SSLSocket, _tcp: socket.socket) -> None:
    request = b""
    while b"\r\n\r\n" not in request and b"\n\n" not in request:
        more = tls.recv(65536)
        request += more
        if not more or not request[:1].isalpha():  # a ClientHello, say
            return
    body = b"hello\n"
    if b"info/refs" in request.partition(b"\r\n")[0]:
        body = f"{'1' * 40}\trefs/heads/hello\n".encode()
    kind = b"application/octet-stream"
    tls.sendall(b"HTTP/1.0 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s" % (kind, len(body), body))
    with contextlib.suppress(OSError):
        tls.unwrap()


_FIELD = re.compile(r"\{(host|port|url|plain|cert|key|directory)\}")


@dataclass(frozen=True)
class Bench:
    """All that the programs need."""

    pki: peers.PKI
    ssad: peers.Daemon
    directory: Path
    good: int
    wrong: int
    seen: list[int] = field(default_factory=lambda: [0])  # of ssad's log, in characters

    def count(self) -> int:
        return int(self.ssad.get("stats/handshakes"))

    def environment(self) -> dict[str, str]:
        """Go's own verification knows the authority: else it would be what refuses."""
        return os.environ | self.ssad.environment | {"SSL_CERT_FILE": str(self.pki.ca), "LC_ALL": "C.UTF-8"}

    def run(self, program: Program, way: str) -> Result:
        outcome, words = (self._as_server if program.serves else self._as_client)(program, way)
        return Result(program.name, program.serves, way, outcome, words)

    def _command(self, program: Program, way: str, port: int) -> list[str]:
        values = {
            "host": HOST,
            "port": port,
            "url": f"https://{HOST}:{port}/hello",
            "plain": f"http://{HOST}:{port}/hello",
            "cert": self.pki.cert,
            "key": self.pki.key,
            "directory": self.directory,
        }
        return [*WAYS[way].words, *(_FIELD.sub(lambda found: str(values[found[1]]), word) for word in program.words)]

    # --- clients ---

    def _as_client(self, program: Program, way: str) -> tuple[str, str]:
        before = self.count()
        self.seen[0] = len(self.ssad.log)
        served, said = self._fetch(program, way, self.good)
        counted = self.count()
        if not served:
            return "refused", self._with_reason(said) if self.count() == before else said
        served, said = self._fetch(program, way, self.wrong)
        if self.count() > counted:
            return "loosened", said
        if counted == before:
            return "past", ""
        return ("loosened", "") if served else ("works", said)

    def _fetch(self, program: Program, way: str, port: int) -> tuple[bool, str]:
        try:
            done = subprocess.run(
                self._command(program, way, port),
                env=self.environment(),
                input=program.given.encode(),
                capture_output=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False, f"it does not end within {SECONDS} s"
        return b"hello" in done.stdout, words(done.stderr + b"\n" + done.stdout, port)

    def _with_reason(self, said: str) -> str:
        """ssad's reason, where the program does not say what ssa says."""
        reasons = re.findall(r"reason=(\w+)", self.ssad.log[self.seen[0] :])
        self.seen[0] = len(self.ssad.log)
        return f"{said}; ssad's log: {reasons[-1]}" if reasons and not _OURS.search(said) else said

    # --- servers ---

    def _as_server(self, program: Program, way: str) -> tuple[str, str]:
        before, port = self.count(), peers.free_port()
        self.seen[0] = len(self.ssad.log)
        self._configure(port)
        log = self.directory / "log"
        with log.open("wb") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            command = self._command(program, way, port)
            where = {"cwd": self.directory, "env": self.environment()}
            try:
                with peers.program(*command, port=port, seconds=SECONDS, **where, **streams):
                    served, said = self._ask(port)
            except RuntimeError:  # it did not get so far as to serve
                served, said = False, ""
        if not served:
            said = words(log.read_bytes(), port) or words(said.encode(), port)
            return "refused", self._with_reason(said)
        return ("works" if self.count() > before else "past"), ""

    def _configure(self, port: int) -> None:
        values = {"port": port, "directory": self.directory, "cert": self.pki.cert, "key": self.pki.key}
        (self.directory / "nginx.conf").write_text(peers.NGINX.format(also="", extra="", **values))
        (self.directory / "lighttpd.conf").write_text(peers.LIGHTTPD.format(address="127.0.0.1", extra="", **values))

    def _ask(self, port: int) -> tuple[bool, str]:
        context = ssl.create_default_context(cafile=str(self.pki.ca))
        try:
            with (
                socket.create_connection(("127.0.0.1", port), SECONDS) as tcp,
                context.wrap_socket(tcp, server_hostname="localhost") as tls,
            ):
                tls.sendall(b"GET /hello HTTP/1.0\r\nHost: localhost\r\n\r\n")
                return b"200" in tls.recv(65536), ""
        except OSError as failure:
            return False, str(failure)


# What is another at each run: numbers of throw-away certificates, of threads and of processes; times.
_CHANGING = re.compile(
    r"(?<=leaf )\S.*?(?= is for )|\b[0-9A-F]{12,}:|\bpid \d+|\[\d+\]"
    r"|\d{4}[-/]\d\d[-/]\d\d \d\d:\d\d:\d\d(\.\d+)?:? ?"
)
_OURS = re.compile(r"\bssa: |certificate is for another name|would go on without ssa")


def words(said: bytes, port: int) -> str:
    """The line that says why: ssa's own, else the last one."""
    text = _CHANGING.sub("", said.decode(errors="replace").replace(str(port), "PORT").replace(f"{ROOT}/", ""))
    lines = [re.sub(" +", " ", line).strip() for line in text.splitlines() if line.strip()]
    ours = [line for line in lines if _OURS.search(line)]
    return (ours[:1] or lines[-1:] or [""])[0][:LONGEST]


@contextlib.contextmanager
def benches(path: str) -> Iterator[Bench]:
    top = Path(tempfile.mkdtemp(prefix="ssa-ways-", dir="/tmp"))
    top.chmod(0o755)
    pki = peers.PKI(top / "pki")
    cert, key = pki.issue("wrong", "wrong.test")
    wrong = types.SimpleNamespace(cert=cert, key=key)
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "{path}"\nhandshake_timeout = 20\n'
    directory = top / "served"
    directory.mkdir()
    (directory / "hello").write_text("hello\n")
    (directory / "reply").write_text("HTTP/1.0 200 OK\r\n\r\nhello\n")
    with (
        peers.Daemon(top, policy=policy) as ssad,
        peers.python_server(pki, page) as good_port,
        peers.python_server(wrong, page) as wrong_port,
    ):
        credential = ssad.mount / "credentials" / "ways"
        credential.mkdir()
        shutil.copyfile(pki.cert, credential / "certificate")
        shutil.copyfile(pki.key, credential / "key")
        yield Bench(pki, ssad, directory, good_port, wrong_port)
    shutil.rmtree(top, ignore_errors=True)


def _with_the_name(arguments: list[str]) -> None:
    """Become this program again, in a mount namespace whose /etc/hosts has the name."""
    with tempfile.NamedTemporaryFile("w", prefix="ssa-hosts-", delete=False) as hosts:
        hosts.write(f"127.0.0.1 localhost {HOST}\n")
    os.chmod(hosts.name, 0o644)
    script = 'mount --bind "$0" /etc/hosts && rm "$0" && exec "$@"'
    again = [sys.executable, "-m", "tests.ways.run", *arguments]
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, hosts.name, *again])


def main(arguments: list[str]) -> int:
    """Run all programs on a data path, or those that are named, which are printed only."""
    if HOST not in Path("/etc/hosts").read_text():
        _with_the_name(arguments)
    path, *names = arguments
    results, unexpected = [], 0
    with benches(path) as bench:
        for program in PROGRAMS:
            for way in program.ways if not names or program.name in names else ():
                result = bench.run(program, way)
                results.append(result)
                as_expected = result.outcome == program.expected(way, path)
                unexpected += not as_expected
                print("" if as_expected else "UNEXPECTED ", result.line, sep="", end="", flush=True)  # noqa: T201 - progress
    if not names:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{path}.jsonl").write_text("".join(result.line for result in results), encoding="utf-8")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
