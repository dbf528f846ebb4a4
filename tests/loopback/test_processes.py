"""Workers as processes: what each may do, what becomes of the others when one ends, hangs or lies."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path

import pytest

import ssa
from ssa.protocol import wire
from ssa.worker import sandbox
from tests import peers
from tests.loopback.test_hostile_applications import unreadable
from tests.peers import Daemon, settled

OTHER = 65534


@pytest.fixture
def daemon(tmp_path_factory, pki, monkeypatch):
    directory = tmp_path_factory.mktemp("ssad")
    for path in (directory, *directory.parents[:2]):  # for the other user
        path.chmod(0o755)
    with Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


@pytest.fixture
def port(pki):
    with peers.openssl(pki, "-rev", "-quiet") as (port, _):
        yield port


@contextlib.contextmanager
def echoing(pki):
    def echo(tls, _):
        while data := tls.recv(65536):
            tls.sendall(data)

    with peers.python_server(pki, echo) as port:
        yield port


def talk(sock):
    sock.sendall(b"abc\n")
    assert sock.recv(4) in {b"abc\n", b"cba\n"}


def connected(port):
    return ssa.create_connection(("localhost", port), timeout=10)


def status(pid):
    return dict(re.findall(r"^(\w+):[ \t]*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))


def as_user(uid, action):
    """The exit status of an action that a process of that user does."""

    def change():
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        action()

    return as_root(change)


def as_root(action):
    """The exit status of an action that another process does."""
    child = os.fork()
    if child == 0:
        failed = 1
        try:
            action()
            failed = 0
        except BaseException:  # noqa: BLE001 - shown, in the child
            traceback.print_exc()
        finally:
            os._exit(failed)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# --- what a worker may do -----------------------------------------------------------------------------------------


def test_each_user_has_a_worker_of_an_own_uid_that_may_do_nothing_else(daemon, pki):
    with echoing(pki) as port, connected(port) as mine:
        talk(mine)
        assert as_user(OTHER, lambda: talk(connected(port))) == 0
        one, other = map(status, daemon.workers())
        assert one["Uid"] != other["Uid"]
        for found in (one, other):
            uids = set(found["Uid"].split())
            assert len(uids) == 1
            assert not uids & {"0", str(OTHER)}
            assert found["Groups"].strip() == ""
            assert int(found["CapEff"], 16) == int(found["CapPrm"], 16) == 1 << 6 | 1 << 7  # CAP_SETGID, CAP_SETUID
            assert found["NoNewPrivs"] == "1"
            assert found["Seccomp"] == "2"
        zygote = status(daemon.processes()[1])
        assert int(zygote["CapEff"], 16) == 1 << 6 | 1 << 7
        assert zygote["Threads"] == "1"


def test_a_worker_has_no_descriptor_that_the_daemon_was_started_with(daemon, port):
    with connected(port):
        _, zygote, worker = daemon.processes()
        daemons = {os.readlink(f"/proc/{daemon.process.pid}/fd/{number}") for number in range(1, 3)}
        for pid, standard in ((zygote, 3), (worker, 0)):
            descriptors = {int(entry.name): os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            assert not daemons & {what for number, what in descriptors.items() if number >= standard}
            pipes = [what for what in descriptors.values() if what.startswith("pipe:")]
            assert [pipe for pipe in pipes if pipes.count(pipe) == 1 and pipe not in daemons] == []  # both ends are its


REFUSED = {
    "open": lambda: Path("/etc/passwd").read_bytes(),
    "list": lambda: os.listdir("/"),
    "write": lambda: Path("/tmp/ssa-written").write_bytes(b""),
    "unlink": lambda: os.unlink("/tmp/ssa-none"),
    "socket": socket.socket,
    "unix socket": lambda: socket.socket(socket.AF_UNIX),
    "connect": lambda: THEIRS[0].connect(("127.0.0.1", 1)),
    "bind": lambda: THEIRS[0].bind(("127.0.0.1", 0)),
    "fork": os.fork,
    "execve": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getppid(), 0),
    "pidfd": lambda: os.pidfd_open(os.getppid()),
    "setuid": lambda: os.setuid(0),
    "setresuid": lambda: os.setresuid(0, 0, 0),
    "setgroups": lambda: os.setgroups([0]),
    "chroot": lambda: os.chroot("/"),
    "a datagram to any process": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"", "/none"),
    "the same, by another name": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW),
    "a pair of another family": lambda: socket.socketpair(socket.AF_TIPC, socket.SOCK_SEQPACKET),
    "shared memory": lambda: _call("shmget", 4242, 4096, 0o1600),
    "a queue": lambda: _call("msgget", 4242, 0o1600),
    "the times of a file": lambda: _call("syscall", sandbox._REFUSED["utimes"][0] or 88, b"/dev/null", None),
    "news of a directory": lambda: _call("inotify_add_watch", sandbox._libc.inotify_init1(0), b"/tmp", 2),
}


def _call(name, *args):
    """A function of the C library's. Raises OSError."""
    sandbox._check(getattr(sandbox._libc, name)(*args), name)


