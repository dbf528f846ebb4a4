"""Whether a live connection meets a setting of a policy that came into force after it was made. No I/O here.

Each row of `ssa.policy.schema.SETTINGS` names one of these functions. They return words that say how the setting is not
met, or nothing. What a connection did not use is not judged: one without ALPN meets every `alpn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ssa.errors import SSAError
    from ssa.policy.schema import Policy
    from ssa.suites import Suite, TLSVersion


class Made(Protocol):
    """A connection, as it was made."""

    @property
    def version(self) -> TLSVersion:
        """The protocol version; of DTLS 1.2, TLS 1.2."""

    @property
    def suite(self) -> Suite:
        """The cipher suite."""

    @property
    def group(self) -> str:
        """The key exchange's group; empty where it has no name."""

    @property
    def signatures(self) -> Collection[str]:
        """The algorithms that the peer can have signed the handshake with; none if it signed nothing."""

    @property
    def alpn(self) -> str:
        """The application protocol agreed on; empty for none."""

    @property
    def data_path(self) -> str:
        """The one in use: ktls or relay."""

    @property
    def took(self) -> float:
        """Seconds of the handshake."""

    @property
    def resumed(self) -> bool:
        """Whether a session was resumed."""

    @property
    def session_age(self) -> float:
        """Seconds since the peer of a resumed session had proved itself; 0 where that is not known."""

    def refusal(self, policy: Policy) -> SSAError | None:
        """Why the peer's certificates would be refused under a policy now; None if they would not."""


def unmet_min_version(made: Made, policy: Policy) -> str:
    """The version is too low."""
    return f"{made.version.label} is below {policy.min_version.label}" if made.version < policy.min_version else ""


def unmet_max_version(made: Made, policy: Policy) -> str:
    """The version is too high."""
    return f"{made.version.label} is above {policy.max_version.label}" if made.version > policy.max_version else ""


def unmet_ciphersuites(made: Made, policy: Policy) -> str:
    """The suite of TLS 1.3 is not in the list."""
    return _suite(made, policy, [suite.name for suite in policy.ciphersuites], "TLSv1.3")


def unmet_ciphers(made: Made, policy: Policy) -> str:
    """The suite of TLS 1.2 is not in the list."""
    return _suite(made, policy, [suite.name for suite in policy.ciphers], "TLSv1.2")


def _suite(made: Made, _policy: Policy, allowed: Sequence[str], version: str) -> str:
    return _not_among(made.suite.name, allowed) if made.suite.version.label == version else ""


def unmet_groups(made: Made, policy: Policy) -> str:
    """The group is not in the list."""
    return _not_among(made.group, policy.groups) if made.group else ""


def unmet_signatures(made: Made, policy: Policy) -> str:
    """No algorithm that the peer can have signed with is in the list, or a certificate's is not."""
    if made.signatures and not set(made.signatures).intersection(policy.signature_algorithms):
        return _not_among(" or ".join(made.signatures), policy.signature_algorithms)
    return _refused(made, policy, {"WEAK_SIGNATURE"})


def unmet_bits(made: Made, policy: Policy) -> str:
    """A key in the peer's chain is too short."""
    return _refused(made, policy, {"WEAK_KEY"})


def unmet_depth(made: Made, policy: Policy) -> str:
    """The peer's path is too long."""
    return _refused(made, policy, {"CHAIN_TOO_LONG"})


def unmet_trust(made: Made, policy: Policy) -> str:
    """The peer's chain would be refused, for anything but the strength of keys and signatures, and its length."""
    refusal = made.refusal(policy)
    return "" if refusal is None or refusal.reason in _OTHERS else str(refusal.strerror)


_OTHERS = frozenset({"WEAK_KEY", "WEAK_SIGNATURE", "CHAIN_TOO_LONG"})  # other settings'


def _refused(made: Made, policy: Policy, reasons: set[str]) -> str:
    refusal = made.refusal(policy)
    return "" if refusal is None or refusal.reason not in reasons else str(refusal.detail)


def unmet_alpn(made: Made, policy: Policy) -> str:
    """Another protocol was agreed on than those that may be offered."""
    return _not_among(made.alpn, policy.alpn) if made.alpn and policy.alpn else ""


def unmet_timeout(made: Made, policy: Policy) -> str:
    """The handshake took longer than it may."""
    limit = policy.handshake_timeout
    return f"it took {made.took:.3g} s, more than {limit:g} s" if made.took > limit else ""


def unmet_ttl(made: Made, policy: Policy) -> str:
    """An older session was resumed than may be."""
    if not made.resumed or (policy.session_ttl and made.session_age <= policy.session_ttl):
        return ""
    return f"a session of {made.session_age:.0f} s was resumed, the limit is {policy.session_ttl} s"


def unmet_data_path(made: Made, policy: Policy) -> str:
    """Another data path is in use than the only one that may be."""
    if policy.data_path in {made.data_path, "ktls-or-relay"}:
        return ""
    return f"{made.data_path} is not {policy.data_path}"


def _not_among(value: str, allowed: Sequence[str]) -> str:
    return "" if value in allowed else f"{value} is not among {', '.join(allowed)}"
