"""The settings: every parser against a table, and against whatever hypothesis thinks of."""

from __future__ import annotations

import dataclasses

import pytest
from cryptography.hazmat.bindings._rust import _openssl
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from ssa.policy.live import LivePolicy
from ssa.policy.schema import GROUPS, MAX_TEXT, SETTINGS, SIGNATURE_ALGORITHMS, BadValue, Policy
from ssa.suites import BY_OPENSSL_NAME, SUITES, TLSVersion

GCM_256, CHACHA = SUITES["TLS_AES_256_GCM_SHA384"], SUITES["TLS_CHACHA20_POLY1305_SHA256"]
RSA_GCM_128 = BY_OPENSSL_NAME["ECDHE-RSA-AES128-GCM-SHA256"]

# name, what is written, its value, what is read back
ACCEPTED = [
    ("min_version", "TLSv1.3", TLSVersion.TLSv1_3, "TLSv1.3"),
    ("min_version", "  TLSv1.2\n", TLSVersion.TLSv1_2, "TLSv1.2"),
    ("max_version", "TLSv1.2\r\n", TLSVersion.TLSv1_2, "TLSv1.2"),
    ("ciphersuites", "TLS_AES_256_GCM_SHA384", (GCM_256,), "TLS_AES_256_GCM_SHA384"),
    (
        "ciphersuites",
        "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_256_GCM_SHA384\n",
        (CHACHA, GCM_256),
        "TLS_CHACHA20_POLY1305_SHA256\nTLS_AES_256_GCM_SHA384",
    ),
    ("ciphers", "ECDHE-RSA-AES128-GCM-SHA256", (RSA_GCM_128,), "ECDHE-RSA-AES128-GCM-SHA256"),
    ("ciphers", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", (RSA_GCM_128,), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
    ("groups", "P-256", ("secp256r1",), "P-256"),
    ("groups", "X25519, prime256v1 P-384", ("x25519", "secp256r1", "secp384r1"), "X25519\nprime256v1\nP-384"),
    ("groups", "X25519MLKEM768 ffdhe2048", ("X25519MLKEM768", "ffdhe2048"), "X25519MLKEM768\nffdhe2048"),
    ("signature_algorithms", "ed25519:rsa_pss_rsae_sha256", ("ed25519", "rsa_pss_rsae_sha256"), None),
    ("min_rsa_bits", "3072\n", 3072, "3072"),
    ("min_rsa_bits", "1024", 1024, "1024"),
    ("min_rsa_bits", "16384", 16384, "16384"),
    ("min_rsa_bits", "02048", 2048, "02048"),
    ("verify_depth", "3\n", 3, "3"),
    ("verify_depth", "0", 0, "0"),
    ("trust_store", "system", "system", "system"),
    ("trust_store", "/etc/ssl/my anchors.pem\n", "/etc/ssl/my anchors.pem", "/etc/ssl/my anchors.pem"),
    ("alpn", "h2 http/1.1", ("h2", "http/1.1"), "h2\nhttp/1.1"),
    ("alpn", "\n", (), ""),
    ("alpn", "a" * 255, ("a" * 255,), "a" * 255),
    ("handshake_timeout", "0.50", 0.5, "0.50"),
    ("handshake_timeout", "3600", 3600.0, "3600"),
    ("session_ttl", "0", 0, "0"),
    ("session_ttl", "604800", 604800, "604800"),
    ("data_path", "relay", "relay", "relay"),
    ("data_path", "ktls-or-relay\n", "ktls-or-relay", "ktls-or-relay"),
    ("truncation", "error", "error", "error"),
]

# name, what is written, what the message has to say
REFUSED = [
    ("min_version", "TLSv1.1", "ssa knows no other versions, expected TLSv1.2 or TLSv1.3"),
    ("min_version", "SSLv3", "ssa knows no other versions"),
    ("min_version", "tlsv1.3", "expected TLSv1.2 or TLSv1.3"),
    ("min_version", "", "expected TLSv1.2"),
    ("min_version", "TLSv1.2\nTLSv1.3", "more than one line"),
    ("max_version", "1.3", "expected TLSv1.2 or TLSv1.3"),
    ("ciphersuites", "", "at least one"),
    ("ciphersuites", " :,\n", "at least one"),
    ("ciphersuites", "TLS_AES_256_GCM_SHA348", "did you mean TLS_AES_256_GCM_SHA384?"),
    ("ciphersuites", "ECDHE-RSA-AES128-GCM-SHA256", "TLSv1.2 suite, it belongs in ciphers"),
    ("ciphersuites", "TLS_AES_256_GCM_SHA384 TLS_AES_256_GCM_SHA384", "twice"),
    ("ciphers", "TLS_AES_256_GCM_SHA384", "TLSv1.3 suite, it belongs in ciphersuites"),
    ("ciphers", "HIGH:!aNULL", "'HIGH'"),
    ("ciphers", "AES128-SHA", "not a TLSv1.2 suite"),
    (
        "ciphers",
        "ECDHE-RSA-AES128-GCM-SHA256 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        "it is the same as 'ECDHE-RSA-AES128-GCM-SHA256'",
    ),
    ("groups", "secp256r1 P-256", "it is the same as 'secp256r1'"),
    ("groups", "secp256k1", "did you mean secp256r1?"),
    ("groups", "sect163k1", "not a group"),
    ("signature_algorithms", "rsa_pkcs1_sha1", "not a signature algorithm"),
    ("min_rsa_bits", "1023", "1024 to 16384"),
    ("min_rsa_bits", "16385", "1024 to 16384"),
    ("min_rsa_bits", "-2048", "whole number"),
    ("min_rsa_bits", "2048.0", "whole number"),
    ("min_rsa_bits", "0x800", "whole number"),
    ("min_rsa_bits", "9" * 4000, "whole number"),
    ("verify_depth", "101", "0 to 100"),
    ("verify_depth", "-1", "whole number"),
    ("trust_store", "", "absolute path"),
    ("trust_store", "etc/ssl", "absolute path"),
    ("alpn", "h2,h2", "twice"),
    ("alpn", "a" * 256, "1 to 255"),
    ("session_ttl", "604801", "604800"),
    ("session_ttl", "-1", "0 to"),
    ("handshake_timeout", "0", "above 0"),
    ("handshake_timeout", "0.0", "above 0"),
    ("handshake_timeout", "3600.1", "up to 3600"),
    ("handshake_timeout", "-1", "seconds"),
    ("handshake_timeout", "1e3", "seconds"),
    ("handshake_timeout", "nan", "seconds"),
    ("handshake_timeout", "5s", "seconds"),
    ("handshake_timeout", "9" * 4000, "seconds"),
    ("data_path", "kernel", "expected one of: ktls-or-relay, ktls, relay"),
    ("data_path", "ktsl", "did you mean ktls?"),
    ("truncation", "strict", "expected one of: as-program, error"),
]

any_setting = st.sampled_from(sorted(SETTINGS))
words = st.sampled_from(sorted([*SUITES, *BY_OPENSSL_NAME, *GROUPS, *SIGNATURE_ALGORITHMS, "P-256", "h2", "TLSv1.3"]))
likely_text = st.lists(st.one_of(words, st.text(max_size=8)), max_size=8).map(" ".join)


@pytest.mark.parametrize(("name", "text", "value", "shown"), ACCEPTED)
def test_accepted(name: str, text: str, value: object, shown: str | None) -> None:
    policy = Policy.default().replace(name, text)
    assert getattr(policy, name) == value
    assert policy.text(name) == (shown if shown is not None else policy.text(name))


@pytest.mark.parametrize(("name", "text", "message"), REFUSED)
def test_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(BadValue, match=rf"^{name}: ") as refused:
        Policy.default().replace(name, text)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", sorted(SETTINGS))
@pytest.mark.parametrize("dirt", ["\0", "\x1b[0m", "\x7f", "é", "\u2028", "\udc80", "a\tb"])
def test_every_setting_refuses_what_is_not_printable_ascii(name: str, dirt: str) -> None:
    with pytest.raises(BadValue, match=r"not allowed, expected printable ASCII"):
        Policy.default().replace(name, f"x{dirt}x")


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_refuses_more_than_a_page(name: str) -> None:
    with pytest.raises(BadValue, match="too long"):
        Policy.default().replace(name, " " * (MAX_TEXT + 1))


@given(any_setting, st.one_of(st.text(), likely_text))
def test_parsers_raise_bad_value_only_and_read_back(name: str, text: str) -> None:
    row = SETTINGS[name]
    try:
        value, written = row.parse(text), row.text_untrusted(text)
    except BadValue as bad:
        message = str(bad)
    else:
        message = "fine"
        assert row.parse(written) == value
        assert row.text_untrusted(written) == written
        assert row.parse(row.show(value)) == value
    assert message.isprintable()
    assert len(message) < 2000


@given(st.text())
def test_an_unknown_setting_is_a_bad_value(name: str) -> None:
    if name not in SETTINGS:
        with pytest.raises(BadValue, match="is not a setting"):
            Policy.default().replace(name, "1")


def test_the_closest_setting_is_named() -> None:
    with pytest.raises(BadValue, match=r"did you mean min_version\?"):
        Policy.default().replace("minversion", "TLSv1.3")


def test_there_is_a_field_for_every_setting() -> None:
    assert [field.name for field in dataclasses.fields(Policy)] == [*SETTINGS, "texts"]
    assert all(row.name == name and row.doc and row.stricter for name, row in SETTINGS.items())


def test_defaults_are_what_they_say() -> None:
    policy = Policy.default()
    assert policy.replace_many({name: row.default for name, row in SETTINGS.items()}) == policy
    assert all(policy.text(name) == row.default for name, row in SETTINGS.items())
    assert policy.alpn == ()
    assert (policy.min_version, policy.max_version) == (TLSVersion.TLSv1_2, TLSVersion.TLSv1_3)


def test_versions_have_to_leave_one() -> None:
    default = Policy.default()
    low = default.replace("max_version", "TLSv1.2")
    with pytest.raises(BadValue, match="no version would be left"):
        low.replace("min_version", "TLSv1.3")
    high = low.replace_many({"min_version": "TLSv1.3", "max_version": "TLSv1.3"})
    assert high.min_version == high.max_version == TLSVersion.TLSv1_3


def test_equal_by_value_not_by_spelling() -> None:
    one, other = (Policy.default().replace("groups", text) for text in ("P-256", "secp256r1"))
    assert one == other
    assert hash(one) == hash(other)
    assert one.text("groups") != other.text("groups")


def test_a_policy_does_not_change() -> None:
    policy = Policy.default()
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.min_rsa_bits = 1
    with pytest.raises(TypeError):
        policy.texts["min_rsa_bits"] = "1"


@pytest.mark.parametrize("name", GROUPS)
def test_openssl_takes_every_group(name: str) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    assert _openssl.lib.SSL_CTX_set1_curves_list(context._context, name.encode()) == 1


@pytest.mark.parametrize("name", SIGNATURE_ALGORITHMS)
def test_openssl_takes_every_signature_algorithm(name: str) -> None:
    context = SSL.Context(SSL.TLS_METHOD)
    assert _openssl.lib.SSL_CTX_set1_sigalgs_list(context._context, name.encode()) == 1


# --- the policy in force ---


def test_live_policy_changes_whole_or_not_at_all() -> None:
    live = LivePolicy(Policy.default())
    assert live.generation == 0
    live.set("min_version", "TLSv1.3")
    assert (live.current.min_version, live.generation) == (TLSVersion.TLSv1_3, 1)
    before = live.current
    with pytest.raises(BadValue):
        live.set_many({"min_rsa_bits": "4096", "alpn": "h2 h2"})
    assert live.current is before
    assert live.generation == 1


def test_live_policy_asks_its_check_first() -> None:
    def check(policy: Policy) -> None:
        if policy.trust_store != "system":
            raise BadValue("trust_store: there is no such file")

    live = LivePolicy(Policy.default(), check)
    with pytest.raises(BadValue, match="no such file"):
        live.set("trust_store", "/nowhere")
    assert live.current.trust_store == "system"
    with pytest.raises(BadValue, match="no such file"):
        LivePolicy(Policy.default().replace("trust_store", "/nowhere"), check)
