"""`ssa show`: all that is known of one TLS socket."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssa.cli import output
from ssa.cli.certificate import decode
from ssa.cli.failure import Failure
from ssa.cli.filesystem import FileSystem
from ssa.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

_SECTIONS = frozenset({"id", "peer_cert", "peer_chain", "verdicts"})  # shown apart from the other files


def _run(options: argparse.Namespace) -> int:
    found = FileSystem().socket(options.id)
    if found is None:
        raise Failure(f"there is no TLS socket {options.id} (any more): `ssa ls` lists those that are open")
    found["certificates"] = decode(found.get("peer_chain") or "")
    if options.json:
        output.print_json(found)
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    certificates = found.pop("certificates")
    fields = [(name, _text(value)) for name, value in found.items() if name not in _SECTIONS]
    output.print_fields(f"socket {found['id']}", fields)
    for number, certificate in enumerate(certificates):
        title = f"certificate {number + 1} of the peer's chain" if number else "the peer's certificate"
        output.print_fields(title, [(name, _text(value)) for name, value in certificate.items()])
    output.print_line("verdicts")
    for verdict in found.get("verdicts", ()):
        output.print_line(f"  {verdict}")


def _text(value: Any) -> str:
    """A value for a person."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=int, metavar="ID", help="the socket's number, as `ssa ls` shows it")


VERB = Verb(
    name="show",
    summary="show all about one TLS socket",
    description="""\
Shows every file of a socket under /ssa/sockets, the certificates that its peer sent, decoded, and what each
validator said of them.
""",
    examples="""\
ssa show 7
ssa show 7 --json | jq -r '.certificates[0].not_after'
openssl x509 -noout -text < /ssa/sockets/7/peer_cert
""",
    run=_run,
    arguments=_arguments,
)
