"""The most used libraries under ssa.inject_into_ssl, over the relay: `dozen` in tests/compat/libraries.toml."""

import importlib.util
import os
import sys
import tomllib
from pathlib import Path

import pytest

from tests.compat.run import LIBRARIES, REASON, bench

DOZEN = [library for library in LIBRARIES if library.get("dozen")]
ROOTS = ("smtp", "imaps")  # Dovecot runs as root


def called(library):
    return f"{library['name']} {library.get('how', '')}".strip()


def may_run(library):
    return os.geteuid() == 0 or library.get("server") not in ROOTS


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    ours = [library for library in DOZEN if may_run(library)]
    with bench(ours, sys.executable, "relay", tmp_path_factory.mktemp("compat")) as ready:
        yield ready
        assert "Traceback" not in ready.ssad.log


@pytest.mark.parametrize("library", DOZEN, ids=called)
def test_it_works_and_refuses(ready, library):
    if importlib.util.find_spec(library.get("distribution", "ssl")) is None:
        pytest.skip(f"{library['name']} is not installed: make setup")
    if not may_run(library):
        pytest.skip(f"its server has to be started as root: {library['server']}")
    result = ready.run(library)
    assert result.outcome == library["expect"], result
    assert REASON.search(result.refused) or "alert protocol version" in result.refused


def test_they_are_a_dozen_and_installed_by_make_setup():
    wanted = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    development = " ".join(wanted["optional-dependencies"]["dev"] + wanted["dependencies"])
    assert len(DOZEN) >= 12
    assert [one["name"] for one in DOZEN if "distribution" in one and one["distribution"] not in development] == []
