"""ssad --user: another user, with no privilege, /dev/fuse and fusermount3 alone, has all of it for itself."""

import os
import shutil
import subprocess
import sys

import pytest

from tests import peers

NOBODY = 65534

SCRIPT = """
import atexit, os, subprocess, sys
import ssa
run, port = os.environ["XDG_RUNTIME_DIR"] + "/ssa", int(sys.argv[1])
ready, told = os.pipe()
daemon = subprocess.Popen([sys.executable, "-m", "ssa.daemon.main", "--user", "--ready-fd", str(told)], pass_fds=[told])
atexit.register(lambda: (daemon.terminate(), daemon.wait()))
os.close(told)
assert os.read(ready, 16) == b"ready\\n"
with open(run + "/fs/policy/min_version", "w") as file:
    file.write("TLSv1.3\\n")
os.environ["SSA_RUN_DIR"] = run
fd = ssa.connect_tls("localhost", port)
os.write(fd, b"abc\\n")
print(os.read(fd, 100))
directory = run + "/fs/sockets/" + os.listdir(run + "/fs/sockets")[0]
print(*(open(directory + "/" + name).read().strip() for name in ("uid", "version", "tx", "peer_identity")))
print(oct(os.stat(run).st_mode & 0o777), os.getuid())
ssa.close(fd)
daemon.terminate()
print("ended with", daemon.wait())
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_daemon_without_privileges(capabilities, site, pki, tmp_path):
    home = site / "home"
    (home / ".config" / "ssa").mkdir(parents=True)
    shutil.copy(pki.ca, home / "ca.pem")
    (home / ".config" / "ssa" / "policy.toml").write_text(f'[policy]\ntrust_store = "{home}/ca.pem"\n')
    for path in (home, *home.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    environment = {"HOME": str(home), "XDG_RUNTIME_DIR": str(home), "PYTHONPATH": str(site), "PATH": os.environ["PATH"]}
    # The bounding set stays: fusermount3 is setuid, and that is all the privilege there is.
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        done = subprocess.run(
            [*user, os.path.realpath(sys.executable), "-c", SCRIPT, str(port)],
            env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # Debian's 6.1 tells it to the privileged only; what is known without is not called the kernel's word.
    offload = "sw" if " sw " in done.stdout else "unknown"
    assert done.stdout.splitlines() == [
        "b'cba\\n'",
        f"{NOBODY} TLSv1.3 {offload} localhost",
        f"0o700 {NOBODY}",
        "ended with 0",
    ]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_root_and_without_user_it_says_what_to_do(site):
    environment = {"PYTHONPATH": str(site), "PATH": os.environ["PATH"]}
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    done = subprocess.run(
        [*user, os.path.realpath(sys.executable), "-m", "ssa.daemon.main"],
        env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "ssad --user" in done.stderr


def test_only_the_daemons_user_writes_the_policy(ssad):
    path = ssad.mount / "policy" / "min_version"
    user = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    for directory in (*ssad.mount.parents,):
        directory.chmod(directory.stat().st_mode | 0o011)
    read = subprocess.run([*user, "cat", path], capture_output=True, text=True, check=False)
    assert read.stdout == "TLSv1.2\n"
    write = subprocess.run([*user, "sh", "-c", f"echo TLSv1.3 > {path}"], capture_output=True, text=True, check=False)
    assert write.returncode != 0
    assert "Permission denied" in write.stderr
    assert ssad.get("policy/min_version") == "TLSv1.2\n"
