"""Paths from the peer's certificate to a trust anchor.

Theory of operation
-------------------
OpenSSL judges every path that leaves this module, by one set of rules, which curl's users know. But it builds one path
only, from the first issuer whose name fits. If that path is bad, it does not look for another. Peers do send
alternatives: an expired cross-certificate beside the new one, one signed with SHA-1 beside one that is not, a bridge
between PKIs. So:

1. Fast: OpenSSL builds a path and verifies it. Nearly every judgement ends here.
2. Slow, if OpenSSL refused, or if the quorum refused OpenSSL's path: we build the paths ourselves, and give each to
   OpenSSL as an exact chain: one anchor, these intermediates, and nothing to choose. A chain that OpenSSL refuses
   stays refused. We add only the search.

The search is bounded, because the chain comes from outside and may be hostile. Certificates are verified from the
anchors down: a key verifies a signature only after its own certificate was verified. So a stranger's certificates cost
one failed check each, with an anchor's key. A certificate that fails a check of profile.py would fail it in any path,
so it is left out, with all paths through it. A depth-first walk of the remaining graph tries each way up, and gives
up after `MAX_PATHS`, `MAX_STEPS` or `MAX_SIGNATURES`.

A refusal is a value here, not an exception: the quorum sees all of them and reports the one that tells most.
"""

from __future__ import annotations

from collections import defaultdict, deque
from itertools import islice
from typing import TYPE_CHECKING, cast

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import crypto

from ssa.errors import CertificateError, error
from ssa.trust.case import Place
from ssa.trust.extensions import NUMBERS
from ssa.trust.profile import CHECKS
from ssa.trust.store import native_store, verify

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssa.trust.case import Case, Path
    from ssa.trust.certificate import Certificate

MAX_PATHS = 32  # exact chains given to OpenSSL for one judgement
MAX_SIGNATURES = 200  # that we verify for one judgement
MAX_STEPS = 2000  # of the walk

_ENDS = 2  # certificates in a path that are no intermediates

_lib = _openssl.lib
# Our reason for each of OpenSSL's refusals (X509_V_ERR_*, openssl-verify(1)); for all others BAD_CERTIFICATE. The
# binding has no names for those that are written as numbers.
REASONS: dict[int, str] = {
    _lib.X509_V_ERR_CERT_HAS_EXPIRED: "CERTIFICATE_EXPIRED",
    _lib.X509_V_ERR_CERT_NOT_YET_VALID: "CERTIFICATE_NOT_YET_VALID",
    _lib.X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT: "SELF_SIGNED_CERTIFICATE",
    _lib.X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN: "UNKNOWN_CA",
    _lib.X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT: "UNKNOWN_CA",
    _lib.X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "UNKNOWN_CA",
    _lib.X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE: "UNKNOWN_CA",
    _lib.X509_V_ERR_CERT_UNTRUSTED: "UNKNOWN_CA",
    _lib.X509_V_ERR_CERT_REJECTED: "UNKNOWN_CA",
    _lib.X509_V_ERR_SUBJECT_ISSUER_MISMATCH: "UNKNOWN_CA",
    _lib.X509_V_ERR_AKID_SKID_MISMATCH: "UNKNOWN_CA",
    _lib.X509_V_ERR_AKID_ISSUER_SERIAL_MISMATCH: "UNKNOWN_CA",
    _lib.X509_V_ERR_CERT_SIGNATURE_FAILURE: "BAD_SIGNATURE",
    _lib.X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE: "BAD_SIGNATURE",
    76: "BAD_SIGNATURE",  # UNSUPPORTED_SIGNATURE_ALGORITHM
    77: "BAD_SIGNATURE",  # SIGNATURE_ALGORITHM_MISMATCH
    78: "BAD_SIGNATURE",  # SIGNATURE_ALGORITHM_INCONSISTENCY
    _lib.X509_V_ERR_INVALID_CA: "NOT_A_CA",
    79: "NOT_A_CA",  # INVALID_CA, where the binding has an older number
    _lib.X509_V_ERR_KEYUSAGE_NO_CERTSIGN: "NOT_A_CA",
    _lib.X509_V_ERR_INVALID_NON_CA: "NOT_A_CA",
    _lib.X509_V_ERR_INVALID_PURPOSE: "WRONG_PURPOSE",
    _lib.X509_V_ERR_KEYUSAGE_NO_DIGITAL_SIGNATURE: "WRONG_PURPOSE",
    _lib.X509_V_ERR_PATH_LENGTH_EXCEEDED: "PATH_LENGTH",
    _lib.X509_V_ERR_PERMITTED_VIOLATION: "NAME_CONSTRAINT",
    _lib.X509_V_ERR_EXCLUDED_VIOLATION: "NAME_CONSTRAINT",
    _lib.X509_V_ERR_SUBTREE_MINMAX: "NAME_CONSTRAINT",
    _lib.X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE: "NAME_CONSTRAINT",
    _lib.X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX: "NAME_CONSTRAINT",
    _lib.X509_V_ERR_UNSUPPORTED_NAME_SYNTAX: "NAME_CONSTRAINT",
    66: "WEAK_KEY",  # EE_KEY_TOO_SMALL
    67: "WEAK_KEY",  # CA_KEY_TOO_SMALL
    68: "WEAK_SIGNATURE",  # CA_MD_TOO_WEAK
}


