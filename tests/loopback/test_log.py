"""ssad's log: it holds nobody up, it is bounded by user, and a machine can read it. No kernel TLS is needed."""

import contextlib
import fcntl
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

import pytest

import ssa
from ssa.protocol import wire
from tests import peers
from tests.peers import Daemon, settled

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ssad (debug|info|warning|error|critical): ")
FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|\S*)')


def fields(line):
    return {name: value.strip('"') for name, value in FIELD.findall(line)}


@contextlib.contextmanager
def logging_to(daemon, stderr):
    """A daemon whose log goes to a descriptor."""
    ready, told = os.pipe()
    command = [sys.executable, "-m", "ssa.daemon.main", "--ready-fd", str(told)]
    environment = os.environ | daemon.environment
    process = daemon.process = subprocess.Popen(command, env=environment, pass_fds=[told], stderr=stderr)
    os.close(told)
    try:
        assert select.select([ready], [], [], 30)[0]
        assert os.read(ready, 16) == b"ready\n"
        yield process
    finally:
        os.close(ready)
        process.kill()
        process.wait()
        subprocess.run(["fusermount3", "-u", "-z", daemon.mount], check=False, capture_output=True)


@contextlib.contextmanager
def narrow_pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def everything(reader):
    """What is in a pipe now, and what comes until a second has passed without anything."""
    data = b""
    while select.select([reader], [], [], 1)[0]:
        piece = os.read(reader, 65536)
        if not piece:
            break
        data += piece
    return data.decode()


