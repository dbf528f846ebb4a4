"""Whether the peer is who it should be: a certificate chain in, a `Verified` value or a refusal out.

Nothing installs keys without a `Verified`, and only `judge` makes one. The way through it:

    evidence.py     what is judged: the chain, the name, the role, the time
    certificate.py  one certificate, read by OpenSSL and by us: its structure (der.py), its names (distinguished.py),
                    the extensions that are judged (extensions.py), its signature (signature.py)
    store.py        the trust anchors, read from disk once
    path.py         paths from the leaf to an anchor, each accepted by OpenSSL
    profile.py      what each certificate of a path has to be: valid now, a CA, for this purpose
    strength.py     what the policy demands of its key and signature
    hostname.py     the peer's name against the leaf's names (RFC 9525)
    quorum.py       the table of all these, and the verdict: all must agree
"""

from ssa.names import normalise
from ssa.trust.evidence import Evidence, Strength, Verified
from ssa.trust.quorum import judge, unasked
from ssa.trust.store import TrustStore

__all__ = ["Evidence", "Strength", "TrustStore", "Verified", "judge", "normalise", "unasked"]