THEIRS = []  # a TCP socket that was passed to it


@pytest.mark.parametrize("name", REFUSED)
def test_from_inside_nothing_can_be_had(name):
    """A process in the sandbox, which a stranger has taken over, tries."""
    with socket.socket() as sock:
        THEIRS[:] = [sock]
        child = os.fork()
        if child == 0:
            code = 1
            try:
                sandbox.keep_only_ids()
                sandbox.enter(sandbox.Ids(60_600, OTHER))
                REFUSED[name]()
            except PermissionError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("landlock", [True, False])
def test_without_landlock_it_opens_no_file_of_a_group(landlock, monkeypatch, tmp_path):
    if not landlock:
        monkeypatch.setattr(sandbox, "_landlock_version", lambda: 0)
    tmp_path.joinpath("of a group").touch()
    os.chown(tmp_path / "of a group", 0, 42)
    tmp_path.joinpath("of a group").chmod(0o640)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sandbox.keep_only_ids()
            sandbox.enter(sandbox.Ids(60_600, OTHER))
            sandbox._libc.setfsgid(42)
            Path("of a group").read_bytes()
        except PermissionError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(("uid", "becomes"), [(OTHER, True), (60_600, True), (0, False), (1000, False)])
def test_it_accepts_in_its_own_users_name_only(uid, becomes):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sandbox.keep_only_ids()
            sandbox.enter(sandbox.Ids(60_600, OTHER))
            sandbox._libc.setfsuid(uid)
            code = int((sandbox._libc.setfsuid(60_600) == uid) is not becomes)  # it returns the one before
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_process_in_very_many_groups_is_served(daemon, port):
    def connect():
        os.setgroups(range(100_000, 165_536))  # as a rootless container's owner can be
        os.setresgid(OTHER, OTHER, OTHER)
        os.setresuid(OTHER, OTHER, OTHER)
        with connected(port) as sock:
            talk(sock)

    assert as_root(connect) == 0
    with connected(port) as sock:
        talk(sock)
    assert "fault" not in daemon.log


def test_no_more_users_at_once_than_there_are_uids(tmp_path_factory, pki, monkeypatch, port):
    directory = tmp_path_factory.mktemp("ssad")
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    policy = f'[policy]\ntrust_store = "{pki.ca}"\n'
    with Daemon(directory, policy=policy, arguments=("--worker-uids", "60500-60500")) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        with connected(port) as sock:
            talk(sock)

        def refused():
            with pytest.raises(ssa.SSAError, match="worker-uids") as caught:
                connected(port)
            assert caught.value.reason == "OVERLOADED"

        assert as_user(OTHER, refused) == 0
        with connected(port) as sock:
            talk(sock)


# --- many, and none -----------------------------------------------------------------------------------------------

QUICKLY_IDLE = """
import sys
from ssa.worker import process
process._IDLE = 15.0
from ssa.daemon import main
sys.exit(main.main())
"""
USERS = range(20_000, 20_200)


