"""`ssa coerce`: has every dynamically linked program of the machine make its TLS by ssa."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ssa.cli import coerced, coercion, output
from ssa.cli.failure import Failure
from ssa.cli.run import folders
from ssa.cli.verb import Verb

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

_OFF = 3  # the exit status of `status` where it is off, as of systemctl(1)


def _say(text: str) -> None:
    sys.stdout.write(f"{output.printable(text)}\n")


# --- on, off -------------------------------------------------------------------------------------------------------


def _sources() -> Path:
    for folder in folders():
        if (folder / "libssa-gate.so").is_file():
            return folder
    where = ", ".join(map(str, folders()))
    raise Failure(f"libssa-gate.so is in none of {where}: `make native` makes it; SSA_LIBRARIES says where it is")


def _on(options: argparse.Namespace) -> int:
    if os.geteuid() == 0 and not options.without_daemon and not coerced.daemon_answers():
        raise Failure(
            f"no ssad answers in {coercion.RUN_DIR}, so the TLS of this machine's programs would be refused: start it "
            "first, or say --without-daemon"
        )
    for library in coercion.turn_on(_sources()):
        _say(f"{library.path}: installed")
    _say(f"{coercion.PRELOAD}: programs that are started from now on make their TLS by ssa")
    _say(f"{coercion.LIST}: the programs that are left alone")
    _say("`ssa coerce status` says which running programs have to be restarted; `ssa coerce off` undoes it")
    return 0


def _off(_options: argparse.Namespace) -> int:
    if coercion.turn_off():
        _say(f"{coercion.PRELOAD}: programs that are started from now on make their own TLS")
        _say(f"the libraries stay in {coercion.COERCED.parent}: programs that run may use them until they end")
    else:
        _say(f"{coercion.PRELOAD}: it was off already")
    return 0


# --- status --------------------------------------------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    found = coerced.status()
    if options.json:
        output.print_json(coerced.as_json(found))
    else:
        _show(found)
    return 1 if found.problems else 0 if found.on else _OFF


def _names(counts: dict[str, int]) -> str:
    return ", ".join(name if count == 1 else f"{name} ({count})" for name, count in counts.items())


def _show(found: coerced.Status) -> None:
    _say(f"the whole machine: {'on' if found.on else 'off'} ({coercion.PRELOAD})")
    for path, said in found.libraries.items():
        _say(f"  {path}: {said}")
    for name in found.others:
        _say(f"  {name}: another's")
    _say(f"ssad: {'answers' if found.daemon else 'does not answer'} ({coercion.RUN_DIR})")
    _say(f"left alone: {len(found.left_alone)} patterns ({coercion.LIST})")
    if found.on:
        _show_programs(found)
    for problem in found.problems:
        _say(f"problem: {problem}")


def _show_programs(found: coerced.Status) -> None:
    _say("running programs that")
    for kind, what in coerced.KINDS.items():
        _say(f"  {what}: {_names(found.programs[kind]) or 'none'}")
    _say("not reached: programs that are linked statically or have OpenSSL built in, 32-bit and setuid programs,")
    _say("  programs in containers and chroots")
    _say("does not start: a program built with gcc -fsanitize=address, but with ASAN_OPTIONS=verify_asan_link_order=0")


# --- the verbs -----------------------------------------------------------------------------------------------------


def _arguments_of_on(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--without-daemon",
        action="store_true",
        help="even if no ssad answers: the TLS of programs is refused until one does",
    )


_ON = Verb(
    name="on",
    summary="have programs that are started from now on make their TLS by ssa",
    description="""\
Installs libssa-gate and libssa-tls in /usr, tries them, and names the gate in /etc/ld.so.preload, behind what is
there already. Done once more, it mends what is missing, and installs newer libraries.
""",
    examples="ssa coerce on\n",
    run=_on,
    arguments=_arguments_of_on,
    json=False,
)
_OFF_VERB = Verb(
    name="off",
    summary="have programs make their own TLS again",
    description="""\
Takes our line out of /etc/ld.so.preload; other lines stay. Running programs stay as they are until they end.
""",
    examples="ssa coerce off\n",
    run=_off,
    json=False,
)
_STATUS = Verb(
    name="status",
    summary="say what is covered, what is left alone, and what is broken",
    description="""\
Compares the libraries with what `ssa coerce on` has noted, asks whether ssad answers, and looks at the programs that
run.
""",
    notes="""
exit status: 0 on and in order; 3 off; 1 something is broken.
""",
    examples="ssa coerce status\nssa coerce status --json | jq .programs.outside\n",
    run=_status,
)

VERB = Verb(
    name="coerce",
    summary="have all programs of this machine make their TLS by ssa",
    description="""\
For administrators: every dynamically linked program that is started from then on has the TLS that it makes with OpenSSL
or GnuTLS made by ssad, as under `ssa run`. It is a small library in /etc/ld.so.preload, which does nothing in a program
until it uses TLS. Without a verb, it says how things are.
""",
    examples="""\
ssa coerce on
ssa coerce status
ssa coerce off
""",
    notes="""
files:
  /etc/ld.so.preload     names the library; it is replaced whole, by rename(2)
  /etc/ssa/leave-alone   the programs whose TLS stays their own: `ssa coerce on` writes a list of shells, sshd, package
                         managers and systemd, which you may change

where ssad does not answer, or libssa-tls is missing, TLS is refused, but in the programs that are left alone.
Programs that use no TLS are not concerned. If something goes wrong: `ssa coerce off`, or remove the line from
/etc/ld.so.preload. docs/coerce.md has the rest.
""",
    run=_status,
    verbs=(_ON, _OFF_VERB, _STATUS),
)
