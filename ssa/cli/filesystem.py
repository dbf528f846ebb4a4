"""Reading and writing the daemon's file system: its files as values, its absence in words (docs/configfs.md)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssa.cli.failure import Failure
from ssa.protocol import paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What the errors of the mount point itself mean.
_ABSENT: dict[int, str] = {
    errno.ENOENT: "no ssad has its file system at {root}: start `ssad` (as root); for your own `ssad --user`: "
    'eval "$(ssa env)"',
    errno.ENOTCONN: "the ssad whose file system is at {root} is gone: start `ssad` again, it takes the place over",
    errno.EACCES: "the file system at {root} is for another user: its ssad runs for that user alone",
}
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ESTALE})
_ROOM = 1 << 20  # bytes of one read


def _one(text: str) -> str | None:
    return text.removesuffix("\n") or None


def _several(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def _number(text: str) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _truth(text: str) -> bool:
    return text == "yes\n"


def _verbatim(text: str) -> str | None:
    return text.strip() and text


# The files of a socket that are not one value a file, as text.
_KINDS: dict[str, Callable[[str], Any]] = {
    "peer_cert": _verbatim,
    "peer_chain": _verbatim,
    "own_cert": _verbatim,
    "resumed": _truth,
    "pid": _number,
    "uid": _number,
    "verdicts": _several,
    "bytes_sent": _number,
    "bytes_received": _number,
    "credentials": _several,
}


class FileSystem:
    """The mounted file system of the daemon that is asked.

    Each question to it is a message to the daemon and back, and there may be thousands of sockets: so their files are
    opened from their directory, not from the root, and read by one call.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Raises `Failure` where no daemon's file system is."""
        self.root = root or Path(paths.mounted())
        try:
            self.version = self.read("version").strip()
        except OSError as failure:
            told = _ABSENT.get(failure.errno or 0, f"the file system at {{root}} does not answer: {failure.strerror}")
            raise Failure(told.format(root=self.root)) from failure

    def read(self, path: str) -> str:
        """A file's text. Raises OSError."""
        with _opened(self.root / path) as file:
            return _text(file)

    def write(self, path: str, text: str) -> None:
        """Put a value into a file: one write, whole. Raises OSError."""
        with _opened(self.root / path, os.O_WRONLY) as file:
            os.write(file, text.encode() + b"\n")

    def policy(self) -> dict[str, str]:
        """The text of each setting in force. Raises OSError."""
        with _opened(self.root / "policy") as directory:
            return {name: _read(name, directory).removesuffix("\n") for name in os.listdir(directory)}

    def sockets(self) -> list[dict[str, Any]]:
        """The listeners and live sockets that the reader may see, as values by the name of their files. Raises OSError.

        What a socket has no value for, or the kernel does not know of it (any more), is None.
        """
        rows = [json.loads(line) for line in self.read("sockets.jsonl").splitlines()]
        return sorted(rows, key=lambda row: int(row["id"]))

    def count(self) -> int:
        """How many listeners and live sockets there are, of all users. Raises OSError."""
        with _opened(self.root / "listeners") as listeners:
            return int(self.read("stats/sockets")) + len(os.listdir(listeners))

    def socket(self, number: int) -> dict[str, Any] | None:
        """A socket's or listener's files by name; None if it is gone, maybe meanwhile. Raises OSError."""
        found = (self._member(collection, number) for collection in ("sockets", "listeners"))
        return next((files for files in found if files is not None), None)

    def _member(self, collection: str, number: int) -> dict[str, Any] | None:
        try:
            with _opened(self.root / collection / str(number)) as directory:
                return {"id": number, **{name: _value(name, directory) for name in _readable(directory)}}
        except OSError as failure:
            if failure.errno in _GONE:
                return None
            raise


@contextlib.contextmanager
def _opened(path: str | Path, flags: int = os.O_RDONLY, directory: int | None = None) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _text(file: int) -> str:
    """A file's content: as on every file system like this one, what one read gives is all there is, if it has room."""
    pieces = [os.read(file, _ROOM)]
    while pieces[-1] and len(pieces[-1]) % _ROOM == 0:
        pieces.append(os.read(file, _ROOM))
    return b"".join(pieces).decode("utf-8", "surrogateescape")


def _read(name: str, directory: int) -> str:
    with _opened(name, directory=directory) as file:
        return _text(file)


def _readable(directory: int) -> list[str]:
    return [name for name in os.listdir(directory) if os.stat(name, dir_fd=directory).st_mode & 0o444]


def _value(name: str, directory: int) -> Any:
    try:
        return _KINDS.get(name, _one)(_read(name, directory))
    except OSError as failure:
        if failure.errno == errno.ENODATA:
            return None
        raise
