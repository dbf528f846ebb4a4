"""ssad: the daemon's command line, and its life from start to end."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import resource
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ssa import __version__, paths
from ssa.configfs import mount
from ssa.credentials import CredentialStore
from ssa.daemon import listener, log, readiness
from ssa.daemon.rundir import InUse, RunDirectory, make_private
from ssa.daemon.service import Service
from ssa.ktls.probe import probe
from ssa.policy import files
from ssa.policy.schema import BadValue

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_log = logging.getLogger("ssa.daemon")

_EPILOG = """\
files:
  RUN/ssad.sock            where applications ask (the ssa library does it for them)
  MOUNT/policy/*           the policy in force; what is written counts from the next handshake on
  MOUNT/sockets/*          every TLS socket that is open
  CONFIG                   the policy to start with (TOML); `ssa policy save` writes it

environment:
  SSA_RUN_DIR, SSA_MOUNT, SSA_CONFIG   the same as --run-dir, --mount and --config; applications and the ssa
                                       command read them too, so that several daemons can run side by side
  NOTIFY_SOCKET                        readiness is told to systemd (Type=notify)

signals: SIGTERM and SIGINT end it and unmount. Sockets whose keys are in the kernel live on; those that it relays, DTLS
among them, end with it, and their applications are told.
exit status: 0 ended by a signal; 1 it could not start or go on, and said why; 2 wrong use.
"""


@dataclass(frozen=True, slots=True)
class _Options:
    run_dir: Path
    mount: Path
    config: Path
    user: bool
    ready_fd: int | None
    log_level: str


def _parse(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(
        prog="ssad",
        description="TLS as a service of the operating system: makes handshakes for applications under the "
        "administrator's policy and puts the keys into their sockets. Stays in the foreground; logs to standard error.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ssad {__version__}")
    parser.add_argument("--run-dir", type=Path, metavar="RUN", help="where the socket and the lock are (/run/ssa)")
    parser.add_argument("--mount", type=Path, metavar="MOUNT", help="where the file system is mounted (/ssa)")
    parser.add_argument("--config", type=Path, metavar="CONFIG", help="the policy's file (/etc/ssa/policy.toml)")
    parser.add_argument(
        "--user",
        action="store_true",
        help="for this user alone, without root: the defaults become $XDG_RUNTIME_DIR/ssa, its fs directory, and "
        "~/.config/ssa/policy.toml",
    )
    parser.add_argument(
        "--ready-fd", type=int, metavar="FD", help='write "ready" to this descriptor and close it once all is served'
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="(info); debug: every handshake",
    )
    given = parser.parse_args(arguments)
    run_dir, mount_point, config = _user_defaults() if given.user else _system_defaults()
    if not given.user and os.geteuid() != 0 and not (given.run_dir or os.environ.get("SSA_RUN_DIR")):
        parser.error("the system's daemon has to be started by root; without root: ssad --user")
    return _Options(
        run_dir=given.run_dir or run_dir,
        mount=given.mount or mount_point,
        config=given.config or config,
        user=given.user,
        ready_fd=given.ready_fd,
        log_level=given.log_level,
    )


def _system_defaults() -> tuple[Path, Path, Path]:
    return Path(paths.run_dir()), Path(paths.mount_point()), Path(paths.config_file())


def _user_defaults() -> tuple[Path, Path, Path]:
    settings = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    run_dir = Path(paths.run_dir() if os.environ.get("SSA_RUN_DIR") else paths.user_run_dir())
    mount_point = Path(paths.mount_point()) if os.environ.get("SSA_MOUNT") else run_dir / "fs"
    config = Path(paths.config_file()) if os.environ.get("SSA_CONFIG") else settings / "ssa" / "policy.toml"
    return run_dir, mount_point, config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the process's exit status."""
    options = _parse(arguments)
    lines = log.start(options.log_level)
    status = 0
    try:
        _run(options)
    except* (InUse, BadValue, OSError) as group:
        for line in _messages(group):
            _log.critical("%s", line)
        status = 1
    lines.flush()
    return status


def _messages(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """What went wrong, without the nurseries that it went wrong in."""
    leaves = (_messages(exc) if isinstance(exc, BaseExceptionGroup) else [_message(exc)] for exc in group.exceptions)
    return [line for leaf in leaves for line in leaf]


def _message(exc: BaseException) -> str:
    """An error without its number, which tells an administrator nothing."""
    if isinstance(exc, OSError) and exc.strerror and exc.filename:
        return f"{os.fsdecode(exc.filename)}: {exc.strerror}"
    return str(exc)


def _run(options: _Options) -> None:
    _raise_descriptor_limit()
    if options.user:
        make_private(options.run_dir)
    run_dir = RunDirectory(options.run_dir)
    run_dir.point(paths.MOUNT_LINK, options.mount)
    run_dir.point(paths.CONFIG_LINK, options.config)
    kernel = probe()
    if not kernel.tls:
        _log.warning("this kernel has no TLS, connections go by the relay where the policy allows: %s", kernel.reason)
    credentials = CredentialStore(options.config.parent / "credentials")
    service = Service(files.load(options.config), kernel, credentials)
    socket_path = Path(paths.socket_path(run_dir.path))
    requests = listener.listen(socket_path, mode=0o600 if options.user else 0o666)
    try:
        trio.run(_serve, options, service, requests)
    finally:
        readiness.notify_systemd("STOPPING=1")
        requests.close()
        socket_path.unlink(missing_ok=True)
        service.close()
        run_dir.close()


async def _serve(options: _Options, service: Service, requests: socket.socket) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(_end_on_signal, nursery.cancel_scope)  # first: a signal must always be heard
        mounted = await mount.init(service, options.mount, allow_other=not options.user)
        await nursery.start(_show, mounted)
        await nursery.start(service.relays.run)
        nursery.start_soon(listener.serve, service, requests)
        nursery.start_soon(service.sockets.tidy)
        gc.collect()
        gc.freeze()  # what is there now stays: the collector need not look at it again
        readiness.announce(options.ready_fd)
        _log.info("ready: run directory %s, file system %s", options.run_dir, options.mount)
        if options.user:
            settings = {"SSA_RUN_DIR": options.run_dir, "SSA_MOUNT": options.mount, "SSA_CONFIG": options.config}
            exports = " ".join(f"{name}={shlex.quote(str(path))}" for name, path in settings.items())
            _log.info('for your programs: eval "$(ssa env)", or: export %s', exports)


async def _show(mounted: mount.Mount, *, task_status: trio.TaskStatus[None]) -> None:
    await mounted.main(task_status=task_status)
    _log.error(
        "the file system was unmounted from outside; the policy stays in force, a restart of ssad shows it again"
    )


async def _end_on_signal(scope: trio.CancelScope, *, task_status: trio.TaskStatus[None]) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            _log.info("%s: ending", signal.Signals(number).name)
            scope.cancel()
            return


def _raise_descriptor_limit() -> None:
    """Each handshake in progress takes two descriptors; the soft limit of 1024 is for programs that use select."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
