"""The cipher suites and protocol versions that ssa knows, and what the kernel calls them.

A suite is here when a Linux kernel can do its record protection (``include/uapi/linux/tls.h``) and its
key exchange is forward secret: nothing else may be named in a policy.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ssa import tls


class TLSVersion(IntEnum):
    """A protocol version, by its number on the wire (RFC 8446, section 4.1.2)."""

    TLSv1_2 = tls.TLS_1_2
    TLSv1_3 = tls.TLS_1_3

    @property
    def label(self) -> str:
        """The name used in the policy and the file system: ``TLSv1.3``."""
        return self.name.replace("_", ".")


VERSIONS: dict[str, TLSVersion] = {version.label: version for version in TLSVersion}


@dataclass(frozen=True, slots=True)
class AEAD:
    """A record protection algorithm, as the kernel takes it: ``struct tls12_crypto_info_*``, sizes in bytes."""

    name: str  # as /proc/crypto and inet_diag's readers write it
    kernel: int  # TLS_CIPHER_* of include/uapi/linux/tls.h
    key: int
    salt: int  # the part of the nonce that never travels
    iv: int  # the rest of the nonce: 12 bytes in all
    explicit: bool  # in TLS 1.2 the rest travels in each record (RFC 5288); ChaCha20 derives it (RFC 7905)


AES_GCM_128 = AEAD("aes-gcm-128", 51, key=16, salt=4, iv=8, explicit=True)
AES_GCM_256 = AEAD("aes-gcm-256", 52, key=32, salt=4, iv=8, explicit=True)
AES_CCM_128 = AEAD("aes-ccm-128", 53, key=16, salt=4, iv=8, explicit=True)
CHACHA20_POLY1305 = AEAD("chacha20-poly1305", 54, key=32, salt=0, iv=12, explicit=False)

AEADS: dict[int, AEAD] = {aead.kernel: aead for aead in (AES_GCM_128, AES_GCM_256, AES_CCM_128, CHACHA20_POLY1305)}


@dataclass(frozen=True, slots=True)
class Suite:
    """A cipher suite: its IANA name, OpenSSL's, and what keys it needs."""

    name: str
    openssl: str
    version: TLSVersion
    aead: AEAD
    hash: str  # of the key schedule or PRF, as hashlib names it


_V2, _V3 = TLSVersion.TLSv1_2, TLSVersion.TLSv1_3

# In order of preference: the default policy is this table's order.
_TABLE: tuple[Suite, ...] = (
    Suite("TLS_AES_256_GCM_SHA384", "TLS_AES_256_GCM_SHA384", _V3, AES_GCM_256, "sha384"),
    Suite("TLS_CHACHA20_POLY1305_SHA256", "TLS_CHACHA20_POLY1305_SHA256", _V3, CHACHA20_POLY1305, "sha256"),
    Suite("TLS_AES_128_GCM_SHA256", "TLS_AES_128_GCM_SHA256", _V3, AES_GCM_128, "sha256"),
    Suite("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_SHA256", _V3, AES_CCM_128, "sha256"),
    *(
        Suite(f"TLS_{kx}_{auth}_WITH_{iana}", f"{kx}-{auth}-{openssl}", _V2, aead, hash_)
        for iana, openssl, aead, hash_ in (
            ("AES_256_GCM_SHA384", "AES256-GCM-SHA384", AES_GCM_256, "sha384"),
            ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305", CHACHA20_POLY1305, "sha256"),
            ("AES_128_GCM_SHA256", "AES128-GCM-SHA256", AES_GCM_128, "sha256"),
            ("AES_128_CCM", "AES128-CCM", AES_CCM_128, "sha256"),
        )
        for kx, auth in (("ECDHE", "ECDSA"), ("ECDHE", "RSA"), ("DHE", "RSA"))
        # RFC 7251 defines CCM with ECDHE for ECDSA only; RFC 6655 has it with DHE for RSA.
        if (iana, kx, auth) != ("AES_128_CCM", "ECDHE", "RSA")
    ),
)

SUITES: dict[str, Suite] = {suite.name: suite for suite in _TABLE}
BY_OPENSSL_NAME: dict[str, Suite] = {suite.openssl: suite for suite in _TABLE}
