"""What is mounted after a path was followed. In a process of its own, where its mounts are nobody else's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests import needs

PROLOGUE = """
import subprocess, sys
from ssa.files import Trail
def mount(*words): subprocess.run(["mount", *words], check=True)
directory, elsewhere, own = (f"{sys.argv[1]}/{name}" for name in ("directory", "elsewhere", "own"))
mount("-t", "tmpfs", "none", own)
trail, other = Trail(own), Trail(own)
for each in (trail, other):
    each.follow(f"{directory}/file")
def say(*trails): print(*((each.is_stale(), each.changed(), each.is_stale()) for each in trails or (trail,)))
say()
"""
SAID = {"good": "(False, False, False)", "looked": "(True, False, False)", "changed": "(True, True, True)"}
# What is done, and what each line then says.
MOUNTS = {
    "elsewhere": ("mount('-t', 'tmpfs', 'none', elsewhere); say(trail, other); say()", "looked looked good"),
    "over it": ("mount('-t', 'tmpfs', 'none', directory); say(trail, other); say()", "changed changed changed"),
    "the same": ("mount('--bind', directory, directory); say(); say()", "looked good"),
    "own": ("mount('--bind', own, directory); say(); say()", "changed changed"),
    "gone": (
        "mount('-t', 'tmpfs', 'none', directory); say(); subprocess.run(['umount', directory]); say(); say()",
        "changed looked good",
    ),
}


@needs.namespaces("--mount")
@pytest.mark.parametrize("what", MOUNTS)
def test_a_later_mount_is_seen_before_a_file_system_is_asked(tmp_path: Path, what: str) -> None:
    for name in ("directory", "elsewhere", "own"):
        (tmp_path / name).mkdir()
    (tmp_path / "directory" / "file").touch()
    done, said = MOUNTS[what]
    command = ["unshare", "--mount", sys.executable, "-c", PROLOGUE + done, tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert ran.stdout.split("\n")[0] == SAID["good"]
    assert ran.stdout.replace(") (", ")\n(").splitlines()[1:] == [SAID[word] for word in said.split()]


@needs.namespaces("--mount")
def test_a_directory_on_a_file_system_of_others_is_not_asked_at_once(tmp_path: Path) -> None:
    """proc(5) stands for a network: it is no file system of this machine's."""
    for name in ("directory", "elsewhere", "own"):
        (tmp_path / name).mkdir()
    script = "mount('-t', 'proc', 'none', elsewhere); trail.follow(f'{elsewhere}/version'); say(); say()"
    command = ["unshare", "--mount", sys.executable, "-c", PROLOGUE + script, tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.stderr, ran.stdout.split("\n")[1:3]) == ("", ["(True, False, True)"] * 2)


def test_where_no_descriptor_is_left_a_trail_is_not_asked_at_once(tmp_path: Path) -> None:
    script = f"""
import resource
from ssa.files import Trail
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))
trail = Trail()
print(trail.is_stale(), trail.is_stale())
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 4096))
trail.follow({str(tmp_path)!r})
print(trail.is_stale(), trail.changed(), trail.is_stale())
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    # In a chroot the table of mounts may not have the root: then nothing there counts as local.
    unsure = not _is_in_table("/")
    assert (ran.stderr, ran.stdout) == ("", f"True True\nTrue False {unsure}\n")


def _is_in_table(point: str) -> bool:
    return any(line.split()[4] == point for line in Path("/proc/self/mountinfo").read_text().splitlines())
