"""The language between an application and the daemon: one message a request, one a reply. No I/O here.

A message is a header and attributes, in host byte order (it never leaves the machine):

    magic "SSA1" | kind u16 | attribute count u16 | length of the whole message u32
    type u16 | reserved u16, zero | length u32 | value        ... for each attribute

An attribute's type is the socket option of the same meaning (`ssa.protocol.options`); what is no option has a type
from 512 up. A message is a packet of a SOCK_SEQPACKET socket; the TCP descriptor rides along (SCM_RIGHTS).
"""

from __future__ import annotations

import struct

from ssa.protocol.options import NUMBERS

# No dataclasses here, nor anything else that is slow to load: a new program would pay for it with every connection.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    _M = TypeVar("_M", bound="Message")

MAX_MESSAGE = 64 * 1024  # bytes of a request, and more than a usual reply has
MAX_REPLY = 128 * 1024  # bytes: the longest thing in one is a certificate chain, for which OpenSSL allows 100 KiB

_HEADER = struct.Struct("=4sHHI")
_ATTRIBUTE = struct.Struct("=HHI")
_MAGIC = b"SSA1"


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
        return {name: getattr(self, name) for name in _FIELDS[type(self)]}


class Request(Message):
    """What a socket was told, by its options and its calls: the attributes that all handshakes share.

    None is no opinion: whatever the policy says. `trusted`, `certificates` and `keys` are numbers of descriptors:
    files that the application has opened ride along with the message, behind the socket, in this order.
    """

    __slots__ = (
        "alpn",
        "certificates",
        "control",
        "disabled",
        "hostname",
        "keys",
        "peer_auth",
        "server_name",
        "session_ttl",
        "strict",
        "timeout_ms",
        "trusted",
        "upgrade",
        "version_max",
        "version_min",
    )

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        *,
        hostname: str | None = None,
        server_name: str | None = None,
        alpn: tuple[str, ...] | None = None,
        timeout_ms: int | None = None,
        trusted: int | None = None,
        certificates: int | None = None,
        keys: int | None = None,
        session_ttl: int | None = None,
        disabled: tuple[str, ...] | None = None,
        peer_auth: int | None = None,
        version_min: int | None = None,
        version_max: int | None = None,
        upgrade: int | None = None,
        control: int | None = None,
        strict: int | None = None,
    ) -> None:
        self.hostname = hostname  # a client's: the server's name or address, which its certificate has to be for
        self.server_name = server_name  # a server's: the one name that it serves
        self.alpn = alpn
        self.timeout_ms = timeout_ms  # for the handshake
        self.trusted = trusted  # 0: the application's trust anchors are none, so nobody is trusted
        self.certificates = certificates
        self.keys = keys
        self.session_ttl = session_ttl  # seconds
        self.disabled = disabled  # cipher suites
        self.peer_auth = peer_auth  # 1: a client has to present a certificate
        self.version_min = version_min  # the number on the wire, as 0x0304
        self.version_max = version_max
        self.upgrade = upgrade  # 1: the connection was in use as plain text before
        self.control = control  # 1: the application will read control records itself
        self.strict = strict  # 1: certificates have to keep to RFC 5280 strictly (OpenSSL's X509_V_FLAG_X509_STRICT)


class Connect(Request):
    """Handshake as a client on the connected socket that comes with this message."""

    __slots__ = ()

    def __init__(
        self, hostname: str, alpn: tuple[str, ...] | None = None, timeout_ms: int | None = None, **options: Any
    ) -> None:
        super().__init__(hostname=hostname, alpn=alpn, timeout_ms=timeout_ms, **options)


class Accept(Request):
    """Handshake as a server on the connected socket that comes with this message."""

    __slots__ = ()


