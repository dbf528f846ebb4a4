"""What is accepted and what is refused, case by case, with Debian's openssl as a second opinion."""

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.x509.oid import AuthorityInformationAccessOID

from ssa import trust
from ssa.errors import CertificateError
from tests.unit.trust_factory import (
    ANY_PURPOSE,
    CLIENT,
    CODE,
    HOST,
    NOW,
    SERVER,
    Made,
    authority,
    constraints,
    judge,
    key,
    leaf,
    openssl_accepts,
    patched,
    resigned,
    root,
    sans,
    unknown,
)

DAYS = timedelta(days=1)
SGC = x509.ObjectIdentifier("2.16.840.1.113730.4.1")  # Netscape's Server Gated Cryptography
PASSED = {"start": -20 * DAYS, "end": -2 * DAYS}
FUTURE = {"start": 2 * DAYS, "end": 20 * DAYS}


def three(of_root=None, of_ca=None, of_leaf=None, names=(HOST,)):
    """The usual chain of three; each part can be told to differ. Returns the chain as sent, and the anchors."""
    anchor = root(**(of_root or {}))
    ca = authority("Test CA", anchor, **(of_ca or {}))
    return [leaf(ca, *names, **(of_leaf or {})), ca], [anchor]


def two(of_root=None, of_leaf=None, names=(HOST,)):
    anchor = root(**(of_root or {}))
    return [leaf(anchor, *names, **(of_leaf or {}))], [anchor]


def four(lengths=(None, None, None), of_inner=None):
    anchor = root(length=lengths[0])
    outer = authority("Outer CA", anchor, length=lengths[1])
    inner = authority("Inner CA", outer, length=lengths[2], **(of_inner or {}))
    return [leaf(inner, HOST), inner, outer], [anchor]


def limited(names, *, permitted=(), excluded=(), place="of_ca", of_leaf=None):
    return three(**{place: {"limits": constraints(permitted, excluded)}}, of_leaf=of_leaf, names=names)


def nested_limits(outer, inner, **of_inner):
    """Two CAs, one below the other, with a list each of what they may issue for."""
    anchor = root()
    top = authority("Outer CA", anchor, limits=constraints(outer))
    middle = authority("Inner CA", top, limits=constraints(inner), **of_inner)
    return [leaf(middle, HOST), middle, top], [anchor]


def alone(*, anchored=True, **options):
    """A self-signed certificate that is its own anchor."""
    own = leaf(None, HOST, **options)
    return [own], [own] if anchored else [root()]


def aligned(kind):
    """A chain in which every key is of one kind."""
    return three(*({"key_": key(kind)} for _ in range(3)))


def nested(*, anchored):
    """The administrator's store has the intermediate, or the leaf, and no root."""
    chain, _ = three()
    return chain, [chain[anchored]]


def sent(case, change):
    """A copy of the case, with another chain sent."""
    chain, anchors = case
    return change(chain, anchors), anchors


def among(case, *others):
    """A copy of the case, with other anchors in the store too."""
    chain, anchors = case
    return chain, [others[0], *anchors, *others[1:]]


def self_issued():
    """A CA that certified its own next key: that certificate does not count for the length."""
    anchor = root()
    old = authority("Test CA", anchor, length=0)
    new = authority("Test CA", old)
    return [leaf(new, HOST), new, old], [anchor]


def same_name_other_key():
    """Two anchors of one name: a CA that changed its key and kept its name."""
    old, new = root(ids=False), root(ids=False)
    return [leaf(new, HOST, ids=False)], [old, new]