def start_as(daemon, code):
    """Start a daemon by other code than its own."""
    ready, told = os.pipe()
    with daemon.log_file.open("ab") as log:
        daemon.process = subprocess.Popen(
            [sys.executable, "-c", code, "--ready-fd", str(told)],
            env=os.environ | daemon.environment,
            pass_fds=[told],
            stderr=log,
        )
    os.close(told)
    assert os.read(ready, 16) == b"ready\n"
    os.close(ready)


def asks_as(daemon, uid):
    """A connection of a user's with a request on it."""
    application = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    application.settimeout(60)
    os.seteuid(uid)
    try:
        application.connect(str(daemon.run_dir / "ssad.sock"))
    finally:
        os.seteuid(0)
    application.send(wire.pack(wire.Check()))
    return application


def test_two_hundred_users_at_once_and_then_none(daemon):
    assert daemon.stop() == 0
    start_as(daemon, QUICKLY_IDLE)
    with contextlib.ExitStack() as held:
        applications = [held.enter_context(asks_as(daemon, uid)) for uid in USERS]
        for application in applications:
            assert wire.parse_untrusted(application.recv(65536), wire.Reply).reason is None
        workers = daemon.workers()
        assert len(workers) == len(USERS)
        uids = [status(pid)["Uid"].split()[0] for pid in workers]
        assert sorted(uids) == sorted(set(uids))  # no two have the same
    assert settled(lambda: daemon.workers() == [], 60)
    assert settled(lambda: list((daemon.run_dir / "workers").iterdir()) == [])
    with asks_as(daemon, USERS[0]) as again:
        assert wire.parse_untrusted(again.recv(65536), wire.Reply).reason is None
    assert "Traceback" not in daemon.log


def test_idle_it_takes_little_memory(daemon):
    """With three users, all processes together; what they share counts once."""
    with contextlib.ExitStack() as held:
        for uid in USERS[:3]:
            application = held.enter_context(asks_as(daemon, uid))
            assert wire.parse_untrusted(application.recv(65536), wire.Reply).reason is None
    assert daemon.shared_memory() <= 72 << 20


# --- one that ends ------------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_ends_its_users_streams_and_nothing_else(daemon, pki):
    with echoing(pki) as port, connected(port) as mine:
        held, told = os.pipe()

        def theirs():
            sock = connected(port)
            talk(sock)
            os.write(told, b"!")
            assert os.read(held_again, 1) == b"!"
            talk(sock)

        held_again, go = os.pipe()
        others = threading.Thread(target=lambda: outcome.append(as_user(OTHER, theirs)))
        outcome = []
        others.start()
        assert os.read(held, 1) == b"!"
        talk(mine)
        assert len(daemon.sockets()) == 2
        victim = worker_of(daemon, 0)
        os.kill(victim, signal.SIGKILL)
        assert settled(lambda: len(daemon.sockets()) == 1)
        assert settled(lambda: fails(mine))
        with connected(port) as again:
            talk(again)
        os.write(go, b"!")
        others.join(20)
        assert outcome == [0]
        assert f"a worker was killed worker={victim} uid=0 signal=9" in daemon.log


def fails(sock):
    try:
        talk(sock)
    except OSError:
        return True
    return False


def worker_of(daemon, uid):
    """The process that serves a user, which is its name."""
    found = [pid for pid in daemon.workers() if Path(f"/proc/{pid}/comm").read_text() == f"ssad:{uid}\n"]
    assert found
    return found[-1]


def test_a_worker_that_is_stopped_is_replaced_by_a_policy_write(daemon, port):
    with connected(port) as sock:
        talk(sock)
    victim = worker_of(daemon, 0)
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    daemon.set("session_ttl", "77")
    assert time.monotonic() - began < 8
    assert settled(lambda: not Path(f"/proc/{victim}").exists())
    assert f"a worker is ended worker={victim}" in daemon.log
    with connected(port) as sock:
        talk(sock)


