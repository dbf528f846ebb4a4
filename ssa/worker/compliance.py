"""A live socket as `ssa.policy.compliance` judges it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ssa import errors
from ssa.policy.hosts import peer
from ssa.policy.schema import SIGNATURE_ALGORITHMS
from ssa.suites import SUITES, TLSVersion
from ssa.trust import TrustStore
from ssa.trust.certificate import load_untrusted
from ssa.worker.judge import judge, refuse_unpinned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssa.policy.hosts import Peer
    from ssa.policy.schema import Policy
    from ssa.policy.values import Values
    from ssa.suites import Suite
    from ssa.trust.certificate import Certificate
    from ssa.worker.records import SocketRecord


Trusts = Callable[[str], TrustStore]  # the trust store of a source; raises `ssa.SSAError`


def unmet(record: SocketRecord, policy: Policy, stores: Trusts) -> Sequence[str]:
    """The settings of a policy that a live socket does not meet, and why. The peer's chain is judged anew."""
    return policy.unmet(Made(record, stores))


class Made:
    """The facts of a live socket's handshake, for one judgement of it."""

    def __init__(self, record: SocketRecord, stores: Trusts) -> None:
        self._record = record
        self._stores = stores
        self._judged: tuple[Values, errors.SSAError | None] | None = None
        self.suite: Suite = SUITES[record.suite]
        self.version: TLSVersion = self.suite.version
        self.group = record.group
        self.alpn = record.alpn
        self.data_path = record.data_path
        self.took = record.took
        self.resumed = record.resumed
        self.session_age = record.session_age
        self.cut_is_error = record.cut_is_error

    @property
    def is_anonymous(self) -> bool:
        """True for the connection of a server whose client has shown no certificate."""
        return self._record.role == "server" and not self._record.chain

    @property
    def connected_to(self) -> Peer | None:
        """The host that a client has connected to."""
        record = self._record
        return peer(record.hostname, record.key.remote[0]) if record.role == "client" else None

    @property
    def signatures(self) -> tuple[str, ...]:
        """The algorithms that the peer can have signed the handshake with; none where it signed nothing."""
        if self.resumed or not self._record.chain:
            return ()
        return _signatures(self._record.chain[0], self.version)

    def refusal(self, policy: Values) -> errors.SSAError | None:
        """The reason for which the peer's certificates would be refused under a policy now; None if they would not."""
        if self._judged is None or self._judged[0] is not policy:
            self._judged = policy, self._refusal(policy)
        return self._judged[1]

    def _refusal(self, policy: Values) -> errors.SSAError | None:
        record = self._record
        if not record.chain and record.role == "server":
            return None  # its client was asked for no certificate
        try:
            hostname = record.hostname if record.role == "client" else None
            refuse_unpinned(policy, hostname, judge(self._stores(policy.trust_store), policy, hostname, record.chain))
        except errors.SSAError as refusal:
            return refusal
        return None


@functools.lru_cache(maxsize=1024)
def _signatures(leaf: bytes, version: TLSVersion) -> tuple[str, ...]:
    """The algorithms that go with a certificate's key (RFC 8446 section 4.2.3). In TLS 1.2 a curve fixes no hash."""
    try:
        certificate = load_untrusted(leaf, "it")
        prefix = _prefix(certificate, version)
    except (errors.SSAError, ValueError, UnsupportedAlgorithm):
        return ()  # a chain that cannot be read is refused for that
    return tuple(name for name in SIGNATURE_ALGORITHMS if prefix and name.startswith(prefix))


def _prefix(certificate: Certificate, version: TLSVersion) -> str | tuple[str, ...]:
    if certificate.has_pss_key:
        return "rsa_pss_pss_"
    match key := certificate.key:
        case ec.EllipticCurvePublicKey():
            return f"ecdsa_{key.curve.name}" if version is TLSVersion.TLSv1_3 else "ecdsa_"
        case ed25519.Ed25519PublicKey():
            return "ed25519"
        case ed448.Ed448PublicKey():
            return "ed448"
        case rsa.RSAPublicKey():
            return "rsa_pss_rsae_" if version is TLSVersion.TLSv1_3 else ("rsa_pss_rsae_", "rsa_pkcs1_")
    return ""
