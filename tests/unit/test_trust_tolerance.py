"""What is odd in a certificate and no fault in what is judged; and that one bad one does not stop the rest."""

import base64
import ipaddress
import itertools
import subprocess
import sys
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ssa import trust
from ssa.cli.certificate import decode
from ssa.credentials import pair_untrusted, parse_chain_untrusted
from ssa.errors import CertificateError
from tests.unit.trust_factory import (
    ALGORITHM,
    EVERYTHING,
    HOST,
    NOW,
    WITH_NULL,
    Made,
    authority,
    changed,
    constraints,
    judge,
    key,
    leaf,
    openssl,
    openssl_accepts,
    root,
    store,
    tlv,
    unknown,
)

LATIN = tlv(0x14, b"COMPA\xd1IA")  # TeletexString
SHOWN = r"CN=COMPA\xd1IA"


def common(text):
    return tlv(0x0C, text.encode())


def latin(made, issuer=None, *texts):
    """A copy of a certificate with a name that is in Latin-1, its own or its issuer's."""
    return changed(made, issuer, *((common(text), LATIN) for text in texts))


def made(der, key_):
    return Made(x509.load_der_x509_certificate(der), key_)


def refused(*arguments, **options):
    with pytest.raises(CertificateError) as caught:
        judge(*arguments, **options)
    return caught.value


def accepted(ders, anchors, host=HOST):
    """Judged with anchors that only ssa's own reader may be able to read."""
    kept = trust.TrustStore.of_pem_untrusted(b"".join(map(armoured, anchors)), "test")
    assert kept.skipped == ()
    role = "client" if host is None else "server"
    return trust.judge(trust.Evidence(tuple(ders), host, role), kept, EVERYTHING)


def armoured(der, label="CERTIFICATE"):
    return f"-----BEGIN {label}-----\n".encode() + base64.encodebytes(der) + f"-----END {label}-----\n".encode()


# --- the moment ---------------------------------------------------------------------------------------------------


def test_each_judgement_has_its_own_moment():
    """By OpenSSL, too: a store's time can be set once only."""
    anchor = root(start=timedelta(days=-400), end=timedelta(days=400))
    kept = store(anchor)
    periods = {-300: (-310, -290), 0: (-1, 1), 300: (290, 310)}
    made_ = {
        day: leaf(anchor, HOST, start=timedelta(days=first), end=timedelta(days=last))
        for day, (first, last) in periods.items()
    }
    for when, whose in itertools.product([0, 300, -300, 0, -300, 300], periods):
        evidence = trust.Evidence((made_[whose].der,), HOST, "server", NOW + timedelta(days=when))
        if when == whose:
            assert trust.judge(evidence, kept, EVERYTHING)
            continue
        with pytest.raises(CertificateError) as caught:
            trust.judge(evidence, kept, EVERYTHING)
        assert caught.value.reason == ("CERTIFICATE_EXPIRED" if when > whose else "CERTIFICATE_NOT_YET_VALID")


# --- names that nobody can decode ---------------------------------------------------------------------------------


def test_a_store_with_an_anchor_of_such_a_name():
    good, odd = root("Good"), latin(root("Odd"), None, "Odd")
    kept = trust.TrustStore.of_pem_untrusted(armoured(good.der) + armoured(odd), "test")
    assert (len(kept), kept.skipped) == (2, ())
    end = leaf(good, HOST)
    assert trust.judge(trust.Evidence((end.der,), HOST, "server"), kept, EVERYTHING)


def test_such_a_name_in_every_place():
    anchor, ca = root("A"), authority("B", root("A"))
    anchor_der = latin(anchor, None, "A")
    ca = authority("B", anchor)
    ca_der = changed(ca, anchor, (common("A"), LATIN), (common("B"), tlv(0x14, b"\xd1")))
    end = leaf(ca, HOST, subject="C")
    end_der = changed(end, ca, (common("B"), tlv(0x14, b"\xd1")), (common("C"), LATIN))
    verified = accepted([end_der, ca_der], [anchor_der])
    assert verified.path == (end_der, ca_der, anchor_der)
    assert rf"path: ok (3 certificates, anchor {SHOWN})" in verified.verdicts
    client = leaf(ca, subject="C", eku=())
    client_der = changed(client, ca, (common("B"), tlv(0x14, b"\xd1")), (common("C"), LATIN))
    assert accepted([client_der, ca_der], [anchor_der], host=None).identity == SHOWN
    with pytest.raises(CertificateError, match=r"CN=COMPA\\xd1IA was issued by CN=\\xd1, which is neither"):
        accepted([end_der], [anchor_der])


