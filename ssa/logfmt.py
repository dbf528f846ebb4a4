"""Fields of a log line, ``key=value``: a machine can read them back, and no value can look like another field."""

from __future__ import annotations

import io
import logging
import re

from ssa.errors import printable

_BARE = re.compile(r"[!#-<>-\[\]-~]*")  # printable ASCII without space, quote, equals sign and backslash
_LONGEST = 1000  # characters of one value


def fields(**values: object) -> str:
    r"""Values as ``key=value key="a value"``, in their order.

    A value with a space, a quote, an equals sign, a backslash or anything but ASCII is a string literal as in C and
    Python: ``"\n"``, ``"\u202e"``, ``"\""``. A truth value is ``yes`` or ``no``.
    """
    return " ".join(f"{name}={_value(value)}" for name, value in values.items())


def _value(value: object) -> str:
    text = ("no", "yes")[value] if isinstance(value, bool) else str(value)
    if len(text) <= _LONGEST and _BARE.fullmatch(text):
        return text
    return '"' + printable(text.replace("\\", r"\\").replace('"', r"\""), _LONGEST) + '"'


def charged(log: logging.Logger, uid: int, kind: str = "") -> logging.LoggerAdapter[logging.Logger]:
    """A log whose lines count as that user's: the daemon bounds how many lines one user may cause in a second.

    Lines with a `kind` are counted apart, so that however many there are, they take no other line's place.
    """
    return logging.LoggerAdapter(log, {"uid": uid, "kind": kind})


class Lines(io.TextIOBase):
    """Stands for standard error: each line that Python writes there, such as a warning, becomes one of the log."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self._log = log

    def write(self, text: str) -> int:
        """Log each line."""
        for line in filter(str.strip, text.splitlines()):
            self._log.warning("%s", line)
        return len(text)
