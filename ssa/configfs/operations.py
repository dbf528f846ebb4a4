"""FUSE's requests to the tree: a thin adapter. It behaves as sysfs does (see docs/configfs.md).

A request is answered at once, with two exceptions. `Tree.refresh` and `File.prepare` may look at files, each with a
deadline; and a file that takes long to make lets other requests have their turn. Only FUSEError may leave a handler:
anything else would end the daemon.

A value is gathered from the writes to one open file, and stored by the flush that each close(2) makes. A write that no
further write could mend is refused at once, because many programs ignore the result of close(2).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import time
from typing import TYPE_CHECKING, Any, Concatenate, NoReturn, ParamSpec, TypeVar

import pyfuse3
import trio
from pyfuse3 import FUSEError

from ssa.configfs.attributes import PAGE, Attributes
from ssa.configfs.handles import Held, OpenDirectory, OpenFile
from ssa.configfs.values import Values
from ssa.configfs.writers import process_of, was_killed
from ssa.policy.parsers import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from ssa.configfs.tree import Tree

log = logging.getLogger("ssa.configfs")

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _answered(
    handler: Callable[Concatenate[Operations, _P], Coroutine[Any, Any, _R]],
) -> Callable[Concatenate[Operations, _P], Coroutine[Any, Any, _R]]:
    """Make a handler answer EIO, and log the failure, where it raises an exception that is not a FUSEError."""

    @functools.wraps(handler)
    async def answer(self: Operations, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            self._tree.hear()
            return await handler(self, *args, **kwargs)
        except FUSEError:
            raise
        except Exception:
            log.exception("%s failed", handler.__name__)
            raise FUSEError(errno.EIO) from None

    return answer


def _refused(number: int) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Make a handler that always answers with this errno."""

    async def refuse(*_: object) -> NoReturn:
        raise FUSEError(number)

    return refuse


