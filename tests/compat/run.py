"""Runs the programs of libraries.toml with the line of inject in front of them, and writes down what came of it.

    python -m tests.compat.run relay [PROGRAM...]     or: ktls, on a kernel that has it
    python -m tests.compat.run plain [PROGRAM...]     without that line and without ssad: are program and server good?

Each client meets a server with the right name in its certificate, and one with a wrong name. Each server meets a good
client, and one that offers TLS 1.1 at most. `stats/handshakes` is read before and after.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssa.errors import REASONS
from tests import peers
from tests.compat.servers import PROGRAMS, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build" / "compat"
PYTHON = BUILT / "venv" / "bin" / "python"
RESULTS = Path(__file__).parent / "results"
LINE = "import ssa; ssa.inject_into_ssl()\n"
SECONDS = 60
LONGEST = 240  # characters of what a program says

LIBRARIES: list[dict[str, Any]] = tomllib.loads((Path(__file__).parent / "libraries.toml").read_text())["library"]

# A program's trust in the throw-away authority, where ssad is not there to decide.
OWN_TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "AWS_CA_BUNDLE", "PIP_CERT")


@dataclass(frozen=True)
class Result:
    """What came of one program. `before` and `after`: `stats/handshakes`, around the run that is to work."""

    name: str
    how: str
    program: str
    version: str
    outcome: str
    before: int
    after: int
    refused: str

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Tried:
    """A good peer and a bad one: whether each was served, the handshakes counted after each, and why one was not."""

    good: bool
    after_good: int
    bad: bool
    after_bad: int
    words: str

    def outcome(self, before: int) -> str:
        """One of the words of libraries.toml, or "loosened": ssad made a handshake that it has to refuse."""
        if not self.good:
            return "refused"
        if self.after_good == before:
            return "past"
        if self.after_bad > self.after_good:
            return "loosened"
        return "plain text" if self.bad else "works"


@dataclass(frozen=True)
class Bench:
    """All that a program needs: ports of the good servers and of those with a wrong name, certificates, and ssad."""

    python: str
    pki: peers.PKI
    good: Mapping[str, int]
    wrong: Mapping[str, int]
    directory: Path
    ssad: peers.Daemon | None

    def count(self) -> int:
        return int(self.ssad.get("stats/handshakes")) if self.ssad else 0

    def file(self, program: str) -> Path:
        """The program with the line of inject in front, if there is an ssad."""
        copied = self.directory / f"{program}.py"
        copied.write_text((LINE if self.ssad else "") + (PROGRAMS / f"{program}.py").read_text())
        return copied

    def environment(self, packages: str | None) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in (*OWN_TRUST, "SSL_CERT_DIR")}
        path = [BUILT / packages] if packages else []
        if self.ssad is None:
            kept |= dict.fromkeys(OWN_TRUST, str(self.pki.ca))
        else:
            path.append(ROOT)
            kept |= self.ssad.environment
        return kept | {"PYTHONPATH": ":".join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, library: dict[str, Any]) -> Result:
        before = self.count()
        tried = (self._as_server if "client" in library else self._as_client)(library)
        return Result(
            name=library["name"],
            how=library.get("how", ""),
            program=library["program"],
            version=version(library),
            outcome=tried.outcome(before),
            before=before,
            after=tried.after_good,
            refused=tried.words,
        )

    def _as_client(self, library: dict[str, Any]) -> Tried:
        """The program meets the good server, and if that goes well the one with a wrong name."""
        good, said = self._call(library, self.good)
        after_good = self.count()
        bad = False
        if good:
            bad, said = self._call(library, self.wrong)
        after_bad = self.count()
        return Tried(good, after_good, bad, after_bad, self._words(said, bad=bad, expected=library["expect"]))

    def _words(self, said: str, *, bad: bool, expected: str) -> str:
        """Why the program was refused, in its own words; ssad's, where its own do not say. Empty if it was not."""
        own = words(said)
        if bad and expected != "plain text":
            return ""
        if expected == "past" or REASON.search(own) or self.ssad is None:
            return own
        reasons = re.findall(r"reason=(\w+)", self.ssad.log)
        return f"{'' if bad else own + '; '}ssad's log: {reasons[-1]}" if reasons else own

    def _call(self, library: dict[str, Any], ports: Mapping[str, int]) -> tuple[bool, str]:
        command = [self.python, self.file(library["program"]), str(ports[library["server"]]), self.pki.ca]
        environment = self.environment(library.get("packages"))
        try:
            done = subprocess.run(
                command,
                cwd=self.directory,
                env=environment,
                timeout=SECONDS,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            return False, f"{(late.output or b'').decode()}\nit did not end within {SECONDS} s"
        return done.returncode == 0, done.stdout

    def _as_server(self, library: dict[str, Any]) -> Tried:
        """The program, a server, meets a good client, and if that goes well one of TLS 1.1."""
        port = peers.free_port()
        command = (self.python, self.file(library["program"]), port, self.pki.cert, self.pki.key)
        log = self.directory / f"{library['program']}.log"
        environment = self.environment(library.get("packages"))
        with log.open("wb") as output:
            streams = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": subprocess.STDOUT}
            try:
                with peers.program(
                    *command, port=port, seconds=SECONDS, cwd=self.directory, env=environment, **streams
                ):
                    good = CLIENTS[library["client"]](self.pki, port)
                    after_good = self.count()
                    refusal = offers_tls_1_1(library["client"], port) if good else words(log.read_text())
            except RuntimeError:  # it did not get so far as to serve
                return Tried(good=False, after_good=self.count(), bad=False, after_bad=0, words=words(log.read_text()))
        return Tried(good, after_good, not refusal, self.count(), refusal)


def version(library: dict[str, Any]) -> str:
    """The pinned version, or Python's for what comes with it."""
    if "distribution" not in library:
        return f"Python {sys.version_info.major}.{sys.version_info.minor}"
    packages = library.get("packages")
    names = ("requirements.txt",) if packages is None else (f"requirements-{packages}.txt", "requirements.txt")
    for name in names:
        for line in (Path(__file__).parent / name).read_text().splitlines():
            distribution, _, pinned = line.partition("==")
            if distribution.lower() == library["distribution"].lower():
                return pinned
    raise LookupError(library["distribution"])


REASON = re.compile(r"\b(" + "|".join(REASONS) + r")\b|certificate")
# What differs from run to run: ports, addresses in memory, the numbers of errors, the names of certificates.
PASSING = {
    r"/tmp/ssa-compat-\w+/programs/": "",
    r"0x[0-9a-f]+": "0x..",
    r"(localhost|127\.0\.0\.1|port)([\"']?[:,=]? ?|/)\d{4,5}": r"\1\2PORT",
    r"\. Connect by a name that the certificate is for": "",
    r"OU=Testing (cert|CA) #[\w-]+,O=trustme [\w.]+": "CN=..",
}


def words(said: str) -> str:
    """The line that says why: the last one with a reason, or else the last one; without what differs between runs."""
    lines = [line.strip() for line in said.splitlines() if re.search(r"\w", line)] or [""]
    line = ([line for line in lines if REASON.search(line)] or lines)[-1]
    for passing, lasting in PASSING.items():
        line = re.sub(passing, lasting, line)
    return line if len(line) <= LONGEST else line[:LONGEST] + "..."


def curl(pki: peers.PKI, port: int) -> bool:
    command = ("curl", "--silent", "--fail", "--max-time", "20", "--cacert", pki.ca, f"https://localhost:{port}/")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() == "hello over https"


def starttls(pki: peers.PKI, port: int) -> bool:
    """OpenSSL's client, with STARTTLS."""
    return smtps(pki, port, "-starttls", "smtp")


def s_client(port: int, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    command = ("openssl", "s_client", "-connect", f"localhost:{port}", "-servername", "localhost", *arguments)
    return subprocess.run([*map(str, command)], input=b"QUIT\r\n", capture_output=True, timeout=SECONDS, check=False)


def websocket(pki: peers.PKI, port: int) -> bool:
    """curl, which sees the answer to the request for a WebSocket."""
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    headers = [
        f"-H{name}: {value}" for name, value in (upgrade | {"Sec-WebSocket-Key": "c3NhIHNzYSBzc2Egc3NhIQ=="}).items()
    ]
    command = ("curl", "--silent", "--http1.1", "--max-time", "2", "--include", "--cacert", pki.ca, *headers)
    done = subprocess.run([*command, f"https://localhost:{port}/"], capture_output=True, check=False)
    return b" 101 " in done.stdout


def smtps(pki: peers.PKI, port: int, *arguments: str) -> bool:
    """OpenSSL's client."""
    done = s_client(port, "-CAfile", pki.ca, *arguments)
    return b"BEGIN CERTIFICATE" in done.stdout and b"Verify return code: 0 (ok)" in done.stdout


CLIENTS = {"https": curl, "smtp": starttls, "smtps": smtps, "websocket": websocket}


def offers_tls_1_1(client: str, port: int) -> str:
    """What a client is told that offers TLS 1.1 at most; nothing, if it is served."""
    first = ("-starttls", "smtp") if client == "smtp" else ()
    done = s_client(port, "-tls1_1", "-cipher", "ALL@SECLEVEL=0", *first)
    found = re.search(rb"SSL routines:[^:]*:([^:]*):", done.stderr)
    return "" if done.returncode == 0 else found[1].decode() if found else "the connection ends"


@contextlib.contextmanager
def bench(libraries: list[dict[str, Any]], python: str, path: str, directory: Path) -> Iterator[Bench]:
    """ssad, unless the path is "plain", and the servers that these libraries meet, twice."""
    pki = peers.PKI(directory / "pki")
    other = copy.copy(pki)
    other.cert, other.key = pki.issue("other", "other.test")
    protocols = {library["server"] for library in libraries if "server" in library}
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "{path}"\n'
    with contextlib.ExitStack() as stack:
        good = stack.enter_context(serving(protocols, pki, directory / "good", python))
        wrong = stack.enter_context(serving(protocols, other, directory / "wrong", python, good=False))
        ssad = None if path == "plain" else stack.enter_context(peers.Daemon(directory, policy=policy))
        copies = directory / "programs"
        copies.mkdir()
        yield Bench(python, pki, good, wrong, copies, ssad)


def keep(file: Path, results: list[Result]) -> None:
    """Write the results down, in the order of libraries.toml. A program that did not run keeps its former result."""
    file.parent.mkdir(exist_ok=True)
    former = [Result(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    kept = {(result.name, result.how): result.line for result in [*former, *results]}
    order = [(library["name"], library.get("how", "")) for library in LIBRARIES]
    file.write_text("".join(kept[key] for key in order if key in kept))


def main() -> int:
    """Run them; the status says whether each did what was expected of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.compat.run")
    parser.add_argument("path", choices=["relay", "ktls", "plain"])
    parser.add_argument("programs", nargs="*")
    arguments = parser.parse_args()
    chosen = [one for one in LIBRARIES if not arguments.programs or one["program"] in arguments.programs]
    results, unexpected = [], 0
    with (
        tempfile.TemporaryDirectory(prefix="ssa-compat-") as directory,
        bench(chosen, str(PYTHON), arguments.path, Path(directory)) as ready,
    ):
        for library in chosen:
            result = ready.run(library)
            results.append(result)
            as_expected = result.outcome == library["expect"] or arguments.path == "plain"
            unexpected += not as_expected
            print("  " if as_expected else "! ", result.line, sep="", end="", flush=True)
    if arguments.path != "plain":
        keep(RESULTS / f"{arguments.path}.jsonl", results)
    print(f"{len(results)} programs, {unexpected} of them did not do what was expected")
    return min(unexpected, 1)


if __name__ == "__main__":
    sys.exit(main())
