"""Who may be connected to: patterns, lists of them, and what a request makes of the lists."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.errors import PolicyError
from ssa.policy.hosts import Peer, denial, peer, refusal
from ssa.policy.resolve import Narrowing, narrow
from ssa.policy.schema import BadValue, Policy
from ssa.worker import steps

# the patterns, the name asked for, the address of the socket, whether one of the patterns is met
MET = [
    ("www.example.com", "www.example.com", "192.0.2.1", True),
    ("WWW.Example.COM.", "www.example.com", "192.0.2.1", True),
    ("www.example.com", "WWW.example.com.", "192.0.2.1", True),
    ("example.com", "www.example.com", "192.0.2.1", False),
    ("*.example.com", "www.example.com", "192.0.2.1", True),
    ("*.example.com", "a.b.c.example.com", "192.0.2.1", True),
    ("*.example.com", "example.com", "192.0.2.1", False),
    ("*.example.com", "badexample.com", "192.0.2.1", False),
    ("*.com", "example.com", "192.0.2.1", True),
    ("xn--mnchen-3ya.example", "münchen.example", "192.0.2.1", True),
    ("*.xn--mnchen-3ya.example", "www.München.example", "192.0.2.1", True),
    ("192.0.2.0/24", "www.example.com", "192.0.2.255", True),
    ("192.0.2.0/24", "www.example.com", "192.0.3.0", False),
    ("192.0.2.1", "www.example.com", "::ffff:192.0.2.1", True),
    ("::ffff:192.0.2.0/120", "www.example.com", "192.0.2.1", True),
    ("::ffff:192.0.2.0/120", "www.example.com", "::ffff:192.0.2.1", True),
    ("0.0.0.0/0", "www.example.com", "2001:db8::1", False),
    ("::/0", "www.example.com", "::ffff:192.0.2.1", False),
    ("fe80::/10", "www.example.com", "fe80::1%lo", True),
    ("2001:db8::/32, x.example", "x.example", "192.0.2.1", True),
    ("2001:db8::1", "2001:DB8:0::1", "2001:db8::1", True),
]

REFUSED = [
    ("10.0.0.1/8", "did you mean 10.0.0.0/8?"),
    ("10.0.0.0/33", "is no network"),
    ("127.1", "is no network"),
    ("0x7f.1", "is no network|is no host"),
    ("1::2::3", "is no network"),
    ("fe80::1%eth0", "is no host"),
    ("*", "is no host"),
    ("*.*.example.com", "is no host"),
    ("www.*.com", "is no host"),
    ("exa mple..com", "is no host"),
    (".example.com", "is no host"),
    ("https://example.com", "is no host"),
    ("example.com/24", "is no host"),
    ("a.example A.example", "it is the same as 'a.example'"),
    ("::ffff:10.0.0.0/104 10.0.0.0/8", "it is the same as"),
    ("münchen.example", "expected printable ASCII"),
]

SAMPLE_PATTERNS = [
    *("a.example", "*.example", "*.a.example", "b.a.example", "*.other", "other"),
    *("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "192.0.2.0/24", "2001:db8::/32", "2001:db8::1", "::/0", "0.0.0.0/0"),
]
SAMPLE_PEERS = [
    Peer(name, address)
    for name in ("a.example", "example", "b.a.example", "c.b.a.example", "other", "x.other", ip_address("10.1.2.3"))
    for address in map(ip_address, ("10.1.2.3", "10.1.9.9", "10.9.9.9", "192.0.2.5", "2001:db8::1", "::ffff:10.1.2.3"))
]
lists = st.lists(st.sampled_from(SAMPLE_PATTERNS), unique=True, max_size=5)


@pytest.mark.parametrize(("patterns", "name", "address", "met"), MET)
def test_hosts(patterns: str, name: str, address: str, *, met: bool) -> None:
    allowing, denying = (Policy.default().replace(setting, patterns) for setting in ("allowed_hosts", "denied_hosts"))
    for policy, allowed in ((allowing, met), (denying, not met)):
        assert is_allowed(policy, peer(name, address)) is allowed
        if allowed:
            steps.refuse_host(policy, name, address)
        else:
            with pytest.raises(PolicyError, match=r"(allowed|denied)_hosts: .* is "):
                steps.refuse_host(policy, name, address)


def is_allowed(policy: Policy, host: Peer) -> bool:
    return not (refusal(policy.allowed_hosts, host) or denial(policy.denied_hosts, host))


@pytest.mark.parametrize("setting", ["allowed_hosts", "denied_hosts"])
@pytest.mark.parametrize(("text", "words"), REFUSED)
def test_what_is_no_host(setting: str, text: str, words: str) -> None:
    with pytest.raises(BadValue, match=f"^{setting}: .*({words})".replace("?", r"\?")):
        Policy.default().replace(setting, text)


def test_what_is_denied_is_denied_though_it_is_allowed() -> None:
    policy = Policy.default().replace_many({"allowed_hosts": "*.example", "denied_hosts": "evil.example 10.0.0.0/8"})
    assert is_allowed(policy, peer("good.example", "192.0.2.1"))
    assert not is_allowed(policy, peer("evil.example", "192.0.2.1"))
    assert not is_allowed(policy, peer("good.example", "10.0.0.1"))


def test_an_address_that_is_asked_for_does_not_allow_another_one() -> None:
    """The socket's own address counts: else a program would name an allowed one and talk to any."""
    policy = Policy.default().replace("allowed_hosts", "192.0.2.1")
    assert not is_allowed(policy, peer("192.0.2.1", "198.51.100.1"))
    assert not is_allowed(Policy.default().replace("denied_hosts", "192.0.2.1"), peer("192.0.2.1", "198.51.100.1"))


def test_a_request_narrows_the_hosts() -> None:
    policy = Policy.default().replace_many({"allowed_hosts": "*.example 10.0.0.0/8", "denied_hosts": "evil.example"})
    wish = Policy.default().replace_many(
        {"allowed_hosts": "a.example 10.1.0.0/16 x.org", "denied_hosts": "10.1.2.0/24"}
    )
    both = narrow(policy, Narrowing(allowed_hosts=wish.allowed_hosts, denied_hosts=wish.denied_hosts))
    assert both.text("allowed_hosts").split() == ["a.example", "10.1.0.0/16"]
    assert both.text("denied_hosts").split() == ["evil.example", "10.1.2.0/24"]
    with pytest.raises(PolicyError, match=r"allowed_hosts: x.org asked for, the policy allows \*.example, 10.0.0.0/8"):
        narrow(policy, Narrowing(allowed_hosts=Policy.default().replace("allowed_hosts", "x.org").allowed_hosts))


@given(lists, lists, lists, lists)
def test_no_request_allows_a_host_that_the_policy_does_not(
    allowed: list[str], denied: list[str], asked: list[str], asked_denied: list[str]
) -> None:
    policy, wish = (
        Policy.default().replace_many({"allowed_hosts": " ".join(one), "denied_hosts": " ".join(other)})
        for one, other in ((allowed, denied), (asked, asked_denied))
    )
    try:
        both = narrow(policy, Narrowing(allowed_hosts=wish.allowed_hosts, denied_hosts=wish.denied_hosts))
    except PolicyError:
        return
    assert [str(host) for host in SAMPLE_PEERS if is_allowed(both, host) and not is_allowed(policy, host)] == []
    assert [str(host) for host in SAMPLE_PEERS if is_allowed(both, host) and not is_allowed(wish, host)] == []
