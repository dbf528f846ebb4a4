"""What `ssa coerce` does to the machine's files: libraries, the list of programs to leave alone, /etc/ld.so.preload.

Every program of the machine is at stake, so: a file takes its place by rename(2), when it is whole and on the disk; the
last one is /etc/ld.so.preload, when a trial has shown that programs start with the library; and it is put back if they
do not start with it then. Whoever is killed in between leaves the machine as it was, or as it was to be.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssa.cli import left_alone, preload_list
from ssa.cli.failure import Failure
from ssa.cli.preloading import dynamic_linker
from ssa.cli.sealing import sealed
from ssa.policy.files import sync_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

PRELOAD = Path("/etc/ld.so.preload")
LIST = Path("/etc/ssa/leave-alone")  # clients/c/coerce/leave_alone.c
ENTRY = "/usr/$LIB/ssa/libssa-gate.so"  # ld.so(8): $LIB is another directory for 32-bit programs
COERCED = Path("/usr/lib/ssa/libssa-tls.so")  # clients/c/coerce/gate.c
RUN_DIR = "/run/ssa"  # the system's ssad
NOTES = COERCED.with_name("coerce.sha256")  # as sha256sum(1) writes and checks it
_LINKER_32 = "/lib/ld-linux.so.2"
_LIBRARIES = ("libssa-gate.so", "libssa-gate-32.so", "libssa-tls.so")
_PATIENCE = 20.0  # seconds for a trial
_NEW = ".ssa-new"  # the end of a name that is not in its place yet
_DIRECTORY, _READABLE = 0o755, 0o644


class Library(NamedTuple):
    """A library of ours, and where it goes."""

    name: str
    path: Path


# --- where the libraries go ----------------------------------------------------------------------------------------


def _dst_lib(linker: str) -> str | None:
    """The directory that a dynamic linker puts for $LIB; None if it does not run, or tells nothing (as before 2.33)."""
    try:
        told = subprocess.run(  # noqa: S603 - the machine's own
            [linker, "--list-diagnostics"], capture_output=True, text=True, check=False, timeout=_PATIENCE, env={}
        )
    except OSError:
        return None
    found = re.search(r'^dl_dst_lib="([^"]+)"$', told.stdout, re.MULTILINE)
    return found[1] if found else None


def libraries() -> list[Library]:
    """Our libraries, and their places on this machine; what programs need first is last. Raises `Failure`."""
    with open(sys.executable, "rb") as program:  # noqa: PTH123 - it is a str
        linker = dynamic_linker(program)
    lib = _dst_lib(linker) if linker else None
    if os.uname().machine != "x86_64" or lib is None:
        raise Failure("this needs an x86-64 machine with glibc 2.33 or later: no other is supported")
    lib_32 = _dst_lib(_LINKER_32)
    others = [Library("libssa-gate-32.so", _gate(lib_32))] if lib_32 and lib_32 != lib else []
    return [Library("libssa-tls.so", COERCED), *others, Library("libssa-gate.so", _gate(lib))]


def _gate(lib: str) -> Path:
    return Path(ENTRY.replace("$LIB", lib))


def digest(path: Path) -> str | None:
    """The SHA-256 of a file; None if it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def _notes(images: dict[Path, bytes]) -> bytes:
    return "".join(f"{hashlib.sha256(image).hexdigest()}  {path}\n" for path, image in images.items()).encode()


def noted() -> dict[str, str]:
    """The SHA-256 of the libraries that `turn_on` has installed, by path."""
    try:
        lines = NOTES.read_text(errors="replace").split("\n")
    except OSError:
        return {}
    return {path: digest for digest, mark, path in (line.partition("  ") for line in lines) if mark}


