"""A machine boots with libssa-gate in /etc/ld.so.preload, whatever has become of the library: systemd as its init.

It is here for the test kernel, whose control groups are no other program's.
"""

import os
import subprocess
from pathlib import Path

import pytest

from ssa.cli.sealing import sealed

ROOT = Path(__file__).parents[2]

# A root of its own: this machine's /usr, and an /etc with one service, which says who runs, and then ends the machine.
BOOT = """
set -e
cd "$1"
mkdir usr etc var run tmp proc sys dev opt root
mount --bind /usr usr
for name in bin sbin lib lib32 lib64; do [ ! -e /usr/$name ] || ln -s usr/$name $name; done
cp -a /etc/passwd /etc/group /etc/nsswitch.conf /etc/ld.so.cache etc/
mkdir -p etc/systemd/system var/lib var/log
echo 0123456789abcdef0123456789abcdef > etc/machine-id
mount -t sysfs none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs none run
mount -t tmpfs none tmp
mount --rbind /dev dev
cp "$2" etc/systemd/system/trial.service
cp "$3" opt/libssa-gate.so
echo /opt/libssa-gate.so > etc/ld.so.preload
[ -s "$3" ] || rm opt/libssa-gate.so
variables="container=trial PATH=/usr/sbin:/usr/bin"
boot="mount -t proc none proc; exec env -i $variables chroot . /lib/systemd/systemd --system --unit=trial.service"
set +e
unshare --pid --fork --mount --uts --ipc sh -c "$boot" > console 2>&1
echo "init has ended with $?"
cat run/said run/complained
"""
SERVICE = """
[Unit]
Description=trial
[Service]
Type=oneshot
StandardOutput=file:/run/said
StandardError=file:/run/complained
ExecStart=/bin/sh -c 'echo $(cat /proc/1/comm) $(grep -c libssa-gate /proc/1/maps) $(grep -c libssa /proc/self/maps)'
ExecStopPost=/bin/systemctl --no-block exit 7
"""


def _whole(image):
    return image


def _deleted(_image):
    return b""


def _cut(image):
    return image[:8192]


def _no_library(_image):
    return b"this is no library\n"


@pytest.mark.parametrize("become", [_whole, _deleted, _cut, _no_library])
def test_a_machine_boots(become, capabilities, tmp_path):
    gate, service, root = tmp_path / "gate", tmp_path / "service", tmp_path / "root"
    gate.write_bytes(become(sealed((ROOT / "build" / "native" / "libssa-gate.so").read_bytes())))
    gate.chmod(0o755)
    service.write_text(SERVICE)
    root.mkdir()
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", BOOT, "boot", root, service, gate]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env=os.environ)
    assert "init has ended with 7" in done.stdout, done
    said, complaints = done.stdout.split("init has ended with 7\n")[1].split("\n", 1)
    name, init, shell = said.split()
    assert name == "systemd"
    assert (int(init) > 0, int(shell) > 0) == (become is _whole, become is _whole)
    assert ("ld.so" in complaints) == (become is not _whole)
