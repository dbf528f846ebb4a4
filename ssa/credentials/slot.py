"""One credential that is changed while it serves: the pair in service, and half of a new pair. No I/O.

A certificate and its key come one after the other, in either order, and a server must always have a pair that matches.
So half of a new pair is kept aside, and replaces the old pair when the other half has come.
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
    """The state of one credential. A change makes a new `Slot`, or raises `ssa.SSAError` BAD_VALUE.

    Attributes:
        serving: the pair in service.
        chain: certificates whose key has not come yet.
        key: a key whose certificate has not come yet.
        override: the names to serve for, instead of those in the certificate.
    """

    name: str
    serving: Credential | None = None
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    key: PrivateKey | None = field(default=None, repr=False)
    override: tuple[str, ...] = ()

    @property
    def certificate(self) -> bytes:
        """The chain in service as PEM; while none is, the chain that waits for its key."""
        return self.serving.certificate_pem if self.serving else encoded(self.chain)

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The names that it is in service for, or will be when its key has come."""
        if self.serving:
            return self.serving.hostnames
        return self.override or (presented_untrusted(self.chain) if self.chain else ())

    def describe(self) -> str:
        """Its state, for the log."""
        waiting = "its key" if self.chain else "its certificate" if self.key else ""
        served = ", ".join(self.hostnames[:6]) or "no name of its own"
        return f"{f'serves {served}' if self.serving else 'serves nothing'}{f', waits for {waiting}' * bool(waiting)}"

    def status(self) -> str:
        """Its state, for the file ``status``."""
        waiting = "its key" if self.chain else "its certificate" if self.key else ""
        served = self.serving.status() if self.serving else "not in service"
        return f"{served}; waits for {waiting}" if waiting else served

    def with_certificate_untrusted(self, text: bytes) -> Slot:
        """The slot with another chain, which is in service at once if its key is there."""
        chain = parse_chain_untrusted(text)
        presented_untrusted(chain)  # malformed extensions are refused now, not when the key comes
        for key in (self.key, self._serving_key()):
            if key is not None and belongs(chain, key):
                return self._in_service(chain, key)
        return replace(self, chain=chain)

    def with_key_untrusted(self, text: bytes) -> Slot:
        """The slot with another key, which is in service at once if its certificate is there."""
        key = parse_key_untrusted(text)
        for chain in (self.chain, self.serving.chain if self.serving else ()):
            if chain and belongs(chain, key):
                return self._in_service(chain, key)
        return replace(self, key=key)

    def with_hostnames_untrusted(self, text: str) -> Slot:
        """The slot with other names to serve for. With an empty list the names in the certificate count."""
        override = parse_hostnames_untrusted(text)
        if self.serving is None:
            return replace(self, override=override)
        serving = replace(self.serving, hostnames=override or presented_untrusted(self.serving.chain))
        return replace(self, override=override, serving=serving)

    def _in_service(self, chain: tuple[bytes, ...], key: PrivateKey) -> Slot:
        return replace(self, serving=combine(chain, key, self.name, self.override or None), chain=(), key=None)

    def _serving_key(self) -> PrivateKey | None:
        return parse_key_untrusted(self.serving.key_pem) if self.serving else None
