"""The socket options of the Secure Socket API: their numbers are also the attribute types of the wire protocol.

The numbers are those of the original SSA's ``in_tls.h`` and its second version's, so that its programs
compile; ``TLS_UPGRADE`` stands in for its TCP_UPGRADE_TLS, whose number is TCP_FASTOPEN_KEY's today.
"""

from __future__ import annotations

IPPROTO_TLS = 205  # 715 % 255, as the original has it
AF_HOSTNAME = 43  # an address family that only ever appears in an address given to a TLS socket


class Option:
    """A row of the table: the option's number at level `IPPROTO_TLS` and what it means."""

    __slots__ = ("meaning", "name", "number")

    def __init__(self, number: int, name: str, meaning: str) -> None:
        self.number = number
        self.name = name
        self.meaning = meaning


_TABLE = (
    Option(85, "TLS_REMOTE_HOSTNAME", "the peer's name: sent as SNI, and its certificate must be for it"),
    Option(86, "TLS_HOSTNAME", "the name that a server serves, or that its client asked for"),
    Option(87, "TLS_TRUSTED_PEER_CERTIFICATES", "trust anchors that the peer must satisfy besides the administrator's"),
    Option(88, "TLS_CERTIFICATE_CHAIN", "the own certificate and its chain, PEM or a path"),
    Option(89, "TLS_PRIVATE_KEY", "the own private key, PEM or a path; write-only"),
    Option(90, "TLS_ALPN", "application protocols in order of preference; the chosen one"),
    Option(91, "TLS_SESSION_TTL", "how long a session may be resumed, in seconds; 0: never"),
    Option(92, "TLS_DISABLE_CIPHER", "a cipher suite that this socket shall not use"),
    Option(93, "TLS_PEER_IDENTITY", "who the peer is: the name that its certificate was verified for"),
    Option(94, "TLS_REQUEST_PEER_AUTH", "a client has to present a certificate"),
    Option(95, "TLS_PEER_CERTIFICATE_CHAIN", "the peer's certificates, PEM, its own first"),
    Option(96, "TLS_ID", "the number of the socket's directory under /ssa/sockets"),
    Option(98, "TLS_CHOSEN_CIPHER", "the cipher suite in use, by its IANA name"),
    Option(100, "TLS_ERROR", "why the last operation failed, in words"),
    Option(109, "TLS_RESUMED_SESSION", "whether the handshake resumed an earlier session"),
    Option(111, "TLS_VERSION_MIN", "the lowest protocol version that this socket accepts"),
    Option(112, "TLS_VERSION_MAX", "the highest protocol version that this socket accepts"),
    Option(113, "TLS_VERSION_CONN", "the protocol version in use"),
    Option(114, "TLS_UPGRADE", "start TLS on a connected TCP socket (STARTTLS)"),
)

OPTIONS: dict[int, Option] = {option.number: option for option in _TABLE}
NUMBERS: dict[str, int] = {option.name: option.number for option in _TABLE}
