"""From a handshake's secrets to the keys of its records. Pure, and checked against published vectors.

TLS 1.3: RFC 8446 section 7. TLS 1.2: RFC 5246 sections 5 and 6.3.
"""

from __future__ import annotations

import functools
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ssa.tls import NONCE

if TYPE_CHECKING:
    from ssa.suites import AEAD, Suite


@dataclass(frozen=True, slots=True)
class TrafficKey:
    """The key and IV that protect the records of one direction. `repr` shows neither.

    `iv` is TLS 1.3's 12-byte static IV, or TLS 1.2's implicit part of the nonce: the salt of RFC 5288 (4
    bytes), or all 12 for ChaCha20 (RFC 7905).
    """

    key: bytes = field(repr=False)
    iv: bytes = field(repr=False)


def expand_label(hash_name: str, secret: bytes, label: str, context: bytes, length: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1): `length` bytes.

    HKDF-Expand is one HMAC where it gives no more than a hash (RFC 5869 section 2.3). Raises ValueError for more.
    """
    block = hmac.digest(secret, _info(label, context, length), hash_name)
    if length > len(block):
        raise ValueError(f"{length} bytes of {hash_name}, which gives {len(block)}")
    return block[:length]


@functools.lru_cache(maxsize=64)
def _info(label: str, context: bytes, length: int) -> bytes:
    """The structure HkdfLabel (RFC 8446 section 7.1), and the number of HKDF's first block."""
    full = b"tls13 " + label.encode()
    return length.to_bytes(2, "big") + bytes([len(full)]) + full + bytes([len(context)]) + context + b"\1"


def traffic_key(suite: Suite, secret: bytes) -> TrafficKey:
    """The key and IV of a TLS 1.3 traffic secret (RFC 8446 section 7.3)."""
    return TrafficKey(
        expand_label(suite.hash, secret, "key", b"", suite.aead.key),
        expand_label(suite.hash, secret, "iv", b"", NONCE),
    )


def next_secret(suite: Suite, secret: bytes) -> bytes:
    """The traffic secret that follows a KeyUpdate (RFC 8446 section 7.2)."""
    return expand_label(suite.hash, secret, "traffic upd", b"", len(secret))


def prf(hash_name: str, secret: bytes, label: bytes, seed: bytes, length: int) -> bytes:
    """TLS 1.2's pseudo-random function (RFC 5246 section 5): `length` bytes."""

    def mac(data: bytes) -> bytes:
        return hmac.digest(secret, data, hash_name)

    seed = label + seed
    output, a = b"", seed
    while len(output) < length:
        a = mac(a)
        output += mac(a + seed)
    return output[:length]


def key_block(suite: Suite, master: bytes, client_random: bytes, server_random: bytes) -> tuple[TrafficKey, TrafficKey]:
    """TLS 1.2's keys: the client's, then the server's (RFC 5246 section 6.3, with no MAC keys: all are AEADs)."""
    key, iv = suite.aead.key, _implicit_iv(suite.aead)
    block = prf(suite.hash, master, b"key expansion", server_random + client_random, 2 * (key + iv))
    keys, ivs = block[: 2 * key], block[2 * key :]
    return TrafficKey(keys[:key], ivs[:iv]), TrafficKey(keys[key:], ivs[iv:])


def _implicit_iv(aead: AEAD) -> int:
    return aead.salt if aead.explicit else NONCE
