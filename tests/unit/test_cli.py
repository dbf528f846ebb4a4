"""The command line without a daemon: its help, its arguments, its words, and a tree of plain files for /ssa."""

import argparse
import contextlib
import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path, PurePath

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

import ssa
from ssa.cli import certificate, connect, doctor, failure, filesystem, ls, main, output, processes
from ssa.configfs import render
from ssa.errors import REASONS, error
from ssa.policy.schema import SETTINGS

COMMANDS = [(verb.name,) for verb in main.verbs()] + [(v.name, w.name) for v in main.verbs() for w in v.verbs]


@pytest.fixture(autouse=True)
def nowhere(tmp_path, monkeypatch):
    """No daemon, no file system, no configuration."""
    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("SSA_MOUNT", str(tmp_path / "ssa"))
    monkeypatch.setenv("SSA_CONFIG", str(tmp_path / "etc" / "policy.toml"))


def run(*arguments, **options):
    command = [sys.executable, "-m", "ssa.cli.main", *arguments]
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


def call(capsys, *arguments):
    try:
        status = main.main(arguments)
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


# --- help -----------------------------------------------------------------------------------------------------------


def test_the_help_is_complete(capsys):
    status, printed, _ = call(capsys, "--help")
    assert status == 0
    for verb in main.verbs():
        assert re.search(rf"^ +{verb.name} +{re.escape(verb.summary)}$", printed, re.MULTILINE)
    for word in ("SSA_RUN_DIR", "SSA_MOUNT", "SSA_CONFIG", "examples:", "exit status:", "/ssa/policy", "--json"):
        assert word in printed


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_verb_has_help_with_examples(capsys, command):
    status, printed, _ = call(capsys, *command, "--help")
    assert status == 0
    assert re.search(r"^examples:\n  .*\bssa\b", printed, re.MULTILINE)
    assert all(len(line) <= 140 for line in printed.splitlines())


@pytest.mark.parametrize("verb", ["get", "set"])
def test_the_settings_are_told(capsys, verb):
    _, printed, _ = call(capsys, "policy", verb, "--help")
    for setting in SETTINGS.values():
        assert setting.doc in printed


def test_version(capsys):
    assert call(capsys, "--version") == (0, f"ssa {ssa.__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("frobnicate",),
        ("connect",),
        ("connect", "host"),
        ("connect", "", "443"),
        ("connect", "host", "65536"),
        ("connect", "host", "0"),
        ("connect", "host", "443", "--timeout", "0"),
        ("connect", "host", "443", "--timeout", "nan"),
        ("connect", "host", "443", "--alpn", "h2,"),
        ("connect", "host", "443", "--source", "[::1"),
        ("--json", "connect", "host", "443"),
        ("show",),
        ("show", "x"),
        ("policy", "set", "min_version"),
        ("ls", "--js"),
    ],
    ids=" ".join,
)
def test_wrong_use(capsys, arguments):
    status, printed, told = call(capsys, *arguments)
    assert status == 2
    assert not printed
    assert told.startswith("usage: ssa")
    if arguments:
        assert re.search(r"error: .*; `ssa[a-z ]* --help` explains it\n$", told)


@pytest.mark.parametrize(
    ("system", "advice"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)), "check the host and the port"),
        (TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)), "check the host and the port"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "check its spelling"),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), "DNS"),
    ],
)
def test_what_to_do_about_an_error_of_the_network(system, advice):
    assert advice in failure.explain(system)


def test_no_advice_of_the_network_for_words_of_our_own():
    assert failure.explain(ConnectionRefusedError(errno.ECONNREFUSED, "no ssad listens")) == "no ssad listens"


