"""`ssa env`: the variables by which programs find a daemon, for the shell to set."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssa.cli import output
from ssa.cli.failure import Failure
from ssa.cli.verb import Verb
from ssa.protocol import paths

if TYPE_CHECKING:
    import argparse


def _variables() -> dict[str, str]:
    """Raises `Failure` where no daemon of this user has run."""
    directory = os.environ.get("SSA_RUN_DIR") or paths.user_run_dir()
    if not _is_ours(Path(directory)):
        raise Failure(f"no daemon of yours runs on {directory}: start `ssad --user`")
    return {
        "SSA_RUN_DIR": directory,
        "SSA_MOUNT": paths.told(directory, paths.MOUNT_LINK) or paths.mounted(),
        "SSA_CONFIG": paths.told(directory, paths.CONFIG_LINK) or paths.policy_file(),
    }


def _is_ours(directory: Path) -> bool:
    """Tell whether the directory holds a daemon's socket and is this user's or root's.

    Anybody can make the directory under /tmp that `ssad --user` would take.
    """
    try:
        owner = directory.lstat().st_uid
    except OSError:
        return False
    return owner in (os.geteuid(), 0) and Path(paths.socket_path(directory)).is_socket()


def _run(options: argparse.Namespace) -> int:
    variables = _variables()
    if options.json:
        output.print_json(variables)
    else:
        sys.stdout.write(f"export {' '.join(f'{name}={shlex.quote(path)}' for name, path in variables.items())}\n")
    return 0


VERB = Verb(
    name="env",
    summary="print the variables by which your programs find `ssad --user`",
    description="""\
Prints a line of shell that sets SSA_RUN_DIR, SSA_MOUNT and SSA_CONFIG to those of your own daemon (`ssad --user`), or
of the daemon whose run directory SSA_RUN_DIR names. Programs started from that shell use it.
""",
    examples='eval "$(ssa env)"\n',
    run=_run,
)
