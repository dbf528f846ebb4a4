"""Settings whose enforcement needs no connection: each is met and broken, by the policy and by a request."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from ssa.errors import CertificateError, PolicyError
from ssa.policy.pins import unpinned
from ssa.policy.resolve import Narrowing, narrow
from ssa.policy.schema import SETTINGS, BadValue, Policy
from ssa.worker.judge import judge, refuse_unpinned
from tests.unit import trust_factory

ROOT = trust_factory.root()
MIDDLE = trust_factory.authority("the middle", ROOT)
LEAF = trust_factory.leaf(MIDDLE, "a.example")
CHAIN = (LEAF.der, MIDDLE.der)
STORE = trust_factory.store(ROOT)


def verdict(policy: Policy, hostname: str | None = "a.example") -> str:
    """The reason for which a chain with one intermediate is refused; an empty text if it is not."""
    try:
        refuse_unpinned(policy, hostname, judge(STORE, policy, hostname, CHAIN))
    except CertificateError as refused:
        return refused.reason
    return ""


def test_every_setting_says_what_enforces_it() -> None:
    assert [row.name for row in SETTINGS.values() if not row.enforced] == []


@pytest.mark.parametrize(("depth", "expected"), [(100, ""), (1, ""), (0, "CHAIN_TOO_LONG")])
def test_verify_depth(depth: int, expected: str) -> None:
    assert verdict(Policy.default().replace("verify_depth", str(depth))) == expected
    assert verdict(narrow(Policy.default(), Narrowing(verify_depth=depth))) == expected


def test_no_request_makes_paths_longer() -> None:
    with pytest.raises(PolicyError, match="verify_depth: 1 asked for, the policy's maximum is 0"):
        narrow(Policy.default().replace("verify_depth", "0"), Narrowing(verify_depth=1))


def pin(host: str, made: trust_factory.Made | None) -> str:
    """A line of `pinned_keys` for the key of a certificate, or for one that nobody has."""
    spki = b"" if made is None else made.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return f"{host} sha256/{base64.b64encode(hashlib.sha256(spki).digest()).decode()}"


OTHER = pin("a.example", None)
PINNED = [
    ([], ""),
    ([pin("a.example", LEAF)], ""),
    ([pin("a.example", MIDDLE)], ""),
    ([pin("a.example", ROOT)], ""),
    ([pin("*.example", ROOT)], ""),
    ([OTHER, pin("a.example", LEAF)], ""),
    ([pin("b.example", None)], ""),
    ([pin("*.a.example", None)], ""),
    ([OTHER], "KEY_NOT_PINNED"),
    ([pin("*.example", None)], "KEY_NOT_PINNED"),
    ([pin("*.example", None), pin("a.example", LEAF)], "KEY_NOT_PINNED"),
    ([pin("*.example", ROOT), pin("a.example", LEAF)], ""),
]


@pytest.mark.parametrize(("lines", "expected"), PINNED)
def test_pinned_keys(lines: list[str], expected: str) -> None:
    policy = Policy.default().replace("pinned_keys", "\n".join(lines))
    assert verdict(policy) == expected
    assert verdict(narrow(Policy.default(), Narrowing(pinned_keys=policy.pinned_keys))) == expected


def test_a_pin_is_read_back_as_it_was_written() -> None:
    lines = f"{pin('*.example', ROOT)}\n{pin('a.example', LEAF)}"
    policy = Policy.default().replace("pinned_keys", f"  {lines}\n\n")
    assert policy.text("pinned_keys") == lines == SETTINGS["pinned_keys"].show(policy.pinned_keys)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a.example", "expected HOST sha256/BASE64"),
        (f"{OTHER} {OTHER}", "expected HOST sha256/BASE64"),
        (OTHER.replace("sha256/", "sha1/"), "is no key's hash"),
        (OTHER.removesuffix("="), "is no key's hash"),
        (f"{OTHER}=", "is no key's hash"),
        ("a.example sha256/AAAA", "is no key's hash"),
        (OTHER.replace("a.example", "10.0.0.0/8"), "is a network"),
        (OTHER.replace("a.example", "*"), "is no host"),
        (f"{OTHER}\n{OTHER.replace('a.', 'A.')}", "it is the same as"),
    ],
)
def test_what_is_no_pin(line: str, words: str) -> None:
    with pytest.raises(BadValue, match=words):
        Policy.default().replace("pinned_keys", line)


def test_a_request_narrows_the_keys() -> None:
    policy = Policy.default().replace("pinned_keys", f"{pin('a.example', ROOT)}\n{pin('a.example', LEAF)}")
    one, more, lost = (
        Policy.default().replace("pinned_keys", text).pinned_keys
        for text in (pin("a.example", LEAF), f"{pin('a.example', MIDDLE)}\n{pin('a.example', ROOT)}", OTHER)
    )
    assert narrow(policy, Narrowing(pinned_keys=one)).text("pinned_keys") == pin("a.example", LEAF)
    assert narrow(policy, Narrowing(pinned_keys=more)).text("pinned_keys") == pin("a.example", ROOT)
    with pytest.raises(PolicyError, match=r"pinned_keys: the policy pins none of the keys asked for of a\.example"):
        narrow(policy, Narrowing(pinned_keys=lost))


LINES = [pin(host, made) for host in ("a.example", "*.example", "*.a.example") for made in (ROOT, MIDDLE, LEAF, None)]
some_lines = st.lists(st.sampled_from(LINES), unique=True, max_size=4)


@given(some_lines, some_lines)
def test_no_request_accepts_a_key_that_the_policy_does_not(ours: list[str], asked: list[str]) -> None:
    policy, wish = (Policy.default().replace("pinned_keys", "\n".join(lines)) for lines in (ours, asked))
    try:
        both = narrow(policy, Narrowing(pinned_keys=wish.pinned_keys))
    except PolicyError:
        return
    for host in ("a.example", "b.a.example", "b.example"):
        for made in (ROOT, MIDDLE, LEAF, None):
            digest = [Policy.default().replace("pinned_keys", pin("x.example", made)).pinned_keys[0].digest]
            refused = [bool(unpinned(one.pinned_keys, host, digest)) for one in (policy, wish, both)]
            assert refused[2] == (refused[0] or refused[1])
