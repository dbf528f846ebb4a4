"""The tables of the libraries for PHP and Node are as the Python tables are now."""

import json
import re
import subprocess
import sys
from pathlib import Path

from ssa.errors import REASONS
from ssa.protocol.attributes import ATTRIBUTES

ROOT = Path(__file__).resolve().parents[2]
TABLES = ("node/lib/tables.js", "php/src/Tables.php")


def check(root):
    return subprocess.run(
        [sys.executable, root / "tools" / "make-tables", "--check"], capture_output=True, text=True, check=False
    )


def test_they_are_as_the_tables():
    done = check(ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_each_reason_and_each_attribute_is_there():
    for name in TABLES:
        text = (ROOT / "clients" / name).read_text()
        assert all(re.search(rf"""["']{reason}["']""", text) for reason in REASONS)
    attributes = (ROOT / "clients" / "node" / "lib" / "tables.js").read_text()
    assert all(f"{json.dumps(row.name)}: [{row.number}, " in attributes for row in ATTRIBUTES.values())


def test_a_table_that_differs_is_told(tmp_path):
    (tmp_path / "ssa").symlink_to(ROOT / "ssa")
    for name in ("tools/make-tables", *(f"clients/{table}" for table in TABLES)):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((ROOT / name).read_text())
    changed = tmp_path / "clients" / "node" / "lib" / "tables.js"
    changed.write_text(changed.read_text().replace('"connect": 1', '"connect": 2'))
    done = check(tmp_path)
    assert done.returncode == 1
    assert (
        done.stderr == "make-tables: clients/node/lib/tables.js differs from the Python tables; run tools/make-tables\n"
    )
