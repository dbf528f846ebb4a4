"""The values of a policy, one for each setting. `ssa.policy.schema` has the functions that make and change them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ssa.policy.hosts import Pattern
    from ssa.policy.pins import Pin
    from ssa.suites import Suite, TLSVersion


@dataclass(frozen=True, slots=True)
class Values:
    """One field for each row of `ssa.policy.schema.SETTINGS`, and `texts`: the texts as they were written."""

    min_version: TLSVersion
    max_version: TLSVersion
    ciphersuites: tuple[Suite, ...]
    ciphers: tuple[Suite, ...]
    groups: tuple[str, ...]
    signature_algorithms: tuple[str, ...]
    min_rsa_bits: int
    verify_depth: int
    trust_store: str
    client_auth: str
    pinned_keys: tuple[Pin, ...]
    allowed_hosts: tuple[Pattern, ...]
    denied_hosts: tuple[Pattern, ...]
    alpn: tuple[str, ...]
    handshake_timeout: float
    session_ttl: int
    session_tickets: str
    data_path: str
    truncation: str
    coercion: str
    texts: Mapping[str, str] = field(compare=False, repr=False)

    @property
    def resumable(self) -> int:
        """The time for which a session may be resumed, in seconds; 0 for never."""
        return self.session_ttl if self.session_tickets == "on" else 0
