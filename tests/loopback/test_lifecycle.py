"""How ssad starts, reloads and ends where something is wrong: locks, masks, signals, files, mounts. No kernel TLS."""

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from tests.peers import Daemon, settled

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="needs root: another user, or a mount")
NOBODY = 65534


def mounts(path):
    """The types of what is mounted at a path, the topmost last."""
    with open("/proc/self/mountinfo") as table:
        rows = [line.split() for line in table]
    return [row[row.index("-") + 1] for row in rows if row[4] == str(path)]


def start_and_fail(daemon, *arguments, **environment):
    """The status and the words of a daemon that does not get as far as to serve."""
    done = subprocess.run(
        [sys.executable, "-m", "ssa.daemon.main", *arguments],
        env=os.environ | daemon.environment | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert not mounts(daemon.mount)
    return done.returncode, done.stderr


@contextlib.contextmanager
def as_nobody(code, *arguments, pass_fds=()):
    """A program of another user's, from when it has said something."""
    python = getattr(sys, "_base_executable", sys.executable)  # the environment may lie where only root can read
    command = [python, "-c", code, *map(str, arguments)]
    quiet = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, user=NOBODY, group=NOBODY, extra_groups=[], pass_fds=pass_fds, **quiet)
    try:
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def open_to_all(directory):
    while directory != directory.parent and directory.stat().st_uid == os.getuid():
        directory.chmod(directory.stat().st_mode | 0o055)
        directory = directory.parent
    return directory


# --- the lock -----------------------------------------------------------------------------------------------------