def candidates(case: Case) -> Iterator[Path | CertificateError]:
    """The paths that OpenSSL accepts, the best first, and in between its refusals. Number and cost are bounded."""
    fast: Path | None = None
    try:
        fast = _built(case)
        yield fast
    except CertificateError as refusal:
        yield refusal
    # The caller asks for more only if it refused that path.
    for found in _search(case):
        if isinstance(found, CertificateError):
            yield found
        elif found != fast:
            yield _judged(case, found)


def _built(case: Case) -> Path:
    """The path that OpenSSL builds itself."""
    try:
        chain = case.store.verify(case.role, case.leaf, case.others, case.moment, strict=case.strength.strict)
    except crypto.X509StoreContextError as refusal:
        raise _translated(case, refusal) from None
    return _path(case, chain)


def _judged(case: Case, path: Path) -> Path | CertificateError:
    """OpenSSL's verdict on exactly this path."""
    store = native_store(path[-1:], case.role, case.moment, strict=case.strength.strict)
    try:
        return _path(case, verify(store, path[0], path[1:-1]))
    except crypto.X509StoreContextError as refusal:
        return _translated(case, refusal)
    except CertificateError as refusal:
        return refusal


def _path(case: Case, chain: list[crypto.X509]) -> Path:
    """OpenSSL's chain as our own values. That it starts at the leaf and ends at an anchor is checked, not assumed."""
    found = [case.find(crypto.dump_certificate(crypto.FILETYPE_ASN1, native)) for native in chain]
    path = tuple(certificate for certificate in found if certificate is not None)
    if len(path) != len(found) or not path or path[0].der != case.leaf.der or not case.is_anchor(path[-1]):
        raise error("BAD_CERTIFICATE", "the path is not made of the peer's certificates and a trust anchor")
    if len(path) - _ENDS > case.strength.verify_depth:
        raise _too_long(case)
    return path


# --- OpenSSL's refusals ---------------------------------------------------------------------------------------------


def _translated(case: Case, refusal: crypto.X509StoreContextError) -> CertificateError:
    """Our error for a refusal by OpenSSL: the reason, the certificate, and what is wrong with it."""
    code, depth, text = refusal.errors
    if code == _lib.X509_V_ERR_CERT_CHAIN_TOO_LONG:
        # OpenSSL takes the first issuer that fits, and can walk in circles. There may be a path: our search will tell.
        return _error("UNKNOWN_CA", f"OpenSSL found no end at depth {depth} among {len(case.others) + 1} certificates")
    reason = REASONS.get(code, "BAD_CERTIFICATE")
    certificate = _blamed(case, refusal)
    if certificate is None:
        return _error(reason, f"{text} (at depth {depth})")
    place = case.place(certificate, last=case.is_anchor(certificate))
    own = _fault(case, certificate, place) or _illegible(certificate)
    if own is not None and reason in (own.reason, "UNKNOWN_CA"):
        return own  # it says what was found and what was expected
    label = case.label(certificate, place)
    if reason == "UNKNOWN_CA":
        where = f"neither in the chain nor among the {len(case.store)} trust anchors of {case.store.source}"
        issuer = "itself" if certificate.subject == certificate.issuer else certificate.issuer_name
        return _error(reason, f"{label} was issued by {issuer}, which is {where}")
    strictly = " (RFC 5280, as the application asked)" if case.strength.strict and reason == "BAD_CERTIFICATE" else ""
    return _error(reason, f"{label}: {text}{strictly}")


def _illegible(certificate: Certificate) -> CertificateError | None:
    """The error in a certificate's extensions, if there is one: then OpenSSL, which reads them all, finds no issuer."""
    try:
        for kind in NUMBERS:
            certificate.extension_untrusted(kind)
    except CertificateError as refusal:
        return refusal
    return None


def _blamed(case: Case, refusal: crypto.X509StoreContextError) -> Certificate | None:
    try:
        return case.find(crypto.dump_certificate(crypto.FILETYPE_ASN1, refusal.certificate))
    except crypto.Error:  # for a broken policy OpenSSL names no certificate
        return None


def _too_long(case: Case) -> CertificateError:
    most = case.strength.verify_depth
    return _error(
        "CHAIN_TOO_LONG",
        f"more than {most} intermediates between {case.leaf.name} and its trust anchor, verify_depth is {most}",
    )


