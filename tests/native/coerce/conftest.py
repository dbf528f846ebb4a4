"""`ssa coerce` on a machine of its own: this one's file system under an overlay, in a mount namespace, by chroot(2)."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.native.conftest import PATHS, ROOT
from tests.peers import Daemon

# The test kernel's root takes no overlay. How a program comes to the library is the same on all data paths.
collect_ignore_glob = ["test_*"] if PATHS[0] == "ktls" else []

_MOUNTS = """
set -e
mount -t tmpfs none {top}
mkdir {top}/upper {top}/work {top}/root
mount -t overlay overlay -o lowerdir=/,upperdir={top}/upper,workdir={top}/work {top}/root
cd {top}/root
mount --rbind /proc proc
mount --rbind /dev dev
mount --rbind /tmp tmp
mount -t tmpfs none run
mkdir run/ssa run/sshd
mount --rbind {run} run/ssa
echo ready
exec sleep infinity
"""
QUIET = {"LD_PRELOAD": "", "SSA_RUN_DIR": "", "SSA_MOUNT": "", "SSA_CONFIG": "", "LC_ALL": "C.UTF-8"}


class Machine:
    """Where /etc/ld.so.preload may be whatever a test wants. `files` is its root directory, as this process sees it."""

    def __init__(self, holder, top):
        self.inside = ["nsenter", f"--mount=/proc/{holder.pid}/ns/mnt"]
        self.chroot = [*self.inside, "chroot", f"{top}/root"]
        self.files = Path(f"/proc/{holder.pid}/root{top}/root")
        self.top = top

    def environment(self, variables):
        kept = {name: value for name, value in (os.environ | QUIET | variables).items() if value}
        return kept | {"SSA_LIBRARIES": str(ROOT / "build" / "native")}

    def run(self, *command, **variables):
        """What a program of this machine comes to."""
        return subprocess.run(
            [*self.chroot, *map(str, command)],
            env=self.environment(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def start(self, *command, **options):
        return subprocess.Popen([*self.chroot, *map(str, command)], env=self.environment({}), **options)

    def ssa(self, *arguments, **variables):
        return self.run(sys.executable, "-m", "ssa.cli.main", *arguments, **variables)

    def mount(self, *arguments):
        subprocess.run([*self.inside, "mount", *map(str, arguments)], check=True)

    def path(self, name):
        """A file of the machine."""
        return self.files / str(name).lstrip("/")

    @property
    def preload(self):
        with contextlib.suppress(FileNotFoundError):
            return self.path("/etc/ld.so.preload").read_text()
        return None


@contextlib.contextmanager
def a_machine(run_dir):
    top = tempfile.mkdtemp(prefix="ssa-machine-", dir="/tmp")
    script = _MOUNTS.format(top=top, run=run_dir)
    command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout.readline() == b"ready\n"
            yield Machine(holder, top)
        finally:
            holder.kill()  # its mounts end with it
            holder.wait()
            os.rmdir(top)


@pytest.fixture(scope="session")
def running(pki):
    """One ssad for all tests in this directory, in one that every user can enter."""
    directory = Path(tempfile.mkdtemp(prefix="ssa-coerce-", dir="/tmp"))
    directory.chmod(0o755)
    with Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\nhandshake_timeout = 10\n') as daemon:
        yield daemon
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def machine(running):
    """A machine on which it is off."""
    with a_machine(running.run_dir) as made:
        yield made


@pytest.fixture(scope="session")
def shared(running):
    """A machine on which it is on. A test that changes its files puts them back."""
    with a_machine(running.run_dir) as made:
        done = made.ssa("coerce", "on")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        yield made
