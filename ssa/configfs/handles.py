"""Open files and open directories, and how many bytes each user's may cost the daemon."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from ssa.policy.parsers import BadValue

_MOST_HELD = 32 << 20  # bytes of content and names that one user may hold open; root may hold any number
_HANDLE = 512  # bytes, about, that an open file or directory costs besides its content
_NAME = 128  # bytes, about, that a name in a listing costs


@dataclass(slots=True, eq=False)
class OpenFile:
    """An open file, with the content that it was opened with and the value that is being written to it."""

    inode: int
    uid: int
    pid: int
    content: bytes
    opened: int  # nanoseconds since 1970
    writer: int = 0  # the process; `pid` may be one of its threads
    appends: bool = False  # O_APPEND
    stale: bool = False  # the next read from the start makes the content again
    pending: bytes | None = b""  # the value as far as it has been written; None: it was refused
    dirty: bool = False  # `pending` has to be stored
    failure: int = 0  # errno of the close(2) that could not store it

    @property
    def cost(self) -> int:
        """The bytes that it costs, about."""
        return _HANDLE + len(self.content)

    @property
    def who(self) -> str:
        """The user and process that opened it, for the log."""
        return f"uid {self.uid} pid {self.pid}"

    def joined(self, off: int, data: bytes) -> bytes:
        """The value with `data`, written at byte `off`. With O_APPEND `off` means nothing: it is the size shown.

        Raises `BadValue` for a write that does not go on where the last one ended.
        """
        if off == 0 and not self.appends:
            return data
        so_far = self.pending
        if so_far is None:
            raise BadValue("the beginning of the value was refused, expected the whole of it, from its beginning")
        if off != len(so_far) and not self.appends:
            self.pending, self.dirty = None, False
            raise BadValue(
                f"a write at byte {off}, where {len(so_far)} bytes have come: a part of a value cannot be replaced, "
                "expected the whole of it, from its beginning"
            )
        return so_far + data

    def cut(self, size: int) -> None:
        """Cut the value as ftruncate(2) asks. Cut to nothing, it begins anew, even if it was refused."""
        if size == 0:
            self.pending, self.dirty, self.failure = b"", False, 0
        elif self.pending:
            self.pending = self.pending[:size]


@dataclass(slots=True)
class OpenDirectory:
    """An open directory, with its names and their inodes as they were when it was read from its start."""

    inode: int
    uid: int
    names: list[tuple[str, int]] = field(default_factory=list)

    @property
    def cost(self) -> int:
        """The bytes that it costs, about."""
        return _HANDLE + _NAME * len(self.names)


class Held:
    """Counts the bytes that open files and directories cost, by user."""

    def __init__(self) -> None:
        self._bytes: Counter[int] = Counter()

    def is_full(self, uid: int) -> bool:
        """True for a user who may open no more until some of it is closed. It is never true for root."""
        return uid != 0 and self._bytes[uid] > _MOST_HELD

    def add(self, uid: int, cost: int) -> None:
        """Count more bytes, or fewer where `cost` is negative."""
        self._bytes[uid] += cost
        if not self._bytes[uid]:
            del self._bytes[uid]
