"""A judgement in progress: the parsed evidence, and the places of certificates in a path."""

from __future__ import annotations

from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from ssa.errors import CertificateError, error, printable
from ssa.names import normalise
from ssa.trust.certificate import load_untrusted
from ssa.trust.evidence import MAX_CHAIN

if TYPE_CHECKING:
    from ssa.names import Host
    from ssa.trust.certificate import Certificate
    from ssa.trust.evidence import Evidence, Strength
    from ssa.trust.store import Question, TrustStore

Path = tuple["Certificate", ...]


class Place(Enum):
    """The place of a certificate in a path."""

    LEAF = "leaf"
    INTERMEDIATE = "intermediate"
    ANCHOR = "trust anchor"

    @property
    def signed(self) -> bool:
        """True if the certificate's signature matters. An anchor is trusted because it is in the store."""
        return self is not Place.ANCHOR


class Case:
    """One judgement: the certificates that the peer sent, and all that they are judged by.

    Raises:
        CertificateError: the chain is empty or too big, or there is no usable name to compare with. A certificate that
            cannot be read is refused later, when it is first asked for.
    """

    def __init__(self, evidence: Evidence, store: TrustStore, strength: Strength) -> None:
        chain = evidence.chain
        if not chain:
            raise error("NO_CERTIFICATE")
        if (size := sum(map(len, chain))) > MAX_CHAIN:
            raise error("CHAIN_TOO_LONG", f"{len(chain)} certificates of {size} bytes, the limit is {MAX_CHAIN} bytes")
        self.role = evidence.role
        self.moment = evidence.when  # for OpenSSL; None: it reads the clock itself
        self.when = evidence.moment()
        self.host = _host(evidence)
        self.store = store
        self.unreadable: list[str] = []  # certificates that were passed over, for the message of a refusal
        self.strength = strength
        self.question: Question = (tuple(chain), self.host, self.role, strength)

    @cached_property
    def signatures(self) -> frozenset[tuple[str, str]]:
        """The allowed pairs of key type and hash."""
        return self.strength.signatures

    @cached_property
    def leaf(self) -> Certificate:
        """The peer's own certificate."""
        return self._load(self.question[0][0], "leaf")

    @cached_property
    def others(self) -> tuple[Certificate, ...]:
        """The other certificates that the peer sent. Copies of one, and of the leaf, are left out: no path needs them.

        One that cannot be read is passed over, as it may not be needed.
        """
        own, *rest = self.question[0]
        readable = []
        for number, der in enumerate(rest, 2):
            try:
                readable.append(self._load(der, f"certificate {number} of the chain"))
            except CertificateError as failure:
                self.unreadable.append(failure.detail)
        return tuple({certificate.der: certificate for certificate in readable if certificate.der != own}.values())

    def _load(self, der: bytes, what: str) -> Certificate:
        return self.store.get(der) or load_untrusted(der, what)

    @cached_property
    def _known(self) -> dict[bytes, Certificate]:
        return {certificate.der: certificate for certificate in (self.leaf, *self.others)}

    def find(self, der: bytes) -> Certificate | None:
        """The certificate with these bytes, from the store or from the peer."""
        return self.store.get(der) or self._known.get(der)

    def is_anchor(self, certificate: Certificate) -> bool:
        """True for a trust anchor of peers of this role."""
        return self.store.trusts(certificate, self.role)

    def label(self, certificate: Certificate, place: Place) -> str:
        """The certificate's place and name, for a message: ``intermediate CN=Some CA``."""
        return f"{place.value} {certificate.name}"

    def place(self, certificate: Certificate, *, last: bool) -> Place:
        """The place of a certificate, which may be the last of its path. A leaf that is its own anchor is a leaf."""
        if certificate.der == self.leaf.der:
            return Place.LEAF
        return Place.ANCHOR if last else Place.INTERMEDIATE


def places(case: Case, path: Path) -> list[tuple[Certificate, Place]]:
    """The certificates of a path with their places, leaf first."""
    return [(certificate, case.place(certificate, last=certificate is path[-1])) for certificate in path]


def _host(evidence: Evidence) -> Host | None:
    if evidence.role == "client":
        return None
    if evidence.hostname is None:
        raise error("HOSTNAME_MISMATCH", "there is no name to compare the certificate with")
    try:
        return normalise(str(evidence.hostname))
    except ValueError as failure:
        raise error("HOSTNAME_MISMATCH", printable(str(failure))) from failure
