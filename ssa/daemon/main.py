"""ssad: the daemon's command line, and its life from start to end."""

from __future__ import annotations

import argparse
import contextlib
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

from ssa._version import __version__
from ssa.configfs import mount
from ssa.credentials import CredentialStore
from ssa.daemon import checking, log, sd_notify, server, signals, worker_uids, zygote
from ssa.daemon.doors import Doors
from ssa.daemon.reloading import Reloader, shown
from ssa.daemon.rundir import InUse, RunDirectory, make_private
from ssa.daemon.state import State
from ssa.daemon.workers import Workers
from ssa.ktls.probe import probe
from ssa.logfmt import fields
from ssa.policy import files
from ssa.policy.schema import BadValue
from ssa.protocol import paths
from ssa.worker import sandbox

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

_log = logging.getLogger("ssa.daemon")

# The capabilities that the daemon needs (capabilities(7)): CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER for the
# administrator's files, CAP_KILL for workers, CAP_NET_ADMIN for sock_diag(7), CAP_SYS_PTRACE for /proc/PID/exe,
# CAP_SYS_ADMIN for mount(2) and setns(2), CAP_SYS_RESOURCE for descriptors that are under way.
_KEPT = (1, 2, 3, 5, 12, 19, 21, 24)

_EPILOG = """\
files:
  RUN/ssad.sock            the socket for the requests of applications (the ssa library sends them)
  MOUNT/policy/*           the policy in force; a change counts from the next handshake on
  MOUNT/sockets/*          every open TLS socket
  CONFIG                   the policy to start with (TOML); `ssa policy save` writes it. If it is named by --config or
                           SSA_CONFIG, it has to exist

environment:
  SSA_RUN_DIR, SSA_MOUNT, SSA_CONFIG   defaults of --run-dir, --mount and --config; applications and the ssa command
                                       read them too, so that several daemons can run side by side
  NOTIFY_SOCKET                        the socket on which systemd is notified of readiness (Type=notify)

examples:
  ssad                              as root: the daemon of this machine
  ssad --user                       without root: a daemon for your own programs; eval "$(ssa env)" in their shells
  ssad --check                      check the files that ssad would start with, and start nothing
  ssad --log-level debug            log every handshake

{signals}
log: one line on standard error for each event, with the time, or with a priority if standard error is the journal.
Details are key=value. ssad never waits for the log's reader: lines that have to be dropped are counted and reported.

exit status: 0 ended by a signal; 1 could not start or go on, with the reason in the log; 2 wrong use.
""".replace("{signals}", signals.HELP)


@dataclass(frozen=True, slots=True)
class _Options:
    run_dir: Path
    mount: Path
    config: Path
    named: bool  # the configuration file: so it has to be there
    user: bool
    ready_fd: int | None
    log_level: str
    worker_uids: range
    check: bool


def _parse(arguments: Sequence[str] | None) -> _Options:
    parser = argparse.ArgumentParser(
        prog="ssad",
        description="""\
TLS as a service of the operating system. ssad makes TLS handshakes for applications, verifies their peers under the
administrator's policy, and gives the keys to the kernel. It stays in the foreground, and logs to standard error.
""",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"ssad {__version__}")
    parser.add_argument(
        "--run-dir", type=Path, metavar="RUN", help="the directory of the socket and the lock (default: /run/ssa)"
    )
    parser.add_argument(
        "--mount", type=Path, metavar="MOUNT", help="the mount point of the file system (default: /ssa)"
    )
    parser.add_argument(
        "--config", type=Path, metavar="CONFIG", help="the policy's file (default: /etc/ssa/policy.toml)"
    )
    parser.add_argument(
        "--user",
        action="store_true",
        help="serve only this user, without root: the defaults are $XDG_RUNTIME_DIR/ssa, its directory fs, and "
        "~/.config/ssa/policy.toml",
    )
    parser.add_argument(
        "--ready-fd",
        type=int,
        metavar="FD",
        help='write "ready" to this descriptor and close it when ssad is ready to serve',
    )
    parser.add_argument(
        "--log-level",
        choices=["debug", "info", "warning", "error"],
        default="info",
        help="the least level that is logged (default: info); debug has a line for every handshake",
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="check the files that ssad would start with (policy, drop-ins, levels, trust store, credentials), say "
        "what is wrong with each, and start nothing; exit status 1 if anything is",
    )
    parser.add_argument(
        "--worker-uids",
        type=_uids,
        default=worker_uids.DEFAULT,
        metavar="FIRST-LAST",
        help="the uids that workers run as, which no user may have (default: 60578-61183): as many users at once as "
        "there are uids. Without root they run as this user",
    )
    given = parser.parse_args(arguments)
    run_dir, mount_point, config = _user_defaults() if given.user else _system_defaults()
    is_systems = not given.user and not given.check
    if is_systems and os.geteuid() != 0 and not (given.run_dir or os.environ.get("SSA_RUN_DIR")):
        parser.error("only root can start the system's daemon; to serve only your own programs: ssad --user")
    return _Options(
        run_dir=given.run_dir or run_dir,
        mount=given.mount or mount_point,
        config=given.config or config,
        named=given.config is not None or paths.is_config_named(),
        user=given.user,
        ready_fd=given.ready_fd,
        log_level=given.log_level,
        worker_uids=range(0) if given.user or os.geteuid() != 0 else given.worker_uids,
        check=given.check,
    )


