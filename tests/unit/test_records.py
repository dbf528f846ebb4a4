"""Where a record ends, and what is no record."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa import errors
from ssa.handshake import records
from ssa.ktls.control import handshake_types_untrusted
from ssa.ktls.key_schedule import TrafficKey
from ssa.suites import AEADS

record = st.builds(
    lambda kind, body: bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body,
    st.integers(20, 23),
    st.binary(max_size=300),
)


@given(st.lists(record, max_size=6), record, st.data())
def test_split_finds_whole_records_and_keeps_the_rest(whole, last, data):
    part = last[: data.draw(st.integers(0, len(last) - 1))]
    assert records.split_untrusted(b"".join(whole) + part) == (whole, part)


@given(st.binary(max_size=64))
def test_junk_gives_one_exception_only(data):
    try:
        found, rest = records.split_untrusted(data)
    except errors.HandshakeError as exc:
        assert exc.reason in {"NOT_TLS", "RECORD_OVERFLOW"}
    else:
        assert b"".join(found) + rest == data


@pytest.mark.parametrize(
    ("data", "reason", "says"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "NOT_TLS", "plain HTTP"),
        (b"220 mail.example ESMTP\r\n", "NOT_TLS", "220 mail.example ESMTP"),
        (b"\x16\x02\x00\x00\x10", "NOT_TLS", "no TLS record"),
        (b"\x16\x03\x03\xff\xff", "RECORD_OVERFLOW", "65535 bytes"),
    ],
)
def test_what_is_no_record_says_so(data, reason, says):
    with pytest.raises(errors.HandshakeError) as caught:
        records.split_untrusted(data)
    assert caught.value.reason == reason
    assert says in str(caught.value)


@given(st.sampled_from(list(AEADS.values())), st.integers(0, 2**64 - 1), st.integers(20, 23), st.binary(max_size=64))
def test_seal_and_open(aead, sequence, kind, content):
    key = TrafficKey(bytes(range(aead.key)), bytes(range(12)))
    sealed = records.seal(aead, key, sequence, kind, content)
    assert records.record_length_untrusted(sealed) == len(sealed)
    assert records.open_untrusted(aead, key, sequence, sealed) == (kind, content)
    damaged = sealed[:-1] + bytes([sealed[-1] ^ 1])
    assert records.open_untrusted(aead, key, sequence, damaged) is None


def test_handshake_messages():
    ticket = b"\x04\0\0\x03abc"
    assert handshake_types_untrusted(ticket * 2) == ([4, 4], True)
    assert handshake_types_untrusted(ticket + b"\x18\0\0\x01\0") == ([4, 24], True)
    assert handshake_types_untrusted(ticket + ticket[:5]) == ([4, 4], False)
    assert handshake_types_untrusted(ticket[:2]) == ([4], False)


def server_hello(suite, session=b""):
    body = b"\x03\x03" + bytes(32) + bytes([len(session)]) + session + suite.to_bytes(2, "big") + b"\0"
    return b"\x16\x03\x03" + (len(body) + 4).to_bytes(2, "big") + b"\x02" + len(body).to_bytes(3, "big") + body


@given(st.integers(0, 0xFFFF), st.binary(max_size=32))
def test_the_suite_of_a_server_hello(suite, session):
    hello = server_hello(suite, session)
    assert records.server_hello_suite_untrusted(hello) == suite
    assert records.server_hello_suite_untrusted(hello[: 5 + 4 + 2 + 32 + 1 + len(session) + 1]) is None


@given(st.binary(max_size=100))
def test_what_is_no_server_hello_has_no_suite(data):
    assert records.server_hello_suite_untrusted(b"\x15" + data) is None
