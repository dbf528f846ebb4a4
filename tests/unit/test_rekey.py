"""KeyUpdate's pure half: the message, the next secret, the limits, and what the kernel tells of a direction."""

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.ktls.crypto_info import CryptoInfo, parse
from ssa.ktls.key_schedule import TrafficKey, next_secret
from ssa.ktls.rekey import key_update, parse_key_update_untrusted
from ssa.suites import AEADS, SUITES, TLSVersion


@pytest.mark.parametrize("requested", [False, True])
def test_the_message_is_that_of_the_rfc(requested):
    assert key_update(requested=requested) == bytes.fromhex("18000001") + bytes([requested])
    assert parse_key_update_untrusted(key_update(requested=requested)) is requested


@pytest.mark.parametrize(
    "message",
    [
        "",
        "18",
        "18000001",  # its body is missing
        "1800000102",  # neither requested nor not
        "18000001ff",
        "180000010000",  # something behind it
        "18000001001800000100",  # two in a record
        "180000020000",
        "1800000000",
        "18010001000000",
        "0400000100",  # a ticket, or so
    ],
)
def test_what_is_no_key_update(message):
    with pytest.raises(ValueError, match="KeyUpdate"):
        parse_key_update_untrusted(bytes.fromhex(message))


@given(st.binary(max_size=12) | st.builds(lambda end: b"\x18\0\0\1" + end, st.binary(max_size=3)))
def test_junk_gives_one_exception_only(message):
    try:
        requested = parse_key_update_untrusted(message)
    except ValueError:
        assert message not in (key_update(requested=False), key_update(requested=True))
    else:
        assert message == key_update(requested=requested)


@pytest.mark.parametrize("suite", [s for s in SUITES.values() if s.version is TLSVersion.TLSv1_3], ids=lambda s: s.name)
def test_the_next_secret_by_hand(suite):
    """HKDF-Expand-Label (RFC 8446 section 7.1) spelled out: one block of HKDF-Expand is one HMAC."""
    length = 48 if suite.hash == "sha384" else 32
    secret = bytes(range(length))
    info = bytes([0, length, 17]) + b"tls13 traffic upd" + b"\0"
    assert next_secret(suite, secret) == hmac.digest(secret, info + b"\1", suite.hash)


def test_every_algorithm_has_a_limit_below_that_of_the_rfcs():
    allowed = {"aes-gcm-128": 2**24.5, "aes-gcm-256": 2**24.5, "aes-ccm-128": 2**23, "chacha20-poly1305": 2**64}
    assert {aead.name for aead in AEADS.values()} == set(allowed)
    for kernel, limit in ((kernel, aead.limit) for kernel, aead in AEADS.items()):
        assert limit < allowed[AEADS[kernel].name]


@given(st.sampled_from(TLSVersion), st.sampled_from(sorted(AEADS)), st.data())
def test_parse_is_the_inverse_of_pack(version, kernel, data):
    aead = AEADS[kernel]
    explicit = version is TLSVersion.TLSv1_2 and aead.explicit
    iv = aead.salt if explicit else aead.salt + aead.iv
    key = TrafficKey(*(data.draw(st.binary(min_size=n, max_size=n)) for n in (aead.key, iv)))
    number = st.integers(0, 2**64 - 1)
    info = CryptoInfo(version, aead, key, data.draw(number), data.draw(number) if explicit else 0)
    assert len(info.pack()) == aead.info
    assert parse(info.pack()) == info