def _uids(text: str) -> range:
    try:
        return worker_uids.parse_untrusted(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _system_defaults() -> tuple[Path, Path, Path]:
    return Path(paths.run_dir()), Path(paths.mount_point()), Path(paths.config_file())


def _user_defaults() -> tuple[Path, Path, Path]:
    run_dir = Path(paths.run_dir() if os.environ.get("SSA_RUN_DIR") else paths.user_run_dir())
    mount_point = Path(paths.mount_point()) if os.environ.get("SSA_MOUNT") else run_dir / "fs"
    config = Path(os.environ.get("SSA_CONFIG") or paths.user_config_file())
    return run_dir, mount_point, config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the process's exit status."""
    options = _parse(arguments)
    if options.check:
        avoid = str(mount.without_links(options.mount))
        return checking.check(options.config, required=options.named, avoid=avoid)
    logging.getLogger().setLevel(options.log_level.upper())
    log.open_standard_streams()  # before their numbers become others'
    forker = zygote.fork()  # first, as there are no threads and no secrets yet
    if os.geteuid() == 0:
        sandbox.keep(*_KEPT)
    signals.prepare()  # before there are threads, as they have the mask of who makes them
    lines = log.start(options.log_level)
    signals.end_at_once()
    try:
        _run(options, forker)
    except* (InUse, BadValue, OSError) as group:
        for line in _messages(group):
            _log.critical("%s", line)
    except* Exception:  # noqa: BLE001 - logged whole
        _log.critical("a fault of ssad's own, which ends it", exc_info=True)
    else:
        return 0
    finally:
        signals.keep_back()
        lines.flush()
    return 1


def _messages(group: BaseExceptionGroup[BaseException]) -> list[str]:
    """The words of each error in a group of groups."""
    leaves = (_messages(exc) if isinstance(exc, BaseExceptionGroup) else [_message(exc)] for exc in group.exceptions)
    return [line for leaf in leaves for line in leaf]


def _message(exc: BaseException) -> str:
    """An error's words, without its number."""
    if isinstance(exc, OSError) and exc.strerror and exc.filename:
        return f"{os.fsdecode(exc.filename)}: {exc.strerror}"
    return str(exc)


def _run(options: _Options, forker: socket.socket) -> None:
    _raise_descriptor_limit()
    with contextlib.ExitStack() as end:  # each of its steps is taken, even where one fails
        _serve_until_the_end(options, forker, end)


def _serve_until_the_end(options: _Options, forker: socket.socket, end: contextlib.ExitStack) -> None:
    if options.user:
        make_private(options.run_dir)
    run_dir = RunDirectory(options.run_dir)
    _at_the_end(end, run_dir.close)
    kernel = probe()
    if not kernel.tls:
        _log.warning("this kernel has no TLS, connections go by the relay where the policy allows: %s", kernel.reason)
    policy, source = files.find(options.config, required=options.named)
    avoid = str(mount.without_links(options.mount))  # no file is looked for in our own mount
    state = State(policy, kernel, CredentialStore(options.config.parent / "credentials", avoid), avoid)
    _log.info("policy in force %s", shown(source, options.config))
    _at_the_end(end, state.close)
    workers = Workers(state, forker, Doors(options.run_dir), options.worker_uids)
    _at_the_end(end, workers.close)
    signals.keep_back()
    requests = run_dir.listen(mode=0o600 if options.user else 0o666)
    _at_the_end(end, lambda: workers.nobody.drop(requests))  # with connections in its queue, and what they carry
    _at_the_end(end, run_dir.remove_socket)
    run_dir.point(paths.MOUNT_LINK, options.mount)
    run_dir.point(paths.CONFIG_LINK, options.config)
    trio.run(_serve, options, state, workers, requests, end)


def _at_the_end(end: contextlib.ExitStack, step: Callable[[], object]) -> None:
    """Take a step when the block ends. If it fails, log a warning, so that the other steps are taken too."""

    def take() -> None:
        try:
            step()
        except Exception as exc:  # noqa: BLE001 - whatever it is
            _log.warning("a step of ending ssad failed %s", fields(step=step.__qualname__, failed=exc))

    end.callback(take)


async def _serve(
    options: _Options, state: State, workers: Workers, requests: socket.socket, end: contextlib.ExitStack
) -> None:
    reloader = Reloader(state, options.config, required=options.named)
    async with trio.open_nursery() as nursery:
        await nursery.start(
            _heed_signals, nursery.cancel_scope, reloader, workers
        )  # first: a signal must always be heard
        mounted = await mount.init(state, options.mount, allow_other=not options.user)
        _at_the_end(end, mounted.unmount)  # if it has not been done by then
        _at_the_end(end, sd_notify.stopping)
        await nursery.start(_show, mounted)
        await nursery.start(workers.run)
        nursery.start_soon(server.serve, state, workers, requests)
        nursery.start_soon(state.sockets.tidy)
        nursery.start_soon(reloader.run)
        await state.fresh_credentials()
        nursery.start_soon(state.credential_files.remind)
        gc.collect()
        gc.freeze()  # the collector need not look again at what is there now, as it stays
        sd_notify.announce(options.ready_fd)
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


async def _heed_signals(
    scope: trio.CancelScope, reloader: Reloader, workers: Workers, *, task_status: trio.TaskStatus[None]
) -> None:
    with signals.heard() as received:
        task_status.started()
        async for number in received:
            if number == signals.RELOADING:
                reloader.ask()
            else:
                workers.leave = number == signals.LEAVING
                words = "ending, and leaving the workers to the next ssad" if workers.leave else "ending"
                _log.info("%s: %s", signal.Signals(number).name, words)
                scope.cancel()


def _raise_descriptor_limit() -> None:
    """Raise the soft limit of 1024, which is for programs that use select(2): each handshake takes two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
