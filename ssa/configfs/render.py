"""Values to the bytes of a file: one value a line, a newline at the end. Pure."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CONTROL = re.compile(r"[\x00-\x1f\x7f\\]")


def line(value: object) -> bytes:
    r"""One value, on one line whatever is in it: control characters are octal as in /proc, a backslash is ``\134``."""
    text = _CONTROL.sub(lambda match: f"\\{ord(match.group()):03o}", str(value))
    return text.encode("utf-8", "surrogateescape") + b"\n"


def lines(values: Iterable[object]) -> bytes:
    """A list, one value a line; an empty one is an empty line."""
    return b"".join(line(value) for value in values) or b"\n"


def yes_no(value: bool) -> bytes:  # noqa: FBT001 - it is the value
    """A truth value."""
    return b"yes\n" if value else b"no\n"


def moment(seconds: float) -> bytes:
    """A time, in seconds since 1970, as RFC 3339 in UTC."""
    return line(datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))


def pem(certificates: Iterable[bytes]) -> bytes:
    """Certificates in DER as PEM (RFC 7468), as openssl reads it; none at all is an empty line."""
    return b"".join(map(_pem, certificates)) or b"\n"


def _pem(der: bytes) -> bytes:
    text = base64.b64encode(der)
    rows = b"".join(text[start : start + 64] + b"\n" for start in range(0, len(text), 64))
    return b"-----BEGIN CERTIFICATE-----\n" + rows + b"-----END CERTIFICATE-----\n"
