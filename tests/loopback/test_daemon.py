"""ssad's life: how it starts, what it takes over, what it refuses, how it ends. No kernel TLS is needed."""

import contextlib
import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time

import pytest

import ssa
from ssa.ktls.probe import probe
from ssa.protocol import wire
from tests import peers
from tests.peers import Daemon

KERNEL = probe()


def mounted(path):
    with open("/proc/self/mountinfo") as table:
        return any(line.split()[4] == str(path) for line in table)


def run_ssad(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "ssa.daemon.main", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def use(monkeypatch, daemon):
    for name, value in daemon.environment.items():
        monkeypatch.setenv(name, value)


def test_sigterm_ends_it_and_unmounts(tmp_path):
    with Daemon(tmp_path) as daemon:
        assert mounted(daemon.mount)
        assert daemon.get("version") == ssa.__version__ + "\n"
    assert daemon.process.returncode == 0
    assert not mounted(daemon.mount)
    assert not (daemon.run_dir / "ssad.sock").exists()
    assert "Traceback" not in daemon.log


def test_sigint_too(tmp_path):
    daemon = Daemon(tmp_path).start()
    daemon.process.send_signal(signal.SIGINT)
    assert daemon.process.wait(10) == 0
    assert not mounted(daemon.mount)


def test_a_second_one_refuses_and_the_first_goes_on(tmp_path, monkeypatch):
    with Daemon(tmp_path) as daemon:
        second = run_ssad(**daemon.environment)
        assert second.returncode == 1
        assert f"pid {daemon.process.pid}" in second.stderr
        assert str(daemon.run_dir) in second.stderr
        assert "Traceback" not in second.stderr
        assert daemon.get("policy/min_version") == "TLSv1.2\n"


def test_what_a_crashed_one_left_is_taken_over(tmp_path, monkeypatch):
    daemon = Daemon(tmp_path).start()
    daemon.process.kill()
    daemon.process.wait()
    assert (daemon.run_dir / "ssad.sock").exists()
    assert mounted(daemon.mount)
    use(monkeypatch, daemon)
    with pytest.raises(ConnectionRefusedError, match="ssad"):
        ssa.connect_tls("localhost", 1)
    with daemon:
        assert daemon.get("policy/max_version") == "TLSv1.3\n"
        with pytest.raises(ConnectionRefusedError, match="Connection refused"):
            ssa.connect_tls("localhost", peers.free_port())
    assert not mounted(daemon.mount)


def test_several_side_by_side(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with Daemon(tmp_path / "one") as one, Daemon(tmp_path / "two") as two:
        one.set("min_version", "TLSv1.3")
        assert one.get("policy/min_version") == "TLSv1.3\n"
        assert two.get("policy/min_version") == "TLSv1.2\n"


def test_no_daemon_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path / "nowhere"))
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError) as caught:
        ssa.connect_tls("192.0.2.1", 443)  # which would never answer
    assert time.monotonic() - began < 1
    assert str(tmp_path / "nowhere" / "ssad.sock") in str(caught.value)
    assert "start it" in str(caught.value)


