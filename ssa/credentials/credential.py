"""A certificate chain with its private key, and the check that the two belong together. No I/O."""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ssa.credentials.pem import parse_chain_untrusted, parse_key_untrusted
from ssa.errors import SSAError, error
from ssa.names import is_dns_name, normalise
from ssa.pem import encoded, encoded_block
from ssa.times import rfc3339
from ssa.trust import der
from ssa.trust.certificate import Certificate, load_untrusted
from ssa.trust.extensions import AlternativeNames

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ssa.credentials.pem import PrivateKey

_KINDS: dict[type[PrivateKey], str] = {
    rsa.RSAPrivateKey: "rsa",
    ec.EllipticCurvePrivateKey: "ec",
    ed25519.Ed25519PrivateKey: "ed25519",
    ed448.Ed448PrivateKey: "ed448",
}
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_SEPARATORS = re.compile(r"[\s,]+")  # a colon is part of an address


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate chain that a server presents, with the key that it signs with.

    Attributes:
        name: the name that the administrator gave it; for an application's, the certificate's subject.
        chain: the certificates in DER, the server's own first.
        certificate_pem: the certificates in PEM.
        key_pem: the private key in PEM, not encrypted.
        hostnames: the DNS names, which may begin with ``*.``, and addresses that it serves for, in canonical form.
        kind: the kind of the key: rsa, rsa-pss, ec, ed25519 or ed448.
        digest: a hash of chain and key; two credentials with the same digest are equal.
    """

    name: str
    chain: tuple[bytes, ...] = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    hostnames: tuple[str, ...]
    kind: str
    digest: bytes = field(repr=False)

    def lifetime(self, now: datetime | None = None) -> str:
        """A warning if the certificate is not valid at a moment, or expires within 14 days; else an empty text."""
        now = now or datetime.now(UTC)
        first, last = self.period()
        if now > last:
            return f"expired on {rfc3339(last)}"
        if now < first:
            return f"is not valid before {rfc3339(first)}"
        left = last - now
        return f"expires on {rfc3339(last)}, in {_span(left)}" if left < _SOON else ""

    def status(self, now: datetime | None = None) -> str:
        """Its state, in words."""
        wrong = self.lifetime(now)
        return f"in service, and its certificate {wrong}" if wrong else f"in service until {rfc3339(self.period()[1])}"

    def period(self) -> tuple[datetime, datetime]:
        """The first and the last moment at which its own certificate is valid."""
        return leaf_untrusted(self.chain).valid


_SOON = timedelta(days=14)


def _span(left: timedelta) -> str:
    hours = left // timedelta(hours=1)
    return f"{left.days} days" if left.days > 1 else f"{hours} hours" if hours > 1 else f"{left.seconds // 60} minutes"


def is_name(text: str) -> bool:
    """True if a credential may have this name, which is the name of a directory and is written to the log."""
    return _NAME.fullmatch(text) is not None


def pair_untrusted(certificates: Sequence[bytes], keys: Sequence[bytes], *, complete: bool) -> tuple[Credential, ...]:
    """Pair the certificates and keys that an application brought. The order is that of the certificates.

    Args:
        certificates: PEM texts with one chain each, such as one for RSA and one for ECDSA.
        keys: PEM texts with one key each, in any order.
        complete: False while they come one by one, so that a certificate may lack its key, or a key its certificate.

    Raises:
        SSAError: BAD_VALUE, KEY_MISMATCH, NO_CREDENTIALS.
    """
    chains = [parse_chain_untrusted(text) for text in certificates]
    private = [parse_key_untrusted(text) for text in keys]
    owners = [[key for key in private if belongs(chain, key)] for chain in chains]
    bare = [chain for chain, found in zip(chains, owners, strict=True) if not found]
    spare = [key for key in private if not any(key in found for found in owners)]
    if spare and (bare or complete):
        raise _mismatch(chains, spare[0])
    if complete and bare:
        raise error("NO_CREDENTIALS", f"the certificate of {leaf_untrusted(bare[0]).name} came without its key")
    if complete and not chains:
        raise error("NO_CREDENTIALS")
    return tuple(combine(chain, found[0]) for chain, found in zip(chains, owners, strict=True) if found)


def belongs(chain: tuple[bytes, ...], key: PrivateKey) -> bool:
    """True if the key belongs to the chain's first certificate. Raises `ssa.SSAError` BAD_VALUE."""
    return _public_untrusted(leaf_untrusted(chain)) == key.public_key()


