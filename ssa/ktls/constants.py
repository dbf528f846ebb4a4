"""Numbers of the kernel's interface that Python's `socket` does not have."""

from __future__ import annotations

TCP_ULP = 31  # include/uapi/linux/tcp.h
SOL_TLS = 282  # include/linux/socket.h

# include/uapi/linux/tls.h
TLS_TX = 1
TLS_RX = 2
TLS_SET_RECORD_TYPE = 1
TLS_GET_RECORD_TYPE = 2
TLS_TX_MAX_PAYLOAD_LEN = 5

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

SO_PEERNAME = 28  # include/uapi/asm-generic/socket.h
SO_COOKIE = 57
SO_BINDTOIFINDEX = 62
# include/net/tcp_states.h
TCP_ESTABLISHED, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT = range(1, 7)
TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, _TCP_LISTEN, TCP_CLOSING = range(7, 12)
