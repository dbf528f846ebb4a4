"""PEM from outside to certificates and keys, with words for the mistakes that are made with it. No I/O.

No message here quotes anything of a key's file, nor what a parser says of it: a key must not get into a log.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ssa.errors import SSAError, error
from ssa.trust.certificate import load_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

MAX_PEM = 256 << 10  # bytes
MAX_CHAIN = 16  # certificates
_MAX_RSA_BITS = 8192  # one signature takes 25 ms then, and eight times that with twice as many
_CURVES = {"secp256r1", "secp384r1", "secp521r1"}  # that TLS 1.3 signs with

_BEGIN = b"-----BEGIN "
# The content ends at the next five hyphens, so that a block that was cut short does not swallow the one after it.
_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----((?>[^-]*(?:-(?!----)[^-]*)*))-----END \1-----")
_CERTIFICATE = ("CERTIFICATE", "X509 CERTIFICATE")
_PARAMETERS = "EC PARAMETERS"  # what `openssl ecparam -genkey` writes before the key
_BUFFER = 4096  # bytes that a program writes at once, where it writes in pieces


def parse_chain_untrusted(pem: bytes) -> tuple[bytes, ...]:
    """A chain's certificates, DER, the server's own first, which is not checked. Raises BAD_VALUE."""
    blocks = _blocks_untrusted(pem, "certificate")
    if any("PRIVATE KEY" in label for label, _ in blocks):
        raise _bad("there is a private key in it: a certificate's file is shown to everyone, keep the key in its own")
    bodies = [block for label, block in blocks if label in _CERTIFICATE]
    if not bodies:
        raise _bad(f"there is no certificate in it, only: {blocks[0][0]}")
    if len(bodies) > MAX_CHAIN:
        raise _bad(f"{len(bodies)} certificates in a chain, the limit is {MAX_CHAIN}")
    return tuple(_der_untrusted(block, number) for number, block in enumerate(bodies, 1))


def parse_key_untrusted(pem: bytes) -> PrivateKey:
    """A private key. Raises BAD_VALUE."""
    keys = [block for label, block in _blocks_untrusted(pem, "private key") if label.endswith("PRIVATE KEY")]
    if len(keys) != 1:
        raise _bad(f"there are {len(keys)} private keys in it, expected one")
    if b"ENCRYPTED" in keys[0]:
        raise _bad("the key is encrypted, and nobody is here to type its passphrase: openssl pkey -in KEY -out PLAIN")
    try:
        # Its validation tests the factors of an RSA key for primality: a quarter of a second for 4096 bits, for
        # whatever key an application brings. The sums are checked below.
        key = load_pem_private_key(keys[0], None, unsafe_skip_rsa_key_validation=True)
    except Exception:  # noqa: BLE001  # what a parser may raise is open-ended, and could quote the key
        raise _bad("the private key cannot be read: expected PKCS #8, or OpenSSL's older formats") from None
    return _usable_untrusted(key)


def check_so_far_untrusted(pem: bytes, parse: Callable[[bytes], object]) -> None:
    """Refuse the beginning of a PEM file if no more bytes can make it one that `parse` takes. Raises BAD_VALUE."""
    labels = [label for label, _ in _split(pem)]
    in_preamble = _BEGIN not in pem and len(pem) >= _BUFFER
    in_block = pem.count(_BEGIN) > len(labels)
    before_key = bool(labels) and set(labels) == {_PARAMETERS}
    if not (in_preamble or in_block or before_key):
        parse(pem)


def _blocks_untrusted(pem: bytes, what: str) -> list[tuple[str, bytes]]:
    """The blocks of a file, whatever is around them: each one's label, and all of it."""
    if len(pem) > MAX_PEM:
        raise _bad(f"{what}: {len(pem)} bytes are too long, the limit is {MAX_PEM >> 10} KiB")
    blocks = _split(pem)
    if pem.count(_BEGIN) > len(blocks):
        raise _bad(f"{what}: a PEM block in it is cut short")
    if not blocks:
        raise _bad(f"{what}: {_what_it_is(pem)}")
    return blocks


def _split(pem: bytes) -> list[tuple[str, bytes]]:
    return [(found[1].decode("ascii"), found[0]) for found in _BLOCK.finditer(pem)]


def _what_it_is(data: bytes) -> str:
    if data.startswith(b"\x30"):
        return "this is DER or PKCS #12, expected PEM: openssl x509 (or pkey, or pkcs12 -nodes) converts it"
    return "there is no PEM in it, expected -----BEGIN ...-----"


def _der_untrusted(block: bytes, number: int) -> bytes:
    found = _BLOCK.fullmatch(block)
    try:
        der = binascii.a2b_base64(b"".join((found[2] if found else b"").split()), strict_mode=True)
        load_untrusted(der, "it")
    except binascii.Error as failure:
        raise _bad(f"certificate {number}: {failure}") from None
    except SSAError as failure:
        raise _bad(f"certificate {number}: {failure.detail}") from None
    return der


def _usable_untrusted(key: object) -> PrivateKey:
    match key:
        case rsa.RSAPrivateKey() if key.key_size > _MAX_RSA_BITS:
            raise _bad(f"an RSA key of {key.key_size} bits is too slow to serve with, the limit is {_MAX_RSA_BITS}")
        case rsa.RSAPrivateKey() if not _adds_up(key.private_numbers()):
            raise _bad("the private key is damaged: its numbers do not fit together")
        case ec.EllipticCurvePrivateKey() if key.curve.name not in _CURVES:
            raise _bad(f"TLS 1.3 has no certificates on the curve {key.curve.name}: use P-256, P-384 or P-521")
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey() | ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey():
            return key
    raise _bad("TLS has no use for this kind of key: expected RSA, ECDSA, Ed25519 or Ed448")


def _adds_up(key: rsa.RSAPrivateNumbers) -> bool:
    """Whether an RSA key's numbers fit together, primes or not: none is too large, so no signature takes long."""
    n, e = key.public_numbers.n, key.public_numbers.e
    return (
        e % 2 == 1
        and 1 < e < 1 << 64
        and min(key.p, key.q) > 2
        and key.p * key.q == n
        and 0 < key.d < n
        and (key.dmp1, key.dmq1) == (key.d % (key.p - 1), key.d % (key.q - 1))
        and e * key.dmp1 % (key.p - 1) == e * key.dmq1 % (key.q - 1) == 1
        and 0 < key.iqmp < key.p
        and key.q * key.iqmp % key.p == 1
    )


def _bad(detail: str) -> SSAError:
    return error("BAD_VALUE", detail)
