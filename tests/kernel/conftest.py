"""What is here needs a kernel with TLS: it fails without one where that kernel is expected."""

import os

import pytest

from ssa.ktls.probe import probe
from ssa.policy.schema import SETTINGS
from tests.peers import Daemon, settled


@pytest.fixture(scope="session")
def capabilities():
    found = probe()
    if not found.tls:
        if os.environ.get("SSA_EXPECT_KTLS") == "1":
            pytest.fail(f"a kernel with TLS is expected here: {found.reason}")
        pytest.skip(f"needs a kernel with TLS (tools/kernel-run): {found.reason}")
    return found


@pytest.fixture(scope="session")
def running(tmp_path_factory, pki):
    """One ssad for all tests, trusting the throw-away authority."""
    directory = tmp_path_factory.mktemp("ssad")
    policy = f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 10\n'
    with Daemon(directory, policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(capabilities, cleaned):
    """The running ssad, on a kernel with TLS."""
    return cleaned


@pytest.fixture(params=["ktls", "relay"])
def either(request, cleaned):
    """The running ssad on each of its data paths: tests that take this one in place of `ssad` know of no difference."""
    if request.param == "ktls":
        request.getfixturevalue("capabilities")
    cleaned.set("data_path", request.param)
    return cleaned


@pytest.fixture
def cleaned(running, pki, monkeypatch):
    """The running ssad, with its policy as at the start, for the calls of this process."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    settled(lambda: running.sockets() == [], 5)  # the peers of an earlier test's have taken the last words
    assert running.sockets() == []
    yield running
    for name in SETTINGS:
        wanted = {"trust_store": str(pki.ca), "handshake_timeout": "10"}.get(name, SETTINGS[name].default)
        if running.get(f"policy/{name}").strip() != wanted:
            running.set(name, wanted)
