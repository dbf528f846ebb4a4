"""Finds out if a process was killed while it wrote. The kernel flushes its files, as if it had closed them."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")
# Fields of /proc/PID/stat, counted behind the program's name (proc(5)): flags, and the status for waitpid(2).
_FLAGS, _EXIT_CODE = 6, 49
_EXITING = 0x4  # PF_EXITING of include/linux/sched.h
_MOST = 64  # processes that are looked at


def process_of(thread: int) -> int:
    """The process of a thread: FUSE gives the thread's number. The thread itself if /proc does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        status = (_PROC / str(thread) / "status").read_text("ascii", "replace")
        return int(status.partition("\nTgid:")[2].split()[0])
    return thread


def was_killed(pid: int) -> bool:
    """True if a signal is ending a process, or one of its descendants, at this moment. False if /proc does not say.

    Descendants count, because a shell opens a file for its children. An ending process is still in /proc: the kernel
    makes it wait for the answer to its flush. A process that exits itself, with any status, was not killed.
    """
    return any(map(_is_dying, itertools.islice(_family(pid), _MOST)))


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants, the closest first."""
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
