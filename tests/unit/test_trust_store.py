"""Reading trust anchors from disk, and noticing that they changed."""

import os
import threading
import time
from datetime import timedelta

import pytest

from ssa import trust
from ssa.errors import CertificateError
from ssa.trust import store as store_module
from tests.unit.trust_factory import EVERYTHING, HOST, NOW, authority, leaf, root, store


def accepts(loaded, anchor):
    end = leaf(anchor, HOST)
    try:
        return bool(trust.judge(trust.Evidence((end.der,), HOST, "server"), loaded, EVERYTHING))
    except CertificateError:
        return False


@pytest.fixture
def two():
    return root("First"), root("Second")


def test_a_bundle(tmp_path, two):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# First\n" + two[0].pem + b"\n=====\nSubject: CN=Second\n" + two[1].pem + b"trailing words")
    loaded = trust.TrustStore.load(bundle)
    assert (len(loaded), loaded.skipped, loaded.source) == (2, (), str(bundle))
    assert accepts(loaded, two[0])
    assert accepts(loaded, two[1])
    assert not accepts(loaded, root("First"))
    assert len(trust.TrustStore.load(str(bundle))) == 2


@pytest.mark.parametrize("change", [bytes.upper, lambda pem: pem.replace(b"\n", b"\r\n"), lambda pem: b"\xff\n" + pem])
def test_line_ends_and_strange_bytes(tmp_path, two, change):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(change(two[0].pem) + two[1].pem)
    assert accepts(trust.TrustStore.load(bundle), two[1])


def test_a_damaged_block_costs_only_itself(tmp_path, two):
    whole = two[0].pem
    cases = {
        "cut short": whole[: len(whole) // 2] + b"\n",
        "not base64": whole.replace(b"A", b"!", 1),
        "not a certificate": b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "empty": b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    }
    for case, damaged in cases.items():
        bundle = tmp_path / "bundle.pem"
        bundle.write_bytes(damaged + two[1].pem)
        loaded = trust.TrustStore.load(bundle)
        assert len(loaded) == 1, case
        assert accepts(loaded, two[1])


def test_a_key_is_no_anchor_and_a_trusted_certificate_is_one(tmp_path, two):
    bundle = tmp_path / "bundle.pem"
    trusted = two[0].pem.replace(b"CERTIFICATE", b"TRUSTED CERTIFICATE")
    bundle.write_bytes(two[0].key_pem + trusted + two[1].pem)
    loaded = trust.TrustStore.load(bundle)
    assert (len(loaded), loaded.skipped) == (2, ())


def test_one_certificate_as_der(tmp_path, two):
    (tmp_path / "ca.crt").write_bytes(two[0].der)
    assert accepts(trust.TrustStore.load(tmp_path / "ca.crt"), two[0])


def test_the_same_certificate_twice_is_one(tmp_path, two):
    (tmp_path / "bundle.pem").write_bytes(two[0].pem * 3)
    assert len(trust.TrustStore.load(tmp_path / "bundle.pem")) == 1


def test_a_directory(tmp_path, two):
    folder = tmp_path / "certs"
    folder.mkdir()
    (folder / "first.pem").write_bytes(two[0].pem)
    (folder / "second.der").write_bytes(two[1].der)
    (folder / "5ad8a5d6.0").symlink_to("first.pem")  # as in a hashed directory
    (folder / "dangling.0").symlink_to("gone.pem")
    (folder / "README").write_text("Not a certificate")
    (folder / "key.pem").write_bytes(two[0].key_pem)
    (folder / "sub").mkdir()
    loaded = trust.TrustStore.load(folder)
    assert len(loaded) == 2
    assert accepts(loaded, two[0])
    assert accepts(loaded, two[1])


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        (b"", "no certificate in it"),
        (b"just words", "no certificate in it"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "certificate 1: "),
        (b"\x30\x03abc", "bundle.pem: "),
    ],
)
def test_nothing_usable(tmp_path, contents, words):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(contents)
    with pytest.raises(ValueError, match=words) as caught:
        trust.TrustStore.load(bundle)
    assert str(bundle) in str(caught.value)


def test_an_empty_directory(tmp_path):
    with pytest.raises(ValueError, match="no certificate in it"):
        trust.TrustStore.load(tmp_path)


def test_no_such_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="trust store cannot be read") as caught:
        trust.TrustStore.load(tmp_path / "missing.pem")
    assert caught.value.filename == str(tmp_path / "missing.pem")


def test_what_is_no_file(tmp_path):
    os.symlink("loop", tmp_path / "loop")
    with pytest.raises(OSError, match="trust store cannot be read"):
        trust.TrustStore.load(tmp_path / "loop")


def test_a_file_too_big_to_be_one(tmp_path):
    bundle = tmp_path / "bundle.pem"
    with bundle.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(ValueError, match="longer than 16 MiB"):
        trust.TrustStore.load(bundle)


# --- staleness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["written", "replaced", "removed", "touched"])
def test_a_changed_file_is_noticed(tmp_path, two, how):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(two[0].pem)
    loaded = trust.TrustStore.load(bundle)
    assert not loaded.changed()
    if how == "written":
        bundle.write_bytes(two[0].pem + two[1].pem)
    elif how == "replaced":
        (tmp_path / "new").write_bytes(two[1].pem)
        (tmp_path / "new").replace(bundle)
    elif how == "removed":
        bundle.unlink()
    else:
        os.utime(bundle, ns=(1, 1))
    assert loaded.changed()


