"""FUSE's requests to the tree: an adapter, as thin as it can be. It behaves as sysfs does (see docs/configfs.md).

A request waits for nothing but what `Tree.refresh` and `File.prepare` look at, each with a deadline, and a file that is
long to make lets others take turns; else it is done at once. Only FUSEError may leave a handler: anything else would
end the daemon.

A value is gathered from the writes of one open file, and stored by the flush that each close(2) makes. What no further
write could mend is refused by the write, as many programs do not look at what close(2) says.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import stat
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import FUSEError

from ssa.configfs.tree import ROOT, File
from ssa.configfs.writers import process_of, was_killed
from ssa.logfmt import fields
from ssa.policy.schema import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ssa.configfs.tree import Node, Tree

log = logging.getLogger("ssa.configfs")

_PAGE = 4096
_BLOCK = 512  # bytes, of st_blocks
_FOREVER = 3600.0  # seconds that the kernel may keep what never changes
_TURN = 0.001  # seconds of making a long file, before others get their turn
_MOST_HELD = 32 << 20  # bytes of content and names that one user may hold open; root may hold any number
_HANDLE = 512  # bytes, about, that an open file or directory costs besides
_NAME = 128  # bytes, about, that a name in a listing costs
_MOST_MAKING = 4  # long files that are being made for one user
_P = ParamSpec("_P")
_R = TypeVar("_R")


def _answered(
    handler: Callable[Concatenate[Operations, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[Operations, _P], Coroutine[Any, Any, _R]]:
    """Make a handler answer EIO, and log why, where it fails in a way that nobody thought of."""

    @functools.wraps(handler)
    async def answer(self: Operations, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception:
            log.exception("%s failed", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return answer


def _refused(number: int) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make a handler of what cannot be done here."""

    async def refuse(*_: object) -> NoReturn:
        raise FUSEError(number)

    return refuse


@dataclass(slots=True, eq=False)
class _Open:
    """An open file."""

    inode: int
    uid: int
    pid: int
    content: bytes
    opened: int  # nanoseconds since 1970
    writer: int = 0  # the process, which pid may be a thread of
    appends: bool = False
    stale: bool = False  # a read from the start shows the value anew
    pending: bytes | None = b""  # what has come of a value; None: it was refused
    dirty: bool = False  # pending is to be stored
    failure: int = 0  # errno of the close that could not store it

    @property
    def cost(self) -> int:
        """Bytes that it costs, about."""
        return _HANDLE + len(self.content)

    @property
    def who(self) -> str:
        """Who opened it, for the log."""
        return f"uid {self.uid} pid {self.pid}"


