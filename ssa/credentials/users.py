"""The users who may serve with a credential of the administrator's: users and groups, one a line.

    www-data      a user, by name
    1001          a user, by number
    %ssl-cert     a group, by name or number: its members, by their own or by a supplementary group
    *             all users
    # ...         a comment

Root and the daemon's own user always may. If the list is empty, nobody else may.
"""

from __future__ import annotations

import contextlib
import functools
import grp
import os
import pwd
import re
import time
from typing import TYPE_CHECKING

from ssa.errors import error, printable
from ssa.intime import TooSlow, in_time

if TYPE_CHECKING:
    from collections.abc import Iterable

_PATIENCE = 1.0  # seconds: names can be looked up over a network
_LASTS, _LASTS_UNKNOWN = 300.0, 10.0  # seconds that an answer counts; less if some names had no answer
_MOST = 256  # entries
_ENTRY = re.compile(r"\*|%?[^\s%*#,:][^,:\x00-\x1f\x7f]{0,255}")
_BETWEEN = re.compile(r"[\n,]")
_ACCOUNTS = ("/etc/passwd", "/etc/group")


class Users:
    """A list of users and groups. Names are looked up before they are needed, and again when accounts have changed."""

    def __init__(self, entries: tuple[str, ...] = ()) -> None:
        self.entries = entries
        self._named = [entry for entry in entries if entry != "*" and not entry.removeprefix("%").isdecimal()]
        self._numbers: dict[str, int] = {}
        self._looked_up_for: object = None
        self._again = 0.0  # time.monotonic() at which names are looked up again in any case

    @classmethod
    def parse_untrusted(cls, text: str) -> Users:
        """The list in a file's text. Raises `ssa.SSAError` BAD_VALUE for an entry that cannot be a user."""
        lines = [line.strip() for line in _BETWEEN.split(text)]
        entries = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
        if len(entries) > _MOST:
            raise error("BAD_VALUE", f"users: more than {_MOST} entries: put the users into a group, and name that")
        for entry in entries:
            if not _ENTRY.fullmatch(entry) or (entry.removeprefix("%").isdecimal() and _number(entry) >= _NOBODYS):
                raise error("BAD_VALUE", f"{printable(entry, 80)!r}: expected a user's name or number, %group, or *")
        return cls(entries)

    def shown(self) -> tuple[str, ...]:
        """The entries; if there are none, the daemon's own user."""
        return self.entries or (own_name(),)

    def unknown(self) -> tuple[str, ...]:
        """The names that this machine does not know. They admit nobody."""
        if self.is_stale():
            self.look_up()
        return tuple(name for name in self._named if name not in self._numbers)

    def admit(self, uid: int, groups: Iterable[int]) -> bool:
        """True if a process of that user and those groups may serve with it, by the accounts as last looked up."""
        if uid in {0, os.geteuid()} or "*" in self.entries:
            return True
        wanted = {f"{uid}", *(f"%{group}" for group in groups)}
        return any(self._numbered(entry) in wanted for entry in self.entries)

    def _numbered(self, entry: str) -> str:
        if entry not in self._numbers:
            return f"{'%' * entry.startswith('%')}{_number(entry)}" if entry not in self._named else ""
        return f"{'%' * entry.startswith('%')}{self._numbers[entry]}"

    def is_stale(self) -> bool:
        """True if the names have to be looked up again.

        Accounts on a server change without a sign on this machine, and can be out of reach for a while.
        """
        if not self._named:
            return False
        return time.monotonic() > self._again or tuple(map(_changed, _ACCOUNTS)) != self._looked_up_for

    def look_up(self) -> None:
        """Look the names up. It may take a second: the accounts may be on a server."""
        accounts = tuple(map(_changed, _ACCOUNTS))
        found, answered = _numbers_in_time(self._named)
        self._numbers = {name: self._numbers[name] for name in self._numbers.keys() - answered} | found
        self._looked_up_for = accounts
        self._again = time.monotonic() + (_LASTS if len(found) == len(self._named) else _LASTS_UNKNOWN)


def look_up(lists: Iterable[Users]) -> None:
    """Look up the names of several lists, one after the other."""
    for users in lists:
        users.look_up()


_NOBODYS = 2**32 - 1  # -1, which is no user's number


def _number(entry: str) -> int:
    return int(entry.removeprefix("%"))


def _changed(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)  # noqa: PTH116 - every handshake does this: os.stat is faster
    except OSError:
        return (0, 0)
    return (status.st_ino, status.st_mtime_ns)


@functools.cache
def own_name() -> str:
    """The name of the daemon's own user. It is looked up at the start, as that may take long."""
    uid = os.geteuid()
    try:
        return "root" if uid == 0 else pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _numbers_in_time(names: list[str]) -> tuple[dict[str, int], set[str]]:
    """The numbers of those names that the machine knows, and the set of names that there was an answer about.

    A thread asks, and is waited for no longer than `_PATIENCE`.
    """
    found: dict[str, int] = {}
    answered: set[str] = set()

    def look() -> None:
        for name in names:
            try:
                found[name] = grp.getgrnam(name[1:]).gr_gid if name.startswith("%") else pwd.getpwnam(name).pw_uid
            except KeyError:
                pass
            except (OSError, ValueError):
                continue
            answered.add(name)

    with contextlib.suppress(TooSlow):
        in_time(look, _PATIENCE)
    known = answered.copy()
    return {name: found[name] for name in known & found.keys()}, known
