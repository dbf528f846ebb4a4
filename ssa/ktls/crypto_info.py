"""``struct tls12_crypto_info_*``: a traffic key as the kernel takes it (include/uapi/linux/tls.h)."""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field

from ssa.ktls.key_schedule import TrafficKey
from ssa.suites import AEAD, AEADS, TLSVersion

_NATIVE = sys.byteorder

HEADER = 4  # bytes: version and algorithm


@dataclass(frozen=True, slots=True)
class CryptoInfo:
    """The state of one direction at hand-over. The kernel goes on with record number `sequence`.

    The layout is that of both versions. TLS 1.3 splits its 12-byte IV into salt and iv. TLS 1.2 with an explicit nonce
    has the salt in the key block, and the kernel counts its nonces up from `explicit_nonce`. Under one key no nonce may
    come twice: so it starts behind the last one that the handshake has used.
    """

    version: TLSVersion
    aead: AEAD
    key: TrafficKey = field(repr=False)
    sequence: int
    explicit_nonce: int = 0

    def pack(self) -> bytes:
        """The bytes for ``setsockopt(SOL_TLS, TLS_TX or TLS_RX)``."""
        nonce = self.key.iv
        if len(nonce) == self.aead.salt:
            nonce += self.explicit_nonce.to_bytes(self.aead.iv, "big")
        salt, iv = nonce[: self.aead.salt], nonce[self.aead.salt :]
        header = self.version.to_bytes(2, _NATIVE) + self.aead.kernel.to_bytes(2, _NATIVE)
        return header + iv + self.key.key + salt + self.sequence.to_bytes(8, "big")


def parse_header(data: bytes) -> tuple[TLSVersion, AEAD]:
    """The version and algorithm in a structure that ``getsockopt`` returned."""
    version, cipher = int.from_bytes(data[:2], _NATIVE), int.from_bytes(data[2:4], _NATIVE)
    return TLSVersion(version), AEADS[cipher]


def parse(data: bytes) -> CryptoInfo:
    """Parse the whole structure that ``getsockopt`` returned: the direction as it is now."""
    version, aead = parse_header(data)
    layout = f">{HEADER}x{aead.iv}s{aead.key}s{aead.salt}sQ"
    iv, key, salt, sequence = struct.unpack(layout, data)
    if version is TLSVersion.TLSv1_2 and aead.explicit:
        return CryptoInfo(version, aead, TrafficKey(key, salt), sequence, int.from_bytes(iv, "big"))
    return CryptoInfo(version, aead, TrafficKey(key, salt + iv), sequence)
