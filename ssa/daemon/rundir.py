"""The run directory: one ssad at a time has it, and takes over what a crashed one left.

A file in it is looked at before it is replaced or removed, as it may be another ssad's by now. The lock says whose the
directory is. Only an ssad's lock counts: it has the file open for writing, which nobody else may do.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ssa.directories import make_directory
from ssa.errors import printable
from ssa.logfmt import fields
from ssa.protocol import paths

if TYPE_CHECKING:
    from collections.abc import Iterator

_log = logging.getLogger("ssa.daemon")

_LOCK = "ssad.lock"
_BACKLOG = 1024  # connections


class InUse(RuntimeError):
    """Another daemon has this run directory."""


def make_private(path: Path) -> None:
    """Make a directory that is ours alone, where nobody else can put another one in its place.

    Whoever could do that could tell programs that any server is verified. Raises PermissionError.
    """
    for directory in (path.parent, path):
        make_directory(directory, 0o700)
        status = directory.lstat()
        owners = (os.geteuid(),) if directory == path else (os.geteuid(), 0)
        safe = not status.st_mode & 0o022 or (directory != path and status.st_mode & stat.S_ISVTX)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners or not safe:
            raise PermissionError(errno.EPERM, "is another user's, or others may write to it", str(directory))


class RunDirectory:
    """A run directory that is ours for as long as this process lives. The kernel drops a crashed process's lock."""

    def __init__(self, path: Path) -> None:
        """Make it if need be, and lock it. Raises `InUse`, or OSError."""
        make_directory(path, 0o755)
        self.path = path
        self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._lock = self._locked()
        except BaseException:
            os.close(self._directory)
            raise
        self._bound: tuple[int, int] | None = None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _locked(self) -> int:
        """The lock's descriptor. A file that another program has locked is replaced by one that is ours alone."""
        while True:
            lock = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._directory)
            try:
                os.fchmod(lock, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if self._identity(_LOCK) == _identity(os.fstat(lock)):  # else it was replaced meanwhile
                    return lock
            except BlockingIOError:
                self._judge(list(_holders(lock)))
                if self._identity(_LOCK) == _identity(os.fstat(lock)):  # else somebody else has replaced it
                    self._unlink(_LOCK)
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)

    def _judge(self, holders: list[_Holder]) -> None:
        """Pass over a lock that no daemon holds. Raises `InUse` for any other."""
        for holder in holders:
            if holder.writes:
                raise InUse(f"another ssad runs on {self.path}: pid {holder.pid} ({holder.command}) holds {_LOCK}")
        if not holders:
            raise InUse(
                f"another ssad runs on {self.path}: some process, which cannot be seen from here, holds {_LOCK}"
            )
        for holder in holders:
            who = fields(path=self.path / _LOCK, pid=holder.pid, uid=holder.uid, command=holder.command)
            _log.warning("a lock that is no daemon's is passed over %s", who)

    def listen(self, mode: int) -> socket.socket:
        """The socket that takes requests, with these permissions. Raises `InUse` where somebody serves there."""
        path = paths.socket_path(self.path)
        if mode & 0o006 and not os.fstat(self._directory).st_mode & 0o001:
            _log.warning("other users cannot reach the run directory: chmod 755 %s", self.path)
        self._remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(path)
        self._bound = self._identity(_name(path))
        Path(path).chmod(mode)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)  # those that it accepts have it too
        listener.listen(_BACKLOG)
        return listener

    def _remove_stale(self, path: str) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.setblocking(False)
            try:
                sock.connect(path)
            except (FileNotFoundError, ConnectionRefusedError):
                self._unlink(_name(path))
                return
            except BlockingIOError:
                raise InUse(f"another ssad serves at {path}, and is busy") from None
            except OSError as exc:
                raise OSError(exc.errno, exc.strerror, path) from None
            pid = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 4), "little")
            raise InUse(f"another ssad serves at {path}: pid {pid} ({_command(pid)})")

    def remove_socket(self) -> None:
        """Remove the socket that `listen` made, which has to be open still, unless a successor has replaced it."""
        name = _name(paths.socket_path(self.path))
        if self._bound is not None and self._identity(name) == self._bound:
            os.unlink(name, dir_fd=self._directory)

    def point(self, name: str, target: Path) -> None:
        """Make a link in the directory that points to something else of this ssad's. Raises OSError."""
        self._unlink(name)
        os.symlink(target.absolute(), name, dir_fd=self._directory)

    def _unlink(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._directory)

    def close(self) -> None:
        """Give up the lock, so that a successor can take the directory before this process has ended."""
        os.close(self._lock)
        os.close(self._directory)

    def _identity(self, name: str) -> tuple[int, int] | None:
        try:
            return _identity(os.stat(name, dir_fd=self._directory, follow_symlinks=False))
        except FileNotFoundError:
            return None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


# --- who holds a lock ---------------------------------------------------------------------------------------------


class _Holder(NamedTuple):
    """A process that has a locked file open."""

    pid: int
    uid: int
    command: str
    writes: bool


def _holders(lock: int) -> Iterator[_Holder]:
    """The processes that hold the lock on a file of ours, by proc(5): the one that took it first may have ended."""
    wanted = _identity(os.fstat(lock))
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with contextlib.suppress(OSError):  # it has ended, or is not ours to look at
            for entry in (process / "fd").iterdir():
                info = _lock_info(process, entry, wanted)
                if info is not None:
                    yield _Holder(int(process.name), process.stat().st_uid, _command(int(process.name)), info)
                    break


def _lock_info(process: Path, entry: Path, wanted: tuple[int, int]) -> bool | None:
    """True where a descriptor that holds the lock can be written to (proc(5), fdinfo); None where it holds no lock."""
    try:
        text = (process / "fdinfo" / entry.name).read_text()
        rows = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
        # Only then the file itself is looked at: others can be on a file system that hangs.
        if "FLOCK" not in rows.get("lock", "") or _identity(entry.stat()) != wanted:
            return None
    except OSError:
        return None
    return int(rows["flags"], 8) & os.O_ACCMODE != os.O_RDONLY


def _command(pid: int) -> str:
    try:
        return printable(Path(f"/proc/{pid}/comm").read_text().strip())
    except OSError:
        return "unknown"
