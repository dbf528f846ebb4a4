"""Judges whether the peer is who it should be. It takes a certificate chain, and gives a `Verified` value or a refusal.

Nothing installs keys without a `Verified`, and only `judge` makes one. The modules, in the order of a judgement:

    evidence.py     what is judged: the chain, the name, the role, the time
    certificate.py  one certificate, read by OpenSSL and by us: its structure (der.py), its names (distinguished.py),
                    the extensions that are judged (extensions.py), its signature (signature.py)
    store.py        the trust anchors, read from disk once
    path.py         finds paths from the leaf to an anchor, each accepted by OpenSSL
    profile.py      checks each certificate of a path: valid now, a CA, for this purpose
    strength.py     checks its key and signature against the policy
    strict.py       checks RFC 5280's rules that hardly anyone checks, where an application asks for it
    hostname.py     compares the peer's name with the leaf's names (RFC 9525)
    quorum.py       asks all these checks, and gives the verdict: all must agree
"""

from ssa.names import normalise
from ssa.trust.certificate import key_digest
from ssa.trust.evidence import Evidence, PeerRole, Strength, Verified
from ssa.trust.quorum import judge, unasked
from ssa.trust.store import TrustStore, good

__all__ = [
    "Evidence",
    "PeerRole",
    "Strength",
    "TrustStore",
    "Verified",
    "good",
    "judge",
    "key_digest",
    "normalise",
    "unasked",
]
