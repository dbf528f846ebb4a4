"""The attributes of the request language: one table for the messages, the documentation and the C header.

An attribute is a type (a number), a form (how its value is written) and a meaning. The type of an attribute that is
also a socket option is the option's number (`ssa.protocol.options`). The others count from 512. A number is given once,
and never again for something else.
"""

from __future__ import annotations

import struct

from ssa.protocol.options import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# The values of `ended`, beside the names of errnos and alerts.
CLOSE_NOTIFY, TRUNCATED = "close_notify", "truncated"
MAX_BACKLOG = 4096  # connections of a listener that may be ready and not accepted
MAX_AHEAD = 32 * 1024  # bytes that a program may have read ahead: more than any ClientHello has


class Malformed(ValueError):
    """A value is not written in its attribute's form."""


class Form:
    """The encoding of an attribute's value in a message.

    Attributes:
        name: the word for it in docs/library.md.
        pack: a value as bytes. Raises struct.error, ValueError.
        unpack_untrusted: bytes as a value. Raises `Malformed`, struct.error, ValueError.
    """

    __slots__ = ("name", "pack", "unpack_untrusted")

    def __init__(self, name: str, pack: Callable[[Any], bytes], unpack_untrusted: Callable[[bytes], Any]) -> None:
        self.name = name
        self.pack = pack
        self.unpack_untrusted = unpack_untrusted


def _text_untrusted(value: bytes) -> str:
    text = value.decode("utf-8")
    if "\0" in text:
        raise Malformed("a NUL in a text")
    return text


def _names_untrusted(value: bytes) -> tuple[str, ...]:
    """RFC 7301's ProtocolNameList: a length byte before each name."""
    names, at = [], 0
    while at < len(value):
        end = at + 1 + value[at]
        name = value[at + 1 : end]
        if end > len(value) or not name:
            raise Malformed("a name in a list has the wrong length")
        names.append(name.decode("ascii"))
        at = end
    return tuple(names)


def _names(names: tuple[str, ...]) -> bytes:
    return b"".join(bytes([len(name)]) + name.encode("ascii") for name in names)


def _number(name: str, fmt: str) -> Form:
    packer = struct.Struct(fmt)
    return Form(name, packer.pack, lambda value: packer.unpack(value)[0])


U32, U64 = _number("u32", "=I"), _number("u64", "=Q")
TEXT = Form("text", str.encode, _text_untrusted)
NAMES = Form("names", _names, _names_untrusted)
BYTES = Form("bytes", bytes, bytes)


class Attribute:
    """A row of the table.

    Attributes:
        field: the attribute of a `ssa.protocol.messages.Message` that holds its value.
        name: the socket option's name, or the field where it is no option.
        meaning: what the value says, for docs/library.md.
    """

    __slots__ = ("field", "form", "meaning", "name", "number")

    def __init__(self, number: int, field: str, form: Form, meaning: str, *, name: str = "") -> None:
        self.number = number
        self.field = field
        self.form = form
        self.meaning = meaning
        self.name = name or field


def _option(name: str, field: str, form: Form, meaning: str) -> Attribute:
    return Attribute(NUMBERS[name], field, form, meaning, name=name)


