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


def socket_path(directory: str | os.PathLike[str] | None = None) -> str:
    """The socket on which the daemon in a run directory takes requests."""
    return f"{os.fspath(directory or run_dir())}/ssad.sock"
