"""Fixtures that more than one group of tests needs, and `--repeat`, for a test that failed once."""

import os
import shutil
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

import ssa
from tests.peers import PKI


def pytest_addoption(parser):
    parser.addoption("--repeat", type=int, default=1, metavar="N", help="run N times what is named as FILE::TEST")


def pytest_generate_tests(metafunc):
    named = {argument.partition("::")[2].partition("[")[0] for argument in metafunc.config.args}
    if (times := metafunc.config.getoption("repeat")) > 1 and metafunc.function.__name__ in named:
        metafunc.fixturenames.append("_repetition")
        metafunc.parametrize("_repetition", range(times))


def pytest_configure(config):
    config.addinivalue_line("markers", "left_out(condition, reason): not of this run, as tests.needs says")
    config.left_out = Counter()


def pytest_collection_modifyitems(config, items):
    """Leave out what `tests.needs.left_out` marks."""
    reasons = [next((m.args[1] for m in item.iter_markers("left_out") if m.args[0]), None) for item in items]
    config.left_out.update(filter(None, reasons))
    config.hook.pytest_deselected(items=[item for item, reason in zip(items, reasons, strict=True) if reason])
    items[:] = [item for item, reason in zip(items, reasons, strict=True) if not reason]


def pytest_report_collectionfinish(config):
    return [f"left out: {times} tests: {reason}" for reason, times in config.left_out.items()]


@pytest.fixture(scope="session")
def pki(tmp_path_factory):
    return PKI(tmp_path_factory.mktemp("pki"))


# What only developers need: left out of the copy.
DEVELOPERS = (
    *("mypy*", "ruff*", "hypothesis*", "pip*", "setuptools*", "_pytest", "*.dist-info", "__pycache__", "*.pth"),
    *("boto*", "gevent*", "aiohttp*", "uvloop*", "asyncpg*", "redis*", "zope*", "s3transfer*"),
    *("gunicorn*", "hypercorn*", "werkzeug*"),
)


@pytest.fixture(scope="session")
def site():
    """The packages, where everybody can read them: the checkout may lie where only root can."""
    site = Path("/tmp") / f"ssa-site-{os.getpid()}"  # whose parents everybody may enter
    shutil.copytree(sysconfig.get_path("purelib"), site, ignore=shutil.ignore_patterns(*DEVELOPERS))
    shutil.copytree(Path(ssa.__file__).parent, site / "ssa", ignore=shutil.ignore_patterns("__pycache__"))
    site.chmod(0o755)
    yield site
    shutil.rmtree(site)