GOOD = {
    "two": two,
    "three": three,
    "four": four,
    "root sent along": lambda: sent(three(), lambda chain, anchors: [*chain, *anchors]),
    "sent twice": lambda: sent(three(), lambda chain, _: [*chain, *chain]),
    "wrong order": lambda: sent(four(), lambda chain, _: [chain[0], chain[2], chain[1]]),
    "unneeded certificates": lambda: sent(three(), lambda chain, _: [chain[0], root("X"), *two()[0], chain[1]]),
    "one of many anchors": lambda: among(three(), root("A"), root("B")),
    "two anchors of one name": same_name_other_key,
    "leaf without keyUsage": lambda: two(of_leaf={"may": None}),
    "leaf without extendedKeyUsage": lambda: two(of_leaf={"eku": ()}),
    "leaf without basicConstraints": lambda: two(of_leaf={"ca": None}),
    "leaf with nothing but its name": lambda: two(of_leaf={"may": None, "eku": (), "ca": None, "ids": False}),
    "leaf for servers and clients": lambda: two(of_leaf={"eku": (CLIENT, SERVER)}),
    "leaf for servers and anything": lambda: two(of_leaf={"eku": (ANY_PURPOSE, SERVER)}),
    "leaf that is a CA": lambda: two(of_leaf={"ca": True, "may": ("digital_signature", "key_cert_sign")}),
    "RSA leaf for encipherment": lambda: two(of_leaf={"key_": key("rsa2048"), "may": ("key_encipherment",)}),
    "RSA leaf as of mkcert": lambda: two(
        of_leaf={"key_": key("rsa2048"), "may": ("digital_signature", "key_encipherment")}
    ),
    "empty subject": lambda: two(of_leaf={"subject": ""}),
    "root without keyUsage": lambda: three(of_root={"may": None}),
    "root without key identifier": lambda: three(of_root={"ids": False}),
    "root for servers only": lambda: three(of_root={"eku": (SERVER,)}),
    "root that signs and sets a length": lambda: three(of_root={"length": 1}),
    "CA without keyUsage": lambda: three(of_ca={"may": None}),
    "CA of length 0": lambda: three(of_ca={"length": 0}),
    "CA for servers": lambda: three(of_ca={"eku": (SERVER, CLIENT)}),
    "lengths just right": lambda: four((2, 1, 0)),
    "self-issued CA does not count": self_issued,
    "intermediate as anchor": lambda: nested(anchored=1),
    "leaf as anchor": lambda: nested(anchored=0),
    "self-signed anchor": alone,
    "self-signed anchor, CA": lambda: alone(ca=True, may=("digital_signature", "key_cert_sign")),
    "self-signed anchor, bare": lambda: alone(ca=None, may=None, eku=()),
    "non-critical unknown extension": lambda: two(of_leaf={"more": [unknown(critical=False)]}),
    "permitted name": lambda: limited([HOST], permitted=["example.com"]),
    "permitted with a dot": lambda: limited([HOST], permitted=[".example.com"]),
    "permitted by the root": lambda: limited([HOST], permitted=["example.com"], place="of_root"),
    "permitted everywhere": lambda: limited([HOST, "192.0.2.1"], permitted=["example.com", "192.0.2.0/24"]),
    "addresses limited, names not": lambda: limited([HOST], permitted=["192.0.2.0/24"]),
    "excluded another name": lambda: limited([HOST], excluded=["example.org", "ample.com"]),
    "constraints that narrow": lambda: nested_limits(["example.com"], ["www.example.com"]),
    "permitted directory name": lambda: limited([HOST], permitted=["CN=leaf"]),
    "P-384": lambda: aligned("p384"),
    "P-521": lambda: aligned("p521"),
    "RSA": lambda: aligned("rsa2048"),
    "wildcard": lambda: three(names=["*.example.com"]),
    "one of many names": lambda: three(names=["example.com", "*.example.org", HOST, "192.0.2.1"]),
    "upper case": lambda: three(names=[HOST.upper()]),
    "RSA-PSS": lambda: two({"key_": key("rsa2048")}, {"pss": True}),
    "SHA-512 by P-256": lambda: three(of_leaf={"hash_": hashes.SHA512()}),
}

