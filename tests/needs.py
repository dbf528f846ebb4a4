"""Marks for tests that cannot run everywhere.

What a sandbox may forbid is skipped, and says why. What another run of `make test` has is left out: a skip is for what
somebody should know of.
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import pytest

from tests.peers import has_ipv6

# The machine of tools/kernel-run: slow, and not the only one where these tests are run.
IN_USER_MODE = Path("/proc/exitcode").exists()


def left_out(condition: object, reason: str) -> pytest.MarkDecorator:
    """Leave a test, or one of its parameters, out of a run where the condition holds."""
    return pytest.mark.left_out(bool(condition), reason)


once = left_out(
    os.environ.get("SSA_EXPECT_KTLS") == "1",
    "knows nothing of the data path: the run on the machine itself has it",
)
slow_there = left_out(IN_USER_MODE, "the run on the machine itself has the relay and uvloop")
# uvloop by itself, without ssa, panics user-mode Linux 7.2 ("Segfault with no mm").
panics_there = left_out(
    IN_USER_MODE and int(platform.release().partition(".")[0]) > 6, "uvloop panics user-mode Linux 7.2, without ssa too"
)


def may_unshare(*kinds: str) -> bool:
    """Whether namespaces of these kinds can be made here: unshare(1)'s words, as "--net"."""
    return subprocess.run(["unshare", *kinds, "true"], stderr=subprocess.DEVNULL, check=False).returncode == 0


ipv6 = pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 on its loopback")


def namespaces(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not may_unshare(*kinds), reason=f"this sandbox refuses unshare {' '.join(kinds)}")
