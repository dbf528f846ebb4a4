"""What `ssa coerce` does to a machine's files: two at once, ended in between, without room, without leave."""

import hashlib
import json
import subprocess
import sys

import pytest

from tests.native.coerce.test_coerce_programs import COERCED, GATE, NOISE

ENTRY = "/usr/$LIB/ssa/libssa-gate.so"
OTHERS = "# the administrator's\n/usr/lib/x86_64-linux-gnu/libjemalloc.so.2\n"


def words(done):
    return done.returncode, done.stdout, done.stderr


def starts(machine):
    """A program starts, and says nothing."""
    return words(machine.run("true")) == (0, "", "")


def test_on_and_off(machine):
    assert machine.ssa("coerce", "status").returncode == 3
    done = machine.ssa("coerce", "on")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.preload == f"{ENTRY}\n"
    for path in GATE, COERCED, "/etc/ld.so.preload", "/etc/ssa/leave-alone":
        assert machine.path(path).stat().st_mode & 0o7777 == 0o644
    status = machine.ssa("coerce", "status")
    assert (status.returncode, status.stderr) == (0, "")
    assert "the whole machine: on" in status.stdout
    assert f"  {GATE}: as noted\n" in status.stdout
    assert words(machine.run("sha256sum", "--quiet", "-c", "/usr/lib/ssa/coerce.sha256")) == (0, "", "")
    done = machine.ssa("coerce", "off")
    assert (done.returncode, done.stderr) == (0, "")
    assert machine.preload is None
    assert "was off already" in machine.ssa("coerce", "off").stdout
    assert machine.path(COERCED).exists()  # programs that run may need it yet


def test_other_lines_stay(machine):
    file = machine.path("/etc/ld.so.preload")
    file.write_text(OTHERS)
    file.chmod(0o640)
    assert machine.ssa("coerce", "on").returncode == 0
    assert machine.preload == f"{OTHERS}{ENTRY}\n"
    assert machine.ssa("coerce", "on").returncode == 0
    assert machine.preload == f"{OTHERS}{ENTRY}\n"
    assert file.stat().st_mode & 0o7777 == 0o640
    assert json.loads(machine.ssa("coerce", "status", "--json").stdout)["others"] == [OTHERS.split("\n")[1]]
    assert machine.ssa("coerce", "off").returncode == 0
    assert machine.preload == OTHERS


def test_a_file_that_is_a_link_stays_one(machine):
    machine.path("/etc/preload.real").write_text(OTHERS)
    machine.path("/etc/ld.so.preload").symlink_to("preload.real")
    assert machine.ssa("coerce", "on").returncode == 0
    assert machine.path("/etc/ld.so.preload").is_symlink()
    assert machine.path("/etc/preload.real").read_text() == f"{OTHERS}{ENTRY}\n"


def test_the_list_of_the_administrator_stays(machine):
    listed = machine.path("/etc/ssa/leave-alone")
    listed.parent.mkdir(exist_ok=True)
    listed.write_text("/usr/bin/mine\n")
    assert machine.ssa("coerce", "on").returncode == 0
    assert listed.read_text() == "/usr/bin/mine\n"


def test_once_more_mends(machine):
    assert machine.ssa("coerce", "on").returncode == 0
    for path in GATE, COERCED:
        machine.path(path).write_text("broken")
    assert NOISE in machine.run("true").stderr
    done = machine.ssa("coerce", "on")
    assert done.returncode == 0, done
    assert starts(machine)
    assert machine.ssa("coerce", "status").returncode == 0


def test_programs_are_told_apart(machine):
    before = machine.start("/usr/bin/python3", "-c", "import ssl, time; time.sleep(60)")
    assert machine.ssa("coerce", "on").returncode == 0
    after = machine.start("sleep", "60")
    try:
        programs = json.loads(machine.ssa("coerce", "status", "--json").stdout)["programs"]
    finally:
        before.kill()
        after.kill()
        before.wait()
        after.wait()
    assert any(name.startswith("python3") for name in programs["outside"])
    assert "sleep" in programs["ready"]


# --- refused, with words ---


def refused(done, text):
    assert done.returncode == 1
    line = done.stderr.rstrip("\n").split("\n")[-1]
    assert line.startswith("ssa: ")
    assert text in line, done.stderr


def test_another_user_is_refused(machine):
    command = f"{sys.executable} -m ssa.cli.main coerce"
    for verb in "on", "off":
        refused(machine.run("su", "nobody", "-s", "/bin/sh", "-c", f"{command} {verb}"), "only root can")
    assert machine.preload is None


def test_without_ssad_it_is_not_turned_on(machine):
    machine.mount("-t", "tmpfs", "none", f"{machine.top}/root/run/ssa")
    refused(machine.ssa("coerce", "on"), "no ssad answers in /run/ssa")
    assert machine.preload is None
    assert machine.ssa("coerce", "on", "--without-daemon").returncode == 0


def test_without_libraries(machine, tmp_path):
    done = machine.run("env", f"SSA_LIBRARIES={tmp_path}", sys.executable, "-m", "ssa.cli.main", "coerce", "on")
    refused(done, "`make native` makes it")


def test_a_read_only_directory(machine):
    for verb, before in ("on", None), ("off", f"{ENTRY}\n"):
        machine.mount("--bind", f"{machine.top}/root/etc", f"{machine.top}/root/etc")
        machine.mount("-o", "remount,bind,ro", f"{machine.top}/root/etc")
        refused(machine.ssa("coerce", verb), "the file system is read-only: /etc/ld.so.preload was not changed")
        assert machine.preload == before
        subprocess.run([*machine.inside, "umount", f"{machine.top}/root/etc"], check=True)
        assert machine.ssa("coerce", "on").returncode == 0


