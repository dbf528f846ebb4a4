"""FUSE's requests to the tree: an adapter, as thin as it can be. It behaves as sysfs does (see docs/configfs.md).

Nothing here waits, so a request is atomic. Only FUSEError may leave a handler: anything else would end the daemon.
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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3
from pyfuse3 import FUSEError

from ssa.configfs.tree import ROOT, File
from ssa.logfmt import fields
from ssa.policy.schema import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ssa.configfs.tree import Node, Tree

log = logging.getLogger("ssa.configfs")

_PAGE = 4096
_FOREVER = 3600.0  # seconds that the kernel may keep what never changes
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


@dataclass(slots=True)
class _Open:
    """An open file."""

    inode: int
    uid: int
    pid: int
    content: bytes
    stale: bool = False  # a read from the start shows the value anew
    pending: bytes | None = b""  # what has come of a value that takes several writes; None: it was refused
    dirty: bool = False  # pending is to be stored

    @property
    def who(self) -> str:
        """Who has opened it."""
        return f"uid {self.uid} pid {self.pid}"


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
        self._listings: dict[int, tuple[int, list[tuple[str, int]]]] = {}

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
        self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, _ctx: pyfuse3.RequestContext
    ) -> pyfuse3.EntryAttributes:
        """Find a name in a directory."""
        child = self._tree.child(parent_inode, os.fsdecode(name))
        if child is None:
            raise FUSEError(errno.ENOENT)
        return self._attributes(child)

    async def forget(self, _inodes: object) -> None:
        """Do nothing: nothing is remembered."""

    @_answered
    async def getattr(self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Give an inode's attributes, which outlive its member: a file that is open must answer fstat()."""
        return self._attributes(inode)

    @_answered
    async def setattr(
        self,
        inode: pyfuse3.InodeT,
        _attr: pyfuse3.EntryAttributes,
        fields: pyfuse3.SetattrFields,
        _fh: pyfuse3.FileHandleT | None,
        _ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Accept touch and truncate, which change nothing; refuse chmod and chown."""
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise FUSEError(errno.EPERM)
        return self._attributes(inode)

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

    def _attributes(self, inode: int) -> pyfuse3.EntryAttributes:
        node = self._node(inode)
        attributes = pyfuse3.EntryAttributes()
        is_file = isinstance(node, File)
        attributes.st_ino = pyfuse3.InodeT(inode)
        attributes.st_mode = pyfuse3.ModeT((stat.S_IFREG if is_file else stat.S_IFDIR) | node.mode)
        attributes.st_nlink = 1
        attributes.st_uid, attributes.st_gid = self._owner
        attributes.st_size = _PAGE if is_file else 0
        attributes.st_blksize = _PAGE
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = self._started
        attributes.entry_timeout = attributes.attr_timeout = self._lifetime(inode)
        return attributes

    def _lifetime(self, inode: int) -> float:
        """How long the kernel need not ask again; for the root never, so that a crashed daemon does not look alive."""
        return _FOREVER if inode != ROOT and self._tree.is_fixed(inode) else 0

    # --- directories ---

    @_answered
    async def opendir(self, inode: pyfuse3.InodeT, _ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory."""
        handle = next(self._handles)
        self._listings[handle] = (inode, [])
        return pyfuse3.FileHandleT(handle)

    @_answered
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory as it was at the first entry."""
        inode, names = self._listings[fh]
        if start_id == 0:
            names[:] = self._tree.children(inode)
        for position, (name, child) in enumerate(names[start_id:], start_id + 1):
            entry = pyfuse3.FileNameT(os.fsencode(name))
            if not pyfuse3.readdir_reply(token, entry, self._attributes(child), position):
                return

    @_answered
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a directory."""
        self._listings.pop(fh, None)

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
        file = self._file(inode)
        reads, writes = flags & os.O_ACCMODE != os.O_WRONLY, flags & os.O_ACCMODE != os.O_RDONLY
        if (reads and not file.read) or (writes and not file.write):
            raise FUSEError(errno.EACCES)  # to root too, whom the mode does not stop
        content = self._content(inode, ctx.uid) if reads else b""
        handle = pyfuse3.FileHandleT(next(self._handles))
        self._files[handle] = _Open(inode, ctx.uid, ctx.pid, content)
        return pyfuse3.FileInfo(fh=handle, direct_io=True)

    @_answered
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Read from the value as it was when reading began."""
        opened = self._files[fh]
        if off == 0:
            self._renew(opened)
        return opened.content[off : off + size]

    @_answered
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Store a whole value, wherever in the file it is written; or gather a value that may come in pieces."""
        opened = self._files[fh]
        with self._reported(opened):
            if self._file(opened.inode).check:
                self._gather(opened, buf if off == 0 else _more(opened.pending, buf))
            else:
                self._store(opened, buf)
        return len(buf)

    @_answered
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Store what was gathered: a descriptor is closed, and its close(2) gets the error.

        Not necessarily the last: a shell gives one open file to several programs. So more may follow.
        """
        opened = self._files[fh]
        if not opened.dirty:
            return
        opened.dirty = False
        with self._reported(opened):
            self._store(opened, opened.pending or b"")

    @_answered
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a file."""
        self._files.pop(fh, None)

    @contextlib.contextmanager
    def _reported(self, opened: _Open) -> Iterator[None]:
        """Make a failed write the writer's errno, and log why."""
        path = self._tree.path(opened.inode)
        try:
            yield
        except BadValue as bad:
            log.warning("%s: refused from %s: %s", path, opened.who, bad, extra={"uid": opened.uid})
            raise FUSEError(errno.EINVAL) from None
        except OSError as failure:
            log.warning("%s: failed for %s: %s", path, opened.who, failure, extra={"uid": opened.uid})
            raise FUSEError(failure.errno or errno.EIO) from None

    def _gather(self, opened: _Open, pending: bytes) -> None:
        """Keep what has come so far, if it can become a value."""
        opened.pending, opened.dirty = None, False
        file, subject, text = self._prepared(opened.inode, pending)
        if file.check:
            file.check(subject, text)
        opened.pending, opened.dirty = pending, True

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
        if opened.stale:
            try:
                opened.content = self._content(opened.inode, opened.uid)
            except FUSEError:
                log.debug("%s is gone, its last value stays", self._tree.path(opened.inode))
        opened.stale = True

    def _store(self, opened: _Open, data: bytes) -> None:
        file, subject, text = self._prepared(opened.inode, data)
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
            return file, subject, data.decode("ascii")
        except UnicodeDecodeError as bad:
            raise BadValue(f"byte {data[bad.start]:#04x} is not allowed, expected ASCII") from None


def _more(pending: bytes | None, data: bytes) -> bytes:
    if pending is None:
        raise BadValue("the beginning of it was refused")
    return pending + data
