"""The wire protocol: what is packed is parsed, and nothing else is taken."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa import errors
from ssa.protocol import wire
from ssa.protocol.options import OPTIONS

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=255)
texts = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=300)

connects = st.builds(
    wire.Connect,
    hostname=texts,
    alpn=st.none() | st.lists(names, max_size=5).map(tuple),
    timeout_ms=st.none() | st.integers(0, 2**32 - 1),
)
replies = st.builds(
    wire.Reply,
    socket_id=st.none() | st.integers(0, 2**64 - 1),
    version=st.none() | texts,
    cipher=st.none() | texts,
    alpn=st.none() | st.lists(names, max_size=5).map(tuple),
    peer_identity=st.none() | texts,
    reason=st.none() | st.sampled_from(sorted(errors.REASONS)),
    detail=st.none() | texts,
    alert=st.none() | st.sampled_from(sorted(errors.ALERT_NUMBERS)),
)


@given(connects | replies)
def test_round_trip(message):
    assert wire.parse_untrusted(wire.pack(message), type(message)) == message


@given(st.binary(max_size=200), st.sampled_from([wire.Connect, wire.Reply]))
def test_junk_is_a_wire_error(data, kind):
    with pytest.raises(wire.WireError):
        wire.parse_untrusted(data, kind)


@given(connects, st.data())
def test_a_damaged_message_is_parsed_or_refused(message, data):
    packet = bytearray(wire.pack(message))
    at = data.draw(st.integers(0, len(packet) - 1))
    packet[at] ^= data.draw(st.integers(1, 255))
    try:
        parsed = wire.parse_untrusted(bytes(packet), wire.Connect)
    except wire.WireError:
        return
    assert isinstance(parsed, wire.Connect)
    assert parsed != message


@given(connects, st.data())
def test_a_truncated_message_is_refused(message, data):
    packet = wire.pack(message)
    with pytest.raises(wire.WireError):
        wire.parse_untrusted(packet[: data.draw(st.integers(0, len(packet) - 1))], wire.Connect)


def attribute(number, value):
    return struct.pack("=HHI", number, 0, len(value)) + value


def message(*attributes, kind=1, magic=b"SSA1"):
    body = b"".join(attributes)
    return struct.pack("=4sHHI", magic, kind, len(attributes), 12 + len(body)) + body


HOST = attribute(85, b"example.com")

REFUSED = {
    "another protocol": message(HOST, magic=b"HTTP"),
    "a reply": message(HOST, kind=2),
    "no host name": message(attribute(512, bytes(4))),
    "an attribute twice": message(HOST, HOST),
    "an unknown attribute": message(HOST, attribute(9999, b"")),
    "bytes behind the end": message(HOST) + b"x",
    "NUL in a text": message(attribute(85, b"example.com\0.evil.example")),
    "no UTF-8": message(attribute(85, b"\xff\xfe")),
    "a number of the wrong size": message(HOST, attribute(512, b"\1")),
    "an empty protocol name": message(HOST, attribute(90, b"\0")),
    "a protocol name cut short": message(HOST, attribute(90, b"\5h2")),
    "a length beyond the end": message(struct.pack("=HHI", 85, 0, 2**31) + b"x"),
}


@pytest.mark.parametrize("packet", REFUSED.values(), ids=REFUSED)
def test_refused(packet):
    with pytest.raises(wire.WireError):
        wire.parse_untrusted(packet, wire.Connect)


def test_the_handmade_message_is_a_good_one():
    assert wire.parse_untrusted(message(HOST), wire.Connect) == wire.Connect("example.com")


def test_what_is_too_long_is_not_packed():
    with pytest.raises(ValueError, match="longer"):
        wire.pack(wire.Connect("x" * wire.MAX_MESSAGE))


def test_option_numbers_are_the_originals():
    assert {number: OPTIONS[number].name for number in (85, 90, 95, 96, 114)} == {
        85: "TLS_REMOTE_HOSTNAME",
        90: "TLS_ALPN",
        95: "TLS_PEER_CERTIFICATE_CHAIN",
        96: "TLS_ID",
        114: "TLS_UPGRADE",
    }
