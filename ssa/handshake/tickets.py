"""Reads the session tickets of a TLS 1.3 server before the kernel has the keys.

A server sends its tickets at any time after the handshake (RFC 8446 section 4.6.1). A plain read(2) of a kernel TLS
socket that meets one fails with EIO. So for a bare descriptor the daemon reads the tickets: it peeks at a record, and
opens it under the key that it knows already. A ticket is consumed. Anything else is left in the socket for the kernel.
A record is never consumed in part, as the kernel has to find the stream at the beginning of a record.
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
from ssa.ktls.constants import TCPI_RTT
from ssa.ktls.control import handshake_types_untrusted
from ssa.suites import TLSVersion
from ssa.tls import ALERT, FATAL, HANDSHAKE, NEW_SESSION_TICKET

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.errors import SSAError
    from ssa.handshake.secrets import TrafficKeys

# For one connection. Servers send far less: OpenSSL two tickets of some 250 bytes. RFC 8446 allows 64 KiB.
MAX_TICKETS = 32
_MAX_RECORDS = 128
_MAX_BYTES = 128 * 1024
_PEEK = 32 * 1024  # bytes: room for the longest record


class Drain:
    """Reads the tickets of one connection."""

    def __init__(self, keys: TrafficKeys, sock: socket.socket, refused: Callable[[str], SSAError]) -> None:
        """`refused` returns the error for a fatal alert of the server, by its name."""
        self.keys = keys
        self.tickets = 0
        self.messages = b""  # the NewSessionTicket messages
        self._socket = sock
        self._refused = refused
        self._records = self._bytes = 0  # consumed so far

    async def run(self, expected: int | None, seconds: float | None = None) -> None:
        """Wait until `expected` tickets have come (None: as many as do), for `seconds` at most (None: `patience`).

        Other tasks get their turn after `BATCH` records. If a server sends more than `MAX_TICKETS`, the rest is left in
        the socket, for the application's reads.

        Raises `ssa.HandshakeError` when the server's answer to our Finished is a fatal alert.
        """
        if self.keys.rx.version is not TLSVersion.TLSv1_3:
            return  # TLS 1.2's tickets come inside the handshake (RFC 5077)
        if (rest := self.take_untrusted()) is None or self._is_enough(expected):
            return
        # A server that writes its tickets one by one waits for our acknowledgement of the first (Nagle's algorithm),
        # and the kernel would wait 40 ms with that. This is no lasting option: the next data sent clears it.
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        with trio.move_on_after(patience(self._socket) if seconds is None else seconds):
            while not self._is_over(rest, expected):
                if rest:
                    await trio.sleep(POLL)  # to wait for readiness over half a record would spin
                else:
                    await wait_readable(self._socket)
                rest = self.take_untrusted()

    def _is_over(self, rest: int | None, expected: int | None) -> bool:
        return rest is None or self._is_enough(expected)

    def _is_enough(self, expected: int | None) -> bool:
        if expected is not None and self.tickets >= expected:
            return True
        return self.tickets >= MAX_TICKETS or self._records >= _MAX_RECORDS or self._bytes >= _MAX_BYTES

    def take_untrusted(self) -> int | None:
        """Consume the tickets that are in the socket, in `BATCH` records at most.

        Returns how many bytes are behind them: of half a record, or of a ticket that goes on in the next record; None
        where what comes next is no ticket, or a ticket that is too long.
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
        """Look at the received bytes with MSG_PEEK: empty if there are none, None if the connection has ended."""
        try:
            return self._socket.recv(_PEEK, socket.MSG_PEEK | socket.MSG_DONTWAIT) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def _take(self, found: list[bytes], messages: bytes, count: int) -> None:
        """Consume records that hold whole messages. So the kernel's next record does not begin within a message."""
        length = sum(map(len, found))
        if self._socket.recv(length, socket.MSG_DONTWAIT) != b"".join(found):
            raise error("NETWORK", "somebody else reads from this socket")
        self.keys = self.keys.received(len(found))
        self.tickets += count
        self.messages += messages
        self._records += len(found)
        self._bytes += length

    def _ticket_untrusted(self, record: bytes, ahead: int) -> bytes | None:
        """The content of the record that comes `ahead` behind the next one; None unless it is a handshake record."""
        rx = self.keys.rx
        opened = records.open_untrusted(rx.aead, rx.key, rx.sequence + ahead, record)
        if opened is None:
            return None
        kind, content = opened
        if kind == ALERT and content[:1] == bytes([FATAL]) and len(content) == 2:
            raise self._refused(alert_name(content[1]))
        return content if kind == HANDSHAKE else None


def patience(sock: socket.socket) -> float:
    """The seconds to wait for tickets: two round trips, and 40 ms for a busy server; 0.25 at most."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCPI_RTT + 4)
    rtt = int.from_bytes(info[TCPI_RTT : TCPI_RTT + 4], sys.byteorder) / 1e6
    return min(0.25, 2 * rtt + 0.04)


class TicketMemory:
    """Remembers how many tickets each server sent last time. So ssad waits no longer than a known server needs.

    A server is its name, its address, and whether a session was resumed, as it may send fewer tickets then. A server
    that sends fewer than the last time is waited for `patience` seconds once.
    """

    _REMEMBERED = 1024  # servers

    def __init__(self) -> None:
        self._tickets: OrderedDict[tuple[object, ...], int] = OrderedDict()

    def expected(self, server: tuple[object, ...]) -> int | None:
        """The number of tickets to wait for; None for a server that is new."""
        return self._tickets.get(server)

    def saw(self, server: tuple[object, ...], tickets: int) -> None:
        """Remember how many tickets the server has sent this time."""
        self._tickets[server] = tickets
        self._tickets.move_to_end(server)
        if len(self._tickets) > self._REMEMBERED:
            self._tickets.popitem(last=False)
