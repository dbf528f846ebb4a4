"""Certificates and their keys: what is read, what belongs together, and what is chosen for a name."""

from __future__ import annotations

import base64
import subprocess
import time
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from ssa.credentials import Credential, choose, matches, pair_untrusted, parse_chain_untrusted, parse_key_untrusted
from ssa.credentials.credential import parse_hostnames_untrusted
from ssa.credentials.pem import check_chain_so_far_untrusted, check_key_so_far_untrusted
from ssa.credentials.slot import Slot
from ssa.errors import SSAError
from tests.unit.trust_factory import authority, key, leaf, root, tlv

ROOT = root()
CA = authority("Test CA", ROOT)
EC = leaf(CA, "www.example.org", "*.example.org", "192.0.2.1", "2001:db8::1", subject="ec")
RSA = leaf(CA, "www.example.org", subject="rsa", key_=key("rsa2048"))
OTHER = leaf(CA, "other.example", subject="other")


def refusal(reason="BAD_VALUE", text=""):
    return pytest.raises(SSAError, match=rf"\[{reason}\].*{text}")


def pair(*made, **options):
    options = {"complete": True} | options
    return pair_untrusted([each.pem for each in made], [each.key_pem for each in made], **options)


# --- reading ---


def test_a_chain_is_read_with_whatever_is_around_it():
    text = b"Bag Attributes\n  friendlyName: x\n" + EC.pem + b"subject=CN = y\r\n\r\n" + CA.pem.replace(b"\n", b"\r\n")
    assert parse_chain_untrusted(text) == (EC.der, CA.der)


BROKEN = EC.pem.replace(b"MII", b"MIJ", 1)
CHAINS = [
    (b"", "no PEM"),
    (b"junk", "no PEM"),
    (EC.der, "DER"),
    (EC.key_pem, "no certificate in it, only a private key"),
    (EC.pem[:-20], "cut short"),
    (EC.pem[:300] + CA.pem, "cut short"),
    (EC.pem.replace(b"MII", b"M?I", 1), "certificate 1"),
    (EC.pem + BROKEN, "certificate 2: it cannot be read"),
    (b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "certificate 1"),
    (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "no certificate in it, only X509 CRL"),
    (EC.pem * 300, "bytes is too long, peers accept 102400"),
    (b"x" * (256 << 10) + EC.pem, "too long"),
    (b"-----BEGIN A-----" * 15000, "cut short"),
]


@pytest.mark.parametrize(("text", "words"), CHAINS)
def test_no_chain(text, words):
    with refusal(text=words):
        parse_chain_untrusted(text)


@pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
@pytest.mark.parametrize("made", [EC, RSA])
def test_keys_of_all_formats(made, form):
    text = made.key.private_bytes(Encoding.PEM, form, NoEncryption())
    assert parse_key_untrusted(text).public_key() == made.key.public_key()


def test_a_key_behind_its_parameters():
    text = subprocess.run(
        ["openssl", "ecparam", "-name", "prime256v1", "-genkey"], capture_output=True, check=True
    ).stdout
    assert b"BEGIN EC PARAMETERS" in text
    assert parse_key_untrusted(text).key_size == 256


@pytest.mark.parametrize("kind", [ed25519.Ed25519PrivateKey, ed448.Ed448PrivateKey])
def test_edwards_keys(kind):
    text = kind.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    assert isinstance(parse_key_untrusted(text), kind)


def encrypted(form):
    return EC.key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"secret"))


def pkcs8(private):
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


KEYS = [
    (b"", "no PEM"),
    (EC.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), "DER"),
    (encrypted(PrivateFormat.PKCS8), "encrypted.*openssl pkey"),
    (encrypted(PrivateFormat.TraditionalOpenSSL), "encrypted.*openssl pkey"),
    (EC.pem, "0 private keys"),
    (EC.key_pem + RSA.key_pem, "2 private keys"),
    (EC.key_pem[:100], "cut short"),
    (RSA.key_pem.replace(b"MII", b"AII", 1), "cannot be read"),
    (pkcs8(ec.generate_private_key(ec.SECP256K1())), "secp256k1"),
    (pkcs8(dsa.generate_private_key(1024)), "cannot use this kind of key"),
]


