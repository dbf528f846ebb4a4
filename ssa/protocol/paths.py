"""The daemon's paths. Three environment variables move them, so that several daemons can run side by side."""

from __future__ import annotations

import os


def run_dir() -> str:
    """The daemon's run directory: ``SSA_RUN_DIR``, else /run/ssa."""
    return os.environ.get("SSA_RUN_DIR") or "/run/ssa"


def mount_point() -> str:
    """The directory on which a daemon mounts its file system: ``SSA_MOUNT``, else /ssa."""
    return os.environ.get("SSA_MOUNT") or "/ssa"


def config_file() -> str:
    """The file from which a daemon reads its policy when it starts: ``SSA_CONFIG``, else /etc/ssa/policy.toml."""
    return os.environ.get("SSA_CONFIG") or "/etc/ssa/policy.toml"


def user_run_dir() -> str:
    """The run directory of a user's own daemon (``ssad --user``): in ``XDG_RUNTIME_DIR``, or under /tmp without it."""
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/ssa-{os.getuid()}"  # noqa: S108 - rundir.make_private refuses one that another user has made
    return f"{runtime}/ssa"


# A daemon leaves these two links in its run directory, so that a program that knows the run directory finds the rest.
MOUNT_LINK, CONFIG_LINK = "mount", "config"


def mounted() -> str:
    """The mount point of the daemon that programs ask: ``SSA_MOUNT``, else what that daemon's link says, else /ssa."""
    return os.environ.get("SSA_MOUNT") or told(run_dir(), MOUNT_LINK) or mount_point()


def policy_file() -> str:
    """The policy file of the daemon that programs ask: ``SSA_CONFIG``, else what that daemon's link says."""
    return os.environ.get("SSA_CONFIG") or told(run_dir(), CONFIG_LINK) or config_file()


def told(directory: str, link: str) -> str | None:
    """The target of a link in a daemon's run directory; None where there is no such link."""
    try:
        return os.readlink(f"{directory}/{link}")  # noqa: PTH115 - applications load this module: no pathlib
    except OSError:
        return None


def socket_path(directory: str | os.PathLike[str] | None = None) -> str:
    """The path of the socket on which the daemon of a run directory takes requests."""
    return f"{os.fspath(directory or run_dir())}/ssad.sock"


def user_config_file() -> str:
    """The default policy file of ``ssad --user``: ~/.config/ssa/policy.toml."""
    directory = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")  # noqa: PTH111 - light
    return f"{directory}/ssa/policy.toml"


def is_config_named() -> bool:
    """True where ``SSA_CONFIG`` names a file, which then has to exist.

    The default of ``ssad --user`` does not count as named, though the line that it prints for programs sets it.
    """
    return os.environ.get("SSA_CONFIG", "") not in ("", user_config_file())
