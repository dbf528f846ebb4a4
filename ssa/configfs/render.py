"""Makes the bytes of a file from values: one value a line, with a newline at the end. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ssa.pem import encoded
from ssa.times import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable


def text(value: object) -> str:
    r"""One value as printable text on one line. A peer or a user may have chosen the value.

    A backslash is written ``\134``, as in /proc/mounts. A character that is not printable is written as its bytes in
    UTF-8, each in the same form: control and formatting characters such as U+009B and U+202E, and bytes that are not
    UTF-8.
    """
    written = str(value)
    if written.isprintable() and "\\" not in written:
        return written
    return "".join(map(_shown, written))


def _shown(char: str) -> str:
    if char.isprintable() and char != "\\":
        return char
    # os.fsdecode() makes U+DC80 to U+DCFF of bytes that are not UTF-8. No file name has other surrogates.
    handler = "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass"
    return "".join(f"\\{byte:03o}" for byte in char.encode("utf-8", handler))


def line(value: object) -> bytes:
    """One value and a newline."""
    return text(value).encode() + b"\n"


def lines(values: Iterable[object]) -> bytes:
    """A list, one value a line. An empty list is an empty line."""
    return b"".join(line(value) for value in values) or b"\n"


def yes_no(value: bool) -> bytes:  # noqa: FBT001 - the argument is the value
    """``yes`` or ``no``, and a newline."""
    return b"yes\n" if value else b"no\n"


def moment(seconds: float) -> bytes:
    """A time, in seconds since 1970, as RFC 3339 in UTC."""
    return line(rfc3339(datetime.fromtimestamp(seconds, UTC)))


def pem(certificates: Iterable[bytes]) -> bytes:
    """Certificates, given in DER, as PEM; an empty line if there are none."""
    return encoded(certificates) or b"\n"
