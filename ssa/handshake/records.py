"""TLS records (RFC 8446 section 5.1): finding their ends, and sealing and opening them under a known key. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM, ChaCha20Poly1305

from ssa import errors
from ssa.suites import AEAD, AES_CCM_128, AES_GCM_128, AES_GCM_256, CHACHA20_POLY1305
from ssa.tls import (
    ALERT,
    APPLICATION_DATA,
    CHANGE_CIPHER_SPEC,
    FATAL,
    HANDSHAKE,
    MAX_SEALED,
    MESSAGE_HEADER,
    RANDOM,
    RECORD_HEADER,
    RECORD_VERSION,
    SERVER_HELLO,
    TAG,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.ktls.crypto_info import CryptoInfo
    from ssa.ktls.key_schedule import TrafficKey

_TYPES = range(CHANGE_CIPHER_SPEC, APPLICATION_DATA + 1)

_Cipher = AESGCM | AESCCM | ChaCha20Poly1305
_CIPHERS: dict[AEAD, Callable[[bytes], _Cipher]] = {
    AES_GCM_128: AESGCM,
    AES_GCM_256: AESGCM,
    AES_CCM_128: AESCCM,
    CHACHA20_POLY1305: ChaCha20Poly1305,
}


def record_length_untrusted(data: bytes) -> int:
    """The length of the record that begins here, header included; 0 while its header is not complete.

    Raises `ssa.HandshakeError`: NOT_TLS for what can't be a record, RECORD_OVERFLOW for a record that is too long. The
    alerts of these errors are those of RFC 8446 sections 5 and 6.2.
    """
    if data and data[0] not in _TYPES:
        raise errors.error("NOT_TLS", _guess(data), "unexpected_message")
    if len(data) > 1 and data[1] != RECORD_VERSION[0]:
        raise errors.error("NOT_TLS", _guess(data), "protocol_version")
    if len(data) < RECORD_HEADER:
        return 0
    length = int.from_bytes(data[3:RECORD_HEADER], "big")
    if length > MAX_SEALED:
        raise errors.error("RECORD_OVERFLOW", f"{length} bytes, where {MAX_SEALED} are allowed")
    return RECORD_HEADER + length


def _guess(data: bytes) -> str:
    start = bytes(data[:40]).split(b"\r")[0].split(b"\n")[0]
    kind = "plain HTTP" if b"HTTP/" in start else "no TLS record"
    return f"it sent {kind}, beginning {start!r}"


def split_untrusted(data: bytes, most: int | None = None) -> tuple[list[bytes], bytes]:
    """The whole records at the front of `data`, `most` of them at most, and the bytes behind them.

    Raises what `record_length_untrusted` raises, if `data` begins with what can't be a record.
    """
    records: list[bytes] = []
    at = 0
    try:
        while len(records) != most and (length := record_length_untrusted(data[at : at + 64])):
            if at + length > len(data):
                break
            records.append(data[at : at + length])
            at += length
    except errors.HandshakeError:
        if not records:
            raise
    return records, data[at:]


def server_hello_suite_untrusted(record: bytes) -> int | None:
    """The number of the cipher suite in a record that begins with a ServerHello (RFC 8446 section 4.1.3), else None."""
    body = record[RECORD_HEADER:]
    at = MESSAGE_HEADER + 2 + RANDOM  # the message's header, version and random; then the session's id with its length
    if record[:1] != bytes([HANDSHAKE]) or body[:1] != bytes([SERVER_HELLO]) or len(body) <= at:
        return None
    number = body[at + 1 + body[at] :][:2]
    return int.from_bytes(number, "big") if len(number) == 2 else None


def _nonce(key: TrafficKey, sequence: int) -> bytes:
    """The nonce of a record (RFC 8446 section 5.3; RFC 7905 section 2 has the same for TLS 1.2)."""
    return (int.from_bytes(key.iv, "big") ^ sequence).to_bytes(len(key.iv), "big")


def open_untrusted(aead: AEAD, key: TrafficKey, sequence: int, record: bytes) -> tuple[int, bytes] | None:
    """The content type and content of a TLS 1.3 record; None where it does not open under this key and number."""
    header, sealed = record[:RECORD_HEADER], record[RECORD_HEADER:]
    try:
        inner = _CIPHERS[aead](key.key).decrypt(_nonce(key, sequence), sealed, header)
    except (InvalidTag, ValueError):
        return None
    content = inner.rstrip(b"\0")
    return (content[-1], content[:-1]) if content else None


def seal(aead: AEAD, key: TrafficKey, sequence: int, kind: int, content: bytes) -> bytes:
    """The TLS 1.3 record that carries `content` of that type."""
    length = len(content) + 1 + TAG
    header = bytes([APPLICATION_DATA]) + RECORD_VERSION + length.to_bytes(2, "big")
    return header + _CIPHERS[aead](key.key).encrypt(_nonce(key, sequence), content + bytes([kind]), header)


def seal_tls12(info: CryptoInfo, kind: int, content: bytes) -> bytes:
    """The next TLS 1.2 record of a direction (RFC 5246 section 6.2.3.3, with the nonces of RFC 5288 and 7905)."""
    aead, key, number = info.aead, info.key, info.sequence.to_bytes(8, "big")
    explicit = info.explicit_nonce.to_bytes(aead.iv, "big") if aead.explicit else b""
    nonce = key.iv + explicit if aead.explicit else _nonce(key, info.sequence)
    start = bytes([kind]) + RECORD_VERSION
    bound = number + start + len(content).to_bytes(2, "big")
    sealed = explicit + _CIPHERS[aead](key.key).encrypt(nonce, content, bound)
    return start + len(sealed).to_bytes(2, "big") + sealed


def fatal_alert(name: str) -> bytes:
    """The content of the alert record of that name, at level fatal."""
    return bytes([FATAL, errors.ALERT_NUMBERS[name]])


def plain_alert(name: str) -> bytes:
    """The record of a fatal alert in plain text: while no key is in use."""
    return bytes([ALERT]) + RECORD_VERSION + b"\0\x02" + fatal_alert(name)
