"""Taking a TLS 1.3 server's session tickets out of the way, before the kernel has the keys.

A server sends them right behind the handshake, whenever it likes (RFC 8446 section 4.6.1), and to a plain read of
a kernel TLS socket each is an EIO. So for a bare descriptor they are taken here: peek at the record, try it under
the key that is known already; a ticket is consumed, anything else is left for the kernel. A record is never
consumed in part: the kernel has to find the stream at a record's beginning.
"""

from __future__ import annotations

import socket
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING

import trio

from ssa.errors import alert_name, error
from ssa.handshake import records
from ssa.handshake.driver import BATCH, POLL, wait_readable
from ssa.ktls.control import handshake_types_untrusted
from ssa.suites import TLSVersion
from ssa.tls import ALERT, FATAL, HANDSHAKE, NEW_SESSION_TICKET

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.errors import SSAError
    from ssa.handshake.secrets import TrafficKeys

# Of one connection, far above what servers send: OpenSSL's two, of some 250 bytes, or one of 64 KiB (RFC 8446 4.6.1).
MAX_TICKETS = 32
_MAX_RECORDS = 128
_MAX_BYTES = 128 * 1024
_PEEK = 32 * 1024  # bytes: room for the longest record

_RTT = 68  # offset of tcpi_rtt, microseconds, in struct tcp_info (include/uapi/linux/tcp.h)


class Drain:
    """The tickets of one connection."""

    def __init__(self, keys: TrafficKeys, sock: socket.socket, refused: Callable[[str], SSAError]) -> None:
        """`refused` is the error for a fatal alert of the server's."""
        self.keys = keys
        self.tickets = 0
        self.messages = b""  # those tickets
        self._socket = sock
        self._refused = refused
        self._records = self._bytes = 0  # consumed so far

    async def run(self, expected: int | None, patience: float) -> None:
        """Wait until `expected` tickets have come (None: as many as do), for `patience` seconds at most.

        Whatever the server sends, other tasks get their turn after `BATCH` records, and a server that sends more than
        any needs has the rest left to whoever reads the socket.

        Raises `ssa.HandshakeError` when the server's answer to our Finished is a fatal alert.
        """
        if self.keys.rx.version is not TLSVersion.TLSv1_3:
            return  # TLS 1.2's tickets come inside the handshake (RFC 5077)
        # A server that writes its tickets one by one waits for our acknowledgement of the first (Nagle's algorithm),
        # and the kernel would wait 40 ms with that. This is no lasting option: the next data sent clears it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        with trio.move_on_after(patience):
            while (rest := self.take_untrusted()) is not None:
                if self._is_enough(expected):
                    return
                if rest:
                    await trio.sleep(POLL)  # to wait for readiness over half a record would spin
                else:
                    await wait_readable(self._socket)

    def _is_enough(self, expected: int | None) -> bool:
        if expected is not None and self.tickets >= expected:
            return True
        return self.tickets >= MAX_TICKETS or self._records >= _MAX_RECORDS or self._bytes >= _MAX_BYTES

    def take_untrusted(self) -> int | None:
        """Consume the tickets that are there, in `BATCH` records at most.

        How many bytes are behind them, of a record or of a ticket that goes on in the next; None: what is next is no
        ticket, or too long a one.
        """
        if (data := self._peek()) is None:
            return None
        found, rest = records.split_untrusted(data, BATCH)
        message, began = b"", 0
        for index, record in enumerate(found):
            content = self._ticket_untrusted(record, index - began)
            if content is None:
                return None
            message += content
            types, complete = handshake_types_untrusted(message)
            if set(types) != {NEW_SESSION_TICKET}:
                return None
            if complete:
                self._take(found[began : index + 1], message, len(types))
                message, began = b"", index + 1
        left = sum(map(len, found[began:])) + len(rest)
        if message and (len(found) == BATCH or left == _PEEK):
            return None
        return 0 if len(found) == BATCH else left

    def _peek(self) -> bytes | None:
        """What is there, nothing yet being empty; None where the connection has ended: that is the application's."""
        try:
            return self._socket.recv(_PEEK, socket.MSG_PEEK | socket.MSG_DONTWAIT) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def _take(self, found: list[bytes], messages: bytes, count: int) -> None:
        """Consume records that hold whole messages: nobody who reads on can have the beginning of one."""
        length = sum(map(len, found))
        if self._socket.recv(length, socket.MSG_DONTWAIT) != b"".join(found):
            raise error("NETWORK", "somebody else reads from this socket")
        self.keys = self.keys.received(len(found))
        self.tickets += count
        self.messages += messages
        self._records += len(found)
        self._bytes += length

    def _ticket_untrusted(self, record: bytes, ahead: int) -> bytes | None:
        """The content of the record that comes so many behind the next one; None for one that is no handshake's."""
        rx = self.keys.rx
        opened = records.open_untrusted(rx.aead, rx.key, rx.sequence + ahead, record)
        if opened is None:
            return None
        kind, content = opened
        if kind == ALERT and content[:1] == bytes([FATAL]) and len(content) == 2:
            raise self._refused(alert_name(content[1]))
        return content if kind == HANDSHAKE else None


def patience(sock: socket.socket) -> float:
    """How long to wait for tickets, in seconds: two round trips and what a busy server may need, a quarter at most."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _RTT + 4)
    rtt = int.from_bytes(info[_RTT : _RTT + 4], sys.byteorder) / 1e6
    return min(0.25, 2 * rtt + 0.04)


class TicketMemory:
    """How many tickets each server sent last time: so that a known server is waited for exactly as long as it takes.

    A server is its name and address, and whether a session was resumed: then it may send fewer. A number that has
    shrunk costs `patience` once.
    """

    _REMEMBERED = 1024  # servers

    def __init__(self) -> None:
        self._tickets: OrderedDict[tuple[object, ...], int] = OrderedDict()

    def expected(self, server: tuple[object, ...]) -> int | None:
        """How many to wait for; None for a server that is new."""
        return self._tickets.get(server)

    def saw(self, server: tuple[object, ...], tickets: int) -> None:
        """Remember for the next time."""
        self._tickets[server] = tickets
        self._tickets.move_to_end(server)
        if len(self._tickets) > self._REMEMBERED:
            self._tickets.popitem(last=False)
