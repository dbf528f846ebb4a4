"""The file system as programs see it: a real mount, served by a process of its own, used by /bin/sh and others."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ssa.policy.schema import SETTINGS
from tests.unit import trust_factory

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
PATIENCE = 30.0  # a user-mode Linux guest is slow

pytestmark = pytest.mark.skipif(not os.access("/dev/fuse", os.R_OK | os.W_OK), reason="needs a /dev/fuse")


@dataclass
class Served:
    """A mount and the process behind it."""

    root: Path
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    def sh(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script with the mount as its working directory."""
        return subprocess.run(
            ["/bin/sh", "-c", script], cwd=self.root, capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    def logged(self, text: str) -> bool:
        """Whether a line with this text is in the log, or comes there soon."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if any(text in line for line in self.log):
                return True
            time.sleep(0.02)
        return False

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE)


STARTED: list[Served] = []


def serve(root: Path, sockets: int = 3) -> Served:
    """Start the helper, and wait until it says that it is ready."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "served.py"), str(root), str(sockets)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1])},
    )
    served = Served(root, process)
    STARTED.append(served)
    assert process.stdout
    assert process.stderr
    errors = process.stderr
    threading.Thread(target=lambda: served.log.extend(iter(errors.readline, "")), daemon=True).start()
    if process.stdout.readline() != "ready\n":
        process.wait(PATIENCE)
        time.sleep(0.1)
        raise RuntimeError("".join(served.log))
    return served


