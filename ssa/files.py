"""Reads the administrator's files without letting them make the daemon wait, and notices cheaply when they change.

A path can lead to a network that does not answer, to a FIFO that nobody writes, or into ssad's own file system, which
cannot answer while ssad waits for it. So `Trail.follow`, and all that calls it, runs in a thread, where a deadline can
be kept. A `Trail` is what it found: each directory and link that the path led through, and the file at its end, as
lstat(2) showed them.

A trail is checked again in the order in which it was followed, so the check touches nothing but what was found good
before. Where the whole trail lies on file systems of this machine, which answer at once, the event loop checks it.
Something that is mounted later can hide these. So the kernel is first asked whether any mount has changed; after a
change a thread checks the trail, and finds out which file systems it leads through now.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import select
import stat
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeVar

    T = TypeVar("T")

_MAX_LINKS = 40  # as the kernel
# Two changes within one tick of the kernel's clock can leave the same times: what is younger is read again.
_TICK = 20_000_000  # nanoseconds
# File systems that wait for no network and for no other process.
_LOCAL = re.compile(
    "bcachefs|btrfs|devtmpfs|erofs|ext[234]|f2fs|hostfs|iso9660|jfs|overlay|ramfs|reiserfs|rootfs|squashfs|tmpfs|vfat|"
    "xfs|zfs"
)
_OCTAL = re.compile(r"\\([0-7]{3})")

Signature = tuple[int, ...] | None  # None: it is not there


class Trail:
    """The steps by which some paths were resolved.

    Attributes:
        end: where the last path led, without links in it; empty where nothing is there.
    """

    __slots__ = ("_avoid", "_followed", "_is_local", "_mounts", "_steps", "end")

    def __init__(self, avoid: str = "") -> None:
        self._avoid = avoid
        self._steps: dict[str, Signature] = {}
        self._followed = time.time_ns()
        self.end = ""
        self._mounts = _mounts.changes()  # before any of them is read
        self._is_local = True

    def follow(self, path: str | os.PathLike[str], *, listed: bool = False) -> os.stat_result | None:
        """Follow another path to its end, and return its lstat(2), or None where there is nothing.

        `listed`: a directory at its end will be listed, so that a file which appears or goes there counts as a change.

        Raises:
            OSError: the path can't be followed. EDEADLK: it leads into the file system `avoid`.
        """
        mounts = _Mounts(self._avoid)
        at, self.end = "/", ""
        ahead = os.path.abspath(path).split("/")[::-1]  # noqa: PTH100 - pathlib keeps ".." where this resolves it
        links, status = 0, None
        while ahead:
            name = ahead.pop()
            if name in ("", "."):
                continue
            if name == "..":
                at = os.path.dirname(at)  # noqa: PTH120 - a str, as all of this walk; Path objects would cost more
                continue
            here = f"{at.rstrip('/')}/{name}"
            if mounts.is_avoided(here):
                raise OSError(errno.EDEADLK, f"it leads into {self._avoid}, the file system that ssad itself provides")
            status = self._look(here, mounts)
            if status is None:
                return None
            if stat.S_ISLNK(status.st_mode):
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(here)  # noqa: PTH115 - a str, as all of this walk
                at = "/" if target.startswith("/") else at
                ahead.extend(target.split("/")[::-1])
            else:
                at = here
        self.end = at
        if listed and status is not None:
            self._steps[at] = _signature(status, whole=True)
        return os.lstat(at) if status is None or stat.S_ISLNK(status.st_mode) else status

    def _look(self, here: str, mounts: _Mounts) -> os.stat_result | None:
        self._is_local = self._is_local and mounts.is_local(here)
        try:
            status = os.lstat(here)
        except (FileNotFoundError, NotADirectoryError):
            self._steps[here] = None
            return None
        if stat.S_ISDIR(status.st_mode):
            self._steps.setdefault(here, _signature(status, whole=False))  # one that is listed stays so
        else:
            self._steps[here] = _signature(status, whole=True)
        return status

    def is_stale(self) -> bool:
        """True where a thread has to call `changed`. This does not wait, as it asks local file systems only."""
        return not self._is_local or self._mounts != _mounts.changes() or self._differs()

    def changed(self) -> bool:
        """True where what `follow` found is no longer there as it was. May wait for ever."""
        if self._mounts != (changes := _mounts.changes()):
            mounts = _mounts.table(self._avoid)
            if any(map(mounts.is_avoided, self._steps)):
                return True
            self._is_local = all(map(mounts.is_local, self._steps))
            self._mounts = changes
        return self._differs()

    def _differs(self) -> bool:
        return any(_differs(path, before) for path, before in self._steps.items())

    @property
    def is_settled(self) -> bool:
        """False where the next change may leave the same times, so that `changed` would not see it."""
        times = [
            signature[-1] for signature in self._steps.values() if signature is not None and len(signature) > _PASSED
        ]
        return all(abs(self._followed - time_) > _TICK for time_ in times)


_PASSED = 2  # numbers in the signature of a directory that is only passed through


def _signature(status: os.stat_result, *, whole: bool) -> tuple[int, ...]:
    """The numbers by which a change shows. A directory that is only passed through may change its content."""
    if not whole:
        return (status.st_dev, status.st_ino)
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _differs(path: str, before: Signature) -> bool:
    try:
        status = os.lstat(path)
    except OSError:
        return before is not None
    if before is None:
        return True
    return before != _signature(status, whole=len(before) > _PASSED)


class _Mounts:
    """The mounts of this process (proc_pid_mountinfo(5)): no file system is asked."""

    def __init__(self, avoid: str) -> None:
        self._types: dict[str, str] = {}
        devices: dict[str, str] = {}
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:  # noqa: PTH123 - it is a str
            for line in table:
                before, _, after = line.partition(" - ")
                _, _, device, _, point, *_ = before.split()
                point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), point)
                self._types[point], devices[point] = after.split(" ", 1)[0], device
        own = devices.get(avoid)
        self._avoided = {avoid, *(point for point, device in devices.items() if own is not None and device == own)}

    def is_avoided(self, path: str) -> bool:
        """True for where a file system is mounted that must not be entered."""
        return path in self._avoided

    def is_local(self, path: str) -> bool:
        """True where a file system of this machine has the path."""
        while path not in self._types and path != "/":
            path = os.path.dirname(path)  # noqa: PTH120 - a str, and once for each step of a path
        return _LOCAL.fullmatch(self._types.get(path, "")) is not None


def _poll_of_mounts() -> select.poll | None:
    """A poll object that reports changes of the mounts; None if there is no descriptor left for it.

    Its poll() needs no timeout, for which CPython would ask for the time: the table can always be read (mounts_poll in
    fs/proc_namespace.c).
    """
    with contextlib.suppress(OSError):  # there are no descriptors left, say
        descriptor = os.open("/proc/self/mountinfo", os.O_RDONLY | os.O_CLOEXEC)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLPRI)
        return poll
    return None


_CHANGED = select.POLLPRI | select.POLLERR


class _Watch:
    """Notices changes of this process's mounts: poll(2) of their table reports each change once (proc(5))."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._changes = 0
        self._idle: list[select.poll | None] = [None]  # whoever takes out what is in it may look, and puts it back
        self._known: tuple[tuple[int, str], _Mounts] | None = None

    def changes(self) -> int:
        """A number that is another one after each change, and at each call where nobody can tell. Does not wait.

        It takes no lock, as each lock costs a system call where the kernel has no vDSO.
        """
        try:
            poll = self._idle.pop()
        except IndexError:  # another thread looks at this moment, and a change is told once
            return next(self._numbers)
        try:
            if poll is None or any(events & _CHANGED for _, events in poll.poll()):
                self._changes = next(self._numbers)
                poll = poll or _poll_of_mounts()
            return self._changes
        finally:
            self._idle.append(poll)

    def table(self, avoid: str) -> _Mounts:
        """The mounts of now, read once for all trails."""
        key = self.changes(), avoid
        known = self._known
        if known is None or known[0] != key:
            self._known = known = key, _Mounts(avoid)
        return known[1]


