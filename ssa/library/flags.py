"""The MSG_* flags and the socket options of socket(7), tcp(7) and unix(7), on both data paths of a TLS stream.

Each row says what a flag or an option does where the kernel has the records, and where the daemon relays them: AS_TCP,
an errno, or in words what differs. docs/options.md shows the rows; a test tries each of them.
"""

from __future__ import annotations

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

AS_TCP = "as TCP"
REFUSED = "EOPNOTSUPP"

_NOT_SENT = "sending: EOPNOTSUPP; receiving: no effect"
_READ = "sending: EOPNOTSUPP; receiving: as TCP"
_TRUNC = "sending: EOPNOTSUPP; receiving: no effect, the data is given"
_MORE = "the record is kept until the next send without it, or the end"
_CONTROL = "no effect: there is no ancillary data"

# flag -> kernel TLS, relay
FLAGS: dict[str, tuple[str, str]] = {
    "MSG_CMSG_CLOEXEC": (_NOT_SENT, _NOT_SENT),
    "MSG_CONFIRM": (_NOT_SENT, _NOT_SENT),
    "MSG_CTRUNC": (_NOT_SENT, _NOT_SENT),
    "MSG_DONTROUTE": (_NOT_SENT, _NOT_SENT),
    "MSG_DONTWAIT": (AS_TCP, AS_TCP),
    "MSG_EOR": (_NOT_SENT, _NOT_SENT),
    "MSG_ERRQUEUE": (REFUSED, REFUSED),
    "MSG_FASTOPEN": (_NOT_SENT, _NOT_SENT),
    "MSG_MORE": (_MORE, "no effect: it is sent at once"),
    "MSG_NOSIGNAL": (AS_TCP, AS_TCP),
    "MSG_OOB": (REFUSED, REFUSED),
    "MSG_PEEK": (_READ, _READ),
    "MSG_TRUNC": (_TRUNC, _TRUNC),
    "MSG_WAITALL": (_READ, _READ),
    "MSG_ZEROCOPY": (_NOT_SENT, _NOT_SENT),
}

_OWN = "of the calls on the descriptor, as TCP"
_BOTH = "as TCP; the pair has 200 KiB beside"

