"""The socket options of the Secure Socket API: one table for `setsockopt`, the request language and the documentation.

The numbers are those of the original SSA's ``in_tls.h`` and its second version's, so that its programs
compile; ``TLS_UPGRADE`` stands in for its TCP_UPGRADE_TLS, whose number is TCP_FASTOPEN_KEY's today.
"""

from __future__ import annotations

IPPROTO_TLS = 205  # 715 % 255, as the original has it
AF_HOSTNAME = 43  # an address family that only ever appears in an address given to a TLS socket

MAX_FILES = 16  # that one option of form FILES can have
MAX_ANCHORS = 4 << 20  # bytes of PEM that all trust anchors of a request have: certifi's bundle has 300 KiB
MAX_NAMES = 64  # that one option of form NAMES can have: a request with the longest of them fits into a message

# How a value is written.
TEXT = "text"  # bytes, UTF-8; a NUL at the end, which C programs send, does not count
NUMBER = "number"  # an int
FLAG = "flag"  # an int, 0 or 1
NAMES = "names"  # bytes, names with commas between; each setsockopt adds to the list, an empty value empties it
FILES = "files"  # bytes, PEM or the path of a PEM file; each setsockopt adds one, an empty value takes all away
VERSION = "version"  # an int, as 0x0304, or bytes, as TLSv1.3

# When it can be read.
NEVER = "never"
ALWAYS = "always"
CONNECTED = "connected"  # after the handshake; before ENOTCONN


class Option:
    """A row of the table: an option at level `IPPROTO_TLS`.

    Attributes:
        field: the attribute of a `ssa.protocol.messages.Request` that it sets, and of a `Reply` that tells its value.
        settable: True where it can be set before the handshake. To set another one is ENOPROTOOPT.
        readable: `NEVER` (ENOPROTOOPT), `ALWAYS` or `CONNECTED`.
    """

    __slots__ = ("field", "form", "meaning", "name", "number", "readable", "settable")

    def __init__(  # noqa: PLR0913 - the columns of the table
        self, number: int, name: str, field: str, form: str, meaning: str, *, settable: bool, readable: str
    ) -> None:
        self.number = number
        self.name = name
        self.field = field
        self.form = form
        self.meaning = meaning
        self.settable = settable
        self.readable = readable


def _wish(  # noqa: PLR0913 - the columns of the table
    number: int, name: str, field: str, form: str, meaning: str, *, readable: str = ALWAYS
) -> Option:
    return Option(number, name, field, form, meaning, settable=True, readable=readable)


def _fact(  # noqa: PLR0913 - the columns of the table
    number: int, name: str, field: str, form: str, meaning: str, *, readable: str = CONNECTED
) -> Option:
    return Option(number, name, field, form, meaning, settable=False, readable=readable)


_TABLE = (
    _wish(85, "TLS_REMOTE_HOSTNAME", "hostname", TEXT, "the peer's name: sent as SNI; its certificate must be for it"),
    _wish(
        86, "TLS_HOSTNAME", "server_name", TEXT, "on a listener: serve this name only; accepted: what the client asked"
    ),
    _wish(
        87,
        "TLS_TRUSTED_PEER_CERTIFICATES",
        "trusted",
        FILES,
        "trust anchors that the peer must satisfy besides the administrator's",
    ),
    _wish(
        88, "TLS_CERTIFICATE_CHAIN", "certificates", FILES, "the own certificate with its chain, for each kind of key"
    ),
    _wish(89, "TLS_PRIVATE_KEY", "keys", FILES, "the own private key; it has to match a certificate", readable=NEVER),
    _wish(90, "TLS_ALPN", "alpn", NAMES, "application protocols in order of preference; connected: the chosen one"),
    _wish(91, "TLS_SESSION_TTL", "session_ttl", NUMBER, "how long a session may be resumed, in seconds; 0: never"),
    _wish(92, "TLS_DISABLE_CIPHER", "disabled", NAMES, "cipher suites that this socket shall not use"),
    _fact(93, "TLS_PEER_IDENTITY", "peer_identity", TEXT, "who the peer was verified to be; empty if it was not asked"),
    _wish(94, "TLS_REQUEST_PEER_AUTH", "peer_auth", FLAG, "a client has to present a certificate"),
    _fact(95, "TLS_PEER_CERTIFICATE_CHAIN", "chain", FILES, "the peer's certificates, PEM, its own first"),
    _fact(96, "TLS_ID", "socket_id", NUMBER, "the number of the socket's directory under /ssa/sockets"),
    _fact(98, "TLS_CHOSEN_CIPHER", "cipher", TEXT, "the cipher suite in use, by its IANA name"),
    _fact(100, "TLS_ERROR", "detail", TEXT, "why the last operation failed, in words", readable=ALWAYS),
    _fact(109, "TLS_RESUMED_SESSION", "resumed", FLAG, "whether the handshake resumed an earlier session"),
    _wish(111, "TLS_VERSION_MIN", "version_min", VERSION, "the lowest protocol version that this socket accepts"),
    _wish(112, "TLS_VERSION_MAX", "version_max", VERSION, "the highest protocol version that this socket accepts"),
    _fact(113, "TLS_VERSION_CONN", "version", VERSION, "the protocol version in use"),
    _wish(114, "TLS_UPGRADE", "upgrade", NUMBER, "start TLS on a connected socket: 1 as client, 2 as server"),
)

OPTIONS: dict[int, Option] = {option.number: option for option in _TABLE}
NUMBERS: dict[str, int] = {option.name: option.number for option in _TABLE}

TLS_REMOTE_HOSTNAME = 85
TLS_HOSTNAME = 86
TLS_TRUSTED_PEER_CERTIFICATES = 87
TLS_CERTIFICATE_CHAIN = 88
TLS_PRIVATE_KEY = 89
TLS_ALPN = 90
TLS_SESSION_TTL = 91
TLS_DISABLE_CIPHER = 92
TLS_PEER_IDENTITY = 93
TLS_REQUEST_PEER_AUTH = 94
TLS_PEER_CERTIFICATE_CHAIN = 95
TLS_ID = 96
TLS_CHOSEN_CIPHER = 98
TLS_ERROR = 100
TLS_RESUMED_SESSION = 109
TLS_VERSION_MIN = 111
TLS_VERSION_MAX = 112
TLS_VERSION_CONN = 113
TLS_UPGRADE = 114
