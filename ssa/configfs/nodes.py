"""The rows of the file system's tables: a file, a directory, a collection. Nothing here knows of FUSE.

A file's `read` makes its bytes from a subject, and its `write` takes text to that subject; which of the two it has
decides its mode. A `Directory` has fixed children. A `Collection` has one child for each of its members, and every
child is a copy of one template: so it is with the sockets and the counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ssa.policy.parsers import MAX_TEXT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from ssa.configfs.members import Members

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class File(Generic[S]):
    """One file: its name, its text for the manual, and functions that make and take its content.

    Attributes:
        doc: one line for the manual.
        read: makes the content from the subject; raises OSError.
        write: takes a whole new value; raises `BadValue` or OSError, and then it has changed nothing. What it returns
            is waited for: it raises likewise.
        limit: the most bytes that one value may have.
        encoding: of the text. latin-1 accepts every byte, for a text that may have comments in it.
        prepare: runs before `check` and `write`, and does what may take long. It raises as they do.
        refresh: runs before the file is opened, and finds out what is there now.
        look: runs before a member's file is read, and asks others about the subject; it raises nothing.
        check: for a value that may come in several writes and is complete when the file is closed. It takes the text
            that has come so far, and raises as `write` does if no more text can make it a value.
        look_up: runs in a thread before `check` and `write`, and does what may take long. It raises as they do.
        changed: gives the time of the last change, in nanoseconds since 1970. None: the content may change at any
            time, so its time and its size are unknown until it is opened.
        pieces: makes content that takes long, in place of `read`: for the sockets of one user, or of all for None.
        most: the most bytes that the file can have, if its size is unknown until it is opened. A page by default.
    """

    name: str
    doc: str
    read: Callable[[S], bytes] | None = None
    write: Callable[[S, str], Awaitable[None] | None] | None = None
    limit: int = MAX_TEXT
    prepare: Callable[[S, str], Awaitable[None]] | None = None
    check: Callable[[S, str], None] | None = None
    look_up: Callable[[S, str], None] | None = None
    encoding: str = "ascii"
    refresh: Callable[[], Awaitable[None]] | None = None
    look: Callable[[S], Awaitable[None]] | None = None
    changed: Callable[[S], int] | None = None
    pieces: Callable[[S, int | None], Iterator[bytes]] | None = None
    most: Callable[[S], int] | None = None

    @property
    def is_readable(self) -> bool:
        """True if the file has content to read."""
        return bool(self.read or self.pieces)

    @property
    def mode(self) -> int:
        """The permission bits: everyone reads what can be read, and the owner writes what can be written."""
        return (0o444 if self.is_readable else 0) | (0o200 if self.write else 0)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory whose children are fixed."""

    name: str
    doc: str
    children: tuple[Node, ...]
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Collection:
    """A directory with one child for each member. Every child is a copy of the template `each`.

    Attributes:
        create: makes a member of this name (mkdir); raises ValueError or OSError.
        remove: takes the member of this name away (rmdir); raises OSError.
        owner: gives the uid that a member belongs to; only that user and root may look into it. None: every member
            is the daemon's.
        refresh: runs before the directory is looked at, and finds out what is there now.
    """

    name: str
    doc: str
    members: Members[Any]
    each: File[Any] | Directory
    mode: int = 0o755
    create: Callable[[str], None] | None = None
    remove: Callable[[str], None] | None = None
    owner: Callable[[Any], int] | None = None
    refresh: Callable[[], Awaitable[None]] | None = None


Node = File[Any] | Directory | Collection