def test_such_a_name_is_shown_to_people():
    (found,) = decode(armoured(latin(root("A"), None, "A")).decode())
    assert (found["subject"], found["issuer"]) == (SHOWN, SHOWN)
    assert not any("cannot be read" in str(value) for value in found.values())


def test_a_name_that_only_looks_alike():
    """The escape of a byte is none that a text could have."""
    shown = accepted([leaf(anchor := root(), subject=r"COMPA\xd1IA", eku=()).der], [anchor.der], host=None).identity
    assert shown == r"CN=COMPA\\xd1IA"
    assert shown != SHOWN


def test_an_own_certificate_of_such_a_name():
    end = leaf(root(), HOST, subject="C")
    text = armoured(changed(end, end, (common("C"), LATIN)))
    assert parse_chain_untrusted(text)
    (credential,) = pair_untrusted([text], [end.key_pem], complete=True)
    assert (credential.name, credential.hostnames) == (SHOWN, (HOST,))


# --- what cannot be used is skipped, and said ----------------------------------------------------------------------


def test_what_was_skipped_is_named_and_a_refusal_says_so():
    good, other = root("Good"), root("Other")
    kept = trust.TrustStore.of_pem_untrusted(good.pem + armoured(b"\x30\x03abc"), "bundle")
    assert len(kept) == 1
    assert kept.skipped[0].startswith("bundle: certificate 2: ")
    with pytest.raises(CertificateError) as caught:
        trust.judge(trust.Evidence((leaf(other, HOST).der,), HOST, "server"), kept, EVERYTHING)
    assert caught.value.reason == "UNKNOWN_CA"
    assert "; 1 anchor was skipped: bundle: certificate 2: " in caught.value.detail
    with pytest.raises(CertificateError) as caught:
        trust.judge(trust.Evidence((leaf(good, "other.example").der,), HOST, "server"), kept, EVERYTHING)
    assert "skipped" not in caught.value.detail


# --- CAs without a name, and numbers that are none ----------------------------------------------------------------


def test_a_ca_without_a_name():
    nameless = root("")
    found = refused([leaf(nameless, HOST)], [nameless])
    assert (found.reason, "its subject is empty" in str(found)) == ("NOT_A_CA", True)
    anchor = root()
    between = authority("", anchor)
    assert refused([leaf(between, HOST), between], [anchor]).reason == "NOT_A_CA"
    assert judge([leaf(anchor, HOST, subject="")], [anchor]), "a leaf may have none"
    own = leaf(None, HOST, subject="", ca=None)
    assert judge([own], [own]), "nor need an anchor that is no CA"


SERIALS = """
import sys
from tests.unit.trust_factory import *
from ssa.credentials import pair_untrusted
for number in (b"\\x00", b"\\xff", b"\\x80\\x00"):
    anchor, end = root(), None
    old = tlv(2, anchor.cert.serial_number.to_bytes(anchor.cert.serial_number.bit_length() // 8 + 1, "big"))
    der = changed(anchor, None, (old, tlv(2, number)))
    from cryptography.hazmat.primitives.serialization import Encoding
    import base64
    text = b"-----BEGIN CERTIFICATE-----\\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\\n"
    kept = trust.TrustStore.of_pem_untrusted(text, "test")
    assert len(kept) == 1
    assert trust.judge(trust.Evidence((leaf(anchor, HOST).der,), HOST, "server"), kept, EVERYTHING)
    assert pair_untrusted([text], [anchor.key_pem], complete=True)
"""