@dataclass(slots=True)
class _Listing:
    """An open directory, with its names and their inodes as they were when it was read from its start."""

    inode: int
    uid: int
    names: list[tuple[str, int]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """Bytes, about."""
        return _HANDLE + _NAME * len(self.names)


@dataclass(slots=True)
class _Extent:
    """How long a file is, and since when its content has been what it is, in nanoseconds since 1970."""

    size: int
    changed: int


class Operations(pyfuse3.Operations):
    """The handlers."""

    supports_dot_lookup = False

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree
        self._owner = (os.geteuid(), os.getegid())
        self._started = time.time_ns()
        self._handles = itertools.count(1)
        self._files: dict[int, _Open] = {}
        self._readers: defaultdict[tuple[int, int], list[_Open]] = defaultdict(list)  # by inode and process
        self._held: Counter[int] = Counter()  # bytes that open files and directories cost, by uid
        self._making: Counter[int] = Counter()  # long files, by uid
        self._listings: dict[int, _Listing] = {}

    # What sysfs refuses, and how.
    create = _refused(errno.EACCES)
    mknod = _refused(errno.EPERM)
    unlink = _refused(errno.EPERM)
    rename = _refused(errno.EPERM)
    link = _refused(errno.EPERM)
    symlink = _refused(errno.EPERM)

    # --- names and attributes ---

    @_answered
    async def lookup(
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Find a name in a directory."""
        await self._tree.refresh(parent_inode)
        child = self._tree.child(parent_inode, os.fsdecode(name))
        if child is None:
            raise FUSEError(errno.ENOENT)
        return self._attributes(child, ctx.pid)

    async def forget(self, _inodes: object) -> None:
        """Do nothing: nothing is remembered."""

    @_answered
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Give an inode's attributes, which outlive its member: a file that is open must answer fstat()."""
        return self._attributes(inode, ctx.pid)

    @_answered
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        fh: pyfuse3.FileHandleT | None,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Accept touch and truncate, which change no value; refuse chmod and chown.

        ftruncate(2) cuts what this open file has gathered.
        """
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise FUSEError(errno.EPERM)
        if fields.update_size and fh is not None:
            self._cut(self._files[fh], attr.st_size)
        return self._attributes(inode, ctx.pid)

    @_answered
    async def statfs(self, _ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Say that nothing is stored here."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = _PAGE
        data.f_namemax = 255
        return data

    def _node(self, inode: int) -> Node:
        node = self._tree.node(inode)
        if node is None:
            raise FUSEError(errno.ENOENT)
        return node

    def _attributes(self, inode: int, pid: int = 0) -> pyfuse3.EntryAttributes:
        """An inode's attributes, for a process that may have it open."""
        node = self._node(inode)
        owner = self._tree.owner(inode)
        attributes = pyfuse3.EntryAttributes()
        kind = stat.S_IFREG if isinstance(node, File) else stat.S_IFDIR
        extent = self._extent(inode, node, pid) if isinstance(node, File) else _Extent(0, self._started)
        attributes.st_ino = pyfuse3.InodeT(inode)
        attributes.st_mode = pyfuse3.ModeT(kind | (node.mode if owner is None else node.mode & 0o700))
        attributes.st_nlink = 1
        attributes.st_uid, attributes.st_gid = self._owner
        if owner is not None:
            attributes.st_uid = owner
        attributes.st_size = extent.size
        attributes.st_blocks = -(-extent.size // _BLOCK)  # fewer would be holes, which cp does not read
        attributes.st_blksize = _PAGE
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = extent.changed
        attributes.entry_timeout = self._lifetime(inode)
        attributes.attr_timeout = 0 if isinstance(node, File) else attributes.entry_timeout
        return attributes

    def _lifetime(self, inode: int) -> float:
        """How long the kernel need not ask again; for the root never, so that a crashed daemon does not look alive."""
        return _FOREVER if inode != ROOT and self._tree.is_fixed(inode) else 0

    def _extent(self, inode: int, file: File[Any], pid: int) -> _Extent:
        """A file's size and time. To a process that has opened it, no less than it can read.

        So one that reads as many bytes as fstat(2) says reads all, whatever has changed since it opened the file.
        """
        mine = self._readers.get((inode, pid), ())
        sizes = [len(opened.content) for opened in mine]
        subject = self._tree.subject(inode)
        if subject is not None and not file.is_readable:
            return _Extent(0, file.changed(subject) if file.changed else self._started)
        if subject is not None and file.changed is not None:
            return _Extent(max(len(self._content(inode)), *sizes, 0), file.changed(subject))
        if mine:
            return _Extent(max(sizes), max(opened.opened for opened in mine))
        most = file.most(subject) if file.most and subject is not None else 0
        return _Extent(max(most, _PAGE), time.time_ns())

    # --- directories ---

    @_answered
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory."""
        self._check_room(ctx.uid)
        await self._tree.refresh(inode)
        handle = next(self._handles)
        self._listings[handle] = listing = _Listing(inode, ctx.uid)
        self._hold(ctx.uid, listing.cost)
        return pyfuse3.FileHandleT(handle)

    @_answered
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory as it was at the first entry."""
        listing = self._listings[fh]
        if start_id == 0:
            before = listing.cost
            listing.names = list(self._tree.children(listing.inode))
            self._hold(listing.uid, listing.cost - before)
        for position, (name, child) in enumerate(listing.names[start_id:], start_id + 1):
            entry = pyfuse3.FileNameT(os.fsencode(name))
            if not pyfuse3.readdir_reply(token, entry, self._attributes(child), position):
                return

    @_answered
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a directory."""
        if (listing := self._listings.pop(fh, None)) is not None:
            self._hold(listing.uid, -listing.cost)

    def _check_room(self, uid: int) -> None:
        if uid != 0 and self._held[uid] > _MOST_HELD:
            raise FUSEError(errno.EMFILE)

    def _hold(self, uid: int, more: int) -> None:
        self._held[uid] += more
        if not self._held[uid]:
            del self._held[uid]

    @_answered
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        _mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a member, where that can be done. Its mode is that of its kind."""
        with self._permitted(parent_inode, name, ctx, "made"):
            made = self._tree.make(parent_inode, os.fsdecode(name))
        if made is None:
            raise FUSEError(errno.EPERM)
        return self._attributes(made)

    @_answered
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        """Take a member away, with all its files, where that can be done."""
        with self._permitted(parent_inode, name, ctx, "removed"):
            removed = self._tree.remove(parent_inode, os.fsdecode(name))
        if not removed:
            raise FUSEError(errno.EPERM)

    @contextlib.contextmanager
    def _permitted(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext, done: str) -> Iterator[None]:
        """Make a refusal the caller's errno, and log why."""
        try:
            yield
        except (ValueError, OSError) as refusal:
            what = f"{self._tree.path(parent)}/{name.decode('ascii', 'backslashreplace')!a}"
            message = "%s: not %s for uid %d pid %d: %s"
            log.warning(message, what, done, ctx.uid, ctx.pid, refusal, extra={"uid": ctx.uid})
            number = refusal.errno if isinstance(refusal, OSError) else errno.EINVAL
            raise FUSEError(number or errno.EIO) from None

    # --- files ---

    @_answered
    async def open(self, inode: pyfuse3.InodeT, flags: pyfuse3.FlagT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileInfo:
        """Open a file, and take its content now: a reader sees one value, in however small pieces."""
        await self._tree.refresh(inode)
        file = self._file(inode)
        reads, writes = flags & os.O_ACCMODE != os.O_WRONLY, flags & os.O_ACCMODE != os.O_RDONLY
        if (reads and not file.is_readable) or (writes and not file.write):
            raise FUSEError(errno.EACCES)  # to root too, whom the mode does not stop
        self._check_room(ctx.uid)
        if reads and file.pieces:
            content = await self._made(inode, file, ctx.uid)
        else:
            content = self._content(inode, ctx.uid) if reads else b""
        handle = pyfuse3.FileHandleT(next(self._handles))
        opened = _Open(inode, ctx.uid, ctx.pid, content, time.time_ns(), appends=bool(flags & os.O_APPEND))
        opened.writer = process_of(ctx.pid) if writes and file.check else 0
        self._files[handle] = opened
        self._hold(ctx.uid, opened.cost)
        if reads:
            self._readers[inode, ctx.pid].append(opened)
        return pyfuse3.FileInfo(fh=handle, direct_io=True)

    async def _made(self, inode: int, file: File[Any], uid: int) -> bytes:
        """The content of a file that is long to make: for this reader, with turns for others."""
        subject = self._tree.subject(inode)
        if subject is None or file.pieces is None:
            raise FUSEError(errno.ENOENT)
        if uid != 0 and self._making[uid] >= _MOST_MAKING:
            raise FUSEError(errno.EBUSY)
        self._making[uid] += 1
        try:
            return await _joined(file.pieces(subject, None if uid in (0, self._owner[0]) else uid))
        finally:
            self._making[uid] -= 1

    @_answered
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Read from the value as it was when reading began."""
        opened = self._files[fh]
        if off == 0:
            self._renew(opened)
        return opened.content[off : off + size]

    @_answered
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Gather a value that may come in pieces; a file that wants no more than a word takes it at once."""
        opened = self._files[fh]
        with self._reported(opened):
            if self._file(opened.inode).check:
                begins = off == 0 and not opened.appends
                await self._gather(opened, buf if begins else _more(opened, off, buf))
            else:
                await self._store(opened, buf)
        return len(buf)

    @_answered
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Store what was gathered: a descriptor is closed, and its close(2) gets the error.

        Not necessarily the last: a shell gives one open file to several programs. So more may follow.
        """
        opened = self._files[fh]
        if opened.failure:
            raise FUSEError(opened.failure)
        if not opened.dirty:
            return
        opened.dirty = False
        with self._reported(opened):
            if was_killed(opened.writer):
                opened.pending = None
                raise BadValue("its writer was killed before the end of it")
            await self._store(opened, opened.pending or b"")

    @_answered
    async def fsync(self, fh: pyfuse3.FileHandleT, _datasync: bool) -> None:  # noqa: FBT001 - as pyfuse3 calls it
        """Store what was gathered, as `flush`."""
        await self.flush(fh)

    @_answered
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a file."""
        opened = self._files.pop(fh, None)
        if opened is None:
            return
        self._hold(opened.uid, -opened.cost)
        key = opened.inode, opened.pid
        if opened in (readers := self._readers.get(key, [])):
            readers.remove(opened)
        if not readers:
            self._readers.pop(key, None)

    @contextlib.contextmanager
    def _reported(self, opened: _Open) -> Iterator[None]:
        """Make a failed write the writer's errno, and log why."""
        path = self._tree.path(opened.inode)
        try:
            yield
        except BadValue as bad:
            log.warning("%s: refused from %s: %s", path, opened.who, bad, extra={"uid": opened.uid})
            opened.failure = errno.EINVAL
        except OSError as failure:
            log.warning("%s: failed for %s: %s", path, opened.who, failure, extra={"uid": opened.uid})
            opened.failure = failure.errno or errno.EIO
        else:
            opened.failure = 0
            return
        raise FUSEError(opened.failure)

    async def _gather(self, opened: _Open, pending: bytes) -> None:
        """Keep what has come so far, if it can become a value."""
        opened.pending, opened.dirty = None, False
        file, subject, text = self._prepared(opened.inode, pending)
        if file.prepare:
            await file.prepare(subject, text)
        if file.look_up:
            await trio.to_thread.run_sync(file.look_up, subject, text)
        if file.check:
            file.check(subject, text)
        opened.pending, opened.dirty = pending, True

    @staticmethod
    def _cut(opened: _Open, size: int) -> None:
        """Cut what was gathered, as ftruncate(2) asks; what was cut to nothing begins anew, refused or not."""
        if size == 0:
            opened.pending, opened.dirty, opened.failure = b"", False, 0
        elif opened.pending:
            opened.pending = opened.pending[:size]

    def _file(self, inode: int) -> File[Any]:
        node = self._node(inode)
        if not isinstance(node, File):
            raise FUSEError(errno.EISDIR)
        return node

    def _content(self, inode: int, uid: int = -1) -> bytes:
        file, subject = self._file(inode), self._tree.subject(inode)
        if subject is None or file.read is None:
            raise FUSEError(errno.ENOENT)
        try:
            return file.read(subject)
        except OSError as failure:
            log.info("%s: cannot be read: %s", self._tree.path(inode), failure, extra={"uid": uid})
            gone = failure.errno in (errno.ENOENT, errno.ENODATA)
            raise FUSEError(errno.ENODATA if gone else errno.EIO) from None

    def _renew(self, opened: _Open) -> None:
        """Take the content again where a reader starts over; what has gone stays as it was."""
        if opened.stale and not self._file(opened.inode).pieces:
            try:
                content = self._content(opened.inode, opened.uid)
                self._hold(opened.uid, len(content) - len(opened.content))
                opened.content = content
            except FUSEError:
                log.debug("%s is gone, its last value stays", self._tree.path(opened.inode))
        opened.stale = True

    async def _store(self, opened: _Open, data: bytes) -> None:
        file, subject, text = self._prepared(opened.inode, data)
        if file.prepare:
            await file.prepare(subject, f"{text}\n")  # it is whole, whether or not it was written with its newline
        if file.look_up:
            await trio.to_thread.run_sync(file.look_up, subject, f"{text}\n")
        if file.write:
            change = self._change(opened)
            file.write(subject, text)
            log.info(
                "written %s", fields(path=self._tree.path(opened.inode), **change(), pid=opened.pid, uid=opened.uid)
            )
        opened.stale = True

    def _change(self, opened: _Open) -> Callable[[], dict[str, str]]:
        """What is to be called after a write, to say what was before it and is now; nothing of what is no setting."""
        path = self._tree.path(opened.inode)
        if not path.startswith("policy/"):
            return dict
        old = self._value(opened.inode)
        return lambda: {"old": old, "new": self._value(opened.inode)}

    def _value(self, inode: int) -> str:
        return self._content(inode).decode().strip()

    def _prepared(self, inode: int, data: bytes) -> tuple[File[Any], Any, str]:
        """What a write is about: the file, its subject, and the text."""
        file, subject = self._file(inode), self._tree.subject(inode)
        if subject is None or file.write is None:
            raise OSError(errno.ENODEV, "it is gone")
        if len(data) > file.limit:
            raise BadValue(f"{len(data)} bytes are too long, the limit is {file.limit}")
        try:
            return file, subject, data.decode(file.encoding)
        except UnicodeDecodeError as bad:
            raise BadValue(f"byte {data[bad.start]:#04x} is not allowed, expected ASCII") from None


async def _joined(pieces: Iterator[bytes]) -> bytes:
    """All the pieces; after each millisecond of making them, others get their turn."""
    made: list[bytes] = []
    began = time.monotonic()
    for piece in pieces:
        made.append(piece)
        if time.monotonic() - began > _TURN:
            await trio.lowlevel.checkpoint()
            began = time.monotonic()
    return b"".join(made)


def _more(opened: _Open, off: int, data: bytes) -> bytes:
    """What has come so far, and more of it. With O_APPEND the offset says nothing: it is the size of what is shown."""
    so_far = opened.pending
    if so_far is None:
        raise BadValue("the beginning of it was refused")
    if off != len(so_far) and not opened.appends:
        opened.pending, opened.dirty = None, False
        raise BadValue(
            f"a write at byte {off}, where {len(so_far)} bytes have come: a part of a value cannot be replaced, "
            "expected the whole of it, from its beginning"
        )
    return so_far + data
