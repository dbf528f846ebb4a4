"""Who may import whom: a lower layer never imports a higher one, nothing goes in a circle, and values do no I/O."""

import ast
import functools
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ssa
from tests.unit.layers import DAEMON_SIDE, EDGES, LAYERS, LIBRARY_SIDE

ROOT = Path(ssa.__file__).parent
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

IO_MODULES = {
    *("socket", "trio", "pyfuse3", "subprocess", "select", "os", "pathlib", "fcntl", "tempfile"),
    *("asyncio", "ctypes", "grp", "pwd", "resource", "signal"),
}
# Names of `os` that are texts, types and numbers.
PURE = {"strerror", "fspath", "fsencode", "fsdecode", "PathLike", "stat_result"}
PURE_PREFIXES = "O_", "MFD_", "EFD_"
PURE_PATHS = {"join", "basename", "dirname", "normpath", "isabs", "commonpath", "split", "relpath"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


@functools.cache
def tree(module):
    return ast.parse(MODULES[module].read_text())


def without_types(node):
    """The nodes of a module, but for those that only a type checker sees."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from without_types(child)


def imports(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def own(module):
    """The modules of ours that a module imports, when it runs or for its types."""
    ours = [name for name in imports(ast.walk(tree(module))) if name.split(".")[0] == "ssa"]
    return [name if name in MODULES else name.rpartition(".")[0] for name in ours]


def layer(module):
    """The entry of RANK that a module belongs to."""
    name = ".".join(module.split(".")[:2])
    assert name in RANK, f"{name} has no row in LAYERS"
    return name


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    here = layer(module)
    for imported in own(module):
        there = layer(imported)
        assert there == here or RANK[there] < RANK[here], f"{module} imports {imported}"


@pytest.mark.parametrize("module", MODULES)
def test_the_library_and_the_daemon_never_import_each_other(module):
    sides = {layer(imported) for imported in own(module)}
    if layer(module) in DAEMON_SIDE:
        assert not sides & LIBRARY_SIDE
    if layer(module) in LIBRARY_SIDE:
        assert not sides & DAEMON_SIDE


@pytest.mark.parametrize("module", [module for module in MODULES if layer(module) == "ssa.worker"])
def test_a_worker_never_imports_the_daemon(module):
    assert "ssa.daemon" not in {layer(imported) for imported in own(module)}


def circle(graph):
    """The modules of a circle in a graph of imports; none where it has none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return exc.args[1]
    return []


def test_no_modules_import_each_other():
    """Not for their types either."""
    assert circle({module: set(own(module)) - {module} for module in MODULES}) == []


def test_no_packages_import_each_other():
    graph = {}
    for module in MODULES:
        here = layer(module)
        graph.setdefault(here, set()).update({layer(imported) for imported in own(module)} - {here})
    assert circle(graph) == []


@functools.cache
def performs(module):
    """What a module uses that does input or output."""
    nodes = list(without_types(tree(module)))
    found = {name for name in imports(nodes) if name.split(".")[0] in IO_MODULES - {"os"}}
    found |= {name for name in imports(nodes) if name.startswith("os.")}
    for node in nodes:
        if not isinstance(node, ast.Attribute):
            continue
        if isinstance(node.value, ast.Name) and node.value.id == "os" and node.attr != "path":
            found |= set() if node.attr in PURE or node.attr.startswith(PURE_PREFIXES) else {f"os.{node.attr}"}
        elif ast.unparse(node.value) == "os.path" and node.attr not in PURE_PATHS:
            found.add(f"os.path.{node.attr}")
    return found


def edge(module):
    """The entry of EDGES that a module belongs to."""
    return module if module in EDGES else next((name for name in EDGES if module.startswith(f"{name}.")), None)


@pytest.mark.parametrize("module", MODULES)
def test_input_and_output_happen_at_the_edges(module):
    assert not performs(module) or edge(module) in {module, "ssa.cli"}, f"{module} uses {sorted(performs(module))}"


def test_the_edges_are_there_and_do_input_or_output():
    idle = [name for name in EDGES if not any(performs(module) for module in MODULES if edge(module) == name)]
    assert idle == []


def test_an_application_loads_no_cryptography_and_nothing_slow():
    dear = "cryptography", "OpenSSL", "trio", "pyfuse3", "rich", "dataclasses", "typing", "ctypes"
    code = (
        f"import sys; here = {{*sys.modules}}; import ssa; print([m for m in {dear} if m in {{*sys.modules}} - here])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
