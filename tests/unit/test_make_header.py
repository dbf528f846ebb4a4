"""The C files that are made from the Python tables are as the tables are now."""

import subprocess
import sys
from pathlib import Path

from ssa.protocol.options import OPTIONS

ROOT = Path(__file__).resolve().parents[2]


def test_the_c_files_are_as_the_tables():
    done = subprocess.run([sys.executable, ROOT / "tools" / "make-header", "--check"], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_header_has_every_option():
    header = (ROOT / "clients" / "c" / "ssa.h").read_text()
    for option in OPTIONS.values():
        assert f"#define {option.name} {option.number} " in header


def test_a_table_that_differs_is_told(tmp_path):
    for part in ("ssa", "tools", "clients"):
        (tmp_path / part).symlink_to(ROOT / part)
    (tmp_path / "clients").unlink()
    (tmp_path / "clients" / "c").mkdir(parents=True)
    for name in ("ssa.h.in", "ssa.h", "tables.h"):
        (tmp_path / "clients" / "c" / name).write_text((ROOT / "clients" / "c" / name).read_text())
    changed = tmp_path / "clients" / "c" / "ssa.h"
    changed.write_text(changed.read_text().replace("TLS_ALPN 90", "TLS_ALPN 91"))
    (tmp_path / "tools").unlink()
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "make-header").write_text((ROOT / "tools" / "make-header").read_text())
    done = subprocess.run(
        [sys.executable, tmp_path / "tools" / "make-header", "--check"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"clients/c/ssa.h differs" in done.stderr
