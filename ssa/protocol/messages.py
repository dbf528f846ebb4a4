"""The messages of the request language: each kind is a class, whose `__slots__` are the attributes that it can have.

No I/O here. `ssa.protocol.wire` writes and reads them, `ssa.protocol.attributes` says what each attribute is.
"""

from __future__ import annotations

# No dataclasses here, nor anything else that is slow to load: a new program would pay for it with every connection.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Message:
    """A message: its attributes are the names in `__slots__`. None is an attribute that is absent."""

    __slots__: tuple[str, ...] = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(tuple(self.values().items()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.values().items())})"

    def values(self) -> dict[str, Any]:
        """The message's attributes, by name."""
        return {name: getattr(self, name) for name in FIELDS[type(self)]}


class Request(Message):
    """A request with a socket's options: the attributes that all handshakes share.

    An absent attribute leaves it to the policy. `trusted`, `certificates` and `keys` are numbers of descriptors: files
    that the application has opened ride along with the message, behind the socket, in this order.
    """

    __slots__ = (
        "alpn",
        "certificates",
        "control",
        "disabled",
        "hostname",
        "keys",
        "peer_auth",
        "relay",
        "server_name",
        "session_ttl",
        "strict",
        "timeout_ms",
        "trusted",
        "upgrade",
        "version_max",
        "version_min",
        "with_chain",
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
        relay: int | None = None,
        with_chain: int | None = None,
    ) -> None:
        self.hostname = hostname
        self.server_name = server_name
        self.alpn = alpn
        self.timeout_ms = timeout_ms
        self.trusted = trusted
        self.certificates = certificates
        self.keys = keys
        self.session_ttl = session_ttl
        self.disabled = disabled
        self.peer_auth = peer_auth
        self.version_min = version_min
        self.version_max = version_max
        self.upgrade = upgrade
        self.control = control
        self.strict = strict
        self.relay = relay
        self.with_chain = with_chain


