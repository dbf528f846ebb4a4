"""Requests tighten. One that would loosen is refused, by the setting's name."""

from __future__ import annotations

from typing import Any

import pytest

from ssa.errors import PolicyError, SSAError
from ssa.policy.resolve import Narrowing, narrow
from ssa.policy.schema import SETTINGS, Policy
from ssa.suites import SUITES, TLSVersion

V2, V3 = TLSVersion.TLSv1_2, TLSVersion.TLSv1_3
GCM_256, CHACHA, GCM_128, CCM = (suite for suite in SUITES.values() if suite.version == V3)
TLS12 = tuple(suite for suite in SUITES.values() if suite.version == V2)

# the policy's texts, the request, the value that counts
NARROWED: list[tuple[dict[str, str], dict[str, Any], dict[str, Any]]] = [
    ({}, {}, {}),
    ({}, {"min_version": V3}, {"min_version": V3}),
    ({}, {"max_version": V2}, {"max_version": V2}),
    ({}, {"min_version": V2, "max_version": V2}, {"min_version": V2, "max_version": V2}),
    ({}, {"alpn": ("b", "a")}, {"alpn": ("b", "a")}),
    ({"alpn": "a b c"}, {"alpn": ("x", "c", "a")}, {"alpn": ("c", "a")}),
    ({"alpn": "a b"}, {"alpn": None}, {"alpn": ("a", "b")}),
    ({"alpn": "a b"}, {"alpn": ()}, {"alpn": ("a", "b")}),
    ({"session_ttl": "60"}, {"session_ttl": 0}, {"session_ttl": 0}),
    ({"handshake_timeout": "10"}, {"handshake_timeout": 2.5}, {"handshake_timeout": 2.5}),
    ({"handshake_timeout": "10"}, {"handshake_timeout": 60.0}, {"handshake_timeout": 10.0}),
    ({}, {"ciphersuites": (CHACHA, GCM_256)}, {"ciphersuites": (GCM_256, CHACHA)}),
    ({}, {"groups": ("secp256r1", "x448")}, {"groups": ("secp256r1",)}),
    ({}, {"min_rsa_bits": 4096}, {"min_rsa_bits": 4096}),
    ({}, {"trust_store": "system"}, {"trust_store": "system"}),
    ({}, {"data_path": "relay"}, {"data_path": "relay"}),
    ({"data_path": "ktls"}, {"data_path": "ktls"}, {"data_path": "ktls"}),
    ({}, {"client_auth": "optional"}, {"client_auth": "optional"}),
    ({"client_auth": "required"}, {"client_auth": "optional"}, {"client_auth": "required"}),
    ({"client_auth": "optional"}, {"client_auth": "required"}, {"client_auth": "required"}),
    ({}, {"session_tickets": "off"}, {"session_tickets": "off"}),
    ({}, {"truncation": "error"}, {"truncation": "error"}),
    ({}, {"disabled": (GCM_256.name, "ECDHE-RSA-AES128-GCM-SHA256")}, {"ciphersuites": (CHACHA, GCM_128, CCM)}),
    ({}, {"ciphersuites": (GCM_256, CHACHA), "disabled": (CHACHA.name,)}, {"ciphersuites": (GCM_256,)}),
]

# the policy's texts, the request, the setting named
DENIED: list[tuple[dict[str, str], dict[str, Any], str]] = [
    ({"min_version": "TLSv1.3"}, {"min_version": V2}, "min_version: TLSv1.2 asked for, the policy's minimum"),
    ({"max_version": "TLSv1.2"}, {"max_version": V3}, "max_version"),
    ({"max_version": "TLSv1.2"}, {"min_version": V3}, "no version would be left"),
    ({"alpn": "h2"}, {"alpn": ("http/1.1",)}, "alpn: http/1.1 asked for, the policy allows h2"),
    ({"groups": "x25519"}, {"groups": ("secp256r1",)}, "groups"),
    ({"ciphersuites": GCM_256.name}, {"ciphersuites": (CHACHA,)}, "ciphersuites"),
    ({}, {"min_rsa_bits": 1024}, "min_rsa_bits"),
    ({}, {"trust_store": "/tmp/mine"}, "trust_store"),
    ({"data_path": "ktls"}, {"data_path": "relay"}, "data_path"),
    ({"session_tickets": "off"}, {"session_tickets": "on"}, "session_tickets"),
    ({"truncation": "error"}, {"truncation": "as-program"}, "truncation"),
    ({"data_path": "ktls"}, {"data_path": "ktls-or-relay"}, "data_path"),
    ({"ciphersuites": GCM_256.name}, {"disabled": (GCM_256.name,)}, "ciphersuites"),
    ({}, {"disabled": tuple(suite.openssl for suite in TLS12)}, "ciphers: the request disables every suite"),
]


@pytest.mark.parametrize(("texts", "request_", "expected"), NARROWED)
def test_narrowed(texts: dict[str, str], request_: dict[str, Any], expected: dict[str, Any]) -> None:
    policy = Policy.default().replace_many(texts)
    narrowed = narrow(policy, Narrowing(**request_))
    assert {name: getattr(narrowed, name) for name in expected} == expected
    for name in SETTINGS:
        assert SETTINGS[name].parse(narrowed.text(name)) == getattr(narrowed, name)


@pytest.mark.parametrize(("texts", "request_", "named"), DENIED)
def test_denied(texts: dict[str, str], request_: dict[str, Any], named: str) -> None:
    policy = Policy.default().replace_many(texts)
    with pytest.raises(PolicyError) as denied:
        narrow(policy, Narrowing(**request_))
    assert denied.value.reason == "POLICY_DENIED"
    assert named in str(denied.value)


def test_no_opinion_is_the_policy_itself() -> None:
    policy = Policy.default()
    assert narrow(policy, Narrowing()) is policy


def test_a_suite_that_does_not_exist_cannot_be_disabled() -> None:
    with pytest.raises(SSAError, match="RC4-MD5") as refused:
        narrow(Policy.default(), Narrowing(disabled=("RC4-MD5",)))
    assert refused.value.reason == "BAD_VALUE"


def test_a_request_has_a_field_for_every_setting() -> None:
    assert set(Narrowing.__slots__) == {*SETTINGS, "disabled"}