BAD = {
    "expired leaf": ("CERTIFICATE_EXPIRED", "leaf CN=leaf", lambda: three(of_leaf=PASSED)),
    "expired CA": ("CERTIFICATE_EXPIRED", "intermediate CN=Test CA", lambda: three(of_ca=PASSED)),
    "expired root": ("CERTIFICATE_EXPIRED", "trust anchor CN=Test Root", lambda: three(of_root=PASSED)),
    "expired anchor of its own": ("CERTIFICATE_EXPIRED", "leaf CN=leaf", lambda: alone(**PASSED)),
    "leaf of the future": ("CERTIFICATE_NOT_YET_VALID", "leaf CN=leaf", lambda: three(of_leaf=FUTURE)),
    "CA of the future": ("CERTIFICATE_NOT_YET_VALID", "intermediate", lambda: three(of_ca=FUTURE)),
    "root of the future": ("CERTIFICATE_NOT_YET_VALID", "trust anchor", lambda: three(of_root=FUTURE)),
    "self-signed": ("SELF_SIGNED_CERTIFICATE", "leaf CN=leaf", lambda: alone(anchored=False)),
    "unknown root": ("UNKNOWN_CA", "issued by CN=Test Root", lambda: (three()[0], [root("Other")])),
    "unknown root sent along": (
        "UNKNOWN_CA",
        "issued by itself",
        lambda: (sent(three(), lambda chain, anchors: [*chain, *anchors])[0], [root("Other")]),
    ),
    "unknown root of a known name": ("UNKNOWN_CA", "", lambda: (three()[0], [root()])),
    "impostor of a root without key identifier": (
        "BAD_SIGNATURE",
        "",
        lambda: (three(of_ca={"ids": False})[0], [root(ids=False)]),
    ),
    "no intermediate": ("UNKNOWN_CA", "issued by CN=Test CA", lambda: sent(three(), lambda chain, _: chain[:1])),
    "wrong name": ("HOSTNAME_MISMATCH", "DNS example.org", lambda: three(names=["example.org"])),
    "parent of the name": ("HOSTNAME_MISMATCH", "DNS example.com", lambda: three(names=["example.com"])),
    "no names": ("HOSTNAME_MISMATCH", "RFC 9525", lambda: three(names=[], of_leaf={"subject": HOST})),
    "address only": ("HOSTNAME_MISMATCH", "IP 192.0.2.1", lambda: three(names=["192.0.2.1"])),
    "for clients": ("WRONG_PURPOSE", "leaf CN=leaf", lambda: three(of_leaf={"eku": (CLIENT,)})),
    "for code": ("WRONG_PURPOSE", "1.3.6.1.5.5.7.3.3", lambda: three(of_leaf={"eku": (CODE,)})),
    "for anything": ("WRONG_PURPOSE", "", lambda: three(of_leaf={"eku": (ANY_PURPOSE,)})),
    "for gated cryptography": ("WRONG_PURPOSE", "", lambda: three(of_leaf={"eku": (SGC,)})),
    "CA for clients": ("WRONG_PURPOSE", "intermediate", lambda: three(of_ca={"eku": (CLIENT, CODE)})),
    "CA for gated cryptography": ("WRONG_PURPOSE", "intermediate", lambda: three(of_ca={"eku": (SGC,)})),
    "root for clients": ("WRONG_PURPOSE", "trust anchor", lambda: three(of_root={"eku": (CLIENT,)})),
    "leaf only signs certificates": ("WRONG_PURPOSE", "keyUsage", lambda: two(of_leaf={"may": ("key_cert_sign",)})),
    "EC leaf for agreement": ("WRONG_PURPOSE", "keyUsage", lambda: two(of_leaf={"may": ("key_agreement",)})),
    "leaf as CA": ("NOT_A_CA", "intermediate", lambda: three(of_ca={"ca": False, "may": ("digital_signature",)})),
    "leaf as CA, may sign": ("NOT_A_CA", "intermediate", lambda: three(of_ca={"ca": False})),
    "CA without basicConstraints": ("NOT_A_CA", "basicConstraints", lambda: three(of_ca={"ca": None})),
    "CA without anything": ("NOT_A_CA", "", lambda: three(of_ca={"ca": None, "may": None})),
    "CA may not sign": ("NOT_A_CA", "", lambda: three(of_ca={"may": ("crl_sign",)})),
    "root may not sign": ("NOT_A_CA", "", lambda: three(of_root={"may": ("crl_sign",)})),
    "root that is no CA": ("NOT_A_CA", "", lambda: three(of_root={"ca": False, "may": None})),
    "root without basicConstraints": ("NOT_A_CA", "", lambda: three(of_root={"ca": None, "may": None})),
    "not permitted": ("NAME_CONSTRAINT", "", lambda: limited([HOST], permitted=["example.org"])),
    "not permitted by the root": (
        "NAME_CONSTRAINT",
        "",
        lambda: limited([HOST], permitted=["example.org"], place="of_root"),
    ),
    "excluded": ("NAME_CONSTRAINT", "", lambda: limited([HOST], excluded=["example.com"])),
    "excluded and permitted": (
        "NAME_CONSTRAINT",
        "",
        lambda: limited([HOST], permitted=["com"], excluded=["www.example.com"]),
    ),
    "excluded under a wildcard": (
        "NAME_CONSTRAINT",
        HOST,
        lambda: limited(["*.example.com"], permitted=["example.com"], excluded=["www.example.com"]),
    ),
    "another name not permitted": (
        "NAME_CONSTRAINT",
        "",
        lambda: limited([HOST, "example.org"], permitted=["example.com"]),
    ),
    "a wildcard wider than permitted": (
        "NAME_CONSTRAINT",
        "",
        lambda: limited(["*.example.com"], permitted=["www.example.com"]),
    ),
    "constraints that add up": ("NAME_CONSTRAINT", "", lambda: nested_limits(["www.example.com"], ["example.org"])),
    "constraints that widen": ("NAME_CONSTRAINT", "", lambda: nested_limits(["example.org"], ["example.com"])),
    "names of the CA not permitted": (
        "NAME_CONSTRAINT",
        "CN=Inner CA",
        lambda: nested_limits(["example.com"], ["example.com"], more=[(sans("ca.example.org"), False)]),
    ),
    "address not permitted": (
        "NAME_CONSTRAINT",
        "",
        lambda: limited([HOST, "198.51.100.1"], permitted=["example.com", "192.0.2.0/24"]),
    ),
    "address excluded": ("NAME_CONSTRAINT", "", lambda: limited([HOST, "192.0.2.1"], excluded=["192.0.2.0/24"])),
    "IPv6 address excluded": (
        "NAME_CONSTRAINT",
        "",
        lambda: limited([HOST, "2001:db8::1"], excluded=["2001:db8::/32"]),
    ),
    "directory name not permitted": ("NAME_CONSTRAINT", "", lambda: limited([HOST], permitted=["CN=other"])),
    "directory name excluded": ("NAME_CONSTRAINT", "", lambda: limited([HOST], excluded=["CN=leaf"])),
    "root's length": ("PATH_LENGTH", "", lambda: three(of_root={"length": 0})),
    "CA's length": ("PATH_LENGTH", "", lambda: four((None, 0, None))),
    "small root key": ("WEAK_KEY", "trust anchor CN=Test Root: RSA key of 1024", lambda: two({"key_": key("rsa1024")})),
    "small CA key": ("WEAK_KEY", "intermediate", lambda: three(of_ca={"key_": key("rsa1024")})),
    "small leaf key": ("WEAK_KEY", "leaf CN=leaf: RSA key of 1024 bits", lambda: two(of_leaf={"key_": key("rsa1024")})),
    "odd curve": ("WEAK_KEY", "secp256k1", lambda: two(of_leaf={"key_": key("k256")})),
    "SHA-224": ("WEAK_SIGNATURE", "ecdsa with sha224", lambda: two(of_leaf={"hash_": hashes.SHA224()})),
    "SHA-3": ("WEAK_SIGNATURE", "leaf", lambda: two(of_leaf={"hash_": hashes.SHA3_256()})),
    "unknown critical, leaf": ("BAD_CERTIFICATE", "leaf", lambda: two(of_leaf={"more": [unknown(critical=True)]})),
    "unknown critical, CA": ("BAD_CERTIFICATE", "CN=Test CA", lambda: three(of_ca={"more": [unknown(critical=True)]})),
    "unknown critical, root": (
        "BAD_CERTIFICATE",
        "trust anchor",
        lambda: three(of_root={"more": [unknown(critical=True)]}),
    ),
    "empty chain": ("NO_CERTIFICATE", "", lambda: ([], [root()])),
    "junk": ("BAD_CERTIFICATE", "leaf cannot be read", lambda: ([b"junk"], [root()])),
    "bytes behind it": (
        "BAD_CERTIFICATE",
        "leaf cannot be read",
        lambda: sent(two(), lambda chain, _: [chain[0].der + b"x"]),
    ),
}