def test_a_serial_number_that_is_not_positive_is_nothing_to_warn_of():
    done = subprocess.run([sys.executable, "-c", SERIALS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# --- extensions that are not judged -------------------------------------------------------------------------------

POLICY = x509.UnrecognizedExtension(  # one policy, with a qualifier that nobody knows
    x509.ObjectIdentifier("2.5.29.32"),
    bytes.fromhex("3016 3014 06 03 2a 03 04 30 0d 300b 06 04 2a 03 04 63 16 03 616263".replace(" ", "")),
)
NOTICE = x509.UnrecognizedExtension(  # a comment in Latin-1, as Netscape's
    x509.ObjectIdentifier("2.16.840.1.113730.1.13"), tlv(0x16, b"se\xf1or")
)
CRL_AT = x509.UnrecognizedExtension(  # a distribution point whose URI is not ASCII
    x509.ObjectIdentifier("2.5.29.31"),
    tlv(0x30, tlv(0x30, tlv(0xA0, tlv(0xA0, tlv(0x86, b"http://se\xf1or/"))))),
)
ODD = {"policy qualifier": POLICY, "comment": NOTICE, "distribution point": CRL_AT}


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_extension_that_is_not_judged(odd, tmp_path):
    more = [(ODD[odd], False)]
    anchor = root(more=more)
    ca = authority("CA", anchor, more=more)
    end = leaf(ca, HOST, more=more)
    assert judge([end, ca], [anchor])
    assert openssl_accepts([end, ca], [anchor], HOST, tmp_path)
    assert pair_untrusted([end.pem + ca.pem], [end.key_pem], complete=True)[0].hostnames == (HOST,)


@pytest.mark.parametrize("where", ["leaf", "CA", "anchor"])
def test_an_unknown_critical_extension_is_refused(where):
    more = {place: [unknown(critical=True)] if place == where else [] for place in ("leaf", "CA", "anchor")}
    anchor = root(more=more["anchor"])
    ca = authority("CA", anchor, more=more["CA"])
    chain = [leaf(ca, HOST, more=more["leaf"]), ca]
    assert refused(chain, [anchor]).reason == "BAD_CERTIFICATE"


def test_a_length_without_a_ca(tmp_path):
    anchor = root()
    end = leaf(anchor, HOST)
    bare = tlv(0x04, tlv(0x30, b""))
    odd = made(changed(end, anchor, (bare, tlv(0x04, tlv(0x30, b"\x02\x01\x00")))), end.key)
    assert judge([odd], [anchor])
    assert openssl_accepts([odd], [anchor], HOST, tmp_path)
    assert pair_untrusted([odd.pem], [end.key_pem], complete=True)
    own = leaf(None, HOST)
    assert accepted([der := changed(own, None, (bare, tlv(0x04, tlv(0x30, b"\x02\x01\x03"))))], [der])


def test_names_that_are_not_judged_beside_one_that_is():
    anchor = root()
    end = leaf(anchor, HOST)
    right = tlv(0x82, HOST.encode())
    for other in (
        tlv(0x81, "señor@example.com".encode("latin-1")),
        tlv(0x86, b"http://\xf1"),
        tlv(0x87, b"\x01\x02\x03"),
        tlv(0x82, b"se\xf1or.example"),
        tlv(0xA4, tlv(0x30, tlv(0x31, tlv(0x30, tlv(6, b"\x55\x04\x03") + LATIN)))),
        tlv(0xA0, tlv(6, b"\x2a\x03") + tlv(0xA0, LATIN)),
    ):
        odd = changed(end, anchor, (right, right + other))
        assert accepted([odd], [anchor.der])
        with pytest.raises(CertificateError, match="is for"):
            accepted([odd], [anchor.der], host="other.example")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (tlv(0x82, HOST.encode()), tlv(0x82, HOST.encode())[:-1]),
        (tlv(0x04, tlv(0x30, b"")), tlv(0x04, b"\x30")),
    ],
)
def test_a_malformed_extension_that_is_judged(old, new):
    anchor = root()
    ca = authority("CA", anchor)
    end = leaf(ca, HOST)
    with pytest.raises(CertificateError) as caught:
        accepted([changed(end, ca, (old, new)), ca.der], [anchor.der])
    assert caught.value.reason == "BAD_CERTIFICATE"
    assert "its extensions are malformed" in str(caught.value)


# --- ECDSA with NULL parameters -----------------------------------------------------------------------------------


def with_null(certificate, issuer):
    return changed(certificate, issuer, (ALGORITHM, WITH_NULL))


def test_ecdsa_with_null_parameters(tmp_path):
    """As curl and OpenSSL take it."""
    anchor = root()
    ca = authority("CA", anchor)
    end = leaf(ca, HOST)
    nulls = [with_null(end, ca), with_null(ca, anchor), with_null(anchor, anchor)]
    assert accepted(nulls[:2], nulls[2:]).path == tuple(nulls)
    assert accepted([end.der, nulls[1]], [anchor.der])
    (tmp_path / "chain").write_bytes(b"".join(map(armoured, nulls[:2])))
    (tmp_path / "root").write_bytes(armoured(nulls[2]))
    openssl("verify", "-no-CApath", "-CAfile", tmp_path / "root", "-untrusted", tmp_path / "chain", tmp_path / "chain")
    wrong = bytearray(nulls[0])
    wrong[-1] ^= 1
    with pytest.raises(CertificateError):
        accepted([bytes(wrong), nulls[1]], nulls[2:])
    stranger = root("Stranger")
    assert accepted([end.der, with_null(stranger, stranger), ca.der], [anchor.der])


