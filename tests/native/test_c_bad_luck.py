"""Bad input and bad luck: no ssad, one that dies, stops or lies; sandboxes; other preloaded libraries."""

import array
import contextlib
import ctypes.util
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

from ssa.ktls.probe import probe
from tests import peers
from tests.needs import once
from tests.peers import Daemon

NATIVE = Path(__file__).resolve().parents[2] / "build" / "native"

BEGIN = """
import ctypes, errno, os, select, socket, sys, time
def told(call, *arguments):
    try:
        return call(*arguments)
    except OSError as exc:
        return errno.errorcode[exc.errno]
def tls(kind=socket.SOCK_STREAM):
    return socket.socket(socket.AF_INET, kind, 205)
def say(*words):
    print(*words, flush=True)
libssa = ctypes.CDLL(os.environ["LIBSSA"])
libssa.ssa_error.restype = ctypes.c_char_p
def words():
    return libssa.ssa_error().decode()
port = int(os.environ.get("PORT", 1))
server = ("127.0.0.1", port)
"""


def native(code, environment, *, preload="", **words):
    """Run Python's `socket` module over libssa: what the code says, a line each."""
    libssa = str(NATIVE / "libssa.so")
    environment = os.environ | environment | {name: str(value) for name, value in words.items()}
    environment |= {"LIBSSA": libssa, "LD_PRELOAD": f"{preload}:{libssa}" if preload else libssa}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout.splitlines()


# --- no ssad, and one that is not itself ---


@once
def test_no_ssad(tmp_path, libssa):
    with peers.script(lambda connection: connection.recv(100)) as port:
        said = native(
            """
s = tls()
say(told(s.connect, server), "no ssad listens" in words(), os.environ["SSA_RUN_DIR"] in words())
say(told(s.send, b"x"), told(s.setsockopt, 205, 90, b"h2"))
s.setblocking(False)
say(told(s.connect, server))
p = socket.create_connection(server)
say(told(p.setsockopt, 205, 114, 1), p.send(b"still plain"))
l = tls()
l.bind(("127.0.0.1", 0))
say(told(l.listen), told(socket.create_connection, l.getsockname()))
say(told(tls(socket.SOCK_DGRAM).connect, server))
""",
            {"SSA_RUN_DIR": str(tmp_path)},
            PORT=port,
        )
    refused = "ECONNREFUSED"
    assert said == [
        f"{refused} True True",
        f"ENOTCONN {refused}",
        refused,
        f"{refused} 11",
        f"{refused} {refused}",
        refused,
    ]


class Liar:
    """A process at ssad's socket that answers each request with what it is told."""

    def __init__(self, directory, answer):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(directory / "ssad.sock"))
        self.socket.listen(16)
        self._answer = answer
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while connection := self._accepted():
            with contextlib.suppress(OSError), connection:
                connection.recv(65536)
                self._answer(connection)
                connection.settimeout(0.2)
                connection.recv(65536)  # the plug, of a connect that does not wait

    def _accepted(self):
        try:
            return self.socket.accept()[0]
        except OSError:
            return None


def many_descriptors(connection):
    null = os.open("/dev/null", os.O_RDONLY)
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [null] * 200))]
    connection.sendmsg([WHOLE], ancillary)
    os.close(null)


WHOLE = bytes.fromhex("53534131020000000c000000")
RELAYED = bytes.fromhex("535341310200010018000000" + "12020000" + "04000000" + "01000000")
LIES = {
    "a reply that is cut": (lambda c: c.send(WHOLE[:7]), "EIO", "none of this protocol's"),
    "nothing, and the end": (lambda c: None, "EIO", "it went away"),
    "not of this language": (lambda c: c.send(b"HTTP/1.1 400 Bad Request"), "EIO", "none of this protocol's"),
    "another version": (lambda c: c.send(b"SSA2" + WHOLE[4:]), "EPROTONOSUPPORT", "another version"),
    "a length that is wrong": (lambda c: c.send(WHOLE + b"x"), "EIO", "none of this protocol's"),
    "an attribute that is cut": (lambda c: c.send(RELAYED[:-2]), "EIO", "none of this protocol's"),
    "relayed, without a descriptor": (lambda c: c.send(RELAYED), "EIO", "lacks the descriptor"),
    "two hundred descriptors": (many_descriptors, "EMFILE", "more descriptors"),
    "a packet that is too long": (lambda c: c.send(WHOLE + bytes(150000)), "EIO", "none of this protocol's"),
}


