"""The run directory: one daemon at a time, and what a crashed one left is taken over."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class InUse(RuntimeError):
    """Another daemon has this run directory."""


class RunDirectory:
    """A run directory that is ours for as long as this process lives: the kernel drops the lock of a crashed one."""

    def __init__(self, path: Path, mode: int) -> None:
        """Make and lock it. Raises `InUse`, or OSError."""
        path.mkdir(mode=mode, parents=True, exist_ok=True)
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
