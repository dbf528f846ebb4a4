"""TLS's own numbers, as the RFCs give them."""

from __future__ import annotations

# RFC 8446 section 5.1: ContentType
CHANGE_CIPHER_SPEC = 20
ALERT = 21
HANDSHAKE = 22
APPLICATION_DATA = 23

# RFC 8446 section 4: HandshakeType
HELLO_REQUEST = 0
CLIENT_HELLO = 1
NEW_SESSION_TICKET = 4
CERTIFICATE = 11
KEY_UPDATE = 24

# RFC 8446 section 4.2.1 and RFC 6347 section 4.1: ProtocolVersion
TLS_1_2 = 0x0303
TLS_1_3 = 0x0304
DTLS_1_2 = 0xFEFD

_LONGEST_PROTOCOL_NAME = 255  # bytes


def is_protocol_name(name: str) -> bool:
    """True for what can name an application protocol: 1 to 255 bytes (RFC 7301 section 3.1), of ASCII as IANA's are."""
    return name.isascii() and 1 <= len(name) <= _LONGEST_PROTOCOL_NAME
