"""Whether the process that closes a file was killed: the kernel flushes its files, as if it had closed them itself."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
# Fields of /proc/PID/stat behind the program's name (proc(5)): the flags, and what waitpid(2) will say.
_FLAGS, _EXIT_CODE = 6, 49
_EXITING = 0x4  # PF_EXITING of include/linux/sched.h
_MOST = 64  # processes that are looked at


def process_of(thread: int) -> int:
    """The process of a thread, which FUSE names; the thread itself where /proc does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = (_PROC / str(thread) / "status").read_text("ascii", "replace")
        return int(status.partition("\nTgid:")[2].split()[0])
    return thread


def was_killed(pid: int) -> bool:
    """Whether a process, or one that descends from it, is being ended by a signal at this moment.

    A shell opens a file for its children, so these count. A process that is ending is still there: the kernel makes it
    wait for the answer to its flush. One that ends by itself, with whatever status, was not killed. False where /proc
    does not tell.
    """
    return any(map(_is_dying, itertools.islice(_family(pid), _MOST)))


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants, those closest to it first."""
    waiting = deque([pid] if pid > 0 else [])
    while waiting:
        pid = waiting.popleft()
        yield pid
        waiting.extend(_children(pid))


def _is_dying(pid: int) -> bool:
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
        return bool(int(fields[_FLAGS]) & _EXITING and int(fields[_EXIT_CODE]) & 0x7F)
    except (OSError, IndexError, ValueError):
        return False


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError, ValueError):  # a kernel may lack CONFIG_PROC_CHILDREN
        return [int(child) for child in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    return []
