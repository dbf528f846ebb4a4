"""Reading and writing the daemon's file system: its files as values, its absence in words (docs/configfs.md)."""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING, Any

from ssa import paths
from ssa.cli.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

_ESCAPE = re.compile(r"\\([0-7]{3})")

# What the errors of the mount point itself mean.
_ABSENT: dict[int, str] = {
    errno.ENOENT: "no ssad has its file system at {root}: start `ssad` (as root), or point SSA_MOUNT to where "
    "`ssad --user` has it",
    errno.ENOTCONN: "the ssad whose file system is at {root} is gone: start `ssad` again, it takes the place over",
    errno.EACCES: "the file system at {root} is for another user: its ssad runs for that user alone",
}
_GONE = frozenset({errno.ENOENT, errno.ENODEV})


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
    """The mounted file system of the daemon that is asked."""

    def __init__(self, root: Path | None = None) -> None:
        """Raises `Failure` where no daemon's file system is."""
        self.root = root or paths.mount_point()
        try:
            self.version = self.read("version").strip()
        except OSError as failure:
            told = _ABSENT.get(failure.errno or 0, f"the file system at {{root}} does not answer: {failure.strerror}")
            raise Failure(told.format(root=self.root)) from failure

    def read(self, path: str) -> str:
        """A file's text. Raises OSError."""
        return (self.root / path).read_bytes().decode("utf-8", "surrogateescape")

    def write(self, path: str, text: str) -> None:
        """Put a value into a file: one write, whole. Raises OSError."""
        descriptor = os.open(self.root / path, os.O_WRONLY)
        try:
            os.write(descriptor, text.encode() + b"\n")
        finally:
            os.close(descriptor)

    def policy(self) -> dict[str, str]:
        """The text of each setting in force. Raises OSError."""
        return {name: self.read(f"policy/{name}").removesuffix("\n") for name in self._names("policy")}

    def socket_ids(self) -> list[int]:
        """The live sockets, in order of their making."""
        return sorted(map(int, self._names("sockets")))

    def socket(self, number: int, names: Iterable[str] | None = None) -> dict[str, Any] | None:
        """A socket's files by name, all of them if none are named; None if it is gone, maybe meanwhile.

        What the kernel does not know of it (any more) is None.
        """
        directory = f"sockets/{number}"
        found: dict[str, Any] = {"id": number}
        try:
            for name in self._readable(directory) if names is None else names:
                found[name] = self._value(directory, name)
        except OSError as failure:
            if failure.errno in _GONE:
                return None
            raise
        return found

    def _readable(self, directory: str) -> list[str]:
        return [name for name in self._names(directory) if (self.root / directory / name).stat().st_mode & 0o444]

    def _names(self, directory: str) -> list[str]:
        return [entry.name for entry in (self.root / directory).iterdir()]

    def _value(self, directory: str, name: str) -> Any:
        try:
            text = self.read(f"{directory}/{name}")
        except OSError as failure:
            if failure.errno == errno.ENODATA:
                return None
            raise
        return _KINDS.get(name, _one)(text)
