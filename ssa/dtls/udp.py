"""System calls on an application's UDP socket: the address that a datagram came to, the path's MTU, errors, the end.

The socket was passed to us with its addresses and its network namespace; the application may have a copy of it.
"""

from __future__ import annotations

import errno
import logging
import select
import socket
import struct
from typing import Any

_log = logging.getLogger("ssa.daemon")

Way = list[tuple[int, int, bytes]]  # which of our addresses a datagram came to, as sendmsg(2) takes it

_ETHERNET = 1500  # bytes: the path's MTU where it cannot be asked for
_HEADERS = {socket.AF_INET: 28, socket.AF_INET6: 48}  # bytes of IP's and UDP's
# include/uapi/linux/in.h and in6.h: level, what to do with what is too large, the path's MTU
_MTU_OPTIONS = {socket.AF_INET: (socket.IPPROTO_IP, 10, 14), socket.AF_INET6: (socket.IPPROTO_IPV6, 23, 24)}
PMTUDISC_DONT, PMTUDISC_DO = 0, 2  # fragment; don't, and say EMSGSIZE
_ERROR_OPTIONS = {socket.AF_INET: (socket.IPPROTO_IP, 11), socket.AF_INET6: (socket.IPPROTO_IPV6, 25)}  # *_RECVERR
_EXTENDED_ERROR = struct.Struct("=IB3xI")  # the start of struct sock_extended_err: errno, origin, what the error says
_LOCAL_ORIGIN = 1  # SO_EE_ORIGIN_LOCAL
_LARGEST = 65_507  # bytes of a datagram
_MOST_ERRORS = 64  # that are looked at
_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_IN_PKTINFO = struct.Struct("=i4s4s")  # interface, the address of ours, the datagram's
_IN6_PKTINFO = struct.Struct("=16si")  # the address, interface
_PKTINFO = {socket.AF_INET: (socket.IPPROTO_IP, _IP_PKTINFO), socket.AF_INET6: (socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO)}
WAY_SIZE = socket.CMSG_SPACE(_IN6_PKTINFO.size)  # bytes of ancillary data that say which of our addresses it is
QUIETLY = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL


def mtu(sock: socket.socket, address: Any) -> int:
    """The most bytes of a datagram to that address, by what the kernel knows of the path."""
    level, _, option = _MTU_OPTIONS[sock.family]
    try:
        try:
            found = sock.getsockopt(level, option)  # of one that is connected
        except OSError:
            found = _mtu_by_error(sock, address)
    except OSError:
        found = _ETHERNET
    return found - _HEADERS[sock.family]


def _mtu_by_error(sock: socket.socket, address: Any) -> int:
    """The path's MTU by the error that a datagram gets which is too large for it.

    The kernel puts the error into the socket's queue, with what would have fitted (struct sock_extended_err, IP_RECVERR
    in ip(7)). Nothing is ever sent: the datagram is begun (MSG_MORE), as a path within this machine takes the largest
    one there is, and more than that drops what was begun (udp_flush_pending_frames in net/ipv4/udp.c).
    """
    level, option = _ERROR_OPTIONS[sock.family]
    before = sock.getsockopt(level, option)
    discover_mtu(sock, PMTUDISC_DO)
    sock.setsockopt(level, option, 1)
    try:
        for _ in range(2):
            sock.sendto(bytes(_LARGEST), QUIETLY | socket.MSG_MORE, address)
    except OSError as exc:
        return _told_mtu(sock, level, option) if exc.errno == errno.EMSGSIZE else _ETHERNET
    else:
        return _ETHERNET
    finally:
        sock.setsockopt(level, option, before)


def _told_mtu(sock: socket.socket, level: int, option: int) -> int:
    found = _ETHERNET
    try:
        for _ in range(_MOST_ERRORS):
            _, ancillary, _, _ = sock.recvmsg(0, 512, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            for where, kind, value in ancillary:
                if (where, kind) == (level, option):
                    number, origin, info = _EXTENDED_ERROR.unpack_from(value)
                    found = info if (number, origin) == (errno.EMSGSIZE, _LOCAL_ORIGIN) else found
    except BlockingIOError:
        pass
    return found


def discover_mtu(sock: socket.socket, how: int) -> None:
    """Set what the kernel does with datagrams that are too large for the path: one of PMTUDISC_*."""
    level, option, _ = _MTU_OPTIONS[sock.family]
    sock.setsockopt(level, option, how)


def tell_ways(sock: socket.socket) -> None:
    """Have the kernel tell with each datagram which of our addresses it came to, where the socket has several."""
    if sock.getsockname()[0] in ("0.0.0.0", "::"):
        sock.setsockopt(*_PKTINFO[sock.family], 1)


def way_back(found: Way) -> Way:
    """The control messages with which sendmsg(2) answers from the address that a datagram came to."""
    for level, kind, value in found:
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO):
            _, ours, _ = _IN_PKTINFO.unpack(value)
            return [(level, kind, _IN_PKTINFO.pack(0, ours, bytes(4)))]
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO):
            ours, interface = _IN6_PKTINFO.unpack(value)
            return [(level, kind, _IN6_PKTINFO.pack(ours, interface if ours[:2] == b"\xfe\x80" else 0))]
    return []


def address_of(way: Way, local: Any) -> Any:
    """Our address in a way back; `local`, the socket's own address, if it has only one."""
    for _, kind, value in way:
        if kind == _IP_PKTINFO:
            return (socket.inet_ntop(socket.AF_INET, _IN_PKTINFO.unpack(value)[1]), local[1])
        ours, interface = _IN6_PKTINFO.unpack(value)
        return (socket.inet_ntop(socket.AF_INET6, ours), local[1], 0, interface)
    return local


def discard_errors(sock: socket.socket, most: int) -> None:
    """Empty the socket's queue of errors, which makes it ready for nothing where the application has IP_RECVERR set."""
    try:
        for _ in range(most):
            sock.recvmsg(1, 0, socket.MSG_ERRQUEUE | socket.MSG_DONTWAIT)
    except OSError as exc:
        _log.debug("UDP's queue of errors: %s", exc.strerror)


def is_ended(sock: socket.socket) -> bool:
    """True where nothing more will come, on a socket that has nothing to read."""
    poll = select.poll()
    poll.register(sock, select.POLLRDHUP)
    return bool(poll.poll(0))
