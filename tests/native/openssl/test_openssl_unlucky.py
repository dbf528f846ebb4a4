"""unlucky.c, a program that links OpenSSL and knows nothing of ssa: no descriptors, signals, forks; its callbacks."""

import os
import shutil
import ssl

import pytest

from tests import peers
from tests.native.conftest import ROOT
from tests.native.openssl import programs
from tests.native.openssl.conftest import counted, run
from tests.native.openssl.test_openssl_bad_luck import CONNECT

UNLUCKY = ROOT / "build" / "native" / "tests" / "openssl" / "unlucky"
_REFUSED = "refused 50\n"  # X509_V_ERR_APPLICATION_VERIFICATION
_REVOKED = "refused 23\n"  # X509_V_ERR_CERT_REVOKED


@pytest.fixture(scope="module")
def echo(pki):
    def serve(tls, _tcp):
        while data := tls.recv(65536):
            tls.sendall(data)
        tls.unwrap()

    with peers.python_server(pki, serve, ssl.TLSVersion.TLSv1_3) as port:
        yield port


def unlucky(ssad, what, port, host="localhost", **environment):
    """What the program comes to: its exit status, and what it has said."""
    done = run(ssad, [UNLUCKY, what, host, port], **environment)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize("what", ["exhausted", "signals", "restarting", "forks", "ends"])
def test_bad_luck(what, ssad, echo):
    before = counted(ssad)[0]
    assert unlucky(ssad, what, echo) == (0, "", "")
    assert counted(ssad)[0] > before


# --- what the program's callbacks and CRLs refuse, and that they accept nothing ---


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("tell", "connected\n"),
        ("callback_refuses", _REFUSED),
        ("callback_accepts", "connected\n"),
        ("whole_refuses", _REFUSED),
        ("whole_accepts", "connected\n"),
    ],
)
def test_what_its_callback_says_counts(what, said, ssad, echo):
    assert unlucky(ssad, what, echo)[:2] == (0, said)


@pytest.mark.parametrize("what", ["callback_accepts", "whole_accepts"])
def test_a_callback_accepts_nothing_that_ssad_refuses(what, ssad, echo, strangers, pki):
    refused = counted(ssad)[1]
    with peers.python_server(strangers, lambda tls, _tcp: tls.recv(1)) as port:
        status, said, _ = unlucky(ssad, what, port)
    assert (status, said[:7]) == (0, "refused")
    assert counted(ssad)[1] == refused + 1


def test_its_crls_count(ssad, echo, pki, tmp_path):
    crl = tmp_path / "crl.pem"
    for revocations, said in (pki.revocations(), "connected\n"), (pki.revocations(pki.cert), _REVOKED):
        crl.write_bytes(revocations)
        assert unlucky(ssad, "crl", echo, CA=str(pki.ca), CRL=str(crl))[:2] == (0, said)


# --- where it cannot reach ssad, and where the library is not in it ---

LOCKED_UP = """
import ctypes, struct
AF_UNIX, SOCKET, EACCES = 1, 41, 13
def instruction(code, true, false, value):
    return struct.pack("HBBI", code, true, false, value)
code = b"".join([
    instruction(0x20, 0, 0, 0), instruction(0x15, 0, 3, SOCKET),   # socket(2)
    instruction(0x20, 0, 0, 16), instruction(0x15, 0, 1, AF_UNIX), # its family
    instruction(0x06, 0, 0, 0x50000 | EACCES), instruction(0x06, 0, 0, 0x7fff0000),
])
buffer = ctypes.create_string_buffer(code)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("H6xP", len(code) // 8, ctypes.addressof(buffer)), 0, 0) == 0
"""
WRAPPED = """
try:
    context.wrap_socket(tcp, server_hostname="localhost")
    print("connected")
except OSError as exc:
    print(exc)
"""


@pytest.mark.parametrize(
    ("locked", "words"),
    [
        ("os.chroot(sys.argv[2])", "no ssad listens"),
        (LOCKED_UP, "Permission denied"),
    ],
    ids=["a chroot without /run", "a seccomp filter"],
)
@pytest.mark.skipif(os.geteuid() != 0, reason="chroot is root's")
def test_locked_up_it_is_refused_and_not_left_to_openssl(locked, words, ssad, echo, tmp_path):
    before = counted(ssad)[0]
    done = run(ssad, [programs.PYTHON, "-c", CONNECT + locked + WRAPPED, echo, tmp_path])
    assert words in done.stdout.decode(), done.stderr
    assert counted(ssad)[0] == before


@pytest.mark.skipif(os.geteuid() != 0, reason="a setuid program of another user's is root's to make")
def test_a_setuid_program_goes_on_with_its_own_openssl(ssad, echo, everybodys):
    """The dynamic linker does not preload into it. Nothing breaks: OpenSSL verifies, and knows no such authority."""
    setuid = shutil.copy(UNLUCKY, everybodys / "setuid-unlucky")
    os.chown(setuid, 65534, 65534)
    setuid.chmod(0o4755)
    before = counted(ssad)[0]
    done = run(ssad, [setuid, "tell", "localhost", echo])
    assert done.stdout == b"refused 20\n", done.stderr  # X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY
    assert counted(ssad)[0] == before