def test_a_stopped_worker_keeps_nobody_else_waiting(daemon, pki):
    with echoing(pki) as port, connected(port) as mine:
        talk(mine)
        victim = worker_of(daemon, 0)
        os.kill(victim, signal.SIGSTOP)
        try:
            for _ in range(3):
                began = time.monotonic()
                assert as_user(OTHER, lambda: talk(connected(port))) == 0
                assert time.monotonic() - began < 3
            assert '"uid": 0' in daemon.get("sockets.jsonl")  # within the time that a worker has to answer
        finally:
            os.kill(victim, signal.SIGCONT)
        talk(mine)


def test_a_socket_that_its_user_keeps_locked_stops_that_users_worker_only(daemon, pki, tmp_path):
    """The kernel locks a socket while a send waits for memory, which is of the sender's own file system."""
    with (
        echoing(pki) as port,
        peers.script(lambda connection: connection.recv(1) and time.sleep(60)) as silent,
        unreadable(tmp_path / "unreadable") as (memory, somebody_touched_it),
        socket.create_connection(("127.0.0.1", silent)) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as application,
    ):

        def send():
            with contextlib.suppress(OSError):
                sock.send(memory)

        sending = threading.Thread(target=send)
        sending.start()
        assert somebody_touched_it() == b"asked\n"
        application.connect(str(daemon.run_dir / "ssad.sock"))
        socket.send_fds(application, [wire.pack(wire.Connect(hostname="localhost"))], [sock.fileno()])
        time.sleep(1)
        assert sending.is_alive()
        for _ in range(3):
            began = time.monotonic()
            assert as_user(OTHER, lambda: talk(connected(port))) == 0
            assert time.monotonic() - began < 3
        began = time.monotonic()
        assert daemon.get("sockets.jsonl") == ""
        daemon.set("session_ttl", "77")
        assert time.monotonic() - began < 10
        with connected(port) as mine:  # by another worker
            talk(mine)
        assert "it does not follow the policy" in daemon.log
        assert sending.is_alive()
    sending.join(20)
    assert not sending.is_alive()


def test_when_the_zygote_ends_the_daemon_says_so_and_ends(daemon):
    os.kill(daemon.processes()[1], signal.SIGKILL)
    assert daemon.process.wait(10) == 1
    assert "the process that starts workers has ended" in daemon.log
    assert not os.path.ismount(daemon.mount)


def test_a_request_that_its_worker_does_not_survive_is_told_at_once(daemon):
    """The application gets an error, and does not wait."""
    with peers.script(lambda connection: connection.recv(1 << 16) and time.sleep(20)) as port:
        failed = []

        def ask():
            with pytest.raises(OSError, match=r".+") as caught:
                connected(port)
            failed.append(caught.value)

        asking = threading.Thread(target=ask)
        asking.start()
        assert settled(daemon.workers)
        time.sleep(0.5)
        os.kill(worker_of(daemon, 0), signal.SIGKILL)
        asking.join(5)
        assert failed


# --- workers that outlive the daemon ------------------------------------------------------------------------------


@pytest.fixture(params=[signal.SIGKILL, signal.SIGUSR2], ids=lambda number: number.name)
def left(daemon, request):
    """End the daemon so that it leaves its workers."""

    def leave():
        daemon.process.send_signal(request.param)
        daemon.process.wait(10)

    return leave


def test_streams_go_on_without_the_daemon_and_with_the_next_one(daemon, left, pki):
    with echoing(pki) as port, connected(port) as mine:
        talk(mine)
        (worker,) = daemon.workers()
        (number,) = daemon.sockets()
        left()
        for _ in range(3):
            talk(mine)
        with pytest.raises(OSError, match=r".+"):
            connected(port)
        daemon.start()
        assert daemon.sockets() == [number]
        assert daemon.get(f"sockets/{number}/state") == "open\n"
        assert daemon.get(f"sockets/{number}/compliant") == "yes\n"
        talk(mine)
        with connected(port) as another:
            talk(another)
            assert len(daemon.sockets()) == 2
            assert len(set(daemon.sockets())) == 2
        assert Path(f"/proc/{worker}").exists()
        assert daemon.workers() == []  # the one that was taken up serves
        assert f"is taken up worker={worker} uid=0" in daemon.log
    assert settled(lambda: daemon.sockets() == [])
    assert daemon.stop() == 0
    assert settled(lambda: not Path(f"/proc/{worker}").exists())


