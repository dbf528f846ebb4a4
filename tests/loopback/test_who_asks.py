"""Which program asks: never another one. No kernel TLS is needed."""

import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import ssa
from ssa.daemon import who
from ssa.protocol import wire
from tests import peers
from tests.peers import Daemon, settled

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture(scope="module")
def running(tmp_path_factory, pki):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\n'
    with Daemon(tmp_path_factory.mktemp("ssad"), policy=policy) as daemon:
        yield daemon


@pytest.fixture
def ssad(running, monkeypatch):
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    assert settled(lambda: not running.sockets())
    return running


@pytest.fixture
def port(pki):
    with peers.openssl(pki, "-quiet") as (port, _):
        yield port


SEVERAL = """
import os, socket, sys, time
path, port, packet, how = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3]), sys.argv[4]
tcp = socket.create_connection(("127.0.0.1", port))
daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
daemon.connect(path)
def ask():
    socket.send_fds(daemon, [packet], [tcp.fileno()])
    reply, kept, *_ = socket.recv_fds(daemon, 65536, 4)
    print("done", flush=True)
    time.sleep(60)
if how == "itself":
    ask()
elif how == "its child":
    if os.fork():
        time.sleep(60)
    ask()
elif how == "its child, and it is another program":
    if os.fork():
        os.execv(sys.argv[5], ["sleep", "60"])
    time.sleep(0.3)
    ask()
elif how == "its child, and it has ended":
    if os.fork():
        os._exit(0)
    time.sleep(0.3)
    ask()
elif how == "itself, another program before":
    time.sleep(0.3)
    os.set_inheritable(tcp.fileno(), True)
    os.set_inheritable(daemon.fileno(), True)
    code = ("import socket, sys, time; d = socket.socket(fileno=int(sys.argv[1])); "
        "socket.send_fds(d, [bytes.fromhex(sys.argv[3])], [int(sys.argv[2])]); "
        "k = socket.recv_fds(d, 65536, 4); print('done', flush=True); time.sleep(60)")
    os.execv(sys.argv[5], ["python", "-c", code, str(daemon.fileno()), str(tcp.fileno()), packet.hex()])
elif how == "itself, another program meanwhile":
    socket.send_fds(daemon, [packet], [tcp.fileno()])
    time.sleep(0.3)
    os.set_inheritable(tcp.fileno(), True)
    os.set_inheritable(daemon.fileno(), True)
    code = ("import socket, sys, time; d = socket.socket(fileno=int(sys.argv[1])); print('waits', flush=True);"
        "k = socket.recv_fds(d, 65536, 4); print('done', flush=True); time.sleep(60)")
    os.execv(sys.argv[5], ["python", "-c", code, str(daemon.fileno())])
"""


@contextlib.contextmanager
def asking(ssad, port, how, program="/bin/sleep"):
    packet = wire.pack(wire.Connect("localhost")).hex()
    arguments = [PYTHON, "-c", SEVERAL, ssad.run_dir / "ssad.sock", str(port), packet, how, program]
    with peers.program(*arguments, port=None, stdout=subprocess.PIPE) as process:
        yield process


def program_shown(ssad):
    (number,) = ssad.sockets()
    return ssad.get(f"sockets/{number}/exe").strip()


@pytest.fixture
def another(tmp_path):
    """An interpreter at another path."""
    copy = tmp_path / "python"
    shutil.copy(PYTHON, copy)
    return copy


@pytest.mark.parametrize(
    ("how", "shown"),
    [
        ("itself", PYTHON),
        ("its child", ""),
        ("its child, and it is another program", ""),
        ("its child, and it has ended", ""),
        ("itself, another program before", ""),
    ],
)
def test_the_program_that_asked_or_none(ssad, port, another, how, shown):
    program = another if "before" in how else "/bin/sleep"
    with asking(ssad, port, how, program) as process:
        assert process.stdout.readline() == b"done\n"
        assert program_shown(ssad) == shown


def test_it_becomes_another_one_meanwhile(ssad, another, pki):
    """While its handshake is under way, with a server that waits."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with asking(ssad, port, "itself, another program meanwhile", another) as process:
            tcp, _ = listener.accept()
            with tcp:
                assert process.stdout.readline() == b"waits\n"
                tls = server_side(tcp, pki)
                assert process.stdout.readline() == b"done\n"
                assert program_shown(ssad) == ""
                tls.close()


def server_side(tcp, pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)
    return context.wrap_socket(tcp, server_side=True)


def test_in_a_namespace_of_its_own_any_path_can_be_any_file(ssad, port):
    if subprocess.run(["unshare", "--user", "--map-root-user", "true"], check=False, capture_output=True).returncode:
        pytest.skip("no user namespace can be made here")
    packet = wire.pack(wire.Connect("localhost")).hex()
    arguments = ["unshare", "--user", "--map-root-user", PYTHON, "-c", SEVERAL, ssad.run_dir / "ssad.sock"]
    with peers.program(*arguments, port, packet, "itself", port=None, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"done\n"
        assert program_shown(ssad) == ""


def test_a_listener_is_the_program_that_began_it(ssad, pki):
    with (
        ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as server,
        ssa.create_connection(("localhost", server.getsockname()[1]), timeout=10),
    ):
        accepted, _ = server.accept()
        with accepted:
            shown = {ssad.get(f"sockets/{number}/exe").strip() for number in ssad.sockets()}
            assert shown == {PYTHON}


# --- how the kernel is asked ---------------------------------------------------------------------------------------


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        yield ours


def test_it_knows_us(pair):
    found = who.asks(pair)
    assert (found.pid, found.uid, found.exe) == (os.getpid(), os.geteuid(), os.readlink("/proc/self/exe"))
    assert found.groups == tuple(os.getgroups())
    assert who.confirmed(found) == found


def test_a_process_that_has_ended(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        child = os.fork()
        if not child:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            sock.connect(str(tmp_path / "s"))
            time.sleep(60)
        connection, _ = listener.accept()
        with connection:
            assert who.asks(connection).exe == PYTHON
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            assert who.asks(connection).exe == ""


def test_what_is_settled_is_looked_at_no_more(pair):
    found = who.settled(who.asks(pair))
    other = replace(found, exe="/bin/other")
    assert who.confirmed(other) is other
    assert who.confirmed(replace(other, settled=False)).exe == ""
