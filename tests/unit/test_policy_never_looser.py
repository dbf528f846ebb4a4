"""No request, and no sequence of requests, makes any setting looser than the administrator's."""

from __future__ import annotations

from dataclasses import fields
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ssa.errors import PolicyError
from ssa.policy.hosts import Peer, denial, refusal
from ssa.policy.parsers import CLIENT_AUTHS, DATA_PATHS, SESSION_TICKETS, TRUNCATIONS
from ssa.policy.pins import unpinned
from ssa.policy.resolve import Narrowing, narrow
from ssa.policy.schema import SETTINGS, BadValue, Policy

if TYPE_CHECKING:
    from collections.abc import Callable

HOSTS = ["a.example", "*.example", "*.a.example", "b.test", "192.0.2.0/24", "192.0.2.1", "2001:db8::/32"]
PEERS = [
    Peer(name, ip_address(address))
    for name in ("a.example", "b.a.example", "b.test", "other.test")
    for address in ("192.0.2.1", "192.0.2.2", "198.51.100.1", "2001:db8::1", "::ffff:192.0.2.1")
]
KEYS = ["sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", f"sha256/{'A' * 43}="]
PINS = [f"{host} {key}" for host in HOSTS if "/" not in host for key in KEYS]
DIGESTS = [Policy.default().replace("pinned_keys", f"x.test {key}").pinned_keys[0].digest for key in KEYS]


def some(words: list[str], least: int = 1, by: str = " ") -> Any:
    """Texts of a list that has some of the words."""
    return st.lists(st.sampled_from(words), min_size=least, max_size=6, unique=True).map(by.join)


# Texts that each setting may have.
TEXTS: dict[str, Any] = {
    **{row.name: st.sampled_from(row.words) for row in SETTINGS.values() if row.words and not row.many},
    **{row.name: some(row.default.split("\n")) for row in SETTINGS.values() if row.words and row.many},
    "min_rsa_bits": st.integers(1024, 16384).map(str),
    "verify_depth": st.integers(0, 100).map(str),
    "trust_store": st.sampled_from(["system", "/a.pem", "/b.pem"]),
    "pinned_keys": some(PINS, 0, "\n"),
    "allowed_hosts": some(HOSTS, 0),
    "denied_hosts": some(HOSTS, 0),
    "alpn": some(["h2", "http/1.1", "smtp"], 0),
    "handshake_timeout": st.integers(1, 3600).map(str),
    "session_ttl": st.integers(0, 604800).map(str),
}


def at_least(value: Any, policy: Any) -> bool:
    return bool(value >= policy)


def at_most(value: Any, policy: Any) -> bool:
    return bool(value <= policy)


def same(value: Any, policy: Any) -> bool:
    return bool(value == policy)


def fewer(value: tuple[Any, ...], policy: tuple[Any, ...]) -> bool:
    return len(value) > 0 and set(value) <= set(policy)


def later(words: tuple[str, ...]) -> Callable[[str, str], bool]:
    return lambda value, policy: words.index(value) >= words.index(policy)


def hosts(allows: Callable[[Any, Peer], str]) -> Callable[[Any, Any], bool]:
    return lambda value, policy: not any(allows(policy, peer) and not allows(value, peer) for peer in PEERS)


def pins(value: Any, policy: Any) -> bool:
    return not any(
        unpinned(policy, str(peer.name), [digest]) and not unpinned(value, str(peer.name), [digest])
        for peer in PEERS
        for digest in DIGESTS
    )


# Whether a value is as strict as the policy's, or stricter. It is said here anew, apart from `ssa.policy.narrowing`.
STRICT: dict[str, Callable[[Any, Any], bool]] = {
    "min_version": at_least,
    "max_version": at_most,
    "ciphersuites": fewer,
    "ciphers": fewer,
    "groups": fewer,
    "signature_algorithms": fewer,
    "min_rsa_bits": at_least,
    "verify_depth": at_most,
    "trust_store": same,
    "client_auth": later(CLIENT_AUTHS),
    "pinned_keys": pins,
    "allowed_hosts": hosts(refusal),
    "denied_hosts": hosts(denial),
    "alpn": lambda value, policy: not policy or fewer(value, policy),
    "handshake_timeout": at_most,
    "session_ttl": at_most,
    "session_tickets": later(SESSION_TICKETS),
    "data_path": lambda value, policy: policy in {DATA_PATHS[0], value},
    "truncation": later(TRUNCATIONS),
    "coercion": same,
}

changes = st.fixed_dictionaries({}, optional=TEXTS)


def changed(texts: dict[str, str]) -> Policy:
    """A policy with these texts, or as many of them as agree."""
    policy = Policy.default()
    for name, text in texts.items():
        try:
            policy = policy.replace(name, text)
        except BadValue:  # min_version above max_version
            continue
    return policy


def looser(effective: Policy, administrators: Policy) -> list[str]:
    """The settings that are looser than the administrator's."""
    return [
        name for name, strict in STRICT.items() if not strict(getattr(effective, name), getattr(administrators, name))
    ]


def test_each_setting_is_here() -> None:
    assert set(STRICT) == set(TEXTS) == set(SETTINGS)
    assert {field.name for field in fields(Narrowing)} == {*SETTINGS, "disabled"}


@settings(max_examples=300, deadline=None)
@given(changes, st.lists(changes, max_size=4))
def test_no_sequence_of_requests_loosens_anything(texts: dict[str, str], requests: list[dict[str, str]]) -> None:
    administrators = changed(texts)
    effective = administrators
    for request in requests:
        wish = changed(request)
        try:
            effective = narrow(effective, Narrowing(**{name: getattr(wish, name) for name in request}))
        except PolicyError:
            continue
    assert looser(effective, administrators) == []


@settings(max_examples=300, deadline=None)
@given(changes, st.dictionaries(st.sampled_from(sorted(SETTINGS)), st.none(), min_size=1), st.data())
def test_a_setting_alone(texts: dict[str, str], names: dict[str, None], data: st.DataObject) -> None:
    """Requests of few settings, of which more are granted than of many."""
    administrators = changed(texts)
    effective = administrators
    for name in names:
        value = SETTINGS[name].parse(data.draw(TEXTS[name]))
        try:
            effective = narrow(effective, Narrowing(**{name: value}))
        except PolicyError:
            continue
        assert STRICT[name](getattr(effective, name), value)
    assert [
        name for name in SETTINGS if not STRICT[name](getattr(effective, name), getattr(administrators, name))
    ] == []
