"""`ssa run`: has an unmodified program make its TLS connections by ssa. The program takes the place of this one."""

from __future__ import annotations

import argparse
import errno
import os
import re
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssa.cli import output, preloading, supervising
from ssa.cli.connect import host
from ssa.cli.env import is_ours
from ssa.cli.failure import Failure
from ssa.cli.programs import DEFAULT_WAY, PROGRAMS, SECCOMP, SOCKETS, WAYS
from ssa.cli.verb import Verb
from ssa.protocol import paths

if TYPE_CHECKING:
    from ssa.cli.programs import Way

_NOT_FOUND, _NOT_RUN = 127, 126  # exit statuses, as of env(1)
_MOST = 64  # servers, and ports, that libssa takes (clients/c/transparent.c)


def folders() -> list[Path]:
    """Where the libraries may be: beside an installed ssa, or in the checkout that this is."""
    told = os.environ.get("SSA_LIBRARIES")
    installed = [Path(sys.prefix) / "lib" / "ssa", Path("/usr/local/lib/ssa"), Path("/usr/lib/ssa")]
    return [Path(told)] if told else [*installed, Path(__file__).parents[2] / "build" / "native"]


def _library(way: Way) -> str:
    """The path of a way's library. Raises `Failure`."""
    for folder in folders():
        if (folder / way.library).is_file():
            return str(folder / way.library)
    where = ", ".join(map(str, folders()))
    raise Failure(f"{way.library} is in none of {where}: `make native` makes it; SSA_LIBRARIES says where it is")


def _run_directory() -> str:
    """The run directory of the daemon that the program is to use: the system's, unless there is only this user's."""
    if told := os.environ.get("SSA_RUN_DIR"):
        return str(Path(told).absolute())
    own = paths.user_run_dir()
    has_system = Path(paths.socket_path()).is_socket()
    return own if not has_system and is_ours(Path(own)) else paths.run_dir()


def _environment(way: Way, *, quiet: bool) -> dict[str, str]:
    environment = _inherited() | {"SSA_RUN_DIR": _run_directory()}
    if way is not SECCOMP:
        environment["LD_PRELOAD"] = _preload(way)
    return environment if quiet else environment | {"SSA_EXPLAIN": "1"}


def _preload(way: Way) -> str:
    others = os.environ.get("LD_PRELOAD", "")
    library = _library(way)
    if re.search(r"[\s:]", library):
        raise Failure(f"{library}: LD_PRELOAD cannot name a path with a space or a colon in it")
    return f"{library} {others}".strip()


def _inherited() -> dict[str, str]:
    """The environment but for LC_CTYPE, if Python has added it because the locale is C (PEP 538)."""
    started = Path("/proc/self/environ").read_bytes().split(b"\0")
    added = not any(variable.startswith(b"LC_CTYPE=") for variable in started)
    return {name: value for name, value in os.environ.items() if name != "LC_CTYPE" or not added}


def _settings(options: argparse.Namespace) -> dict[str, str]:
    """The variables by which libssa treats a program that knows no TLS (clients/c/transparent.c). Raises `Failure`."""
    if options.name and not options.tls and not options.tls_to:
        raise Failure("--name is for --tls and --tls-to")
    if max(len(options.tls_to), len(options.tls_listen)) > _MOST:
        raise Failure(f"more than {_MOST} of --tls-to or --tls-listen")
    settings = {
        "SSA_TLS": " ".join(options.tls_to) or ("all" if options.tls else ""),
        "SSA_TLS_LISTEN": "all" if "all" in options.tls_listen else " ".join(options.tls_listen),
        "SSA_TLS_NAME": options.name or "",
    }
    return {name: value for name, value in settings.items() if value}


# --- the verb ------------------------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> int:
    if options.as_json:
        output.print_json(
            {"ways": [way._asdict() for way in WAYS.values()], "programs": [p._asdict() for p in PROGRAMS]}
        )
        return 0
    lines = [f"{way.name}: {way.takes}" for way in WAYS.values()]
    width = max(len(program.name) for program in PROGRAMS)
    lines += ["", "tested:"]
    for program in PROGRAMS:
        lines.append(f"  {program.name:{width}}  {program.role}  by {program.way}: {program.works}".replace("`", ""))
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _say(words: str, status: int) -> int:
    sys.stderr.write(f"ssa: {words}\n")
    return status


def _run(options: argparse.Namespace) -> int:
    if options.list:
        return _list(options)
    words = options.command[1:]  # `command.prepared` has put -- before them
    if not words:
        raise Failure("which program? `ssa run PROGRAM ARGUMENTS`; `ssa run --help` explains it")
    environment = variables(options)
    path = shutil.which(words[0])
    if path is None:
        return _say(f"{words[0]}: there is no such program", _NOT_FOUND)
    if options.seccomp:
        return _supervise(path, words, environment)
    if why := _why_not(path, environment):
        return _say(f"{words[0]} would go on without ssa: {why}", _NOT_RUN)
    return _execute(path, words, environment)


_OWN_TLS = "it has a TLS library of its own in it, whose connections go past ssa"
_NOTHING_REPLACES_IT = f"{_OWN_TLS}. docs/node.md and docs/go.md have what its author can use"


def _is_for_programs_without_tls(environment: dict[str, str]) -> bool:
    return bool(environment.get("SSA_TLS") or environment.get("SSA_TLS_LISTEN"))


