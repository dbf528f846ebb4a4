"""The verdict can be made in one place only, and whatever breaks on the way to it is a refusal."""

import copy
import dataclasses
import pickle
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssa import trust
from ssa.errors import REASONS, CertificateError
from ssa.trust import path, profile, quorum
from tests.unit.trust_factory import EVERYTHING, HOST, NOW, authority, judge, leaf, root, store

ANCHOR = root()
CA = authority("CA", ANCHOR)
LEAF = leaf(CA, HOST)
STORE = store(ANCHOR)


def refusal(chain=(LEAF, CA), anchors=(ANCHOR,), **options):
    with pytest.raises(CertificateError) as caught:
        judge(chain, anchors, **options)
    return caught.value


# --- Verified ------------------------------------------------------------------------------------------------------


def test_verified_is_not_made_by_others():
    with pytest.raises(TypeError):
        trust.Verified((LEAF.der,), HOST, ())
    for seal in (None, object(), True):
        with pytest.raises(TypeError, match=r"by ssa\.trust only"):
            trust.Verified((LEAF.der,), HOST, (), seal)
    with pytest.raises(TypeError):
        type("Mine", (trust.Verified,), {})


def test_verified_does_not_change():
    verified = judge((LEAF, CA), (ANCHOR,))
    for field in ("path", "identity", "verdicts"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(verified, field, ())
    with pytest.raises((AttributeError, TypeError)):
        verified.more = 1
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(verified, identity="other.example")
    for make_copy in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            make_copy(verified)


# --- evidence and strength -----------------------------------------------------------------------------------------


def test_what_the_caller_gets_wrong_is_a_value_error():
    with pytest.raises(ValueError, match="role"):
        trust.Evidence((), HOST, "peer")
    with pytest.raises(ValueError, match="time zone"):
        trust.Evidence((), HOST, "server", NOW.replace(tzinfo=None))
    with pytest.raises(ValueError, match="'rsa_pkcs1_sha1' is no signature algorithm"):
        trust.Strength(2048, ("rsa_pkcs1_sha1",))


def test_every_scheme_of_the_policy_is_known():
    from ssa.policy.schema import SIGNATURE_ALGORITHMS

    assert trust.Strength(2048, SIGNATURE_ALGORITHMS).signatures


def test_a_policy_without_signatures_accepts_none():
    assert refusal(strength=trust.Strength(2048, ())).reason == "WEAK_SIGNATURE"


# --- failing closed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validator", quorum.VALIDATORS)
@pytest.mark.parametrize("failure", [RuntimeError, ValueError, KeyError, AttributeError, MemoryError, AssertionError])
def test_a_validator_that_breaks_has_not_agreed(validator, failure, monkeypatch):
    def broken(*_):
        raise failure("broken")

    monkeypatch.setitem(quorum.VALIDATORS, validator, broken)
    found = refusal()
    assert found.reason == "BAD_CERTIFICATE"
    assert f"validator {validator} failed" in str(found)
    assert isinstance(found.__cause__, failure)


@pytest.mark.parametrize("check", profile.CHECKS)
def test_a_check_that_breaks_has_not_agreed(check, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setitem(profile.CHECKS, check, broken)
    assert refusal().reason == "BAD_CERTIFICATE"


@pytest.mark.parametrize("name", ["_built", "_path", "_search"])
def test_a_builder_that_breaks_finds_nothing(name, monkeypatch):
    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(path, name, broken)
    chain = (LEAF, CA) if name != "_search" else (LEAF,)
    assert refusal(chain).reason in {"BAD_CERTIFICATE", "UNKNOWN_CA"}


@pytest.mark.parametrize("validator", quorum.VALIDATORS)
def test_one_refusal_is_enough(validator, monkeypatch):
    def refuse(*_):
        raise CertificateError("UNKNOWN_CA", f"{validator} says no")

    monkeypatch.setitem(quorum.VALIDATORS, validator, refuse)
    assert refusal().detail == f"{validator} says no"


def test_a_path_that_openssl_makes_up_is_refused(monkeypatch):
    """The ends of a path are looked at again: it starts at the peer and ends at an anchor."""
    other = leaf(CA, HOST)
    for made_up in ((LEAF, CA), (other, CA, ANCHOR), (ANCHOR,), ()):
        natives = [trust.store.Certificate(part.der).native for part in made_up]
        monkeypatch.setattr(trust.TrustStore, "verify", lambda *_, chain=natives: chain)
        monkeypatch.setattr(path, "_search", lambda _: iter(()))
        assert refusal().reason == "BAD_CERTIFICATE"


def test_openssl_that_forgets_to_check_is_caught(monkeypatch):
    """Were purpose, time and the rest not checked by OpenSSL at all, our own checks would refuse."""
    from tests.unit.trust_factory import CLIENT, constraints

    monkeypatch.setattr(trust.TrustStore, "verify", lambda _, __, first, rest, ___, **____: [
        first.native, *(one.native for one in rest), trust.store.Certificate(ANCHOR.der).native])  # fmt: skip
    monkeypatch.setattr(path, "_judged", lambda _case, found: found)
    for changes, reason in (
        ({"eku": (CLIENT,)}, "WRONG_PURPOSE"),
        ({"end": timedelta(hours=-1)}, "CERTIFICATE_EXPIRED"),
        ({"start": timedelta(hours=1)}, "CERTIFICATE_NOT_YET_VALID"),
        ({"ca": False}, "NOT_A_CA"),
        ({"may": ("digital_signature",)}, "NOT_A_CA"),
        ({"limits": constraints(["example.org"])}, "NAME_CONSTRAINT"),
    ):
        ca = authority("CA", ANCHOR, key_=CA.key, **changes)
        assert refusal((LEAF, ca)).reason == reason


def test_nothing_is_left_for_the_next_connection():
    """OpenSSL keeps one queue of errors a thread: what stays in it, the next SSL object reports as its own."""
    from cryptography.hazmat.bindings._rust import _openssl

    spoiled = LEAF.der[:-1] + bytes([LEAF.der[-1] ^ 1])
    for chain in ((spoiled, CA), (LEAF,), (b"junk",), (LEAF.der[:-1],), (LEAF, CA)):
        outcome(tuple(part if isinstance(part, bytes) else part.der for part in chain))
        assert _openssl.lib.ERR_peek_error() == 0


def test_a_certificate_that_cannot_be_looked_at_spoils_only_its_paths(monkeypatch):
    """Another version of the CA breaks a check; the good one is still found."""
    other = authority("CA", ANCHOR, key_=CA.key, end=timedelta(hours=-1))
    real = profile.CHECKS["purpose"]

    def fragile(case, certificate, place):
        if certificate.der == other.der:
            raise RuntimeError("broken")
        real(case, certificate, place)

    monkeypatch.setitem(profile.CHECKS, "purpose", fragile)
    for others in ((CA, other), (other, CA)):
        assert judge((LEAF, *others), (ANCHOR,))


# --- anything at all -----------------------------------------------------------------------------------------------


def outcome(chain, host=HOST):
    try:
        return trust.judge(trust.Evidence(chain, host, "server"), STORE, EVERYTHING)
    except CertificateError as found:
        refused = found
    assert refused.reason in REASONS
    assert str(refused).isprintable()
    return None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_random_bytes(chain):
    assert outcome(tuple(chain)) is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([LEAF.der, CA.der]), st.data())
def test_a_changed_byte(der, data):
    """Nothing but a refusal comes of it, or the path goes round it: the contents are signed."""
    at = data.draw(st.integers(0, len(der) - 1))
    changed = der[:at] + bytes([der[at] ^ data.draw(st.integers(1, 255))]) + der[at + 1 :]
    assert outcome((changed, CA.der) if der == LEAF.der else (LEAF.der, changed)) is None
    if der == CA.der:
        outcome((LEAF.der, changed, CA.der))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([LEAF.der, CA.der]), st.data())
def test_a_cut_or_grown_certificate(der, data):
    at = data.draw(st.integers(0, len(der) - 1))
    for changed in (der[:at], der[:at] + data.draw(st.binary(min_size=1, max_size=9)) + der[at:]):
        assert outcome((changed, CA.der) if der == LEAF.der else (LEAF.der, changed)) is None


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_host(host):
    assert outcome((LEAF.der, CA.der), host) is None or host.lower().removesuffix(".") == HOST


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(max_codepoint=127), max_size=30), min_size=1, max_size=5))
def test_any_names_in_the_certificate(names):
    from cryptography import x509

    san = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
    end = leaf(CA, more=[(san, False)])
    found = outcome((end.der, CA.der))
    assert found is None or HOST in map(str.lower, names) or "*.example.com" in map(str.lower, names)