def refuse(daemon, times):
    """Have requests refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(str(daemon.run_dir / "ssad.sock"))
        for _ in range(times):
            sock.send(b"junk")
            assert wire.parse_untrusted(sock.recv(65536), wire.Reply).reason == "BAD_REQUEST"


def test_a_log_that_nobody_reads_holds_nobody_up(tmp_path):
    daemon = Daemon(tmp_path)
    with narrow_pipe() as (reader, writer), logging_to(daemon, writer) as process:
        writes = 2000
        for number in range(writes):
            daemon.set("min_rsa_bits", str(2048 + number % 2))
        refuse(daemon, 3)
        dropped = int(daemon.get("stats/log_lines_dropped"))
        assert dropped > 0
        log = everything(reader)  # somebody reads it again
        said = [int(fields(line)["lines"]) for line in log.splitlines() if "nobody read" in line]
        assert sum(said) == dropped
        assert log.count("written path=policy/min_rsa_bits") >= writes - dropped
        assert all(map(TIME.match, log.splitlines()))
        for number in range(writes):
            daemon.set("min_rsa_bits", str(2048 + number % 2))
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert time.monotonic() - began < 5
        assert not os.path.ismount(daemon.mount)


def test_a_log_whose_reader_has_gone(tmp_path):
    daemon = Daemon(tmp_path)
    reader, writer = os.pipe()
    with logging_to(daemon, writer) as process:
        os.close(writer)
        os.close(reader)
        for number in range(20):
            daemon.set("min_rsa_bits", str(2048 + number % 2))
        assert settled(lambda: int(daemon.get("stats/log_lines_dropped")) >= 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


def test_a_log_that_is_full(tmp_path):
    daemon = Daemon(tmp_path)
    with open("/dev/full", "wb") as full, logging_to(daemon, full):
        daemon.set("min_rsa_bits", "3000")
        assert settled(lambda: int(daemon.get("stats/log_lines_dropped")) >= 4)


def test_standard_streams_that_are_closed(tmp_path):
    daemon = Daemon(tmp_path)
    command = ["sh", "-c", f"exec {sys.executable} -m ssa.daemon.main 0<&- 1>&- 2>&-"]
    with subprocess.Popen(command, env=os.environ | daemon.environment) as process:
        assert settled(lambda: os.path.ismount(daemon.mount) and (daemon.mount / "version").exists(), 20)
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
        process.terminate()
        assert process.wait(10) == 0


def test_refusals_are_bounded_by_user_and_second_and_what_was_left_out_is_counted(tmp_path):
    with Daemon(tmp_path) as daemon:
        began = time.monotonic()
        for _ in range(8):
            refuse(daemon, 250)
        seconds = int(time.monotonic() - began) + 1
        assert settled(lambda: told(daemon) == 2000, 5), told(daemon)
        assert len(refused(daemon)) <= 10 * (seconds + 1)
        daemon.set("min_rsa_bits", "3000")  # the administrator's doings are never left out
        assert "new=3000" in daemon.log


def refused(daemon):
    return [line for line in daemon.log.splitlines() if " refused " in line]


def told(daemon):
    """How many refusals the log tells of, one by one or as a number."""
    left_out = [fields(line) for line in daemon.log.splitlines() if "left out" in line]
    assert all(row["uid"] == str(os.getuid()) for row in left_out)
    return len(refused(daemon)) + sum(int(row["lines"]) for row in left_out)


def test_streams_that_were_cut_hide_no_refusal(tmp_path, pki, monkeypatch):
    def cut(tls, _):
        socket.socket(fileno=tls.detach()).close()

    with (
        Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon,
        peers.python_server(pki, cut) as port,
    ):
        monkeypatch.setenv("SSA_RUN_DIR", str(daemon.run_dir))
        live = [ssa.create_connection(("localhost", port)) for _ in range(40)]
        for sock in live:  # one after the other, in the same second
            with pytest.raises(ConnectionAbortedError), sock:
                sock.recv(1)
        refuse(daemon, 1)
        assert settled(lambda: refused(daemon), 5)
        assert settled(lambda: told_of_cuts(daemon) == 40, 5), daemon.log
        left_out = [fields(line) for line in daemon.log.splitlines() if "left out" in line]
        assert {row["of"] for row in left_out} == {"truncated"}


def told_of_cuts(daemon):
    lines = daemon.log.splitlines()
    left_out = [fields(line) for line in lines if "left out" in line]
    return sum(" truncated " in line for line in lines) + sum(int(row["lines"]) for row in left_out)


def test_a_line_has_its_time_and_a_refusal_its_fields(tmp_path):
    with Daemon(tmp_path) as daemon:
        refuse(daemon, 1)
    assert all(map(TIME.match, daemon.log.splitlines())), daemon.log
    row = fields(refused(daemon)[0])
    assert (row["reason"], row["uid"], row["pid"]) == ("BAD_REQUEST", str(os.getuid()), str(os.getpid()))


def test_a_policy_write_says_old_new_and_who(tmp_path):
    with Daemon(tmp_path) as daemon:
        daemon.set("alpn", "h2 http/1.1")
        with pytest.raises(OSError, match="Invalid"):
            daemon.set("min_version", "TLSv1.1")
    [written] = [fields(line) for line in daemon.log.splitlines() if " written " in line]
    assert written == {
        "path": "policy/alpn",
        "old": "",
        "new": r"h2\nhttp/1.1",
        "uid": str(os.getuid()),
        "pid": str(os.getpid()),
    }
    refused, *_ = [line for line in daemon.log.splitlines() if "TLSv1.1" in line]
    assert f"policy/min_version: refused from uid {os.getuid()} pid {os.getpid()}: " in refused


@pytest.mark.parametrize("level", ["info", "debug"])
def test_each_handshake_is_logged_for_debugging(tmp_path, monkeypatch, pki, level):
    policy = f'[policy]\ntrust_store = "{pki.ca}"\n'
    with Daemon(tmp_path, arguments=("--log-level", level), policy=policy) as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        with peers.openssl(pki, "-quiet", "-alpn", "h2") as (port, _):
            for _ in range(2):
                ssa.create_connection(("localhost", port), alpn=["h2"]).close()
    lines = [fields(line) for line in daemon.log.splitlines() if " handshake " in line]
    assert len(lines) == (2 if level == "debug" else 0)
    for number, line in enumerate(lines, 1):
        assert line["id"] == str(number)
        assert (line["role"], line["hostname"], line["alpn"]) == ("client", "localhost", "h2")
        assert line["remote"].endswith(f":{port}")
        assert (line["version"], line["pid"], line["uid"]) == ("TLSv1.3", str(os.getpid()), str(os.getuid()))
        assert line["suite"].startswith("TLS_")
        assert line["data_path"] in ("ktls", "relay")


def test_under_journald_it_says_priorities_and_no_time(tmp_path):
    daemon = Daemon(tmp_path)
    path = tmp_path / "ssad.log"
    with path.open("wb") as file:
        status = os.fstat(file.fileno())
        daemon.environment["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        with logging_to(daemon, file):
            refuse(daemon, 1)
            with pytest.raises(OSError, match="Invalid"):
                daemon.set("min_version", "TLSv1.1")
            assert settled(lambda: "TLSv1.1" in path.read_text())
    lines = path.read_text().splitlines()
    assert all(re.match(r"<[2-7]>\S", line) for line in lines), lines
    assert not any(re.search(r"\d\d:\d\d:\d\d", line) for line in lines)
    assert any(line.startswith("<6>refused ") for line in lines)
    assert any(line.startswith("<4>") and "TLSv1.1" in line for line in lines)


def test_a_journal_that_is_another_stream(tmp_path):
    daemon = Daemon(tmp_path)
    daemon.environment["JOURNAL_STREAM"] = "1:2"
    with daemon:
        refuse(daemon, 1)
    assert all(map(TIME.match, daemon.log.splitlines())), daemon.log


FORGED = "evil\n2026-01-01T00:00:00.000Z ssad info: forged\x1b[2J\u202e\x9b reason=OK"


def test_what_others_chose_forges_neither_lines_nor_fields(tmp_path):
    with Daemon(tmp_path) as daemon, socket.create_server(("127.0.0.1", 0)) as server:
        for name in (FORGED, "x" * 60_000):
            with (
                socket.create_connection(server.getsockname()) as sock,
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as application,
            ):
                application.connect(str(daemon.run_dir / "ssad.sock"))
                socket.send_fds(application, [wire.pack(wire.Connect(name))], [sock.fileno()])
                assert wire.parse_untrusted(application.recv(65536), wire.Reply).reason == "BAD_VALUE"
    assert all(line.isprintable() and TIME.match(line) for line in daemon.log.splitlines())
    assert max(map(len, daemon.log.splitlines())) < 2000
    rows = list(map(fields, refused(daemon)))
    assert [row["reason"] for row in rows] == ["BAD_VALUE"] * 2
    assert rows[0]["hostname"].startswith(r"evil\n2026-01-01")
