"""One credential that is administered while it serves: what is in service, and what waits for its other half. No I/O.

A certificate and its key come one after the other, in either order, and a server must never be without a pair that
matches. So the half of a new pair is staged, and takes the old pair's place when its other half is there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ssa.credentials.credential import (
    belongs,
    combine,
    parse_hostnames_untrusted,
    presented_untrusted,
)
from ssa.credentials.pem import parse_chain_untrusted, parse_key_untrusted
from ssa.pem import encoded

if TYPE_CHECKING:
    from ssa.credentials.credential import Credential
    from ssa.credentials.pem import PrivateKey


@dataclass(frozen=True, slots=True)
class Slot:
    """One named place for a credential. A change makes another slot, or raises `ssa.SSAError` BAD_VALUE.

    Attributes:
        serving: the pair in service.
        chain: the certificates that wait for their key.
        key: the key that waits for its certificate.
        override: the names to serve for, instead of those in the certificate.
    """

    name: str
    serving: Credential | None = None
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    key: PrivateKey | None = field(default=None, repr=False)
    override: tuple[str, ...] = ()

    @property
    def certificate(self) -> bytes:
        """The chain in service as PEM, or the one that waits while none is."""
        return self.serving.certificate_pem if self.serving else encoded(self.chain)

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The names that it is in service for, or will be."""
        if self.serving:
            return self.serving.hostnames
        return self.override or (presented_untrusted(self.chain) if self.chain else ())

    def describe(self) -> str:
        """What has come of it, for the log."""
        waiting = "its key" if self.chain else "its certificate" if self.key else ""
        served = ", ".join(self.hostnames[:6]) or "no name of its own"
        return f"{f'serves {served}' if self.serving else 'serves nothing'}{f', waits for {waiting}' * bool(waiting)}"

    def status(self) -> str:
        """What is to be said of it, in words."""
        waiting = "its key" if self.chain else "its certificate" if self.key else ""
        served = self.serving.status() if self.serving else "not in service"
        return f"{served}; waits for {waiting}" if waiting else served

    def with_certificate_untrusted(self, text: bytes) -> Slot:
        """With another chain: in service at once if the key is there that it belongs to."""
        chain = parse_chain_untrusted(text)
        presented_untrusted(chain)  # extensions that cannot be read are found now, not when the key comes
        for key in (self.key, self._serving_key()):
            if key is not None and belongs(chain, key):
                return self._in_service(chain, key)
        return replace(self, chain=chain)

    def with_key_untrusted(self, text: bytes) -> Slot:
        """With another key: in service at once if the certificate is there that it belongs to."""
        key = parse_key_untrusted(text)
        for chain in (self.chain, self.serving.chain if self.serving else ()):
            if chain and belongs(chain, key):
                return self._in_service(chain, key)
        return replace(self, key=key)

    def with_hostnames_untrusted(self, text: str) -> Slot:
        """With other names to serve for; none at all are those in the certificate."""
        override = parse_hostnames_untrusted(text)
        if self.serving is None:
            return replace(self, override=override)
        serving = replace(self.serving, hostnames=override or presented_untrusted(self.serving.chain))
        return replace(self, override=override, serving=serving)

    def _in_service(self, chain: tuple[bytes, ...], key: PrivateKey) -> Slot:
        return replace(self, serving=combine(chain, key, self.name, self.override or None), chain=(), key=None)

    def _serving_key(self) -> PrivateKey | None:
        return parse_key_untrusted(self.serving.key_pem) if self.serving else None
