"""The doors of workers: sockets in the run directory, on which the next daemon reaches those that outlive this one.

The daemon makes a door and gives it to the worker. The directory is the daemon's alone. The name of a door says whose
worker is behind it: its user, its process and when that was started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssa.directories import make_directory

if TYPE_CHECKING:
    from collections.abc import Iterator

_ENDED = {"Z", "X"}  # states of a process that nobody has waited for
_STARTED = 22 - 3  # starttime's place in /proc/PID/stat behind the process's name (proc(5))


class Behind(NamedTuple):
    """Who is behind a door."""

    uid: int
    pid: int
    started: int


class Doors:
    """The directory of doors."""

    def __init__(self, run_dir: Path) -> None:
        """Raises OSError."""
        self._path = run_dir / "workers"
        make_directory(self._path, 0o700)
        status = self._path.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise PermissionError(errno.EPERM, "is another user's, or others may enter it", str(self._path))
        self._directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def make(self, name: str) -> socket.socket:
        """A door, which `label` gives its final name. Raises OSError."""
        self.remove(name)
        door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            door.bind(self._address(name))
            door.listen(1)
            door.setblocking(False)
        except BaseException:
            door.close()
            raise
        return door

    def label(self, name: str, uid: int, pid: int) -> str:
        """Say who is behind a door: its name from now on. Raises OSError where the process has gone."""
        final = ".".join(map(str, Behind(uid, pid, _started(pid))))
        os.rename(name, final, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        return final

    def left(self) -> Iterator[tuple[Behind, socket.socket]]:
        """The workers that an earlier daemon has left, each with a channel to it. Other doors are removed."""
        for name in os.listdir(self._directory):
            try:
                behind = Behind(*map(int, name.split(".")))
                if _started(behind.pid) != behind.started:
                    raise ProcessLookupError
                channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                channel.setblocking(False)
                channel.connect(self._address(name))
            except (OSError, TypeError, ValueError):
                self.remove(name)
            else:
                yield behind, channel

    @staticmethod
    def runs(name: str) -> bool:
        """True where the process that a door is labelled with runs."""
        try:
            behind = Behind(*map(int, name.split(".")))
            return _started(behind.pid) == behind.started and _stat(behind.pid)[0] not in _ENDED
        except (OSError, TypeError, ValueError):
            return False

    def remove(self, name: str) -> None:
        """Remove a door, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)

    def _address(self, name: str) -> str:
        """A path that is short enough for an address, however long the run directory's is."""
        return f"/proc/self/fd/{self._directory}/{name}"

    def close(self) -> None:
        """Close the directory."""
        os.close(self._directory)


def _started(pid: int) -> int:
    """When a process was started, in the kernel's ticks. Raises OSError where there is none."""
    return int(_stat(pid)[_STARTED])


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the process's name. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
