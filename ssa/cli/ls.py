"""`ssa ls`: the TLS sockets of this machine, a line each."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ssa.cli import output
from ssa.cli.filesystem import FileSystem
from ssa.cli.output import Column
from ssa.cli.verb import Verb

if TYPE_CHECKING:
    import argparse

# What is read of each socket, and the keys of --json.
FILES: tuple[str, ...] = (
    "pid",
    "uid",
    "exe",
    "role",
    "hostname",
    "local",
    "remote",
    "version",
    "cipher",
    "data_path",
    "opened",
    "bytes_sent",
    "bytes_received",
)

COLUMNS = (
    Column("ID", numbers=True),
    Column("PID", numbers=True),
    Column("PROGRAM"),
    Column("ROLE"),
    Column("NAME"),
    Column("REMOTE"),
    Column("VERSION"),
    Column("CIPHER"),
    Column("PATH"),
    Column("AGE", numbers=True),
    Column("SENT", numbers=True),
    Column("RECEIVED", numbers=True),
)


def _run(options: argparse.Namespace) -> int:
    tree = FileSystem()
    sockets = [found for number in tree.socket_ids() if (found := tree.socket(number, FILES)) is not None]
    if options.json:
        output.print_json(sockets)
    elif sockets:
        now = time.time()
        output.print_table(COLUMNS, [row(found, now) for found in sockets])
    else:
        output.print_line("no TLS sockets")
    return 0


def row(found: dict[str, Any], now: float) -> list[str]:
    """A socket as a line of the table."""
    cells = (
        found["id"],
        found["pid"],
        PurePath(found["exe"] or "").name,
        found["role"],
        found["hostname"],
        found["remote"],
        found["version"],
        found["cipher"],
        found["data_path"],
        output.age(now - moment(found["opened"])),
        output.size(found["bytes_sent"]),
        output.size(found["bytes_received"]),
    )
    return [str(cell) if cell not in (None, "") else "-" for cell in cells]


def moment(text: str) -> float:
    """Seconds since 1970 of a time as the file system writes it."""
    return datetime.fromisoformat(text).timestamp()


VERB = Verb(
    name="ls",
    summary="list the TLS sockets of this machine",
    description="""\
Lists every TLS socket that ssad has made and that some process still holds, in order of their making: the
program that asked for it, the name that was asked for, the peer's address, what the kernel says of version,
cipher and bytes on the wire, and who does the record crypto (path: ktls is the kernel).
""",
    examples="""\
ssa ls
ssa ls --json | jq -r '.[] | select(.version == "TLSv1.2") | .exe' | sort | uniq -c
grep -l no /ssa/sockets/*/compliant     those that the policy in force would not allow
""",
    run=_run,
)
