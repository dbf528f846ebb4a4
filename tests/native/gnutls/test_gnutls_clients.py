"""Each program says hello, fetches much, and refuses what ssad refuses."""

import hashlib

import pytest

from tests.native.conftest import PATHS
from tests.native.gnutls import programs
from tests.native.gnutls.conftest import BIG, HELLO, counted, run
from tests.native.openssl import servers

ON_KERNEL = PATHS[0] == "ktls"
NOT_TURNED_OFF = "verification cannot be turned off"


def each(*on_kernel, but=()):
    """A test of each program, but of some only on the test kernel, which starts programs slowly."""
    names = on_kernel if on_kernel and ON_KERNEL else [name for name in programs.PROGRAMS if name not in but]
    return pytest.mark.parametrize("program", [programs.PROGRAMS[name] for name in names], ids=names)


@each()
def test_it_gets_its_answer_by_ssa(ssad, serving, program):
    made, refused, failed = counted(ssad)
    done = run(ssad, program.fetch("hello", "localhost", serving(program.server)))
    assert HELLO[program.server] in done.stdout, done.stderr
    assert done.returncode == 0, done.stderr
    now = counted(ssad)
    assert now[0] > made
    assert now[1:] == [refused, failed]


@each("wget", "git", "lftp-ftp", "gnutls-cli", but=("msmtp",))
def test_much_arrives_whole(ssad, serving, program):
    what, size = program.much
    done = run(ssad, program.fetch(what, "localhost", serving(program.server)))
    assert done.returncode == 0, done.stderr
    body = done.stdout.partition(b"\r\n\r\n")[2] if program.stdin else done.stdout
    assert hashlib.sha256(body[:size]).digest() == hashlib.sha256(BIG[:size]).digest()
    assert program.stdin or len(body) == size


def _is_refused(ssad, program, command, counter):
    before = counted(ssad)
    done = run(ssad, command)
    assert HELLO[program.server] not in done.stdout or program.name == "msmtp"  # whose greeting was plain
    assert done.returncode, done.stderr
    now = counted(ssad)
    assert now[0] == before[0]
    assert now[counter] > before[counter]
    return (done.stdout + done.stderr).decode()


@each("wget")
@pytest.mark.parametrize("how", ["fetch", "anyway"])
def test_another_name_is_refused_also_where_nobody_asked_to_verify(ssad, serving, program, how):
    with servers.forwarder(serving(program.server), "127.0.0.2") as port:
        said = _is_refused(ssad, program, getattr(program, how)("hello", "127.0.0.2", port), 1)
    assert ("certificate is for another name" in said and NOT_TURNED_OFF in said) or program.quiet
    assert "hostname=127.0.0.2 unverified=" in ssad.log


@each("wget")
def test_an_unknown_authority_is_refused(ssad, serving, program, strangers):
    ssad.set("trust_store", str(strangers.ca))
    said = _is_refused(ssad, program, program.fetch("hello", "localhost", serving(program.server)), 1)
    assert "no path from the certificate to a trust anchor" in said or program.quiet


@each("wget", but=("lftp-ftp", "msmtp"))
def test_a_server_below_the_lowest_version_is_refused(ssad, serving, program):
    ssad.set("min_version", "TLSv1.3")
    command = program.fetch("hello", "localhost", serving(program.server, "TLSv1.2"))
    said = _is_refused(ssad, program, command, 2)
    assert "TLS" in said or program.quiet


@each("wget", "git", but=("lftp-ftp", "msmtp"))
def test_a_cut_stream_is_no_success(ssad, serving, program):
    with servers.forwarder(serving(program.server), cut_after=1 << 20) as port:
        done = run(ssad, program.fetch("big", "localhost", port))
    assert done.returncode, (done.stdout[:100], done.stderr)
    assert len(done.stdout) < programs.WEB_SIZE
