"""The values that a judgement takes, and the one that it gives."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, NoReturn, final

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

PeerRole = Literal["client", "server"]  # the peer's; ours is `ssa.handshake.secrets.Role`

MAX_CHAIN = 100 << 10  # bytes: OpenSSL's own limit (SSL_CTX_set_max_cert_list(3)). The biggest real chains have 10 kB.

# Key type and hash of each SignatureScheme (RFC 8446, section 4.2.3). For a certificate's signature only these two are
# compared. The curve of a scheme is a property of the signer's key. PKCS#1 v1.5 in a certificate is as strong as PSS,
# which hardly any CA uses. SHA-1 and MD5 are not here, so no policy can name them.
SCHEMES: dict[str, tuple[str, str]] = {
    "ecdsa_secp256r1_sha256": ("ecdsa", "sha256"),
    "ecdsa_secp384r1_sha384": ("ecdsa", "sha384"),
    "ecdsa_secp521r1_sha512": ("ecdsa", "sha512"),
    "ed25519": ("ed25519", ""),
    "ed448": ("ed448", ""),
    "rsa_pkcs1_sha256": ("rsa", "sha256"),
    "rsa_pkcs1_sha384": ("rsa", "sha384"),
    "rsa_pkcs1_sha512": ("rsa", "sha512"),
    "rsa_pss_rsae_sha256": ("rsa", "sha256"),
    "rsa_pss_rsae_sha384": ("rsa", "sha384"),
    "rsa_pss_rsae_sha512": ("rsa", "sha512"),
    "rsa_pss_pss_sha256": ("rsa", "sha256"),
    "rsa_pss_pss_sha384": ("rsa", "sha384"),
    "rsa_pss_pss_sha512": ("rsa", "sha512"),
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The certificates that the peer sent, and the name, role and time that they are judged by.

    Attributes:
        chain: the certificates in DER as the peer sent them, its own first. They are neither parsed nor trusted yet.
        hostname: the server that the caller asked for: a DNS name (A-labels or U-labels) or an IP address. None for a
            client.
        role: the role of the *peer*. A ``server`` must have the purpose serverAuth and the hostname, a ``client`` the
            purpose clientAuth.
        when: the moment at which the certificates must be valid; None for now.

    Raises:
        ValueError: the role is another one, or ``when`` has no time zone.
    """

    chain: tuple[bytes, ...]
    hostname: str | IPv4Address | IPv6Address | None
    role: PeerRole
    when: datetime | None = None

    def __post_init__(self) -> None:
        if self.role not in ("client", "server"):
            raise ValueError(f"role is {self.role!r}, expected 'client' or 'server'")
        if self.when is not None and self.when.tzinfo is None:
            raise ValueError("when has no time zone")

    def moment(self) -> datetime:
        """The time of the judgement, in UTC and whole seconds, as certificates have it."""
        return (self.when or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)


@dataclass(frozen=True, slots=True)
class Strength:
    """The policy's demands on every key and signature in a path.

    Attributes:
        min_rsa_bits: the least size of an RSA modulus, in bits.
        signature_algorithms: SignatureScheme names of RFC 8446, section 4.2.3 (see `SCHEMES`).
        verify_depth: the most intermediates between the peer's certificate and the trust anchor.
        strict: True to enforce also the rules of RFC 5280 that hardly anyone checks (X509_V_FLAG_X509_STRICT of
            openssl-verify(1)).

    Raises:
        ValueError: a scheme is not known.
    """

    min_rsa_bits: int
    signature_algorithms: tuple[str, ...]
    verify_depth: int = 100
    strict: bool = False

    def __post_init__(self) -> None:
        if unknown := [name for name in self.signature_algorithms if name not in SCHEMES]:
            raise ValueError(f"{unknown[0]!r} is no signature algorithm, expected one of {', '.join(SCHEMES)}")

    @property
    def signatures(self) -> frozenset[tuple[str, str]]:
        """The allowed pairs of key type and hash."""
        return frozenset(SCHEMES[name] for name in self.signature_algorithms)


_SEAL = object()  # needed to make a Verified: only this module and, by `_seal`, the quorum have it


@final
@dataclass(frozen=True, slots=True)
class Verified:
    """The proof that the peer's certificate was judged and accepted. Only `ssa.trust` makes one.

    Attributes:
        path: the certificates in DER, from the peer's own to the trust anchor.
        identity: the hostname or address that matched; for a client, the subject (RFC 4514).
        verdicts: one line from each validator, such as ``name: ok (DNS *.example.com)``.
    """

    path: tuple[bytes, ...]
    identity: str
    verdicts: tuple[str, ...]
    seal: InitVar[object]

    def __post_init__(self, seal: object) -> None:
        if seal is not _SEAL:
            raise TypeError("a Verified is made by ssa.trust only")

    def __init_subclass__(cls, **_kwargs: object) -> NoReturn:
        raise TypeError("Verified has no subclasses")

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a Verified is not copied or pickled: judge again")


def _seal(path: tuple[bytes, ...], identity: str, verdicts: tuple[str, ...]) -> Any:
    return Verified(path, identity, verdicts, seal=_SEAL)