def test_a_listener_goes_on_with_the_next_daemon(daemon, left, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        address = listener.getsockname()[:2]

        def client():
            with ssa.create_connection(("localhost", address[1]), timeout=20) as sock:
                talk(sock)

        def served():
            asking = threading.Thread(target=client)
            asking.start()
            sock, _ = listener.accept()
            with sock:
                sock.sendall(sock.recv(4))
                asking.join(20)

        served()
        left()
        daemon.start()
        assert [name for name in os.listdir(daemon.mount / "listeners") if name.isdigit()]
        served()


def test_a_request_that_is_under_way_is_answered_under_the_next_daemon(daemon, left):
    """Its peer takes its time: meanwhile there is no daemon."""
    go = threading.Event()

    def serve(connection):
        go.wait(20)
        connection.sendall(b"HTTP/1.0 400 no TLS here\r\n\r\n")

    with peers.script(serve) as port:
        failed = []

        def ask():
            with pytest.raises(ssa.SSAError) as caught:
                ssa.create_connection(("localhost", port), timeout=20)
            failed.append(caught.value.reason)

        asking = threading.Thread(target=ask)
        asking.start()
        assert settled(daemon.workers)
        time.sleep(0.5)
        left()
        go.set()
        time.sleep(0.5)
        assert failed == []
        daemon.start()
        asking.join(10)
        assert failed == ["NOT_TLS"]
        assert daemon.get("stats/handshakes_failed") == "1\n"


def test_a_worker_with_nothing_to_do_ends_without_a_daemon(daemon, left, pki):
    with echoing(pki) as port, connected(port) as mine:
        talk(mine)
        (worker,) = daemon.workers()
        left()
        talk(mine)
    assert settled(lambda: not Path(f"/proc/{worker}").exists(), 30)


def test_a_worker_of_another_version_goes_on_by_itself(daemon, left, pki):
    with echoing(pki) as port, connected(port) as mine:
        talk(mine)
        (worker,) = daemon.workers()
        left()
        start_as(daemon, "from ssa.worker import frames; frames.VERSION = 99; from ssa.daemon import main; main.main()")
        talk(mine)
        assert f"goes on by itself worker={worker}" in daemon.log
        with connected(port) as another:
            talk(another)
            assert len(daemon.sockets()) == 1
        talk(mine)
    assert settled(lambda: not Path(f"/proc/{worker}").exists(), 30)


def test_a_door_whose_process_is_another_one_by_now_is_none(daemon, left, pki):
    with echoing(pki) as port, connected(port) as mine:
        talk(mine)
        (worker,) = daemon.workers()
        left()
        (door,) = (daemon.run_dir / "workers").iterdir()
        uid, pid, started = door.name.split(".")
        assert pid == str(worker)
        door.rename(door.with_name(f"{uid}.{os.getpid()}.{started}"))
        daemon.start()
        assert daemon.sockets() == []
        assert list((daemon.run_dir / "workers").iterdir()) == []
        talk(mine)
        with connected(port) as another:
            talk(another)


def test_the_doors_are_the_daemons_alone(daemon, port):
    with connected(port) as sock:
        talk(sock)
    directory = daemon.run_dir / "workers"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert daemon.stop() == 0
    assert list(directory.iterdir()) == []


# --- one that lies ------------------------------------------------------------------------------------------------


def test_a_request_of_a_user_without_a_worker_yet_is_not_lost(daemon):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as application:
        application.settimeout(10)
        application.connect(str(daemon.run_dir / "ssad.sock"))
        application.send(wire.pack(wire.Check()))
        assert wire.parse_untrusted(application.recv(65536), wire.Reply).reason is None
