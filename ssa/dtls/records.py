"""DTLS records as bytes (RFC 6347 section 4.1): as much as it takes to put them into datagrams. Pure."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from ssa import errors
from ssa.tls import ALERT, CLIENT_HELLO, DTLS_1_2, FATAL, HANDSHAKE

if TYPE_CHECKING:
    from collections.abc import Iterator

# type, version, epoch, and the lower two parts of the sequence number, length
_RECORD = struct.Struct(">BHHHIH")
HEADER = _RECORD.size
_MESSAGE = HEADER + 12  # where a handshake message's body begins
_LATE = 0x8000  # in the sequence number's upper part: behind all that a handshake has sent

PACKET = 2**16  # bytes: more than a UDP datagram has


def split(flight: bytes) -> Iterator[bytes]:
    """Split what OpenSSL wants to send into its records."""
    at = 0
    while at < len(flight):
        end = at + HEADER + _RECORD.unpack_from(flight, at)[-1]
        yield flight[at:end]
        at = end


def packed(flight: bytes, size: int) -> list[bytes]:
    """Put the records into as few datagrams of at most `size` bytes as possible. A longer record goes alone."""
    datagrams: list[bytes] = []
    for record in split(flight):
        if datagrams and len(datagrams[-1]) + len(record) <= size:
            datagrams[-1] += record
        else:
            datagrams.append(record)
    return datagrams


def first_untrusted(datagram: bytes, most: int) -> bytes:
    """The first `most` records of a peer's datagram. What is behind them is dropped, as the network may drop it."""
    at = count = 0
    while at + HEADER <= len(datagram) and count < most:
        at += HEADER + _RECORD.unpack_from(datagram, at)[-1]
        count += 1
    return datagram[:at] if count == most else datagram


def plain_alert(alert: str) -> bytes:
    """The record of a fatal alert in plain text: while no key is in use."""
    content = bytes([FATAL, errors.ALERT_NUMBERS[alert]])
    return _RECORD.pack(ALERT, DTLS_1_2, 0, _LATE, 0, len(content)) + content


def hello_untrusted(datagram: bytes) -> bytes:
    """The body of the plain-text ClientHello at the beginning of a datagram; empty where there is none.

    A client that sends its ClientHello again sends an equal body.
    """
    plain = datagram[3:5] == b"\0\0"
    if len(datagram) <= _MESSAGE or datagram[0] != HANDSHAKE or datagram[HEADER] != CLIENT_HELLO or not plain:
        return b""
    return datagram[_MESSAGE:]
