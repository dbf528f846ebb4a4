"""Reads and writes the daemon's file system (docs/configfs.md), and explains why it is not there."""

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

# The meaning of errors of the mount point itself.
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


# Readers of the files of a socket whose value is not one text.
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
    """The mounted file system of a daemon.

    Every open and read is a message to the daemon and back, and there may be thousands of sockets. So a socket's files
    are opened relative to their directory, not from the root, and each is read with one call.
    """

    def __init__(self, root: Path | None = None) -> None:
        """Raises `Failure` if no daemon's file system is there."""
        self.root = root or Path(paths.mounted())
        try:
            self.version = self.read("version").strip()
        except OSError as failure:
            words = _ABSENT.get(failure.errno or 0, f"the file system at {{root}} cannot be read: {failure.strerror}")
            raise Failure(words.format(root=self.root)) from failure

    def read(self, path: str) -> str:
        """The text of a file. Raises OSError."""
        with _opened(self.root / path) as file:
            return _text(file)

    def write(self, path: str, text: str) -> None:
        """Put a whole value into a file by one system call. Raises OSError."""
        with _opened(self.root / path, os.O_WRONLY) as file:
            os.write(file, text.encode() + b"\n")

    def policy(self) -> dict[str, str]:
        """The text of each setting in force. Raises OSError."""
        with _opened(self.root / "policy") as directory:
            return {name: _read(name, directory).removesuffix("\n") for name in os.listdir(directory)}

    def sockets(self) -> list[dict[str, Any]]:
        """All listeners and sockets that this user may see, each as the values of its files by name. Raises OSError.

        A value is None if the socket has none, or if the kernel has forgotten the connection.
        """
        rows = [json.loads(line) for line in self.read("sockets.jsonl").splitlines()]
        return sorted(rows, key=lambda row: int(row["id"]))

    def count(self) -> int:
        """The number of listeners and live sockets of all users. Raises OSError."""
        with _opened(self.root / "listeners") as listeners:
            return int(self.read("stats/sockets")) + len(os.listdir(listeners))

    def socket(self, number: int) -> dict[str, Any] | None:
        """The values of a socket's or listener's files, by name; None if it is gone. Raises OSError."""
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
    """The content of a file. One read gives all of it, unless it has more bytes than the read."""
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