HOLD = """
import fcntl, sys
lock = open(sys.argv[1])
fcntl.flock(lock, fcntl.LOCK_EX)
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_lock_is_its_owners_alone(tmp_path):
    with Daemon(tmp_path) as daemon:
        assert stat.S_IMODE((daemon.run_dir / "ssad.lock").stat().st_mode) == 0o600


def test_an_old_locks_mode_is_mended(tmp_path):
    daemon = Daemon(tmp_path)
    daemon.run_dir.mkdir()
    (daemon.run_dir / "ssad.lock").write_text("12345\n")
    (daemon.run_dir / "ssad.lock").chmod(0o644)
    with daemon:
        assert stat.S_IMODE((daemon.run_dir / "ssad.lock").stat().st_mode) == 0o600
        assert (daemon.run_dir / "ssad.lock").read_text() == f"{daemon.process.pid}\n"


@needs_root
def test_a_lock_that_another_user_holds_stops_nobody(tmp_path):
    open_to_all(tmp_path)
    daemon = Daemon(tmp_path)
    daemon.run_dir.mkdir()
    lock = daemon.run_dir / "ssad.lock"
    lock.write_text("1\n")
    lock.chmod(0o644)
    with as_nobody(HOLD, lock) as holder:
        with daemon:
            assert f"pid={holder.pid} uid={NOBODY}" in daemon.log
        assert daemon.process.returncode == 0


def test_who_holds_the_lock_is_said_truly(tmp_path):
    daemon = Daemon(tmp_path)
    daemon.run_dir.mkdir()
    with (daemon.run_dir / "ssad.lock").open("w") as lock:
        lock.write("4194000\n")  # who took it first is gone
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, words = start_and_fail(daemon)
    assert status == 1
    assert f"pid {os.getpid()}" in words
    assert "4194000" not in words


def test_a_lock_file_that_was_removed_does_not_make_two_of_one(tmp_path):
    with Daemon(tmp_path) as daemon:
        (daemon.run_dir / "ssad.lock").unlink()
        second = Daemon(tmp_path)
        second.environment["SSA_MOUNT"] = str(tmp_path / "other")
        second.mount = tmp_path / "other"
        status, words = start_and_fail(second)
        assert status == 1
        assert f"pid {daemon.process.pid}" in words
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            sock.connect(str(daemon.run_dir / "ssad.sock"))


# --- modes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [0o027, 0o077, 0o000])
def test_modes_are_set_and_not_masked(tmp_path, mask):
    (tmp_path / "deep").mkdir()
    daemon = Daemon(tmp_path)
    daemon.run_dir = tmp_path / "deep" / "er" / "run"
    daemon.mount = tmp_path / "far" / "ssa"
    daemon.environment |= {"SSA_RUN_DIR": str(daemon.run_dir), "SSA_MOUNT": str(daemon.mount)}
    old = os.umask(mask)
    try:
        daemon.start()
    finally:
        os.umask(old)
    with contextlib.closing(contextlib.ExitStack()) as end:
        end.callback(daemon.stop)
        for path, expected in (
            (daemon.run_dir.parent, 0o755),
            (daemon.run_dir, 0o755),
            (daemon.run_dir / "ssad.sock", 0o666),
            (daemon.run_dir / "ssad.lock", 0o600),
            (daemon.mount.parent, 0o755),
        ):
            assert stat.S_IMODE(path.stat().st_mode) == expected, path
    assert stat.S_IMODE(daemon.mount.stat().st_mode) == 0o755


@pytest.mark.parametrize("mask", [0o027, 0o077])
def test_a_saved_policy_is_anybodys_to_read(tmp_path, mask):
    with Daemon(tmp_path) as daemon:
        config = tmp_path / "etc" / "ssa" / "policy.toml"
        environment = os.environ | daemon.environment | {"SSA_CONFIG": str(config)}
        subprocess.run(
            [sys.executable, "-m", "ssa.cli.main", "policy", "save"], env=environment, check=True, umask=mask
        )
    assert [stat.S_IMODE(path.stat().st_mode) for path in (config, config.parent)] == [0o644, 0o755]


# --- signals ------------------------------------------------------------------------------------------------------

REALTIME = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
ENDS = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT", "SIGXCPU"]
IGNORED = ["SIGUSR1", "SIGALRM", "SIGVTALRM", "SIGPROF", "SIGIO", "SIGPWR", "SIGSTKFLT", "SIGPIPE", "SIGSYS"]


@pytest.mark.parametrize("name", ENDS)
def test_it_ends_in_order_by(tmp_path, name):
    daemon = Daemon(tmp_path).start()
    daemon.process.send_signal(signal.Signals[name])
    assert daemon.process.wait(10) == 0
    assert not mounts(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()
    assert f"{name}: ending" in daemon.log


def test_other_signals_do_not_end_it(tmp_path):
    with Daemon(tmp_path) as daemon:
        for number in (*(signal.Signals[name] for name in IGNORED), *REALTIME):
            daemon.process.send_signal(number)
            assert daemon.get("policy/min_version") == "TLSv1.2\n", number
        assert daemon.process.poll() is None


def test_help_tells_of_signals():
    shown = subprocess.run([sys.executable, "-m", "ssa.daemon.main", "--help"], capture_output=True, check=True).stdout
    for name in ("SIGTERM", "SIGINT", "SIGQUIT", "SIGABRT", "SIGXCPU", "SIGHUP", "SIGUSR1", "SIGALRM"):
        assert name.encode() in shown


def test_signals_while_it_ends_change_nothing(tmp_path):
    daemon = Daemon(tmp_path).start()
    deadline = time.monotonic() + 10
    while daemon.process.poll() is None and time.monotonic() < deadline:
        for name in ("SIGTERM", "SIGQUIT", "SIGINT", "SIGHUP", "SIGUSR1"):
            daemon.process.send_signal(signal.Signals[name])
    assert daemon.process.wait(10) == 0
    assert not mounts(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()


@pytest.mark.parametrize("after", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.3])
def test_a_signal_while_it_starts(tmp_path, after):
    daemon = Daemon(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "ssa.daemon.main"], env=os.environ | daemon.environment, stderr=subprocess.PIPE
    ) as process:
        time.sleep(after)
        process.terminate()
        process.communicate(timeout=20)
    assert not mounts(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()


BROKEN = """
import trio
from ssa.daemon import main, registry
async def tidy(self):
    await trio.sleep(0.5)
    raise {}
