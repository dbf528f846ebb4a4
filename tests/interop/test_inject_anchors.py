"""ssa.inject_into_ssl: a program trusts whom it names and the policy trusts, whatever it calls in whatever order."""

import contextlib
import os
import socket
import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import certifi
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import ssa
from ssa import inject
from tests import peers
from tests.needs import once

pytestmark = once

SYSTEM = "/etc/ssl/certs/ca-certificates.crt"
VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "SSLKEYLOGFILE")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """An authority that the policy knows nothing of."""
    return peers.PKI(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="session")
def directories(tmp_path_factory, pki, stranger):
    """Directories for capath, by what OpenSSL finds in them."""
    root = tmp_path_factory.mktemp("capaths")
    for name, anchors in {
        "empty": (),
        "both": (pki.ca, stranger.ca),
        "ours": (pki.ca,),
        "other": (stranger.ca,),
    }.items():
        (root / name).mkdir()
        for number, anchor in enumerate(anchors):
            (root / name / f"{number}.pem").write_bytes(anchor.read_bytes())
        subprocess.run(["openssl", "rehash", root / name], check=True, capture_output=True)
    (root / "unhashed").mkdir()
    (root / "unhashed" / "ca.pem").write_bytes(pki.ca.read_bytes())
    (root / "damaged").mkdir()
    (root / "damaged" / "0123abcd.0").symlink_to("nowhere")
    (root / "damaged" / "0123abcd.1").mkdir()
    (root / "damaged" / "0123abcd.2").write_text("no certificate")
    os.mkfifo(root / "damaged" / "0123abcd.3")
    return root


@pytest.fixture(scope="module")
def server(pki, stranger):
    """The ports of servers by whose authority's certificate they have."""
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(peers.python_server(whose, lambda tls, _tcp: tls.sendall(b"hello")))
            for name, whose in {"ours": pki, "other": stranger}.items()
        }


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def context(**sources):
    made = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if sources:
        made.load_verify_locations(**sources)
    return made


def greeting(made, port, name="localhost"):
    plain = socket.create_connection(("127.0.0.1", port), 10)
    try:
        with made.wrap_socket(plain, server_hostname=name) as sock:
            return sock.recv(10)
    finally:
        plain.close()


def refused(made, port):
    with pytest.raises(ssl.SSLCertVerificationError) as failure:
        greeting(made, port)
    assert failure.value.reason in ("UNKNOWN_CA", "SELF_SIGNED_CERTIFICATE")
    return str(failure.value)


@pytest.mark.parametrize("capath", ["empty", "unhashed", "damaged", "nowhere", "other"])
def test_a_set_that_is_named_is_the_set(cleaned, server, directories, monkeypatch, capath):
    words = refused(context(capath=directories / capath), server["ours"])
    assert "TLS_TRUSTED_PEER_CERTIFICATES" in words
    monkeypatch.setenv("SSL_CERT_DIR", str(directories / capath))
    for load in ("load_default_certs", "set_default_verify_paths"):
        made = context()
        getattr(made, load)()
        refused(made, server["ours"])


def test_a_file_of_the_environment_that_is_not_there(cleaned, server, directories, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(directories / "nowhere.pem"))
    made = context()
    made.load_default_certs()
    refused(made, server["ours"])
    monkeypatch.setenv("SSL_CERT_DIR", f"{directories}/damaged::{directories}/nowhere:{directories}/ours")
    made = context()
    made.load_default_certs()
    assert greeting(made, server["ours"]) == b"hello"


