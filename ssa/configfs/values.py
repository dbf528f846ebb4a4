"""Reading and writing the value of a file, with the errno and the line of the log for each failure."""

from __future__ import annotations

import contextlib
import errno
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import trio
from pyfuse3 import FUSEError

from ssa.configfs.nodes import File
from ssa.logfmt import fields
from ssa.policy.parsers import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ssa.configfs.handles import OpenFile
    from ssa.configfs.nodes import Node
    from ssa.configfs.tree import Tree

log = logging.getLogger("ssa.configfs")

_TURN = 0.001  # seconds of making a long file, before other requests get their turn
_MOST_MAKING = 4  # long files that are made for one user at a time


class Values:
    """The values of a tree's files."""

    def __init__(self, tree: Tree, owner: int) -> None:
        self._tree = tree
        self._owner = owner  # the daemon's uid, which sees what root sees
        self._making: Counter[int] = Counter()  # long files, by uid

    def node(self, inode: int) -> Node:
        """The node of an inode. Raises FUSEError ENOENT."""
        node = self._tree.node(inode)
        if node is None:
            raise FUSEError(errno.ENOENT)
        return node

    def file(self, inode: int) -> File[Any]:
        """The file of an inode. Raises FUSEError ENOENT, or EISDIR for a directory."""
        node = self.node(inode)
        if not isinstance(node, File):
            raise FUSEError(errno.EISDIR)
        return node

    # --- reading ---

    def content(self, inode: int, uid: int = -1) -> bytes:
        """The content of a file now. Raises FUSEError: ENOENT, ENODATA where the value has gone, EIO."""
        file, subject = self.file(inode), self._tree.subject(inode)
        if subject is None or file.read is None:
            raise FUSEError(errno.ENOENT)
        try:
            return file.read(subject)
        except OSError as failure:
            log.info("%s: cannot be read: %s", self._tree.path(inode), failure, extra={"uid": uid})
            gone = failure.errno in (errno.ENOENT, errno.ENODATA)
            raise FUSEError(errno.ENODATA if gone else errno.EIO) from None

    async def looked(self, inode: int, uid: int = -1) -> bytes:
        """The content of a file, after those who know were asked. Raises as `content` does."""
        file, subject = self.file(inode), self._tree.subject(inode)
        if subject is not None and file.look is not None:
            await file.look(subject)
        return self.content(inode, uid)

    async def made(self, inode: int, file: File[Any], uid: int) -> bytes:
        """The content of a file that takes long to make, as that user may see it. Other requests get their turn.

        Raises FUSEError: ENOENT, EBUSY where too many are being made for that user.
        """
        subject = self._tree.subject(inode)
        if subject is None or file.pieces is None:
            raise FUSEError(errno.ENOENT)
        if uid != 0 and self._making[uid] >= _MOST_MAKING:
            raise FUSEError(errno.EBUSY)
        self._making[uid] += 1
        try:
            return await _joined(file.pieces(subject, None if uid in (0, self._owner) else uid))
        finally:
            self._making[uid] -= 1

    # --- writing ---

    async def gather(self, opened: OpenFile, pending: bytes) -> None:
        """Keep the text that has come so far, if it can still become a value. Raises `BadValue` or OSError."""
        opened.pending, opened.dirty = None, False
        file, subject, text = self._writable(opened.inode, pending)
        await _look_ahead(file, subject, text)
        if file.check:
            file.check(subject, text)
        opened.pending, opened.dirty = pending, True

    async def store(self, opened: OpenFile, data: bytes) -> None:
        """Store a whole value, and log that. Raises `BadValue` or OSError."""
        file, subject, text = self._writable(opened.inode, data)
        await _look_ahead(file, subject, f"{text}\n")  # the value is whole, even if no newline was written
        if file.write:
            change = self._change(opened)
            if (done := file.write(subject, text)) is not None:
                await done
            path = self._tree.path(opened.inode)
            log.info("written %s", fields(path=path, **change(), pid=opened.pid, uid=opened.uid))
        opened.stale = True

    @contextlib.contextmanager
    def reported(self, opened: OpenFile) -> Iterator[None]:
        """Turn the failure of a write into the writer's errno, and log the reason."""
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

    def _writable(self, inode: int, data: bytes) -> tuple[File[Any], Any, str]:
        """The file that is written, its subject, and the text that the bytes are. Raises `BadValue` or OSError."""
        file, subject = self.file(inode), self._tree.subject(inode)
        if subject is None or file.write is None:
            raise OSError(errno.ENODEV, "it is gone")
        if len(data) > file.limit:
            raise BadValue(f"{len(data)} bytes are too long, the limit is {file.limit}")
        try:
            return file, subject, data.decode(file.encoding)
        except UnicodeDecodeError as bad:
            raise BadValue(f"byte {data[bad.start]:#04x} is not allowed, expected ASCII") from None

    def _change(self, opened: OpenFile) -> Callable[[], dict[str, str]]:
        """A function to call after a write. It gives a setting's old and new value, and nothing for other files."""
        path = self._tree.path(opened.inode)
        if not path.startswith("policy/"):
            return dict
        old = self._value(opened.inode)
        return lambda: {"old": old, "new": self._value(opened.inode)}

    def _value(self, inode: int) -> str:
        return self.content(inode).decode().strip()


async def _look_ahead(file: File[Any], subject: object, text: str) -> None:
    if file.prepare:
        await file.prepare(subject, text)
    if file.look_up:
        await trio.to_thread.run_sync(file.look_up, subject, text)


async def _joined(pieces: Iterator[bytes]) -> bytes:
    """All pieces in one. After each millisecond of making them, other requests get their turn."""
    made: list[bytes] = []
    began = time.monotonic()
    for piece in pieces:
        made.append(piece)
        if time.monotonic() - began > _TURN:
            await trio.lowlevel.checkpoint()
            began = time.monotonic()
    return b"".join(made)