class Listen(Request):
    """Serve the listening socket that comes with this message; without one: serve on, with these options.

    From then on this connection is a queue of replies, each with a descriptor on which a handshake was completed.
    """

    __slots__ = ("backlog",)

    def __init__(self, backlog: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.backlog = backlog  # connections that may wait to be taken


class Gather(Request):
    """Serve the bound datagram socket that comes with this message: all its clients on the descriptor of the reply.

    Each packet there is one of a client's, behind who that is (`ssa.protocol.addresses`).
    """

    __slots__ = ()


class Check(Request):
    """Say whether these options would be accepted: the reply has what the policy makes of them."""

    __slots__ = ()


class Describe(Message):
    """Say what the TLS socket is that comes with this message."""

    __slots__ = ()


class Rekey(Message):
    """Serve what TLS has after the handshake on the socket that comes with this message (RFC 8446 section 4.6)."""

    __slots__ = ("receiving", "sending")

    def __init__(self, receiving: int | None = None, sending: int | None = None) -> None:
        self.receiving = receiving  # 1: handshake messages are next in the socket: a KeyUpdate, or a part of one
        self.sending = sending  # 1: send ours


class Ticket(Message):
    """A session ticket that was read from the TLS socket that comes with this message. There is no reply."""

    __slots__ = ("ticket",)

    def __init__(self, ticket: bytes) -> None:
        self.ticket = ticket  # one or more NewSessionTicket messages


class Close(Message):
    """What was written to the socket that comes with this message is all: end the stream in order, behind it.

    Without it, a relayed stream that every process has closed is cut: the peer has to see it as a crash.
    """

    __slots__ = ("abort",)

    def __init__(self, abort: int | None = None) -> None:
        self.abort = abort  # 1: it is about to be closed with SO_LINGER {1, 0}: nothing more is said


class Plug(Message):
    """Does nothing, and stays unread until the request before it is done.

    While it lies there the connection is not writable, which is how a descriptor tells that its connect(2) is under
    way. There is no reply.
    """

    __slots__ = ("padding",)

    def __init__(self, padding: bytes) -> None:
        self.padding = padding


class Reply(Message):
    """What became of a request: without a `reason` it was done."""

    __slots__ = (
        "alert",
        "alpn",
        "chain",
        "cipher",
        "detail",
        "ended",
        "largest",
        "local",
        "peer",
        "peer_identity",
        "reason",
        "rekeyable",
        "relayed",
        "remote",
        "resumed",
        "sending",
        "server_name",
        "session_ttl",
        "socket_id",
        "unfinished",
        "version",
        "version_max",
        "version_min",
    )

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        *,
        socket_id: int | None = None,
        version: str | None = None,
        cipher: str | None = None,
        alpn: tuple[str, ...] | None = None,
        peer_identity: str | None = None,
        server_name: str | None = None,
        resumed: int | None = None,
        chain: bytes | None = None,
        session_ttl: int | None = None,
        version_min: int | None = None,
        version_max: int | None = None,
        remote: str | None = None,
        rekeyable: int | None = None,
        relayed: int | None = None,
        ended: str | None = None,
        sending: int | None = None,
        unfinished: int | None = None,
        peer: bytes | None = None,
        local: bytes | None = None,
        largest: int | None = None,
        reason: str | None = None,
        detail: str | None = None,
        alert: str | None = None,
    ) -> None:
        self.socket_id = socket_id
        self.version = version
        self.cipher = cipher
        self.alpn = alpn
        self.peer_identity = peer_identity
        self.server_name = server_name  # the name that the client asked for
        self.resumed = resumed
        self.chain = chain  # the peer's certificates, DER, its own first: of Describe
        self.session_ttl = session_ttl  # this and the next two: of Check
        self.version_min = version_min
        self.version_max = version_max
        self.remote = remote  # the peer's address and port, with a space between: once it is gone the kernel forgets
        self.rekeyable = rekeyable  # 1: its keys can change, by the peer's KeyUpdate too
        self.relayed = relayed  # 1: the descriptor that comes with this message is what is read and written
        self.ended = ended  # of Describe: how a relayed stream of the peer's has ended, see ssa.library.relay_end
        self.sending = sending  # of Rekey: 1: the peer wants a KeyUpdate in return
        self.unfinished = unfinished  # of Rekey: 1: a handshake message goes on in a record that has not come yet
        self.peer = peer  # of datagrams: the client that was accepted (ssa.protocol.addresses)
        self.local = local  # the same of the end that it came to
        self.largest = largest  # of datagrams: how many bytes one can carry
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
_BYTES = _Codec(bytes, bytes)
_U32, _U64 = _number("=I"), _number("=Q")

