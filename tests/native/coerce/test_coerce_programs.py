"""Every program of a machine under `ssa coerce on`: TLS goes by ssa, and whatever breaks, the machine starts."""

import contextlib
import ctypes
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests import peers
from tests.native.coerce.conftest import a_machine
from tests.native.conftest import ROOT
from tests.peers import Daemon, free_port, listens

GATE = "/usr/lib/x86_64-linux-gnu/ssa/libssa-gate.so"
GATE_32 = "/usr/lib32/ssa/libssa-gate.so"
COERCED = "/usr/lib/ssa/libssa-tls.so"
NOISE = "ERROR: ld.so: object '/usr/$LIB/ssa/libssa-gate.so' from /etc/ld.so.preload cannot be preloaded"


def handshakes(daemon):
    return int(daemon.get("stats/handshakes"))


def refused(daemon):
    return int(daemon.get("stats/certificates_refused"))


def page(tls, _tcp):
    tls.recv(65536)
    tls.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 6\r\n\r\nhello\n")
    with contextlib.suppress(OSError):
        tls.unwrap()


@pytest.fixture(scope="session")
def server(pki):
    with peers.python_server(pki, page) as port:
        yield port


# --- TLS goes by ssa ---


URLLIB = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())"
THREADS = """
import sys, threading, urllib.request
def one(): said.append(urllib.request.urlopen(sys.argv[1]).read())
said = []
threads = [threading.Thread(target=one) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len([word for word in said if word == b"hello\\n"]))
"""
CLIENTS = {
    "curl": (["curl", "-sS"], "hello\n", 1),
    "python3": (["/usr/bin/python3", "-c", URLLIB], "hello\n", 1),
    "eight threads, each the first": (["/usr/bin/python3", "-c", THREADS], "8\n", 8),
    "php": (["php", "-r", "echo file_get_contents($argv[1]);", "--"], "hello\n", 1),
    "wget": (["wget", "-q", "-O", "-"], "hello\n", 1),
    "bash": (["bash", "-c", 'curl -sS "$0"'], "hello\n", 1),
}


@pytest.mark.parametrize("client", CLIENTS)
def test_clients(client, shared, running, server):
    command, expected, count = CLIENTS[client]
    before = handshakes(running)
    done = shared.run(*command, f"https://localhost:{server}/")  # the server's authority is known to ssad alone
    assert (done.returncode, done.stdout, done.stderr) == (0, expected, "")
    assert handshakes(running) == before + count


def test_verification_cannot_be_turned_off(shared, running, server):
    before = refused(running)
    done = shared.run("curl", "-sSk", "--resolve", f"wrong.test:{server}:127.0.0.1", f"https://wrong.test:{server}/")
    assert done.returncode == 60
    assert "verification cannot be turned off" in done.stderr
    assert refused(running) == before + 1


SOCKET = """
import socket, sys
tls = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 205)
tls.setsockopt(205, 85, b"localhost\\0")
tls.connect(("127.0.0.1", int(sys.argv[1])))
tls.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(tls.recv(15).decode(), end="")
"""


def test_a_socket_of_the_protocol(shared, running, server):
    before = handshakes(running)
    done = shared.run("/usr/bin/python3", "-c", SOCKET, server)
    assert (done.stdout, done.stderr) == ("HTTP/1.0 200 OK", "")
    assert handshakes(running) == before + 1


def test_beside_ssa_run(shared, running, server):
    """`ssa run` preloads a library of its own: then the gate stays shut."""
    before = handshakes(running)
    done = shared.ssa("run", "curl", "-sS", f"https://localhost:{server}/", SSA_RUN_DIR="/run/ssa")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    assert handshakes(running) == before + 1


SERVERS = {  # nginx links libssl; lighttpd loads a module that does
    "nginx": (peers.NGINX, ["/usr/sbin/nginx", "-g", "user root;", "-c"]),
    "lighttpd": (peers.LIGHTTPD, ["/usr/sbin/lighttpd", "-D", "-f"]),
}