@pytest.mark.parametrize(("text", "words"), KEYS)
def test_no_key_and_nothing_of_it_is_said(text, words):
    with refusal(text=words) as caught:
        parse_key_untrusted(text)
    lines = [line for line in text.split(b"\n") if len(line) > 20 and b"-----" not in line]
    assert not any(
        line[start : start + 12].decode("latin-1") in str(caught.value) for line in lines for start in (0, 8)
    )


def test_a_key_of_openssh_is_one():
    text = EC.key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    with refusal(text="cannot be read"):
        parse_key_untrusted(text)


def test_an_rsa_key_that_would_take_long():
    p, q = (1 << 5119) + 1, (1 << 5120) - 1  # no primes, which nobody looks for
    public = rsa.RSAPublicNumbers(65537, p * q)
    private = rsa.RSAPrivateNumbers(p, q, 3, 3, 3, 3, public).private_key(unsafe_skip_rsa_key_validation=True)
    with refusal(text="10239 bits|10240 bits"):
        parse_key_untrusted(pkcs8(private))


@pytest.mark.parametrize("name", ["p", "q", "d", "dmp1", "dmq1", "iqmp"])
@pytest.mark.parametrize("change", [lambda n: n + 2, lambda n: n << 100_000 | 1, lambda n: 1])
def test_an_rsa_key_that_does_not_add_up(name, change):
    numbers = RSA.key.private_numbers()
    values = {each: getattr(numbers, each) for each in ("p", "q", "d", "dmp1", "dmq1", "iqmp")}
    assert parse_key_untrusted(pkcs1(numbers.public_numbers.n, values)).key_size == 2048
    values[name] = change(values[name])
    began = time.monotonic()
    with refusal(text="damaged|cannot be read"):
        parse_key_untrusted(pkcs1(numbers.public_numbers.n, values))
    assert time.monotonic() - began < 1


def pkcs1(n, values):
    rest = [values[name] for name in ("d", "p", "q", "dmp1", "dmq1", "iqmp")]
    return armoured(tlv(0x30, b"".join(map(integer, (0, n, 65537, *rest)))))


def integer(number):
    return tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def armoured(der):
    return b"-----BEGIN RSA PRIVATE KEY-----\n" + base64.encodebytes(der) + b"-----END RSA PRIVATE KEY-----\n"


@pytest.mark.parametrize("bits", [1024, 2048, 3072])
def test_an_rsa_key_that_adds_up(bits):
    assert parse_key_untrusted(pkcs8(rsa.generate_private_key(65537 if bits > 1024 else 3, bits))).key_size == bits


@pytest.mark.parametrize("size", [1, 26, 27, 28, 60, 100, 4096])
@pytest.mark.parametrize(
    ("text", "check"),
    [
        (EC.pem + CA.pem, check_chain_so_far_untrusted),
        (RSA.key_pem, check_key_so_far_untrusted),
        (EC.pem + CA.pem + EC.key_pem, check_key_so_far_untrusted),
        (EC.key_pem + EC.pem, check_chain_so_far_untrusted),
    ],
)
def test_the_beginning_of_a_text_is_not_refused(text, check, size):
    for end in range(27, len(text) + size, size):
        check(text[:end])


