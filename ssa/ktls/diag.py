"""Asks the kernel about TCP sockets that the daemon does not hold: inet_diag over NETLINK_SOCK_DIAG, by cookie.

The kernel's side is net/ipv4/inet_diag.c, net/ipv4/tcp_diag.c and net/tls/tls_main.c (`tls_get_info`).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ssa.ktls.constants import SO_BINDTOIFINDEX, SO_COOKIE, SO_PEERNAME, TCPI_BYTES_RECEIVED, TCPI_BYTES_SENT
from ssa.suites import AEADS, TLSVersion

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ORDER = sys.byteorder

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_SOCK_DESTROY = 21
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_INET_DIAG_INFO, _INET_DIAG_ULP_INFO = 2, 19
_ULP_INFO_TLS = 2
_TLS_VERSION, _TLS_CIPHER, _TLS_TXCONF, _TLS_RXCONF = 1, 2, 3, 4
_NESTED = 0x7FFF  # strips NLA_F_NESTED and NLA_F_NET_BYTEORDER

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_ERROR = struct.Struct("=i")
_REQUEST = struct.Struct("=BBBxI")  # the start of struct inet_diag_req_v2: family, protocol, ext, states
_ID = struct.Struct(">HH16s16s")  # struct inet_diag_sockid: ports and addresses ...
_ID_TAIL = struct.Struct("=IQ")  # ... then interface and cookie, in host order
_MESSAGE = 72  # sizeof(struct inet_diag_msg)
_INODE = 68  # where idiag_inode is in it
_ATTRIBUTE = struct.Struct("=HH")

_VERSIONS = {version.value: version.label for version in TLSVersion}
_CIPHERS = {number: aead.name for number, aead in AEADS.items()}
# What a TCP connection's state (include/net/tcp_states.h) says of its ends.
_STATES = {1: "open", 4: "ended by this side", 5: "ended by this side", 8: "ended by the peer"}
_CONFIGURATIONS = {1: "base", 2: "sw", 3: "hw", 4: "hw-record"}  # TLS_CONF_* of include/uapi/linux/tls.h


@dataclass(frozen=True, slots=True)
class SocketKey:
    """Identifies one socket to the kernel. Another socket may later have equal addresses, but never the same cookie."""

    family: int
    local: tuple[str, int]
    remote: tuple[str, int]
    interface: int  # that it is bound to; 0 for none
    cookie: int

    @classmethod
    def of(cls, sock: socket.socket) -> SocketKey:
        """The key of a TCP socket that is connected, or is going to be. Raises OSError."""
        local, remote = sock.getsockname(), _remote(sock)
        cookie = int.from_bytes(sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), _ORDER)
        return cls(sock.family, local[:2], remote[:2], sock.getsockopt(socket.SOL_SOCKET, SO_BINDTOIFINDEX), cookie)

    def pack(self) -> bytes:
        """The bytes of ``struct inet_diag_sockid``."""
        addresses = (socket.inet_pton(self.family, a[0].partition("%")[0]) for a in (self.local, self.remote))
        source, target = (address.ljust(16, b"\0") for address in addresses)
        ends = _ID.pack(self.local[1], self.remote[1], source, target)
        return ends + _ID_TAIL.pack(self.interface, self.cookie)


def _remote(sock: socket.socket) -> tuple[str, int]:
    """The address that a socket is connected to: by getpeername(2), while it is connecting by SO_PEERNAME."""
    try:
        address: tuple[str, int] = sock.getpeername()[:2]
    except OSError as exc:
        if exc.errno != errno.ENOTCONN:
            raise
        name = sock.getsockopt(socket.SOL_SOCKET, SO_PEERNAME, _SOCKADDR_LENGTHS[sock.family])
        at, length = (4, 4) if sock.family == socket.AF_INET else (8, 16)
        return socket.inet_ntop(sock.family, name[at : at + length]), int.from_bytes(name[2:4], "big")
    return address


_SOCKADDR_LENGTHS = {socket.AF_INET: 16, socket.AF_INET6: 28}  # bytes of struct sockaddr_in and sockaddr_in6


@dataclass(frozen=True, slots=True)
class KernelState:
    """The state of one TLS socket. The byte counts are TCP's: records and handshake included.

    Older kernels tell of TLS only to processes with CAP_NET_ADMIN (`tcp_diag_get_aux`). The texts are empty for others.
    """

    version: str
    cipher: str
    tx: str  # "sw", "hw" or "base": no keys in this direction
    rx: str
    bytes_sent: int
    bytes_received: int
    state: str = "open"  # or which side has ended it


class Diag:
    """A netlink socket for questions about the TCP sockets of the network namespace in which it was opened."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        # The kernel answers such a request before sendto(2) returns. So a second is enough.
        self._socket.settimeout(1)
        self._sequence = 0

    def close(self) -> None:
        """Give the netlink socket back."""
        self._socket.close()

    def states(self, keys: Sequence[SocketKey], inodes: Sequence[int]) -> list[KernelState | OSError]:
        """Ask the kernel about at most `MOST_AT_ONCE` sockets, with one message. It waits for whoever has one locked.

        A key counts for the socket of its inode only: whoever tells both has to have that socket.

        Returns for each its state, or the error. Raises OSError where the kernel does not answer.
        """
        first = self._sequence + 1
        self._sequence += len(keys)
        questions = (
            _question(_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, number, key, _WITH_INFO)
            for number, key in enumerate(keys, first)
        )
        self._socket.send(b"".join(questions))
        answers: dict[int, KernelState | OSError] = {}
        while len(answers) < len(keys):
            number, answer = self._answer()
            if number >= first:
                answers[number] = _state_or_failure(answer, inodes[number - first])
        return [answers[number] for number in range(first, first + len(keys))]

    def destroy(self, key: SocketKey, inode: int) -> None:
        """End the connection as `ss --kill` does: its holders get ECONNABORTED.

        Raises OSError: ENOENT where it is not the one of that inode, EPERM without CAP_NET_ADMIN, EOPNOTSUPP on a
        kernel without INET_DIAG_DESTROY.
        """
        (state,) = self.states([key], [inode])
        if isinstance(state, OSError):
            raise state
        self._ask(_SOCK_DESTROY, _NLM_F_REQUEST | _NLM_F_ACK, key, 0)

    def _ask(self, kind: int, flags: int, key: SocketKey, extensions: int) -> bytes:
        self._sequence += 1
        self._socket.send(_question(kind, flags, self._sequence, key, extensions))
        while True:
            number, answer = self._answer()
            if number != self._sequence:
                continue  # a late answer to an earlier question
            if isinstance(answer, OSError):
                raise answer
            return answer

    def _answer(self) -> tuple[int, bytes | OSError]:
        """Read the next answer. Returns the number of its question, and the answer or the error. Raises OSError."""
        data = self._socket.recv(16384)
        length, answer, _, sequence, _ = _HEADER.unpack_from(data)
        if answer != _NLMSG_ERROR:
            return sequence, data[_HEADER.size : length]
        (code,) = _ERROR.unpack_from(data, _HEADER.size)
        return sequence, OSError(-code, os.strerror(-code)) if code else b""


