"""Reading and writing the daemon's file system: its files as values, its absence in words (docs/configfs.md)."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssa import paths
from ssa.cli.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_ESCAPE = re.compile(r"\\([0-7]{3})")

# What the errors of the mount point itself mean.
_ABSENT: dict[int, str] = {
    errno.ENOENT: "no ssad has its file system at {root}: start `ssad` (as root), or point SSA_MOUNT to where "
    "`ssad --user` has it",
    errno.ENOTCONN: "the ssad whose file system is at {root} is gone: start `ssad` again, it takes the place over",
    errno.EACCES: "the file system at {root} is for another user: its ssad runs for that user alone",
}
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ESTALE})
_ROOM = 1 << 16  # bytes of one read


def unescaped(line: str) -> str:
    """One line of a file as the value that it stands for."""
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), line)


def _one(text: str) -> str | None:
    return unescaped(text.removesuffix("\n")) or None


def _several(text: str) -> list[str]:
    return [unescaped(line) for line in text.splitlines() if line]


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
    "resumed": _truth,
    "pid": _number,
    "uid": _number,
    "verdicts": _several,
    "bytes_sent": _number,
    "bytes_received": _number,
    "compliant": _truth,
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

    def socket_ids(self) -> list[int]:
        """The live sockets, in order of their making. Raises OSError."""
        with _opened(self.root / "sockets") as directory:
            return sorted(map(int, os.listdir(directory)))

    def socket(self, number: int, names: Iterable[str] | None = None) -> dict[str, Any] | None:
        """A socket's files by name, all of them if none are named; None if it is gone, maybe meanwhile.

        What the kernel does not know of it (any more) is None. Raises OSError.
        """
        try:
            with _opened(self.root / "sockets" / str(number)) as directory:
                return {"id": number, **{name: _value(name, directory) for name in names or _readable(directory)}}
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
    data = os.read(file, _ROOM)
    while len(data) % _ROOM == 0 and (more := os.read(file, _ROOM)):
        data += more
    return data.decode("utf-8", "surrogateescape")


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