def _why_not(path: str, environment: dict[str, str]) -> str:
    """Why nothing would come of a preload: empty if it will."""
    if not _is_for_programs_without_tls(environment) and preloading.has_own_tls(path):
        return _NOTHING_REPLACES_IT
    return preloading.why_not(path, environment["LD_PRELOAD"].split()[0])


def _supervise(path: str, words: list[str], environment: dict[str, str]) -> int:
    """Become the supervisor, which becomes the program."""
    supervisor = _library(SECCOMP)
    if why := supervising.why_not(path, supervisor):
        return _say(f"{words[0]} would go on without ssa: {why}", _NOT_RUN)
    if lost := supervising.what_is_lost(path):
        sys.stderr.write(f"ssa: {words[0]}: {lost}\n")
    if not _is_for_programs_without_tls(environment) and preloading.has_own_tls(path):
        sys.stderr.write(f"ssa: {words[0]}: {_OWN_TLS}: --seccomp leaves them alone\n")
    return _execute(supervisor, [supervisor, *words], environment)


def variables(options: argparse.Namespace) -> dict[str, str]:
    """The environment of the program. Raises `Failure`."""
    settings = _settings(options)
    way = SECCOMP if options.seccomp else SOCKETS if settings else DEFAULT_WAY
    return _environment(way, quiet=options.quiet) | settings


def _execute(path: str, words: list[str], environment: dict[str, str]) -> int:
    """Become the program. Python has set these signals to be ignored, which the program would inherit."""
    sys.stdout.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, words, environment)  # noqa: S606 - that is what it is for
    except OSError as exc:
        return _say(f"{path}: {exc.strerror}", _NOT_FOUND if exc.errno == errno.ENOENT else _NOT_RUN)


_SERVER = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^][:\s]+):(?P<port>[^:\s]+)")


def _port(text: str) -> int:
    try:
        number = int(text) if text.isdigit() else socket.getservbyname(text, "tcp")
    except OSError:
        number = 0
    if not 0 < number < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, expected 1 to 65535 or a service's name")
    return number


def server(text: str) -> str:
    """Read a host and a port, as in example.com:5222 and [::1]:5222."""
    found = _SERVER.fullmatch(text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, expected such as example.com:5222, [::1]:5222")
    return f"{found['host'].rstrip('.')}:{_port(found['port'])}"


def listener(text: str) -> str:
    """Read a port, or "all"."""
    return text if text == "all" else str(_port(text))


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "%(prog)s [OPTION ...] PROGRAM [ARGUMENT ...]"
    parser.add_argument("--list", action="store_true", help="list the ways, and the programs that are tested")
    parser.add_argument("--json", dest="as_json", action="store_true", help="with --list: print JSON")
    parser.add_argument("--quiet", action="store_true", help="say nothing of ssa's own where a connection is refused")
    parser.add_argument(
        "--seccomp",
        action="store_true",
        help="by a supervisor in place of a library: for any binary, static ones too, that asks for TLS by socket(2), "
        "or, with the options below, knows none. It implies no_new_privs: setuid programs run without that",
    )
    parser.add_argument(
        "--tls",
        action="store_true",
        help="make each TCP connection of a program that knows no TLS a TLS connection, verified for the name that the "
        "program looked up",
    )
    parser.add_argument(
        "--tls-to",
        action="append",
        default=[],
        type=server,
        metavar="HOST:PORT",
        help="make those to this server TLS connections, and leave others as they are; may be given many times",
    )
    parser.add_argument(
        "--name", type=host, metavar="NAME", help="verify this name, whatever name the program looked up, if any"
    )
    parser.add_argument(
        "--tls-listen",
        action="append",
        default=[],
        nargs="?",
        const="all",
        type=listener,
        metavar="PORT",
        help="have a program that knows no TLS serve TLS: on each port (--tls-listen), or on this one "
        "(--tls-listen=PORT, with the =; may be given many times)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM [ARGUMENT ...]", help="what to run")


VERB = Verb(
    name="run",
    summary="run an unmodified program with TLS made by ssa",
    description="""\
Runs a program that links OpenSSL or GnuTLS, with the connections that it makes or accepts made by ssad: verified under
the administrator's policy, and encrypted by the kernel. Or, with --tls and --tls-to, a program that knows no TLS: its
TCP connections become TLS; and with --tls-listen a server that knows none, which serves with the administrator's
certificate. With --seccomp it can be any binary. The program takes the place of this command: its exit status,
signals, terminal and arguments are its own. Where a connection is refused, a line on standard error says why.
docs/programs.md has what works with each program.
""",
    examples="""\
ssa run curl https://example.com/
ssa run wget https://example.com/
ssa run irssi
ssa run redis-server --tls-port 6380 --port 0 ...
ssa run --tls nc irc.example.net 6697
ssa run --tls --name db.example.com telnet 192.0.2.7 5000
ssa run --tls-to db.example.com:5000 --tls-to cache.example.com:11211 python3 work.py
ssa run --tls-listen python3 -m http.server 8443
ssa run --tls-listen=11211 memcached -p 11211
ssa run --seccomp --tls ./static-go-program example.com:443
ssa run --list
""",
    notes="""
exit status: the program's; 126 where it cannot be run, or would go on without ssa; 127 where there is none.
""",
    run=_run,
    arguments=_arguments,
    json=False,
)
