"""Numbers of the kernel's interface that Python's `socket` module lacks. TLS's own numbers are in `ssa.tls`."""

from __future__ import annotations

TCP_ULP = 31  # include/uapi/linux/tcp.h
SOL_TLS = 282  # include/linux/socket.h

# include/uapi/linux/tls.h
TLS_TX = 1
TLS_RX = 2
TLS_SET_RECORD_TYPE = 1
TLS_GET_RECORD_TYPE = 2
TLS_TX_MAX_PAYLOAD_LEN = 5

SO_PEERNAME = 28  # include/uapi/asm-generic/socket.h
SO_COOKIE = 57
SO_BINDTOIFINDEX = 62
SO_NETNS_COOKIE = 71  # since Linux 5.14
# struct tcp_info (include/uapi/linux/tcp.h): offsets in bytes, of a u32 (microseconds) and of u64
TCPI_RTT = 68
TCPI_BYTES_ACKED = 120
TCPI_BYTES_RECEIVED = 128
TCPI_BYTES_SENT = 200  # since Linux 4.19

# include/net/tcp_states.h
TCP_ESTABLISHED, TCP_SYN_SENT, TCP_SYN_RECV, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_TIME_WAIT = range(1, 7)
TCP_CLOSE, TCP_CLOSE_WAIT, TCP_LAST_ACK, _TCP_LISTEN, TCP_CLOSING = range(7, 12)
