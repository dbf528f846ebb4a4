"""`ssa run`: has an unmodified program make its TLS connections by ssa. The program takes the place of this one."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ssa.cli import output
from ssa.cli.env import is_ours
from ssa.cli.failure import Failure
from ssa.cli.programs import DEFAULT_WAY, PROGRAMS, WAYS
from ssa.cli.verb import Verb
from ssa.protocol import paths

if TYPE_CHECKING:
    import argparse

    from ssa.cli.programs import Way

_NOT_FOUND, _NOT_RUN = 127, 126  # exit statuses, as of env(1)


def _folders() -> list[Path]:
    """Where the libraries may be: beside an installed ssa, or in the checkout that this is."""
    told = os.environ.get("SSA_LIBRARIES")
    installed = [Path(sys.prefix) / "lib" / "ssa", Path("/usr/local/lib/ssa"), Path("/usr/lib/ssa")]
    return [Path(told)] if told else [*installed, Path(__file__).parents[2] / "build" / "native"]


def _library(way: Way) -> str:
    """The path of a way's library. Raises `Failure`."""
    for folder in _folders():
        if (folder / way.library).is_file():
            return str(folder / way.library)
    where = ", ".join(map(str, _folders()))
    raise Failure(f"{way.library} is in none of {where}: `make native` makes it; SSA_LIBRARIES says where it is")


def _run_directory() -> str:
    """The run directory of the daemon that the program is to use: the system's, unless there is only this user's."""
    if told := os.environ.get("SSA_RUN_DIR"):
        return str(Path(told).absolute())
    own = paths.user_run_dir()
    has_system = Path(paths.socket_path()).is_socket()
    return own if not has_system and is_ours(Path(own)) else paths.run_dir()


def _environment(way: Way, *, quiet: bool) -> dict[str, str]:
    others = os.environ.get("LD_PRELOAD", "")
    environment = os.environ | {"SSA_RUN_DIR": _run_directory(), "LD_PRELOAD": f"{_library(way)} {others}".strip()}
    return environment if quiet else environment | {"SSA_EXPLAIN": "1"}


# --- a program that would not have the library ------------------------------------------------------------------------


def _why_not(path: str) -> str:
    """Why the dynamic linker would not preload a library into a program: empty if it does."""
    status = Path(path).stat()
    if (status.st_mode & stat.S_ISUID and status.st_uid != os.getuid()) or (
        status.st_mode & stat.S_ISGID and status.st_gid != os.getgid()
    ):
        return "it is setuid or setgid, and the system preloads nothing into such programs (ld.so(8))"
    return "it is linked statically, so nothing can be preloaded into it" if _is_static(path) else ""


def _is_static(path: str) -> bool:
    """True for an ELF program without an interpreter (PT_INTERP, elf(5)). A script has its own program."""
    try:
        with Path(path).open("rb") as file:
            header = file.read(64)
            if header[:5] != b"\x7fELF\x02" or len(header) < 64:
                return False
            offset, size, count = *struct.unpack_from("Q", header, 32), *struct.unpack_from("HH", header, 54)
            file.seek(offset)
            entries = file.read(size * count)
    except OSError:
        return False  # execve(2) will say what is wrong
    return all(struct.unpack_from("I", entries, at)[0] != _PT_INTERP for at in range(0, len(entries), size or 1))


_PT_INTERP = 3


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
    if not options.program:
        raise Failure("which program? `ssa run PROGRAM ARGUMENTS`; `ssa run --help` explains it")
    environment = _environment(DEFAULT_WAY, quiet=options.quiet)
    path = shutil.which(options.program)
    if path is None:
        return _say(f"{options.program}: there is no such program", _NOT_FOUND)
    if why := _why_not(path):
        return _say(f"{options.program} would go on with its own TLS: {why}", _NOT_RUN)
    return _execute(path, [options.program, *options.arguments], environment)


def _execute(path: str, words: list[str], environment: dict[str, str]) -> int:
    """Become the program. Python has set these signals to be ignored, which the program would inherit."""
    sys.stdout.flush()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, words, environment)  # noqa: S606 - that is what it is for
    except OSError as exc:
        return _say(f"{path}: {exc.strerror}", _NOT_FOUND if exc.errno == errno.ENOENT else _NOT_RUN)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="list the ways, and the programs that are tested")
    parser.add_argument("--json", dest="as_json", action="store_true", help="with --list: print JSON")
    parser.add_argument("--quiet", action="store_true", help="say nothing of ssa's own where a connection is refused")
    parser.add_argument("program", nargs="?", metavar="PROGRAM", help="the program")
    parser.add_argument("arguments", nargs="...", metavar="ARGUMENTS", help="its arguments")


VERB = Verb(
    name="run",
    summary="run an unmodified program whose TLS is made by ssa",
    description="""\
Runs a program that links OpenSSL, with the connections that it makes or accepts made by ssad: verified under the
administrator's policy, and encrypted by the kernel. The program takes the place of this command: its exit status,
signals, terminal and arguments are its own. Where a connection is refused, a line on standard error says why.
docs/programs.md has what works with each program.
""",
    examples="""\
ssa run curl https://example.com/
ssa run irssi
ssa run redis-server --tls-port 6380 --port 0 ...
ssa run --list
""",
    notes="""
exit status: the program's; 126 where it cannot be run, or would not have its TLS made by ssa; 127 where there is none.
""",
    run=_run,
    arguments=_arguments,
    json=False,
)
