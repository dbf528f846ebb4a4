"""Fixtures that more than one group of tests needs, and `--repeat`, for a test that failed once."""

import pytest

from tests.peers import PKI


def pytest_addoption(parser):
    parser.addoption("--repeat", type=int, default=1, metavar="N", help="run N times what is named as FILE::TEST")


def pytest_generate_tests(metafunc):
    named = {argument.partition("::")[2].partition("[")[0] for argument in metafunc.config.args}
    if (times := metafunc.config.getoption("repeat")) > 1 and metafunc.function.__name__ in named:
        metafunc.fixturenames.append("_repetition")
        metafunc.parametrize("_repetition", range(times))


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return PKI(tmp_path_factory.mktemp("pki"))
