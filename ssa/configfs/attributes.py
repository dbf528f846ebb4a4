"""The attributes that stat(2) shows of a file or directory."""

from __future__ import annotations

import os
import stat
import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyfuse3

from ssa.configfs.nodes import File
from ssa.configfs.tree import ROOT

if TYPE_CHECKING:
    from ssa.configfs.handles import OpenFile
    from ssa.configfs.tree import Tree
    from ssa.configfs.values import Values

PAGE = 4096
_BLOCK = 512  # bytes, of st_blocks
_FOREVER = 3600.0  # seconds for which the kernel may keep what never changes


@dataclass(slots=True)
class _Extent:
    """The size of a file, and the time of its last change in nanoseconds since 1970."""

    size: int
    changed: int


class Attributes:
    """Makes the attributes of inodes, and remembers who has which file open."""

    def __init__(self, tree: Tree, values: Values) -> None:
        self._tree = tree
        self._values = values
        self._owner = (os.geteuid(), os.getegid())
        self._started = time.time_ns()
        self._readers: defaultdict[tuple[int, int], list[OpenFile]] = defaultdict(list)  # by inode and process

    def opened(self, reader: OpenFile) -> None:
        """Note that a process reads a file."""
        self._readers[reader.inode, reader.pid].append(reader)

    def closed(self, reader: OpenFile) -> None:
        """Forget a reader, if it was one."""
        key = reader.inode, reader.pid
        if reader in (readers := self._readers.get(key, [])):
            readers.remove(reader)
        if not readers:
            self._readers.pop(key, None)

    def of(self, inode: int, pid: int = 0) -> pyfuse3.EntryAttributes:
        """The attributes of an inode, for a process that may have it open. They outlive the inode's member.

        Raises FUSEError ENOENT.
        """
        node = self._values.node(inode)
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
        attributes.st_blocks = -(-extent.size // _BLOCK)  # fewer would mean holes, and cp does not read those
        attributes.st_blksize = PAGE
        attributes.st_atime_ns = attributes.st_mtime_ns = attributes.st_ctime_ns = extent.changed
        attributes.entry_timeout = self._lifetime(inode)
        attributes.attr_timeout = 0 if isinstance(node, File) else attributes.entry_timeout
        return attributes

    def _lifetime(self, inode: int) -> float:
        """The seconds for which the kernel need not ask again: 0 for the root, so that a crashed daemon is noticed."""
        return _FOREVER if inode != ROOT and self._tree.is_fixed(inode) else 0

    def _extent(self, inode: int, file: File[Any], pid: int) -> _Extent:
        """A file's size and time. A process that has the file open is shown no less than it can read.

        So a program that reads as many bytes as fstat(2) says reads all, even if the value has changed since.
        """
        mine = self._readers.get((inode, pid), ())
        sizes = [len(opened.content) for opened in mine]
        subject = self._tree.subject(inode)
        if subject is not None and not file.is_readable:
            return _Extent(0, file.changed(subject) if file.changed else self._started)
        if subject is not None and file.changed is not None:
            return _Extent(max(len(self._values.content(inode)), *sizes, 0), file.changed(subject))
        if mine:
            return _Extent(max(sizes), max(opened.opened for opened in mine))
        most = file.most(subject) if file.most and subject is not None else 0
        return _Extent(max(most, PAGE), time.time_ns())
