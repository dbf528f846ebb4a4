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