@pytest.mark.parametrize("how", ["added", "removed", "written"])
def test_a_changed_directory_is_noticed(tmp_path, two, how):
    (tmp_path / "first.pem").write_bytes(two[0].pem)
    loaded = trust.TrustStore.load(tmp_path)
    assert not loaded.changed()
    if how == "added":
        (tmp_path / "second.pem").write_bytes(two[1].pem)
    elif how == "removed":
        (tmp_path / "first.pem").unlink()
    else:
        (tmp_path / "first.pem").write_bytes(two[0].pem + two[1].pem)
    assert loaded.changed()


def test_a_link_that_points_elsewhere_is_noticed(tmp_path, two):
    for name, anchor in zip(("a", "b"), two, strict=True):
        (tmp_path / name).write_bytes(anchor.pem)
    link = tmp_path / "link"
    link.symlink_to("a")
    loaded = trust.TrustStore.load(link)
    assert not loaded.changed()
    link.unlink()
    link.symlink_to("b")
    assert loaded.changed()


# --- the system's --------------------------------------------------------------------------------------------------


def test_the_systems_store():
    if not any(os.path.exists(path) for path in store_module.SYSTEM_PATHS):
        pytest.skip("this system has no trust store")
    loaded = trust.TrustStore.load("system")
    assert len(loaded) > 50
    assert not loaded.changed()
    assert not accepts(loaded, root("Nobody"))


def test_the_systems_store_is_the_first_that_exists(tmp_path, two, monkeypatch):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(two[0].pem)
    monkeypatch.setattr(store_module, "SYSTEM_PATHS", (str(tmp_path / "missing"), str(bundle), str(tmp_path)))
    assert trust.TrustStore.load("system").source == str(bundle)
    monkeypatch.setattr(store_module, "SYSTEM_PATHS", (str(tmp_path / "missing"),))
    with pytest.raises(FileNotFoundError, match="no trust store"):
        trust.TrustStore.load("system")


# --- use -----------------------------------------------------------------------------------------------------------


def test_intermediates_are_remembered_not_trusted(tmp_path, two):
    """What stays parsed is bounded, and helps no chain that lacks it."""
    (tmp_path / "bundle.pem").write_bytes(two[0].pem)
    loaded = trust.TrustStore.load(tmp_path / "bundle.pem")
    ca = authority("CA", two[0])
    end = leaf(ca, HOST)
    evidence = trust.Evidence((end.der, ca.der), HOST, "server")
    for _ in range(3):
        assert len(trust.judge(evidence, loaded, EVERYTHING).path) == 3
    assert loaded.get(ca.der) is not None
    assert len(loaded) == 1
    with pytest.raises(CertificateError, match="CN=CA, which is neither"):
        trust.judge(trust.Evidence((end.der,), HOST, "server"), loaded, EVERYTHING)
    with pytest.raises(CertificateError):
        trust.judge(trust.Evidence((ca.der,), HOST, "server"), loaded, EVERYTHING)


def test_what_is_remembered_is_bounded(two, monkeypatch):
    monkeypatch.setattr(store_module, "_MAX_RECENT", 4)
    kept = store(two[0])
    for number in range(10):
        ca = authority(f"CA {number}", two[0])
        trust.judge(trust.Evidence((leaf(ca, HOST).der, ca.der), HOST, "server"), kept, EVERYTHING)
    assert (len(kept._intermediates), len(kept._judgements)) == (4, 4)
    assert kept.get(ca.der) is not None
    many = leaf(two[0], *(f"host{number}.example.com" for number in range(2000)))
    trust.judge(trust.Evidence((many.der,), "host1.example.com", "server"), kept, EVERYTHING)
    assert many.der not in {question[0][0] for question in kept._judgements._values}


def test_the_same_question_has_the_same_answer(two):
    """And whatever differs in it is another question."""
    kept, end = store(two[0]), leaf(two[0], HOST, "example.com")
    evidence = trust.Evidence((end.der,), HOST, "server", NOW)
    first = trust.judge(evidence, kept, EVERYTHING)
    assert trust.judge(evidence, kept, EVERYTHING) is first
    assert trust.judge(trust.Evidence((end.der,), "WWW.example.com.", "server"), kept, EVERYTHING) is first
    assert trust.judge(trust.Evidence((end.der,), "example.com", "server"), kept, EVERYTHING).identity == "example.com"
    for other, strength, anchors in (
        (trust.Evidence((end.der,), "example.org", "server"), EVERYTHING, kept),
        (trust.Evidence((end.der,), None, "client"), EVERYTHING, kept),
        (trust.Evidence((end.der,), HOST, "server", NOW + timedelta(days=31)), EVERYTHING, kept),
        (trust.Evidence((end.der,), HOST, "server", NOW - timedelta(days=2)), EVERYTHING, kept),
        (evidence, trust.Strength(2048, ("ed25519",)), kept),
        (evidence, EVERYTHING, store(two[1])),
    ):
        with pytest.raises(CertificateError):
            trust.judge(other, anchors, strength)
    assert trust.judge(evidence, kept, EVERYTHING) is first


def test_several_threads(two):
    shared, end = store(*two), leaf(two[0], HOST)
    outcomes = []

    def work():
        for number in range(50):
            when = NOW + timedelta(days=31 if number % 2 else 0)
            try:
                outcomes.append(trust.judge(trust.Evidence((end.der,), HOST, "server", when), shared, EVERYTHING))
            except CertificateError as refusal:
                outcomes.append(refusal.reason)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 200
    assert outcomes.count("CERTIFICATE_EXPIRED") == 100


def test_a_usual_judgement_is_fast(two):
    """Well under a millisecond; the bound is for a machine that does something else, too."""
    ca = authority("CA", two[0])
    shared, took = store(*two), []
    for _ in range(20):
        evidence = trust.Evidence((leaf(ca, HOST).der, ca.der), HOST, "server")
        start = time.perf_counter()
        trust.judge(evidence, shared, EVERYTHING)
        took.append(time.perf_counter() - start)
    assert min(took) < 0.003
