"""Programs that ssa-supervise can watch: those whose system calls are of its own architecture.

Those of another would go on without it, and the kernel would not say so: they are refused here.
"""

from __future__ import annotations

from pathlib import Path

from ssa.cli.failure import Failure
from ssa.cli.preloading import changes_user, program_of


def why_not(program: str, supervisor: str) -> str:
    """Why a program's calls would not be seen: empty if they are, or if execve(2) will fail."""
    try:
        _, begin = program_of(program)
        ours = Path(supervisor).read_bytes()[:20]
    except (Failure, OSError) as failure:
        return str(failure)
    if not begin.startswith(b"\x7fELF"):
        return "it is neither an ELF program nor a script"
    if _kind(begin) != _kind(ours):
        return (
            f"it is built for another architecture than {Path(supervisor).name}, which sees the calls of its own alone"
        )
    return ""


def _kind(begin: bytes) -> bytes:
    """The class and the machine of an ELF file (elf(5))."""
    return begin[4:6] + begin[18:20]


def what_is_lost(program: str) -> str:
    """A warning about a program that no_new_privs takes rights from (PR_SET_NO_NEW_PRIVS, prctl(2)); "" for others."""
    try:
        path, _ = program_of(program)
        return _WITHOUT if changes_user(path) else ""
    except (Failure, OSError):
        return ""


_WITHOUT = (
    "it is setuid or setgid, or has capabilities, and runs without them: a filter of seccomp's implies no_new_privs "
    "(prctl(2))"
)
