"""`ssa ls`: lists the TLS sockets of this machine, one a line."""

from __future__ import annotations

import functools
import pwd
import time
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from ssa.cli import output
from ssa.cli.filesystem import FileSystem
from ssa.cli.output import NOTHING, Column
from ssa.cli.processes import processes
from ssa.cli.verb import Verb

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ssa.cli.processes import Process

Row = dict[str, Any]


@functools.lru_cache  # sockets are opened many in a second
def moment(text: str) -> float:
    """The seconds since 1970 of a time in the form of the file system."""
    return datetime.fromisoformat(text).timestamp()


# The table: each column, and the function that gives its value for a socket at a moment.
TABLE: tuple[tuple[Column, Callable[[Row, float], Any]], ...] = (
    (Column("ID", numbers=True), lambda row, _: row["id"]),
    (Column("USER"), lambda row, _: row["user"]),
    (Column("PID", numbers=True), lambda row, _: row["pid"]),
    (Column("PROGRAM"), lambda row, _: row["program"]),
    (Column("UNIT"), lambda row, _: row["unit"]),
    (Column("ROLE"), lambda row, _: row["role"]),
    (Column("NAME"), lambda row, _: row.get("hostname")),
    (Column("ADDRESS"), lambda row, _: row["local"] if row["role"] == "listener" else row["remote"]),
    (Column("CREDENTIAL"), lambda row, _: row.get("credential") or " ".join(row.get("credentials", ()))),
    (Column("VERSION"), lambda row, _: row.get("version") or row.get("protocol")),
    (Column("CIPHER"), lambda row, _: row.get("cipher")),
    (Column("GROUP"), lambda row, _: row.get("group")),
    (Column("PATH"), lambda row, _: row.get("data_path")),
    (Column("COMPLIANT"), lambda row, _: row.get("compliant")),
    (Column("STATE"), lambda row, _: row.get("state")),
    (Column("AGE", numbers=True), lambda row, now: output.age(now - moment(row["opened"]))),
    (Column("SENT", numbers=True), lambda row, _: output.size(row.get("bytes_sent"))),
    (Column("RECEIVED", numbers=True), lambda row, _: output.size(row.get("bytes_received"))),
)
COLUMNS = tuple(column for column, _ in TABLE)


def _run(options: argparse.Namespace) -> int:
    tree = FileSystem()
    others = tree.count()  # counted first, so that a socket that is made meanwhile does not count as another user's
    found = tree.sockets()
    others -= len(found)
    known = processes(row["pid"] for row in found)
    sockets = [named(row, known.get(row["pid"])) for row in found]
    if options.json:
        output.print_json(sockets)
        return 0
    now = time.time()
    if sockets:
        output.print_table(COLUMNS, [cells(row, now) for row in sockets])
    else:
        output.print_line("no TLS sockets")
    if others > 0:
        output.print_line(f"and {others} of other users, which root can see")
    return 0


def named(row: Row, process: Process | None) -> Row:
    """A socket with the names of its user, program, script and unit, as far as they are known."""
    exe = row["exe"] or ""
    if process is None or not process.asked(exe, moment(row["opened"])):
        return {**row, "user": user(row["uid"]), "program": PurePath(exe).name or None, "script": None, "unit": None}
    named = {"script": process.script or None, "unit": process.unit or None}
    return {**row, "user": user(row["uid"]), "program": _program(exe or process.exe, process.script), **named}


@functools.lru_cache
def _program(exe: str, script: str) -> str | None:
    """A short name of a program. For a script it is the file and its directory."""
    if not script:
        return PurePath(exe).name or None
    if script.startswith("-"):
        return f"{PurePath(exe).name} {script}"
    return "/".join(PurePath(script).parts[-2:]).removeprefix("//")


@functools.lru_cache
def user(uid: int) -> str:
    """The name of a user, or the number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def cells(row: Row, now: float) -> list[str]:
    """The cells of a socket in the table."""
    values = (value(row, now) for _, value in TABLE)
    return [str(value) if value not in {None, ""} else NOTHING for value in values]


VERB = Verb(
    name="ls",
    summary="list the TLS sockets of this machine",
    description="""\
Lists every TLS socket that ssad has made and that some process still holds, and every socket that it listens on for
an application. It shows the user and the program that asked for it (for an interpreter the script, and the systemd
unit, if there is one), the host name, the peer's address, version, cipher and bytes on the wire as the kernel reports
them, the data path (ktls: the kernel encrypts; relay: ssad does), if the policy in force would allow it now, and the
state of the connection. Root sees all sockets; other users see their own, and the number of the others.
""",
    examples="""\
ssa ls
ssa ls --json | jq -r '.[] | select(.version == "TLSv1.2") | .exe' | sort | uniq -c
grep -L ^yes /ssa/sockets/*/compliant     # sockets that the policy in force would not allow
""",
    run=_run,
)
