"""Who may import whom: a lower layer never imports a higher one, and cheap clients import nothing dear."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ssa

ROOT = Path(ssa.__file__).parent

# Lowest first; what stands in one row may not import another of the same row.
LAYERS = [
    ["ssa.tls"],
    ["ssa._version", "ssa.errors", "ssa.suites", "ssa.directories", "ssa.names", "ssa.files", "ssa.pem", "ssa.intime"],
    ["ssa.protocol", "ssa.logfmt", "ssa.policy", "ssa.ktls", "ssa.trust"],
    ["ssa.library", "ssa.credentials"],
    ["ssa.handshake", "ssa.configfs"],
    ["ssa.dtls", "ssa.relay"],
    ["ssa.inject", "ssa.worker", "ssa.daemon"],
    ["ssa.trio"],
    ["ssa"],
    ["ssa.cli"],
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# Where input and output may happen. Everywhere else there are values in and values out.
EDGES = {
    "ssa.library.connection",
    "ssa.library.deadlines",
    "ssa.protocol.addresses",
    "ssa.library.fdswap",
    "ssa.library.dtlssocket",
    "ssa.dtls.association",
    "ssa.dtls.port",
    "ssa.dtls.queue",
    "ssa.dtls.udp",
    "ssa.inject.context",
    "ssa.inject.sslsocket",
    "ssa.library.api",
    "ssa.library.control_records",
    "ssa.library.relay_end",
    "ssa.relay.connection",
    "ssa.relay.threads",
    "ssa.library.held",
    "ssa.library.connecting",
    "ssa.library.listening",
    "ssa.library.endpoint",
    "ssa.library.datapath",
    "ssa.library.key_lifetime",
    "ssa.library.sending",
    "ssa.library.receiving",
    "ssa.library.tlssocket",
    "ssa.trio",
    "ssa.library.eyeballs",
    "ssa.handshake.driver",
    "ssa.handshake.tickets",
    "ssa.ktls.install",
    "ssa.ktls.probe",
    "ssa.ktls.control",
    "ssa.files",
    "ssa.ktls.tcp",
    "ssa.ktls.rekey",
    "ssa.ktls.diag",
    "ssa.ktls.netns",
    "ssa.configfs.operations",
    "ssa.configfs.attributes",
    "ssa.configfs.values",
    "ssa.configfs.mount",
}
IO_MODULES = {"socket", "trio", "pyfuse3", "subprocess", "select"}


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"


def layer(module):
    """The entry of RANK that a module, or a name imported from one, belongs to."""
    while module and module not in RANK:
        module = module.rpartition(".")[0]
    return "ssa.daemon" if module == "ssa.worker" else module


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down(module):
    own = layer(module)
    for imported in imports(MODULES[module]):
        if imported.split(".")[0] != "ssa":
            continue
        other = layer(imported)
        assert other == own or RANK[other] < RANK[own], f"{module} imports {imported}"


DOORS = "ssa.daemon", "ssa.worker", "ssa.cli"


@pytest.mark.parametrize("module", [name for name in MODULES if not name.startswith(DOORS)])
def test_input_and_output_happen_at_the_edges(module):
    used = {imported.split(".")[0] for imported in imports(MODULES[module])} & IO_MODULES
    assert not used or module in EDGES, f"{module} imports {sorted(used)}"


def test_an_application_loads_no_cryptography():
    dear = "cryptography", "OpenSSL", "trio", "pyfuse3", "rich"
    code = f"import sys, ssa; print([m for m in {dear} if m in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"