@pytest.mark.parametrize("where", ["usr/lib/ssa", "etc/ssa"])
def test_a_full_disk(where, machine):
    directory = f"{machine.top}/root/{where}"
    machine.path(where).mkdir(exist_ok=True)
    machine.mount("-t", "tmpfs", "-o", "size=4k", "none", directory)
    machine.path(f"{where}/full").write_bytes(bytes(4096))
    refused(machine.ssa("coerce", "on"), "the file system is full: /etc/ld.so.preload was not changed")
    assert [path.name for path in machine.path(where).iterdir()] == ["full"]
    assert machine.preload is None


def test_a_file_that_is_mounted(machine):
    """As containers have it: rename(2) cannot replace it."""
    file = machine.path("/etc/ld.so.preload")
    file.write_text(OTHERS)
    machine.path("/etc/another").write_text(OTHERS)
    machine.mount("--bind", f"{machine.top}/root/etc/another", f"{machine.top}/root/etc/ld.so.preload")
    refused(machine.ssa("coerce", "on"), "another file is mounted on it")


def test_a_library_with_which_programs_do_not_start(machine):
    """The trial finds it, before any other program does."""
    libraries = machine.path("/opt/libraries")
    libraries.mkdir(parents=True)
    machine.run("sh", "-c", 'cp "$SSA_LIBRARIES"/libssa-* /opt/libraries')
    source = "__attribute__((constructor)) static void begin(void) { __builtin_trap(); }"
    build = f"echo '{source}' | gcc -shared -fPIC -x c -o /opt/libraries/libssa-gate.so -"
    assert machine.run("sh", "-c", build).returncode == 0
    done = machine.run("env", "SSA_LIBRARIES=/opt/libraries", sys.executable, "-m", "ssa.cli.main", "coerce", "on")
    refused(done, "a trial has failed, so /etc/ld.so.preload was not changed")
    assert machine.preload is None
    assert starts(machine)


def test_programs_that_complain_already(machine):
    """glibc takes the words of a second comment for names: that is to be mended first."""
    machine.path("/etc/ld.so.preload").write_text("# one\n# two\n")
    done = machine.ssa("coerce", "on")
    refused(done, "/etc/ld.so.preload was not changed: programs complain already: ERROR: ld.so: object")
    assert machine.preload == "# one\n# two\n"


# --- two at once, and ended in between ---


def test_two_at_once(machine):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "ssa.cli.main", "coerce", "on"]
    both = [machine.start(*command, **pipes) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert machine.preload == f"{ENTRY}\n"
    assert machine.ssa("coerce", "status").returncode == 0


# Each child is ended at another step: by the audit event of Python that comes before a call. It prints, for each: what
# /etc/ld.so.preload was then, whether a program starts without a word, and the child's exit status.
ENDED = """
import os, shutil, subprocess, sys
from ssa.cli.main import main

verb = sys.argv[1]
calls = {"open", "os.rename", "os.remove", "os.chmod", "os.mkdir", "subprocess.Popen"}
ours = ("/usr/lib/ssa", "/usr/lib32/ssa", "/usr/lib/x86_64-linux-gnu/ssa", "/etc/ssa", "/etc/ld.so")

def hook(event, arguments):
    global left
    if event in calls and (event == "subprocess.Popen" or str(arguments[0]).startswith(ours)):
        left -= 1
        if left < 0:
            os._exit(77)

def prepare():
    if verb == "off":
        return main(["coerce", "on"])
    for directory in ours[:4]:
        shutil.rmtree(directory, ignore_errors=True)
    if os.path.exists("/etc/ld.so.preload"):
        os.unlink("/etc/ld.so.preload")

status, step = 77, 0
while os.waitstatus_to_exitcode(status) == 77 if step else True:
    prepare()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        left = step
        sys.addaudithook(hook)
        os._exit(main(["coerce", verb]))
    status = os.waitpid(child, 0)[1]
    state = open("/etc/ld.so.preload").read() if os.path.exists("/etc/ld.so.preload") else ""
    start = subprocess.run(["true"], capture_output=True)
    print("step", step, repr(state), repr((start.returncode, start.stderr)), os.waitstatus_to_exitcode(status))
    step += 1
"""


@pytest.mark.parametrize(("verb", "least"), [("on", 20), ("off", 2)])
def test_ended_at_each_step(verb, least, machine):
    """Programs start, whatever was done by then; and the next one finishes it, and leaves nothing behind."""
    done = machine.run(sys.executable, "-c", ENDED, verb)
    assert done.returncode == 0, done.stderr
    steps = [line.split(" ", 2)[2] for line in done.stdout.split("\n") if line.startswith("step ")]
    assert len(steps) > least
    assert steps[-1].endswith(" 0")
    started = {f"{text!r} (0, b'') 77" for text in ("", f"{ENTRY}\n")}
    assert set(steps[:-1]) == started if verb == "on" else set(steps[:-1]) <= started
    assert machine.ssa("coerce", "on").returncode == 0
    assert machine.ssa("coerce", "status").returncode == 0
    assert words(machine.run("find", "/etc", "/usr/lib", "-name", "*.ssa-new")) == (0, "", "")


def test_nothing_is_written_that_is_there(machine):
    """A second `on` leaves the files, which programs have mapped, as they are."""
    assert machine.ssa("coerce", "on").returncode == 0
    before = {path: machine.path(path).stat().st_ino for path in (GATE, COERCED, "/etc/ld.so.preload")}
    digest = hashlib.sha256(machine.path(GATE).read_bytes()).hexdigest()
    assert machine.ssa("coerce", "on").returncode == 0
    assert {path: machine.path(path).stat().st_ino for path in before} == before
    assert digest in machine.path("/usr/lib/ssa/coerce.sha256").read_text()
