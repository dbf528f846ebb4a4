"""The file system and the command line with a running ssad: what others chose, many sockets, users, credentials."""

import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ssa
from tests import peers

NASTY = "e\x9b\u202e\x1b[31m\n\\".encode() + b"\xff"
LS = [sys.executable, "-m", "ssa.cli.main", "ls"]


@pytest.fixture(scope="module")
def ssad(tmp_path_factory, pki):
    # Many sockets, each of which is two descriptors of the daemon's while it is relayed.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    directory = tmp_path_factory.mktemp("shown")
    with peers.Daemon(directory, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        yield daemon
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(autouse=True)
def environment(ssad, monkeypatch):
    for name, value in ssad.environment.items():
        monkeypatch.setenv(name, value)
    yield
    peers.settled(lambda: ssad.sockets() == [])


@pytest.fixture
def port(pki, tmp_path):
    with peers.nginx(pki, tmp_path / "nginx") as port:
        yield port


def rows(ssad):
    return [json.loads(line) for line in ssad.get("sockets.jsonl").splitlines()]


def everything(directory):
    """All bytes that the files of a directory have."""
    for path in directory.iterdir():
        if path.name != "close":
            yield path, path.read_bytes()


def test_a_programs_path_is_shown_printable(ssad, tmp_path, port):
    directory = os.fsencode(tmp_path) + b"/" + NASTY
    os.mkdir(directory)
    program = directory + b"/pro" + NASTY
    shutil.copy(os.path.realpath(sys.executable), program)
    code = f"import ssa; fd = ssa.connect_tls('localhost', {port}); print(flush=True); input()"
    environment = {**os.environb, b"PYTHONHOME": os.fsencode(sys.base_prefix), b"PYTHONPATH": os.fsencode(os.getcwd())}
    with subprocess.Popen(
        [program, b"-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"\n"
        (number,) = ssad.sockets()
        for path, content in everything(ssad.mount / "sockets" / number):
            assert all(line.isprintable() for line in content.decode().splitlines()), path
        shown = ssad.get(f"sockets/{number}/exe").strip()
        raw = re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), shown.encode())
        assert raw == program
        assert [row["exe"] for row in rows(ssad)] == [shown]
        for arguments in (LS, [*LS, "--json"], [*LS[:-1], "show", number]):
            done = subprocess.run(arguments, capture_output=True, check=True)
            assert all(line.isprintable() for line in done.stdout.decode().splitlines())
        exe = json.loads(subprocess.check_output([*LS, "--json"]))[0]["exe"]
        assert exe.isprintable()
        process.communicate(b"\n")


def test_what_a_client_says_is_shown_printable(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=str(pki.cert), private_key=str(pki.key)) as listener:
        for name in (b"e\xc2\x9bvil.example", b"a\x1b[31m.example", b"\xff.example"):
            command = [b"openssl", b"s_client", b"-quiet", b"-connect", b"127.0.0.1:%d" % listener.getsockname()[1],
                       b"-servername", name]  # fmt: skip
            with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
                listener.settimeout(5)
                try:
                    connection, _ = listener.accept()
                except TimeoutError:  # such a name is refused in the handshake
                    client.kill()
                    continue
                for number in ssad.sockets():
                    for path, content in everything(ssad.mount / "sockets" / number):
                        assert all(line.isprintable() for line in content.decode().splitlines()), path
                connection.close()
                client.kill()


def cpu_of(ssad):
    return ssad.cpu()


def test_a_thousand_sockets_are_listed_quickly(ssad, port):
    """In processor time, as other work may be going on. That slows this down too, so it is tried for a while."""
    fds = [ssa.connect_tls("localhost", port) for _ in range(1000)]
    try:
        assert peers.settled(lambda: spent_on(ssad, LS) < 0.3, 90)
        assert peers.settled(lambda: spent_on(ssad, [*LS, "--json"]) < 0.6, 10)
    finally:
        for fd in fds:
            os.close(fd)


def spent_on(ssad, command):
    """The processor time that a listing takes, of the command and of the daemon."""
    before, ours = cpu_of(ssad), resource.getrusage(resource.RUSAGE_CHILDREN)
    assert subprocess.check_output(command).count(b"localhost") >= 1000
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - ours.ru_utime - ours.ru_stime + cpu_of(ssad) - before


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root, to become another user")
def test_ls_shows_ones_own_and_how_many_others(ssad, port, site):
    fd = ssa.connect_tls("localhost", port)
    for directory in ssad.mount.parents:
        if directory.is_relative_to("/tmp") and directory != Path("/tmp"):
            directory.chmod(0o755)
    become_nobody = "import os, sys; os.setgid(65534); os.setuid(65534)"
    code = f"{become_nobody}; from ssa.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(site)}
    for arguments, shown in (
        (["ls"], "no TLS sockets\nand 1 of other users, which root can see\n"),
        (["ls", "--json"], "[]\n"),
    ):
        command = [getattr(sys, "_base_executable", sys.executable), "-c", code, *arguments]
        done = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
        assert (done.stdout, done.stderr) == (shown, "")
    ssa.close(fd)


def test_a_name_in_two_places_is_one_credential(ssad, pki):
    """The one made in the file system serves and is shown; without it, the directory's."""

    def put(directory, cert):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "certificate").write_bytes(cert[0].read_bytes())
        (directory / "key").touch(0o600)
        (directory / "key").write_bytes(cert[1].read_bytes())

    def served(listener):
        port = listener.getsockname()[1]
        command = (
            f"echo | openssl s_client -connect 127.0.0.1:{port} -servername second.example 2>/dev/null | openssl x509"
        )
        return subprocess.run(command, shell=True, capture_output=True, text=True, check=False).stdout

    live, stored = ssad.mount / "credentials" / "both", ssad.config.parent / "credentials" / "both"
    first, second = pki.issue("first", "localhost"), pki.issue("second", "localhost", "second.example")
    live.mkdir()
    for file, path in zip(("certificate", "key"), first, strict=True):
        (live / file).write_bytes(path.read_bytes())
    put(stored, second)
    time.sleep(0.1)
    with ssa.create_server(("127.0.0.1", 0)) as listener:
        for cert in (first, second):
            assert os.listdir(live.parent) == ["both"]
            assert (live / "certificate").read_text() == cert[0].read_text()
            assert served(listener) in cert[0].read_text() != ""
            assert [row["credentials"] for row in rows(ssad) if row["role"] == "listener"] == [["both"]]
            if cert is first:
                assert f"hides {stored} until it is removed (rmdir)" in ssad.log
                live.rmdir()
    with pytest.raises(FileExistsError):
        live.mkdir()
    shutil.rmtree(stored)


def test_a_trust_store_is_named_with_or_without_a_newline(ssad, pki, tmp_path):
    """The store is loaded before it counts, however its path is written; one that cannot be is refused at the write."""
    setting = ssad.mount / "policy" / "trust_store"
    for number, end in enumerate(("", "\n")):
        store = tmp_path / f"store{number}.pem"
        store.write_bytes(pki.ca.read_bytes())
        setting.write_text(f"{store}{end}")
        assert setting.read_text() == f"{store}\n"
        with pytest.raises(OSError, match="Invalid argument"):
            setting.write_text(f"{tmp_path}/none.pem{end}")
        assert setting.read_text() == f"{store}\n"
    descriptor = os.open(setting, os.O_WRONLY)
    with pytest.raises(OSError, match="Invalid argument"):
        os.write(descriptor, f"{tmp_path}/none.pem\n".encode())
    with pytest.raises(OSError, match="Invalid argument"):
        os.close(descriptor)
    setting.write_text(f"{pki.ca}\n")