def test_variables_that_are_set_to_nothing(cleaned, server, directories, monkeypatch):
    """OpenSSL uses its default for the one that is not set."""

    def made_with(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        made = context()
        made.load_default_certs()
        return made

    for variables in ({"SSL_CERT_FILE": ""}, {"SSL_CERT_DIR": ""}):
        assert greeting(made_with(**variables), server["ours"]) == b"hello"
    for directory in ("", str(directories / "other")):
        refused(made_with(SSL_CERT_FILE="", SSL_CERT_DIR=directory), server["ours"])


def test_a_naming_that_fails_names_nobody(cleaned, server):
    made = context()
    for source, kind in {
        "cafile=/nowhere": FileNotFoundError,
        "cafile=/dev/null": ssl.SSLError,
        "cafile=/etc/ssl": IsADirectoryError,
        "cadata=no certificate": ssl.SSLError,
    }.items():
        name, _, value = source.partition("=")
        with pytest.raises(kind):
            made.load_verify_locations(**{name: value})
    for cadata in (b"no certificate", b"\x30", b"\x30\x82", b"\x30\x03\x02\x01\x01"):
        with pytest.raises(ssl.SSLError):
            made.load_verify_locations(cadata=cadata)
    for cadata in ("", b""):
        with pytest.raises(ValueError, match="Empty"):
            made.load_verify_locations(cadata=cadata)
    refused(made, server["ours"])


def test_whoever_looked_for_authorities_in_vain_and_asks_for_no_verification_trusts_as_the_policy(cleaned, server):
    """As asyncpg does with `require`. The peer is verified all the same, by its name too."""
    made = context()
    with pytest.raises(FileNotFoundError):
        made.load_verify_locations(cafile="/nowhere/root.crt")
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    assert greeting(made, server["ours"]) == b"hello"
    refused(made, server["other"])
    with pytest.raises(
        ssl.SSLCertVerificationError, match=r"verify_mode = CERT_NONE of the program's context has no eff"
    ):
        greeting(made, server["ours"], "elsewhere.test")
    made.verify_mode = ssl.CERT_REQUIRED
    refused(made, server["ours"])


def test_authorities_that_were_found_count_whatever_the_verification(cleaned, server, stranger):
    made = context(cafile=stranger.ca)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    refused(made, server["ours"])


def test_a_server_without_a_name_is_verified_by_its_address_on_this_machine_alone(cleaned, pki, server):
    made = context()
    with socket.create_connection(("127.0.0.1", server["ours"])) as plain, pytest.raises(ValueError, match="requires"):
        made.wrap_socket(plain)
    made.check_hostname = False
    with made.wrap_socket(socket.create_connection(("127.0.0.1", server["ours"]))) as sock:
        assert (sock.recv(10), sock.server_hostname) == (b"hello", "127.0.0.1")
    named = SimpleNamespace(**dict(zip(("cert", "key"), pki.issue("named", "localhost"), strict=True)))
    with (
        peers.python_server(named, lambda tls, _: None) as port,
        pytest.raises(ssl.SSLCertVerificationError, match=r"IP address mismatch, .* '127.0.0.1'") as failure,
    ):
        made.wrap_socket(socket.create_connection(("127.0.0.1", port)))
    assert failure.value.verify_code == 64
    with pytest.raises(ssl.SSLError, match="no server_hostname"):  # connected to later
        made.wrap_socket(socket.socket())


def test_no_anchors_of_an_ssa_socket(cleaned, server):
    """ssa's own functions judge by those anchors, too."""
    with pytest.raises(ssa.CertificateError) as failure:
        ssa.create_connection(("localhost", server["ours"]), 10, trusted=[])
    assert "empty set" in str(failure.value)


# --- a property -----------------------------------------------------------------------------------------------------

OURS, OTHER = "ours", "other"


@dataclass(frozen=True)
class Call:
    """A call of the `ssl` API, and which anchors it names; None: none are named, "system" is the policy's."""

    words: str
    names: frozenset[str] | None = None


ANCHORS = {
    "cafile={ours}": {OURS},
    "cafile={other}": {OTHER},
    "cafile={system}": {"system"},
    "cafile={certifi}": {"system"},
    "cafile='/nowhere'": set(),
    "cafile='/dev/null'": set(),
    "cadata=open({ours}).read()": {OURS},
    "cadata=der({other})": {OTHER},
    "cadata=der({ours}) + der({other})": {OURS, OTHER},
    "cadata=''": set(),
    "capath={dirs} + '/empty'": set(),
    "capath={dirs} + '/unhashed'": set(),
    "capath={dirs} + '/damaged'": set(),
    "capath={dirs} + '/ours'": {OURS},
    "capath={dirs} + '/other:' + {dirs} + '/empty'": {OTHER},
    "capath={dirs} + '/both'": {OURS, OTHER},
    "capath='/nowhere'": set(),
    "cafile={other}, capath={dirs} + '/ours'": {OURS, OTHER},
    "cafile={other}, capath='/etc/ssl/certs'": {OTHER, "system"},
}
ENVIRONMENTS = {
    "": {"system"},
    "SSL_CERT_FILE={ours}": {OURS},
    "SSL_CERT_FILE={other}": {OTHER},
    "SSL_CERT_FILE=/nowhere": set(),
    "SSL_CERT_DIR={dirs}/empty": set(),
    "SSL_CERT_DIR={dirs}/nowhere:{dirs}/ours": {OURS},
    "SSL_CERT_FILE={other} SSL_CERT_DIR={dirs}/ours": {OURS, OTHER},
    "SSL_CERT_FILE=/nowhere SSL_CERT_DIR={dirs}/other": {OTHER},
    "SSL_CERT_FILE={system}": {"system"},
}
NAMING = [Call(f"context.load_verify_locations({words})", frozenset(names)) for words, names in ANCHORS.items()]
DEFAULTS = [
    Call(f"environment('{words}'); context.{load}", frozenset(names))
    for words, names in ENVIRONMENTS.items()
    for load in ("load_default_certs()", "set_default_verify_paths()", "load_default_certs(ssl.Purpose.CLIENT_AUTH)")
]
OTHERS = [
    Call(words)
    for words in (
        "context.check_hostname = False",
        "context.check_hostname = True",
        "context.verify_mode = ssl.CERT_NONE",
        "context.verify_mode = ssl.CERT_OPTIONAL",
        "context.verify_mode = ssl.CERT_REQUIRED",
        "context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN",
        "context.verify_flags |= ssl.VERIFY_X509_STRICT",
        "context.verify_flags |= ssl.VERIFY_ALLOW_PROXY_CERTS",
        "context.verify_flags = ssl.VERIFY_DEFAULT",
        "context.verify_flags = ssl.VerifyFlags(0x200000)",  # X509_V_FLAG_NO_CHECK_TIME
        "context.options |= ssl.OP_ALL",
        "context.options = ssl.Options(0x4)",
        "context.options |= ssl.OP_NO_TICKET",
        "context.post_handshake_auth = True",
        "context.hostname_checks_common_name = True",
        "context.minimum_version = ssl.TLSVersion.TLSv1_3",
        "context.maximum_version = ssl.TLSVersion.MAXIMUM_SUPPORTED",
        "context.set_alpn_protocols(['http/1.1'])",
        "context.set_ciphers('ALL:@SECLEVEL=0')",
        "context.sslsocket_class = type('Socket', (context.sslsocket_class,), dict())",
    )
]
MAKING = [
    Call(words, names if names is None else frozenset(names))
    for words, names in {
        "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)": None,
        "ssl.SSLContext(ssl.PROTOCOL_TLS)": None,
        "ssl.create_default_context()": {"system"},
        "ssl.create_default_context(cafile={other})": {OTHER},
        "ssl.create_default_context(capath={dirs} + '/empty')": (),
        "ssl.create_default_context(cadata=open({ours}).read())": {OURS},
        "ssl._create_unverified_context()": None,
        "ssl._create_stdlib_context()": None,
        "ssl._create_stdlib_context(cafile={other})": {OTHER},
        "ssl._create_stdlib_context(cert_reqs=ssl.CERT_NONE)": None,
    }.items()
]
WRAPPING = [
    Call(words)
    for words in (
        "context.wrap_socket(plain, server_hostname=name)",
        "context.wrap_socket(plain, server_hostname=name.encode())",
        "context.wrap_socket(plain, server_hostname=name, do_handshake_on_connect=False)",
        "later(context.wrap_socket(socket.socket(), server_hostname=name))",
        "context.wrap_socket(plain)",
    )
]


def run(words, names):
    """A line of a program, whose exceptions it passes over."""
    try:
        return eval(words, names) if words.startswith(("ssl.", "later", "context.wrap")) else exec(words, names)
    except (OSError, ValueError):
        return None


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.sampled_from(MAKING),
    calls=st.lists(st.sampled_from(NAMING) | st.sampled_from(DEFAULTS) | st.sampled_from(OTHERS), max_size=5),
    wrap=st.sampled_from(WRAPPING),
    whose=st.sampled_from([OURS, OTHER]),
    name=st.sampled_from(["localhost", "127.0.0.1", "elsewhere.test"]),
)
def test_no_calls_make_it_accept_more(  # noqa: PLR0917 - of fixtures and of what hypothesis draws
    cleaned, server, directories, pki, stranger, made, calls, wrap, whose, name
):
    """Nobody is accepted whom the policy refuses, nor whose path leads to none of the anchors that were named."""

    def environment(words):
        for variable in VARIABLES:
            os.environ.pop(variable, None)
        os.environ.update(word.split("=") for word in words.split())

    def later(sock):
        sock.settimeout(10)
        sock.connect(("127.0.0.1", server[whose]))
        return sock

    files = {
        "ours": repr(str(pki.ca)),
        "other": repr(str(stranger.ca)),
        "system": repr(SYSTEM),
        "certifi": repr(certifi.where()),
        "dirs": repr(str(directories)),
    }
    bare = {key: value.strip("'") for key, value in files.items()}
    inject.inject()
    try:
        with socket.create_connection(("127.0.0.1", server[whose]), 10) as plain:
            environment("")
            names = {"ssl": ssl, "socket": socket, "environment": environment, "plain": plain, "later": later}
            names |= {"name": name, "der": lambda path: ssl.PEM_cert_to_DER_cert(Path(path).read_text())}
            names["context"] = run(made.words.format(**files), names)
            assume(names["context"] is not None)
            for call in calls:
                words = call.words.format(**(bare if "environment" in call.words else files))
                run(words, names)
            sock = run(wrap.words, names)
            data = b""
            if sock is not None:
                with sock, contextlib.suppress(OSError):
                    data = sock.recv(10)
    finally:
        inject.extract()
        environment("")
    named = [call.names for call in (made, *calls) if call.names is not None]
    trusted = frozenset().union(*named) if named else {"system"}
    if not trusted and names["context"].verify_mode == ssl.CERT_NONE:
        trusted = {"system"}  # it went on without any
    named_so = name if "name" in wrap.words else "127.0.0.1"  # the peer's address
    allowed = whose == OURS and bool(trusted & {OURS, "system"}) and named_so != "elsewhere.test"
    assert data in (b"", b"hello")
    assert not data or allowed
    if allowed and not any(word in call.words for call in calls for word in ("STRICT",)) and "name" in wrap.words:
        assert data, "what the policy and the program trust is accepted"


def test_they_are_judged_as_by_ssl(cleaned, server, directories):
    """What `ssl` itself accepts of these sources is what is accepted here, where the policy has no say."""
    for source in ("empty", "unhashed", "ours", "other", "both"):
        theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        theirs.load_verify_locations(capath=directories / source)
        answers = []
        for made in (theirs, context(capath=directories / source)):
            try:
                answers.append(greeting(made, server["ours"]))
            except ssl.SSLCertVerificationError:
                answers.append(None)
        assert answers[0] == answers[1], source
