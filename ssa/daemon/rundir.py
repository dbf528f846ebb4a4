"""The run directory: one daemon at a time, and what a crashed one left is taken over."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class InUse(RuntimeError):
    """Another daemon has this run directory."""


def make_private(path: Path) -> None:
    """Make a directory that is ours alone, and stands where nobody else could put another in its place.

    Who could would tell programs that any server is verified. Raises PermissionError.
    """
    for directory in (path.parent, path):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.lstat()
        owners = (os.geteuid(),) if directory == path else (os.geteuid(), 0)
        safe = not status.st_mode & 0o022 or (directory != path and status.st_mode & stat.S_ISVTX)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners or not safe:
            raise PermissionError(errno.EPERM, "is another user's, or others may write to it", str(directory))


class RunDirectory:
    """A run directory that is ours for as long as this process lives: the kernel drops the lock of a crashed one."""

    def __init__(self, path: Path) -> None:
        """Make it if need be, and lock it. Raises `InUse`, or OSError."""
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._lock = os.open(path / "ssad.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            os.close(self._lock)
            raise InUse(f"another ssad (pid {holder or 'unknown'}) runs on {path}") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        self.path = path

    def point(self, name: str, target: Path) -> None:
        """Have a link in the directory tell where something else of this daemon is. Raises OSError."""
        link = self.path / name
        link.unlink(missing_ok=True)
        link.symlink_to(target.absolute())

    def close(self) -> None:
        """Let a successor have it, though this process may not be able to end yet."""
        os.close(self._lock)