MOST_AT_ONCE = 32  # questions: their answers take at most a tenth of the socket's receive queue
_WITH_INFO = 1 << (_INET_DIAG_INFO - 1)


def _question(kind: int, flags: int, number: int, key: SocketKey, extensions: int) -> bytes:
    body = _REQUEST.pack(key.family, socket.IPPROTO_TCP, extensions, 0xFFFFFFFF) + key.pack()
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def _state_or_failure(answer: bytes | OSError, inode: int) -> KernelState | OSError:
    if isinstance(answer, OSError):
        return answer
    if int.from_bytes(answer[_INODE : _INODE + 4], _ORDER) not in {0, inode & 0xFFFFFFFF}:  # 0: nobody holds it
        return OSError(errno.ENOENT, "the socket of that key is another one")
    try:
        return _state(answer)
    except OSError as failure:
        return failure


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _NESTED, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def _state(answer: bytes) -> KernelState:
    """Parse a ``struct inet_diag_msg`` with its attributes. Raises OSError where it lacks the counts."""
    found = dict(_attributes(answer[_MESSAGE:]))
    tls = dict(_attributes(dict(_attributes(found.get(_INET_DIAG_ULP_INFO, b""))).get(_ULP_INFO_TLS, b"")))
    info = found.get(_INET_DIAG_INFO, b"")
    if len(info) < TCPI_BYTES_SENT + 8:
        raise OSError(errno.ENODATA, "the kernel does not count this socket's bytes")

    def text(attribute: int, names: Mapping[int, str]) -> str:
        number = int.from_bytes(tls.get(attribute, b""), _ORDER)
        return names.get(number, str(number)) if attribute in tls else ""

    return KernelState(
        version=text(_TLS_VERSION, _VERSIONS),
        cipher=text(_TLS_CIPHER, _CIPHERS),
        tx=text(_TLS_TXCONF, _CONFIGURATIONS),
        rx=text(_TLS_RXCONF, _CONFIGURATIONS),
        bytes_sent=int.from_bytes(info[TCPI_BYTES_SENT : TCPI_BYTES_SENT + 8], _ORDER),
        bytes_received=int.from_bytes(info[TCPI_BYTES_RECEIVED : TCPI_BYTES_RECEIVED + 8], _ORDER),
        state=_STATES.get(answer[1], "ended"),
    )
