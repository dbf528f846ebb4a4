"""Where things are: three environment variables move everything, so that several daemons can run side by side."""

from __future__ import annotations

import os
from pathlib import Path


def run_dir() -> Path:
    """The daemon's run directory: ``SSA_RUN_DIR``, else /run/ssa."""
    return Path(os.environ.get("SSA_RUN_DIR") or "/run/ssa")


def mount_point() -> Path:
    """Where the file system is mounted: ``SSA_MOUNT``, else /ssa."""
    return Path(os.environ.get("SSA_MOUNT") or "/ssa")


def config_file() -> Path:
    """The policy that outlasts the daemon: ``SSA_CONFIG``, else /etc/ssa/policy.toml."""
    return Path(os.environ.get("SSA_CONFIG") or "/etc/ssa/policy.toml")


def socket_path(directory: Path | None = None) -> Path:
    """The socket on which the daemon in a run directory takes requests."""
    return (directory or run_dir()) / "ssad.sock"