@pytest.mark.parametrize("name", SERVERS)
def test_servers(name, shared, running, pki, tmp_path):
    template, command = SERVERS[name]
    port = free_port()
    (tmp_path / "hello").write_text("hello from nginx\n")
    files = {"cert": pki.cert, "key": pki.key, "directory": tmp_path}
    configuration = tmp_path / "configuration"
    configuration.write_text(template.format(port=port, address="127.0.0.1", also="", extra="", **files))
    before = handshakes(running)
    with shared.start(*command, configuration, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            assert peers.settled(lambda: listens(port) or server.poll() is not None)
            fetch = ["curl", "-sS", "--cacert", pki.ca, f"https://localhost:{port}/hello"]
            assert subprocess.run(fetch, capture_output=True, text=True, check=False).stdout == "hello from nginx\n"
        finally:
            server.kill()
    assert handshakes(running) == before + 1


# --- who is passed over ---


def own_tls(done):
    """The program's own OpenSSL has judged the server, whose authority it does not know."""
    return done.returncode == 60 and "unable to get local issuer certificate" in done.stderr


def test_the_list(shared, running, server):
    before = handshakes(running)
    shared.run("cp", "/usr/bin/curl", "/usr/local/bin/mine")
    listed = shared.path("/etc/ssa/leave-alone")
    text = listed.read_text()
    try:
        listed.write_text(f"{text}# a comment\n  /usr/local/bin/mi*  # with a comment\n")
        assert own_tls(shared.run("mine", "-sS", f"https://localhost:{server}/"))
        assert own_tls(shared.run("mine", "-sS", f"https://localhost:{server}/", LD_BIND_NOW="1"))
        assert shared.run("curl", "-sS", f"https://localhost:{server}/").stdout == "hello\n"
    finally:
        listed.write_text(text)
    assert handshakes(running) == before + 1


@pytest.mark.parametrize("name", ["bin/ssad", "bin/another"])
def test_a_script_of_the_list(name, shared, running, server):
    script = shared.path(f"/opt/{name}")
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"#!/usr/bin/python3\n{URLLIB}")
    script.chmod(0o755)
    before = handshakes(running)
    done = shared.run(f"/opt/{name}", f"https://localhost:{server}/")
    assert ("CERTIFICATE_VERIFY_FAILED" in done.stderr) == (name == "bin/ssad")
    assert handshakes(running) == before + (name != "bin/ssad")


def test_without_a_list_the_default_one_counts(shared, running, server):
    listed = shared.path("/etc/ssa/leave-alone")
    shared.run("cp", "/usr/bin/curl", "/usr/bin/apt-curl")
    listed.rename(listed.with_name("aside"))
    try:
        assert own_tls(shared.run("apt-curl", "-sS", f"https://localhost:{server}/"))
        assert shared.run("curl", "-sS", f"https://localhost:{server}/").stdout == "hello\n"
    finally:
        listed.with_name("aside").rename(listed)


def test_a_setuid_program_is_passed_over(shared, running, server):
    """ld.so preloads into it what /etc/ld.so.preload names, so the library itself looks."""
    shared.run("cp", "/usr/bin/curl", "/usr/local/bin/setuid-curl")
    shared.run("chmod", "4755", "/usr/local/bin/setuid-curl")
    before = handshakes(running)
    fetch = f"/usr/local/bin/setuid-curl -sS https://localhost:{server}/"
    done = shared.run("su", "nobody", "-s", "/bin/sh", "-c", fetch)
    assert own_tls(done)
    assert handshakes(running) == before


# --- whatever breaks, the machine starts ---


def _delete(path):
    path.unlink()


def _no_elf(path):
    path.write_text("this is no library\n")


def _cut(size):
    def cut(path):
        data = path.read_bytes()
        path.write_bytes(data[: size if size >= 0 else len(data) + size])

    return cut


def _another_class(path):
    shutil.copyfile(ROOT / "build" / "native" / "libssa-gate-32.so", path)


def _no_directory(path):
    path.unlink()
    path.mkdir()


BREAK = {
    "deleted": _delete,
    "no ELF": _no_elf,
    "empty": _cut(0),
    "cut at 900": _cut(900),
    "cut at a page": _cut(4096),
    "cut at 20000": _cut(20000),
    "without its last byte": _cut(-1),
    "32-bit": _another_class,
    "a directory": _no_directory,
}
SYSTEMD = shutil.which("systemd") or "/lib/systemd/systemd"
PROGRAMS = {
    "sh": (["sh", "-c", "echo $((1 + 1))"], "2\n"),
    "bash": (["bash", "-lc", "echo hello | cat"], "hello\n"),
    "a static one": (["/bin/busybox", "echo", "hello"], "hello\n"),
    "dpkg": (["dpkg-query", "-W", "-f", "${Package}\\n", "dpkg"], "dpkg\n"),
    "apt-get": (["apt-get", "--version"], None),
    "apt-config": (["apt-config", "dump", "--format", "%v", "APT::Architecture"], "amd64"),
    "sshd": (["/usr/sbin/sshd", "-t"], ""),
    "python3": (["/usr/bin/python3", "-c", "import ssl; print('hello')"], "hello\n"),
    "systemd": ([SYSTEMD, "--version"], None),
    "systemctl": (["systemctl", "--version"], None),
    "su": (["su", "nobody", "-s", "/bin/sh", "-c", "id -un"], "nobody\n"),
    "sudo": (["sudo", "-n", "-u", "nobody", "id", "-un"], "nobody\n"),
    "getty": (["/sbin/agetty", "--version"], None),
    "mount": (["mount", "--version"], None),
    "fsck": (["fsck", "--version"], None),
}