def refused(chain, anchors, host=HOST, **options):
    with pytest.raises(CertificateError) as caught:
        judge(chain, anchors, host, **options)
    return caught.value


FOUND = {"two anchors of one name"}  # openssl tries one anchor of a name only


@pytest.mark.parametrize("case", GOOD)
def test_accepted(case, tmp_path):
    chain, anchors = GOOD[case]()
    verified = judge(chain, anchors)
    assert verified.path[0] == chain[0].der
    assert verified.path[-1] in {anchor.der for anchor in anchors}
    assert verified.identity == HOST
    assert openssl_accepts(chain, anchors, HOST, tmp_path) != (case in FOUND)


# What openssl accepts and we do not, each for the reason that stands in ssa/trust.
STRICTER = {
    "no names",  # openssl falls back on the common name
    "for gated cryptography",
    "CA for gated cryptography",
    "excluded under a wildcard",
    "small root key",
    "small CA key",
    "small leaf key",
    "odd curve",
    "SHA-224",
    "EC leaf for agreement",
}


@pytest.mark.parametrize("case", BAD)
def test_refused(case, tmp_path):
    reason, words, build = BAD[case]
    chain, anchors = build()
    refusal = refused(chain, anchors)
    assert (refusal.reason, words in str(refusal)) == (reason, True), refusal
    if all(isinstance(part, Made) for part in chain) and chain:
        assert openssl_accepts(chain, anchors, HOST, tmp_path) == (case in STRICTER)