def test_a_beginning_that_nothing_can_mend():
    for text in (b"junk", EC.pem + BROKEN, EC.key_pem + BROKEN):
        with refusal():
            check_chain_so_far_untrusted(text)
    with refusal():
        check_key_so_far_untrusted(EC.key_pem + EC.pem + RSA.key_pem)
    check_chain_so_far_untrusted(b"x" * 4096)
    check_key_so_far_untrusted(b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n")


# --- pairs ---


def test_a_credential():
    (found,) = pair_untrusted([EC.pem + CA.pem], [EC.key_pem], complete=True)
    assert found.name == "CN=ec"
    assert found.chain == (EC.der, CA.der)
    assert found.certificate_pem == EC.pem + CA.pem
    assert found.key_pem == EC.key_pem
    assert found.hostnames == ("www.example.org", "*.example.org", "192.0.2.1", "2001:db8::1")
    assert found.kind == "ec"
    assert len(found.digest) == 32
    assert "PRIVATE" not in repr(found)


def test_two_kinds_side_by_side_in_any_order():
    found = pair_untrusted([RSA.pem, EC.pem], [EC.key_pem, RSA.key_pem], complete=True)
    assert [(each.kind, each.chain) for each in found] == [("rsa", (RSA.der,)), ("ec", (EC.der,))]


def test_one_key_for_two_certificates():
    again = leaf(CA, "again.example", key_=EC.key)
    found = pair_untrusted([EC.pem, again.pem], [EC.key_pem], complete=True)
    assert [each.chain for each in found] == [(EC.der,), (again.der,)]
    assert found[0].digest != found[1].digest


@pytest.mark.parametrize("complete", [True, False])
def test_a_key_of_another_certificate(complete):
    with refusal("KEY_MISMATCH", "CN=ec"):
        pair_untrusted([EC.pem], [RSA.key_pem], complete=complete)


def test_a_chain_in_the_wrong_order():
    with refusal("KEY_MISMATCH", "it belongs to certificate 2 of the chain: put that one first"):
        pair_untrusted([CA.pem + EC.pem], [EC.key_pem], complete=True)


@pytest.mark.parametrize(
    ("certificates", "keys", "reason"),
    [
        ([], [], "NO_CREDENTIALS"),
        ([EC], [], "NO_CREDENTIALS"),
        ([EC, RSA], [EC], "NO_CREDENTIALS"),
        ([], [EC], "KEY_MISMATCH"),
        ([EC], [EC, RSA], "KEY_MISMATCH"),
    ],
)
def test_what_is_not_complete_may_come_yet(certificates, keys, reason):
    texts = [made.pem for made in certificates], [made.key_pem for made in keys]
    with refusal(reason):
        pair_untrusted(*texts, complete=True)
    whole = [made.der for made in certificates if made in keys]
    assert [each.chain[0] for each in pair_untrusted(*texts, complete=False)] == whole


def test_a_certificate_without_names():
    assert pair(leaf(CA))[0].hostnames == ()


def test_names_that_are_none_are_left_out():
    odd = leaf(CA, "ok.example", "*", "*.example", "a.*.example.org", "foo*.example.org", "UPPER.example", ".example")
    assert pair(odd)[0].hostnames == ("ok.example", "upper.example")


def test_names_to_serve_for():
    text = "WWW.Example.org.\n*.example.org, 2001:DB8::1 bücher.example\twww.example.org"
    assert parse_hostnames_untrusted(text) == (
        *("www.example.org", "*.example.org", "2001:db8::1"),
        "xn--bcher-kva.example",
    )
    assert parse_hostnames_untrusted(" \n") == ()
    for bad in ("*", "*.org", "*.*.example.org", "*.192.0.2.1", "a/b", "a:443", "*.1.2.3"):
        with refusal():
            parse_hostnames_untrusted(bad)


# --- choosing ---


def served(name, *hostnames, kind="ec"):
    return Credential(name, (), b"", b"", hostnames, kind, name.encode())


FIRST = served("first", "www.example.org", "example.org")
FIRST_RSA = served("first-rsa", "example.org", kind="rsa")
WILD = served("wild", "*.example.org")
WILD_RSA = served("wild-rsa", "*.example.org", kind="rsa")
SECOND = served("second", "www.example.org", "mail.example.org")
ADDRESS = served("address", "192.0.2.1", "2001:db8::1")
IDN = served("idn", "xn--bcher-kva.example")
NAMELESS = served("nameless", kind="ed25519")
ALL = (FIRST, WILD, FIRST_RSA, WILD_RSA, SECOND, ADDRESS, IDN, NAMELESS)

CHOICES = {
    "www.example.org": "first",  # SECOND is for it, too, and of the same kind
    "example.org": "first first-rsa",
    "EXAMPLE.org.": "first first-rsa",
    "mail.example.org": "second",  # whole names before wildcards
    "ftp.example.org": "wild wild-rsa",
    "192.0.2.1": "address",
    "2001:DB8:0::1": "address",
    "bücher.example": "idn",
    "xn--bcher-kva.example": "idn",
}
DEFAULTS = (None, "", "unknown.example", "a.b.example.org", "org", ".example.org", "a b", "1.192.0.2", "x" * 300, "\0")


@pytest.mark.parametrize(("name", "expected"), CHOICES.items())
def test_choose(name, expected):
    assert [credential.name for credential in choose(ALL, name)] == expected.split()
    assert matches(ALL, name)


@pytest.mark.parametrize("name", DEFAULTS)
def test_by_default_the_first_and_its_twins(name):
    assert choose(ALL, name) == (FIRST, FIRST_RSA)
    assert not matches(ALL, name)


def test_a_wildcard_is_no_address():
    assert choose((FIRST, served("odd", "*.0.2.1")), "192.0.2.1") == (FIRST,)


def test_nothing_to_choose_from():
    assert choose((), "www.example.org") == ()
    assert choose((NAMELESS, FIRST), None) == (NAMELESS,)


LABELS = st.sampled_from(["a", "b", "*"])
NAMES = st.builds("{}.{}.example".format, LABELS, st.sampled_from(["x", "y"]))
CREDENTIALS = st.lists(
    st.builds(
        Credential,
        *(st.text("nm", max_size=2), st.just(()), st.just(b""), st.just(b"")),
        hostnames=st.lists(NAMES, max_size=3).map(tuple),
        kind=st.sampled_from(["rsa", "ec", "ed25519"]),
        digest=st.just(b""),
    ),
    max_size=6,
)


@given(CREDENTIALS, NAMES.map(lambda name: name.replace("*", "c")))
def test_what_is_chosen_is_the_best_there_is(credentials, name):
    chosen = choose(credentials, name)
    kinds = [credential.kind for credential in chosen]
    wildcard = f"*.{name.partition('.')[2]}"
    assert bool(chosen) == bool(credentials)
    assert len(kinds) == len(set(kinds))
    assert all(credential in credentials for credential in chosen)
    wanted = next((n for n in (name, wildcard) if any(n in c.hostnames for c in credentials)), None)
    assert matches(credentials, name) == (wanted is not None)
    if wanted:
        assert all(wanted in credential.hostnames for credential in chosen)
        assert set(kinds) == {credential.kind for credential in credentials if wanted in credential.hostnames}
    elif credentials:
        assert chosen[0] is credentials[0]


# --- one that is renewed ---


def filled(made=EC):
    return Slot("x").with_certificate_untrusted(made.pem).with_key_untrusted(made.key_pem)


@pytest.mark.parametrize("first", ["certificate", "key"])
def test_both_halves_in_either_order(first):
    slot = Slot("x")
    if first == "key":
        slot = slot.with_key_untrusted(EC.key_pem)
        assert slot.certificate == b""
        assert slot.hostnames == ()
        assert slot.describe() == "serves nothing, waits for its certificate"
        slot = slot.with_certificate_untrusted(EC.pem)
    else:
        slot = slot.with_certificate_untrusted(EC.pem)
        assert slot.certificate == EC.pem
        assert "www.example.org" in slot.hostnames
        assert slot.serving is None
        slot = slot.with_key_untrusted(EC.key_pem)
    assert slot.serving == replace(pair(EC)[0], name="x")
    assert not slot.chain
    assert slot.key is None


@pytest.mark.parametrize("first", ["certificate", "key"])
def test_a_renewal_takes_the_old_pairs_place_at_once(first):
    old, new = filled(), leaf(CA, "new.example")
    if first == "key":
        half = old.with_key_untrusted(new.key_pem)
        whole = half.with_certificate_untrusted(new.pem)
    else:
        half = old.with_certificate_untrusted(new.pem)
        whole = half.with_key_untrusted(new.key_pem)
    assert half.serving is old.serving
    assert half.certificate == EC.pem
    assert "waits for" in half.describe()
    assert whole.serving.chain == (new.der,)
    assert whole.serving.key_pem == new.key_pem
    assert whole.hostnames == ("new.example",)


def test_a_renewal_with_the_same_key():
    renewed = leaf(CA, "www.example.org", key_=EC.key)
    assert filled().with_certificate_untrusted(renewed.pem).serving.chain == (renewed.der,)


def test_what_is_bad_changes_nothing():
    slot = filled()
    for change in (slot.with_certificate_untrusted, slot.with_key_untrusted):
        with refusal():
            change(b"junk")
    with refusal():
        slot.with_hostnames_untrusted("a/b")


def test_other_names_outlast_a_renewal_until_they_are_taken_back():
    slot = filled().with_hostnames_untrusted("x.example\n*.x.example\n")
    assert slot.hostnames == slot.serving.hostnames == ("x.example", "*.x.example")
    slot = slot.with_certificate_untrusted(OTHER.pem).with_key_untrusted(OTHER.key_pem)
    assert slot.hostnames == ("x.example", "*.x.example")
    assert slot.with_hostnames_untrusted("\n").hostnames == ("other.example",)
    assert Slot("x").with_hostnames_untrusted("x.example").with_certificate_untrusted(EC.pem).hostnames == (
        "x.example",
    )
