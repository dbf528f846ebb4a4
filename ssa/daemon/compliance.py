"""A live socket as `ssa.policy.compliance` judges it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from ssa import errors
from ssa.policy.schema import SIGNATURE_ALGORITHMS
from ssa.suites import SUITES, TLSVersion
from ssa.trust.certificate import load_untrusted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.daemon.registry import LiveSocket
    from ssa.policy.schema import Policy
    from ssa.suites import Suite
    from ssa.trust.certificate import Certificate


class Made:
    """How a live socket was made, for one judgement of it."""

    def __init__(self, live: LiveSocket, judge: Callable[[Policy, str | None, tuple[bytes, ...]], object]) -> None:
        """`judge` gives a verdict on a chain, for a server's host name or a client (None); raises `ssa.SSAError`."""
        self._live = live
        self._judge = judge
        self._judged: tuple[Policy, errors.SSAError | None] | None = None
        self.suite: Suite = SUITES[live.suite]
        self.version: TLSVersion = self.suite.version
        self.group = live.group
        self.alpn = live.alpn
        self.data_path = live.data_path
        self.took = live.took
        self.resumed = live.resumed
        self.session_age = live.session_age

    @property
    def signatures(self) -> tuple[str, ...]:
        """The algorithms that the peer can have signed the handshake with; none where it signed nothing."""
        if self.resumed or not self._live.chain:
            return ()
        return _signatures(self._live.chain[0], self.version)

    def refusal(self, policy: Policy) -> errors.SSAError | None:
        """Why the peer's certificates would be refused under a policy now; None if they would not."""
        if self._judged is None or self._judged[0] is not policy:
            self._judged = policy, self._refusal(policy)
        return self._judged[1]

    def _refusal(self, policy: Policy) -> errors.SSAError | None:
        live = self._live
        if not live.chain and live.role == "server":
            return None  # its client was asked for no certificate
        try:
            self._judge(policy, live.hostname if live.role == "client" else None, live.chain)
        except errors.SSAError as refusal:
            return refusal
        return None


@functools.lru_cache(maxsize=1024)
def _signatures(leaf: bytes, version: TLSVersion) -> tuple[str, ...]:
    """RFC 8446 section 4.2.3: what goes with a certificate's key. In TLS 1.2 a curve does not decide on the hash."""
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
