"""The language between an application and the daemon: one message a request, one a reply. No I/O here.

A message is a header and attributes, in host byte order (it never leaves the machine):

    magic "SSA1" | kind u16 | attribute count u16 | length of the whole message u32
    type u16 | reserved u16, zero | length u32 | value        ... for each attribute

An attribute's type is the socket option of the same meaning (`ssa.options`); what is no option has a type
from 512 up. A message is a packet of a SOCK_SEQPACKET socket; the TCP descriptor rides along (SCM_RIGHTS).
"""

from __future__ import annotations

import struct

from ssa.options import NUMBERS

# No dataclasses here, nor anything else that is slow to load: a new program would pay for it with every connection.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _M = TypeVar("_M", bound="Message")

MAX_MESSAGE = 64 * 1024  # bytes; the longest thing in one is a certificate chain

_HEADER = struct.Struct("=4sHHI")
_ATTRIBUTE = struct.Struct("=HHI")
_MAGIC = b"SSA1"

CONNECT, REPLY = 1, 2  # kinds of message


class WireError(ValueError):
    """The bytes are no message of this protocol. The one exception that the parsers here raise."""


class Message:
    """A message: its attributes are the names in `__slots__`."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(tuple(self.values().items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values().items())})"

    def values(self) -> dict[str, Any]:
        """What is in the message, by name."""
        return {name: getattr(self, name) for name in self.__slots__}


class Connect(Message):
    """Handshake as a client on the descriptor that comes with this message."""

    __slots__ = ("alpn", "hostname", "timeout_ms")

    def __init__(self, hostname: str, alpn: tuple[str, ...] | None = None, timeout_ms: int | None = None) -> None:
        self.hostname = hostname  # a DNS name or an IP address
        self.alpn = alpn  # None: whatever the policy says
        self.timeout_ms = timeout_ms  # for the handshake; None: whatever the policy says


class Reply(Message):
    """What became of a request: without a `reason` the descriptor is a TLS socket now."""

    __slots__ = ("alert", "alpn", "cipher", "detail", "peer_identity", "reason", "socket_id", "version")

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        *,
        socket_id: int | None = None,
        version: str | None = None,
        cipher: str | None = None,
        alpn: tuple[str, ...] | None = None,
        peer_identity: str | None = None,
        reason: str | None = None,
        detail: str | None = None,
        alert: str | None = None,
    ) -> None:
        self.socket_id = socket_id
        self.version = version
        self.cipher = cipher
        self.alpn = alpn
        self.peer_identity = peer_identity
        self.reason = reason  # a row of ssa.errors.REASONS
        self.detail = detail
        self.alert = alert


class _Codec:
    __slots__ = ("pack", "unpack_untrusted")

    def __init__(self, pack: Callable[[Any], bytes], unpack_untrusted: Callable[[bytes], Any]) -> None:
        self.pack = pack
        self.unpack_untrusted = unpack_untrusted


def _text_untrusted(value: bytes) -> str:
    text = value.decode("utf-8")
    if "\0" in text:
        raise WireError("a NUL in a text")
    return text


def _protocols_untrusted(value: bytes) -> tuple[str, ...]:
    """RFC 7301's ProtocolNameList: a length byte before each name."""
    names, at = [], 0
    while at < len(value):
        end = at + 1 + value[at]
        name = value[at + 1 : end]
        if end > len(value) or not name:
            raise WireError("a protocol name of the wrong length")
        names.append(name.decode("ascii"))
        at = end
    return tuple(names)


def _protocols(names: tuple[str, ...]) -> bytes:
    return b"".join(bytes([len(name)]) + name.encode("ascii") for name in names)


def _number(fmt: str) -> _Codec:
    packer = struct.Struct(fmt)
    return _Codec(packer.pack, lambda value: packer.unpack(value)[0])


_TEXT = _Codec(str.encode, _text_untrusted)
_NAMES = _Codec(_protocols, _protocols_untrusted)
_U32, _U64 = _number("=I"), _number("=Q")

# field of the message -> attribute type, and how its value is written
_ATTRIBUTES: dict[str, tuple[int, _Codec]] = {
    "hostname": (NUMBERS["TLS_REMOTE_HOSTNAME"], _TEXT),
    "alpn": (NUMBERS["TLS_ALPN"], _NAMES),
    "socket_id": (NUMBERS["TLS_ID"], _U64),
    "version": (NUMBERS["TLS_VERSION_CONN"], _TEXT),
    "cipher": (NUMBERS["TLS_CHOSEN_CIPHER"], _TEXT),
    "peer_identity": (NUMBERS["TLS_PEER_IDENTITY"], _TEXT),
    "detail": (NUMBERS["TLS_ERROR"], _TEXT),
    "timeout_ms": (512, _U32),
    "reason": (513, _TEXT),
    "alert": (514, _TEXT),
}

_KINDS: dict[type[Message], int] = {Connect: CONNECT, Reply: REPLY}


def pack(message: Message) -> bytes:
    """The message as one packet. ValueError where it is longer than `MAX_MESSAGE` or a value can't be written."""
    body = bytearray()
    count = 0
    for name, value in message.values().items():
        if value is None:
            continue
        number, codec = _ATTRIBUTES[name]
        try:
            encoded = codec.pack(value)
        except struct.error as exc:
            raise ValueError(f"{name}: {exc}") from exc
        body += _ATTRIBUTE.pack(number, 0, len(encoded)) + encoded
        count += 1
    length = _HEADER.size + len(body)
    if length > MAX_MESSAGE:
        raise ValueError(f"message of {length} bytes is longer than {MAX_MESSAGE}")
    return _HEADER.pack(_MAGIC, _KINDS[type(message)], count, length) + body


def parse_untrusted(data: bytes, kind: type[_M]) -> _M:
    """The message of that kind in a packet. Raises `WireError` and nothing else."""
    try:
        values = _attributes_untrusted(data, _KINDS[kind])
        return kind(**_fields_untrusted(values, kind))
    except WireError:
        raise
    except (struct.error, ValueError, TypeError) as exc:
        raise WireError(str(exc)) from exc


def _attributes_untrusted(data: bytes, kind: int) -> dict[int, bytes]:
    magic, got, count, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise WireError("not a message of this protocol")
    if got != kind:
        raise WireError(f"message of kind {got} where {kind} was due")
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
    return values


def _fields_untrusted(values: dict[int, bytes], kind: type[Message]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for name in kind.__slots__:
        number, codec = _ATTRIBUTES[name]
        if number in values:
            parsed[name] = codec.unpack_untrusted(values.pop(number))
    if values:
        # Unknown means newer: to ignore it could be to ignore a restriction.
        raise WireError(f"unknown attributes {sorted(values)}")
    return parsed
