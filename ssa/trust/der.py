"""A strict reader of DER (X.690), for the few structures of RFC 5280 that ssa judges. Pure.

It parses only what it is asked for: a certificate with an oddity in a part that ssa never judges is accepted.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import NamedTuple

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
SEQUENCE, SET, UTC_TIME, GENERALIZED_TIME = 0x30, 0x31, 0x17, 0x18
_MULTIBYTE_TAG = 0x1F
_LONG_FORM = 0x80
_LONGEST_OID = 64  # bytes: no real one has half as many, and arithmetic with huge numbers is slow
_LONGEST_LENGTH = 4  # bytes of a length: 4 GiB


def encoded(tag: int, body: bytes) -> bytes:
    """An element with this tag and these contents."""
    if len(body) < _LONG_FORM:
        return bytes((tag, len(body))) + body
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes((tag, _LONG_FORM | len(length))) + length + body


class Element(NamedTuple):
    """One element: its tag, its contents, and its whole encoding."""

    tag: int
    body: bytes
    whole: bytes


def elements_untrusted(data: bytes) -> list[Element]:
    """The elements that these bytes consist of. Raises ValueError."""
    found, at = [], 0
    while at < len(data):
        start, end = _content_untrusted(data, at)
        found.append(Element(data[at], data[start:end], data[at:end]))
        at = end
    return found


def sequence_untrusted(data: bytes) -> list[Element]:
    """The elements of the one SEQUENCE that these bytes are. Raises ValueError."""
    return elements_untrusted(one_untrusted(data, SEQUENCE))


def one_untrusted(data: bytes, tag: int) -> bytes:
    """The contents of the one element that these bytes are. Raises ValueError if its tag is another one."""
    found = elements_untrusted(data)
    if len(found) != 1:
        raise ValueError(f"{len(found)} elements, expected one")
    return body_untrusted(found[0], tag)


def body_untrusted(element: Element, tag: int) -> bytes:
    """The contents of an element. Raises ValueError if its tag is another one."""
    if element.tag != tag:
        raise ValueError(f"an element with tag {element.tag:#04x}, expected {tag:#04x}")
    return element.body


def _content_untrusted(data: bytes, at: int) -> tuple[int, int]:
    """The start and the end of the contents of the element that starts at `at`. Raises ValueError."""
    if data[at] & _MULTIBYTE_TAG == _MULTIBYTE_TAG or len(data) < at + 2:
        raise ValueError("an element is cut short, or has a tag of several bytes")
    length, start = data[at + 1], at + 2
    if length >= _LONG_FORM:
        size = length - _LONG_FORM
        length = int.from_bytes(data[start : start + size], "big")
        start += size
        if not 0 < size <= _LONGEST_LENGTH or length < _LONG_FORM or length >> 8 * (size - 1) == 0:
            raise ValueError("an element's length is not as short as it can be")
    if start + length > len(data):
        raise ValueError("an element is longer than what it is in")
    return start, start + length


# --- values -------------------------------------------------------------------------------------------------------


def integer_untrusted(body: bytes) -> int:
    """The contents of an INTEGER. Raises ValueError."""
    if not body:
        raise ValueError("an INTEGER without contents")
    return int.from_bytes(body, "big", signed=True)


def boolean_untrusted(body: bytes) -> bool:
    """The contents of a BOOLEAN. Raises ValueError."""
    if body not in (b"\x00", b"\xff"):
        raise ValueError("a BOOLEAN that is neither TRUE nor FALSE")
    return body == b"\xff"


def bits_untrusted(body: bytes) -> bytes:
    """The bits of a BIT STRING: the first bit is the highest, unused bits are 0. Raises ValueError."""
    if not body or body[0] > 7 or (body[0] and len(body) == 1):
        raise ValueError("a BIT STRING of the wrong length")
    bits = body[1:]
    return bits[:-1] + bytes((bits[-1] >> body[0] << body[0],)) if bits else b""


def oid_untrusted(body: bytes) -> str:
    """The contents of an OBJECT IDENTIFIER, with dots. Raises ValueError."""
    if not body or body[-1] & 0x80 or len(body) > _LONGEST_OID:
        raise ValueError("an OBJECT IDENTIFIER that is cut short, or too long")
    arcs, value = [], 0
    for byte in body:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


_TIMES = {
    UTC_TIME: re.compile(rb"([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z"),
    GENERALIZED_TIME: re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z"),
}


def time_untrusted(element: Element) -> datetime:
    """A time in one of the two forms of RFC 5280, section 4.1.2.5. Raises ValueError."""
    form = _TIMES.get(element.tag)
    found = form.fullmatch(element.body) if form else None
    if found is None:
        raise ValueError(f"{element.body[:40]!r} is no time")
    year, *rest = map(int, found.groups())
    if element.tag == UTC_TIME:
        year += 1900 if year >= 50 else 2000
    return datetime(year, *rest, tzinfo=UTC)  # type: ignore[misc,arg-type] # the pattern has five more numbers