@once
@pytest.mark.parametrize("lie", LIES)
def test_an_ssad_that_lies(lie, tmp_path, libssa):
    answer, number, text = LIES[lie]
    liar = Liar(tmp_path, answer)
    with liar.socket, peers.script(lambda connection: connection.recv(100)) as port:
        said = native(
            """
before = len(os.listdir("/proc/self/fd"))
s = tls()
say(told(s.connect, server), os.environ["TEXT"] in words(), told(s.send, b"plain text"), told(s.recv, 10))
t = tls()
t.setblocking(False)
say(told(t.connect, server))
select.select([], [t], [], 10)
say(errno.errorcode[t.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)], told(t.send, b"plain text"))
s.close()
t.close()
say(len(os.listdir("/proc/self/fd")) - before)
""",
            {"SSA_RUN_DIR": str(tmp_path)},
            PORT=port,
            TEXT=text,
        )
    assert said == [f"{number} True ENOTCONN ENOTCONN", "EINPROGRESS", f"{number} ENOTCONN", "0"]


@once
def test_a_stopped_ssad_is_told_and_not_waited_for(mortal):
    os.kill(mortal.process.pid, signal.SIGSTOP)
    try:
        before = time.monotonic()
        said = native('say(told(tls().setsockopt, 205, 90, b"h2"), "is it stopped?" in words())', mortal.environment)
        assert said == ["ETIMEDOUT True"]
        assert time.monotonic() - before < 10
    finally:
        os.kill(mortal.process.pid, signal.SIGCONT)


# --- an ssad that dies, and is replaced ---


@pytest.fixture
def mortal(tmp_path, pki, libssa):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n'
    with Daemon(tmp_path, policy=policy) as daemon:
        yield daemon


@contextlib.contextmanager
def talking(code, environment, **words):
    """A program that waits for us at each input()."""
    libssa = str(NATIVE / "libssa.so")
    environment = os.environ | environment | {"LIBSSA": libssa, "LD_PRELOAD": libssa}
    environment |= {name: str(value) for name, value in words.items()}
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code], env=environment, stdin=-1, stdout=-1, text=True, bufsize=1
    )
    with process:
        yield process
        process.stdin.close()
        assert process.wait(20) == 0


@once
def test_the_stream_of_an_ssad_that_dies_is_cut(mortal, pki):
    def serve(tls, tcp):
        tls.recv(100)
        tls.recv(100)

    code = """
s = tls()
s.connect(server)
s.send(b"hello")
say("connected")
input()
say(told(s.recv, 100), told(s.recv, 100), told(s.send, b"x"))
s.close()
"""
    with peers.python_server(pki, serve) as port, talking(code, mortal.environment, PORT=port) as process:
        assert process.stdout.readline() == "connected\n"
        mortal.kill()
        process.stdin.write("\n")
        assert process.stdout.readline() == "ECONNABORTED ECONNABORTED ECONNABORTED\n"


@pytest.mark.skipif(not probe().tls, reason="needs a kernel with TLS")
def test_a_stream_of_the_kernels_goes_on_without_an_ssad(tmp_path, pki, libssa):
    ended = []

    def serve(tls, tcp):
        while data := tls.recv(100):
            tls.sendall(data)
        ended.append("in order")
        tls.unwrap()

    code = """
s = tls()
s.connect(server)
say("connected")
input()
s.send(b"hello")
say(s.recv(100))
s.close()
"""
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "ktls"\n'
    with (
        Daemon(tmp_path, policy=policy) as daemon,
        peers.python_server(pki, serve) as port,
        talking(code, daemon.environment, PORT=port) as process,
    ):
        assert process.stdout.readline() == "connected\n"
        daemon.process.kill()
        daemon.process.wait()
        process.stdin.write("\n")
        assert process.stdout.readline() == "b'hello'\n"
        assert peers.settled(lambda: ended == ["in order"])