def ls(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def detach(root: Path) -> None:
    """Unmount what is mounted at or below a directory."""
    for row in Path("/proc/self/mounts").read_text().splitlines():
        mounted = Path(row.split(" ")[1])
        if mounted.is_relative_to(root):
            subprocess.run(["fusermount3", "-u", "-z", str(mounted)], check=False, capture_output=True)


def is_stale(root: Path) -> bool:
    try:
        root.stat()
    except OSError as failure:
        return failure.errno == errno.ENOTCONN
    return False


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One mount for the tests that leave the process alone."""
    base = tmp_path_factory.mktemp("fuse")
    for directory in (base, *base.parents[:2]):
        if directory.owner() and "pytest" in directory.name:
            directory.chmod(0o755)  # another user has to get there
    served = serve(base / "ssa")
    yield served
    assert served.stop() == 0
    assert not os.path.ismount(served.root)


@pytest.fixture
def ssa(shared: Served) -> Served:
    """The shared mount, with the settings that the tests change as they were."""
    for name, value in (("min_version", "TLSv1.2"), ("min_rsa_bits", "2048"), ("groups", "x25519"), ("alpn", "")):
        (shared.root / "policy" / name).write_text(value + "\n")
    return shared


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A mount point for a test that starts and ends processes."""
    before = len(STARTED)
    yield tmp_path / "ssa"
    for served in STARTED[before:]:
        served.process.kill()
        served.process.wait(PATIENCE)
    detach(tmp_path)


# --- the shell ---

# A script with the mount as its working directory, and what it prints.
SHELL = [
    ("cat version", "0.0.test\n"),
    ("echo TLSv1.3 > policy/min_version; cat policy/min_version", "TLSv1.3\n"),
    ("echo TLSv1.3 >> policy/min_version; cat policy/min_version", "TLSv1.3\n"),
    ("printf TLSv1.3 > policy/min_version; cat policy/min_version", "TLSv1.3\n"),
    ("echo TLSv1.3 | tee policy/min_version; cat policy/min_version", "TLSv1.3\nTLSv1.3\n"),
    ("echo TLSv1.3 | tee -a policy/min_version >/dev/null; cat policy/min_version", "TLSv1.3\n"),
    ("echo TLSv1.3 | dd of=policy/min_version 2>/dev/null; cat policy/min_version", "TLSv1.3\n"),
    ("echo TLSv1.3 | dd of=policy/min_version conv=notrunc 2>/dev/null; cat policy/min_version", "TLSv1.3\n"),
    ("echo TLSv1.3 1<> policy/min_version; cat policy/min_version", "TLSv1.3\n"),
    (": > policy/min_version && cat policy/min_version", "TLSv1.2\n"),
    ("> policy/min_version && cat policy/min_version", "TLSv1.2\n"),
    ("truncate -s 0 policy/min_version && cat policy/min_version", "TLSv1.2\n"),
    ("touch policy/min_version && cat policy/min_version", "TLSv1.2\n"),
    ("echo P-256:X25519,secp384r1 > policy/groups; cat policy/groups", "P-256\nX25519\nsecp384r1\n"),
    ("printf 'h2\\nhttp/1.1\\n' > policy/alpn; cat policy/alpn", "h2\nhttp/1.1\n"),
    ("cat policy/alpn", "\n"),
    ("head -n 1 sockets/1/verdicts; tail -n 1 sockets/1/verdicts", "path: good\nhostname: good\n"),
    ("dd if=policy/min_version bs=1 2>/dev/null", "TLSv1.2\n"),
    ("grep -h . policy/min_version policy/min_rsa_bits", "TLSv1.2\n2048\n"),
    ("wc -c < policy/min_version", "8\n"),
    ("wc -l < sockets/1/verdicts", "2\n"),
    ("cp policy/min_version /dev/stdout", "TLSv1.2\n"),
    ("read v < policy/min_version; echo $v", "TLSv1.2\n"),
    ("ls", "credentials\nkernel\nlisteners\npolicy\nsockets\nsockets.jsonl\nstats\nversion\n"),
    ("printf TLSv1.3 | dd of=policy/min_version bs=1 2>/dev/null; cat policy/min_version", "TLSv1.3\n"),
    (
        "mkdir credentials/a && ls credentials/a && cat credentials/a/certificate && rmdir credentials/a",
        "certificate\nhostnames\nkey\nstatus\nusers\n\n",
    ),
    ("ls sockets", "1\n2\n3\n"),
    ("echo sockets/*/pid", "sockets/1/pid sockets/2/pid sockets/3/pid\n"),
    ("find . -name cipher | sort", "./sockets/1/cipher\n./sockets/2/cipher\n./sockets/3/cipher\n"),
    (
        "stat -c '%A %s' policy/alpn version sockets/1/close policy",
        "-rw-r--r-- 1\n-r--r--r-- 9\n--w------- 0\ndrwxr-xr-x 0\n",
    ),
    ("ls -l policy | wc -l", f"{1 + len(SETTINGS)}\n"),
    ("test -d sockets/1 && ! test -e sockets/9 && echo fine", "fine\n"),
    ("cd sockets/1 && cat ../../version", "0.0.test\n"),
    ("df . | tail -n 1 | cut -d' ' -f1", "ssa\n"),
]

# A script that has to fail, and what it has to say.
REFUSED = [
    ("echo TLSv1.1 > policy/min_version", "I/O error|Invalid argument"),
    ("echo junk | tee policy/min_version", "Invalid argument"),
    ("printf TLSv1.1 | dd of=policy/min_version bs=1", "Invalid argument"),
    ("echo 12 > policy/min_rsa_bits", "I/O error|Invalid argument"),
    ("printf 12 | tee policy/min_rsa_bits", "Invalid argument"),
    ("echo relative > policy/trust_store", "I/O error|Invalid argument"),
    ("head -c 4097 /dev/zero | dd of=policy/min_version bs=8k iflag=fullblock", "Invalid argument"),
    ("head -c 300000 /dev/zero | dd of=policy/min_version bs=300000 iflag=fullblock", "Invalid argument"),
    ("sed -i s/2/3/ policy/min_version", "couldn't open temporary file"),
    ("echo x > policy/new", "Permission denied|cannot create"),
    ("echo x > new", "Permission denied|cannot create"),
    ("mkdir new", "Operation not permitted"),
    ("mkdir policy/new sockets/9", "Operation not permitted"),
    ("mkdir credentials/.new", "Invalid argument"),
    ("mkdir 'credentials/a b'", "Invalid argument"),
    ("rmdir credentials", "Operation not permitted"),
    ("rmdir credentials/none", "No such file"),
    ("rm -f policy/min_version", "Operation not permitted"),
    ("rmdir stats", "Operation not permitted"),
    ("rm -rf sockets/1", "Operation not permitted"),
    ("mv policy/min_version policy/max_version", "Operation not permitted"),
    ("mv policy/min_version /tmp/ssa-stolen", "Operation not permitted"),
    ("ln -s version new", "Operation not permitted"),
    ("ln version new", "Operation not permitted"),
    ("mkfifo new", "Operation not permitted"),
    ("chmod 666 policy/min_version", "Operation not permitted"),
    ("chown 1 policy/min_version", "Operation not permitted"),
    ("echo 1 > version", "Permission denied"),
    ("cat sockets/1/close", "Permission denied"),
    ("echo 0 > sockets/1/close", "I/O error|Invalid argument"),
    ("cat sockets/9/pid", "No such file"),
    ("cat policy", "Is a directory"),
]


@pytest.mark.parametrize(("script", "output"), SHELL)
def test_shell(ssa: Served, script: str, output: str) -> None:
    done = ssa.sh(script)
    assert (done.stdout, done.stderr, done.returncode) == (output, "", 0)


@pytest.mark.parametrize(("script", "message"), REFUSED)
def test_refused_and_nothing_changed(ssa: Served, script: str, message: str) -> None:
    before, names = {path: path.read_bytes() for path in (ssa.root / "policy").iterdir()}, ls(ssa.root)
    done = ssa.sh(script)
    assert done.returncode != 0
    assert any(words in done.stderr for words in message.split("|")), done.stderr
    assert {path: path.read_bytes() for path in (ssa.root / "policy").iterdir()} == before
    assert ls(ssa.root) == names
    assert ls(ssa.root / "credentials") == []
    Path("/tmp/ssa-stolen").unlink(missing_ok=True)


def test_refusal_is_logged(ssa: Served) -> None:
    ssa.sh("echo TLSv1.7 > policy/min_version")
    assert ssa.logged(f"policy/min_version: refused from uid {os.geteuid()} pid ")
    assert ssa.logged("'TLSv1.7' is not supported: ssa knows no other versions, expected TLSv1.2 or TLSv1.3")


def test_a_value_counts_when_it_is_closed(ssa: Served) -> None:
    descriptor = os.open(ssa.root / "policy/min_rsa_bits", os.O_RDWR)
    try:
        assert os.write(descriptor, b"3072\n") == 5
        assert os.pread(descriptor, 100, 0) == b"2048\n"
        with pytest.raises(OSError, match="Invalid argument"):
            os.write(descriptor, b"4096\n")  # there is a value
        assert os.pwrite(descriptor, b"4096\n", 0) == 5  # another one
        os.fsync(descriptor)
        assert os.pread(descriptor, 100, 0) == b"4096\n"
        assert os.pread(descriptor, 2, 2) == b"96"
    finally:
        os.close(descriptor)


def test_python_reads_and_writes_in_place(ssa: Served) -> None:
    with (ssa.root / "policy/min_version").open("r+") as file:
        assert file.read() == "TLSv1.2\n"
        file.seek(0)
        file.write("TLSv1.3\n")
        file.truncate()
    assert (ssa.root / "policy/min_version").read_text() == "TLSv1.3\n"


def test_readers_see_one_value_or_the_other(ssa: Served) -> None:
    values = {"x25519\n", "secp521r1\nsecp384r1\nsecp256r1\nx448\nffdhe2048\n"}
    path = ssa.root / "policy/groups"
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            for value in sorted(values):
                path.write_text(value)

    def read(_: int) -> set[str]:
        return {path.read_text() for _ in range(5)}

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with ThreadPoolExecutor(64) as readers:
            seen = set().union(*readers.map(read, range(64)))
    finally:
        done.set()
        writer.join()
    assert seen <= values


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
def test_another_user_reads_and_does_not_write(ssa: Served) -> None:
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "
    assert ssa.sh(f"{nobody} 'cat policy/min_version'").stdout == "TLSv1.2\n"
    for script in ("echo TLSv1.3 > policy/min_version", "echo 1 > sockets/1/close", "> policy/new"):
        done = ssa.sh(f"{nobody} '{script}'")
        assert done.returncode != 0
        assert "Permission denied" in done.stderr
    assert ssa.sh("cat policy/min_version").stdout == "TLSv1.2\n"


# --- who sees what ---


def as_user(uid: int, script: str) -> str:
    return f"setpriv --reuid={uid} --regid={uid} --clear-groups sh -c '{script}'"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
@pytest.mark.parametrize("directory", ["sockets/1", "listeners/90"])
def test_a_socket_is_its_users(ssa: Served, directory: str) -> None:
    assert ssa.sh(f"stat -c '%a %u' {directory} {directory}/pid").stdout == "500 1000\n400 1000\n"
    assert ssa.sh(as_user(1000, f"cat {directory}/uid; ls {directory} | wc -l")).stdout.startswith("1000\n")
    for script in (f"cat {directory}/uid", f"ls {directory}", f"cd {directory}", f"stat {directory}/exe"):
        done = ssa.sh(as_user(1001, script))
        assert done.returncode != 0
        assert "Permission denied" in done.stderr or "can't cd" in done.stderr
    assert ssa.sh(as_user(1001, "ls sockets")).stdout == "1\n2\n3\n"  # as /proc lists the processes of others
    assert ssa.sh(f"cat {directory}/uid").stdout == "1000\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
def test_all_sockets_in_one_file_are_the_readers_own(ssa: Served) -> None:
    for uid, count in ((0, 4), (1000, 4), (1001, 0)):
        assert ssa.sh(as_user(uid, "wc -l < sockets.jsonl")).stdout == f"{count}\n"
    assert ssa.sh("jq -r .id sockets.jsonl").stdout == "90\n1\n2\n3\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
def test_who_may_close_a_socket(ssa: Served) -> None:
    assert "Permission denied" in ssa.sh(as_user(1001, "echo 1 > sockets/1/close")).stderr
    assert ssa.sh(as_user(1000, "echo 1 > sockets/1/close")).returncode == 0


# --- credentials ---

CA = trust_factory.root()
OLD, NEW = (trust_factory.leaf(CA, name) for name in ("old.example", "new.example"))
# A chain of nearly 64 KiB: certificates with long names.
LONG = [trust_factory.leaf(CA, *(f"{number}.{'x' * 50}.example" for number in range(43))) for _ in range(15)]


@pytest.fixture
def credential(shared: Served, tmp_path: Path) -> Iterator[Path]:
    """The directory of a credential that serves old.example, and in $PEM the files that it is made of."""
    for name, made in (("old", OLD), ("new", NEW)):
        (tmp_path / f"{name}.pem").write_bytes(made.pem)
        (tmp_path / f"{name}-full.pem").write_bytes(made.pem + CA.pem)
        (tmp_path / f"{name}-key.pem").write_bytes(made.key_pem)
    (tmp_path / "ca.pem").write_bytes(CA.pem)
    (tmp_path / "long.pem").write_bytes(NEW.pem + b"".join(made.pem for made in LONG))
    os.environ["PEM"] = str(tmp_path)
    path = shared.root / "credentials" / "www"
    path.mkdir()
    (path / "certificate").write_bytes(OLD.pem)
    (path / "key").write_bytes(OLD.key_pem)
    yield path
    path.rmdir()
    assert ls(path.parent) == []


def test_the_chain_is_readable_and_the_key_is_not(shared: Served, credential: Path) -> None:
    assert (credential / "certificate").read_bytes() == OLD.pem
    assert (credential / "hostnames").read_bytes() == b"old.example\n"
    assert ls(credential) == ["certificate", "hostnames", "key", "status", "users"]
    assert (
        shared.sh("stat -c %A credentials/www/*").stdout
        == "-rw-r--r--\n-rw-r--r--\n--w-------\n-r--r--r--\n-rw-r--r--\n"
    )
    for script in ("cat credentials/www/key", "cp credentials/www/key /tmp/ssa-stolen", "cat < credentials/www/key"):
        done = shared.sh(script)
        assert done.returncode != 0
        assert any(words in done.stderr for words in ("Permission denied", "cannot open")), done.stderr


# What puts $PEM/new.pem with the CA's certificate behind it into a file.
PKCS7 = "openssl pkcs7 -print_certs -out credentials/www/certificate"
WRITERS = [
    "cp $PEM/new-full.pem credentials/www/certificate",
    "cat $PEM/new-full.pem > credentials/www/certificate",
    "cat $PEM/new.pem $PEM/ca.pem > credentials/www/certificate",
    "cat $PEM/new.pem $PEM/ca.pem >> credentials/www/certificate",
    "{ cat $PEM/new.pem; cat $PEM/ca.pem; } > credentials/www/certificate",
    "{ cat $PEM/new.pem; cat $PEM/ca.pem; } >> credentials/www/certificate",
    "cat $PEM/new-full.pem | tee credentials/www/certificate >/dev/null",
    "dd status=none if=$PEM/new-full.pem of=credentials/www/certificate bs=100",
    f"openssl crl2pkcs7 -nocrl -certfile $PEM/new-full.pem | {PKCS7}",
    "bash -c 'echo \"$(cat $PEM/new-full.pem)\" > credentials/www/certificate'",
    'echo "$(cat $PEM/new-full.pem)" > credentials/www/certificate',
]


@pytest.mark.parametrize("script", WRITERS)
def test_a_renewal(shared: Served, credential: Path, script: str) -> None:
    done = shared.sh(script)
    assert (done.stderr, done.returncode) == ("", 0)
    assert (credential / "certificate").read_bytes() == OLD.pem  # still in service, without the new one's key
    done = shared.sh("cp $PEM/new-key.pem credentials/www/key")
    assert (done.stderr, done.returncode) == ("", 0)
    assert (credential / "certificate").read_bytes() == NEW.pem + CA.pem
    assert (credential / "hostnames").read_bytes() == b"new.example\n"


JUNK = [
    ("echo junk > credentials/www/certificate", "Invalid argument|I/O error"),
    ("echo junk > credentials/www/key", "Invalid argument|I/O error"),
    ("cp $PEM/new-key.pem credentials/www/certificate", "Invalid argument"),
    ("cp $PEM/new.pem credentials/www/key", "Invalid argument"),
    ("head -c 300 $PEM/new.pem > credentials/www/certificate", "Invalid argument"),
    ("head -c 300 $PEM/new.pem > $PEM/cut; cp $PEM/cut credentials/www/certificate", "Invalid argument"),
    ("head -c 270000 /dev/zero | cat > credentials/www/certificate", "Invalid argument"),
    (
        "cat $PEM/long.pem $PEM/long.pem $PEM/long.pem $PEM/long.pem $PEM/long.pem > credentials/www/certificate",
        "Invalid argument",
    ),
    ("echo a:443 > credentials/www/hostnames", "Invalid argument|I/O error"),
    ("rm credentials/www/key", "Operation not permitted"),
    ("echo x > credentials/www/new", "Permission denied|cannot create"),
    ("mkdir credentials/www", "File exists"),
    ("mkdir credentials/www/new", "Operation not permitted"),
]


@pytest.mark.parametrize(("script", "message"), JUNK)
def test_junk_is_refused_and_the_old_pair_stays(shared: Served, credential: Path, script: str, message: str) -> None:
    done = shared.sh(script)
    assert done.returncode != 0
    assert any(words in done.stderr for words in message.split("|")), done.stderr
    assert (credential / "certificate").read_bytes() == OLD.pem
    assert (credential / "hostnames").read_bytes() == b"old.example\n"
    assert not any("BEGIN PRIVATE KEY" in line for line in shared.log)


def test_a_chain_of_nearly_64_kib(shared: Served, credential: Path, tmp_path: Path) -> None:
    text = (tmp_path / "long.pem").read_bytes()
    assert 60 << 10 < len(text) <= 64 << 10
    (credential / "key").write_bytes(NEW.key_pem)
    descriptor = os.open(credential / "certificate", os.O_WRONLY)
    assert os.write(descriptor, text) == len(text)
    os.close(descriptor)
    assert (credential / "certificate").read_bytes() == text
    (credential / "certificate").write_bytes(NEW.pem)
    assert shared.sh("cp $PEM/long.pem credentials/www/certificate").returncode == 0
    assert shared.sh("cat credentials/www/certificate").stdout.encode() == text


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
def test_another_user_makes_no_credentials(shared: Served, credential: Path) -> None:
    nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups sh -c "
    assert shared.sh(f"{nobody} 'cat credentials/www/hostnames'").stdout == "old.example\n"
    for script in ("mkdir credentials/a", "rmdir credentials/www", "echo > credentials/www/key"):
        done = shared.sh(f"{nobody} '{script}'")
        assert done.returncode != 0
        assert "Permission denied" in done.stderr


def test_a_certificate_is_what_is_newer(shared: Served, credential: Path, tmp_path: Path) -> None:
    """cp -u and test -nt go by the time of the last change, in both directions."""
    (tmp_path / "copy.pem").write_bytes(b"older")
    os.utime(tmp_path / "copy.pem", (1, 1))
    assert shared.sh("cp -u credentials/www/certificate $PEM/copy.pem && cmp credentials/www/certificate $PEM/copy.pem")
    assert (tmp_path / "copy.pem").read_bytes() == OLD.pem
    assert shared.sh("[ $PEM/copy.pem -nt credentials/www/certificate ] && echo newer").stdout == "newer\n"
    time.sleep(0.02)
    (credential / "key").write_bytes(NEW.key_pem)
    (credential / "certificate").write_bytes(NEW.pem)
    assert shared.sh("[ credentials/www/certificate -nt $PEM/copy.pem ] && echo newer").stdout == "newer\n"
    assert shared.sh("cp -u credentials/www/certificate $PEM/copy.pem").returncode == 0
    assert (tmp_path / "copy.pem").read_bytes() == NEW.pem
    os.utime(tmp_path / "old.pem", (1, 1))
    assert shared.sh("cp -u $PEM/old.pem credentials/www/certificate").returncode == 0  # older: nothing is done
    assert (credential / "certificate").read_bytes() == NEW.pem
    shared.sh("mkdir credentials/new; cp -u $PEM/old.pem credentials/new/certificate")  # newer than none
    assert shared.sh("cat credentials/new/certificate; rmdir credentials/new").stdout.encode() == OLD.pem


# How a file $1 is copied to $2 by the size that it says it has, or by reading to its end.
COPIERS = {
    "cp": 'cp "$1" "$2"',
    "cp -a": 'cp -a "$1" "$2"',
    "cp sparse": 'cp --sparse=always "$1" "$2"',
    "install": 'install "$1" "$2"',
    "rsync": 'rsync -t "$1" "$2"',
    "rsync whole": 'rsync --inplace --checksum "$1" "$2"',
    "tar": 'tar -cf - "$1" | tar -xOf - > "$2"',
    "tar pax": 'tar --format=pax -cf "$2.tar" "$1" && tar -xOf "$2.tar" > "$2"',
    "dd": 'dd status=none if="$1" of="$2"',
    "cat": 'cat "$1" > "$2"',
    "python": """python3 -c 'import shutil, sys; shutil.copy2(sys.argv[1], sys.argv[2])' "$1" "$2" """,
    "sendfile": """python3 -c '
import os, sys
with open(sys.argv[1], "rb") as a, open(sys.argv[2], "wb") as b: os.sendfile(b.fileno(), a.fileno(), 0, 1 << 20)' \
"$1" "$2" """,
    "mmap": """python3 -c '
import mmap, sys
with open(sys.argv[1], "rb") as a, open(sys.argv[2], "wb") as b:
    b.write(mmap.mmap(a.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))' "$1" "$2" """,
}
COPIED = ["credentials/www/certificate", "credentials/www/hostnames", "policy/ciphers", "policy/alpn", "stats/failures",
          "sockets/1/peer_cert", "sockets/1/verdicts", "sockets.jsonl", "kernel/ciphers"]  # fmt: skip


@pytest.mark.parametrize("copier", COPIERS)
def test_a_copy_is_whole(shared: Served, credential: Path, tmp_path: Path, copier: str) -> None:
    (credential / "key").write_bytes(NEW.key_pem)
    (credential / "certificate").write_bytes((tmp_path / "long.pem").read_bytes())
    (tmp_path / "copy.sh").write_text(COPIERS[copier])
    for name in COPIED:
        if copier == "mmap" and name in ("stats/failures", "sockets.jsonl"):
            continue  # its kernel maps by pages
        done = shared.sh(f"sh -e $PEM/copy.sh {name} $PEM/copied")
        assert (done.returncode, done.stderr) == (0, ""), name
        assert (tmp_path / "copied").read_bytes() == (shared.root / name).read_bytes(), name
        assert shared.sh(f"cmp {name} $PEM/copied; cmp -s {name} $PEM/copied; diff {name} $PEM/copied").stdout == ""
        (tmp_path / "copied").unlink()


def test_a_whole_directory_is_copied(shared: Served, credential: Path, tmp_path: Path) -> None:
    (credential / "key").write_bytes(NEW.key_pem)
    (credential / "certificate").write_bytes((tmp_path / "long.pem").read_bytes())
    for script in (
        "tar -c --exclude=key credentials policy stats | tar -x -C $PEM/to",
        "rsync -rt --exclude=key credentials policy stats $PEM/to",
        "cp -r policy stats $PEM/to; d=credentials/www; mkdir -p $PEM/to/$d; cp $d/*s $d/c* $PEM/to/$d",
    ):
        (tmp_path / "to").mkdir()
        done = shared.sh(script)
        assert (done.returncode, done.stderr) == (0, ""), script
        for copied in (path for path in (tmp_path / "to").rglob("*") if path.is_file()):
            name = copied.relative_to(tmp_path / "to")
            assert copied.read_bytes() == (shared.root / name).read_bytes(), name
        assert len(list((tmp_path / "to").rglob("*"))) > len(SETTINGS) + 4
        shutil.rmtree(tmp_path / "to")


def test_who_asks_for_the_size_before_it_opens_a_file_gets_no_cut_copy(shared: Served, tmp_path: Path) -> None:
    """Python's tarfile takes the size from lstat(2): of what is not known before, it finds less, and says so."""
    for name, known in (("policy/ciphers", True), ("sockets/1/verdicts", True), ("stats/failures", False),
                        ("sockets.jsonl", False)):  # fmt: skip
        with tarfile.open(tmp_path / "copy.tar", "w") as archive:
            if known:
                archive.add(shared.root / name, "copied")
            else:
                with pytest.raises(OSError, match="unexpected end of data"):
                    archive.add(shared.root / name, "copied")
        if known:
            with tarfile.open(tmp_path / "copy.tar") as archive:
                assert archive.extractfile("copied").read() == (shared.root / name).read_bytes()


def test_no_cut_copy_of_what_changes_meanwhile(shared: Served, credential: Path, tmp_path: Path) -> None:
    """Copied while it is renewed all the time: each copy is whole, or the copier says that it failed."""
    long = (tmp_path / "long.pem").read_bytes()
    done = threading.Event()

    def renew() -> None:
        while not done.is_set():
            for text in (NEW.pem, long):
                (credential / "certificate").write_bytes(text)

    (credential / "key").write_bytes(NEW.key_pem)
    writer = threading.Thread(target=renew)
    writer.start()
    try:
        for script in (COPIERS[name] for name in ("cp", "install", "rsync", "tar pax") for _ in range(10)):
            (tmp_path / "copy.sh").write_text(script)
            (tmp_path / "copied").unlink(missing_ok=True)
            if shared.sh("sh -e $PEM/copy.sh credentials/www/certificate $PEM/copied").returncode == 0:
                assert (tmp_path / "copied").read_bytes() in (OLD.pem, NEW.pem, long), script
    finally:
        done.set()
        writer.join()


# --- values that come in several writes ---

NAMES = [f"host{number}.{'x' * 20}.example" for number in range(300)]
# What writes the lines of $PEM/names into credentials/www/hostnames, in pieces of its own choosing.
LISTERS = [
    "sort $PEM/names > credentials/www/hostnames",
    "sort -o credentials/www/hostnames $PEM/names",
    "awk '{print}' $PEM/names > credentials/www/hostnames",
    "sed s/x/x/ $PEM/names > credentials/www/hostnames",
    "sed -n 'w credentials/www/hostnames' $PEM/names",
    "jq -Rr . $PEM/names > credentials/www/hostnames",
    "cat $PEM/names | tee credentials/www/hostnames >/dev/null",
    "python3 -c 'import sys; [print(line, end=str()) for line in sys.stdin]' < $PEM/names > credentials/www/hostnames",
    "python3 -uc 'import sys; [print(line, end=str()) for line in sys.stdin]' < $PEM/names > credentials/www/hostnames",
    "perl -ne print $PEM/names > credentials/www/hostnames",
    "while read name; do echo $name; done < $PEM/names > credentials/www/hostnames",
    "bash -c 'printf \"%s\\n\" $(cat $PEM/names) > credentials/www/hostnames'",
    "dd status=none bs=100 if=$PEM/names of=credentials/www/hostnames",
    "cp $PEM/names credentials/www/hostnames",
    "sort $PEM/names >> credentials/www/hostnames",
    "tr '\\n' , < $PEM/names > credentials/www/hostnames",
]


@pytest.mark.parametrize("script", LISTERS)
def test_a_list_that_comes_in_pieces(shared: Served, credential: Path, tmp_path: Path, script: str) -> None:
    (tmp_path / "names").write_text("".join(f"{name}\n" for name in NAMES))
    done = shared.sh(script)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted((credential / "hostnames").read_text().split()) == sorted(NAMES)


# Those that do not say so if a write fails: perl, and a shell that goes on; and what begins anew with each write.
QUIET = ("perl", "while read", " -o ", "-uc")


@pytest.mark.parametrize("script", [script for script in LISTERS if not any(map(script.__contains__, QUIET))])
def test_one_bad_name_among_many_is_told(shared: Served, credential: Path, tmp_path: Path, script: str) -> None:
    """Also to those that do not look at close(2), as the bad one has a newline behind it; and none is in force."""
    (tmp_path / "names").write_text("".join(f"{name}\n" for name in (*NAMES[:150], "a:443", *NAMES[150:])))
    assert shared.sh(script).returncode != 0
    assert (credential / "hostnames").read_bytes() == b"old.example\n"


def test_a_writer_that_is_killed_changes_nothing(shared: Served, credential: Path) -> None:
    for opener in (
        "exec python3 -uc '{}' > credentials/www/hostnames",
        "{{ python3 -uc '{}'; }} > credentials/www/hostnames",
        "( ( ( python3 -uc '{}'; : ); : ); : ) > credentials/www/hostnames; false",
        """exec python3 -uc 'import sys, threading
def main():
    sys.stdout = open("credentials/www/hostnames", "w", 1); {}
threading.Thread(target=main).start()'""",
        'exec python3 -uc \'import sys; sys.stdout = open("credentials/www/hostnames", "w", 1); {}\'',
    ):
        code = 'print("a.example"); import os, signal; os.kill(os.getpid(), signal.SIGKILL)'
        assert shared.sh(opener.format(code)).returncode != 0
        assert (credential / "hostnames").read_bytes() == b"old.example\n", opener
    assert shared.logged("its writer was killed before the end of it")


def test_nothing_is_in_force_before_the_end(shared: Served, credential: Path) -> None:
    with (credential / "hostnames").open("w") as file:
        for name in NAMES:
            file.write(f"{name}\n")
            file.flush()
        assert (credential / "hostnames").read_bytes() == b"old.example\n"
    assert (credential / "hostnames").read_text().split() == NAMES


def test_more_than_a_value_can_be_is_not_gathered(shared: Served, credential: Path) -> None:
    done = shared.sh("yes a.example | head -c 10000000 > credentials/www/hostnames")
    assert done.returncode != 0
    assert "Invalid argument" in done.stderr
    assert (credential / "hostnames").read_bytes() == b"old.example\n"


# What leaves out what is there already, or replaces a part of it.
PATCHERS = [
    "rsync --inplace --no-whole-file $PEM/names credentials/www/hostnames",
    "dd bs=1 skip=10 seek=10 count=9 conv=notrunc if=$PEM/names of=credentials/www/hostnames",
    "dd bs=100 skip=1 seek=1 if=$PEM/names of=credentials/www/hostnames",
    """python3 -c 'import os
file = os.open("credentials/www/hostnames", os.O_RDWR)
os.pwrite(file, b"a.example", 500)'""",
    """python3 -c 'file = open("credentials/www/hostnames", "r+")
file.seek(500)
file.write("a.example")
file.close()'""",
]


@pytest.mark.parametrize("script", PATCHERS)
def test_no_part_of_a_list_is_put_in_force(shared: Served, credential: Path, tmp_path: Path, script: str) -> None:
    path = tmp_path / "names"
    path.write_text("".join(f"{name}\n" for name in NAMES))
    (credential / "hostnames").write_text(path.read_text())
    path.write_text("".join(f"{name}\n" for name in (*NAMES[:150], "a.example", *NAMES[151:])))
    done = shared.sh(script)
    assert done.returncode != 0
    assert "Invalid argument" in done.stderr
    assert (credential / "hostnames").read_text().split() == NAMES
    assert shared.logged("a part of a value cannot be replaced")


def test_rsync_of_a_whole_list(shared: Served, credential: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("".join(f"{name}\n" for name in NAMES))
    done = shared.sh("rsync --inplace $PEM/names credentials/www/hostnames")
    assert (done.returncode, done.stderr) == (0, "")
    assert (credential / "hostnames").read_text().split() == NAMES


# --- processes that come and go ---


def test_a_socket_goes(root: Path) -> None:
    served = serve(root)
    with (root / "sockets/1/hostname").open("rb", buffering=0) as file:
        served.process.send_signal(signal.SIGUSR1)
        assert served.process.stdout
        assert served.process.stdout.readline() == "gone\n"
        assert file.read(100) == b"server.example\n"
        assert os.fstat(file.fileno()).st_size == len(b"server.example\n")
    assert ls(root / "sockets") == ["2", "3"]
    with pytest.raises(FileNotFoundError):
        (root / "sockets/1/hostname").read_bytes()
    assert served.stop() == 0


def test_a_thousand_sockets_are_listed_quickly(root: Path) -> None:
    served = serve(root, sockets=1000)
    began = time.monotonic()
    assert sorted(map(int, ls(root / "sockets"))) == list(range(1, 1001))
    assert time.monotonic() - began < PATIENCE / 10
    assert served.stop() == 0


def test_the_mount_goes_with_the_daemon(root: Path) -> None:
    served = serve(root)
    assert os.path.ismount(root)
    held = (root / "version").open()
    assert served.stop() == 0
    with contextlib.suppress(OSError):
        held.close()
    assert not os.path.ismount(root)
    assert list(root.iterdir()) == []


def test_a_crashed_daemons_mount_is_taken_over(root: Path) -> None:
    for _ in range(2):
        served = serve(root)
        held = (root / "version").open()
        served.stop(signal.SIGKILL)
        assert is_stale(root)
        with contextlib.suppress(OSError):
            held.close()
    again = serve(root)
    assert (root / "version").read_text() == "0.0.test\n"
    assert again.logged("taking over the mount of a daemon that is gone")
    assert again.stop() == 0
    assert not os.path.ismount(root)


def test_a_live_daemons_mount_is_left_alone(root: Path) -> None:
    served = serve(root)
    with pytest.raises(RuntimeError, match="mounted already, by a daemon that is alive"):
        serve(root)
    assert (root / "version").read_text() == "0.0.test\n"
    assert served.stop() == 0


def test_a_stuck_daemons_mount_is_left_alone(root: Path) -> None:
    served = serve(root)
    served.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(RuntimeError, match="mounted already, by a daemon that is alive"):
            serve(root)
    finally:
        served.process.send_signal(signal.SIGCONT)
    assert served.stop() == 0


def test_unmounted_from_outside(root: Path) -> None:
    served = serve(root)
    detach(root)
    assert not os.path.ismount(root)
    served.process.terminate()
    served.process.wait(PATIENCE)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: (root.mkdir(), (root / "something").touch()), "not empty"),
        (lambda root: root.touch(), "cannot make the mount point"),
        (lambda root: root.symlink_to("/proc/self/nowhere/deeper"), "cannot make the mount point"),
    ],
)
def test_where_it_cannot_be_mounted(root: Path, make: object, message: str) -> None:
    assert callable(make)
    make(root)
    with pytest.raises(RuntimeError, match=message):
        serve(root)


def test_another_file_systems_mount_is_left_alone() -> None:
    with pytest.raises(RuntimeError, match=r"another file system is mounted there \(proc\)"):
        serve(Path("/proc"))


def test_a_mount_point_is_made_with_its_parents_and_links_are_followed(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root / "deep" / "er")
    served = serve(link)
    assert (root / "deep/er/version").read_text() == "0.0.test\n"
    assert served.stop(signal.SIGKILL) == -signal.SIGKILL
    again = serve(link)
    assert again.stop() == 0
