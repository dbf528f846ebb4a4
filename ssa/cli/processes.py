"""Reads /proc for the programs behind TLS sockets, so that a person can tell them apart.

A process chooses most of this itself: anyone who runs a program can give it any name. The `exe` in /ssa is from the
kernel.
"""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, NamedTuple

from ssa.configfs.render import text

if TYPE_CHECKING:
    from collections.abc import Iterable

_PROC = Path("/proc")
_STALL = 0.1  # seconds: a process can make readers of its arguments wait, for ever
_STALLS = 5
_INTERPRETER = re.compile(r"(python|perl|ruby|node|nodejs|php|lua|bash|dash|sh|zsh|ksh)[0-9.]*")
_UNIT = re.compile(r"/([^/\n]+\.(?:service|scope))(?=/|\n|$)")
_STARTED = 19  # the field of /proc/PID/stat, counted behind the name: its start, in ticks since boot (proc(5))
_ROUNDED = 1.01  # seconds: /ssa shows the time of a handshake in whole seconds


class Process(NamedTuple):
    """One process. Its texts are printable, as those in /ssa.

    Attributes:
        exe: the path of its program; empty if we may not know it.
        script: the script that it runs, if it is an interpreter; else empty.
        unit: the systemd unit of its cgroup; empty if there is none.
        began: its start, in seconds since 1970.
    """

    exe: str
    script: str
    unit: str
    began: float

    def asked(self, exe: str, opened: float) -> bool:
        """True if this process can have asked for a socket then, as that program. Process numbers are used again."""
        return self.began <= opened + _ROUNDED and not (exe and self.exe and exe != self.exe)


def processes(pids: Iterable[int]) -> dict[int, Process]:
    """The processes of these numbers that exist, and that can be read without waiting, by number."""
    found: dict[int, Process] = {}
    waiting = list(dict.fromkeys(pids))[::-1]
    for _ in range(_STALLS):
        reader = threading.Thread(target=_read_all, args=(waiting, found), daemon=True)
        reader.start()
        left = -1
        while reader.is_alive() and left != len(waiting):
            left = len(waiting)
            reader.join(_STALL)
        if not waiting:
            break
    return dict(found)


def _read_all(waiting: list[int], found: dict[int, Process]) -> None:
    while waiting:
        pid = waiting.pop()
        try:
            found[pid] = _read(_PROC / str(pid))
        except (OSError, IndexError, ValueError):
            continue  # it is gone, or we may not read it


def _read(directory: Path) -> Process:
    ticks = int((directory / "stat").read_bytes().rpartition(b")")[2].split()[_STARTED])
    uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
    return Process(
        exe=_link(directory / "exe"),
        script=text(script(os.fsdecode((directory / "cmdline").read_bytes()).split("\0")[:-1])),
        unit=text(unit(os.fsdecode((directory / "cgroup").read_bytes()))),
        began=time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK"),
    )


def _link(path: Path) -> str:
    try:
        return text(str(path.readlink()).removesuffix(" (deleted)"))
    except OSError:
        return ""


def script(arguments: list[str]) -> str:
    """The script in an interpreter's command line: a file, ``-m`` and a module, or ``-c``. Empty for other programs."""
    if not arguments or not _INTERPRETER.fullmatch(PurePath(arguments[0]).name):
        return ""
    for number, argument in enumerate(arguments[1:], 1):
        if argument == "-m":
            return " ".join(arguments[number : number + 2])
        if argument in {"-c", "-e"}:
            return argument
        if not argument.startswith("-") and arguments[number - 1] not in {"-W", "-X", "-I", "-r"}:
            return argument
    return ""


def unit(cgroup: str) -> str:
    """The innermost service, else the innermost scope, in the text of /proc/PID/cgroup (cgroups(7))."""
    names: list[str] = _UNIT.findall(cgroup)
    services = [name for name in names if name.endswith(".service")]
    return (services or names or [""])[-1]
