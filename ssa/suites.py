"""The cipher suites and protocol versions that ssa knows, and what the kernel calls them.

A suite is here when a Linux kernel can do its record protection (``include/uapi/linux/tls.h``) and its
key exchange is forward secret: nothing else may be named in a policy.

Applications load this: its classes are written out, as the module dataclasses takes longer to load than all of it.
"""

from __future__ import annotations

from enum import IntEnum

from ssa import tls
from ssa.tls import NONCE, TLS_1_2, TLS_1_3


class TLSVersion(IntEnum):
    """A protocol version, by its number on the wire (RFC 8446, section 4.1.2)."""

    TLSv1_2 = TLS_1_2
    TLSv1_3 = TLS_1_3

    @property
    def label(self) -> str:
        """The name used in the policy and the file system: ``TLSv1.3``."""
        return self.name.replace("_", ".")


VERSIONS: dict[str, TLSVersion] = {name: TLSVersion(number) for name, number in tls.VERSIONS.items()}


class AEAD:
    """A record protection algorithm, as the kernel takes it: ``struct tls12_crypto_info_*``, sizes in bytes.

    Attributes:
        name: as /proc/crypto and inet_diag's readers write it.
        kernel: TLS_CIPHER_* of include/uapi/linux/tls.h.
        key: the size of the key.
        salt: the size of the part of the nonce that never travels.
        iv: the size of the rest of the nonce.
        explicit: in TLS 1.2 the rest travels in each record (RFC 5288); ChaCha20 derives it (RFC 7905).
        limit: the number of records that one key may protect. RFC 8446 section 5.5 allows AES-GCM a little more, and
            RFC 9147 section 4.5.3 AES-CCM. With ChaCha20-Poly1305 the sequence numbers end first.
        info: the size of the structure: version, algorithm, iv, key, salt, and the sequence number at its end.
    """

    __slots__ = ("explicit", "info", "iv", "kernel", "key", "limit", "name", "salt")

    def __init__(self, name: str, kernel: int, *, key: int, salt: int, limit: int) -> None:
        self.name = name
        self.kernel = kernel
        self.key = key
        self.salt = salt
        self.iv = NONCE - salt
        self.explicit = salt > 0
        self.limit = limit
        self.info = 2 + 2 + self.iv + key + salt + 8

    def __repr__(self) -> str:
        return f"<AEAD {self.name}>"


AES_GCM_128 = AEAD("aes-gcm-128", 51, key=16, salt=4, limit=2**24)
AES_GCM_256 = AEAD("aes-gcm-256", 52, key=32, salt=4, limit=2**24)
AES_CCM_128 = AEAD("aes-ccm-128", 53, key=16, salt=4, limit=2**22)
CHACHA20_POLY1305 = AEAD("chacha20-poly1305", 54, key=32, salt=0, limit=2**62)

AEADS: dict[int, AEAD] = {aead.kernel: aead for aead in (AES_GCM_128, AES_GCM_256, AES_CCM_128, CHACHA20_POLY1305)}


class Suite:
    """A cipher suite.

    Attributes:
        name: IANA's name.
        number: IANA's number, as in a ClientHello.
        openssl: OpenSSL's name.
        version: the version of TLS that has it.
        aead: what protects the records.
        hash: of the key schedule or PRF, as hashlib names it.
    """

    __slots__ = ("aead", "hash", "name", "number", "openssl", "version")

    def __init__(self, name: str, number: int, openssl: str, version: TLSVersion, aead: AEAD) -> None:
        self.name = name
        self.number = number
        self.openssl = openssl
        self.version = version
        self.aead = aead
        self.hash = "sha384" if name.endswith("_SHA384") else "sha256"  # CCM's suites of TLS 1.2 name none (RFC 6655)

    def __repr__(self) -> str:
        return f"<Suite {self.name}>"

    @property
    def is_dhe(self) -> bool:
        """True for a key exchange in finite fields, whose cost the server chooses (RFC 5246 section 7.4.3)."""
        return self.openssl.startswith("DHE-")


_V2, _V3 = TLSVersion.TLSv1_2, TLSVersion.TLSv1_3

# In order of preference: the default policy is this table's order.
_TABLE: tuple[Suite, ...] = (
    Suite("TLS_AES_256_GCM_SHA384", 0x1302, "TLS_AES_256_GCM_SHA384", _V3, AES_GCM_256),
    Suite("TLS_CHACHA20_POLY1305_SHA256", 0x1303, "TLS_CHACHA20_POLY1305_SHA256", _V3, CHACHA20_POLY1305),
    Suite("TLS_AES_128_GCM_SHA256", 0x1301, "TLS_AES_128_GCM_SHA256", _V3, AES_GCM_128),
    Suite("TLS_AES_128_CCM_SHA256", 0x1304, "TLS_AES_128_CCM_SHA256", _V3, AES_CCM_128),
    *(
        Suite(f"TLS_{kx}_WITH_{iana}", number, f"{kx.replace('_', '-')}-{openssl}", _V2, aead)
        for iana, openssl, aead, numbers in (
            ("AES_256_GCM_SHA384", "AES256-GCM-SHA384", AES_GCM_256, (0xC02C, 0xC030, 0x009F)),
            ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", CHACHA20_POLY1305, (0xCCA9, 0xCCA8, 0xCCAA)),
            ("AES_128_GCM_SHA256", "AES128-GCM-SHA256", AES_GCM_128, (0xC02B, 0xC02F, 0x009E)),
            # RFC 7251 defines CCM with ECDHE for ECDSA only; RFC 6655 has it with DHE for RSA.
            ("AES_128_CCM", "AES128-CCM", AES_CCM_128, (0xC0AC, None, 0xC09E)),
        )
        for kx, number in zip(("ECDHE_ECDSA", "ECDHE_RSA", "DHE_RSA"), numbers, strict=True)
        if number is not None
    ),
)

SUITES: dict[str, Suite] = {suite.name: suite for suite in _TABLE}
BY_OPENSSL_NAME: dict[str, Suite] = {suite.openssl: suite for suite in _TABLE}