@pytest.mark.parametrize("kind", [ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey])
def test_edwards_keys(kind):
    own = kind.generate()
    anchor = root()
    assert judge([leaf(anchor, HOST, key_=own)], [anchor])


# --- time ----------------------------------------------------------------------------------------------------------


def test_judged_at_the_time_given():
    chain, anchors = three(of_leaf={"start": -DAYS, "end": 5 * DAYS})
    assert judge(chain, anchors, when=NOW + 4 * DAYS)
    assert refused(chain, anchors, when=NOW + 6 * DAYS).reason == "CERTIFICATE_EXPIRED"
    assert refused(chain, anchors, when=NOW - 2 * DAYS).reason == "CERTIFICATE_NOT_YET_VALID"
    assert judge(chain, anchors)  # the time of one judgement is not the next one's


def test_both_times_are_in_the_message():
    refusal = refused(*three(of_leaf=PASSED))
    assert f"{NOW - 2 * DAYS:%Y-%m-%dT%H:%M:%SZ}" in str(refusal)
    assert f"{NOW:%Y-%m-%dT}" in str(refusal)


# --- roles ---------------------------------------------------------------------------------------------------------


def test_a_client_is_held_to_its_purpose_and_to_no_name():
    anchor = root()
    client = leaf(anchor, subject="someone", eku=(CLIENT,))
    verified = judge([client], [anchor], None, role="client")
    assert verified.identity == "CN=someone"
    assert "purpose: ok (TLS client)" in verified.verdicts
    assert refused([leaf(anchor, HOST)], [anchor], None, role="client").reason == "WRONG_PURPOSE"
    assert refused([client], [anchor]).reason == "WRONG_PURPOSE"


