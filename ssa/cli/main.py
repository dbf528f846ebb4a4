"""`ssa`: makes the parser from the table of verbs, runs a verb, and turns every failure into one line and a status."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
import textwrap
from typing import TYPE_CHECKING, NoReturn

from ssa._version import __version__
from ssa.cli.command import prepared
from ssa.cli.failure import Failure, explain
from ssa.policy.parsers import BadValue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssa.cli.verb import Verb

VERBS = (
    "connect",
    "serve",
    "run",
    "coerce",
    "ls",
    "show",
    "policy",
    "doctor",
    "env",
)  # one module each, loaded when it is needed

_DESCRIPTION = """\
The command line of ssa: TLS as a service of the operating system. The daemon ssad makes TLS handshakes for
applications, and verifies their peers under the administrator's policy; the kernel encrypts and decrypts. This command
connects to a server, serves TLS clients for a server without TLS, shows the TLS sockets of this machine, shows and
changes the policy, and says what the machine lacks.
"""

_EPILOG = """\
environment:
  SSA_RUN_DIR   the run directory of the ssad to use (default: /run/ssa)
  SSA_MOUNT     the mount point of its file system (default: the one that this ssad uses, else /ssa)
  SSA_CONFIG    the policy's file, which `ssa policy save` writes (default: this ssad's, else /etc/ssa/policy.toml)
  NO_COLOR      set it to print without colours

files:
  /ssa/policy/*    the policy in force; `ssa policy set` writes these files, and so can echo
  /ssa/sockets/*   the live sockets; `ssa ls` and `ssa show` read these files, and so can cat

examples:
  ssa doctor                                       what this machine has, what it lacks, and what to do
  printf 'GET / HTTP/1.0\\r\\n\\r\\n' | ssa connect example.com 443
  ssa run --tls nc example.com 6697                a program that knows no TLS, over TLS
  ssa ls                                           the TLS connections of this machine's programs
  ssa show 7                                       all about one of them
  ssa policy set min_version TLSv1.3               for every program, from the next handshake on
  ssa policy save                                  keep it for the daemon's next start

exit status: 0 done; 1 failed, with the reason in one line on standard error; 2 wrong use; 130 interrupted.

`ssa VERB --help` explains a verb, with examples.
"""

_HELP = frozenset({"-h", "--help"})
_WIDTH = 100  # of descriptions
_JSON_HELP = "print JSON, for programs"


class _Parser(argparse.ArgumentParser):
    """A parser whose errors name the help."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2, after the usage and the message."""
        super().error(f"{message}; `{self.prog} --help` explains it")


def verbs(names: Sequence[str] = VERBS) -> list[Verb]:
    """Load the verbs of these names."""
    return [importlib.import_module(f"ssa.cli.{name}").VERB for name in names]


def build_parser(names: Sequence[str] = VERBS) -> argparse.ArgumentParser:
    """The parser, with a subparser for each verb."""
    parser = _Parser(
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
            # It has no default of its own, so that a --json before the verb counts.
            own.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help=_JSON_HELP)
        verb.arguments(own)
        _add_verbs(own, verb.verbs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status of the process."""
    _open_standard_streams()
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        pass  # the reader of our output has closed it
    except (OSError, BadValue, Failure) as failure:
        print(f"ssa: {explain(failure)}", file=sys.stderr)  # noqa: T201 - printing is the purpose
    _forget_output()
    return 1


def _run(arguments: Sequence[str] | None) -> int:
    try:
        given = prepared(sys.argv[1:] if arguments is None else arguments)
        named = [name for name in VERBS if name in given]
        parser = build_parser(named if len(named) == 1 and not _HELP.intersection(given) else VERBS)
        options = parser.parse_args(given)
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
    """Open descriptors 0, 1 and 2 if they are closed: else a connection could get one of these numbers."""
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(fd)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - it stays open to the end
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115 - it stays open to the end
    for stream in (sys.stdout, sys.stderr):  # names and paths may not be in the locale's encoding
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _forget_output() -> None:
    """Send unwritten output to /dev/null, so that Python does not fail again on it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
