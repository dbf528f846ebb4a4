"""A worker can open no file, so it must not be in the middle of its work that a module is imported first."""

import ast
import importlib.util
import json
import subprocess
import sys

# Loaded by what a worker never does: of other event loops, of tests, of the library and of the command line.
NEVER = {"asyncio", "curio", "hypothesis", "ssa", "tomlkit", "trio.testing"}
PACKAGES = {"ssa", "cryptography", "OpenSSL", "idna", "trio", "outcome", "sortedcontainers", "attr", "sniffio"}
AT_THE_FORK = """
import json, sys
import ssa.daemon.main
from ssa.worker import process
process.prepare()
print(json.dumps({name: [module.__package__, module.__file__] for name, module in sys.modules.items()
                  if (getattr(module, "__file__", None) or "").endswith(".py")}))
print(json.dumps(list(sys.modules)))
"""


def imported_by(package, function):
    """The modules that a function imports when it is called."""
    for node in ast.walk(function):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            name = "." * node.level + (node.module or "")
            yield importlib.util.resolve_name(name, package) if node.level else name


def test_what_is_imported_late_is_there_before_a_worker_is_forked():
    done = subprocess.run([sys.executable, "-c", AT_THE_FORK], capture_output=True, text=True, check=True)
    files, loaded = map(json.loads, done.stdout.splitlines())
    late = {}
    for name, (package, file) in files.items():
        if name.partition(".")[0] not in PACKAGES:
            continue
        with open(file, encoding="utf-8") as source:
            tree = ast.parse(source.read())
        for function in ast.walk(tree):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                for module in imported_by(package, function):
                    late.setdefault(module, name)
    missing = {module: by for module, by in late.items() if module not in loaded}
    assert not {module: by for module, by in missing.items() if not is_never(module, by)}
    assert len(late) > 5


def is_never(module, by):
    return by == "ssa" or any(module == name or module.startswith(f"{name}.") for name in NEVER)
