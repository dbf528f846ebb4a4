"""`ssad --check`: reads all files that ssad would start with, and says what is wrong with each. Nothing is started."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ssa import trust
from ssa.credentials import CredentialStore
from ssa.errors import printable
from ssa.policy import files, levels
from ssa.policy.schema import BadValue, Policy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_LONGEST = 1000  # characters of a line


def check(config: Path, *, required: bool, avoid: str) -> int:
    """Check the files and print a line for each part; the process's exit status: 1 if anything is wrong.

    Args:
        config: the policy's file, beside which the others are.
        required: somebody named it, so it has to be there.
        avoid: ssad's mount point, below which no file is read.
    """
    policy = Policy.default()

    def read_policy() -> str:
        nonlocal policy
        policy, source = files.find(config, required=required)
        return source or f"the defaults, as {config} is not there"

    def read_anchors() -> str:
        store = trust.TrustStore.load(policy.trust_store, avoid)
        return f"{policy.trust_store}, {len(store)} anchors"

    def read_credentials() -> str:
        folder = CredentialStore(config.parent / "credentials", avoid).read_again()
        return f"{len(folder.stored())} in {config.parent / 'credentials'}"

    good = [
        _part("policy", read_policy),
        _part("trust_store", read_anchors),
        _part("credentials", read_credentials),
        *(_level(path) for path in _levels(config.parent / "levels.d")),
    ]
    return 0 if all(good) else 1


def _levels(directory: Path) -> list[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.suffix == ".toml")
    except FileNotFoundError:
        return []


def _level(path: Path) -> bool:
    def read() -> str:
        levels.check_name_untrusted(path.stem)
        if path.stem in levels.LEVELS:
            raise BadValue(f"{path}: {path.stem} is a level of ssa's own: give the file another name")
        return files.load_level(path).source

    return _part(f"level {path.stem}", read)


def _part(name: str, read: Callable[[], str]) -> bool:
    """Read one part, and print what it is or what is wrong with it. Returns True if nothing is."""
    try:
        print(f"{name}: ok: {printable(read(), _LONGEST)}")  # noqa: T201 - the output of --check
    except (OSError, ValueError) as failure:
        print(f"{name}: {printable(_words(failure), _LONGEST)}", file=sys.stderr)  # noqa: T201 - the output of --check
        return False
    return True


def _words(failure: OSError | ValueError) -> str:
    if isinstance(failure, OSError) and failure.filename and failure.strerror:
        return f"{failure.filename}: {failure.strerror}"
    return str(failure)