class Connect(Request):
    """Make the handshake as a client on the connected socket that comes with this message."""

    __slots__ = ("early", "lenient")

    def __init__(
        self,
        hostname: str,
        alpn: tuple[str, ...] | None = None,
        timeout_ms: int | None = None,
        *,
        lenient: int | None = None,
        early: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(hostname=hostname, alpn=alpn, timeout_ms=timeout_ms, **options)
        self.lenient = lenient
        self.early = early


class Accept(Request):
    """Make the handshake as a server on the connected socket that comes with this message.

    The client's first bytes can be `ahead`, where the program has read them already.
    """

    __slots__ = ("ahead", "early")

    def __init__(self, ahead: bytes | None = None, early: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.ahead = ahead
        self.early = early


class Listen(Request):
    """Serve the listening socket that comes with this message; without one: serve on, with these options.

    From then on this connection is a queue of replies, each with a descriptor on which a handshake was completed.
    """

    __slots__ = ("backlog",)

    def __init__(self, backlog: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.backlog = backlog


class Gather(Request):
    """Serve the bound datagram socket that comes with this message: all its clients on the descriptor of the reply.

    Each packet there is one of a client's, with the client's address before it (`ssa.protocol.addresses`).
    """

    __slots__ = ()


class Check(Request):
    """Say whether these options would be accepted: the reply has what the policy makes of them."""

    __slots__ = ()


class Describe(Message):
    """Say what the TLS socket is that comes with this message."""

    __slots__ = ("truncated",)

    def __init__(self, truncated: int | None = None) -> None:
        self.truncated = truncated


class Rekey(Message):
    """Serve what TLS has after the handshake on the socket that comes with this message (RFC 8446 section 4.6)."""

    __slots__ = ("receiving", "sending")

    def __init__(self, receiving: int | None = None, sending: int | None = None) -> None:
        self.receiving = receiving
        self.sending = sending


class Ticket(Message):
    """A session ticket that was read from the TLS socket that comes with this message. There is no reply."""

    __slots__ = ("ticket",)

    def __init__(self, ticket: bytes) -> None:
        self.ticket = ticket


class Close(Message):
    """End the stream of the socket that comes with this message in order, behind the last byte that was written.

    Without it, a relayed stream that every process has closed is cut: the peer has to see it as a crash.
    """

    __slots__ = ("abort", "half")

    def __init__(self, abort: int | None = None, half: int | None = None) -> None:
        self.abort = abort
        self.half = half


class Plug(Message):
    """Does nothing, and stays unread until the request before it is done.

    While it lies there the connection is not writable, which is how a descriptor tells that its connect(2) is under
    way. There is no reply.
    """

    __slots__ = ("padding",)

    def __init__(self, padding: bytes) -> None:
        self.padding = padding


class Fallback(Message):
    """Say whether what ssa cannot do for a program, which `detail` names, may be left to its own TLS library."""

    __slots__ = ("detail",)

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail


class Reply(Message):
    """The result of a request. Without a `reason` it was done."""

    __slots__ = (
        "alert",
        "alpn",
        "chain",
        "cipher",
        "cut_is_error",
        "detail",
        "ended",
        "errno",
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
        cut_is_error: int | None = None,
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
        errno: int | None = None,
    ) -> None:
        self.socket_id = socket_id
        self.version = version
        self.cipher = cipher
        self.cut_is_error = cut_is_error
        self.alpn = alpn
        self.peer_identity = peer_identity
        self.server_name = server_name
        self.resumed = resumed
        self.chain = chain
        self.session_ttl = session_ttl
        self.version_min = version_min
        self.version_max = version_max
        self.remote = remote
        self.rekeyable = rekeyable
        self.relayed = relayed
        self.ended = ended
        self.sending = sending
        self.unfinished = unfinished
        self.peer = peer
        self.local = local
        self.largest = largest
        self.reason = reason
        self.detail = detail
        self.alert = alert
        self.errno = errno


class Kind:
    """A row of the table of kinds.

    Attributes:
        comes_with: the socket that is the first descriptor of the request.
        reply: what is answered where the request was done.
    """

    __slots__ = ("comes_with", "meaning", "message", "number", "reply")

    def __init__(self, number: int, message: type[Message], meaning: str, comes_with: str, reply: str) -> None:
        self.number = number
        self.message = message
        self.meaning = meaning
        self.comes_with = comes_with
        self.reply = reply

    @property
    def name(self) -> str:
        """The kind's name: ``connect``."""
        return self.message.__name__.lower()


_STREAM = "a TCP socket that is connected, or is being connected"
_LIVE = "a TLS socket"
_DONE = "a reply about the TLS socket; a descriptor where it is `relayed`"

_TABLE = (
    Kind(
        1,
        Connect,
        "make the handshake as a client",
        f"{_STREAM}; for DTLS a connected UDP socket",
        f"{_DONE}, and for DTLS always",
    ),
    Kind(2, Reply, "what became of a request", "a descriptor, where the kind of the request says so", ""),
    Kind(3, Accept, "make the handshake as a server", _STREAM, _DONE),
    Kind(
        4,
        Listen,
        "serve this listener; a second one on the same connection changes the options",
        "a listening TCP socket, or a bound UDP socket; a second one: the end of a pipe",
        "an empty reply, and then one with a descriptor for each connection that is ready; to a second one: none",
    ),
    Kind(
        5,
        Check,
        "say whether these options would be accepted",
        "no socket; files as the options say",
        "`session_ttl`, `version_min` and `version_max` as the policy makes them",
    ),
    Kind(6, Describe, "say what this socket is", _LIVE, "all about it, with `chain`"),
    Kind(7, Rekey, "take the handshake messages that are next, or change the sending key", _LIVE, "what is due next"),
    Kind(8, Ticket, "keep these session tickets", _LIVE, "none"),
    Kind(9, Plug, "nothing: it stays unread until the request before it is done", "nothing", "none"),
    Kind(
        10,
        Gather,
        "serve all clients of this port on one descriptor",
        "a bound UDP socket",
        "an empty reply with the descriptor",
    ),
    Kind(
        11, Close, "end the stream in order (close_notify behind the last byte), or let it go", _LIVE, "an empty reply"
    ),
    Kind(
        12,
        Fallback,
        "say whether what ssa cannot do for this program, in words, may be left to its own TLS library",
        "nothing",
        "an empty reply; POLICY_DENIED where the policy's `coercion` is strict",
    ),
)

KINDS: dict[type[Message], Kind] = {kind.message: kind for kind in _TABLE}
FIELDS: dict[type[Message], tuple[str, ...]] = {
    kind: tuple(name for cls in reversed(kind.__mro__) for name in getattr(cls, "__slots__", ())) for kind in KINDS
}
REQUESTS = tuple(kind for kind in KINDS if kind is not Reply)
