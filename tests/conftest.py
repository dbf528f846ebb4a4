"""Fixtures that more than one group of tests needs."""

import pytest

from tests.peers import PKI


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return PKI(tmp_path_factory.mktemp("pki"))