# option -> kernel TLS, relay
OPTIONS: dict[str, tuple[str, str]] = {
    "SO_ACCEPTCONN": (AS_TCP, AS_TCP),
    "SO_ATTACH_BPF": (AS_TCP, AS_TCP),
    "SO_ATTACH_FILTER": (AS_TCP, AS_TCP),
    "SO_ATTACH_REUSEPORT_CBPF": (AS_TCP, AS_TCP),
    "SO_ATTACH_REUSEPORT_EBPF": (AS_TCP, AS_TCP),
    "SO_BINDTODEVICE": (AS_TCP, AS_TCP),
    "SO_BROADCAST": (AS_TCP, AS_TCP),
    "SO_BSDCOMPAT": (AS_TCP, AS_TCP),
    "SO_BUSY_POLL": (AS_TCP, AS_TCP),
    "SO_DEBUG": (AS_TCP, AS_TCP),
    "SO_DETACH_BPF": (AS_TCP, AS_TCP),
    "SO_DETACH_FILTER": (AS_TCP, AS_TCP),
    "SO_DOMAIN": (AS_TCP, AS_TCP),
    "SO_DONTROUTE": (AS_TCP, AS_TCP),
    "SO_ERROR": ("as TCP; until a connect is done EINPROGRESS", "as TCP; what ended a stream is told by its calls"),
    "SO_INCOMING_CPU": (AS_TCP, AS_TCP),
    "SO_INCOMING_NAPI_ID": (AS_TCP, AS_TCP),
    "SO_KEEPALIVE": (AS_TCP, AS_TCP),
    "SO_LINGER": ("as TCP; with 0 seconds no close_notify", "with 0 seconds as TCP; else close does not wait"),
    "SO_LOCK_FILTER": (AS_TCP, AS_TCP),
    "SO_MARK": (AS_TCP, AS_TCP),
    "SO_OOBINLINE": (AS_TCP, AS_TCP),
    "SO_PASSCRED": (_CONTROL, _CONTROL),
    "SO_PASSSEC": (_CONTROL, _CONTROL),
    "SO_PEEK_OFF": (REFUSED, REFUSED),
    "SO_PEERCRED": (AS_TCP, AS_TCP),
    "SO_PEERSEC": (AS_TCP, AS_TCP),
    "SO_PRIORITY": (AS_TCP, AS_TCP),
    "SO_PROTOCOL": (AS_TCP, AS_TCP),
    "SO_RCVBUF": (AS_TCP, _BOTH),
    "SO_RCVBUFFORCE": (AS_TCP, _BOTH),
    "SO_RCVLOWAT": (AS_TCP, _OWN),
    "SO_RCVTIMEO": (AS_TCP, _OWN),
    "SO_REUSEADDR": (AS_TCP, AS_TCP),
    "SO_REUSEPORT": (AS_TCP, AS_TCP),
    "SO_RXQ_OVFL": (_CONTROL, _CONTROL),
    "SO_SELECT_ERR_QUEUE": (AS_TCP, AS_TCP),
    "SO_SNDBUF": (AS_TCP, _BOTH),
    "SO_SNDBUFFORCE": (AS_TCP, _BOTH),
    "SO_SNDLOWAT": (AS_TCP, AS_TCP),
    "SO_SNDTIMEO": (AS_TCP, _OWN),
    "SO_TIMESTAMP": (_CONTROL, _CONTROL),
    "SO_TIMESTAMPNS": (_CONTROL, _CONTROL),
    "SO_TYPE": (AS_TCP, AS_TCP),
    "TCP_CONGESTION": (AS_TCP, AS_TCP),
    "TCP_CORK": (AS_TCP, AS_TCP),
    "TCP_DEFER_ACCEPT": (AS_TCP, AS_TCP),
    "TCP_FASTOPEN": (AS_TCP, AS_TCP),
    "TCP_FASTOPEN_CONNECT": (AS_TCP, AS_TCP),
    "TCP_INFO": (AS_TCP, AS_TCP),
    "TCP_KEEPCNT": (AS_TCP, AS_TCP),
    "TCP_KEEPIDLE": (AS_TCP, AS_TCP),
    "TCP_KEEPINTVL": (AS_TCP, AS_TCP),
    "TCP_LINGER2": (AS_TCP, AS_TCP),
    "TCP_MAXSEG": (AS_TCP, AS_TCP),
    "TCP_NODELAY": (AS_TCP, AS_TCP),
    "TCP_QUICKACK": (AS_TCP, AS_TCP),
    "TCP_SYNCNT": (AS_TCP, AS_TCP),
    "TCP_USER_TIMEOUT": (AS_TCP, AS_TCP),
    "TCP_WINDOW_CLAMP": (AS_TCP, AS_TCP),
}

# include/linux/socket.h
NUMBERS = {
    "MSG_CMSG_CLOEXEC": 0x40000000,
    "MSG_CONFIRM": 0x800,
    "MSG_CTRUNC": 0x8,
    "MSG_DONTROUTE": 0x4,
    "MSG_DONTWAIT": 0x40,
    "MSG_EOR": 0x80,
    "MSG_ERRQUEUE": 0x2000,
    "MSG_FASTOPEN": 0x20000000,
    "MSG_MORE": 0x8000,
    "MSG_NOSIGNAL": 0x4000,
    "MSG_OOB": 0x1,
    "MSG_PEEK": 0x2,
    "MSG_TRUNC": 0x20,
    "MSG_WAITALL": 0x100,
    "MSG_ZEROCOPY": 0x4000000,
}
SO_PEEK_OFF = 42  # include/uapi/asm-generic/socket.h

# All that can be said with what is sent, and what not; and what asks a read for something else than the stream's bytes.
SENT = NUMBERS["MSG_DONTWAIT"] | NUMBERS["MSG_MORE"] | NUMBERS["MSG_NOSIGNAL"]
NOT_SENT = ~SENT
NOT_RECEIVED = NUMBERS["MSG_OOB"] | NUMBERS["MSG_ERRQUEUE"]


def refuse(flags: int) -> NoReturn:
    """Raise OSError EOPNOTSUPP: these flags mean nothing on a TLS stream, and what they ask for is not done."""
    named = [name for name, number in NUMBERS.items() if flags & number]
    what = ", ".join(named) or f"flags {flags:#x}"
    raise OSError(errno.EOPNOTSUPP, f"{what}: not on a TLS stream (docs/options.md has what each flag does)")
