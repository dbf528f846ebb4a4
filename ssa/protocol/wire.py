"""The language between an application and the daemon: one message a request, one a reply. No I/O here.

A message is a header and attributes, in host byte order (it never leaves the machine):

    magic "SSA1" | kind u16 | attribute count u16 | length of the whole message u32
    type u16 | reserved u16, zero | length u32 | value        ... for each attribute

A message is a packet of a SOCK_SEQPACKET socket; descriptors ride along (SCM_RIGHTS). The kinds are
`ssa.protocol.messages`, the attributes `ssa.protocol.attributes`; docs/library.md is the whole language.
"""

from __future__ import annotations

import struct

from ssa.protocol.attributes import ATTRIBUTES, MAX_AHEAD
from ssa.protocol.messages import (
    FIELDS,
    KINDS,
    REQUESTS,
    Accept,
    Check,
    Close,
    Connect,
    Describe,
    Fallback,
    Gather,
    Listen,
    Message,
    Plug,
    Rekey,
    Reply,
    Request,
    Ticket,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    _M = TypeVar("_M", bound="Message")

__all__ = [
    "MAX_AHEAD",
    "MAX_MESSAGE",
    "MAX_REPLY",
    "REQUESTS",
    "SPOKEN",
    "Accept",
    "Check",
    "Close",
    "Connect",
    "Describe",
    "Fallback",
    "Gather",
    "Listen",
    "Message",
    "OtherVersion",
    "Plug",
    "Rekey",
    "Reply",
    "Request",
    "Ticket",
    "WireError",
    "pack",
    "parse_untrusted",
]

MAX_MESSAGE = 64 * 1024  # bytes of a request, and more than a usual reply has
MAX_REPLY = 128 * 1024  # bytes: the longest thing in one is a certificate chain, for which OpenSSL allows 100 KiB

_HEADER = struct.Struct("=4sHHI")
_ATTRIBUTE = struct.Struct("=HHI")
_FAMILY, _VERSION = b"SSA", b"1"
_MAGIC = _FAMILY + _VERSION
_NUMBERS = {attribute.number for attribute in ATTRIBUTES.values()}
_LATEST = max(_NUMBERS)
_BY_NUMBER: dict[int, type[Message]] = {kind.number: message for message, kind in KINDS.items()}

# What this version has, for the words of `OtherVersion`.
SPOKEN = f"{_MAGIC.decode()} with kinds up to {max(_BY_NUMBER)} and attributes up to {_LATEST}"


class WireError(ValueError):
    """The bytes are no message of this language. The parsers here raise this, and nothing else."""


class OtherVersion(WireError):
    """The message is of another version of this language, or has something that a later one has added to it."""


def pack(message: Message) -> bytes:
    """The message as one packet. Raises ValueError where it is too long, or a value can't be written."""
    body = bytearray()
    count = 0
    for field, value in message.values().items():
        if value is None:
            continue
        attribute = ATTRIBUTES[field]
        try:
            encoded = attribute.form.pack(value)
        except struct.error as exc:
            raise ValueError(f"{field}: {exc}") from exc
        body += _ATTRIBUTE.pack(attribute.number, 0, len(encoded)) + encoded
        count += 1
    length = _HEADER.size + len(body)
    longest = MAX_REPLY if isinstance(message, Reply) else MAX_MESSAGE
    if length > longest:
        raise ValueError(f"message of {length} bytes is longer than {longest}")
    return _HEADER.pack(_MAGIC, KINDS[type(message)].number, count, length) + body


def parse_untrusted(data: bytes, *kinds: type[_M]) -> _M:
    """The message in a packet, which has to be of one of these kinds. Raises `WireError` and nothing else."""
    try:
        kind, values = _attributes_untrusted(data)
        if kind not in kinds:
            raise WireError(f"message of the kind {KINDS[kind].name} where another was due")
        return kind(**_fields_untrusted(values, kind))
    except WireError:
        raise
    except (struct.error, ValueError, TypeError) as exc:
        raise WireError(str(exc)) from exc


def _attributes_untrusted(data: bytes) -> tuple[type[Message], dict[int, bytes]]:
    _check_version_untrusted(data[: len(_MAGIC)])
    _, kind, count, length = _HEADER.unpack_from(data)
    if kind not in _BY_NUMBER:
        raise OtherVersion(f"a message of kind {kind}")
    if length != len(data):
        raise WireError(f"message says {length} bytes and has {len(data)}")
    values: dict[int, bytes] = {}
    at = _HEADER.size
    for _ in range(count):
        number, reserved, size = _ATTRIBUTE.unpack_from(data, at)
        at += _ATTRIBUTE.size
        if reserved or number in values or at + size > len(data):
            raise WireError(f"attribute {number} is malformed or comes twice")
        values[number] = data[at : at + size]
        at += size
    if at != len(data):
        raise WireError("bytes behind the last attribute")
    return _BY_NUMBER[kind], values


def _check_version_untrusted(magic: bytes) -> None:
    if magic == _MAGIC:
        return
    if magic.startswith(_FAMILY) and len(magic) == len(_MAGIC):
        raise OtherVersion(f"a message of version {magic.decode('latin-1')!a}")
    raise WireError("not a message of this language")


def _fields_untrusted(values: dict[int, bytes], kind: type[Message]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for field in FIELDS[kind]:
        attribute = ATTRIBUTES[field]
        if attribute.number in values:
            parsed[field] = attribute.form.unpack_untrusted(values.pop(attribute.number))
    if values and kind is not Reply:  # a reply restricts nothing: what a later daemon tells besides is passed over
        later = sorted(number for number in values if number not in _NUMBERS)
        if later:  # to ignore it could be to ignore a restriction
            raise OtherVersion(f"a message with the attributes {later}")
        raise WireError(f"a {KINDS[kind].name} has no attributes {sorted(values)}")
    return parsed
