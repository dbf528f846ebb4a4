"""Each program says hello, fetches much, and refuses what ssad refuses."""

import hashlib
import ssl
import zipfile

import pytest

from tests.native.conftest import PATHS
from tests.native.openssl import programs, servers
from tests.native.openssl.conftest import BIG, counted, run

ON_KERNEL = PATHS[0] == "ktls"

# --- each program -------------------------------------------------------------------------------------------------


def each(*on_kernel):
    """A test of each program, but of some only on the test kernel, which starts programs slowly."""
    names = on_kernel if on_kernel and ON_KERNEL else programs.PROGRAMS
    return pytest.mark.parametrize("program", [programs.PROGRAMS[name] for name in names], ids=names)


@each()
def test_it_gets_its_answer_by_ssa(ssad, serving, program):
    made, refused, failed = counted(ssad)
    done = run(ssad, program.fetch("hello", "localhost", serving(program.server)))
    assert b"hello" in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    assert counted(ssad) == [made + 1, refused, failed]


@each("curl", "redis-cli", "psql")
def test_much_arrives_whole(ssad, serving, program):
    done = run(ssad, program.fetch("big", "localhost", serving(program.server)))
    assert done.returncode == 0, done.stderr
    body = done.stdout.partition(b"\r\n\r\n")[2] if program.stdin else done.stdout
    sent = b"x" * program.size + b"\n" if program.server in {"postgres", "mariadb"} else BIG[: program.size]
    assert hashlib.sha256(body[: len(sent)]).digest() == hashlib.sha256(sent).digest()
    assert body[len(sent) :] in {b"", b"\n"}


def _is_refused(ssad, program, host, port, counter):
    before = counted(ssad)
    done = run(ssad, program.fetch("hello", host, port))
    assert b"hello" not in done.stdout
    assert done.returncode or not done.stdout, done.stderr
    now = counted(ssad)
    assert now[0] == before[0]
    assert now[counter] > before[counter]  # redis-cli tries again
    return (done.stdout + done.stderr).decode()


@each("curl")
def test_another_name_is_refused(ssad, serving, program):
    with servers.forwarder(serving(program.server), "127.0.0.2") as port:
        said = _is_refused(ssad, program, "127.0.0.2", port, 1)
    assert "certificate is for another name" in said or not program.says


@each("curl")
def test_an_unknown_authority_is_refused(ssad, serving, program, strangers):
    ssad.set("trust_store", str(strangers.ca))
    said = _is_refused(ssad, program, "localhost", serving(program.server), 1)
    assert "no path from the certificate to a trust anchor" in said or not program.says


@each("curl")
def test_a_server_below_the_lowest_version_is_refused(ssad, serving, program):
    ssad.set("min_version", "TLSv1.3")
    said = _is_refused(ssad, program, "localhost", serving(program.server, "TLSv1.2"), 2)
    assert "TLS" in said or not program.says


@each("curl", "python3", "psql")
def test_a_cut_stream_is_no_success(ssad, serving, program):
    with servers.forwarder(serving(program.server), cut_after=1 << 20) as port:
        done = run(ssad, program.fetch("big", "localhost", port))
    assert done.returncode, (done.stdout[:100], done.stderr)
    assert len(done.stdout) < program.size


# --- those that are no command with an answer -----------------------------------------------------------------------


def test_irssi(ssad, pki, strangers, tmp_path):
    made, refused, _ = counted(ssad)
    with servers.irc(pki) as port:
        assert "hello from irc" in programs.irssi(ssad.environment, tmp_path / "a", "localhost", port, "-tls_verify")
        with servers.forwarder(port, "127.0.0.2") as elsewhere:
            shown = programs.irssi(ssad.environment, tmp_path / "b", "127.0.0.2", elsewhere, "-notls_verify")
            assert "hello from irc" not in shown
        ssad.set("trust_store", str(strangers.ca))
        assert "hello from irc" not in programs.irssi(ssad.environment, tmp_path / "c", "localhost", port)
    assert counted(ssad)[:2] == [made + 1, refused + 2]
    ssad.set("trust_store", str(pki.ca))
    ssad.set("min_version", "TLSv1.3")
    with servers.irc(pki, ssl.TLSVersion.TLSv1_2) as port:
        assert "hello from irc" not in programs.irssi(ssad.environment, tmp_path / "d", "localhost", port)


def test_pip(ssad, serving, pki, tmp_path):
    made, refused, _ = counted(ssad)
    done = run(ssad, programs.pip(tmp_path, "localhost", serving("web"), pki.ca))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / "big-1-py3-none-any.whl") as wheel:
        assert wheel.read("big.bin") == BIG[: programs.SIZE]
    with servers.forwarder(serving("web"), "127.0.0.2") as port:
        assert run(ssad, programs.pip(tmp_path / "other", "127.0.0.2", port, pki.ca)).returncode
    now = counted(ssad)
    assert now[0] > made
    assert now[1] > refused
