"""Which settings a live connection does not meet: each row of the table, without a connection."""

from types import SimpleNamespace

import pytest

from ssa.errors import error
from ssa.policy.hosts import peer
from ssa.policy.schema import SETTINGS, Policy
from ssa.suites import SUITES, TLSVersion
from ssa.worker.compliance import _signatures
from tests.unit import trust_factory

V2, V3 = SUITES["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"], SUITES["TLS_AES_128_GCM_SHA256"]

PIN = "*.example sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="


def made(suite=V3, refusal=None, **other):
    """A connection that meets the default policy."""
    known = {"group": "x25519", "signatures": ("ecdsa_secp256r1_sha256",), "alpn": "", "data_path": "ktls",
             "cut_is_error": False, "is_anonymous": False, "connected_to": peer("www.example.com", "192.0.2.7"),
             "took": 0.1, "resumed": False, "session_age": 0.0}  # fmt: skip
    return SimpleNamespace(suite=suite, version=suite.version, refusal=lambda _: refusal, **known | other)


def test_every_setting_says_how_it_is_judged():
    assert [name for name, row in SETTINGS.items() if row.unmet is None] == []


@pytest.mark.parametrize("suite", [V2, V3])
def test_what_was_made_under_a_policy_meets_it(suite):
    assert Policy.default().unmet(made(suite)) == []
    assert Policy.default().unmet(made(suite, resumed=True, session_age=7200)) == []
    assert Policy.default().unmet(made(suite, signatures=(), group="", alpn="h2", data_path="relay")) == []


@pytest.mark.parametrize(
    ("setting", "value", "connection", "words"),
    [
        ("min_version", "TLSv1.3", made(V2), "TLSv1.2 is below TLSv1.3"),
        ("max_version", "TLSv1.2", made(V3), "TLSv1.3 is above TLSv1.2"),
        ("ciphersuites", "TLS_AES_256_GCM_SHA384", made(V3), f"{V3.name} is not among TLS_AES_256_GCM_SHA384"),
        (
            "ciphers",
            "ECDHE-RSA-AES256-GCM-SHA384",
            made(V2),
            f"{V2.name} is not among TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        ),
        ("groups", "X25519MLKEM768", made(), "x25519 is not among X25519MLKEM768"),
        ("groups", "X25519 P-256", made(group="secp384r1"), "secp384r1 is not among x25519, secp256r1"),
        ("signature_algorithms", "ed25519", made(), "ecdsa_secp256r1_sha256 is not among ed25519"),
        (
            "signature_algorithms",
            "ed25519",
            made(signatures=("ed25519",), refusal=error("WEAK_SIGNATURE", "CN=x is signed by RSA")),
            "CN=x is signed by RSA",
        ),
        ("min_rsa_bits", "3072", made(refusal=error("WEAK_KEY", "CN=x has 2048 bits")), "CN=x has 2048 bits"),
        (
            "trust_store",
            "/other.pem",
            made(refusal=error("UNKNOWN_CA", "CN=y")),
            str(error("UNKNOWN_CA", "CN=y").strerror),
        ),
        ("client_auth", "required", made(is_anonymous=True), "the client has shown no certificate"),
        ("pinned_keys", PIN, made(refusal=error("KEY_NOT_PINNED", "b.example has others")), "b.example has others"),
        ("allowed_hosts", "example.com", made(), "www.example.com (192.0.2.7) is not among example.com"),
        ("denied_hosts", "192.0.2.0/24", made(), "www.example.com (192.0.2.7) is denied by 192.0.2.0/24"),
        ("alpn", "h2", made(alpn="smtp"), "smtp is not among h2"),
        ("handshake_timeout", "0.05", made(), "it took 0.1 s, more than 0.05 s"),
        ("session_ttl", "60", made(resumed=True, session_age=61), "a session of 61 s was resumed, the limit is 60 s"),
        ("session_ttl", "0", made(resumed=True), "a session of 0 s was resumed, the limit is 0 s"),
        ("session_tickets", "off", made(resumed=True), "a session was resumed"),
        ("data_path", "ktls", made(data_path="relay"), "relay is not ktls"),
        ("data_path", "relay", made(), "ktls is not relay"),
        ("truncation", "error", made(), "as-program is not error"),
    ],
)
def test_what_is_not_met_is_named(setting, value, connection, words):
    assert Policy.default().replace(setting, value).unmet(connection) == [f"{setting}: {words}"]


def test_all_that_is_not_met_is_named():
    policy = Policy.default().replace_many({"min_version": "TLSv1.3", "groups": "x448", "data_path": "relay"})
    assert [words.partition(":")[0] for words in policy.unmet(made(V2))] == ["min_version", "groups", "data_path"]


def test_what_does_not_touch_the_version_in_use_is_met():
    policy = Policy.default().replace_many(
        {"ciphers": "ECDHE-RSA-AES256-GCM-SHA384", "ciphersuites": "TLS_AES_128_GCM_SHA256"}
    )
    assert policy.unmet(made(V3)) == []


def test_what_a_key_can_have_signed_with():
    leaf = trust_factory.leaf(trust_factory.root(), "a.example").der
    assert _signatures(leaf, TLSVersion.TLSv1_3) == ("ecdsa_secp256r1_sha256",)
    assert len(_signatures(leaf, TLSVersion.TLSv1_2)) == 3
    assert _signatures(b"junk", TLSVersion.TLSv1_3) == ()
