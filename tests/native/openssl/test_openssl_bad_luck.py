"""No daemon, one that dies; other preloads; programs that fork, and that close what is not theirs."""

import os
import subprocess
import sys
import time

import pytest

from tests.native.openssl import programs, servers
from tests.native.openssl.conftest import counted, run
from tests.peers import Daemon

CONNECT = """
import os, socket, ssl, sys
context = ssl.create_default_context()
tcp = socket.create_connection(("localhost", int(sys.argv[1])))
def get(tls, what=b"hello"):
    tls.sendall(b"GET /" + what + b" HTTP/1.0\\r\\n\\r\\n")
    got = b""
    while data := tls.recv(65536):
        got += data
    return got
"""


def python(ssad, code, port, **environment):
    return run(ssad, [programs.PYTHON, "-c", CONNECT + code, port], **environment)


def test_without_a_daemon_nothing_goes_in_plain_or_by_openssl(ssad, serving, tmp_path):
    done = run(ssad, ["curl", "-sS", f"https://localhost:{serving('web')}/hello"], SSA_RUN_DIR=str(tmp_path))
    assert done.returncode == 35
    assert not done.stdout
    assert f"no ssad listens at {tmp_path}/ssad.sock".encode() in done.stderr


def test_a_daemon_that_dies_in_the_middle(preload, serving, pki, everybodys):
    directory = everybodys / "dies"
    directory.mkdir()
    with Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "relay"\n') as ssad:
        environment = os.environ | ssad.environment | {"LD_PRELOAD": preload}
        command = ["curl", "-sS", "--limit-rate", "4M", "-o", "/dev/null", f"https://localhost:{serving('web')}/big"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as curl:
            time.sleep(1)
            ssad.kill()
            _, said = curl.communicate(timeout=20)
        assert curl.returncode, said
        refused = subprocess.run(command, env=environment, capture_output=True, timeout=20, check=False)
        assert b"no ssad listens" in refused.stderr


def test_with_another_library_preloaded(ssad, serving):
    own = ssad.environment["LD_PRELOAD"]
    for order in f"{own} libjemalloc.so.2", f"libjemalloc.so.2 {own}":
        done = run(ssad, ["curl", "-sS", f"https://localhost:{serving('web')}/hello"], LD_PRELOAD=order)
        assert done.stdout == b"hello from the web\n", done.stderr
    sanitizer = subprocess.check_output(["gcc", "-print-file-name=libasan.so"], text=True).strip()
    command = ["redis-cli", "--tls", "-h", "localhost", "-p", serving("redis"), "ping"]  # curl alone hangs with it
    done = run(ssad, command, LD_PRELOAD=f"{sanitizer} {own}", ASAN_OPTIONS="detect_leaks=0")
    assert done.stdout == b"PONG\n", done.stderr


def test_a_fork_while_the_handshake_is_under_way(ssad, serving):
    code = """
tls = context.wrap_socket(tcp, server_hostname="localhost", do_handshake_on_connect=False)
tls.setblocking(False)
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    pass
if not os.fork():
    os._exit(0)
os.wait()
tls.setblocking(True)
tls.do_handshake()
print(get(tls)[-20:])
if not (child := os.fork()):
    os._exit(0)
os.waitpid(child, 0)
"""
    done = python(ssad, code, serving("web"))
    assert b"hello from the web" in done.stdout, done.stderr


def test_descriptors_that_are_closed_around_a_live_one(ssad, serving):
    code = """
tls = context.wrap_socket(tcp, server_hostname="localhost")
os.closerange(tls.fileno() + 1, 4096)
print(get(tls)[-20:])
os.close(tls.fileno())
try:
    tls.recv(1)
except OSError as exc:
    print(exc.errno)
"""
    done = python(ssad, code, serving("web"))
    assert b"hello from the web" in done.stdout, done.stderr


def test_a_failed_handshake_stays_failed(ssad, serving):
    code = """
tls = context.wrap_socket(tcp, server_hostname="wrong.test", do_handshake_on_connect=False)
for call in tls.do_handshake, tls.do_handshake, lambda: tls.send(b"secret"), lambda: tls.recv(1):
    try:
        call()
        print("went through")
    except OSError as exc:
        print(type(exc).__name__)
"""
    done = python(ssad, code, serving("web"))
    said = done.stdout.decode().split()
    assert said[0] == "SSLCertVerificationError", done.stderr
    assert len(said) == 4
    assert all("Error" in word for word in said)


def test_threads_each_with_a_connection(ssad, serving):
    code = """
import threading
tcp.close()
results = []
def one():
    sock = socket.create_connection(("localhost", int(sys.argv[1])))
    with context.wrap_socket(sock, server_hostname="localhost") as tls:
        results.append(get(tls).endswith(b"hello from the web\\n"))
threads = [threading.Thread(target=one) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(results.count(True))
"""
    made = counted(ssad)[0]
    assert python(ssad, code, serving("web")).stdout == b"20\n"
    assert counted(ssad)[0] == made + 20


def test_an_address_without_a_name_is_verified_as_such(ssad, serving):
    code = """
context.check_hostname = False
tls = context.wrap_socket(tcp)
print(get(tls)[-20:])
"""
    assert b"hello" in python(ssad, code, serving("web")).stdout
    with servers.forwarder(serving("web"), "127.0.0.2") as port:
        code = code.replace("tls =", "tcp = socket.create_connection(('127.0.0.2', int(sys.argv[1])))\ntls =")
        code = "tcp.close()\n" + code
        done = run(ssad, [programs.PYTHON, "-c", CONNECT.replace("localhost", "127.0.0.2") + code, port])
    assert b"CERTIFICATE_VERIFY_FAILED" in done.stderr or b"another name" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="a setuid program of another user's is root's to make")
def test_ssa_run_refuses_what_would_not_be_coerced(ssad, everybodys):
    setuid = everybodys / "setuid"
    setuid.write_bytes(b"\x7fELF")
    os.chown(setuid, 65534, 65534)
    setuid.chmod(0o4755)
    done = run(ssad, [sys.executable, "-m", "ssa.cli.main", "run", setuid], LD_PRELOAD="")
    assert done.returncode == 126
    assert b"setuid" in done.stderr