# --- no daemon ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ls",), "start `ssad`"),
        (("show", "1"), "start `ssad`"),
        (("policy",), "start `ssad`"),
        (("policy", "get", "alpn"), "start `ssad`"),
        (("policy", "set", "alpn", "h2"), "start `ssad`"),
        (("policy", "save"), "start `ssad`"),
        (("connect", "localhost", "1"), "no ssad listens at"),
        (("policy", "get", "min_versio"), "did you mean min_version?"),
        (("policy", "set", "\x1b[31m", "x"), r"'\x1b[31m' is not a setting"),
    ],
)
def test_failures_are_one_line(arguments, words):
    done = run(*arguments)
    assert done.returncode == 1
    assert not done.stdout
    assert re.fullmatch(r"ssa: [^\n]+\n", done.stderr)
    assert words in done.stderr


def test_doctor_works_without_a_daemon():
    done = run("doctor")
    assert done.returncode == 1
    assert not done.stderr
    assert re.search(r"^daemon +lacks +none listens at .* -> start it", done.stdout, re.MULTILINE)
    told = json.loads(run("doctor", "--json").stdout)
    assert told["ok"] is False
    checked = {finding["check"] for finding in told["findings"]}
    assert checked >= {"ssa", "openssl", "kernel tls", "fuse", "policy file", "trust store", "daemon", "file system"}
    assert all(finding["advice"] for finding in told["findings"] if finding["status"] == "lacks")


def test_doctor_survives_its_own_checks(monkeypatch, capsys):
    def broken():
        raise RuntimeError("\x1b[31mred")
        yield

    monkeypatch.setattr(doctor, "CHECKS", (broken,))
    status, printed, _ = call(capsys, "doctor")
    assert status == 1
    assert r"could not be checked: \x1b[31mred" in printed


def test_doctor_on_a_bad_policy_file(tmp_path, monkeypatch):
    file = tmp_path / "policy.toml"
    file.write_text('[policy]\nmin_version = "SSLv3"\n')
    monkeypatch.setenv("SSA_CONFIG", str(file))
    found = {finding.check: finding for finding in doctor.examine()}
    assert found["policy file"].status == "lacks"
    assert "'SSLv3' is not supported" in found["policy file"].detail


# --- streams --------------------------------------------------------------------------------------------------------


