"""Makes directories with exactly the mode that is asked for, whatever the umask is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def make_directory(path: Path, mode: int) -> None:
    """Make a directory with this mode, and the missing ones above it with 0755.

    A directory that exists is left as it is. Raises OSError.
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
