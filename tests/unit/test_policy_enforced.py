"""Settings whose enforcement needs no connection: each is met and broken, by the policy and by a request."""

from __future__ import annotations

import pytest

from ssa.errors import CertificateError, PolicyError
from ssa.policy.resolve import Narrowing, narrow
from ssa.policy.schema import SETTINGS, Policy
from ssa.worker.judge import judge
from tests.unit import trust_factory

ROOT = trust_factory.root()
MIDDLE = trust_factory.authority("the middle", ROOT)
LEAF = trust_factory.leaf(MIDDLE, "a.example")
CHAIN = (LEAF.der, MIDDLE.der)
STORE = trust_factory.store(ROOT)


def verdict(policy: Policy, hostname: str | None = "a.example") -> str:
    """The reason for which a chain with one intermediate is refused; an empty text if it is not."""
    try:
        judge(STORE, policy, hostname, CHAIN)
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