def test_a_reader_that_has_gone():
    shown = subprocess.run(
        f"{sys.executable} -m ssa.cli.main --help | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert not shown.stderr
    assert shown.stdout in ("0\n", "1\n")


def test_a_full_disk():
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "ssa.cli.main", "--help"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 1
    assert done.stderr == b"ssa: No space left on device\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed):
    command = f"{sys.executable} -m ssa.cli.main ls {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_an_interrupt(monkeypatch):
    monkeypatch.setattr(main, "_run", lambda _: signal.raise_signal(signal.SIGINT))
    assert main.main([]) == 130


def test_the_verbs_load_nothing_dear():
    code = (
        "import sys, ssa.cli.main; print([m for m in ('cryptography', 'OpenSSL', 'trio', 'rich') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


# --- a file system of plain files -----------------------------------------------------------------------------------

SOCKET = {
    "peer_identity": "evil.example",
    "hostname": "evil.example",
    "role": "client",
    "version": "TLSv1.3",
    "cipher": "aes-gcm-256",
    "group": "x25519",
    "alpn": "",
    "resumed": "no",
    "data_path": "ktls",
    "local": "127.0.0.1:1",
    "remote": "127.0.0.1:2",
    "pid": "7",
    "uid": "0",
    "exe": r"/opt/a b\033[31m\134x/red",
    "verdicts": "path: ok\nname: ok",
    "opened": "2026-11-21T02:32:26Z",
    "bytes_sent": "1536",
    "bytes_received": "",
    "compliant": "yes",
    "state": "open",
}
# The same socket as a line of sockets.jsonl.
ROW = {name: text or None for name, text in SOCKET.items()} | {
    "id": 12,
    "resumed": False,
    "pid": 2**22 + 7,  # no process has such a number
    "uid": 0,
    "verdicts": ["path: ok", "name: ok"],
    "bytes_sent": 1536,
}
LISTENER = {
    "id": 3,
    "role": "listener",
    "local": "[::]:443",
    "hostname": None,
    "credentials": ["www", "mail"],
    "alpn": ["h2"],
    "protocol": "TLS",
    "pid": os.getpid(),
    "uid": os.getuid(),
    "exe": os.path.realpath(sys.executable),
    "opened": "2036-11-21T02:32:26Z",
}


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "ssa"
    (root / "policy").mkdir(parents=True)
    (root / "sockets" / "12").mkdir(parents=True)
    (root / "version").write_text("0.1.0\n")
    for setting in SETTINGS.values():
        (root / "policy" / setting.name).write_text(setting.default + "\n")
    leaf = trustme.CA(organization_name="\x1b[31mowned\x07").issue_cert("evil.example", "192.0.2.1")
    for name, text in SOCKET.items():
        (root / "sockets" / "12" / name).write_text(text + "\n")
    for name in ("peer_cert", "peer_chain"):
        (root / "sockets" / "12" / name).write_bytes(leaf.cert_chain_pems[0].bytes())
    (root / "listeners").mkdir()
    (root / "stats").mkdir()
    (root / "stats" / "sockets").write_text("1\n")
    (root / "sockets.jsonl").write_text(json.dumps(ROW) + "\n")
    (root / "sockets" / "12" / "close").write_text("")
    (root / "sockets" / "12" / "close").chmod(0o200)
    return root


def table(printed):
    """The rows of a table whose cells have no two spaces together."""
    titles, *rows = (re.split(r" {2,}", line.strip()) for line in printed.splitlines())
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_ls(tree, capsys):
    status, printed, _ = call(capsys, "ls")
    assert status == 0
    (row,) = table(printed)
    assert list(row) == [column.title for column in ls.COLUMNS]
    assert row.pop("AGE")
    assert row == {
        "ID": "12", "USER": "root", "PID": str(ROW["pid"]), "PROGRAM": "red", "UNIT": "-", "ROLE": "client",
        "NAME": "evil.example", "ADDRESS": "127.0.0.1:2", "CREDENTIAL": "-", "VERSION": "TLSv1.3",
        "CIPHER": "aes-gcm-256", "GROUP": "x25519", "PATH": "ktls", "COMPLIANT": "yes", "STATE": "open",
        "SENT": "1.5K", "RECEIVED": "-",
    }  # fmt: skip


def test_ls_shows_listeners_and_what_has_ended_and_what_does_not_comply(tree, capsys):
    ended = ROW | {"id": 100, "state": "ended by the peer", "compliant": "no: groups: x25519 is not among secp256r1"}
    (tree / "sockets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (ended, LISTENER)))
    first, second = table(call(capsys, "ls")[1])
    assert (first["ROLE"], first["ADDRESS"], first["CREDENTIAL"]) == ("listener", "[::]:443", "www mail")
    assert (second["STATE"], second["COMPLIANT"]) == (ended["state"], ended["compliant"])


@pytest.mark.parametrize("arguments", [("ls", "--json"), ("--json", "ls")])
def test_ls_for_programs(tree, capsys, arguments):
    (found,) = json.loads(call(capsys, *arguments)[1])
    assert found == ROW | {"user": "root", "program": "red", "script": None, "unit": None}
    assert found["exe"] == r"/opt/a b\033[31m\134x/red"


def test_ls_of_nothing(tree, capsys):
    (tree / "sockets.jsonl").write_text("")
    assert call(capsys, "ls") == (0, "no TLS sockets\nand 1 of other users, which root can see\n", "")
    (tree / "stats" / "sockets").write_text("0\n")
    assert call(capsys, "ls") == (0, "no TLS sockets\n", "")
    assert call(capsys, "ls", "--json") == (0, "[]\n", "")


def test_ls_of_many_is_in_order(tree, capsys):
    rows = [ROW | {"id": number} for number in (3, 100, 21)]
    (tree / "sockets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [found["id"] for found in json.loads(call(capsys, "ls", "--json")[1])] == [3, 21, 100]


def test_ls_of_a_thousand_is_quick(tree, capsys):
    rows = [ROW | {"id": number, "pid": os.getpid() + number % 40} for number in range(1000)]
    (tree / "sockets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    began = time.process_time()
    assert len(call(capsys, "ls")[1].splitlines()) == 1001
    assert time.process_time() - began < 0.3


def test_programs_are_told_apart(tree, capsys, tmp_path):
    """By the script that an interpreter runs; the names of processes are used again, so the time has to be right."""
    for directory in ("one", "two"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "main.py").write_text("import sys; print(flush=True); sys.stdin.read()")
    with contextlib.ExitStack() as stack:
        rows = []
        for number, script in enumerate(("one/main.py", "two/main.py")):
            command = [sys.executable, "-X", "utf8", tmp_path / script]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            process.stdout.readline()
            now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            exe = os.path.realpath(sys.executable)
            rows.append(ROW | {"id": number, "pid": process.pid, "exe": exe, "opened": now})
        rows.append(rows[0] | {"id": 2, "opened": "2020-01-01T00:00:00Z"})
        rows.append(rows[0] | {"id": 3, "exe": "/usr/bin/true"})
        (tree / "sockets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        shown = [row["PROGRAM"] for row in table(call(capsys, "ls")[1])]
        assert shown == ["one/main.py", "two/main.py", PurePath(exe).name, "true"]


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("python3 /srv/a.py x", "/srv/a.py"),
        ("python3.11 -u -m http.server 80", "-m http.server"),
        ("/usr/bin/python3 -W ignore -c code", "-c"),
        ("python3 -X utf8 a.py", "a.py"),
        ("perl -w a.pl", "a.pl"),
        ("bash", ""),
        ("curl https://x", ""),
        ("", ""),
    ],
)
def test_the_script_of_a_command_line(arguments, found):
    assert processes.script(arguments.split()) == found


@pytest.mark.parametrize(
    ("cgroup", "found"),
    [
        ("0::/system.slice/app.service\n", "app.service"),
        ("0::/system.slice/app.service/sub\n", "app.service"),
        ("0::/user.slice/user-0.slice/user@0.service/app.slice/web.service\n", "web.service"),
        ("0::/user.slice/user-0.slice/session-1.scope\n", "session-1.scope"),
        ("2:cpu:/\n1:name=systemd:/system.slice/old.service\n", "old.service"),
        ("0::/\n", ""),
    ],
)
def test_the_unit_of_a_cgroup(cgroup, found):
    assert processes.unit(cgroup) == found


def test_a_process_that_does_not_answer_is_passed_over(monkeypatch):
    read = processes._read

    def stuck(directory):
        return read(directory) if directory.name != "1" else threading.Event().wait()

    monkeypatch.setattr(processes, "_read", stuck)
    began = time.monotonic()
    found = processes.processes([1, os.getpid(), 1 << 30])
    assert list(found) == [os.getpid()]
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("columns", [40, 80, 120, 400])
def test_ls_fits_a_terminal(tree, capsys, monkeypatch, columns):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    reason = "no: groups: X25519MLKEM768 is not among secp256r1, secp384r1; min_version: TLSv1.2 is below TLSv1.3"
    rows = (ROW | {"group": "X25519MLKEM768", "compliant": reason, "remote": "[2001:db8::1234:5678]:50000"}, LISTENER)
    (tree / "sockets.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    printed = call(capsys, "ls")[1]
    plain = re.sub(r"\x1b\[[01]m", "", printed)
    assert all(len(line) <= columns for line in plain.splitlines())
    words = plain.split()
    for word in (
        "evil.example",
        "X25519MLKEM768",
        "[2001:db8::1234:5678]:50000",
        "aes-gcm-256",
        "listener",
        *reason.split(),
    ):
        assert word in words


def test_ls_where_the_output_is_ascii(tree):
    (tree / "sockets.jsonl").write_text(json.dumps(ROW | {"exe": "/opt/bücher/ü\u202e"}) + "\n")
    for arguments in (("ls",), ("ls", "--json"), ("show", "12"), ("policy",)):
        done = run(*arguments, env=os.environ | {"PYTHONIOENCODING": "ascii"})
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.isascii()
    (tree / "sockets" / "12" / "exe").write_text("/opt/bücher\n")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for arguments, shown in ((("ls",), r"\xfc"), (("show", "12"), r"/opt/b\xfccher"), (("policy",), "min_version")):
        done = run(*arguments, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert shown in done.stdout


def test_show_of_anothers(tree, capsys, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(filesystem.FileSystem, "_member", refuse)
    status, _, told = call(capsys, "show", "12")
    assert (status, told) == (1, "ssa: TLS socket 12 is another user's: run this as root to see it\n")


def test_show(tree, capsys):
    status, printed, _ = call(capsys, "show", "12")
    assert status == 0
    for line in (
        "socket 12",
        r"  exe             /opt/a b\033[31m\134x/red",
        "  alpn            -",
        "  names       DNS:evil.example, IP:192.0.2.1",
        "  path: ok",
    ):
        assert line in printed.splitlines()
    assert r"\x1b[31mowned\x07" in printed
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", printed)


def test_show_for_programs(tree, capsys):
    found = json.loads(call(capsys, "show", "12", "--json")[1])
    assert set(SOCKET) | {"id", "peer_cert", "peer_chain", "certificates", "own_certificates"} == set(found)
    assert found["verdicts"] == ["path: ok", "name: ok"]
    assert (found["compliant"], found["resumed"], found["alpn"]) == ("yes", False, None)
    assert found["certificates"][0]["names"] == ["DNS:evil.example", "IP:192.0.2.1"]
    assert "\x1b[31mowned" in found["certificates"][0]["issuer"]


def test_show_of_none(tree, capsys):
    assert call(capsys, "show", "13") == (
        1,
        "",
        "ssa: there is no TLS socket 13 (any more): `ssa ls` lists those that are open\n",
    )


def test_policy(tree, capsys):
    (tree / "policy" / "min_version").write_text("TLSv1.3\n")
    status, printed, _ = call(capsys, "policy")
    assert status == 0
    names = [line.split()[0] for line in printed.splitlines() if not line.startswith(" ")]
    assert names == list(SETTINGS)
    meaning = re.search(r"^min_version +TLSv1\.3  \(not the default\)\n((?: +.*\n)+)", printed, re.MULTILINE)
    assert " ".join(meaning[1].split()) == f"{SETTINGS['min_version'].doc} Stricter: higher."
    assert re.search(rf"^groups +{' '.join(SETTINGS['groups'].default.split())}\n +Key ", printed, re.MULTILINE)
    assert call(capsys, "policy", "list")[1] == printed


@pytest.mark.parametrize("width", ["80", "100", "300"])
def test_a_piped_policy_fits_a_screen(tree, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    _, printed, _ = call(capsys, "policy")
    assert max(map(len, printed.splitlines())) <= min(int(width), 100)
    words = " ".join(printed.split())
    assert all(" ".join(setting.default.split()) in words for setting in SETTINGS.values())


def test_policy_get_of_several(tree, capsys):
    (tree / "policy" / "min_version").write_text("TLSv1.3\n")
    _, printed, _ = call(capsys, "policy", "get", "min_version", "max_version")
    assert re.match(r"min_version  TLSv1\.3  \(not the default\)\n +Lowest", printed)
    assert re.search(r"^max_version  TLSv1\.3\n", printed, re.MULTILINE)
    found = json.loads(call(capsys, "policy", "get", "min_version", "max_version", "--json")[1])
    assert [row["name"] for row in found] == ["min_version", "max_version"]


def test_policy_reset(tree, capsys):
    (tree / "policy" / "groups").write_text("P-256\n")
    (tree / "policy" / "min_version").write_text("TLSv1.3\n")
    status, printed, _ = call(capsys, "policy", "reset", "groups")
    assert (status, printed.split()[0]) == (0, "groups")
    assert (tree / "policy" / "groups").read_text().split() == SETTINGS["groups"].default.split()
    assert (tree / "policy" / "min_version").read_text() == "TLSv1.3\n"
    assert json.loads(call(capsys, "policy", "reset", "--json")[1])[0]["name"] == "min_version"
    assert call(capsys, "policy", "reset") == (0, "nothing to change: the defaults are in force\n", "")
    assert call(capsys, "policy", "reset", "nonsense")[0] == 1


def test_policy_set_default(tree, capsys):
    (tree / "policy" / "groups").write_text("P-256\n")
    assert call(capsys, "policy", "set", "groups", "default") == (0, "", "")
    assert (tree / "policy" / "groups").read_text().split() == SETTINGS["groups"].default.split()


def test_policy_for_programs(tree, capsys):
    (tree / "policy" / "groups").write_text("P-256\n")
    found = {row["name"]: row for row in json.loads(call(capsys, "policy", "--json")[1])}
    assert list(found) == list(SETTINGS)
    assert found["groups"]["value"] == ["P-256"]
    assert found["groups"]["is_default"] is False
    assert found["alpn"]["value"] == []
    assert found["min_version"]["is_default"] is True
    assert json.loads(call(capsys, "policy", "get", "groups", "--json")[1]) == found["groups"]


def test_policy_get_and_set(tree, capsys):
    assert call(capsys, "policy", "set", "groups", "x25519", "P-256") == (0, "", "")
    assert (tree / "policy" / "groups").read_text().startswith("x25519\nP-256\n")
    (tree / "policy" / "alpn").write_text("h2\nhttp/1.1\n")
    assert call(capsys, "policy", "get", "alpn") == (0, "h2\nhttp/1.1\n", "")


def test_policy_save(tree, tmp_path, capsys):
    (tree / "policy" / "min_version").write_text("TLSv1.3\n")
    status, printed, _ = call(capsys, "policy", "save")
    file = tmp_path / "etc" / "policy.toml"
    assert (status, str(file) in printed) == (0, True)
    assert 'min_version = "TLSv1.3"' in file.read_text()
    before = file.read_text() + "unknown = 1\n"
    file.write_text(before)
    status, _, told = call(capsys, "policy", "save", "--json")
    assert (status, "unknown" in told) == (1, True)
    assert file.read_text() == before


def test_only_the_run_directory_is_told(tree, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    run.mkdir()
    (run / "mount").symlink_to(tree)
    (run / "config").symlink_to(tmp_path / "elsewhere.toml")
    monkeypatch.delenv("SSA_MOUNT")
    monkeypatch.delenv("SSA_CONFIG")
    (tree / "policy" / "min_version").write_text("TLSv1.3\n")
    assert call(capsys, "policy", "get", "min_version")[1] == "TLSv1.3\n"
    assert call(capsys, "policy", "save")[0] == 0
    assert "TLSv1.3" in (tmp_path / "elsewhere.toml").read_text()


@pytest.mark.parametrize("name", ["run", "run 'with\x1b' quotes"])
def test_env(tree, tmp_path, capsys, monkeypatch, name):
    run = tmp_path / name
    run.mkdir()
    monkeypatch.setenv("SSA_RUN_DIR", str(run))
    status, printed, told = call(capsys, "env")
    assert (status, printed) == (1, "")
    assert "start `ssad --user`" in told
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run / "ssad.sock"))
        (run / "mount").symlink_to(tree)
        (run / "config").symlink_to(tmp_path / "etc" / "policy.toml")
        line = call(capsys, "env")[1]
    shell = subprocess.run(["sh", "-c", f"{line}env -0"], env={}, stdout=subprocess.PIPE, text=True, check=True)
    found = dict(pair.split("=", 1) for pair in shell.stdout.split("\0") if pair)
    assert (found["SSA_RUN_DIR"], found["SSA_MOUNT"]) == (str(run), str(tree))
    assert found["SSA_CONFIG"] == str(tmp_path / "etc" / "policy.toml")


# --- words ----------------------------------------------------------------------------------------------------------


@given(st.text())
def test_printable(text):
    shown = output.printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_printable_on_what_terminals_act_on():
    assert output.printable("\x1b[2J\u202e\x9b\udc80\n") == r"\x1b[2J\u202e\x9b\udc80\n"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(None, "-"), (0, "0B"), (999, "999B"), (1000, "1.0K"), (1536, "1.5K"), (20480, "20K"), (2**31, "2.0G")],
)
def test_size(count, shown):
    assert output.size(count) == shown


@pytest.mark.parametrize(("span", "shown"), [(-1, "0s"), (59.9, "59s"), (60, "1m"), (7300, "2h"), (200000, "2d")])
def test_age(span, shown):
    assert output.age(span) == shown


def test_tables_in_a_pipe_are_whole(capsys):
    output.print_table(
        [output.Column("A", numbers=True), output.Column("B", prose=True)], [("1", "x" * 500), ("22", "y\nz\x1b")]
    )
    assert capsys.readouterr().out == f" A  B\n 1  {'x' * 500}\n22  y z\\x1b\n"


def test_tables_on_a_narrow_terminal_are_whole(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    name, prose = "[red]name-that-is-longer-than-thirty-columns", "some words that do not fit"
    output.print_table([output.Column("A"), output.Column("B", prose=True)], [(name, prose)])
    printed = capsys.readouterr().out
    assert name in printed
    assert " ".join(re.findall(r"some|words|that|do|not|fit", printed.replace(name, ""))) == prose
    assert "\x1b" not in printed


@given(st.text())
def test_values_of_files_are_printable_and_different(text):
    line = render.line(text).decode()
    assert line[:-1].isprintable()
    raw = re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), line[:-1].encode())
    assert raw == b"".join(
        char.encode("utf-8", "surrogateescape" if "\udc80" <= char <= "\udcff" else "surrogatepass") for char in text
    )


def test_a_certificate_that_cannot_be_read():
    bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert "cannot be read" in certificate.decode(bad)[0]["error"]
    assert certificate.decode("\n") == []


@pytest.mark.parametrize("reason", REASONS)
def test_every_failure_says_whose_fault_it_is(reason):
    line = failure.explain(error(reason, "a\nb"))
    assert f"({reason}: {failure.FAULTS[REASONS[reason].fault]})" in line
    assert "\n" not in line


@pytest.mark.parametrize("reason", [name for name, row in REASONS.items() if row.fault in {"policy", "system"}])
def test_a_failure_of_this_machine_says_what_to_do(reason):
    """Only the log tells more of a fault of ssad itself, and the text says so."""
    assert failure.explain(error(reason)).partition("). ")[2] or "log" in REASONS[reason].text


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:5000", ("192.0.2.1", 5000)),
        ("localhost:1", ("localhost", 1)),
        ("::1", ("::1", 0)),
        ("fe80::1%lo", ("fe80::1%lo", 0)),
        ("[::1]", ("::1", 0)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_source(text, meaning):
    assert connect.source(text) == meaning


@pytest.mark.parametrize("text", ["", ":", "a:b", "192.0.2.1:65536", "[::1]x", "[]:1"])
def test_bad_source(text):
    with pytest.raises(argparse.ArgumentTypeError):
        connect.source(text)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"a", b"\r\n"])), st.integers(min_value=1, max_value=3))
def test_crlf_wherever_the_chunks_are_cut(parts, step):
    data = b"".join(parts)
    chunks = [data[start : start + step] for start in range(0, len(data), step)]
    assert b"".join(connect.with_crlf(chunks)) == re.sub(rb"(?<!\r)\n", b"\r\n", data)


def test_the_environment_is_documented():
    parser = main.build_parser()
    for name in ("SSA_RUN_DIR", "SSA_MOUNT", "SSA_CONFIG"):
        assert name in os.environ
        assert name in parser.format_help()
