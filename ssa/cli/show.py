"""`ssa show`: shows all that is known of one TLS socket."""

from __future__ import annotations

import argparse
from typing import Any

from ssa.cli import output
from ssa.cli.certificate import decode
from ssa.cli.failure import Failure
from ssa.cli.filesystem import FileSystem
from ssa.cli.verb import Verb

_SECTIONS = frozenset({"id", "peer_cert", "peer_chain", "own_cert", "verdicts"})  # shown apart from the other files


def _run(options: argparse.Namespace) -> int:
    try:
        found = FileSystem().socket(options.id)
    except PermissionError:
        raise Failure(f"TLS socket {options.id} is another user's: run this as root to see it") from None
    if found is None:
        raise Failure(f"there is no TLS socket {options.id} (any more): `ssa ls` lists those that are open")
    found["certificates"] = decode(found.get("peer_chain") or "")
    found["own_certificates"] = decode(found.get("own_cert") or "")
    if options.json:
        output.print_json(found)
    else:
        _print(found)
    return 0


def _print(found: dict[str, Any]) -> None:
    certificates, own = found.pop("certificates"), found.pop("own_certificates")
    fields = [(name, _text(value)) for name, value in found.items() if name not in _SECTIONS]
    output.print_fields(f"socket {found['id']}", fields)
    for number, certificate in enumerate(certificates):
        title = f"certificate {number + 1} of the peer's chain" if number else "the peer's certificate"
        output.print_fields(title, [(name, _text(value)) for name, value in certificate.items()])
    for certificate in own:
        output.print_fields("the certificate presented", [(name, _text(value)) for name, value in certificate.items()])
    if "verdicts" in found:
        output.print_line("verdicts")
    for verdict in found.get("verdicts", ()):
        output.print_line(f"  {verdict}")


def _text(value: Any) -> str:
    """The text of a value, for a person."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(value) or "-"
    return "-" if value is None else str(value)


def number(text: str) -> int:
    """Read a socket's number."""
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a socket's number, `ssa ls` lists them")
    return int(text)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", type=number, metavar="ID", help="the socket's number, from the first column of `ssa ls`")


VERB = Verb(
    name="show",
    summary="show all about one TLS socket",
    description="""\
Shows the files of a socket under /ssa/sockets or of a listener under /ssa/listeners, the decoded certificates of the
peer, the verdict of each validator on them, and a server's own certificate. Root may look at all sockets, other users
only at their own.
""",
    examples="""\
ssa show 7
ssa show 7 --json | jq -r '.certificates[0].not_after'
openssl x509 -noout -text < /ssa/sockets/7/peer_cert
""",
    run=_run,
    arguments=_arguments,
)
