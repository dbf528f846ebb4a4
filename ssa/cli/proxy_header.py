"""The header of the PROXY protocol: what a server behind `ssa serve` learns of its client. Pure.

The specification is haproxy's doc/proxy-protocol.txt. Version 1 is a line of text with the addresses. Version 2 is
binary, and has what TLS knows of the client besides: type-length-value fields, which a server may skip.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

V1, V2 = "v1", "v2"

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_PROXY = 0x21  # version 2, command PROXY
_OVER_TCP = {4: 0x11, 6: 0x21}  # the address family and the transport, by the version of IP
_PORTS = struct.Struct("!HH")

_ALPN, _AUTHORITY, _SSL = 0x01, 0x02, 0x20  # PP2_TYPE_*
_VERSION, _COMMON_NAME, _CIPHER = 0x21, 0x22, 0x23  # PP2_SUBTYPE_SSL_*
_BY_TLS, _CERTIFICATE_NOW, _CERTIFICATE_OF_SESSION = 0x01, 0x02, 0x04  # PP2_CLIENT_*
_VERIFIED, _NOT_VERIFIED = 0, 1
_LONGEST_NAME = 1024  # bytes: nginx refuses a header of more than 4096


class Client(NamedTuple):
    """What is known of a client whose handshake is done.

    Attributes:
        source: its address and port.
        destination: the address and port that it has connected to.
        version: of TLS, as TLSv1.3.
        alpn: the application protocol that was agreed on; empty for none.
        server_name: the name that it asked for (SNI); empty for none.
        certified: it has presented a certificate, which was verified.
        common_name: the CN of that certificate's subject; empty for none.
        resumed: the certificate was presented in an earlier connection of the session.
    """

    source: tuple[str, int]
    destination: tuple[str, int]
    version: str = ""
    cipher: str = ""
    alpn: str = ""
    server_name: str = ""
    certified: bool = False
    common_name: str = ""
    resumed: bool = False


def header(client: Client, version: str) -> bytes:
    """The header to send before the client's first byte. `version` is `V1` or `V2`."""
    return _HEADERS[version](client)


def _v1(client: Client) -> bytes:
    source, destination = _addresses(client)
    ports = f"{client.source[1]} {client.destination[1]}"
    return f"PROXY TCP{source.version} {source} {destination} {ports}\r\n".encode("ascii")


def _v2(client: Client) -> bytes:
    source, destination = _addresses(client)
    body = source.packed + destination.packed + _PORTS.pack(client.source[1], client.destination[1])
    body += _optional(_ALPN, client.alpn) + _optional(_AUTHORITY, client.server_name) + _tls(client)
    return _SIGNATURE + struct.pack("!BBH", _PROXY, _OVER_TCP[source.version], len(body)) + body


_HEADERS = {V1: _v1, V2: _v2}


def _tls(client: Client) -> bytes:
    flags, verify = _BY_TLS, _NOT_VERIFIED
    if client.certified:
        flags |= _CERTIFICATE_OF_SESSION | (0 if client.resumed else _CERTIFICATE_NOW)
        verify = _VERIFIED
    fields = _field(_VERSION, client.version.encode()) + _optional(_COMMON_NAME, client.common_name)
    return _field(_SSL, struct.pack("!BI", flags, verify) + fields + _optional(_CIPHER, client.cipher))


def _optional(kind: int, text: str) -> bytes:
    """A field with a text. A text that is empty, too long, or has characters that nobody can see is left out."""
    value = text.encode() if text.isprintable() else b""
    return _field(kind, value) if 0 < len(value) <= _LONGEST_NAME else b""


def _field(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _addresses(client: Client) -> tuple[_Address, _Address]:
    """Both addresses, in one family: an IPv4 client of a listener of both families has mapped ones (RFC 4291)."""
    both = _address(client.source[0]), _address(client.destination[0])
    mapped = [getattr(address, "ipv4_mapped", None) for address in both]
    return (mapped[0], mapped[1]) if mapped[0] and mapped[1] else both


def _address(text: str) -> _Address:
    return ipaddress.ip_address(text.partition("%")[0])  # without the scope of a link-local address
