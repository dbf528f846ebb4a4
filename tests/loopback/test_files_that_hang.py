"""Whatever the administrator's or an application's path leads to, the daemon answers on. No kernel TLS is needed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

import ssa
from ssa.protocol import wire
from tests import needs, peers
from tests.peers import Daemon

SOON = 2.0  # seconds; an answer takes milliseconds


@pytest.fixture
def use(monkeypatch):
    def use(daemon):
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        return daemon

    return use


@pytest.fixture
def ssad(tmp_path, pki, use):
    with Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as daemon:
        yield use(daemon)


@contextlib.contextmanager
def hung(directory):
    """A file system whose one file is opened, and never done with being read."""
    directory.mkdir()
    script = Path(__file__).with_name("unreadable.py")
    server = subprocess.Popen([sys.executable, script, directory], stdout=subprocess.PIPE)
    try:
        assert server.stdout.readline() == b"ready\n"
        yield directory / "page"
    finally:
        os.kill(server.pid, signal.SIGCONT)
        server.kill()
        server.communicate()
        subprocess.run(["umount", "--lazy", directory], check=True)


def answers(daemon):
    """How long another application waits for an answer, and another reader of /ssa."""
    began = time.monotonic()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(str(daemon.run_dir / "ssad.sock"))
        sock.send(wire.pack(wire.Check()))
        assert wire.parse_untrusted(sock.recv(65536), wire.Reply).reason is None
    assert daemon.get("version") == ssa.__version__ + "\n"
    return time.monotonic() - began


def write(daemon, value):
    """Write a policy's value in a process of its own, which can be waited for; its errno's name, or nothing."""
    script = (
        "import os, sys; file = os.open(sys.argv[1], os.O_WRONLY); os.write(file, sys.argv[2].encode()); os.close(file)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script, daemon.mount / "policy/trust_store", str(value)],
        stderr=subprocess.PIPE,
        text=True,
    )


def refused_meanwhile_served(daemon, value, seconds=10):
    """The line in the log for a value that is refused."""
    told = len(refusals(daemon))
    writer = write(daemon, value)
    before = daemon.get("policy/min_version")
    while writer.poll() is None:
        assert answers(daemon) < SOON
        time.sleep(0.05)
    assert "Invalid argument" in writer.communicate(timeout=seconds)[1]
    assert daemon.get("policy/min_version") == before
    assert peers.settled(lambda: len(refusals(daemon)) > told)
    return refusals(daemon)[-1]


def refusals(daemon):
    return [line for line in daemon.log.splitlines() if "policy/trust_store" in line and "trust_store: " in line]


def own_mount(daemon, tmp_path):
    daemon.mount.joinpath("credentials", "www").mkdir()
    target = daemon.mount / "credentials/www/certificate"
    (tmp_path / "link").symlink_to(target)
    (tmp_path / "into").symlink_to(daemon.mount / "credentials")
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "a.pem").symlink_to(target)
    return [target, tmp_path / "link", tmp_path / "into" / "www" / "certificate", daemon.mount / "policy", daemon.mount]


def test_a_trust_store_in_the_own_file_system(ssad, tmp_path):
    for value in own_mount(ssad, tmp_path):
        log = refused_meanwhile_served(ssad, value)
        assert "the file system that ssad itself provides" in log, value
    log = refused_meanwhile_served(ssad, tmp_path / "dir")  # a directory of one link
    assert "the file system that ssad itself provides" in log
    assert ssad.stop() == 0


def test_a_bind_mount_of_the_own_file_system(ssad, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    subprocess.run(["mount", "--bind", ssad.mount, elsewhere], check=True)
    try:
        log = refused_meanwhile_served(ssad, elsewhere / "version")
        assert "the file system that ssad itself provides" in log
    finally:
        subprocess.run(["umount", "--lazy", elsewhere], check=True)


@pytest.mark.parametrize("kind", ["fifo", "socket", "device", "empty directory"])
def test_a_trust_store_that_is_no_regular_file(ssad, tmp_path, kind):
    path = tmp_path / "odd"
    with contextlib.ExitStack() as open_:
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            open_.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
        elif kind == "device":
            path = Path("/dev/zero")
        else:
            path.mkdir()
        log = refused_meanwhile_served(ssad, path)
    assert ("not a regular file" if kind != "empty directory" else "no certificate in it") in log


def test_a_trust_store_on_a_file_system_that_hangs(ssad, tmp_path, pki):
    with hung(tmp_path / "hung") as page:
        assert "no answer within" in refused_meanwhile_served(ssad, f"{page}\n")  # by the write(2)
        assert "no answer within" in refused_meanwhile_served(ssad, page)  # by the close(2)
        assert "no answer within" in refused_meanwhile_served(ssad, page)  # known by now
        with peers.openssl(pki, "-rev") as (port, _):
            ssa.create_connection(("localhost", port), timeout=10).close()
        os.truncate(ssad.mount / "policy/trust_store", 0)
        assert ssad.stop() == 0


def test_a_trust_store_that_is_led_to_one_that_hangs(tmp_path, pki, use):
    """Meanwhile, by a link: handshakes fail in words, all else goes on, and it heals."""
    shutil.copy(pki.ca, tmp_path / "good.pem")
    (tmp_path / "store").symlink_to("good.pem")
    policy = f'[policy]\ntrust_store = "{tmp_path / "store"}"\ndata_path = "relay"\n'
    with Daemon(tmp_path, policy=policy) as daemon, peers.openssl(pki, "-rev") as (port, _):
        use(daemon)
        ssa.create_connection(("localhost", port), timeout=10).close()
        with hung(tmp_path / "hung") as page:
            lead(tmp_path / "store", page)
            failures = []

            def connect():
                try:
                    ssa.create_connection(("localhost", port), timeout=20)
                except OSError as exc:
                    failures.append(exc)

            trying = [threading.Thread(target=connect) for _ in range(3)]
            for thread in trying:
                thread.start()
            while any(thread.is_alive() for thread in trying):
                assert answers(daemon) < SOON
                time.sleep(0.05)
            assert {failure.reason for failure in failures} == {"TRUST_STORE"}
            began = time.monotonic()
            connect()
            assert time.monotonic() - began < SOON
            assert len(failures) == 4
        lead(tmp_path / "store", "good.pem")
        assert peers.settled(lambda: connects(port))


def lead(link, target):
    new = link.with_name("new")
    new.symlink_to(target)
    new.replace(link)


def connects(port):
    try:
        ssa.create_connection(("localhost", port), timeout=10).close()
    except OSError:
        return False
    return True


def keep(directory, cert, key):
    directory.mkdir(parents=True)
    shutil.copy(cert, directory / "certificate")
    shutil.copy(key, directory / "key")
    (directory / "key").chmod(0o600)


@pytest.mark.parametrize("where", ["own mount", "hung", "fifo", "gone"])
def test_one_credential_that_leads_astray(tmp_path, pki, use, where):
    """The others are served, that one keeps its last good pair, and `status` says what is wrong."""
    folder = tmp_path / "credentials"
    keep(folder / "good", pki.cert, pki.key)
    with Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as daemon:
        use(daemon)
        with contextlib.ExitStack() as stack:
            target = {
                "own mount": lambda: daemon.mount / "credentials/good/certificate",
                "hung": lambda: stack.enter_context(hung(tmp_path / "hung")),
                "fifo": lambda: os.mkfifo(tmp_path / "fifo") or tmp_path / "fifo",
                "gone": lambda: tmp_path / "gone",
            }[where]()
            keep(folder / "bad", pki.cert, pki.key)
            lead(folder / "bad" / "certificate", target)
            with ssa.create_server(("127.0.0.1", 0)) as server:
                for _ in range(2):
                    began = time.monotonic()
                    client = ssa.create_connection(("localhost", server.getsockname()[1]), timeout=15)
                    server.accept()[0].close()
                    client.close()
                    assert answers(daemon) < SOON
                assert time.monotonic() - began < SOON  # the second one
            status = daemon.get("credentials/bad/status")
            words = {
                "own mount": "the file system that ssad itself provides",
                "hung": "no answer within 5 seconds",
                "fifo": "not a regular file",
                "gone": "No such file",
            }
            assert words[where] in status
            assert "not served" in status
            assert daemon.get("credentials/good/status").startswith("in service until ")
            assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


@contextlib.contextmanager
def mounted(source, target):
    """What is mounted over a directory while the daemon runs."""
    subprocess.run(["mount", "--bind", source, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", target], check=True)


@contextlib.contextmanager
def stopped(directory):
    """The server of a file system does not answer at all: who looks at its root waits."""
    found = subprocess.run(["pgrep", "-f", f"unreadable.py {directory}"], capture_output=True, check=True)
    os.kill(int(found.stdout), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(int(found.stdout), signal.SIGCONT)


def answers_meanwhile(daemon):
    """How long an application waits for an answer that is about no credential."""
    began = time.monotonic()
    assert daemon.get("policy/min_version")
    return time.monotonic() - began


def handshakes(server):
    """Connect to a server of credentials, and say how long that takes."""
    began = time.monotonic()
    client = ssa.create_connection(("localhost", server.getsockname()[1]), timeout=15)
    server.accept()[0].close()
    client.close()
    return time.monotonic() - began


@needs.namespaces("--mount")
@pytest.mark.parametrize("where", ["all", "one"])
def test_the_own_file_system_is_mounted_over_credentials(tmp_path, pki, use, where):
    """They are served as they were last, `status` says what is wrong, and it heals."""
    folder = tmp_path / "credentials"
    keep(folder / "good", pki.cert, pki.key)
    over = folder if where == "all" else folder / "good"
    with Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as daemon:
        use(daemon)
        with ssa.create_server(("127.0.0.1", 0)) as server:
            handshakes(server)
            with mounted(daemon.mount, over):
                assert answers(daemon) < SOON
                assert handshakes(server) < SOON
                assert "the file system that ssad itself provides" in daemon.get("credentials/good/status")
            assert handshakes(server) < SOON
            assert daemon.get("credentials/good/status").startswith("in service until ")
            assert daemon.stop() == 0
    assert "Traceback" not in daemon.log


@needs.namespaces("--mount")
def test_the_own_file_system_is_mounted_over_the_trust_store(tmp_path, pki, use):
    (tmp_path / "anchors").mkdir()
    shutil.copy(pki.ca, tmp_path / "anchors/ca.pem")
    policy = f'[policy]\ntrust_store = "{tmp_path}/anchors"\ndata_path = "relay"\n'
    with Daemon(tmp_path, policy=policy) as daemon, peers.openssl(pki, "-rev") as (port, _):
        use(daemon)
        assert connects(port)
        with mounted(daemon.mount, tmp_path / "anchors"):
            with pytest.raises(ssa.SSAError, match="the file system that ssad itself provides"):
                ssa.create_connection(("localhost", port), timeout=10)
            assert answers(daemon) < SOON
        assert peers.settled(lambda: connects(port))
        assert daemon.stop() == 0


@needs.namespaces("--mount")
def test_a_file_system_that_hangs_is_mounted_over_credentials(tmp_path, pki, use):
    folder = tmp_path / "credentials"
    keep(folder / "good", pki.cert, pki.key)
    with Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as daemon:
        use(daemon)
        with ssa.create_server(("127.0.0.1", 0)) as server, hung(tmp_path / "hung") as page:
            handshakes(server)
            with mounted(page.parent, folder), stopped(page.parent):
                began = time.monotonic()
                trying = threading.Thread(target=handshakes, args=(server,))
                trying.start()
                while trying.is_alive():
                    assert answers_meanwhile(daemon) < SOON
                    time.sleep(0.05)
                assert time.monotonic() - began > SOON  # it was looked at, for as long as that may take
                assert handshakes(server) < SOON  # known by now
                assert daemon.stop() == 0


def test_an_applications_file_that_hangs_or_grows(ssad, tmp_path):
    with hung(tmp_path / "hung") as page, tempfile.TemporaryFile() as big:
        os.truncate(big.fileno(), 1 << 40)
        with page.open("rb") as hanging:
            for file, words in ((hanging, "cannot be read within"), (big, "longer than 4096 KiB")):
                with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
                    sock.settimeout(15)
                    sock.connect(str(ssad.run_dir / "ssad.sock"))
                    socket.send_fds(sock, [wire.pack(wire.Check(trusted=1))], [file.fileno()])
                    for _ in range(5):
                        assert answers(ssad) < SOON
                    reply = wire.parse_untrusted(sock.recv(65536), wire.Reply)
                    assert (reply.reason, words in reply.detail) == ("BAD_VALUE", True)
