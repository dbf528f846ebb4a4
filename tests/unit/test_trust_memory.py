"""A remembered verdict stands for its question alone: the chain, the name, the role, the policy and the store."""

import os
from datetime import timedelta

import pytest

from ssa import trust
from ssa.errors import CertificateError
from ssa.policy.schema import Policy
from ssa.trust import store as store_module
from ssa.worker import contents
from ssa.worker.judge import judge
from tests.unit.trust_factory import CLIENT, EVERYTHING, HOST, NOW, SERVER, authority, leaf, root, store

OTHER = "www.example.org"
DAY, MOMENT = timedelta(days=1), timedelta(seconds=1)


class Remembered:
    """A chain of three that was accepted, and what was remembered of it. Each certificate has a period of its own."""

    def __init__(self, **options):
        self.root = root(start=-9 * DAY, end=90 * DAY)
        self.ca = authority("CA", self.root, start=-2 * DAY, end=5 * DAY)
        self.leaf = leaf(self.ca, HOST, OTHER, start=-4 * DAY, end=20 * DAY, **options)
        self.chain = self.leaf.der, self.ca.der
        self.store = store(self.root)
        self.first = self.asked()

    def asked(self, chain=None, host=HOST, *, role="server", when=NOW, strength=EVERYTHING, anchors=None):
        return trust.judge(trust.Evidence(chain or self.chain, host, role, when), anchors or self.store, strength)

    def questions(self):
        return len(self.store._judgements)


@pytest.fixture
def remembered():
    return Remembered()


def test_the_same_question_finds_it(remembered):
    assert remembered.asked() is remembered.first
    assert remembered.asked(tuple(bytes(bytearray(der)) for der in remembered.chain)) is remembered.first
    assert remembered.questions() == 1


def test_it_counts_from_the_latest_beginning_to_the_earliest_end(remembered):
    """Here both are the intermediate's. Each end of the period is in it (RFC 5280 section 4.1.2.5)."""
    first = remembered.first
    for when in (NOW - 2 * DAY, NOW + 5 * DAY):
        assert remembered.asked(when=when) is first
        assert remembered.store.recall(next(iter(remembered.store._judgements._values)), when) is first


@pytest.mark.parametrize(
    ("when", "reason"),
    [(NOW - 2 * DAY - MOMENT, "CERTIFICATE_NOT_YET_VALID"), (NOW + 5 * DAY + MOMENT, "CERTIFICATE_EXPIRED")],
    ids=["the clock is set back", "expired"],
)
def test_outside_of_it_the_peer_is_refused(remembered, when, reason):
    with pytest.raises(CertificateError) as refusal:
        remembered.asked(when=when)
    assert (refusal.value.reason, remembered.asked()) == (reason, remembered.first)


def test_a_clock_that_jumps_there_and_back(remembered):
    for when in (NOW + 400 * DAY, NOW - 400 * DAY):
        with pytest.raises(CertificateError):
            remembered.asked(when=when)
        assert remembered.asked() is remembered.first


def test_another_name_is_another_question(remembered):
    second = remembered.asked(host=OTHER)
    assert (second.identity, second is remembered.first) == (OTHER, False)
    with pytest.raises(CertificateError):
        remembered.asked(host="www.example.net")
    with pytest.raises(CertificateError):
        remembered.asked(host="192.0.2.1")


def test_another_role_is_another_question(remembered):
    with pytest.raises(CertificateError):
        remembered.asked(host=None, role="client")
    both = Remembered(eku=(SERVER, CLIENT))
    assert both.asked(host=None, role="client") is not both.first


def test_any_byte_makes_another_chain(remembered):
    """Also one that nobody looks at, in the signature's last part; and certificates that are moved or left out."""
    own, ca = remembered.chain
    changed = [(own[:at] + bytes([own[at] ^ 1]) + own[at + 1 :], ca) for at in (5, len(own) // 2, len(own) - 1)]
    for chain in (*changed, (own, ca[:-1] + bytes([ca[-1] ^ 1])), (own + b"\0", ca), (own,), (ca, own)):
        with pytest.raises(CertificateError):
            remembered.asked(chain)
    joined = own + ca
    with pytest.raises(CertificateError):  # the same bytes in all, cut elsewhere
        remembered.asked((joined[: len(own) - 1], joined[len(own) - 1 :]))
    assert remembered.asked((own, ca, remembered.root.der)) is not remembered.first
    assert remembered.asked() is remembered.first


def test_what_the_policy_demands_is_in_the_question(remembered):
    for strength in (
        trust.Strength(2048, ("ed25519",)),
        trust.Strength(2048, EVERYTHING.signature_algorithms, verify_depth=0),
    ):
        with pytest.raises(CertificateError):
            remembered.asked(strength=strength)
    assert remembered.asked(strength=trust.Strength(3072, EVERYTHING.signature_algorithms)) is not remembered.first


def test_a_policy_write_counts_for_the_next_handshake(remembered):
    before = Policy.default()
    assert judge(remembered.store, before, HOST, remembered.chain) is judge(
        remembered.store, before, HOST, remembered.chain
    )
    with pytest.raises(CertificateError):
        judge(remembered.store, before.replace_many({"verify_depth": "0"}), HOST, remembered.chain)
    with pytest.raises(CertificateError):
        judge(remembered.store, before.replace_many({"signature_algorithms": "ed25519"}), HOST, remembered.chain)
    assert judge(remembered.store, before.replace_many({}), HOST, remembered.chain)


def test_a_store_that_was_read_again_knows_nothing(remembered):
    with pytest.raises(CertificateError):
        remembered.asked(anchors=store(root("Other")))
    again = store(remembered.root)
    assert remembered.asked(anchors=again) is not remembered.first


def test_no_worker_has_the_verdicts_of_another():
    """Two workers are given the same store: what one was shown, the other judges by itself."""
    made = Remembered()
    file = contents.of_store(made.store)
    try:
        one, other = contents.store(os.dup(file)), contents.store(os.dup(file))
    finally:
        os.close(file)
    assert len(one._judgements) == len(other._judgements) == 0  # nothing comes with the anchors
    mine = made.asked(anchors=one)
    assert (len(one._judgements), len(other._judgements)) == (1, 0)
    assert made.asked(anchors=other) is not mine


def test_their_number_is_bounded(monkeypatch):
    monkeypatch.setattr(store_module, "_MAX_RECENT", 3)
    made = Remembered()
    for number in range(8):
        end = leaf(made.ca, f"host{number}.example.com")
        made.asked((end.der, made.ca.der), f"host{number}.example.com")
    assert made.questions() == 3


def test_a_refusal_is_not_remembered(remembered):
    for number in range(5):
        with pytest.raises(CertificateError):
            remembered.asked(host=f"host{number}.example.net")
    assert remembered.questions() == 1