# --- files ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Keep others out: one `ssa coerce` at a time. Raises `Failure` for a user other than root."""
    if os.geteuid():
        raise Failure("only root can change what every program of this machine loads: run it as root")
    COERCED.parent.mkdir(_DIRECTORY, parents=True, exist_ok=True)
    directory = os.open(COERCED.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _directory(path: Path) -> None:
    """Make a directory that everybody can enter, whatever the umask."""
    if not path.is_dir():
        _directory(path.parent)
        path.mkdir(exist_ok=True)
        path.chmod(_DIRECTORY)


def put(path: Path, content: bytes, mode: int = _READABLE) -> None:
    """Put a file in its place: whole, and on the disk, or not at all. Raises OSError."""
    _directory(path.parent)
    new = path.with_name(path.name + _NEW)
    new.unlink(missing_ok=True)
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def read_preload() -> str:
    """The text of /etc/ld.so.preload; "" where there is no such file."""
    try:
        return os.fsdecode(PRELOAD.read_bytes())
    except FileNotFoundError:
        return ""


def _write_preload(text: str) -> None:
    """Replace /etc/ld.so.preload, or what it links to. An empty one is removed."""
    path = Path(os.path.realpath(PRELOAD))
    if not text:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
        return
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        mode = _READABLE
    put(path, os.fsencode(text), mode)


# --- trials --------------------------------------------------------------------------------------------------------


def _trial(command: list[str], environment: dict[str, str]) -> str:
    """Start a program. Returns the fault of its start; "" if it ends well and says nothing."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE, env=environment)  # noqa: S603 - ours
    except (OSError, subprocess.TimeoutExpired) as failure:
        return str(failure)
    said = os.fsdecode(done.stderr).strip()
    return said or (f"{command[0]} ends with status {done.returncode}" if done.returncode else "")


def _start(environment: dict[str, str]) -> str:
    return _trial([shutil.which("true") or "/bin/true"], environment)


def _try(gate: Path) -> None:
    """Raises `Failure` if programs do not start with the libraries, or cannot load them."""
    load = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], os.RTLD_NOW)"
    if why := _start({"LD_PRELOAD": str(gate)}) or _trial([sys.executable, "-I", "-c", load, str(COERCED)], {}):
        raise Failure(f"a trial has failed, so {PRELOAD} was not changed: {why}")


def _check_others() -> None:
    """Raises `Failure` if programs complain of other libraries: what is ours could not be told from it."""
    if ENTRY not in preload_list.entries(read_preload()) and (why := _start({})):
        raise Failure(f"{PRELOAD} was not changed: programs complain already: {why}")


# --- on and off ----------------------------------------------------------------------------------------------------


def turn_on(sources: Path) -> list[Library]:
    """Install the libraries of a directory, and have every program load the gate. What is installed.

    Raises:
        Failure: a library is missing, or a trial has failed.
        OSError: a file cannot be written.
    """
    with alone(), _said_whole():
        _check_others()
        places = libraries()
        images = {library.path: _image(sources / library.name) for library in places}
        for path, image in images.items():
            if digest(path) != hashlib.sha256(image).hexdigest():
                put(path, image)
        if not LIST.exists():
            put(LIST, left_alone.text().encode())
        put(NOTES, _notes(images))
        _try(places[-1].path)
        before = read_preload()
        after = preload_list.with_ours(before, ENTRY)
        if before != after:
            _write_preload(after)
        if why := _start({}):
            _write_preload(before)
            raise Failure(f"programs did not start well, so {PRELOAD} is as it was: {why}")
        return places


def turn_off() -> bool:
    """Have programs load the gate no more. False if they did not. Raises `Failure`, OSError."""
    with alone(), _said_whole():
        before = read_preload()
        after = preload_list.without_ours(before, ENTRY)
        if before != after:
            _write_preload(after)
        return before != after


_WHY = {
    errno.EROFS: "the file system is read-only",
    errno.ENOSPC: "the file system is full",
    errno.EBUSY: "another file is mounted on it",
}


@contextlib.contextmanager
def _said_whole() -> Iterator[None]:
    """Say with a system's error what has become of /etc/ld.so.preload."""
    before = read_preload()
    try:
        yield
    except OSError as failure:
        why = _WHY.get(failure.errno or 0, failure.strerror or str(failure))
        became = "was not changed" if read_preload() == before else "was changed, and may not be on the disk yet"
        raise Failure(f"{failure.filename or PRELOAD}: {why}: {PRELOAD} {became}") from failure


def _image(path: Path) -> bytes:
    """A library in the form that is installed. Raises `Failure`."""
    try:
        return sealed(path.read_bytes())
    except FileNotFoundError:
        raise Failure(f"there is no {path}: `make native` makes it; SSA_LIBRARIES says where it is") from None
    except Failure as failure:
        raise Failure(f"{path}: {failure}") from None
