"""The values of a socket's options: from `setsockopt` to the attributes of a request, and back for `getsockopt`.

Certificates and keys are kept as descriptors: of the file that a path names, opened here, so that the daemon reads
nothing that the application could not read itself; or of memory that holds the PEM text. A key that a path names is
never read in the application.
"""

from __future__ import annotations

import errno
import os
import sys

from ssa import tls
from ssa.errors import SSAError, error
from ssa.protocol.options import FILES, FLAG, MAX_FILES, MAX_NAMES, NAMES, NEVER, NUMBER, OPTIONS, TEXT, VERSION
from ssa.tls import is_protocol_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from ssa.protocol.options import Option

VERSIONS = {name.encode(): number for name, number in tls.VERSIONS.items()}
_MAX_NUMBER = 2**32 - 1


class File:
    """A file that is passed on. Closed when nobody refers to it any more; several sockets can."""

    __slots__ = ("fd",)

    def __init__(self, value: bytes) -> None:
        """Raises `ssa.SSAError` BAD_VALUE, or OSError where a path cannot be opened."""
        self.fd = -1
        if b"-----BEGIN " in value:
            self.fd = os.memfd_create("ssa-option", os.MFD_CLOEXEC)
            os.write(self.fd, value)
        elif b"\n" in value:
            raise error("BAD_VALUE", "neither PEM nor a path")
        else:
            self.fd = os.open(value, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)

    @classmethod
    def of(cls, value: bytes | str | os.PathLike[str]) -> File:
        """A file from PEM text or a path: bytes, str or a path object. Raises as the class; OSError names the path."""
        data = os.fsencode(value)
        try:
            return cls(data)
        except SSAError:
            raise
        except OSError as exc:
            raise OSError(exc.errno, exc.strerror, os.fsdecode(data)) from exc

    def read(self) -> bytes:
        """The content of the file."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)

    def __del__(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)


class Settings:
    """The options of one socket. Immutable: `having` makes another."""

    __slots__ = ("_values",)

    def __init__(self, values: dict[str, Any] | None = None) -> None:
        self._values = values or {}

    @classmethod
    def of(cls, before: Settings | None = None, **values: Any) -> Settings:
        """Settings from a program's arguments, added to those before: files are PEM or paths, one or several."""
        given = {field: value for field, value in values.items() if value is not None}
        for field in _FILE_FIELDS:
            if field in given:
                blobs = given[field] if isinstance(given[field], (list, tuple)) else [given[field]]
                given[field] = tuple(File.of(blob) for blob in blobs)
        return (before or cls()).having(**given)

    def get(self, field: str) -> Any:
        """A value as it was set; None if it was not."""
        return self._values.get(field)

    def having(self, **values: Any) -> Settings:
        """A copy with some values replaced; None takes one away."""
        merged = {**self._values, **values}
        return Settings({field: value for field, value in merged.items() if value is not None})

    def told(self, option: Option, value: Any) -> Settings:
        """A copy after a `setsockopt`. Raises `ssa.SSAError` BAD_VALUE, TypeError, or OSError for a path."""
        parsed = _PARSERS[option.form](option, value)
        if option.form in (NAMES, FILES):
            parsed = self._longer(option, parsed) if parsed else None
        return self.having(**{option.field: parsed})

    def _longer(self, option: Option, more: tuple[Any, ...]) -> tuple[Any, ...]:
        values: tuple[Any, ...] = (*self._values.get(option.field, ()), *more)
        longest = MAX_FILES if option.form == FILES else MAX_NAMES
        if len(values) > longest:
            raise error("BAD_VALUE", f"{option.name}: more than {longest}")
        return values

    def request(self) -> dict[str, Any]:
        """The attributes of a request: files as their numbers."""
        return {field: len(value) if field in _FILE_FIELDS else value for field, value in self._values.items()}

    def descriptors(self) -> list[int]:
        """The files, in the order in which they are passed."""
        return [file.fd for field in _FILE_FIELDS for file in self._values.get(field, ())]


_FILE_FIELDS = ("trusted", "certificates", "keys")