def test_a_server_without_a_name_to_check_is_refused():
    assert refused(*three(), host=None).reason == "HOSTNAME_MISMATCH"


@pytest.mark.parametrize("host", ["", ".", "*", "a b", "exa\0mple.com", "127.1", "x" * 300, "\ud800"])
def test_a_name_that_is_none_is_refused(host):
    assert refused(*three(), host=host).reason == "HOSTNAME_MISMATCH"


# --- signatures ----------------------------------------------------------------------------------------------------


def test_a_broken_signature_is_refused():
    anchor = root()
    good = leaf(anchor, HOST)
    spoiled = good.der[:-1] + bytes([good.der[-1] ^ 1])
    assert refused([spoiled], [anchor]).reason == "BAD_SIGNATURE"


def test_changed_contents_are_refused():
    anchor = root()
    changed = leaf(anchor, "www.example.org").der.replace(b"www.example.org", b"www.example.com")
    assert refused([changed], [anchor]).reason == "BAD_SIGNATURE"


@pytest.mark.parametrize("digest", ["sha1", "md5"])
@pytest.mark.parametrize("place", ["leaf", "intermediate"])
def test_old_hashes_are_refused(digest, place, tmp_path):
    anchor = root(key_=key("rsa2048"))
    ca = authority("CA", anchor, key_=key("rsa2048"))
    end = leaf(ca, HOST, key_=key("rsa2048"))
    (tmp_path / "ext").write_text(
        "basicConstraints=critical,CA:TRUE" if place == "intermediate" else f"subjectAltName=DNS:{HOST}"
    )
    weak = resigned(*((ca, anchor) if place == "intermediate" else (end, ca)), tmp_path, f"-{digest}", "-extfile",
                    str(tmp_path / "ext"))  # fmt: skip
    chain = [end, weak] if place == "intermediate" else [weak, ca]
    refusal = refused(chain, [anchor])
    assert refusal.reason == "WEAK_SIGNATURE"
    assert place in str(refusal)
    assert digest in str(refusal)


def test_an_anchors_own_signature_does_not_matter(tmp_path):
    anchor = root(key_=key("rsa2048"))
    (tmp_path / "ext").write_text("basicConstraints=critical,CA:TRUE")
    old = resigned(anchor, anchor, tmp_path, "-sha1", "-extfile", str(tmp_path / "ext"))
    assert judge([leaf(anchor, HOST)], [old])


def test_the_policy_chooses_the_signatures():
    only_rsa = trust.Strength(2048, ("rsa_pss_rsae_sha256", "rsa_pkcs1_sha256"))
    only_384 = trust.Strength(2048, ("ecdsa_secp384r1_sha384",))
    assert refused(*two(), strength=only_rsa).reason == "WEAK_SIGNATURE"
    assert refused(*two(), strength=only_384).reason == "WEAK_SIGNATURE"
    assert judge(*two(of_leaf={"hash_": hashes.SHA384()}), strength=only_384)
    assert refused(*two(of_leaf={"key_": key("rsa2048")}), strength=trust.Strength(3072, ("ecdsa_secp256r1_sha256",)))


# --- malformed certificates ----------------------------------------------------------------------------------------


def test_a_duplicate_extension_is_refused():
    anchor = root()
    first, second = (x509.ObjectIdentifier(f"1.3.6.1.4.1.55555.{number}") for number in (1, 2))
    more = [(x509.UnrecognizedExtension(oid, b"\x05\x00"), False) for oid in (first, second)]
    twice = patched(leaf(anchor, HOST, more=more), anchor, _oid(second), _oid(first))
    refusal = refused([twice], [anchor])
    assert refusal.reason == "BAD_CERTIFICATE"
    assert "extensions are malformed" in str(refusal)