@once
def test_a_listener_goes_on_with_the_next_ssad(mortal, pki):
    code = """
l = tls()
l.setsockopt(205, 88, os.environ["CERT"].encode())
l.setsockopt(205, 89, os.environ["KEY"].encode())
l.bind(("127.0.0.1", 0))
l.listen()
l.setblocking(False)
say(l.getsockname()[1])
input()
say(told(l.accept))
input()
l.setblocking(True)
c, _ = l.accept()
say(c.recv(100))
l.settimeout(None)
c.close()
l.close()
"""
    with talking(code, mortal.environment, CERT=pki.cert, KEY=pki.key) as process:
        port = int(process.stdout.readline())
        mortal.stop()
        process.stdin.write("\n")
        assert process.stdout.readline() == "EAGAIN\n"
        mortal.start()
        client = threading.Thread(target=say_hello, args=(pki, port), daemon=True)
        client.start()
        process.stdin.write("\n")
        assert process.stdout.readline() == "b'hello'\n"
        client.join(10)


LISTENS = """
l = tls()
l.setsockopt(205, 88, os.environ["CERT"].encode())
l.setsockopt(205, 89, os.environ["KEY"].encode())
l.bind(("127.0.0.1", 0))
l.listen()
say(l.getsockname()[1])
input()
"""
WAITS = {
    "poll": """
l.setblocking(False)
poll = select.poll()
poll.register(l, select.POLLIN)
turns, before = 0, time.process_time()
def accept():
    global turns
    while True:
        turns += 1
        poll.poll(10000)
        try:
            return l.accept()
        except BlockingIOError:
            if turns == 1:
                say("waits")
c, _ = accept()
say(c.recv(100), turns < 50, time.process_time() - before < 0.3)
c.close()
""",
    "block": """
import signal, threading
class Alarm(Exception): pass
def alarm(number, frame): raise Alarm
signal.signal(signal.SIGALRM, alarm)
signal.setitimer(signal.ITIMER_REAL, 0.5)
try:
    l.accept()
except Alarm:
    say("waits")
accepted = []
threads = [threading.Thread(target=lambda: accepted.append(l.accept()[0]), daemon=True) for _ in range(3)]
for thread in threads: thread.start()
while not accepted: time.sleep(0.05)
say(accepted[0].recv(100), time.process_time() < 3, True)
accepted[0].close()
os._exit(0)
""",
}


@once
@pytest.mark.parametrize("way", WAITS)
def test_a_listener_without_an_ssad_takes_no_time(way, mortal, pki):
    """It waits, in a loop of poll(2) and in accept(2), also in several threads, and a signal interrupts it."""
    with talking(LISTENS + WAITS[way], mortal.environment, CERT=pki.cert, KEY=pki.key) as process:
        port = int(process.stdout.readline())
        mortal.stop()
        process.stdin.write("\n")
        assert process.stdout.readline() == "waits\n"
        time.sleep(1)
        mortal.start()
        client = threading.Thread(target=say_hello, args=(pki, port), daemon=True)
        client.start()
        assert process.stdout.readline() == "b'hello' True True\n"
        client.join(10)


def say_hello(pki, port):
    import ssl

    context = ssl.create_default_context(cafile=pki.ca)
    tcp = socket.create_connection(("127.0.0.1", port))
    with context.wrap_socket(tcp, server_hostname="localhost") as tls:
        tls.sendall(b"hello")
        tls.recv(10)


# --- sandboxes, and other libraries ---


@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is root's")
def test_a_chroot_without_the_run_directory(ssad, tmp_path):
    said = native('os.chroot(os.environ["ROOT"]); say(told(tls().connect, server))', ssad.environment, ROOT=tmp_path)
    assert said == ["ECONNREFUSED"]


@once
def test_a_sandbox_that_allows_no_unix_sockets(ssad):
    """A seccomp filter of the program's own: its errno is what connect(2) says."""
    said = native(
        """
import struct
libc = ctypes.CDLL(None, use_errno=True)
AF_UNIX, SOCKET, EACCES = 1, 41, 13
def instruction(code, true, false, value):
    return struct.pack("HBBI", code, true, false, value)
code = b"".join([
    instruction(0x20, 0, 0, 0), instruction(0x15, 0, 3, SOCKET),   # socket(2)
    instruction(0x20, 0, 0, 16), instruction(0x15, 0, 1, AF_UNIX), # its family
    instruction(0x06, 0, 0, 0x50000 | EACCES), instruction(0x06, 0, 0, 0x7fff0000),
])
buffer = ctypes.create_string_buffer(code)
program = struct.pack("H6xP", len(code) // 8, ctypes.addressof(buffer))
s = tls()
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, program, 0, 0) == 0
say(told(s.connect, server))
""",
        ssad.environment,
    )
    assert said == ["EACCES"]


