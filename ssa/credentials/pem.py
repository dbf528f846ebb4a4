"""Reads certificates and keys from PEM that came from outside. The errors explain common mistakes. No I/O.

No error quotes a key's file or a parser's message about it: a key must not get into a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ssa import pem
from ssa.errors import SSAError, error
from ssa.trust import der
from ssa.trust.certificate import load_untrusted
from ssa.trust.evidence import MAX_CHAIN
from ssa.trust.strength import CURVES

if TYPE_CHECKING:
    from collections.abc import Callable

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey

_MAX_RSA_BITS = 8192  # one signature takes 25 ms; with twice as many bits it takes eight times as long
_BUFFER = 4096  # bytes of one write by a program that writes in pieces


def parse_chain_untrusted(text: bytes) -> tuple[bytes, ...]:
    """The certificates of a chain, in DER. The server's own has to be first, which is not checked. Raises BAD_VALUE.

    A key in the same file is passed over: only the certificates are kept and shown.
    """
    blocks = _blocks_untrusted(text, "certificate")
    found = [block for block in blocks if block.is_certificate]
    if not found:
        raise _bad(f"there is no certificate in it, only {_shown(blocks[0])}")
    chain = tuple(_der_untrusted(block, number) for number, block in enumerate(found, 1))
    if (size := sum(map(len, chain))) > MAX_CHAIN:
        raise _bad(f"a chain of {size} bytes is too long, peers accept {MAX_CHAIN}")
    return chain


def parse_key_untrusted(text: bytes) -> PrivateKey:
    """The one private key in a file. Other blocks are passed over. Raises BAD_VALUE."""
    keys = [block.whole for block in _blocks_untrusted(text, "private key") if block.is_key]
    if len(keys) != 1:
        raise _bad(f"there are {len(keys)} private keys in it, expected one")
    if b"ENCRYPTED" in keys[0]:
        raise _bad("the key is encrypted, and ssad cannot ask for its passphrase: openssl pkey -in KEY -out PLAIN")
    try:
        # The library's validation tests the factors of an RSA key for primality, which takes a quarter of a second
        # for 4096 bits, and any application may bring keys. `_adds_up` checks the arithmetic instead.
        key = load_pem_private_key(keys[0], None, unsafe_skip_rsa_key_validation=True)
    except Exception:  # noqa: BLE001 - the parser may raise anything, and its message could quote the key
        raise _bad("the private key cannot be read: expected PKCS #8, or OpenSSL's older formats") from None
    return _usable_untrusted(key)


def check_chain_so_far_untrusted(text: bytes) -> None:
    """Refuse the beginning of a file if no more bytes can make it a valid chain. Raises BAD_VALUE."""
    _check_so_far_untrusted(text, parse_chain_untrusted, lambda block: block.is_certificate)


def check_key_so_far_untrusted(text: bytes) -> None:
    """Refuse the beginning of a file if no more bytes can make it a valid key. Raises BAD_VALUE."""
    _check_so_far_untrusted(text, parse_key_untrusted, lambda block: block.is_key)


def _check_so_far_untrusted(text: bytes, parse: Callable[[bytes], object], wanted: Callable[[pem.Block], bool]) -> None:
    blocks = [*pem.blocks(text)]
    in_preamble = pem.BEGIN not in text and len(text) >= _BUFFER
    in_block = text.count(pem.BEGIN) > len(blocks)
    before_it = bool(blocks) and not any(map(wanted, blocks)) and len(text) <= pem.MAX_PEM
    if not (in_preamble or in_block or before_it):
        parse(text)


def _blocks_untrusted(text: bytes, what: str) -> list[pem.Block]:
    """The PEM blocks of a file, of which there must be one. Raises BAD_VALUE."""
    if len(text) > pem.MAX_PEM:
        raise _bad(f"{what}: {len(text)} bytes are too long, the limit is {pem.MAX_PEM >> 10} KiB")
    blocks = [*pem.blocks(text)]
    if text.count(pem.BEGIN) > len(blocks):
        raise _bad(f"{what}: a PEM block in it is cut short")
    if not blocks:
        raise _bad(f"{what}: {_what_it_is(text)}")
    return blocks


def _shown(block: pem.Block) -> str:
    return "a private key" if block.is_key else block.label


def _what_it_is(data: bytes) -> str:
    if data.startswith(b"\x30"):
        return "this is DER or PKCS #12, expected PEM: convert it with openssl x509 (or pkey, or pkcs12 -nodes)"
    return "there is no PEM in it, expected -----BEGIN ...-----"


def _der_untrusted(block: pem.Block, number: int) -> bytes:
    try:
        data = block.der_untrusted()
        if block.label == pem.TRUSTED:  # the trust settings behind the certificate are for its verifiers
            data = der.elements_untrusted(data)[0].whole
        load_untrusted(data, "it")
    except ValueError as failure:
        raise _bad(f"certificate {number}: {failure}") from None
    except SSAError as failure:
        raise _bad(f"certificate {number}: {failure.detail}") from None
    return data


def _usable_untrusted(key: object) -> PrivateKey:
    match key:
        case rsa.RSAPrivateKey() if key.key_size > _MAX_RSA_BITS:
            raise _bad(f"an RSA key of {key.key_size} bits is too slow to serve with, the limit is {_MAX_RSA_BITS}")
        case rsa.RSAPrivateKey() if not _adds_up(key.private_numbers()):
            raise _bad("the private key is damaged: its numbers do not fit together")
        case ec.EllipticCurvePrivateKey() if key.curve.name not in CURVES:
            raise _bad(f"TLS 1.3 does not allow certificates on the curve {key.curve.name}: use P-256, P-384 or P-521")
        case rsa.RSAPrivateKey() | ec.EllipticCurvePrivateKey() | ed25519.Ed25519PrivateKey() | ed448.Ed448PrivateKey():
            return key
    raise _bad("TLS cannot use this kind of key, expected RSA, ECDSA, Ed25519 or Ed448")


def _adds_up(key: rsa.RSAPrivateNumbers) -> bool:
    """True if the numbers of an RSA key fit together, prime or not. None is too large, so no signature takes long."""
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
