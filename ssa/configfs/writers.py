"""Finds out if a process was killed while it wrote. The kernel flushes its files, as if it had closed them."""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROC = Path("/proc")
_LISTING = _PROC / "thread-self" / "children"  # a kernel without CONFIG_PROC_CHILDREN has none
# Fields of /proc/PID/stat, counted behind the program's name (proc(5)): the parent, flags, the status for waitpid(2).
_PARENT, _FLAGS, _EXIT_CODE = 1, 6, 49
_EXITING = 0x4  # PF_EXITING of include/linux/sched.h
_MOST = 64  # of a family are looked at
_MOST_OF_ALL = 4096  # processes whose parents are asked for


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

    It reads many files on a kernel that does not list a process's children: call it in a thread.
    """
    return any(map(_is_dying, itertools.islice(_family(pid), _MOST)))


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants, the closest first."""
    waiting = deque([pid] if pid > 0 else [])
    children = _children if _LISTING.exists() else _children_by_parent()
    while waiting:
        pid = waiting.popleft()
        yield pid
        waiting.extend(children(pid))


def _is_dying(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and bool(int(fields[_FLAGS]) & _EXITING and int(fields[_EXIT_CODE]) & 0x7F)


def _stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat behind the program's name; none if there is no such process."""
    try:
        fields = (_PROC / str(pid) / "stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return []
    return fields if len(fields) > _EXIT_CODE else []


def _children(pid: int) -> list[int]:
    with contextlib.suppress(OSError, ValueError):
        return [int(child) for child in (_PROC / str(pid) / "task" / str(pid) / "children").read_text().split()]
    return []


def _children_by_parent() -> Callable[[int], list[int]]:
    """`_children` on a kernel that does not list them: every process is asked for its parent, once."""
    children: dict[int, list[int]] = {}
    processes = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())
    for child in itertools.islice(processes, _MOST_OF_ALL):
        if fields := _stat(child):
            children.setdefault(int(fields[_PARENT]), []).append(child)
    return lambda pid: children.get(pid, [])