def protocol_names(alpn: Sequence[str]) -> tuple[str, ...]:
    """The `alpn` of a call. Raises TypeError where it is one str, ValueError for a name that RFC 7301 does not have."""
    if isinstance(alpn, str):
        raise TypeError(f"alpn has to be a list of protocol names, as [{alpn!r}]")
    for name in alpn:
        if not is_protocol_name(name):
            raise ValueError(f"alpn: {name!r} is no protocol name: 1 to 255 ASCII characters (RFC 7301)")
    return tuple(alpn)


def upgrade_role(option: Option, value: Any) -> int:
    """The value of TLS_UPGRADE. Raises `ssa.SSAError` BAD_VALUE."""
    role = _number(option, value)
    if role not in (1, 2):
        raise error("BAD_VALUE", f"{option.name} is 1 (client) or 2 (server), not {role}")
    return role


def _text(option: Option, value: Any) -> str:
    try:
        text = _bytes(option, value).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise error("BAD_VALUE", f"{option.name}: not UTF-8") from exc
    if option.field in ("hostname", "server_name"):
        from ssa.names import normalise  # late: few programs set one

        try:
            return str(normalise(text))
        except ValueError as exc:
            raise error("BAD_VALUE", f"{option.name}: {exc}") from exc
    return text


def _bytes(option: Option, value: Any) -> bytes:
    if isinstance(value, str):
        value = value.encode("utf-8")
    if isinstance(value, int) or value is None:
        raise error("BAD_VALUE", f"{option.name} takes bytes, not {value!r}")
    data = bytes(value).removesuffix(b"\0")
    if b"\0" in data:
        raise error("BAD_VALUE", f"{option.name}: a NUL in the middle")
    return data


def _number(option: Option, value: Any) -> int:
    if isinstance(value, (bytes, bytearray, memoryview)) and len(value) == 4:
        value = int.from_bytes(value, "little" if memoryview(b"\1\0").cast("H")[0] == 1 else "big")  # as C has an int
    if not isinstance(value, int):
        raise error("BAD_VALUE", f"{option.name} takes an int, not {value!r}")
    if not 0 <= value <= _MAX_NUMBER:
        raise error("BAD_VALUE", f"{option.name}: {value} is out of range")
    return value


def _flag(option: Option, value: Any) -> int:
    number = _number(option, value)
    if number > 1:
        raise error("BAD_VALUE", f"{option.name} is 0 or 1, not {number}")
    return number


def _version(option: Option, value: Any) -> int:
    if isinstance(value, (str, bytes, bytearray, memoryview)) and len(value) != 4:
        name = _bytes(option, value)
        if name not in VERSIONS:
            raise error("BAD_VALUE", f"{option.name}: {name!r} is no version, expected TLSv1.2 or TLSv1.3")
        return VERSIONS[name]
    number = _number(option, value)
    if number not in VERSIONS.values():
        raise error("BAD_VALUE", f"{option.name}: {number:#06x} is no version, expected 0x0303 (1.2) or 0x0304 (1.3)")
    return number


def _names(option: Option, value: Any) -> tuple[str, ...]:
    data = _bytes(option, value)
    names = [name.strip() for name in data.split(b",")] if data.strip() else []
    for name in names:
        if not name.isascii() or not is_protocol_name(name.decode()):
            raise error("BAD_VALUE", f"{option.name}: {name!r} is no name: 1 to 255 ASCII characters")
    return tuple(name.decode("ascii") for name in names)


def _files(option: Option, value: Any) -> tuple[File, ...]:
    data = _bytes(option, os.fspath(value) if isinstance(value, os.PathLike) else value)
    return (File.of(data),) if data else ()


_PARSERS: dict[str, Callable[[Option, Any], Any]] = {
    TEXT: _text,
    NUMBER: _number,
    FLAG: _flag,
    NAMES: _names,
    FILES: _files,
    VERSION: _version,
}


# --- what getsockopt gives ---


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
        return _fitting(option, {number: name for name, number in VERSIONS.items()}[_version_number(value)], buflen)
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


def _version_number(value: int | str) -> int:
    return VERSIONS[value.encode()] if isinstance(value, str) else value


def _shown_files(value: bytes | tuple[File, ...] | None) -> bytes:
    if isinstance(value, bytes):
        from ssa import pem  # late: few programs ask

        return pem.encoded(der_certificates(value))
    return b"".join(file.read() for file in value or ())


def der_certificates(ders: bytes) -> Iterator[bytes]:
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
    FILES: _shown_files,
    VERSION: _version_number,
}
