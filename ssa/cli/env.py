"""`ssa env`: prints shell code that sets the variables by which programs find a daemon."""

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
    """The variables. Raises `Failure` if this user has no daemon."""
    directory = os.environ.get("SSA_RUN_DIR") or paths.user_run_dir()
    if not is_ours(Path(directory)):
        raise Failure(f"no daemon of yours has its socket in {directory}: start `ssad --user`")
    return {
        "SSA_RUN_DIR": directory,
        "SSA_MOUNT": paths.told(directory, paths.MOUNT_LINK) or paths.mounted(),
        "SSA_CONFIG": paths.told(directory, paths.CONFIG_LINK) or paths.policy_file(),
    }


def is_ours(directory: Path) -> bool:
    """True if the directory has a daemon's socket in it, and belongs to this user or root.

    The owner is checked because any user can make the directory under /tmp that `ssad --user` would use.
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
Prints a line of shell code that sets SSA_RUN_DIR, SSA_MOUNT and SSA_CONFIG for your own daemon (`ssad --user`), or for
the daemon whose run directory SSA_RUN_DIR names. Programs started from that shell then use that daemon.
""",
    examples='eval "$(ssa env)"\n',
    run=_run,
)