registry.Registry.tidy = tidy
raise SystemExit(main.main())
"""


@pytest.mark.parametrize("error", ["RuntimeError('broken')", "OSError(5, 'broken')", "MemoryError()", "SystemExit(3)"])
def test_whatever_ends_it_unmounts(tmp_path, error):
    daemon = Daemon(tmp_path)
    command = [sys.executable, "-c", BROKEN.format(error)]
    environment = os.environ | daemon.environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode != 0
    assert not mounts(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()
    assert error.partition("(")[0] in done.stderr or "broken" in done.stderr


def test_after_sigkill_the_next_start_recovers(tmp_path):
    daemon = Daemon(tmp_path).start()
    daemon.process.kill()
    daemon.process.wait()
    with daemon:
        assert daemon.get("version")
    assert not mounts(daemon.mount)


# --- the service manager ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["{}/nowhere", "{}/file", "@nobody", "relative", "vsock:2:1", "/" + "x" * 200])
def test_a_service_manager_that_is_not_there(tmp_path, address):
    (tmp_path / "file").touch()
    daemon = Daemon(tmp_path)
    daemon.environment["NOTIFY_SOCKET"] = address.format(tmp_path)
    with daemon:
        assert daemon.get("version")
        assert "NOTIFY_SOCKET" in daemon.log
    assert daemon.process.returncode == 0
    assert not mounts(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()
    assert "Traceback" not in daemon.log


def test_a_service_manager_that_goes(tmp_path):
    daemon = Daemon(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        daemon.start()
    assert daemon.stop() == 0
    assert not mounts(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()


def test_a_service_manager_that_does_not_read(tmp_path):
    daemon = Daemon(tmp_path)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
    ):
        manager.bind(str(tmp_path / "notify"))
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"x" * 1000, str(tmp_path / "notify"))
        daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with daemon:
            assert daemon.get("version")
        assert daemon.process.returncode == 0


def test_a_ready_descriptor_that_is_none(tmp_path):
    daemon = Daemon(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-m", "ssa.daemon.main", "--ready-fd", "777"],
        env=os.environ | daemon.environment,
        stderr=subprocess.PIPE,
    ) as process:
        assert settled(lambda: mounts(daemon.mount) and (daemon.mount / "version").exists(), 20)
        time.sleep(0.3)
        process.terminate()
        _, words = process.communicate(timeout=20)
    assert process.returncode == 0
    assert b"777" in words


# --- what is another's is left alone ------------------------------------------------------------------------------


@needs_root
def test_a_file_system_that_was_mounted_over_it_stays(tmp_path):
    daemon = Daemon(tmp_path).start()
    subprocess.run(["mount", "-t", "tmpfs", "other", daemon.mount], check=True)
    try:
        (daemon.mount / "precious").write_text("data")
        assert daemon.stop() == 0
        assert (daemon.mount / "precious").read_text() == "data"
        assert "tmpfs" in daemon.log
        assert not (daemon.run_dir / "ssad.sock").exists()
    finally:
        subprocess.run(["umount", daemon.mount], check=False)
    with daemon:  # what was left below is taken over
        assert daemon.get("version")
    assert not mounts(daemon.mount)


@needs_root
def test_a_file_system_of_another_daemons_over_it_stays(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Daemon(tmp_path / "one"), Daemon(tmp_path / "two")
    with one:
        subprocess.run(["umount", "-l", one.mount], check=True)
        two.mount = one.mount
        two.environment["SSA_MOUNT"] = str(one.mount)
        with two:
            assert one.stop() == 0
            assert two.get("version")


def test_a_successors_socket_stays(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = Daemon(tmp_path / "one"), Daemon(tmp_path / "two")
    two.run_dir = one.run_dir
    two.environment["SSA_RUN_DIR"] = str(one.run_dir)
    with one:
        shutil.rmtree(one.run_dir)
        with two:
            assert one.stop() == 0
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                sock.connect(str(two.run_dir / "ssad.sock"))


# --- the policy's file --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["environment", "option", "dangling", "dangling directory"])
def test_a_policy_file_that_was_named_and_is_not_there(tmp_path, way):
    daemon = Daemon(tmp_path)
    named = tmp_path / "etc" / "policy.toml"
    if way == "dangling":
        named.parent.mkdir()
        named.symlink_to("nowhere")
    elif way == "dangling directory":
        named.parent.symlink_to("nowhere")
    arguments = ("--config", str(named)) if way == "option" else ()
    status, words = start_and_fail(daemon, *arguments, SSA_CONFIG=str(named))
    assert status == 1
    assert str(named) in words
    assert ("link" in words) == way.startswith("dangling")


def test_a_default_policy_file_that_is_not_there_is_said(tmp_path):
    environment = {"XDG_RUNTIME_DIR": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    config = tmp_path / "config" / "ssa" / "policy.toml"
    tmp_path.chmod(0o700)
    daemon = Daemon(tmp_path, arguments=("--user",))
    daemon.mount = tmp_path / "ssa" / "fs"
    for exported in ({}, {"SSA_CONFIG": str(config)}):  # as the line says that ssad --user prints
        daemon.environment = environment | exported
        with daemon:
            assert f"{config}" in daemon.log
            assert "defaults" in daemon.log


def test_which_policy_is_in_force_is_said(tmp_path):
    with Daemon(tmp_path, policy="[policy]\nmin_rsa_bits = 3000\n") as daemon:
        assert f"policy in force file={daemon.config}" in daemon.log
        doctor = [sys.executable, "-m", "ssa.cli.main", "doctor"]
        environment = os.environ | daemon.environment
        shown = subprocess.run(doctor, env=environment, capture_output=True, text=True, check=False).stdout
        assert f"from {daemon.config}" in shown
        daemon.set("alpn", "h2")
        shown = subprocess.run(doctor, env=environment, capture_output=True, text=True, check=False).stdout
        assert "changed since: alpn" in shown


@pytest.mark.parametrize("kind", ["fifo", "directory", "device", "socket", "endless"])
def test_a_policy_file_that_is_no_file(tmp_path, kind):
    daemon = Daemon(tmp_path)
    with replaced(daemon.config, kind):
        status, words = start_and_fail(daemon)
    assert status == 1
    assert str(daemon.config) in words


@contextlib.contextmanager
def replaced(path, kind):
    path.unlink()
    with socket.socket(socket.AF_UNIX) as sock:
        {
            "fifo": lambda: os.mkfifo(path),
            "directory": path.mkdir,
            "device": lambda: path.symlink_to("/dev/zero"),
            "socket": lambda: sock.bind(str(path)),
            "endless": lambda: (path.touch(), os.truncate(path, 1 << 40)),
        }[kind]()
        yield


# --- SIGHUP -------------------------------------------------------------------------------------------------------


def reload(daemon):
    """Have it reload; what it logs about that."""
    before = len(daemon.log.splitlines())
    daemon.process.send_signal(signal.SIGHUP)
    assert settled(lambda: "reload" in "\n".join(daemon.log.splitlines()[before:]))
    return daemon.log.splitlines()[before:]


def test_a_reload_says_what_has_changed(tmp_path):
    with Daemon(tmp_path, policy="[policy]\nmin_rsa_bits = 3000\n") as daemon:
        daemon.config.write_text('[policy]\nmin_rsa_bits = 4096\nalpn = ["h2"]\n')
        lines = reload(daemon)
        assert daemon.get("policy/min_rsa_bits") == "4096\n"
        assert daemon.get("policy/alpn") == "h2\n"
        assert any("setting=min_rsa_bits old=3000 new=4096" in line for line in lines)
        assert any("setting=alpn old= new=h2" in line for line in lines)
        assert any("nothing has changed" in line for line in reload(daemon))


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("[policy]\nmin_rsa_bits = 4096\nmin_version = 7\n", "min_version"),
        ('[policy]\nmin_rsa_bits = 4096\ntrust_store = "/nowhere.pem"\n', "/nowhere.pem"),
        ("no toml", "TOML"),
        (None, "policy.toml"),
        ("fifo", "regular"),
        ("directory", "regular"),
    ],
)
def test_a_reload_of_something_bad_changes_nothing(tmp_path, policy, says):
    with Daemon(tmp_path, policy="[policy]\nmin_rsa_bits = 3000\n") as daemon, contextlib.ExitStack() as kept:
        if policy is None:
            daemon.config.unlink()
        elif policy in ("fifo", "directory"):
            kept.enter_context(replaced(daemon.config, policy))
        else:
            daemon.config.write_text(policy)
        lines = reload(daemon)
        assert any("error: " in line and says in line for line in lines), lines
        assert daemon.get("policy/min_rsa_bits") == "3000\n"
        assert daemon.get("policy/min_version") == "TLSv1.2\n"


def test_a_reload_takes_policy_and_credentials_or_neither(tmp_path, pki):
    www = tmp_path / "credentials" / "www"
    with Daemon(tmp_path) as daemon:
        www.mkdir(parents=True)
        (www / "certificate").write_bytes(pki.cert.read_bytes())
        (www / "key").write_bytes(b"no key")
        daemon.config.write_text("[policy]\nmin_rsa_bits = 4096\n")
        lines = reload(daemon)
        assert any("error: " in line and "www" in line for line in lines), lines
        assert daemon.get("policy/min_rsa_bits") == "2048\n"
        (www / "key").write_bytes(pki.key.read_bytes())
        (www / "key").chmod(0o600)
        lines = reload(daemon)
        assert daemon.get("policy/min_rsa_bits") == "4096\n"
        assert any("credential=www" in line for line in lines), lines
        other = pki.issue("other", "other.test")
        (www / "certificate").write_bytes(other[0].read_bytes())
        (www / "key").write_bytes(other[1].read_bytes())
        assert any("credential=www" in line for line in reload(daemon))
        shutil.rmtree(www)
        assert any("credential=www" in line for line in reload(daemon))


@pytest.fixture
def hung(tmp_path):
    """A file of a file system that does not answer."""
    (tmp_path / "hung").mkdir()
    with Daemon(tmp_path / "hung") as daemon:
        assert daemon.get("version")
        daemon.process.send_signal(signal.SIGSTOP)
        yield daemon.mount / "policy" / "min_version"
        daemon.process.send_signal(signal.SIGCONT)


def test_a_reload_from_a_file_system_that_hangs_holds_nobody_up(tmp_path, hung):
    with Daemon(tmp_path) as daemon:
        daemon.config.unlink()
        daemon.config.symlink_to(hung)
        for _ in range(3):
            daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        began = time.monotonic()
        daemon.set("min_rsa_bits", "3000")
        assert daemon.get("policy/min_rsa_bits") == "3000\n"
        assert daemon.stop() == 0
        assert time.monotonic() - began < 5
    assert not mounts(daemon.mount)


def test_a_start_from_a_file_system_that_hangs_can_be_ended(tmp_path, hung):
    daemon = Daemon(tmp_path)
    daemon.config.unlink()
    daemon.config.symlink_to(hung)
    with subprocess.Popen([sys.executable, "-m", "ssa.daemon.main"], env=os.environ | daemon.environment) as process:
        time.sleep(2)
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == -signal.SIGTERM


def test_a_reload_is_told_to_the_service_manager(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        daemon = Daemon(tmp_path)
        daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with daemon:
            assert manager.recv(100) == b"READY=1"
            for policy in ("", "no toml"):
                daemon.config.write_text(policy)
                daemon.process.send_signal(signal.SIGHUP)
                assert manager.recv(100).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
                assert manager.recv(100) == b"READY=1"
        assert manager.recv(100) == b"STOPPING=1"
