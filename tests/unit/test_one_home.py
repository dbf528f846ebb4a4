"""Each fact has one home: no constant stands twice, and no two modules need each other."""

import ast
import functools
from collections import defaultdict
from pathlib import Path

import pytest

import ssa
from ssa import errors, suites, tls
from ssa.ktls import constants

ROOT = Path(ssa.__file__).parent
FACTS = [ROOT / "tls.py", ROOT / "suites.py", ROOT / "pem.py"]
PACKAGES = ("handshake", "relay", "dtls", "ktls", "library", "protocol")
FILES = [*FACTS, *(path for package in PACKAGES for path in sorted((ROOT / package).glob("*.py")))]


@functools.cache
def constants_of(path):
    """Name and value of what a module assigns by a literal, the underscore before its name apart."""
    assigned = (node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Assign))
    single = (node for node in assigned if len(node.targets) == 1)
    return [known for node in single for known in named_literals(node.targets[0], node.value)]


def named_literals(target, value):
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, other in zip(target.elts, value.elts, strict=False):
            yield from named_literals(one, other)
    elif isinstance(target, ast.Name) and target.id.isupper():
        try:
            yield target.id.lstrip("_"), eval(compile(ast.Expression(value), "", "eval"), {"__builtins__": {}})
        except NameError:
            return  # made of other names, or of calls


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_constant_stands_in_two_modules(path):
    elsewhere = {known for other in FILES if other != path for known in constants_of(other) if is_fact(*known)}
    assert elsewhere & {known for known in constants_of(path) if is_fact(*known)} == set()


# What each module decides for itself, though another one has decided likewise.
DECISIONS = {"BATCH", "SHOWN", "TYPE_CHECKING"}


def is_fact(name, value):
    return isinstance(value, int | bytes | str) and name not in DECISIONS


# Numbers by which a fact is known wherever it stands: they are written in its home alone.
KNOWN = {
    **dict.fromkeys((tls.TLS_1_2, tls.TLS_1_3, tls.DTLS_1_2), "ssa/tls.py"),
    **{suite.number: "ssa/suites.py" for suite in suites.SUITES.values()},
    constants.SOL_TLS: "ssa/ktls/constants.py",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_known_numbers_stand_in_their_home_alone(path):
    here = str(path.relative_to(ROOT.parent))
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            assert KNOWN.get(node.value, here) == here, f"line {node.lineno}: {node.value:#x}"


def test_the_alerts_that_have_names_here_are_those_of_the_table():
    from ssa.ktls import post_handshake

    assert errors.ALERTS[post_handshake.CLOSE_NOTIFY] == "close_notify"
    assert errors.ALERTS[post_handshake.NO_RENEGOTIATION] == "no_renegotiation"


# --- circles ---------------------------------------------------------------------------------------------------------

MODULES = {".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path for path in FILES}


def needs(module):
    """The modules that one imports, for its types too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)} & set(MODULES)


def test_no_two_modules_need_each_other():
    graph, reached = {module: set(needs(module)) for module in MODULES}, defaultdict(set)
    for module in MODULES:
        todo = [*graph[module]]
        while todo:
            if (one := todo.pop()) not in reached[module]:
                reached[module].add(one)
                todo += graph[one]
    assert [module for module in MODULES if module in reached[module]] == []
