"""Writes and reads the packets that processes of ssad send each other: messages that are dataclasses of plain values.

A packet has a header, the messages as JSON, and the byte strings in them as they are:

    u16 version   u16 number of byte strings   u32 length of the JSON   u32 length of each byte string
    the JSON: [[kind, [field, ...]], ...]      the byte strings; {"b": 0} in the JSON stands for the first of them

A worker is not trusted. What it sends is held against the types of the message's fields, value by value.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import struct
import types
import typing
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping

VERSION = 1  # of the messages; another one is not understood
MOST = 400 << 10  # bytes of a packet
TOGETHER = 32  # messages of a packet
_MOST_BYTES = 16384  # byte strings of a packet
_HEADER = struct.Struct("<HHI")
_LENGTH = struct.Struct("<I")
_INTEGERS = range(-(1 << 63), 1 << 64)


class BadFrame(ValueError):
    """A packet that is not what it should be."""


class OtherVersion(BadFrame):
    """A packet of another version of ssad."""


# --- writing ------------------------------------------------------------------------------------------------------


def pack(messages: Iterable[Any]) -> bytes:
    """A packet of messages."""
    found: list[bytes] = []

    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            found.append(value)
            return {"b": len(found) - 1}
        return [getattr(value, name) for name in _names(cast("Hashable", type(value)))]

    text = json.dumps([(type(message).__name__, plain(message)) for message in messages], default=plain).encode()
    lengths = b"".join(_LENGTH.pack(len(value)) for value in found)
    return b"".join((_HEADER.pack(VERSION, len(found), len(text)), lengths, text, *found))


@functools.cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind) if field.init)


def prepare(*kinds: Mapping[str, type]) -> None:
    """Look at the types of the messages' fields now, which takes some milliseconds."""
    for table in kinds:
        for kind in table.values():
            _names(cast("Hashable", kind))
            _checker(kind)


# --- reading ------------------------------------------------------------------------------------------------------


def parse_untrusted(data: bytes, kinds: Mapping[str, type]) -> list[Any]:
    """The messages of a packet, each of one of these kinds. Raises `BadFrame`."""
    try:
        return [_message(kinds, *entry) for entry in _entries(data)]
    except OtherVersion:
        raise
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError, struct.error) as exc:
        raise BadFrame(f"{type(exc).__name__}: {exc}") from None


def _entries(data: bytes) -> list[Any]:
    version, number, length = _HEADER.unpack_from(data)
    if version != VERSION:
        raise OtherVersion(f"its messages are of version {version}, and ours of {VERSION}")
    if number > _MOST_BYTES:
        raise BadFrame("too many byte strings")
    start = _HEADER.size + number * _LENGTH.size
    end = start + length
    found = []
    for index in range(number):
        (size,) = _LENGTH.unpack_from(data, _HEADER.size + index * _LENGTH.size)
        found.append(data[start + length : start + length + size])
        length += size
    if start + length != len(data):
        raise BadFrame("its lengths do not fit")
    entries: list[Any] = json.loads(data[start:end], object_hook=lambda value: found[value["b"]])
    if len(entries) > TOGETHER:
        raise BadFrame("too many messages")
    return entries


def _message(kinds: Mapping[str, type], kind: str, values: list[Any]) -> Any:
    return _checker(kinds[kind])(values)


def _dataclass(kind: Any, hints: Mapping[str, Any]) -> Callable[[Any], Any]:
    checks = [_checker(hints[name]) for name in _names(kind)]
    names = _names(kind)

    def check(value: Any) -> Any:
        if not isinstance(value, list):
            raise TypeError(f"{kind.__name__} is no list")
        return kind(**{name: do(given) for name, do, given in zip(names, checks, value, strict=True)})

    return check


def _named_tuple(kind: Any) -> Callable[[Any], Any]:
    whole = _tuple(tuple(typing.get_type_hints(kind).values()))
    return lambda value: kind(*whole(value))


def _tuple(parts: tuple[Any, ...]) -> Callable[[Any], Any]:
    if parts[1:] == (...,):
        each = _checker(parts[0])
        return lambda value: tuple(map(each, _list(value)))
    checks = [_checker(part) for part in parts]
    return lambda value: tuple(check(given) for check, given in zip(checks, _list(value), strict=True))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("no list")
    return value


def _optional(kind: Any) -> Callable[[Any], Any]:
    (other,) = (part for part in typing.get_args(kind) if part is not types.NoneType)
    check = _checker(other)
    return lambda value: None if value is None else check(value)


def _integer(value: Any) -> int:
    if type(value) is not int or value not in _INTEGERS:
        raise TypeError("no integer of 64 bits")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError("no number")
    if not math.isfinite(number := float(value)):
        raise ValueError("no finite number")
    return number


def _of(kind: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"no {kind.__name__}")
        return value

    return check


_PLAIN: dict[Any, Callable[[Any], Any]] = {
    int: _integer,
    float: _number,
    str: _of(str),
    bytes: _of(bytes),
    bool: _of(bool),
}


@functools.cache
def _checker(kind: Any) -> Callable[[Any], Any]:
    """A function that makes a value of this type from what JSON has, or raises TypeError, ValueError, LookupError."""
    if kind in _PLAIN:
        return _PLAIN[kind]
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, typing.get_type_hints(kind))
    if typing.get_origin(kind) is tuple:
        return _tuple(typing.get_args(kind))
    if typing.get_origin(kind) is types.UnionType:
        return _optional(kind)
    return _named_tuple(kind)
