"""Marks for tests of what a sandbox may forbid: such a test is skipped, and says why."""

from __future__ import annotations

import subprocess

import pytest

from tests.peers import has_ipv6


def may_unshare(*kinds: str) -> bool:
    """Whether namespaces of these kinds can be made here: unshare(1)'s words, as "--net"."""
    return subprocess.run(["unshare", *kinds, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 on its loopback")


def namespaces(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not may_unshare(*kinds), reason=f"this sandbox refuses unshare {' '.join(kinds)}")