# field of the message -> attribute type, and how its value is written
_ATTRIBUTES: dict[str, tuple[int, _Codec]] = {
    "hostname": (NUMBERS["TLS_REMOTE_HOSTNAME"], _TEXT),
    "server_name": (NUMBERS["TLS_HOSTNAME"], _TEXT),
    "trusted": (NUMBERS["TLS_TRUSTED_PEER_CERTIFICATES"], _U32),
    "certificates": (NUMBERS["TLS_CERTIFICATE_CHAIN"], _U32),
    "keys": (NUMBERS["TLS_PRIVATE_KEY"], _U32),
    "alpn": (NUMBERS["TLS_ALPN"], _NAMES),
    "session_ttl": (NUMBERS["TLS_SESSION_TTL"], _U32),
    "disabled": (NUMBERS["TLS_DISABLE_CIPHER"], _NAMES),
    "peer_identity": (NUMBERS["TLS_PEER_IDENTITY"], _TEXT),
    "peer_auth": (NUMBERS["TLS_REQUEST_PEER_AUTH"], _U32),
    "chain": (NUMBERS["TLS_PEER_CERTIFICATE_CHAIN"], _BYTES),
    "socket_id": (NUMBERS["TLS_ID"], _U64),
    "cipher": (NUMBERS["TLS_CHOSEN_CIPHER"], _TEXT),
    "detail": (NUMBERS["TLS_ERROR"], _TEXT),
    "resumed": (NUMBERS["TLS_RESUMED_SESSION"], _U32),
    "version_min": (NUMBERS["TLS_VERSION_MIN"], _U32),
    "version_max": (NUMBERS["TLS_VERSION_MAX"], _U32),
    "version": (NUMBERS["TLS_VERSION_CONN"], _TEXT),
    "upgrade": (NUMBERS["TLS_UPGRADE"], _U32),
    "timeout_ms": (512, _U32),
    "reason": (513, _TEXT),
    "alert": (514, _TEXT),
    "control": (515, _U32),
    "backlog": (516, _U32),
    "receiving": (517, _U32),
    "sending": (518, _U32),
    "ticket": (519, _BYTES),
    "padding": (520, _BYTES),
    "rekeyable": (521, _U32),
    "relayed": (530, _U32),
    "ended": (531, _TEXT),
    "strict": (540, _U32),
    "unfinished": (541, _U32),
    "remote": (522, _TEXT),
    "peer": (524, _BYTES),
    "largest": (523, _U32),
    "local": (525, _BYTES),
    "abort": (540, _U32),
}

_KINDS: dict[type[Message], int] = {
    Connect: 1,
    Reply: 2,
    Accept: 3,
    Listen: 4,
    Check: 5,
    Describe: 6,
    Rekey: 7,
    Ticket: 8,
    Plug: 9,
    Close: 11,
    Gather: 10,
}
_BY_KIND: dict[int, type[Message]] = {number: kind for kind, number in _KINDS.items()}
_FIELDS: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(name for cls in reversed(kind.__mro__) for name in getattr(cls, "__slots__", ())) for kind in _KINDS
}
REQUESTS = tuple(kind for kind in _KINDS if kind is not Reply)


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
    longest = MAX_REPLY if isinstance(message, Reply) else MAX_MESSAGE
    if length > longest:
        raise ValueError(f"message of {length} bytes is longer than {longest}")
    return _HEADER.pack(_MAGIC, _KINDS[type(message)], count, length) + body


def parse_untrusted(data: bytes, *kinds: type[_M]) -> _M:
    """The message in a packet, which has to be of one of these kinds. Raises `WireError` and nothing else."""
    try:
        kind, values = _attributes_untrusted(data)
        if kind not in kinds:
            raise WireError(f"message of kind {_KINDS[kind]} where another was due")
        return kind(**_fields_untrusted(values, kind))
    except WireError:
        raise
    except (struct.error, ValueError, TypeError) as exc:
        raise WireError(str(exc)) from exc


def _attributes_untrusted(data: bytes) -> tuple[type[Message], dict[int, bytes]]:
    magic, kind, count, length = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise WireError("not a message of this protocol")
    if kind not in _BY_KIND:
        raise WireError(f"message of the unknown kind {kind}")
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
    return _BY_KIND[kind], values


def _fields_untrusted(values: dict[int, bytes], kind: type[Message]) -> dict[str, Any]:
    parsed: dict[str, Any] = {}
    for name in _FIELDS[kind]:
        number, codec = _ATTRIBUTES[name]
        if number in values:
            parsed[name] = codec.unpack_untrusted(values.pop(number))
    if values:
        # Unknown means newer: to ignore it could be to ignore a restriction.
        raise WireError(f"unknown attributes {sorted(values)}")
    return parsed