_TABLE = (
    _option(
        "TLS_REMOTE_HOSTNAME",
        "hostname",
        TEXT,
        "the server's name or address: its certificate has to be for it, and SNI says it",
    ),
    _option(
        "TLS_HOSTNAME",
        "server_name",
        TEXT,
        "request: the one name that a server serves. Reply: the name that the client asked for (SNI), empty for none; "
        "absent where we are the client",
    ),
    _option(
        "TLS_TRUSTED_PEER_CERTIFICATES",
        "trusted",
        U32,
        "how many files of trust anchors ride along, which the peer has to satisfy besides the administrator's. "
        "0: the own anchors are none, so nobody is trusted; absent: there are no own anchors",
    ),
    _option("TLS_CERTIFICATE_CHAIN", "certificates", U32, "how many files of own certificates with their chains"),
    _option("TLS_PRIVATE_KEY", "keys", U32, "how many files of private keys: one for each certificate, in any order"),
    _option(
        "TLS_ALPN", "alpn", NAMES, "request: application protocols, the preferred one first. Reply: the chosen one"
    ),
    _option("TLS_SESSION_TTL", "session_ttl", U32, "for how many seconds a session may be resumed. 0: never"),
    _option("TLS_DISABLE_CIPHER", "disabled", NAMES, "cipher suites that are not used, by IANA's or OpenSSL's names"),
    _option("TLS_PEER_IDENTITY", "peer_identity", TEXT, "who the peer was verified to be; empty if it was not asked"),
    _option(
        "TLS_REQUEST_PEER_AUTH",
        "peer_auth",
        U32,
        "1: a client has to present a certificate; 2: it is asked for one, and may have none",
    ),
    _option(
        "TLS_PEER_CERTIFICATE_CHAIN",
        "chain",
        BYTES,
        "the peer's certificates, DER, one behind the other, its own first",
    ),
    _option("TLS_ID", "socket_id", U64, "the number of the socket's directory under /ssa/sockets"),
    _option("TLS_CHOSEN_CIPHER", "cipher", TEXT, "the cipher suite in use, by IANA's name"),
    _option("TLS_ERROR", "detail", TEXT, "the particulars of the reason, in words"),
    _option("TLS_RESUMED_SESSION", "resumed", U32, "1: the handshake resumed an earlier session"),
    _option("TLS_VERSION_MIN", "version_min", U32, "the lowest version: 0x0303 is TLS 1.2, 0x0304 is TLS 1.3"),
    _option("TLS_VERSION_MAX", "version_max", U32, "the highest version"),
    _option("TLS_VERSION_CONN", "version", TEXT, "the version in use: TLSv1.2, TLSv1.3 or DTLSv1.2"),
    _option("TLS_UPGRADE", "upgrade", U32, "1: the connection was in use as plain text before (STARTTLS)"),
    Attribute(512, "timeout_ms", U32, "milliseconds for the handshake; the policy's timeout holds too"),
    Attribute(
        513,
        "reason",
        TEXT,
        "absent: the request was done. Else why it was not, as in [the errors](#errors)",
    ),
    Attribute(514, "alert", TEXT, "the TLS alert that the peer was sent, or has sent, by the RFC's name"),
    Attribute(
        515,
        "control",
        U32,
        "1: the library serves records that are no data itself, so the daemon does not wait for session tickets",
    ),
    Attribute(
        516, "backlog", U32, f"how many connections may be ready and not accepted: 1 to {MAX_BACKLOG}; 0 or absent: 128"
    ),
    Attribute(517, "receiving", U32, "1: take the handshake messages that are next in the socket"),
    Attribute(
        518,
        "sending",
        U32,
        "request: 1: send a KeyUpdate, and go on to our next key. "
        "Reply: 1: the peer wants a KeyUpdate of ours before the next data",
    ),
    Attribute(519, "ticket", BYTES, "one or more whole NewSessionTicket messages"),
    Attribute(520, "padding", BYTES, "any bytes"),
    Attribute(521, "rekeyable", U32, "1: the keys of this connection can change"),
    Attribute(
        522,
        "remote",
        TEXT,
        "of a server's connection: the client's address and port, with a space between. Absent where we are the client",
    ),
    Attribute(523, "largest", U32, "of datagrams: how many bytes one can carry"),
    Attribute(524, "peer", BYTES, "of datagrams: the peer's [address](#addresses-of-datagrams)"),
    Attribute(525, "local", BYTES, "of datagrams: the own [address](#addresses-of-datagrams)"),
    Attribute(526, "errno", U32, "with a reason: its errno, by this machine's numbers"),
    Attribute(527, "with_chain", U32, "1: the reply about the TLS socket has `TLS_PEER_CERTIFICATE_CHAIN`"),
    Attribute(
        528,
        "relay",
        U32,
        "1: relay, please: for a program whose reads know nothing of TLS's records. Refused (POLICY_DENIED) where the "
        "policy's data_path is ktls",
    ),
    Attribute(
        529,
        "ahead",
        BYTES,
        f"what the program has read from the socket already: the client's first bytes of TLS, at most {MAX_AHEAD}",
    ),
    Attribute(530, "relayed", U32, "1: the descriptor that comes with this reply is what is read and written"),
    Attribute(
        531,
        "ended",
        TEXT,
        "of a relayed stream: how the peer's half has ended: `close_notify`, `truncated`, the name of an errno as "
        "`ECONNRESET`, or the name of an alert. Absent while it goes on",
    ),
    Attribute(540, "strict", U32, "1: certificates have to keep to RFC 5280 strictly (X509_V_FLAG_X509_STRICT)"),
    Attribute(541, "unfinished", U32, "1: a handshake message goes on in a record that has not come yet"),
    Attribute(542, "abort", U32, "1: the connection is about to be closed with SO_LINGER {1, 0}: nothing more is said"),
    Attribute(
        543,
        "truncated",
        U32,
        "1: the peer's stream has ended without close_notify, as the program has read. It is counted and logged, once",
    ),
    Attribute(
        544,
        "cut_is_error",
        U32,
        "1: a stream that ends without close_notify is an error, whatever the program has asked for (the policy's "
        "`truncation`)",
    ),
    Attribute(
        550,
        "lenient",
        U32,
        "1: the program has asked that its server not be verified, which is done all the same: for the log. 2: "
        "whether it wants that is not known",
    ),
    Attribute(
        551,
        "half",
        U32,
        "of a relayed stream: 1: its writing is about to be shut down, and reading goes on: a close_notify goes behind "
        "the last byte, and the FIN not before the descriptor is closed",
    ),
    Attribute(
        560,
        "early",
        U32,
        "connect and accept, with `relay`: 1: a reply with the descriptor comes at once. It is neither readable nor "
        "writable until a second reply, without a descriptor, says that the handshake is done; where it fails, the "
        "descriptor is hung up",
    ),
)

ATTRIBUTES: dict[str, Attribute] = {attribute.field: attribute for attribute in _TABLE}
