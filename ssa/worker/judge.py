"""Asks ssa.trust whether the peer is who it should be, under the terms of one handshake."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ssa import errors, trust
from ssa.policy.pins import show_digest, unpinned

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.policy.values import Values
    from ssa.worker.monitor import Monitor
    from ssa.worker.terms import Terms


def judge(
    store: trust.TrustStore, policy: Values, hostname: str | None, chain: tuple[bytes, ...], *, strict: bool = False
) -> trust.Verified:
    """The verdict on a peer's chain under a policy. The peer is a server of that host name; a client if it is None.

    `strict`: certificates have to keep to RFC 5280 strictly. Raises `ssa.CertificateError`.
    """
    peer: trust.PeerRole = "client" if hostname is None else "server"
    evidence = trust.Evidence(chain=chain, hostname=hostname, role=peer)
    strength = _strength(policy.min_rsa_bits, policy.signature_algorithms, policy.verify_depth, strict)
    return trust.judge(evidence, store, strength)


_strength = functools.lru_cache(maxsize=64)(trust.Strength)


def refuse_unpinned(policy: Values, hostname: str | None, verified: trust.Verified) -> None:
    """Refuse a server that has none of the keys that the policy pins for it. Raises `ssa.CertificateError`."""
    if hostname is None or not policy.pinned_keys:
        return
    digests = [trust.key_digest(certificate) for certificate in verified.path]
    if host := unpinned(policy.pinned_keys, hostname, digests):
        shown = ", ".join(map(show_digest, digests))
        raise errors.error("KEY_NOT_PINNED", f"{host} in pinned_keys, {hostname} has {shown}")


class Judge:
    """Gives the verdict for one handshake, and keeps it for the socket's record.

    Attributes:
        hostname: the name that the server has to prove; None where we are the server.
        chain: the peer's certificates, DER, as they were judged.
    """

    def __init__(self, monitor: Monitor, terms: Terms, hostname: str | None, since_begun: Callable[[], float]) -> None:
        """`since_begun` returns the seconds since the handshake began."""
        self._monitor = monitor
        self._terms = terms
        self.hostname = hostname
        self.chain: tuple[bytes, ...] = ()
        self._since_begun = since_begun
        self._verified: trust.Verified | None = None

    def __call__(self, chain: tuple[bytes, ...]) -> trust.Verified:
        """The verdict on a chain. Raises `ssa.CertificateError`."""
        verified = self._verdict(chain)
        self.chain, self._verified = chain, verified
        return verified

    def trusts(self, chain: tuple[bytes, ...]) -> bool:
        """True where the verdict on a chain of an earlier handshake would still be good."""
        try:
            self._verdict(chain)
        except errors.SSAError:
            return False
        return True

    def _verdict(self, chain: tuple[bytes, ...]) -> trust.Verified:
        """Judge a chain by the administrator's trust store, and by the application's own anchors, if it brought any."""
        terms = self._terms
        if self.hostname is None and (not terms.ask_certificate or (terms.optional and not chain)):
            return trust.unasked()
        store = self._monitor.trust_store(terms.policy.trust_store)
        verified = judge(store, terms.policy, self.hostname, chain, strict=terms.strict)
        refuse_unpinned(terms.policy, self.hostname, verified)
        if terms.anchors is not None:
            judge(terms.anchors, terms.policy, self.hostname, chain, strict=terms.strict)
        return verified

    @property
    def cut_is_error(self) -> bool:
        """True where the policy makes a stream that ends without close_notify an error to every program."""
        return self._terms.policy.truncation == "error"

    @property
    def took(self) -> float:
        """Seconds since the handshake began."""
        return self._since_begun()

    @property
    def verified(self) -> trust.Verified:
        """The verdict that was given."""
        if self._verified is None:
            raise RuntimeError("keys were installed for a peer that nobody judged")
        return self._verified
