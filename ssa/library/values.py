"""Values of options as `getsockopt` gives them: the other way round from `ssa.library.settings`."""

from __future__ import annotations

import errno
import sys

from ssa.library.settings import VERSIONS, File
from ssa.protocol.options import FILES, FLAG, NAMES, NEVER, NUMBER, OPTIONS, TEXT, VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ssa.protocol.options import Option


def option_of(number: int, to: str) -> Option:
    """The row of an option that can be set or read. Raises OSError ENOPROTOOPT."""
    option = OPTIONS.get(number)
    if option is None:
        raise OSError(errno.ENOPROTOOPT, f"{number} is no option of level IPPROTO_TLS")
    if (to == "set" and not option.settable) or (to == "read" and option.readable == NEVER):
        raise OSError(errno.ENOPROTOOPT, f"{option.name} cannot be {to}")
    return option


def shown(option: Option, value: Any, buflen: int) -> Any:
    """A value as getsockopt gives it."""
    if option.form == VERSION and buflen:
        return _fitting(option, {number: name for name, number in VERSIONS.items()}[_version(value)], buflen)
    value = _FORMS[option.form](value)
    if not buflen:
        return value
    return _fitting(option, value if isinstance(value, bytes) else _c_int(value), buflen)


def _c_int(value: int) -> bytes:
    """A number as C has it; the number of a socket can outgrow four bytes."""
    return value.to_bytes(4 if value < 2**32 else 8, sys.byteorder)


def _fitting(option: Option, value: bytes, buflen: int) -> bytes:
    if len(value) > buflen:
        raise OSError(errno.ENOBUFS, f"{option.name} is {len(value)} bytes long")
    return value


def _version(value: int | str) -> int:
    return VERSIONS[value.encode()] if isinstance(value, str) else value


def _files(value: bytes | tuple[File, ...] | None) -> bytes:
    if isinstance(value, bytes):
        from ssa import pem  # late: few programs ask

        return pem.encoded(der_certificates(value))
    return b"".join(file.read() for file in value or ())


def der_certificates(ders: bytes) -> Iterable[bytes]:
    """Certificates that lie one behind the other: each says how long it is."""
    while ders:
        octets = ders[1] & 0x7F if ders[1] & 0x80 else 0
        end = 2 + octets + (int.from_bytes(ders[2 : 2 + octets], "big") if octets else ders[1])
        yield ders[:end]
        ders = ders[end:]


_FORMS: dict[str, Callable[[Any], Any]] = {
    TEXT: lambda value: (value or "").encode(),
    NUMBER: lambda value: value or 0,
    FLAG: lambda value: value or 0,
    NAMES: lambda value: ",".join(value or ()).encode(),
    FILES: _files,
    VERSION: _version,
}