@once
@pytest.mark.skipif(os.geteuid() != 0, reason="a setuid program of another user's is root's to make")
def test_a_setuid_program_that_is_linked_with_libssa(mortal):
    """It passes over SSA_RUN_DIR: who runs it does not say whom it asks."""
    place = Path(tempfile.mkdtemp(prefix="ssa-setuid-", dir="/tmp"))
    place.chmod(0o755)
    shutil.copy(NATIVE / "libssa.so", place)
    source = place / "hello.c"
    source.write_text(
        "#include <ssa.h>\n#include <stdio.h>\nint main(void) {\n"
        '    return ssa_connect_tls("localhost", "1", NULL) < 0 && puts(ssa_error()) < 0;\n}\n'
    )
    program = place / "hello"
    options = ["-I", NATIVE, "-L", place, f"-Wl,-rpath,{place}"]
    subprocess.run(["gcc", "-o", program, source, *options, "-lssa"], check=True)
    os.chown(program, 65534, 65534)
    said = {}
    for mode in 0o755, 0o4755:
        program.chmod(mode)
        done = subprocess.run(
            [program], env=os.environ | mortal.environment, capture_output=True, text=True, timeout=60, check=False
        )
        said[mode] = done.stdout
    shutil.rmtree(place)
    assert "no ssad" not in said[0o755]
    assert "no ssad listens at /run/ssa/ssad.sock" in said[0o4755]


def libraries():
    asan = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    found = {"libasan": asan, "jemalloc": ctypes.util.find_library("jemalloc")}
    return {name: path for name, path in found.items() if path}


@once
@pytest.mark.parametrize("name", libraries())
@pytest.mark.parametrize("first", [True, False], ids=["it before libssa", "libssa before it"])
def test_beside_other_preloaded_libraries(name, first, ssad, pki):
    if name == "libasan" and not first:
        pytest.skip("it has to come first, and says so")
    with peers.openssl(pki, "-www") as (port, _):
        paths = [libraries()[name], str(NATIVE / "libssa.so")]
        done = subprocess.run(
            [NATIVE / "tests" / "nothing_but_libc", str(port)],
            env=os.environ
            | ssad.environment
            | {"LD_PRELOAD": ":".join(paths if first else paths[::-1]), "ASAN_OPTIONS": "detect_leaks=0"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.startswith("HTTP/1.0 200 ok")


def test_loaded_late_and_beside_plain_close(ssad, pki):
    """A program that loads libssa by dlopen(3) has libc's own close(2) and read(2): what is remembered does no harm."""
    code = """
def call(function, *arguments):
    done = function(*arguments)
    assert done >= 0, words()
    return done
def connected():
    return call(libssa.ssa_connect_tls, b"localhost", str(port).encode(), None)
buffer = ctypes.create_string_buffer(100)
for round in range(3):
    fd = connected()
    os.close(fd)  # unseen
    again = connected()
    sent = call(libssa.ssa_send, again, b"GET / HTTP/1.0\\r\\n\\r\\n", 18)
    say(again == fd, sent, call(libssa.ssa_recv, again, buffer, 8))
    os.close(again)
    pair = socket.socketpair()
    pair[1].send(b"plain")
    say(os.read(pair[0].fileno(), 10))
    fd = connected()
    say(libssa.ssa_close(fd), libssa.ssa_recv(fd, buffer, 10))
"""
    with peers.openssl(pki, "-www") as (port, _):
        done = subprocess.run(
            [sys.executable, "-c", BEGIN + code],
            env=os.environ | ssad.environment | {"LIBSSA": str(NATIVE / "libssa.so"), "PORT": str(port)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout.splitlines() == ["True 18 8", "b'plain'", "0 -1"] * 3


def test_nothing_leaks(ssad, pki):
    """Sixty connections leave no descriptor and no memory."""
    with peers.openssl(pki, "-www") as (port, _):
        said = native(
            """
def once():
    with tls() as s:
        s.setsockopt(205, 87, os.environ["CA"].encode())
        s.connect(server)
        s.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
        while s.recv(65536):
            pass
def size():
    return int(open("/proc/self/statm").read().split()[0])
for _ in range(10):
    once()
before, pages = len(os.listdir("/proc/self/fd")), size()
for _ in range(60):
    once()
say(len(os.listdir("/proc/self/fd")) - before, size() - pages < 50)
""",
            ssad.environment,
            PORT=port,
            CA=pki.ca,
        )
    assert said == ["0 True"]
