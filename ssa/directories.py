"""Directories are made with the modes that are meant: mkdir(2) lets the umask take some away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_directory(path: Path, mode: int) -> None:
    """Make a directory with a mode, and those above it that are missing with 0755.

    One that is there is left as it is. Raises OSError.
    """
    path = path.absolute()
    if path.is_dir():
        return
    make_directory(path.parent, 0o755)
    try:
        path.mkdir(0o700)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        path.chmod(mode)
