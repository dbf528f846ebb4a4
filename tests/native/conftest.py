"""libssa, as `make native` makes it, against real servers and a real ssad."""

import os
from pathlib import Path

import pytest

from ssa.ktls.probe import probe
from tests.kernel.conftest import cleaned, running

__all__ = ["cleaned", "running"]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def libssa():
    made = ROOT / "build" / "native" / "libssa.so"
    assert made.exists(), "`make native` makes it"
    return made


# The data paths that this kernel has; under tools/kernel-run, which is slow, the one that the other run may lack.
PATHS = (["ktls"] if os.environ.get("SSA_EXPECT_KTLS") == "1" else ["ktls", "relay"]) if probe().tls else ["relay"]


@pytest.fixture(params=PATHS)
def path(request):
    """The data paths that this kernel has."""
    return request.param


@pytest.fixture
def ssad(path, cleaned, libssa):
    cleaned.set("data_path", path)
    return cleaned
