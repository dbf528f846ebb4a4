"""Programs into which a library can be preloaded (ld.so(8), LD_PRELOAD).

Others would go on without the library, and the dynamic linker would not say so: they are refused here.
"""

from __future__ import annotations

import mmap
import os
import shutil
import stat
import struct
from pathlib import Path
from typing import BinaryIO

from ssa.cli.failure import Failure

_SHORT = 256  # bytes: the longest first line of a script that the kernel reads (linux/binfmts.h, BINPRM_BUF_SIZE)
_INTERPRETERS = 4  # a script's interpreter may be a script: so often (exec_binprm() of fs/exec.c)
_PT_INTERP = 3
_OWN_TLS = b"s hs traffic"  # a label of TLS 1.3's key schedule (RFC 8446, section 7.1): who makes TLS 1.3 has it
_HEADER, _SEGMENT = struct.Struct("<32xQ14xHH"), struct.Struct("<I4xQ")  # elf(5), 64 bits


def why_not(program: str, library: str) -> str:
    """Why the dynamic linker would not load the library into a program: empty if it does, or if execve(2) will fail."""
    try:
        _check(program, Path(library))
    except (Failure, OSError) as failure:
        return str(failure)
    return ""


def has_own_tls(program: str) -> bool:
    """True if the executable itself makes TLS: OpenSSL linked statically, Go's crypto/tls, rustls and the like.

    No library can take its place. False too if the file cannot be read, or knows no TLS 1.3.
    """
    try:
        path, _ = program_of(program)
        with Path(path).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(_OWN_TLS) >= 0
    except (Failure, OSError, ValueError):  # ValueError: the file is empty
        return False


def program_of(program: str) -> tuple[str, bytes]:
    """The file that the kernel will run, which for a script is its interpreter; and how it begins.

    Raises `Failure`, OSError.
    """
    path = program
    for _ in range(_INTERPRETERS + 1):
        begin = _begin(path)
        if not begin.startswith(b"#!"):
            return path, begin
        path = _interpreter(begin)
    raise Failure("its interpreter is a script, and so on")


def _check(program: str, library: Path) -> None:
    path, begin = program_of(program)
    _check_binary(path, begin, library)


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise Failure(f"there is no {program}, which it needs")
    return path


def _begin(path: str) -> bytes:
    with Path(path).open("rb") as file:
        return file.read(_SHORT)


def _interpreter(begin: bytes) -> str:
    words = os.fsdecode(begin[2:].split(b"\n")[0]).split()
    if not words:
        raise Failure("its first line names no interpreter")
    if Path(words[0]).name == "env":
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word] or words
    return _found(words[0])


def _check_binary(path: str, begin: bytes, library: Path) -> None:
    if not begin.startswith(b"\x7fELF"):
        raise Failure("it is neither an ELF program nor a script")
    if begin[4:6] + begin[18:20] != _kind(library):
        raise Failure(f"it is built for another architecture than {library.name}")
    with Path(path).open("rb") as file:
        linker = dynamic_linker(file)
    if linker is None:
        raise Failure(
            "it is linked statically, so nothing can be preloaded into it: `ssa run --seccomp` does without that"
        )
    if not Path(linker).name.startswith("ld-linux"):
        raise Failure(f"its dynamic linker is {linker}, and {library.name} needs glibc's")
    if changes_user(path):
        raise Failure(
            "it is setuid or setgid, or has capabilities, and the system preloads nothing into such programs (ld.so(8))"
        )


def _kind(library: Path) -> bytes:
    with library.open("rb") as file:
        begin = file.read(20)
    return begin[4:6] + begin[18:20]


def dynamic_linker(file: BinaryIO) -> str | None:
    """The path of the dynamic linker, from the ELF segment PT_INTERP; None where there is none."""
    table, size, count = _HEADER.unpack_from(file.read(64).ljust(64, b"\0"))
    for number in range(count):
        file.seek(table + number * size)
        kind, offset = _SEGMENT.unpack_from(file.read(16).ljust(16, b"\0"))
        if kind == _PT_INTERP:
            file.seek(offset)
            return os.fsdecode(file.read(_SHORT).split(b"\0")[0])
    return None


def changes_user(path: str) -> bool:
    """True if execve(2) sets AT_SECURE for it (getauxval(3))."""
    status = Path(path).stat()
    if status.st_mode & stat.S_ISUID and status.st_uid != os.getuid():
        return True
    if status.st_mode & stat.S_ISGID and status.st_gid != os.getgid():
        return True
    return os.getuid() != 0 and "security.capability" in _attributes(path)


def _attributes(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError:
        return []