def _oid(oid):
    """The DER of an object identifier, by way of an extended key usage that holds nothing else."""
    return x509.ExtendedKeyUsage([oid]).public_bytes()[2:]


def test_signature_algorithms_must_agree():
    """The algorithm inside the signed part and the one outside it."""
    anchor = root()
    good = leaf(anchor, HOST)
    sha256, sha384 = bytes.fromhex("2a8648ce3d040302"), bytes.fromhex("2a8648ce3d040303")
    head, tail = good.der[: len(good.der) // 2], good.der[len(good.der) // 2 :]
    assert refused([head + tail.replace(sha256, sha384)], [anchor]).reason in {"BAD_SIGNATURE", "BAD_CERTIFICATE"}


def test_version_1(tmp_path):
    """A v1 root is an anchor as any other, a v1 intermediate is no CA."""
    anchor = root(may=None, ids=False)
    old = resigned(anchor, anchor, tmp_path)
    assert old.cert.version is x509.Version.v1
    assert judge([leaf(anchor, HOST, ids=False)], [old])
    ca = authority("CA", anchor, ids=False)
    old_ca = resigned(ca, anchor, tmp_path)
    assert old_ca.cert.version is x509.Version.v1
    assert refused([leaf(ca, HOST, ids=False), old_ca], [anchor]).reason == "NOT_A_CA"


def test_policies_are_not_processed(tmp_path):
    """Neither does curl. Were they, this chain would still be good: leaf and CA name the policy it demands."""
    policy = x509.PolicyInformation(x509.ObjectIdentifier("1.3.6.1.4.1.55555.9"), None)
    named = [(x509.CertificatePolicies([policy]), False)]
    chain, anchors = three(of_ca={"more": [(x509.PolicyConstraints(0, None), True), *named]}, of_leaf={"more": named})
    assert judge(chain, anchors)
    assert openssl_accepts(chain, anchors, HOST, tmp_path)


def test_an_ordinary_extension_is_no_fault():
    access = x509.AccessDescription(AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier("http://o.test"))
    assert judge(*three(of_leaf={"more": [(x509.AuthorityInformationAccess([access]), False)]}))


def test_name_constraints_hold_for_self_issued_leaf():
    """A leaf with its CA's name does not slip through the exemption for self-issued CAs."""
    anchor = root()
    ca = authority("Same", anchor, limits=constraints(["example.org"]))
    assert refused([leaf(ca, HOST, subject="Same"), ca], [anchor]).reason == "NAME_CONSTRAINT"


# --- messages ------------------------------------------------------------------------------------------------------


def test_a_message_is_one_line_whatever_the_peer_writes():
    anchor = root()
    nasty = leaf(anchor, "example.org", subject="evil\n\x1b[31mroot: ok")
    text = str(refused([nasty], [anchor]))
    assert text.isprintable()
    many = leaf(anchor, *(f"{number}.example.org" for number in range(500)))
    assert "494 more" in str(refused([many], [anchor]))
    assert len(str(refused([many], [anchor]))) < 1000


def test_verdicts_name_every_validator():
    verified = judge(*three(names=["*.example.com"]))
    heads = [line.split(":")[0] for line in verified.verdicts]
    assert heads == ["path", "validity", "authority", "purpose", "constraints", "name", "strength"]
    assert verified.verdicts[0] == "path: ok (3 certificates, anchor CN=Test Root)"
    assert "name: ok (DNS *.example.com)" in verified.verdicts


def test_the_path_has_only_what_vouches():
    chain, anchors = three()
    verified = judge([*chain, root("X"), *two()[0]], anchors)
    assert verified.path == (chain[0].der, chain[1].der, anchors[0].der)