def _error(reason: str, detail: str) -> CertificateError:
    return cast("CertificateError", error(reason, detail))


# --- our own search ------------------------------------------------------------------------------------------------


def _search(case: Case) -> Iterator[Path | CertificateError]:
    """Paths from the leaf to an anchor, the shortest first at every fork, and the faults of certificates left out."""
    if (fault := _fault(case, case.leaf, Place.LEAF)) is not None:
        yield fault  # it is in every path
        return
    if case.is_anchor(case.leaf):
        yield (case.leaf,)
    faults: list[CertificateError] = []
    issuers = _issuers(case, faults)
    yield from faults
    yield from islice(_walk(case, issuers), MAX_PATHS)


def _fault(case: Case, certificate: Certificate, place: Place) -> CertificateError | None:
    """The fault that keeps a certificate out of this place in any path, or None. A check that breaks is a fault."""
    try:
        for check in CHECKS.values():
            check(case, certificate, place)
    except CertificateError as refusal:
        return refusal
    except Exception as failure:  # noqa: BLE001 - fails closed, for this certificate only
        return _error("BAD_CERTIFICATE", f"{place.value} cannot be judged: {failure!r}")
    return None


def _issuers(case: Case, faults: list[CertificateError]) -> dict[bytes, list[Certificate]]:
    """The issuers of each certificate, by the certificate's DER. Each signature was verified, from an anchor down.

    Certificates are visited from the anchors down, the nearest first.
    """
    children = _children(case)
    anchors = [anchor for name in children for anchor in case.store.named(name, case.role)]
    queue = deque(anchor for anchor in anchors if _fine(case, anchor, Place.ANCHOR, faults))
    seen = {anchor.der for anchor in anchors}
    issuers: dict[bytes, list[Certificate]] = defaultdict(list)
    signatures = _Signatures()
    while queue:
        issuer = queue.popleft()
        for child in children.get(issuer.subject, ()):
            if child.der == issuer.der or not signatures.right(issuer, child):
                continue
            issuers[child.der].append(issuer)
            if child.der in seen or child.der == case.leaf.der:
                continue
            seen.add(child.der)
            if _fine(case, child, Place.INTERMEDIATE, faults):
                queue.append(child)
    return issuers


def _fine(case: Case, certificate: Certificate, place: Place, faults: list[CertificateError]) -> bool:
    fault = _fault(case, certificate, place)
    if fault is not None:
        faults.append(fault)
    return fault is None


def _children(case: Case) -> dict[bytes, list[Certificate]]:
    """The leaf and the certificates above it by name, by the name of their issuer."""
    by_subject: dict[bytes, list[Certificate]] = defaultdict(list)
    for certificate in case.others:
        if not case.is_anchor(certificate):  # an anchor needs no issuer
            by_subject[certificate.subject].append(certificate)
    children: dict[bytes, list[Certificate]] = {}
    queue = deque([case.leaf])
    while queue:
        certificate = queue.popleft()
        if certificate.issuer not in children:
            children[certificate.issuer] = []
            queue.extend(by_subject[certificate.issuer])
        children[certificate.issuer].append(certificate)
    return children


class _Signatures:
    """Verifies signatures: each once, and at most `MAX_SIGNATURES`."""

    def __init__(self) -> None:
        self._known: dict[tuple[bytes, bytes], bool] = {}

    def right(self, issuer: Certificate, child: Certificate) -> bool:
        pair = (issuer.spki, child.der)
        if pair not in self._known:
            if len(self._known) >= MAX_SIGNATURES:
                return False
            self._known[pair] = _signed(issuer, child)
        return self._known[pair]


def _signed(issuer: Certificate, child: Certificate) -> bool:
    try:
        return child.is_signed_by(issuer)
    except Exception:  # noqa: BLE001 - a signature that the library cannot read counts as wrong
        return False


def _walk(case: Case, issuers: dict[bytes, list[Certificate]]) -> Iterator[Path | CertificateError]:
    """Every path up from the leaf that has no CA (name and key) twice. A path that gets too long gives an error."""
    stack: list[Path] = [(case.leaf,)]
    longest = case.strength.verify_depth + _ENDS
    for _ in range(MAX_STEPS):
        if not stack:
            return
        path = stack.pop()
        if len(path) > 1 and case.is_anchor(path[-1]):
            yield path
        elif len(path) >= longest:
            yield _too_long(case)
        else:
            passed = {(certificate.subject, certificate.spki) for certificate in path[1:]}
            above = issuers.get(path[-1].der, ())
            # The nearest to an anchor is tried first, so it is pushed last.
            stack.extend((*path, up) for up in reversed(above) if (up.subject, up.spki) not in passed)
