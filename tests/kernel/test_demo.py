"""The demonstration shows what it says: it checks itself, and fails if it does not."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo(capabilities, tmp_path):
    environment = {"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)}
    command = [ROOT / "tools" / "demo"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=environment)
    assert done.returncode == 0, done.stdout
    for words in (
        "tcp-ulp-tls version: 1.3",
        "subject=CN = localhost",
        "UNSUPPORTED_VERSION",
        "HOSTNAME_MISMATCH",
        "UNKNOWN_CA",
    ):
        assert words in done.stdout
    assert not done.stderr
    assert list(tmp_path.iterdir()) == []