def test_readiness_by_the_service_managers_socket(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        daemon = Daemon(tmp_path)
        daemon.environment["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        with daemon:
            assert manager.recv(100) == b"READY=1"
            assert daemon.get("version")
        assert manager.recv(100) == b"STOPPING=1"


def ssa_command(*arguments, environment):
    command = [sys.executable, "-m", "ssa.cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True).stdout


def test_who_knows_the_run_directory_finds_the_rest(tmp_path):
    with Daemon(tmp_path, policy='[policy]\nmin_version = "TLSv1.3"\n') as daemon:
        alone = {name: value for name, value in os.environ.items() if not name.startswith("SSA_")}
        alone["SSA_RUN_DIR"] = str(daemon.run_dir)
        assert ssa_command("policy", "get", "min_version", environment=alone) == "TLSv1.3\n"
        assert str(daemon.config) in ssa_command("policy", "save", environment=alone)
        exported = ssa_command("env", environment=alone)
        assert exported == "export " + " ".join(f"{name}={path}" for name, path in daemon.environment.items()) + "\n"


def test_the_policy_file_is_what_it_starts_with(tmp_path):
    with Daemon(tmp_path, policy='[policy]\nmin_version = "TLSv1.3"\nalpn = ["h2", "http/1.1"]\n') as daemon:
        assert daemon.get("policy/min_version") == "TLSv1.3\n"
        assert daemon.get("policy/alpn") == "h2\nhttp/1.1\n"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ('[policy]\nmin_version = "TLSv1.1"\n', "min_version"),
        ("[policy]\nmin_versoin = 1\n", "min_versoin"),
        ("not toml", "policy.toml"),
        ('[policy]\ntrust_store = "/nowhere.pem"\n', "/nowhere.pem"),
    ],
)
def test_a_bad_policy_file_is_refused_with_its_reason(tmp_path, policy, says):
    daemon = Daemon(tmp_path, policy=policy)
    failed = run_ssad(**daemon.environment)
    assert failed.returncode == 1
    assert says in failed.stderr
    assert "Traceback" not in failed.stderr
    assert not mounted(daemon.mount)


def test_a_mount_point_that_is_in_use_is_refused(tmp_path):
    daemon = Daemon(tmp_path)
    daemon.mount.mkdir()
    (daemon.mount / "precious").write_text("data")
    failed = run_ssad(**daemon.environment)
    assert failed.returncode == 1
    assert "not empty" in failed.stderr
    assert "Traceback" not in failed.stderr
    assert (daemon.mount / "precious").read_text() == "data"


def test_help_is_complete():
    shown = run_ssad("--help").stdout
    for word in ("--run-dir", "--mount", "--config", "--user", "--ready-fd", "--log-level", "--version", "SIGTERM"):
        assert word in shown
    for variable in ("SSA_RUN_DIR", "SSA_MOUNT", "SSA_CONFIG", "NOTIFY_SOCKET"):
        assert variable in shown
    assert run_ssad("--nonsense").returncode == 2
    assert run_ssad("--version").stdout == f"ssad {ssa.__version__}\n"


@pytest.mark.skipif(KERNEL.tls, reason="this kernel has TLS")
def test_a_kernel_without_tls_is_told_plainly(tmp_path, monkeypatch, pki):
    with Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "ktls"\n') as daemon:
        use(monkeypatch, daemon)
        assert daemon.get("kernel/tls").startswith("no: ")
        with peers.openssl(pki, "-quiet") as (port, _), pytest.raises(ssa.SSAError) as caught:
            ssa.connect_tls("localhost", port)
    assert caught.value.errno == errno.EPROTONOSUPPORT
    assert caught.value.whose_fault == "system"
    assert "kernel" in str(caught.value)
    assert "doctor" in str(caught.value)


def test_a_flood_of_silent_applications_does_not_stop_the_next(tmp_path, monkeypatch):
    with Daemon(tmp_path) as daemon, contextlib.ExitStack() as idle:
        for _ in range(300):
            sock = idle.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.connect(str(daemon.run_dir / "ssad.sock"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
            last.settimeout(5)
            last.connect(str(daemon.run_dir / "ssad.sock"))
            last.send(b"junk")
            assert wire.parse_untrusted(last.recv(65536), wire.Reply).reason == "BAD_REQUEST"


@pytest.mark.parametrize("mode", [0o777, 0o770])
def test_a_private_daemon_in_a_place_that_others_could_take(tmp_path, mode):
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    runtime.chmod(mode)
    failed = run_ssad("--user", XDG_RUNTIME_DIR=str(runtime), XDG_CONFIG_HOME=str(tmp_path))
    assert failed.returncode == 1
    assert str(runtime) in failed.stderr
    assert "Traceback" not in failed.stderr


def test_it_goes_on_when_it_has_no_descriptors_left(tmp_path):
    daemon = Daemon(tmp_path).start()
    resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (40, 40))
    with contextlib.ExitStack() as idle:
        for _ in range(100):
            sock = idle.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            sock.connect(str(daemon.run_dir / "ssad.sock"))
        time.sleep(3)
        assert daemon.process.poll() is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as last:
        last.settimeout(5)
        last.connect(str(daemon.run_dir / "ssad.sock"))
        last.send(b"junk")
        assert wire.parse_untrusted(last.recv(65536), wire.Reply).reason == "BAD_REQUEST"
    assert daemon.stop() == 0
    assert "no application can be served" in daemon.log
