"""Mounts the file system, and takes over the mount point of a daemon that has crashed.

    mount = await ssa.configfs.mount.init(view, "/ssa")
    await nursery.start(mount.main)       # returns when the mount has answered a request
    ...                                   # it runs until it is cancelled, or unmounted from outside

One process can mount one file system, because the binding to libfuse keeps it in global variables.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pyfuse3
import trio

from ssa.configfs.operations import Operations
from ssa.configfs.root import build
from ssa.configfs.tree import Tree
from ssa.directories import make_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.configfs.view import View

log = logging.getLogger("ssa.configfs")

_FSTYPE = "fuse.ssa"
_PROBE_SECONDS = 3.0  # a mount that has not answered a stat() by then belongs to a daemon that is stuck
_READY_SECONDS = 10.0
_UNMOUNT: tuple[tuple[str, ...], ...] = (("fusermount3", "-u", "-z"), ("umount", "-l"))
_OPTIONS = frozenset({"fsname=ssa", "subtype=ssa", "default_permissions", "noexec", "nosuid", "nodev"})


class MountError(OSError):
    """The file system cannot be mounted there. The message says why and what to do."""


async def init(view: View, mountpoint: str | os.PathLike[str], *, allow_other: bool | None = None) -> Mount:
    """Mount the file system. It answers as soon as `Mount.main` runs.

    Args:
        view: the daemon's side.
        mountpoint: an empty directory, or a missing one, or the mount of a crashed daemon.
        allow_other: let other users in. By default only root does: for others fusermount3 demands user_allow_other.

    Raises:
        MountError: it cannot be mounted there.
    """
    path = await _prepare(Path(mountpoint))
    others = os.geteuid() == 0 if allow_other is None else allow_other
    options = set(_OPTIONS | ({"allow_other"} if others else set()))
    try:
        pyfuse3.init(Operations(Tree(build(view), view, view.hear)), str(path), options)
    except RuntimeError as failure:
        # libfuse has written the reason to stderr, and gives us none.
        raise MountError(
            errno.EIO,
            f"FUSE refused to mount there ({failure}): see `ssa doctor`",
            str(path),
        ) from None
    return Mount(path, _topmost(path))


class Mount:
    """A mounted file system."""

    def __init__(self, path: Path, mounted: _Mounted | None) -> None:
        self.path = path
        self._mounted = mounted
        self._open = True

    async def main(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer requests until cancelled, or unmounted from outside; then unmount."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._ready, task_status)
                await pyfuse3.main()
                nursery.cancel_scope.cancel()
        finally:
            self.unmount()

    def unmount(self) -> None:
        """Unmount lazily: programs that have a file open get errors. A mount over it stays. Safe to call twice."""
        if self._open:
            self._open = False
            pyfuse3.close(unmount=self._is_topmost())

    def _is_topmost(self) -> bool:
        """True if unmounting the path would unmount this file system, and not another one over it."""
        found = _topmost(self.path)
        if found is not None and found != self._mounted:
            log.warning(
                "%s: another file system (%s) was mounted over this one, and stays; the next ssad takes over what is "
                "left of this one below it",
                self.path,
                found.fstype,
            )
        return found == self._mounted

    async def _ready(self, task_status: trio.TaskStatus[None]) -> None:
        """Report the mount as ready when it has answered. A thread asks: the event loop must not wait for itself."""
        if not await _answers(self.path / "version", _READY_SECONDS):
            raise MountError(
                errno.ETIMEDOUT,
                "the mount does not answer, so ssad ends: see its log",
                str(self.path),
            )
        task_status.started()


# --- the mount point ----------------------------------------------------------------------------------------------


async def _prepare(mountpoint: Path) -> Path:
    """Make the mount point an empty directory with no file system mounted on it."""
    path = without_links(mountpoint)
    while mounted := _topmost(path):
        await _take_over(path, mounted.fstype)
    return _empty_directory(path)


def _empty_directory(path: Path) -> Path:
    path = Path(os.path.realpath(path))
    try:
        make_directory(path, 0o755)
        occupied = any(path.iterdir())
    except OSError as failure:
        raise MountError(failure.errno, f"cannot make the mount point: {failure.strerror}", str(path)) from None
    if occupied:
        raise MountError(
            errno.ENOTEMPTY,
            "the mount point is not empty, and mounting would hide its files: name another (--mount)",
            str(path),
        )
    return path


def without_links(mountpoint: Path) -> Path:
    """The path of the mount point in the mount table. A file system there, maybe dead or stuck, is not asked."""
    absolute = mountpoint.absolute()
    path = Path(os.path.realpath(absolute.parent)) / absolute.name
    try:
        path.readlink()
    except OSError:
        return path
    return Path(os.path.realpath(path))


class _Mounted(NamedTuple):
    """A row of the mount table (proc(5), mountinfo)."""

    id: int
    fstype: str


def _topmost(path: Path) -> _Mounted | None:
    """The topmost file system mounted at a path, which umount(2) of the path would unmount. None: there is none."""
    found = None
    for row in Path("/proc/self/mountinfo").read_bytes().splitlines():
        before, _, after = row.partition(b" - ")
        number, _, _, _, where, *_ = before.split(b" ")
        if _unescaped(where) == os.fsencode(path):
            found = _Mounted(int(number), os.fsdecode(after.split(b" ")[0]))
    return found


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match.group(1), 8)]), field)


async def _take_over(path: Path, fstype: str) -> None:
    """Unmount a crashed daemon's file system. Raises MountError for any other."""
    if fstype != _FSTYPE:
        raise MountError(
            errno.EBUSY,
            f"another file system is mounted there ({fstype}): name another place (--mount)",
            str(path),
        )
    if not await _is_stale(path):
        raise MountError(
            errno.EBUSY,
            "mounted already, by a daemon that is alive: stop it, or name another place (--mount)",
            str(path),
        )
    log.warning("%s: taking over the mount of a daemon that is gone", path)
    await trio.to_thread.run_sync(_detach, path, abandon_on_cancel=True)
    left = _topmost(path)
    if left is not None and left.fstype == _FSTYPE and await _is_stale(path):
        raise MountError(errno.ENOTCONN, f"a crashed daemon's mount is there; run: umount -l {path}", str(path))


async def _is_stale(path: Path) -> bool:
    """True if the daemon behind a mount is gone (ENOTCONN). A daemon that is only stuck is alive."""
    try:
        # The kernel never answers statvfs(3) from its cache, as it may stat(2).
        await _in_time(os.statvfs, path, _PROBE_SECONDS)
    except OSError as failure:
        return failure.errno == errno.ENOTCONN
    return False


async def _answers(path: Path, seconds: float) -> bool:
    try:
        return await _in_time(os.stat, path, seconds)
    except OSError:
        return False


async def _in_time(ask: Callable[[Path], object], path: Path, seconds: float) -> bool:
    """Ask a file system in a thread, which is left behind if it is late. True if there was an answer in time."""
    with trio.move_on_after(seconds):
        await trio.to_thread.run_sync(ask, path, abandon_on_cancel=True)
        return True
    return False


def _detach(path: Path) -> None:
    """Unmount lazily, with the first program that succeeds."""
    for command in _UNMOUNT:
        try:
            subprocess.run([*command, str(path)], check=True, capture_output=True, timeout=30)  # noqa: S603 - fixed
        except (OSError, subprocess.SubprocessError) as failure:
            log.info("%s: %s", command[0], failure)
        else:
            return