def starts(machine):
    """Programs without which a machine is lost. What they say on standard error."""
    said = {}
    for name, (command, expected) in PROGRAMS.items():
        done = machine.run(*command)
        assert done.returncode == 0, (name, done)
        assert expected is None or done.stdout == expected, (name, done)
        said[name] = done.stderr
    return said


@contextlib.contextmanager
def broken(machine, path, how):
    file = machine.path(path)
    content = file.read_bytes()
    BREAK[how](file)
    try:
        yield
    finally:
        with contextlib.suppress(IsADirectoryError, PermissionError):
            file.unlink(missing_ok=True)
        if file.is_dir():
            file.rmdir()
        file.write_bytes(content)


def test_in_order(shared):
    assert not [words for words in starts(shared).values() if "ld.so" in words or "ssa" in words]


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_gate(how, shared):
    """The dynamic linker complains, and goes on."""
    with broken(shared, GATE, how):
        said = starts(shared)
        assert said["sh"].startswith(NOISE)
        assert "ignored" in said["sh"]
        status = shared.ssa("coerce", "status")
    assert status.returncode == 1
    assert f"problem: {GATE}: " in status.stdout


@pytest.mark.parametrize("how", ["deleted", "no ELF", "cut at 20000", "without its last byte", "32-bit"])
def test_a_broken_library(how, shared, running, server):
    """The gate is there: nothing is said but where TLS is used, which is refused. Who is left alone has TLS."""
    before = handshakes(running)
    with broken(shared, COERCED, how):
        assert not [words for words in starts(shared).values() if "ld.so" in words or "ssa" in words]
        done = shared.run("curl", "-sSk", f"https://localhost:{server}/")
        python = shared.run("/usr/bin/python3", "-c", URLLIB, f"https://localhost:{server}/")
        wget = shared.run("wget", "-q", "--no-check-certificate", "-O", "-", f"https://localhost:{server}/")
        status = shared.ssa("coerce", "status")
    assert (done.returncode, python.returncode) == (35, 1)
    assert done.stdout == python.stdout == ""
    assert done.stderr.startswith(f"ssa: TLS is refused, as ssa cannot be loaded: {COERCED}: ")
    assert python.stderr.startswith(f"ssa: TLS is refused, as ssa cannot be loaded: {COERCED}: ")
    assert "ssl handshake failure" in python.stderr
    assert (wget.returncode, wget.stdout) == (4, "")
    assert f"ssa: TLS is refused, as ssa cannot be loaded: {COERCED}: " in wget.stderr
    assert handshakes(running) == before
    assert status.returncode == 1
    assert f"problem: {COERCED}: " in status.stdout


@pytest.fixture(scope="module")
def deserted(pki, tmp_path_factory):
    """A machine whose ssad has been killed."""
    directory = tmp_path_factory.mktemp("deserted")
    with Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon, a_machine(daemon.run_dir) as made:
        assert made.ssa("coerce", "on").returncode == 0
        daemon.process.kill()
        daemon.process.wait()
        yield made


def test_without_ssad(deserted, server):
    said = starts(deserted)
    assert not [words for words in said.values() if "ld.so" in words or "ssa" in words]
    done = deserted.run("curl", "-sSk", f"https://localhost:{server}/")
    assert (done.returncode, done.stdout) == (35, "")
    assert "ssad" in done.stderr
    status = deserted.ssa("coerce", "status")
    assert status.returncode == 1
    assert "problem: no ssad answers in /run/ssa" in status.stdout


def _keys(machine):
    for name in ("host", "user"):
        machine.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"/etc/ssh/test-{name}")


@contextlib.contextmanager
def _sshd(machine, port):
    options = {"AuthorizedKeysFile": "/etc/ssh/test-user.pub", "PidFile": "none", "UsePAM": "no", "StrictModes": "no"}
    words = [f"-o{name}={value}" for name, value in options.items()]
    command = ["/usr/sbin/sshd", "-D", "-e", "-p", port, "-h", "/etc/ssh/test-host", *words]
    with machine.start(*command, stderr=subprocess.DEVNULL) as daemon:
        try:
            assert peers.settled(lambda: listens(port) or daemon.poll() is not None)
            yield
        finally:
            daemon.kill()


