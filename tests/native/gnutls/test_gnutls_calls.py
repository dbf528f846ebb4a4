"""GnuTLS's functions one by one: what they say of a session of ssad's, and what they refuse. (calls.c, records.c)"""

import ssl
import time

import pytest

from tests.native.conftest import ROOT
from tests.native.gnutls.conftest import counted, run
from tests.peers import openssl, python_server

PROGRAMS = ROOT / "build" / "native" / "tests" / "gnutls"
RECORDS = {
    *("corked", "nonblocking", "threads", "many", "handshake-timeout", "record-timeout", "signal", "fork"),
    *("few-descriptors", "until-the-end"),
}


def program_of(what):
    return PROGRAMS / ("records" if what in RECORDS else "calls")


def _echo(tls, _tcp):
    while (data := tls.recv(65536)) and data != b"end\n":
        if data == b"cut\n":
            return  # without a close_notify
        tls.sendall(data)
    tls.unwrap()


@pytest.fixture(scope="session")
def echo(pki):
    with python_server(pki, _echo) as port:
        yield port


@pytest.fixture(scope="session")
def echo_of_old(pki):
    with python_server(pki, _echo, ssl.TLSVersion.TLSv1_2) as port:
        yield port


def calls(ssad, port, what, *argument, host="localhost", **environment):
    done = run(ssad, [program_of(what), host, port, what, *argument], **environment)
    return done.stdout.decode().splitlines()


def test_what_is_told_of_a_handshake(ssad, echo):
    made = counted(ssad)[0]
    assert calls(ssad, echo, "report") == [
        "status 0",
        "of another name refused",
        "of another purpose refused",
        "peers are 1",
        "description (TLS1.3)-(ECDHE-ECDSA)-(AES-256-GCM)",
        "version TLS1.3",
        "cipher AES-256-GCM 32",
        "times 1",
        "data: done",
        "keying material: ssa exports no keying material (RFC 8446 section 7.5)",
        "binding: ssa has no channel bindings (RFC 5929)",
        "rehandshake: ssa does not renegotiate",
        "new keys: done",
        "echo: hello",
        "pending 0",
        "bye: done",
        "after it 0",
    ]
    assert counted(ssad)[0] == made + 1


def test_the_application_protocol(ssad, pki):
    with openssl(pki, "-alpn", "http/1.1", "-quiet") as (port, _):
        assert calls(ssad, port, "alpn") == ["chosen http/1.1"]


@pytest.mark.parametrize(
    ("string", "chosen"),
    [
        ("NORMAL", "TLS1.3 AES-256-GCM"),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.2", "TLS1.2 AES-256-GCM"),
        ("NORMAL:-CIPHER-ALL:+CHACHA20-POLY1305", "TLS1.3 CHACHA20-POLY1305"),
        ("NORMAL:-VERS-ALL:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM", "TLS1.2 AES-128-GCM"),
    ],
)
def test_a_priority_string_narrows(ssad, pki, string, chosen):
    with openssl(pki, "-quiet") as (port, _):
        assert calls(ssad, port, "priorities", string) == [chosen]


@pytest.mark.parametrize("string", ["NORMAL:-VERS-ALL:+VERS-TLS1.1", "NORMAL:-CIPHER-ALL:+AES-128-CBC"])
def test_a_priority_string_that_leaves_nothing_of_the_policys(ssad, echo, string):
    made = counted(ssad)[0]
    assert calls(ssad, echo, "priorities", string)[0].startswith("handshake: ")
    assert counted(ssad)[0] == made


def test_a_verify_function_is_asked_and_can_refuse(ssad, echo):
    asked = "asked with status 0, a chain"
    assert calls(ssad, echo, "verify-function") == [asked, "handshake: done", "again the same"]
    assert calls(ssad, echo, "verify-function", "refuse") == [
        asked,
        "handshake: certificate is not acceptable: the program's own verification refuses it",
        "again the same",
        "a write refused",
    ]


def test_the_name_that_is_to_be_verified_counts(ssad, echo):
    assert calls(ssad, echo, "verify-name", "localhost") == ["handshake: done", "verified"]
    handshake, status = calls(ssad, echo, "verify-name", "other.test")
    assert handshake.startswith("handshake: certificate is for another name: ")
    assert "cannot be turned off" not in handshake  # nobody has tried
    assert status == "another owner"


def test_its_own_anchors_narrow_and_the_systems_do_not(ssad, echo, pki, strangers):
    assert calls(ssad, echo, "anchors", pki.ca) == ["handshake: done"]
    assert calls(ssad, echo, "anchors", "/etc/ssl/certs/ca-certificates.crt") == ["handshake: done"]
    (refused,) = calls(ssad, echo, "anchors", strangers.ca)
    assert refused.startswith("handshake: no path from the certificate to a trust anchor")


def test_a_revoked_certificate(ssad, echo, pki, tmp_path):
    (tmp_path / "it").write_bytes(pki.revocations(pki.cert))
    assert calls(ssad, echo, "revocation", tmp_path / "it")[0] != "in order"


# --- what ssa cannot do ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("pipe", "GnuTLS that is not on a TCP socket"),
        ("push", "GnuTLS that sends by a function of the program's, as for TCP Fast Open"),
        ("datagrams", "DTLS by GnuTLS"),
        ("anonymous", "a handshake without certificates (anonymous, PSK, SRP)"),
        ("server", "a server that decides by the ClientHello, with GnuTLS"),
    ],
)
def test_what_cannot_be_mapped_is_refused_or_left_to_gnutls(ssad, echo, what, words):
    time.sleep(1)  # the log takes ten lines a second from a user, and the test before may have used them
    left, refused = (int(ssad.get(f"stats/{name}")) for name in ("fallbacks", "fallbacks_refused"))
    (said,) = calls(ssad, echo, what)
    assert said.endswith(f"coercion is strict, and ssa cannot do this for the program: {words}")
    assert int(ssad.get("stats/fallbacks_refused")) == refused + 1
    ssad.set("coercion", "fallback")
    (said,) = calls(ssad, echo, what)
    assert said.startswith("handshake: ")
    assert "coercion" not in said
    assert int(ssad.get("stats/fallbacks")) == left + 1
    assert "left to the program's own TLS library" in ssad.log
    assert words in ssad.log


# --- records ------------------------------------------------------------------------------------------------------


def test_corked_records(ssad, echo):
    assert calls(ssad, echo, "corked") == ["corked 8", "uncorked 8", "echo: one t"]


def test_a_socket_that_does_not_wait(ssad, echo):
    assert calls(ssad, echo, "nonblocking") == ["handshake waited in poll", "came whole, again too"]


def test_one_thread_reads_and_one_writes(ssad, echo):
    assert calls(ssad, echo, "threads") == ["came whole"]


def test_threads_each_with_a_session(ssad, echo):
    made = counted(ssad)[0]
    assert calls(ssad, echo, "many") == ["all are done"]
    assert counted(ssad)[0] == made + 20


@pytest.mark.parametrize("version", ["echo", "echo_of_old"])
def test_an_end_and_a_cut(ssad, request, version):
    port = request.getfixturevalue(version)
    assert calls(ssad, port, "until-the-end", "end\n") == ["the end", "in order"]
    assert calls(ssad, port, "until-the-end", "cut\n") == [
        "the connection was cut: its end came without TLS's close_notify",
        "cut",
    ]