def combine(
    chain: tuple[bytes, ...], key: PrivateKey, name: str = "", hostnames: tuple[str, ...] | None = None
) -> Credential:
    """The credential of a chain and its key. Raises `ssa.SSAError`: KEY_MISMATCH, BAD_VALUE."""
    if not belongs(chain, key):
        raise _mismatch([chain], key)
    _check_period_untrusted(chain)
    leaf = leaf_untrusted(chain)
    key_pem = _pss_pem(leaf, key) if leaf.has_pss_key else _pem_of(key)
    return Credential(
        name=name or leaf.name,
        chain=chain,
        certificate_pem=encoded(chain),
        key_pem=key_pem,
        hostnames=presented_untrusted(chain) if hostnames is None else hostnames,
        kind="rsa-pss" if leaf.has_pss_key else next(kind for cls, kind in _KINDS.items() if isinstance(key, cls)),
        digest=hashlib.sha256(b"".join(map(_digest, (*chain, key_pem)))).digest(),
    )


def _pem_of(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pss_pem(leaf: Certificate, key: PrivateKey) -> bytes:
    """A key, as PEM, for RSASSA-PSS only, as its certificate says (RFC 4055). The parser of keys drops that."""
    numbers = key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    parts = der.encoded(der.INTEGER, b"\0") + leaf.key_algorithm + der.encoded(der.OCTET_STRING, numbers)
    return encoded_block(der.encoded(der.SEQUENCE, parts), "PRIVATE KEY")


def _check_period_untrusted(chain: tuple[bytes, ...]) -> None:
    try:
        _ = leaf_untrusted(chain).valid
    except SSAError as failure:
        raise error("BAD_VALUE", failure.detail) from None


def leaf_untrusted(chain: Sequence[bytes]) -> Certificate:
    """The first certificate of a chain. Raises `ssa.SSAError` BAD_VALUE."""
    try:
        return load_untrusted(chain[0], "certificate 1")
    except SSAError as failure:
        raise error("BAD_VALUE", failure.detail) from None


def presented_untrusted(chain: Sequence[bytes]) -> tuple[str, ...]:
    """The names and addresses in a chain's first certificate, without malformed ones, which match nothing."""
    try:
        names = leaf_untrusted(chain).extension_untrusted(AlternativeNames)
    except SSAError as failure:
        raise error("BAD_VALUE", failure.detail) from None
    if names is None:
        return ()
    return tuple(dict.fromkeys((*_well_formed(names.dns), *map(str, names.addresses))))


def parse_hostnames_untrusted(text: str) -> tuple[str, ...]:
    """Read names and addresses, separated by newlines, spaces or commas. Raises `ssa.SSAError` BAD_VALUE."""
    try:
        return tuple(dict.fromkeys(map(_canonical, filter(None, _SEPARATORS.split(text)))))
    except ValueError as failure:
        raise error("BAD_VALUE", str(failure)) from None


def whole_words(text: str) -> str:
    """The beginning of a list without its last word, which may be unfinished."""
    return text.removesuffix(_SEPARATORS.split(text)[-1])


def _canonical(name: str) -> str:
    """A name in the form in which names are compared. Raises ValueError."""
    wildcard, parent = name.startswith("*."), name.removeprefix("*.")
    found = normalise(parent)
    if not wildcard:
        return str(found)
    if not isinstance(found, str) or "." not in found:
        raise ValueError(f"{name!a}: expected at least two labels after a wildcard, as in *.example.com")
    return f"*.{found}"


def _well_formed(names: Iterable[str]) -> Iterator[str]:
    for name in names:
        with contextlib.suppress(ValueError):
            if is_dns_name(name.lower().removeprefix("*.")):  # a certificate has its names as A-labels
                yield _canonical(name)


def _public_untrusted(certificate: Certificate) -> object:
    try:
        return certificate.key
    except SSAError as failure:
        raise error("BAD_VALUE", failure.detail) from None


def _mismatch(chains: Sequence[tuple[bytes, ...]], key: PrivateKey) -> SSAError:
    for chain in chains:
        for place, _ in enumerate(chain[1:], 2):
            with contextlib.suppress(SSAError):
                if belongs(chain[place - 1 :], key):
                    return error("KEY_MISMATCH", f"it belongs to certificate {place} of the chain: put that one first")
    return error("KEY_MISMATCH", ", ".join(leaf_untrusted(chain).name for chain in chains))


def _digest(part: bytes) -> bytes:
    return hashlib.sha256(part).digest()
