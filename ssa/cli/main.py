"""`ssa`: the table of verbs, the parser made of it, and how every failure ends: one line and a status."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import textwrap
from typing import TYPE_CHECKING

from ssa._version import __version__
from ssa.cli.failure import Failure, explain
from ssa.policy.parsers import BadValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssa.cli.verb import Verb

VERBS = ("connect", "ls", "show", "policy", "doctor", "env")  # a module each, which is loaded when it is needed

_DESCRIPTION = """\
TLS as a service of the operating system, from the command line. The daemon ssad makes TLS handshakes for
applications and judges their peers under one policy, the administrator's; the kernel does the rest. This command
connects, shows the TLS sockets of this machine, shows and changes the policy, and says what a machine lacks.
"""

_EPILOG = """\
environment:
  SSA_RUN_DIR   the run directory of the ssad to ask (/run/ssa)
  SSA_MOUNT     where its file system is (where that ssad says, else /ssa)
  SSA_CONFIG    the policy's file, which `ssa policy save` writes (that ssad's, else /etc/ssa/policy.toml)
  NO_COLOR      no colours

files:
  /ssa/policy/*    the policy in force; `ssa policy set` writes there, as echo can
  /ssa/sockets/*   what `ssa ls` and `ssa show` read; cat can, too

examples:
  ssa doctor                                       can this machine do it, and what is missing?
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | ssa connect example.com 443
  ssa ls                                           who has TLS connections to whom?
  ssa show 7                                       all about one of them
  ssa policy set min_version TLSv1.3               from the next handshake on, for every program
  ssa policy save                                  and after the next start, too

exit status: 0 done; 1 it failed, standard error says why in one line; 2 wrong use; 130 interrupted.

`ssa VERB --help` has more on each verb, with examples.
"""

_HELP = frozenset({"-h", "--help"})
_WIDTH = 100  # of descriptions
_JSON_HELP = "print JSON, for programs"


def verbs(names: Sequence[str] = VERBS) -> list[Verb]:
    """The verbs of these names."""
    return [importlib.import_module(f"ssa.cli.{name}").VERB for name in names]


def build_parser(names: Sequence[str] = VERBS) -> argparse.ArgumentParser:
    """The parser, with a subparser for each verb."""
    parser = argparse.ArgumentParser(
        prog="ssa",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"ssa {__version__}")
    parser.add_argument("--json", action="store_true", help=_JSON_HELP + "; here or after the verb")
    _add_verbs(parser, verbs(names))
    return parser


def _add_verbs(parser: argparse.ArgumentParser, verbs: Sequence[Verb]) -> None:
    if not verbs:
        return
    below = parser.add_subparsers(title="verbs", metavar="VERB")
    for verb in verbs:
        own = below.add_parser(
            verb.name,
            help=verb.summary,
            description=textwrap.fill(verb.description, _WIDTH),
            epilog=f"examples:\n{textwrap.indent(verb.examples, '  ')}\n{verb.notes}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        own.set_defaults(verb=verb)
        if verb.json:
            # Without a default of its own, it leaves what stood before the verb.
            own.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON_HELP)
        verb.arguments(own)
        _add_verbs(own, verb.verbs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the process's exit status."""
    _open_standard_streams()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        pass  # whoever read our output has enough of it
    except (OSError, BadValue, Failure) as failure:
        print(f"ssa: {explain(failure)}", file=sys.stderr)  # noqa: T201
    _forget_output()
    return 1


def _run(arguments: Sequence[str] | None) -> int:
    try:
        given = sys.argv[1:] if arguments is None else arguments
        named = [name for name in VERBS if name in given]
        parser = build_parser(named if len(named) == 1 and not _HELP.intersection(given) else VERBS)
        options = parser.parse_args(arguments)
        if "verb" not in options:
            parser.print_help(sys.stderr)
            return 2
        if options.json and not options.verb.json:
            parser.error(f"{options.verb.name} takes no --json")
        status: int = options.verb.run(options)
        return status
    finally:
        sys.stdout.flush()


def _open_standard_streams() -> None:
    """Have something at 0, 1 and 2: a connection that got one of these numbers would be read from or written to."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - Python has none for a closed one
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):  # names and paths need not be in the locale's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """What could not be written must not fail once more when Python ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
