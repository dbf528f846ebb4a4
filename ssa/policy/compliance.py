"""Judges live connections by a policy that came into force after they were made. No I/O here.

Each row of `ssa.policy.schema.SETTINGS` names one function. It returns an empty text if the connection meets the
setting, else the reason why not. A connection is judged only by what it uses: one without ALPN meets every `alpn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ssa.policy.hosts import denial, refusal
from ssa.policy.parsers import DATA_PATHS

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ssa.errors import SSAError
    from ssa.policy.hosts import Peer
    from ssa.policy.values import Values
    from ssa.suites import Suite, TLSVersion


class Made(Protocol):
    """The facts of a connection's handshake."""

    @property
    def version(self) -> TLSVersion:
        """The protocol version. DTLS 1.2 counts as TLS 1.2."""

    @property
    def suite(self) -> Suite:
        """The cipher suite."""

    @property
    def group(self) -> str:
        """The group of the key exchange; empty if it has no name."""

    @property
    def signatures(self) -> Collection[str]:
        """The algorithms that the peer may have signed the handshake with; empty if it signed nothing."""

    @property
    def alpn(self) -> str:
        """The application protocol agreed on; empty for none."""

    @property
    def is_anonymous(self) -> bool:
        """True if the peer is a client that has shown no certificate."""

    @property
    def connected_to(self) -> Peer | None:
        """The host that a client has connected to; None for a server."""

    @property
    def data_path(self) -> str:
        """The data path in use: ktls or relay."""

    @property
    def took(self) -> float:
        """The duration of the handshake, in seconds."""

    @property
    def resumed(self) -> bool:
        """True if a session was resumed."""

    @property
    def session_age(self) -> float:
        """The time since the peer of a resumed session proved its identity, in seconds; 0 if that is not known."""

    @property
    def cut_is_error(self) -> bool:
        """True if a stream that is cut is an error to every program."""

    def refusal(self, policy: Values) -> SSAError | None:
        """The error with which a policy would refuse the peer's certificates now; None if it would accept them."""


def unmet_min_version(made: Made, policy: Values) -> str:
    """Report a version that is too low."""
    return f"{made.version.label} is below {policy.min_version.label}" if made.version < policy.min_version else ""


def unmet_max_version(made: Made, policy: Values) -> str:
    """Report a version that is too high."""
    return f"{made.version.label} is above {policy.max_version.label}" if made.version > policy.max_version else ""


def unmet_ciphersuites(made: Made, policy: Values) -> str:
    """Report a suite of TLS 1.3 that is not in the list."""
    return _suite(made, policy, [suite.name for suite in policy.ciphersuites], "TLSv1.3")


def unmet_ciphers(made: Made, policy: Values) -> str:
    """Report a suite of TLS 1.2 that is not in the list."""
    return _suite(made, policy, [suite.name for suite in policy.ciphers], "TLSv1.2")


def _suite(made: Made, _policy: Values, allowed: Sequence[str], version: str) -> str:
    return _not_among(made.suite.name, allowed) if made.suite.version.label == version else ""


def unmet_groups(made: Made, policy: Values) -> str:
    """Report a group that is not in the list."""
    return _not_among(made.group, policy.groups) if made.group else ""


def unmet_signatures(made: Made, policy: Values) -> str:
    """Report a signature of the handshake or of a certificate by an algorithm that is not in the list."""
    if made.signatures and not set(made.signatures).intersection(policy.signature_algorithms):
        return _not_among(" or ".join(made.signatures), policy.signature_algorithms)
    return _refused(made, policy, {"WEAK_SIGNATURE"})


def unmet_bits(made: Made, policy: Values) -> str:
    """Report a key in the peer's chain that is too short."""
    return _refused(made, policy, {"WEAK_KEY"})


def unmet_depth(made: Made, policy: Values) -> str:
    """Report a path to the trust anchor that is too long."""
    return _refused(made, policy, {"CHAIN_TOO_LONG"})


def unmet_trust(made: Made, policy: Values) -> str:
    """Report a chain that would be refused for a reason that is no other setting's."""
    refusal = made.refusal(policy)
    return "" if refusal is None or refusal.reason in _OTHERS else str(refusal.strerror)


_OTHERS = frozenset({"WEAK_KEY", "WEAK_SIGNATURE", "CHAIN_TOO_LONG", "KEY_NOT_PINNED"})  # reported by other settings


def _refused(made: Made, policy: Values, reasons: set[str]) -> str:
    refusal = made.refusal(policy)
    return "" if refusal is None or refusal.reason not in reasons else str(refusal.detail)


def unmet_client_auth(made: Made, policy: Values) -> str:
    """Report a server's client that has proved nothing. If certificates are optional, it may have had none."""
    return "the client has shown no certificate" if made.is_anonymous and policy.client_auth == "required" else ""


def unmet_pins(made: Made, policy: Values) -> str:
    """Report a host that has none of the keys that are pinned for it."""
    return _refused(made, policy, {"KEY_NOT_PINNED"})


def unmet_allowed(made: Made, policy: Values) -> str:
    """Report a host that is not among those that are allowed."""
    host = made.connected_to if policy.allowed_hosts else None
    return "" if host is None else refusal(policy.allowed_hosts, host)


def unmet_denied(made: Made, policy: Values) -> str:
    """Report a host that is among those that are denied."""
    host = made.connected_to if policy.denied_hosts else None
    return "" if host is None else denial(policy.denied_hosts, host)


def unmet_alpn(made: Made, policy: Values) -> str:
    """Report an application protocol that is not among those that may be offered."""
    return _not_among(made.alpn, policy.alpn) if made.alpn and policy.alpn else ""


def unmet_timeout(made: Made, policy: Values) -> str:
    """Report a handshake that took longer than it may."""
    limit = policy.handshake_timeout
    return f"it took {made.took:.3g} s, more than {limit:g} s" if made.took > limit else ""


def unmet_ttl(made: Made, policy: Values) -> str:
    """Report a session that was too old to be resumed."""
    if not made.resumed or (policy.session_ttl and made.session_age <= policy.session_ttl):
        return ""
    return f"a session of {made.session_age:.0f} s was resumed, the limit is {policy.session_ttl} s"


def unmet_tickets(made: Made, policy: Values) -> str:
    """Report a session that was resumed."""
    return "a session was resumed" if made.resumed and policy.session_tickets == "off" else ""


def unmet_data_path(made: Made, policy: Values) -> str:
    """Report a data path other than the only one allowed."""
    if policy.data_path in {made.data_path, DATA_PATHS[0]}:
        return ""
    return f"{made.data_path} is not {policy.data_path}"


def unmet_truncation(made: Made, policy: Values) -> str:
    """Report a program that may take a stream that was cut for one that has ended."""
    return "" if made.cut_is_error or policy.truncation != "error" else "as-program is not error"


def unmet_coercion(_made: Made, _policy: Values) -> str:
    """Report nothing: a connection that ssa has made meets either value."""
    return ""


def _not_among(value: str, allowed: Sequence[str]) -> str:
    return "" if value in allowed else f"{value} is not among {', '.join(allowed)}"
