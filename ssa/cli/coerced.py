"""What `ssa coerce status` finds: the libraries as they are now, and which programs go by ssa."""

from __future__ import annotations

import os
import re
import socket
from collections import Counter
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from ssa.cli import coercion, left_alone, preload_list
from ssa.cli.sealing import is_whole
from ssa.protocol import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
_TLS = re.compile(r"/lib(?:ssl|gnutls)\.so\.")
_GATE, _COERCED = "/ssa/libssa-gate.so", "/ssa/libssa-tls.so"
_PATIENCE = 3.0  # seconds for ssad


@dataclass(frozen=True, slots=True)
class Status:
    """How things are.

    Attributes:
        on: /etc/ld.so.preload names the gate.
        libraries: what is to be said of each library, by its path: "as noted", or what is wrong.
        others: the other libraries of /etc/ld.so.preload.
        daemon: ssad answers.
        left_alone: the patterns in force.
        programs: running programs, counted by name, by what they are (`KINDS`).
        problems: what breaks, and what to do about it.
    """

    on: bool
    libraries: dict[str, str]
    others: list[str]
    daemon: bool
    left_alone: list[str]
    programs: dict[str, dict[str, int]]
    problems: list[str]


KINDS = {
    "by_ssa": "use TLS by ssa",
    "ready": "will go by ssa when they use TLS",
    "left_alone": "are left alone",
    "outside": "were started before, and use OpenSSL or GnuTLS: restart them",
}


# --- the libraries -------------------------------------------------------------------------------------------------

AS_NOTED = "as noted"


def _library(path: Path, noted: str | None) -> str:
    try:
        image = path.read_bytes()
    except OSError as failure:
        return f"it cannot be read: {failure.strerror}"
    if not is_whole(image):
        return "it is not a whole library"
    if noted is None:
        return "no digest of it is noted"
    return AS_NOTED if coercion.digest(path) == noted else "it is another file than was noted"


def _libraries() -> dict[str, str]:
    noted = coercion.noted()
    places = [str(library.path) for library in coercion.libraries()]
    return {path: _library(Path(path), noted.get(path)) for path in dict.fromkeys([*places, *noted])}


# --- programs ------------------------------------------------------------------------------------------------------


def _patterns() -> list[str]:
    try:
        return left_alone.read_untrusted(coercion.LIST.read_text(errors="surrogateescape"))
    except OSError:
        return left_alone.patterns()


def is_left_alone(path: str, patterns: list[str]) -> bool:
    """True if a pattern is for the path; what is said of /usr/bin is meant for /bin too."""
    return any(
        fnmatchcase(path, pattern) or (pattern.startswith("/usr/") and fnmatchcase(path, pattern.removeprefix("/usr")))
        for pattern in patterns
    )


def _kind(maps: str, path: str, patterns: list[str]) -> str | None:
    """The group that a running program belongs to; None for one that makes no TLS."""
    if is_left_alone(path, patterns):
        return "left_alone"
    if _COERCED in maps:
        return "by_ssa"
    if _GATE in maps:
        return "ready"
    return "outside" if _TLS.search(maps) else None


def _running() -> Iterator[tuple[str, str]]:
    """The path and the mappings of the processes that may be read."""
    own = os.readlink("/proc/self/ns/mnt")  # noqa: PTH115 - its text is no path
    for process in _PROC.iterdir():
        if process.name.isdigit():
            try:
                if os.readlink(process / "ns" / "mnt") == own:  # noqa: PTH115 - as above
                    yield os.readlink(process / "exe"), (process / "maps").read_text(errors="replace")  # noqa: PTH115 - a str
            except OSError:
                continue  # it has ended, belongs to another, or is the kernel's


def _programs(patterns: list[str]) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for path, maps in _running():
        if kind := _kind(maps, path.removesuffix(" (deleted)"), patterns):
            counts[kind][Path(path).name] += 1
    return {kind: dict(sorted(count.items())) for kind, count in counts.items()}


# --- all of it -----------------------------------------------------------------------------------------------------


def daemon_answers() -> bool:
    """True if the system's ssad takes connections."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(paths.socket_path(coercion.RUN_DIR))
        except OSError:
            return False
        return True


def _problems(libraries: dict[str, str], *, daemon: bool) -> Iterator[str]:
    for path, said in libraries.items():
        if said != AS_NOTED:
            is_gate = path.endswith(_GATE)
            what = "programs go past ssa, and complain" if is_gate else "TLS of programs is refused"
            yield f"{path}: {said}: {what}: `ssa coerce on` mends it"
    if not daemon:
        yield f"no ssad answers in {coercion.RUN_DIR}: TLS of programs is refused, but of those that are left alone"


def status() -> Status:
    """Look at everything. Raises `Failure`, OSError."""
    text = coercion.read_preload()
    names = preload_list.entries(text)
    on = coercion.ENTRY in names
    libraries = _libraries() if on else {}
    daemon = daemon_answers()
    patterns = _patterns()
    return Status(
        on=on,
        libraries=libraries,
        others=[name for name in names if name != coercion.ENTRY],
        daemon=daemon,
        left_alone=patterns,
        programs=_programs(patterns),
        problems=list(_problems(libraries, daemon=daemon)) if on else [],
    )


def as_json(found: Status) -> dict[str, object]:
    """The status as a value for JSON."""
    return asdict(found)
