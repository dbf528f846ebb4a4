"""The verdict. A table of validators judges one path, and all must agree.

It fails closed: a validator that raises any exception has not agreed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ssa.errors import CertificateError, error
from ssa.times import rfc3339
from ssa.trust import hostname
from ssa.trust.case import Case, places
from ssa.trust.evidence import Evidence, Strength, Verified, _seal
from ssa.trust.path import candidates
from ssa.trust.profile import CHECKS

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.trust.case import Path
    from ssa.trust.store import TrustStore

# Reasons that say only that no path was found; any other refusal tells more.
_VAGUE = frozenset({"UNKNOWN_CA", "SELF_SIGNED_CERTIFICATE"})


def _path(case: Case, path: Path) -> str:
    """Check both ends of a path that OpenSSL accepted."""
    if path[0].der != case.leaf.der or not case.is_anchor(path[-1]):
        raise error("UNKNOWN_CA", f"{path[-1].name} is no trust anchor")
    return f"{len(path)} certificate{'s' if len(path) > 1 else ''}, anchor {path[-1].name}"


def _name(case: Case, _path: Path) -> str:
    return f"client {case.leaf.name}" if case.host is None else hostname.check(case, case.leaf)


def _validity(case: Case, path: Path) -> str:
    _each("validity", case, path)
    return f"until {rfc3339(min(certificate.valid[1] for certificate in path))}"


def _authority(case: Case, path: Path) -> str:
    return _each("authority", case, path)


def _purpose(case: Case, path: Path) -> str:
    _each("purpose", case, path)
    return f"TLS {case.role}"


def _constraints(case: Case, path: Path) -> str:
    return _each("constraints", case, path)


def _strength(case: Case, path: Path) -> str:
    _each("strict", case, path)
    return _each("strength", case, path)


def _each(check: str, case: Case, path: Path) -> str:
    for certificate, place in places(case, path):
        CHECKS[check](case, certificate, place)
    return ""


# They are asked in this order, and the first refusal is reported.
VALIDATORS: dict[str, Callable[[Case, Path], str]] = {
    "path": _path,
    "validity": _validity,
    "authority": _authority,
    "purpose": _purpose,
    "constraints": _constraints,
    "name": _name,
    "strength": _strength,
}


def judge(evidence: Evidence, store: TrustStore, strength: Strength) -> Verified:
    """Judge a peer's certificate chain.

    Args:
        evidence: the chain that the peer sent, and the peer that it should be.
        store: the trust anchors.
        strength: the policy's demands on keys and signatures.

    Returns:
        The proof, with the path that was found and one line from each validator.

    Raises:
        CertificateError: the peer is refused. The message names the certificate and the check that it failed.
    """
    try:
        case = Case(evidence, store, strength)
        if (known := store.recall(case.question, case.when)) is not None:
            return known
        refusals: list[CertificateError] = []
        for found in candidates(case):
            if isinstance(found, CertificateError):
                refusals.append(found)
                continue
            try:
                return _unanimous(case, found)
            except CertificateError as refusal:
                refusals.append(refusal)
                if refusal.reason == "HOSTNAME_MISMATCH":
                    break  # the leaf has the wrong name in every path
    except CertificateError:
        raise
    except Exception as failure:  # fails closed
        raise error("BAD_CERTIFICATE", f"it could not be judged: {failure!r}") from failure
    raise next((refusal for refusal in refusals if refusal.reason not in _VAGUE), None) or _vague(case, refusals[0])


def _vague(case: Case, refusal: CertificateError) -> CertificateError:
    """The refusal, with notes that may explain why no path was found."""
    notes = filter(None, (case.store.note(), *case.unreadable[:1]))
    return cast("CertificateError", error(refusal.reason, "; ".join((refusal.detail, *notes)), refusal.alert))


def unasked() -> Verified:
    """The verdict on a client that was asked for no certificate. It proves no identity."""
    return cast("Verified", _seal((), "", ("client: asked for no certificate",)))


def _unanimous(case: Case, path: Path) -> Verified:
    verdicts = tuple(_verdict(name, case, path) for name in VALIDATORS)
    identity = case.leaf.name if case.host is None else str(case.host)
    verified = cast("Verified", _seal(tuple(certificate.der for certificate in path), identity, verdicts))
    case.store.remember(case.question, path, verified)
    return verified


def _verdict(name: str, case: Case, path: Path) -> str:
    """The line of a validator that agrees. Raises its refusal; an exception in it is a refusal, too."""
    try:
        remark = VALIDATORS[name](case, path)
    except CertificateError:
        raise
    except Exception as failure:  # fails closed
        raise error("BAD_CERTIFICATE", f"validator {name} failed: {failure!r}") from failure
    return f"{name}: ok ({remark})" if remark else f"{name}: ok"