_mounts = _Watch()


# --- reading: in a thread -----------------------------------------------------------------------------------------


def settled(read: Callable[[Trail], T], avoid: str = "") -> tuple[T, Trail]:
    """Call `read` with a new trail; its result and the trail. It is called again where files are changing just now."""
    for _ in range(3):
        trail = Trail(avoid)
        found = read(trail)
        if trail.is_settled:
            break
        time.sleep(2 * _TICK / 1e9)
    return found, trail


def read_regular(path: str | os.PathLike[str], trail: Trail, limit: int) -> tuple[bytes, os.stat_result]:
    """A regular file's content, and its fstat(2).

    Raises:
        FileNotFoundError: there is none.
        OSError: it can't be read.
        ValueError: it is no regular file, or has more than `limit` bytes.
    """
    status = trail.follow(path)
    if status is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    if not stat.S_ISREG(status.st_mode):  # before it is opened, as that can do something to a device
        raise ValueError(f"{os.fspath(path)}: not a regular file")
    return _read(trail.end, os.fspath(path), limit)


def _read(end: str, path: str, limit: int) -> tuple[bytes, os.stat_result]:
    descriptor = os.open(end, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{path}: not a regular file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"{path}: longer than {_size(limit)}")
    return data, status


def _size(limit: int) -> str:
    return f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"


def list_directory(trail: Trail, most: int) -> Iterable[str]:
    """The paths in the directory at a trail's end, in order. Raises OSError; ValueError where there are too many."""
    return sorted(_entries(trail.end, most))


def _entries(directory: str, most: int) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for number, entry in enumerate(entries):
            if number >= most:
                raise ValueError(f"{directory}: more than {most} files")
            yield entry.path
