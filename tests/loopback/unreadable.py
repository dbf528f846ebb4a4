"""A file system with one file, `page`, that can be opened and mapped, and is never done with being read.

    python unreadable.py MOUNTPOINT

It prints "ready", and "asked" when somebody reads. Memory that is mapped from the file keeps whoever touches it
waiting, the kernel in the middle of a send too, until this process is killed.
"""

# ruff: noqa: ARG002, T201 - pyfuse3 says what a method is called with; we are asked to print

import os
import stat
import sys

import pyfuse3
import trio

PAGE = pyfuse3.ROOT_INODE + 1


class Unreadable(pyfuse3.Operations):
    """What there is."""

    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino = inode
        entry.st_mode = stat.S_IFDIR | 0o755 if inode == pyfuse3.ROOT_INODE else stat.S_IFREG | 0o444
        entry.st_size = 4096
        return entry

    async def lookup(self, parent_inode, name, ctx=None):
        return await self.getattr(PAGE)

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=inode)

    async def read(self, fh, off, size):
        print("asked", flush=True)
        await trio.sleep_forever()


def main(mountpoint):
    pyfuse3.init(Unreadable(), mountpoint, {*pyfuse3.default_options, "fsname=unreadable", "allow_other"})
    print("ready", flush=True)
    trio.run(pyfuse3.main)


if __name__ == "__main__":
    main(os.fsdecode(sys.argv[1]))
