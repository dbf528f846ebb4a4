"""The uids that workers run as: a range that no user of this machine has. No two workers have the same one."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT = range(60_578, 61_184)  # between those of systemd-homed and of DynamicUser= (systemd's UIDS-GIDS)
_MOST = 1 << 16


def parse_untrusted(text: str) -> range:
    """A range such as 60578-61183. Raises ValueError."""
    first, _, last = text.partition("-")
    if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last) < (1 << 32) - 1):
        raise ValueError(f"{text!a}: expected the first and the last uid, as 60578-61183")
    if int(last) - int(first) >= _MOST:
        raise ValueError(f"{text!a}: more than {_MOST} uids")
    return range(int(first), int(last) + 1)


def free(uids: range, taken: Iterable[int]) -> int:
    """A uid of the range that is not taken, and of which no process runs. Raises OSError EUSERS."""
    used = {*taken, *_running()}
    for uid in uids:
        if uid not in used:
            return uid
    raise OSError(errno.EUSERS, f"all of the {len(uids)} uids from {uids.start} on are in use (--worker-uids)")


def _running() -> Iterable[int]:
    """The uids of all processes."""
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):  # it has ended
                    yield entry.stat().st_uid