def test_our_own_search_takes_them_too():
    """Where OpenSSL's first path fails, the signatures are checked by us."""
    anchor, own = root(), key()
    old = authority("CA", anchor, key_=own, start=timedelta(days=-9), end=timedelta(days=-2))
    new = authority("CA", anchor, key_=own)
    end = leaf(new, HOST)
    ders = [with_null(end, new), with_null(old, anchor), with_null(new, anchor)]
    assert accepted(ders, [with_null(anchor, anchor)]).path[1] == ders[2]


# --- the subject is no name ---------------------------------------------------------------------------------------

SUBJECTS = ["", "www.good.example", "www.bad.example", "other.example", "10.0.0.1", "10.1.0.1", "Some Company"]
NAMES = [
    ("www.good.example",),
    ("www.bad.example",),
    ("other.example",),
    ("10.0.0.1",),
    ("10.1.0.1",),
    ("www.good.example", "www.bad.example"),
    ("www.good.example", "10.0.0.1"),
    ("*.good.example",),
]
LIMITS = [
    ((), ("bad.example",)),
    (("good.example",), ()),
    (("good.example",), ("bad.example",)),
    (("10.0.0.0/16",), ()),
    ((), ("10.0.0.0/16",)),
    (("good.example", "10.0.0.0/16"), ("bad.example", "10.1.0.0/16")),
    (("good.example",), ("10.0.0.0/16",)),
]


def is_below(name, base):
    if "/" in base:
        try:
            return ipaddress.ip_address(name) in ipaddress.ip_network(base)
        except ValueError:
            return None
    if name.replace(".", "").isdigit():
        return None
    return name == base or name.endswith("." + base)


def is_allowed(name, permitted, excluded):
    """RFC 5280, section 4.2.1.10, in the fewest words."""
    answers = [answer for base in permitted if (answer := is_below(name, base)) is not None]
    return not any(is_below(name, base) for base in excluded) and (not answers or any(answers))


def stands_for(pattern, host):
    return pattern == host or (pattern.startswith("*.") and host.partition(".")[2] == pattern[2:])


@pytest.mark.parametrize("names", NAMES, ids=",".join)
def test_name_constraints_and_the_subjects_common_name(names):
    """As bettertls has it: constraints are for the alternative names, whatever the subject's CN is."""
    anchor, key_ = root(), key()
    for limits, subject in itertools.product(LIMITS, SUBJECTS):
        ca = authority("CA", anchor, limits=constraints(*limits), key_=key_)
        end = leaf(ca, *names, subject=subject, key_=key_)
        good = all(is_allowed(name.replace("*", "x"), *limits) for name in names)
        for host in ("www.good.example", "10.0.0.1"):
            expected = good and any(stands_for(name, host) for name in names)
            try:
                judge([end, ca], [anchor], host)
                found = True
            except CertificateError as refusal:
                assert refusal.reason in ("NAME_CONSTRAINT", "HOSTNAME_MISMATCH")
                found = False
            assert found == expected, (limits, subject, host)


# --- OpenSSL's trusted certificates -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "roles"),
    [
        ([], {"server", "client"}),
        (["-addtrust", "serverAuth"], {"server"}),
        (["-addtrust", "clientAuth"], {"client"}),
        (["-addtrust", "emailProtection"], set()),
        (["-addtrust", "anyExtendedKeyUsage"], {"server", "client"}),
        (["-addreject", "serverAuth"], {"client"}),
        (["-addreject", "emailProtection"], {"server", "client"}),
        (["-addtrust", "serverAuth", "-addreject", "serverAuth"], set()),
        (["-setalias", "mine", "-addtrust", "serverAuth"], {"server"}),
    ],
)
def test_a_trusted_certificate_is_trusted_for_what_it_says(settings, roles, tmp_path):
    anchor = root()
    (tmp_path / "plain.pem").write_bytes(anchor.pem)
    openssl("x509", "-in", tmp_path / "plain.pem", "-trustout", "-out", tmp_path / "trusted.pem", *settings)
    text = (tmp_path / "trusted.pem").read_bytes()
    assert b"BEGIN TRUSTED CERTIFICATE" in text
    kept = trust.TrustStore.of_pem_untrusted(root("Other").pem + text, "test")
    found = set()
    for role, host in (("server", HOST), ("client", None)):
        end = leaf(anchor, HOST, eku=())
        try:
            trust.judge(trust.Evidence((end.der,), host, role), kept, EVERYTHING)
            found.add(role)
        except CertificateError as refusal:
            assert refusal.reason == "UNKNOWN_CA"
    assert found == roles
    assert parse_chain_untrusted(text) == (anchor.cert.public_bytes(Encoding.DER),)