class Operations(pyfuse3.Operations):
    """The handlers that pyfuse3 calls."""

    supports_dot_lookup = False

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree
        self._values = Values(tree, os.geteuid())
        self._attributes = Attributes(tree, self._values)
        self._handles = itertools.count(1)
        self._files: dict[int, OpenFile] = {}
        self._directories: dict[int, OpenDirectory] = {}
        self._held = Held()

    # sysfs refuses these, with these errnos.
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
        return self._attributes.of(child, ctx.pid)

    async def forget(self, _inodes: object) -> None:
        """Do nothing: inodes are computed, so none is remembered."""

    @_answered
    async def getattr(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.EntryAttributes:
        """Give an inode's attributes, even if its member is gone: fstat(2) of an open file must succeed."""
        return self._attributes.of(inode, ctx.pid)

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

        ftruncate(2) cuts the value that is being written to this open file.
        """
        if fields.update_mode or fields.update_uid or fields.update_gid:
            raise FUSEError(errno.EPERM)
        if fields.update_size and fh is not None:
            self._files[fh].cut(attr.st_size)
        return self._attributes.of(inode, ctx.pid)

    @_answered
    async def statfs(self, _ctx: pyfuse3.RequestContext) -> pyfuse3.StatvfsData:
        """Say that nothing is stored here."""
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = PAGE
        data.f_namemax = 255
        return data

    # --- directories ---

    @_answered
    async def opendir(self, inode: pyfuse3.InodeT, ctx: pyfuse3.RequestContext) -> pyfuse3.FileHandleT:
        """Open a directory."""
        self._check_room(ctx.uid)
        await self._tree.refresh(inode)
        handle = next(self._handles)
        self._directories[handle] = opened = OpenDirectory(inode, ctx.uid)
        self._held.add(ctx.uid, opened.cost)
        return pyfuse3.FileHandleT(handle)

    def _check_room(self, uid: int) -> None:
        if self._held.is_full(uid):
            raise FUSEError(errno.EMFILE)

    @_answered
    async def readdir(self, fh: pyfuse3.FileHandleT, start_id: int, token: pyfuse3.ReaddirToken) -> None:
        """List a directory as it was when its first entry was read."""
        opened = self._directories[fh]
        if start_id == 0:
            before = opened.cost
            opened.names = list(self._tree.children(opened.inode))
            self._held.add(opened.uid, opened.cost - before)
        for position, (name, child) in enumerate(opened.names[start_id:], start_id + 1):
            entry = pyfuse3.FileNameT(os.fsencode(name))
            if not pyfuse3.readdir_reply(token, entry, self._attributes.of(child), position):
                return

    @_answered
    async def releasedir(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a directory."""
        if (opened := self._directories.pop(fh, None)) is not None:
            self._held.add(opened.uid, -opened.cost)

    @_answered
    async def mkdir(
        self,
        parent_inode: pyfuse3.InodeT,
        name: pyfuse3.FileNameT,
        _mode: pyfuse3.ModeT,
        ctx: pyfuse3.RequestContext,
    ) -> pyfuse3.EntryAttributes:
        """Make a member of a collection that can have new ones. The collection's template decides its mode."""
        with self._permitted(parent_inode, name, ctx, "made"):
            made = self._tree.make(parent_inode, os.fsdecode(name))
        if made is None:
            raise FUSEError(errno.EPERM)
        return self._attributes.of(made)

    @_answered
    async def rmdir(self, parent_inode: pyfuse3.InodeT, name: pyfuse3.FileNameT, ctx: pyfuse3.RequestContext) -> None:
        """Take a member away, with all its files, from a collection that allows that."""
        with self._permitted(parent_inode, name, ctx, "removed"):
            removed = self._tree.remove(parent_inode, os.fsdecode(name))
        if not removed:
            raise FUSEError(errno.EPERM)

    @contextlib.contextmanager
    def _permitted(self, parent: int, name: bytes, ctx: pyfuse3.RequestContext, done: str) -> Iterator[None]:
        """Turn a refusal into the caller's errno, and log the reason."""
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
        """Open a file, and take its content now: a program that reads it in pieces sees one value."""
        await self._tree.refresh(inode)
        file = self._values.file(inode)
        reads, writes = flags & os.O_ACCMODE != os.O_WRONLY, flags & os.O_ACCMODE != os.O_RDONLY
        if (reads and not file.is_readable) or (writes and not file.write):
            raise FUSEError(errno.EACCES)  # to root too, whom the mode does not stop
        self._check_room(ctx.uid)
        if reads and file.pieces:
            content = await self._values.made(inode, file, ctx.uid)
        else:
            content = await self._values.looked(inode, ctx.uid) if reads else b""
        opened = OpenFile(inode, ctx.uid, ctx.pid, content, time.time_ns(), appends=bool(flags & os.O_APPEND))
        opened.writer = process_of(ctx.pid) if writes and file.check else 0
        handle = pyfuse3.FileHandleT(next(self._handles))
        self._files[handle] = opened
        self._held.add(ctx.uid, opened.cost)
        if reads:
            self._attributes.opened(opened)
        return pyfuse3.FileInfo(fh=handle, direct_io=True)

    @_answered
    async def read(self, fh: pyfuse3.FileHandleT, off: int, size: int) -> bytes:
        """Read from the value as it was when reading began."""
        opened = self._files[fh]
        if off == 0:
            await self._renew(opened)
        return opened.content[off : off + size]

    async def _renew(self, opened: OpenFile) -> None:
        """Take the content again for a reader that starts over. If the value has gone, the old content stays."""
        if opened.stale and not self._values.file(opened.inode).pieces:
            try:
                content = await self._values.looked(opened.inode, opened.uid)
                self._held.add(opened.uid, len(content) - len(opened.content))
                opened.content = content
            except FUSEError:
                log.debug("%s is gone, its last value stays", self._tree.path(opened.inode))
        opened.stale = True

    @_answered
    async def write(self, fh: pyfuse3.FileHandleT, off: int, buf: bytes) -> int:
        """Gather a value that may come in several writes; store at once a value that is a single word."""
        opened = self._files[fh]
        with self._values.reported(opened):
            if self._values.file(opened.inode).check:
                await self._values.gather(opened, opened.joined(off, buf))
            else:
                await self._values.store(opened, buf)
        return len(buf)

    @_answered
    async def flush(self, fh: pyfuse3.FileHandleT) -> None:
        """Store the gathered value. A descriptor is being closed, and close(2) returns the error.

        More may follow: a shell gives one open file to several programs, and each closes its descriptor.
        """
        opened = self._files[fh]
        if opened.failure:
            raise FUSEError(opened.failure)
        if not opened.dirty:
            return
        opened.dirty = False
        with self._values.reported(opened):
            if await trio.to_thread.run_sync(was_killed, opened.writer):
                opened.pending = None
                raise BadValue("its writer was killed before the end of it")
            await self._values.store(opened, opened.pending or b"")

    @_answered
    async def fsync(self, fh: pyfuse3.FileHandleT, _datasync: bool) -> None:  # noqa: FBT001 - pyfuse3 passes it by place
        """Store the gathered value, and answer as `flush` does."""
        await self.flush(fh)

    @_answered
    async def release(self, fh: pyfuse3.FileHandleT) -> None:
        """Close a file."""
        if (opened := self._files.pop(fh, None)) is not None:
            self._held.add(opened.uid, -opened.cost)
            self._attributes.closed(opened)