@pytest.mark.parametrize("which", ["whole", "deleted", "cut at a page", "no ELF"])
def test_a_log_in(which, shared):
    """By sshd, to a shell, which starts a program."""
    if not shared.path("/etc/ssh/test-user").exists():
        _keys(shared)
    port = free_port()
    client = ["-i", "/etc/ssh/test-user", "-p", port, "-oStrictHostKeyChecking=no", "-oUserKnownHostsFile=/dev/null"]
    with contextlib.nullcontext() if which == "whole" else broken(shared, GATE, which), _sshd(shared, port):
        done = shared.run("ssh", *client, "-oLogLevel=ERROR", "root@127.0.0.1", "id -un; echo $((20 + 3))")
    assert (done.returncode, done.stdout) == (0, "root\n23\n"), done.stderr


CONTROL = """\
Package: ssa-trial
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.test>
Description: a package with a script
"""


@pytest.mark.parametrize("which", ["whole", "deleted", "cut at a page"])
def test_a_package_is_installed(which, shared, tmp_path):
    (tmp_path / "DEBIAN").mkdir(mode=0o755)
    (tmp_path / "DEBIAN" / "control").write_text(CONTROL)
    script = tmp_path / "DEBIAN" / "postinst"
    script.write_text("#!/bin/sh\necho configured\n")
    script.chmod(0o755)
    package = f"/tmp/ssa-trial-{os.getpid()}.deb"
    with contextlib.nullcontext() if which == "whole" else broken(shared, GATE, which):
        built = shared.run("dpkg-deb", "--build", tmp_path, package)
        done = shared.run("dpkg", "-i", package)
        gone = shared.run("dpkg", "--purge", "ssa-trial")
    Path(package).unlink()
    assert (built.returncode, done.returncode, gone.returncode) == (0, 0, 0), done
    assert "configured\n" in done.stdout


@pytest.mark.parametrize("which", ["whole", "deleted", "cut at a page"])
def test_cron_runs(which, shared):
    with (
        contextlib.nullcontext() if which == "whole" else broken(shared, GATE, which),
        shared.start("cron", "-f", stderr=subprocess.DEVNULL) as cron,
    ):
        time.sleep(0.5)
        alive = cron.poll() is None
        cron.kill()
    assert alive


# --- 32-bit programs ---


HELLO_32 = """
int puts(const char *); void exit(int);
void _start(void) { puts("hello"); exit(0); }
"""


def test_a_32_bit_program_starts_without_a_word(shared, tmp_path):
    source = tmp_path / "hello.c"
    source.write_text(HELLO_32)
    made = tmp_path / "hello"
    linker = "-Wl,-dynamic-linker,/lib/ld-linux.so.2"
    flags = ["-m32", "-nostdlib", "-fno-builtin", "-fno-pie", "-no-pie", linker]
    subprocess.run(["gcc", *flags, "-o", made, source, "/lib32/libc.so.6"], check=True)
    done = shared.run(made)
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    with broken(shared, GATE_32, "deleted"):
        assert NOISE in shared.run(made).stderr


def test_a_program_with_a_sanitizer_needs_an_option(shared, tmp_path):
    """ASan wants to be the first library, and any library in /etc/ld.so.preload comes before it (docs/coerce.md)."""
    made = tmp_path / "sanitized"
    source = "int main(void) { return 0; }"
    subprocess.run(["gcc", "-fsanitize=address", "-x", "c", "-o", made, "-"], input=source, text=True, check=True)
    assert "ASan runtime does not come first" in shared.run(made).stderr
    done = shared.run(made, ASAN_OPTIONS="verify_asan_link_order=0")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# --- its cost ---

_SPAWNS = 400


def _shortest(environment):
    """The least time of a program that does nothing, in seconds."""

    def once():
        began = time.perf_counter()
        os.waitpid(os.posix_spawn("/bin/true", ["true"], environment), 0)
        return time.perf_counter() - began

    return min(once() for _ in range(_SPAWNS))


def test_an_idle_preload_costs_little():
    """At most 0.2 ms a process: 0.06 ms were measured. The least of many, as other programs run beside it."""
    gate = {"LD_PRELOAD": str(ROOT / "build" / "native" / "libssa-gate.so")}
    assert peers.settled(lambda: _shortest(gate) - _shortest({}) < 0.0002, 30)


def test_libraries_of_the_program_are_found():
    """What the gate exports is what the libraries replace."""
    gate, coerced = (ctypes.CDLL(str(ROOT / "build" / "native" / f"libssa-{name}.so")) for name in ("gate", "tls"))
    for name in ("read", "socket", "SSL_connect", "SSL_write_ex"):
        assert getattr(gate, name)
        assert getattr(coerced, name)
    assert not hasattr(gate, "ssa_connect_tls")
