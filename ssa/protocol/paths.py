"""Where things are: three environment variables move everything, so that several daemons can run side by side."""

from __future__ import annotations

import os


def run_dir() -> str:
    """The daemon's run directory: ``SSA_RUN_DIR``, else /run/ssa."""
    return os.environ.get("SSA_RUN_DIR") or "/run/ssa"


def mount_point() -> str:
    """Where the file system is mounted: ``SSA_MOUNT``, else /ssa."""
    return os.environ.get("SSA_MOUNT") or "/ssa"


def config_file() -> str:
    """The policy that outlasts the daemon: ``SSA_CONFIG``, else /etc/ssa/policy.toml."""
    return os.environ.get("SSA_CONFIG") or "/etc/ssa/policy.toml"


def user_run_dir() -> str:
    """The run directory of a user's own daemon (``ssad --user``): in ``XDG_RUNTIME_DIR``, or under /tmp without it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/ssa-{os.getuid()}"  # noqa: S108 - rundir.make_private
    return f"{runtime}/ssa"


# A daemon leaves these two links in its run directory. So a program that knows the run directory finds the rest.
MOUNT_LINK, CONFIG_LINK = "mount", "config"


def mounted() -> str:
    """Where the daemon that is asked has its file system: ``SSA_MOUNT``, else where that daemon says, else /ssa."""
    return os.environ.get("SSA_MOUNT") or told(run_dir(), MOUNT_LINK) or mount_point()


def policy_file() -> str:
    """The file that the daemon that is asked took its policy from: ``SSA_CONFIG``, else the one that it says."""
    return os.environ.get("SSA_CONFIG") or told(run_dir(), CONFIG_LINK) or config_file()


def told(directory: str, link: str) -> str | None:
    """The path that a daemon has left in its run directory, if it has."""
    try:
        return os.readlink(f"{directory}/{link}")  # noqa: PTH115 - applications load this module: no pathlib
    except OSError:
        return None


def socket_path(directory: str | os.PathLike[str] | None = None) -> str:
    """The socket on which the daemon in a run directory takes requests."""
    return f"{os.fspath(directory or run_dir())}/ssad.sock"


def user_config_file() -> str:
    """The policy of ``ssad --user`` where none is named: ~/.config/ssa/policy.toml."""
    directory = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - light
    return f"{directory}/ssa/policy.toml"


def is_config_named() -> bool:
    """Whether ``SSA_CONFIG`` names a file, which then has to be there.

    The default of ``ssad --user`` is none that was named: the line that it prints for programs says it.
    """
    return os.environ.get("SSA_CONFIG", "") not in ("", user_config_file())
