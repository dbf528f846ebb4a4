"""Every option of level IPPROTO_TLS: how it is set and read, when, what it does, and what is said of a bad one."""

import contextlib
import errno
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ssa
from ssa.protocol.options import ALWAYS, CONNECTED, FILES, FLAG, NAMES, NEVER, NUMBER, OPTIONS, TEXT
from ssa.suites import SUITES
from tests import peers
from tests.peers import PKI

TLS = ssa.IPPROTO_TLS
SET = [option for option in OPTIONS.values() if option.settable and option.name != "TLS_UPGRADE"]
BLANKS = {TEXT: b"", NUMBER: 0, FLAG: 0, NAMES: b"", FILES: b""}


def by_name(options):
    return pytest.mark.parametrize("option", list(options), ids=lambda option: option.name)


@pytest.fixture(scope="session")
def stranger(tmp_path_factory):
    """An authority that the administrator does not trust."""
    return PKI(tmp_path_factory.mktemp("stranger"))


@pytest.fixture
def fresh(ssad):
    with ssa.socket() as sock:
        sock.settimeout(10)
        yield sock


@contextlib.contextmanager
def serving(pki, **options):
    options = {"certificate": pki.cert, "private_key": pki.key} | options
    with ssa.create_server(("127.0.0.1", 0), **options) as listener:
        listener.settimeout(10)
        yield listener


@contextlib.contextmanager
def connected(listener, **options):
    """The client and the accepted socket."""
    with ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10, **options) as client:
        accepted, _ = listener.accept()
        with accepted:
            accepted.settimeout(10)
            yield client, accepted


@pytest.fixture
def pair(ssad, pki):
    with serving(pki) as listener, connected(listener) as ends:
        yield ends


def python_client(pki, port, *, cert=None, alpn=None, name="localhost"):
    """What a client of Python's own ssl gets: the connection, or the exception. TLS 1.2 tells at once."""
    context = ssl.create_default_context(cafile=pki.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    if cert is not None:
        context.load_cert_chain(*cert)
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10), server_hostname=name)


def refused(number):
    """An OSError with this number, and with words."""
    return pytest.raises(OSError, check=lambda exc: exc.errno == number and len(exc.strerror) > 10)


# --- the table: direction, time, form ---------------------------------------------------------------------------------


# A good value, as it is set and as it is read.
GOOD = {
    "TLS_REMOTE_HOSTNAME": (b"Example.TEST.", b"example.test"),
    "TLS_HOSTNAME": ("www.example.test", b"www.example.test"),
    "TLS_ALPN": (b"h2, http/1.1", b"h2,http/1.1"),
    "TLS_SESSION_TTL": (60, 60),
    "TLS_DISABLE_CIPHER": (b"TLS_AES_128_CCM_SHA256\0", b"TLS_AES_128_CCM_SHA256"),
    "TLS_REQUEST_PEER_AUTH": (1, 1),
    "TLS_VERSION_MIN": (b"TLSv1.3", 0x0304),
    "TLS_VERSION_MAX": (0x0303, 0x0303),
}
BAD = {
    "TLS_REMOTE_HOSTNAME": [b"", b"a b", b"\xff", b"a\0b", 7, None],
    "TLS_HOSTNAME": [b"", b"under_score..", 7],
    "TLS_TRUSTED_PEER_CERTIFICATES": [b"neither\nPEM nor a path", b"-----BEGIN CERTIFICATE-----\nAAAA\n", 7],
    "TLS_CERTIFICATE_CHAIN": [b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 7, None],
    "TLS_PRIVATE_KEY": [b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", 7],
    "TLS_ALPN": [b"h2,,http/1.1", b"x" * 256, "h\N{DEGREE SIGN}".encode(), 7, b",".join([b"x"] * 65)],
    "TLS_SESSION_TTL": [-1, 2**32, b"60", 1.5, None],
    "TLS_DISABLE_CIPHER": [b"TLS_NO_SUCH_CIPHER", b"RC4-MD5,", 7],
    "TLS_REQUEST_PEER_AUTH": [2, -1, b"yes", None],
    "TLS_VERSION_MIN": [b"TLSv1.1", 0x0301, b"1.3", 13, None],
    "TLS_VERSION_MAX": [b"SSLv3", 0x0300, memoryview(b"newest"), None],
}


@by_name(SET)
def test_a_value_is_read_as_it_was_set(fresh, pki, option):
    file = {"TLS_TRUSTED_PEER_CERTIFICATES": pki.ca, "TLS_CERTIFICATE_CHAIN": pki.cert, "TLS_PRIVATE_KEY": pki.key}
    given, shown = GOOD.get(option.name) or (str(file[option.name]).encode(), file[option.name].read_bytes())
    fresh.setsockopt(TLS, option.number, given)
    if option.readable == NEVER:
        with refused(errno.ENOPROTOOPT):
            fresh.getsockopt(TLS, option.number)
    else:
        assert fresh.getsockopt(TLS, option.number) == shown


@by_name(SET)
def test_a_bad_value_is_refused_and_the_one_before_stays(fresh, option):
    def value():
        return None if option.readable == NEVER else fresh.getsockopt(TLS, option.number)

    if option.name in GOOD:
        fresh.setsockopt(TLS, option.number, GOOD[option.name][0])
    before = value()
    for bad in BAD[option.name]:
        with refused(errno.EINVAL):
            fresh.setsockopt(TLS, option.number, bad)
        assert value() == before
        assert fresh.getsockopt(TLS, ssa.TLS_ERROR)


@by_name(option for option in OPTIONS.values() if not option.settable)
def test_a_fact_cannot_be_set(fresh, pair, option):
    for sock in (fresh, *pair):
        with refused(errno.ENOPROTOOPT):
            sock.setsockopt(TLS, option.number, 1)


@by_name(option for option in OPTIONS.values() if option.readable == CONNECTED)
def test_a_fact_of_the_connection_is_not_known_before(fresh, pki, option):
    with serving(pki) as listener:
        for sock in (fresh, listener):
            with refused(errno.ENOTCONN):
                sock.getsockopt(TLS, option.number)


@by_name(option for option in OPTIONS.values() if option.readable == ALWAYS)
def test_what_can_always_be_read_is_blank_or_the_policys_at_first(fresh, ssad, option):
    policy = {
        "TLS_SESSION_TTL": int(ssad.get("policy/session_ttl")),
        "TLS_VERSION_MIN": 0x0303,
        "TLS_VERSION_MAX": 0x0304,
    }
    blank = BLANKS.get(option.form)
    assert fresh.getsockopt(TLS, option.number) == policy.get(option.name, blank)


@by_name(SET)
def test_after_the_handshake_nothing_can_be_set(pair, option):
    for sock in pair:
        with refused(errno.EISCONN):
            sock.setsockopt(TLS, option.number, GOOD.get(option.name, (b"",))[0])


@by_name(option for option in SET if option.form in (NAMES, FILES) and option.readable != NEVER)
def test_a_list_grows_by_repetition_and_is_emptied_by_nothing(fresh, pki, stranger, option):
    lists = {
        "TLS_ALPN": (b"h2", b"http/1.1", b"h2,http/1.1"),
        "TLS_DISABLE_CIPHER": (
            b"TLS_AES_128_CCM_SHA256",
            b"ECDHE-RSA-AES128-GCM-SHA256",
            b"TLS_AES_128_CCM_SHA256,ECDHE-RSA-AES128-GCM-SHA256",
        ),
    }
    one, other = (pki, stranger) if option.name == "TLS_TRUSTED_PEER_CERTIFICATES" else (pki, pki)
    name = "ca" if option.name == "TLS_TRUSTED_PEER_CERTIFICATES" else "cert"
    pems = [getattr(authority, name).read_bytes() for authority in (one, other)]
    first, second, both = lists.get(option.name) or (*pems, b"".join(pems))
    fresh.setsockopt(TLS, option.number, first)
    fresh.setsockopt(TLS, option.number, second)
    assert fresh.getsockopt(TLS, option.number) == both
    fresh.setsockopt(TLS, option.number, b"")
    assert fresh.getsockopt(TLS, option.number) == b""


def test_a_number_that_is_no_option(fresh, pair):
    for sock in (fresh, *pair):
        for number in (0, 84, 97, 115, -1, 2**31 - 1):
            with refused(errno.ENOPROTOOPT):
                sock.getsockopt(TLS, number)
            with refused(errno.ENOPROTOOPT):
                sock.setsockopt(TLS, number, 1)


@by_name(OPTIONS.values())
def test_a_closed_socket(ssad, option):
    sock = ssa.socket()
    sock.close()
    if option.readable != NEVER:
        with pytest.raises(OSError) as caught:
            sock.getsockopt(TLS, option.number)
        assert caught.value.errno == errno.EBADF
    if option.settable:
        with pytest.raises(OSError) as caught:
            sock.setsockopt(TLS, option.number, 1)
        assert caught.value.errno == errno.EBADF


def test_a_buffer_for_the_value(pair):
    client, _ = pair
    assert client.getsockopt(TLS, ssa.TLS_PEER_IDENTITY, 9) == b"localhost"
    assert client.getsockopt(TLS, ssa.TLS_RESUMED_SESSION, 4) == bytes(4)
    assert client.getsockopt(TLS, ssa.TLS_VERSION_CONN, 16) == b"TLSv1.3"
    identity = client.getsockopt(TLS, ssa.TLS_ID, 8)
    assert int.from_bytes(identity, sys.byteorder) == client.getsockopt(TLS, ssa.TLS_ID)
    with refused(errno.ENOBUFS):
        client.getsockopt(TLS, ssa.TLS_PEER_IDENTITY, 8)


def test_a_number_as_c_writes_it(fresh):
    fresh.setsockopt(TLS, ssa.TLS_SESSION_TTL, (60).to_bytes(4, sys.byteorder))
    assert fresh.getsockopt(TLS, ssa.TLS_SESSION_TTL) == 60
    fresh.setsockopt(TLS, ssa.TLS_VERSION_MIN, (0x0304).to_bytes(4, sys.byteorder))
    assert fresh.getsockopt(TLS, ssa.TLS_VERSION_MIN) == 0x0304


def test_other_levels_are_the_kernels(fresh, pair):
    for sock in (fresh, *pair):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 4) == (1).to_bytes(4, sys.byteorder)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with pytest.raises(OSError, match="Protocol not available"):
            sock.getsockopt(socket.IPPROTO_TCP, 9999)


# --- the policy -------------------------------------------------------------------------------------------------------


def test_what_loosens_is_refused_by_the_settings_name(ssad, fresh):
    ssad.set("min_version", "TLSv1.3")
    with refused(errno.EACCES) as caught:
        fresh.setsockopt(TLS, ssa.TLS_VERSION_MIN, b"TLSv1.2")
    assert "min_version" in str(caught.value)
    with refused(errno.EACCES):
        fresh.setsockopt(TLS, ssa.TLS_VERSION_MAX, b"TLSv1.2")
    assert fresh.getsockopt(TLS, ssa.TLS_VERSION_MIN) == 0x0304
    ssad.set("session_ttl", "100")
    with refused(errno.EACCES) as caught:
        fresh.setsockopt(TLS, ssa.TLS_SESSION_TTL, 101)
    assert "session_ttl" in str(caught.value)
    assert fresh.getsockopt(TLS, ssa.TLS_SESSION_TTL) == 100
    fresh.setsockopt(TLS, ssa.TLS_SESSION_TTL, 0)
    ssad.set("alpn", "h2\nhttp/1.1")
    with refused(errno.EACCES) as caught:
        fresh.setsockopt(TLS, ssa.TLS_ALPN, b"imap")
    assert "alpn" in str(caught.value)
    ssad.set("ciphersuites", "TLS_AES_256_GCM_SHA384")
    with refused(errno.EACCES) as caught:
        fresh.setsockopt(TLS, ssa.TLS_DISABLE_CIPHER, b"TLS_AES_256_GCM_SHA384")
    assert "ciphersuites" in str(caught.value)


def test_a_policy_that_tightens_later_counts_at_the_handshake(ssad, fresh, pki):
    fresh.setsockopt(TLS, ssa.TLS_VERSION_MAX, b"TLSv1.2")
    ssad.set("min_version", "TLSv1.3")
    with serving(pki) as listener, pytest.raises(ssa.PolicyError) as caught:
        fresh.connect(("localhost", listener.getsockname()[1]))
    assert caught.value.errno == errno.EACCES


def test_without_a_daemon_nothing_hangs(monkeypatch, tmp_path):
    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path))
    with ssa.socket() as sock:
        for option in SET:
            good = GOOD.get(option.name, (b"-----BEGIN CERTIFICATE-----\n",))[0]
            with pytest.raises(ConnectionRefusedError, match="no ssad listens"):
                sock.setsockopt(TLS, option.number, good)
        for option in OPTIONS.values():
            if option.field in ("session_ttl", "version_min", "version_max"):
                with pytest.raises(ConnectionRefusedError, match="no ssad listens"):
                    sock.getsockopt(TLS, option.number)
        assert b"no ssad listens" in sock.getsockopt(TLS, ssa.TLS_ERROR)
        for call in (lambda: sock.connect(("localhost", 1)), sock.listen):
            with pytest.raises(ConnectionRefusedError, match="no ssad listens"):
                call()


@pytest.fixture
def own_daemon(capabilities, tmp_path, pki, monkeypatch):
    """One that a test may stop."""
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)
        yield daemon


def test_a_daemon_that_does_not_answer(own_daemon, monkeypatch):
    with ssa.socket() as sock:
        sock.setsockopt(TLS, ssa.TLS_ALPN, b"c")  # so that this user's worker runs
        monkeypatch.setattr(ssa.library.deadlines, "LOCAL", 0.2)
        own_daemon.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError, match="is it stopped"):
                sock.setsockopt(TLS, ssa.TLS_ALPN, b"a")
            with pytest.raises(TimeoutError, match="is it stopped"):
                sock.getsockopt(TLS, ssa.TLS_VERSION_MIN)
        finally:
            own_daemon.process.send_signal(signal.SIGCONT)
        sock.setsockopt(TLS, ssa.TLS_ALPN, b"b")
        assert sock.getsockopt(TLS, ssa.TLS_ALPN) == b"c,b"


def test_an_option_of_a_listener_for_the_next_daemon(own_daemon, pki):
    with serving(pki) as listener:
        own_daemon.stop()
        own_daemon.start()
        listener.setsockopt(TLS, ssa.TLS_ALPN, b"a")
        with connected(listener, alpn=["a"]) as ends:
            assert [sock.getsockopt(TLS, ssa.TLS_ALPN) for sock in ends] == [b"a", b"a"]


# --- names ------------------------------------------------------------------------------------------------------------


def test_remote_hostname_is_whom_the_certificate_is_for(fresh, pki):
    with serving(pki) as listener:
        fresh.setsockopt(TLS, ssa.TLS_REMOTE_HOSTNAME, b"example.test")
        fresh.connect(listener.getsockname())
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(TLS, ssa.TLS_HOSTNAME) == b"example.test"
            assert fresh.getsockopt(TLS, ssa.TLS_PEER_IDENTITY) == b"example.test"
            assert fresh.getsockopt(TLS, ssa.TLS_REMOTE_HOSTNAME) == b"example.test"


def test_remote_hostname_of_another(fresh, pki):
    with serving(pki) as listener:
        fresh.setsockopt(TLS, ssa.TLS_REMOTE_HOSTNAME, b"other.test")
        with pytest.raises(ssa.CertificateError) as caught:
            fresh.connect(("localhost", listener.getsockname()[1]))
        assert caught.value.reason == "HOSTNAME_MISMATCH"
        assert b"other.test" in fresh.getsockopt(TLS, ssa.TLS_ERROR)
        with refused(errno.ENOTCONN):
            fresh.getsockopt(TLS, ssa.TLS_PEER_IDENTITY)


def test_without_remote_hostname_it_is_the_host_of_the_address(fresh, pki):
    with serving(pki) as listener:
        fresh.connect(("localhost", listener.getsockname()[1]))
        assert fresh.getsockopt(TLS, ssa.TLS_REMOTE_HOSTNAME) == b"localhost"
    with serving(pki) as listener, ssa.socket() as by_address:
        by_address.settimeout(10)
        by_address.connect(listener.getsockname())
        assert by_address.getsockopt(TLS, ssa.TLS_PEER_IDENTITY) == b"127.0.0.1"
        with listener.accept()[0] as accepted:
            assert accepted.getsockopt(TLS, ssa.TLS_HOSTNAME) == b""  # SNI has no addresses


def test_a_host_that_was_never_reached_is_forgotten(fresh, pki):
    with pytest.raises(ConnectionRefusedError):
        fresh.connect(("127.0.0.1", peers.free_port()))
    assert fresh.getsockopt(TLS, ssa.TLS_REMOTE_HOSTNAME) == b""
    with serving(pki) as listener:
        fresh.connect(("localhost", listener.getsockname()[1]))
        assert fresh.getsockopt(TLS, ssa.TLS_PEER_IDENTITY) == b"localhost"


@pytest.mark.parametrize("late", [False, True], ids=["before listen", "after listen"])
def test_hostname_of_a_listener_is_the_only_one_served(ssad, pki, late):
    with ssa.socket() as listener:
        listener.settimeout(10)
        listener.bind(("127.0.0.1", 0))
        listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, pki.cert)
        listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
        if late:
            listener.listen()
        listener.setsockopt(TLS, ssa.TLS_HOSTNAME, b"example.test")
        if not late:
            listener.listen()
        assert listener.getsockopt(TLS, ssa.TLS_HOSTNAME) == b"example.test"
        port = listener.getsockname()[1]
        with pytest.raises(ssa.HandshakeError) as refusal:
            ssa.create_connection(("localhost", port), timeout=10)
        assert refusal.value.alert == "unrecognized_name"
        with connected(listener, server_hostname="example.test") as (client, accepted):
            assert client.getsockopt(TLS, ssa.TLS_PEER_IDENTITY) == b"example.test"
            assert accepted.getsockopt(TLS, ssa.TLS_HOSTNAME) == b"example.test"


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_pem", [True, False], ids=["PEM", "path"])
@pytest.mark.parametrize("late", [False, True], ids=["before bind", "after bind"])
def test_a_certificate_as_pem_or_by_its_path(ssad, pki, as_pem, late):
    values = [path.read_bytes() if as_pem else str(path).encode() for path in (pki.cert, pki.key)]
    with ssa.socket() as listener:
        if late:
            listener.bind(("127.0.0.1", 0))
        listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, values[0])
        listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, values[1])
        if not late:
            listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(10)
        with connected(listener) as (client, accepted):
            shown = client.getsockopt(TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN)
            assert shown == pem(pki.cert)
            assert accepted.getsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN) == pki.cert.read_bytes()


def pem(*files):
    blocks = [re.findall("-----BEGIN CERT.*?-----END CERTIFICATE-----\n", f.read_text(), re.DOTALL) for f in files]
    return "".join(block for file in blocks for block in file).encode()


@pytest.mark.parametrize("key_first", [False, True], ids=["certificate first", "key first"])
def test_a_key_that_does_not_match_is_refused_in_setsockopt(fresh, pki, stranger, key_first):
    given = [(ssa.TLS_CERTIFICATE_CHAIN, pki.cert), (ssa.TLS_PRIVATE_KEY, stranger.key)]
    first, second = reversed(given) if key_first else given
    fresh.setsockopt(TLS, *first)
    with refused(errno.EINVAL) as caught:
        fresh.setsockopt(TLS, *second)
    assert caught.value.reason == "KEY_MISMATCH"
    mended = {ssa.TLS_CERTIFICATE_CHAIN: stranger.cert, ssa.TLS_PRIVATE_KEY: pki.key}[second[0]]
    fresh.setsockopt(TLS, second[0], mended)  # the one that was refused is not remembered


def test_two_kinds_of_key_by_repetition(ssad, pki):
    rsa, ecdsa = pki.issue("rsa", "localhost", key_type="RSA"), pki.issue("ecdsa", "localhost")
    with ssa.socket() as listener:
        listener.settimeout(10)
        for certificate, key in (rsa, ecdsa):
            listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, certificate)
            listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, key)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for kind, (certificate, _) in (("aRSA", rsa), ("aECDSA", ecdsa)):
            context = ssl.create_default_context(cafile=pki.ca)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(f"ECDHE+{kind}")
            with (
                socket.create_connection(listener.getsockname(), timeout=10) as tcp,
                context.wrap_socket(tcp, server_hostname="localhost") as tls,
            ):
                assert tls.getpeercert(True) == ssl.PEM_cert_to_DER_cert(pem(certificate).decode().split("\n\n")[0])
                listener.accept()[0].close()


@pytest.mark.parametrize("option", [ssa.TLS_CERTIFICATE_CHAIN, ssa.TLS_PRIVATE_KEY, ssa.TLS_TRUSTED_PEER_CERTIFICATES])
def test_a_path_is_opened_by_the_application_itself(fresh, tmp_path, option):
    with pytest.raises(FileNotFoundError) as caught:
        fresh.setsockopt(TLS, option, str(tmp_path / "none").encode())
    assert caught.value.filename == str(tmp_path / "none")
    with refused(errno.EINVAL):
        fresh.setsockopt(TLS, option, str(tmp_path))  # a directory
    os.mkfifo(tmp_path / "fifo")
    with refused(errno.EINVAL):
        fresh.setsockopt(TLS, option, str(tmp_path / "fifo"))
    with refused(errno.EINVAL):
        fresh.setsockopt(TLS, option, b"/dev/zero")


def test_a_key_that_the_application_may_not_read(ssad, pki, site, tmp_path):
    """The daemon, which could, does not open it in its place."""
    key = Path("/tmp") / f"ssa-test-key-{os.getpid()}"
    key.write_bytes(pki.key.read_bytes())
    key.chmod(0o600)
    program = f"""
import ssa
with ssa.socket() as sock:
    try:
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_PRIVATE_KEY, b"{key}")
    except PermissionError as exc:
        print(exc)
"""
    try:
        ran = subprocess.run(
            [os.path.realpath(sys.executable), "-S", "-c", program],
            env=os.environ | {"PYTHONPATH": str(site)},
            cwd="/",
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    finally:
        key.unlink()
    assert (ran.stdout, ran.stderr) == (f"[Errno 13] Permission denied: '{key}'\n", "")


def test_a_file_that_changes_later_is_what_it_was_opened_as(ssad, pki, stranger, tmp_path):
    certificate = tmp_path / "certificate"
    certificate.write_bytes(pki.cert.read_bytes())
    with ssa.socket() as listener:
        listener.settimeout(10)
        listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, certificate)
        listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
        certificate.unlink()
        certificate.write_bytes(stranger.cert.read_bytes())
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with connected(listener) as (client, _):
            assert client.getsockopt(TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN) == pem(pki.cert)


def test_a_listener_without_a_certificate(fresh):
    fresh.bind(("127.0.0.1", 0))
    with refused(errno.ENOKEY) as caught:
        fresh.listen()
    assert caught.value.reason == "NO_CREDENTIALS"


def test_a_key_without_its_certificate_is_found_at_listen(fresh, pki):
    fresh.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
    fresh.bind(("127.0.0.1", 0))
    with refused(errno.EINVAL):
        fresh.listen()
    fresh.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, pki.cert)
    fresh.listen()
    fresh.settimeout(10)
    with connected(fresh) as (client, accepted):
        client.sendall(b"x")
        assert accepted.recv(1) == b"x"


# --- clients that prove who they are ----------------------------------------------------------------------------------


@pytest.mark.parametrize("late", [False, True], ids=["before listen", "after listen"])
def test_request_peer_auth(ssad, pki, stranger, late):
    good, bad = pki.issue("client", "client.example"), stranger.issue("client", "client.example")
    with serving(pki, request_peer_auth=not late) as listener:
        port = listener.getsockname()[1]
        if late:
            listener.setsockopt(TLS, ssa.TLS_REQUEST_PEER_AUTH, 1)
            for _ in range(50):
                try:
                    python_client(pki, port).close()
                except ssl.SSLError:
                    break
                listener.accept()[0].close()
        with pytest.raises(ssl.SSLError, match=r"HANDSHAKE_FAILURE|CERTIFICATE_REQUIRED"):
            python_client(pki, port)
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            python_client(pki, port, cert=bad)
        with python_client(pki, port, cert=good) as client, listener.accept()[0] as accepted:
            accepted.settimeout(10)
            client.sendall(b"me")
            assert accepted.recv(10) == b"me"
            # Python sends the whole chain, the anchor too, as it knows it.
            assert accepted.getsockopt(TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN) == pem(good[0], pki.ca)
            assert accepted.getsockopt(TLS, ssa.TLS_PEER_IDENTITY)
            assert accepted.getsockopt(TLS, ssa.TLS_REQUEST_PEER_AUTH) == 1


def test_our_own_clients_bring_certificates_too(ssad, pki, stranger):
    certificate, key = pki.issue("client", "client.example")
    with serving(pki, request_peer_auth=True) as listener:
        with connected(listener, certificate=certificate, private_key=key) as (client, accepted):
            client.sendall(b"me")
            assert accepted.recv(10) == b"me"
            identity = accepted.getsockopt(TLS, ssa.TLS_PEER_IDENTITY)
            shown = accepted.getsockopt(TLS, ssa.TLS_ID)
            assert ssad.get(f"sockets/{shown}/peer_identity").strip().encode() == identity != b""
        # In TLS 1.3 a client is done before the server has judged it: it is told when it reads.
        port = listener.getsockname()[1]
        for options in ({}, {"certificate": stranger.cert, "private_key": stranger.key}):
            with ssa.create_connection(("localhost", port), timeout=10, **options) as client:
                with pytest.raises(OSError, match=r"certificate_required|unknown_ca") as caught:
                    client.recv(1)
                assert caught.value.errno == errno.EPROTO
                assert client.getsockopt(TLS, ssa.TLS_ERROR).decode() == caught.value.strerror
        listener.settimeout(0.2)
        with pytest.raises(TimeoutError):
            listener.accept()


def test_a_peer_that_was_not_asked_has_no_identity(pair):
    _, accepted = pair
    assert accepted.getsockopt(TLS, ssa.TLS_PEER_IDENTITY) == b""
    assert accepted.getsockopt(TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN) == b""


@pytest.mark.parametrize("as_pem", [True, False], ids=["PEM", "path"])
def test_trusted_peer_certificates_narrow(fresh, pki, stranger, as_pem):
    """The administrator's and these: neither alone is enough."""
    value = (lambda path: path.read_bytes()) if as_pem else str
    with serving(pki) as listener:
        address = ("localhost", listener.getsockname()[1])
        fresh.setsockopt(TLS, ssa.TLS_TRUSTED_PEER_CERTIFICATES, value(stranger.ca))
        with pytest.raises(ssa.CertificateError) as caught:
            fresh.connect(address)
        assert caught.value.reason == "UNKNOWN_CA"
        with ssa.socket() as both:
            both.settimeout(10)
            both.setsockopt(TLS, ssa.TLS_TRUSTED_PEER_CERTIFICATES, value(stranger.ca))
            both.setsockopt(TLS, ssa.TLS_TRUSTED_PEER_CERTIFICATES, value(pki.ca))
            both.connect(address)
    with serving(stranger) as listener, ssa.socket() as sock:
        sock.settimeout(10)
        sock.setsockopt(TLS, ssa.TLS_TRUSTED_PEER_CERTIFICATES, value(stranger.ca))
        with pytest.raises(ssa.CertificateError) as caught:
            sock.connect(("localhost", listener.getsockname()[1]))
        assert caught.value.reason == "UNKNOWN_CA"


def test_trusted_peer_certificates_of_a_server(ssad, pki, stranger):
    certificate = pki.issue("client", "client.example")
    with (
        serving(pki, request_peer_auth=True, trusted=stranger.ca) as listener,
        pytest.raises(ssl.SSLError, match="UNKNOWN_CA"),
    ):
        python_client(pki, listener.getsockname()[1], cert=certificate)
    with (
        serving(pki, request_peer_auth=True, trusted=pki.ca) as listener,
        python_client(pki, listener.getsockname()[1], cert=certificate),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(TLS, ssa.TLS_PEER_IDENTITY)


# --- what is negotiated -----------------------------------------------------------------------------------------------


def test_alpn_the_servers_order_counts_and_the_chosen_is_read(ssad, pki):
    with serving(pki, alpn=["b", "a"]) as listener:
        assert listener.getsockopt(TLS, ssa.TLS_ALPN) == b"b,a"
        with connected(listener, alpn=["x", "a", "b"]) as ends:
            assert [sock.getsockopt(TLS, ssa.TLS_ALPN) for sock in ends] == [b"b", b"b"]
        with connected(listener, alpn=["a"]) as ends:
            assert [sock.getsockopt(TLS, ssa.TLS_ALPN) for sock in ends] == [b"a", b"a"]
        with connected(listener) as ends:  # who asks for nothing gets nothing
            assert [sock.getsockopt(TLS, ssa.TLS_ALPN) for sock in ends] == [b"", b""]
        with pytest.raises(ssa.HandshakeError) as caught:
            ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10, alpn=["x"])
        assert caught.value.alert == "no_application_protocol"


def test_alpn_is_offered_in_its_order(fresh, pki):
    fresh.setsockopt(TLS, ssa.TLS_ALPN, b"two,one")
    seen = []

    def serve(connection):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki.cert, pki.key)
        seen.append(connection.recv(4096, socket.MSG_PEEK))
        context.wrap_socket(connection, server_side=True).close()

    with peers.script(serve) as port:
        fresh.connect(("localhost", port))
    assert b"\x03two\x03one" in seen[0]


def test_disable_cipher_is_for_this_socket_only(ssad, pki):
    with serving(pki) as listener, ssa.socket() as narrow:
        narrow.settimeout(10)
        address = ("localhost", listener.getsockname()[1])
        with connected(listener) as (before, _):
            usual = before.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER)
        narrow.setsockopt(TLS, ssa.TLS_DISABLE_CIPHER, usual)
        narrow.connect(address)
        with listener.accept()[0] as accepted:
            other = narrow.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER)
            assert other != usual
            assert accepted.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER) == other
        with connected(listener) as (after, _):
            assert after.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER) == usual
    assert usual.decode() in ssad.get("policy/ciphersuites")


def test_disable_cipher_of_a_listener(ssad, pki):
    with ssa.socket() as listener:
        listener.settimeout(10)
        listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, pki.cert)
        listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
        listener.setsockopt(TLS, ssa.TLS_DISABLE_CIPHER, b"TLS_AES_256_GCM_SHA384,TLS_CHACHA20_POLY1305_SHA256")
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with connected(listener) as ends:
            for sock in ends:
                assert sock.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER) == b"TLS_AES_128_GCM_SHA256"


@pytest.mark.parametrize("version", [0x0303, 0x0304])
@pytest.mark.parametrize("of_listener", [False, True], ids=["client", "listener"])
def test_versions(ssad, pki, version, of_listener):
    with ssa.socket() as listener, ssa.socket() as client:
        narrowed = listener if of_listener else client
        narrowed.setsockopt(TLS, ssa.TLS_VERSION_MIN, version)
        narrowed.setsockopt(TLS, ssa.TLS_VERSION_MAX, version)
        listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, pki.cert)
        listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        for sock in (listener, client):
            sock.settimeout(10)
        client.connect(("localhost", listener.getsockname()[1]))
        with listener.accept()[0] as accepted:
            for sock in (client, accepted):
                assert sock.getsockopt(TLS, ssa.TLS_VERSION_CONN) == version
            inherited = accepted.getsockopt(TLS, ssa.TLS_VERSION_MAX)
            assert inherited == (version if of_listener else 0x0304)


def test_versions_that_do_not_meet(ssad, pki):
    with ssa.socket() as client:
        client.settimeout(10)
        client.setsockopt(TLS, ssa.TLS_VERSION_MAX, b"TLSv1.2")
        with refused(errno.EACCES):
            client.setsockopt(TLS, ssa.TLS_VERSION_MIN, b"TLSv1.3")
        with peers.openssl(pki, "-tls1_3") as (port, _), pytest.raises(ssa.HandshakeError) as caught:
            client.connect(("localhost", port))
        assert caught.value.reason == "UNSUPPORTED_VERSION"
        assert caught.value.errno == errno.EPROTO


def test_chosen_cipher_and_version_are_the_kernels_too(pair, ssad):
    for sock in pair:
        directory = f"sockets/{sock.getsockopt(TLS, ssa.TLS_ID)}"
        suite = SUITES[sock.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER).decode()]
        assert ssad.get(f"{directory}/cipher").strip() == suite.aead.name
        assert ssad.get(f"{directory}/version").strip().encode() == sock.getsockopt(TLS, ssa.TLS_VERSION_CONN, 16)


def test_id_is_the_directory(pair, ssad):
    ids = [str(sock.getsockopt(TLS, ssa.TLS_ID)) for sock in pair]
    assert sorted(ids, key=int) == ssad.sockets()
    pair[0].close()
    pair[1].close()
    time.sleep(0.05)  # a look is good enough for a moment
    assert ssad.sockets() == []


def test_peer_certificate_chain_is_the_whole_chain(ssad, pki, tmp_path):
    between = pki.authority.create_child_ca()
    leaf = between.issue_cert("localhost")
    certificate, key = pki.store("long", leaf)
    with serving(pki, certificate=certificate, private_key=key) as listener, connected(listener) as (client, _):
        chain = client.getsockopt(TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN)
        assert chain.count(b"-----BEGIN CERTIFICATE-----") == 2
        assert chain == pem(certificate)
        identity = client.getsockopt(TLS, ssa.TLS_ID)
        assert ssad.get(f"sockets/{identity}/peer_chain").encode() == chain


@pytest.mark.parametrize("version", [b"TLSv1.2", b"TLSv1.3"])
def test_a_first_handshake_resumes_nothing(ssad, pki, version):
    with serving(pki) as listener, ssa.socket() as client:
        client.settimeout(10)
        client.setsockopt(TLS, ssa.TLS_VERSION_MIN, version)
        client.setsockopt(TLS, ssa.TLS_VERSION_MAX, version)
        client.connect(("localhost", listener.getsockname()[1]))
        with listener.accept()[0] as accepted:
            for sock in (client, accepted):
                assert sock.getsockopt(TLS, ssa.TLS_RESUMED_SESSION) == 0


def test_session_ttl_0_resumes_nothing(ssad, pki):
    """A client that could resume: Python's, with the session of the connection before."""
    for ttl, resumed in ((None, 1), (0, 0)):
        with ssa.socket() as listener:
            listener.settimeout(10)
            listener.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, pki.cert)
            listener.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
            if ttl is not None:
                listener.setsockopt(TLS, ssa.TLS_SESSION_TTL, ttl)
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            context = ssl.create_default_context(cafile=pki.ca)
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            session = None
            for expected in (0, resumed):
                tcp = socket.create_connection(listener.getsockname(), timeout=10)
                with context.wrap_socket(tcp, server_hostname="localhost", session=session) as tls:
                    session = tls.session
                    with listener.accept()[0] as accepted:
                        assert accepted.getsockopt(TLS, ssa.TLS_RESUMED_SESSION) == expected == tls.session_reused


# --- why it failed ----------------------------------------------------------------------------------------------------


def test_error_is_blank_until_something_fails(pair, fresh):
    for sock in (*pair, fresh):
        assert sock.getsockopt(TLS, ssa.TLS_ERROR) == b""


def test_error_of_a_host_that_does_not_exist(fresh):
    with pytest.raises(socket.gaierror):
        fresh.connect(("no-such-host.invalid", 443))
    assert fresh.getsockopt(TLS, ssa.TLS_ERROR)


def test_error_of_a_refused_port(fresh):
    with pytest.raises(ConnectionRefusedError):
        fresh.connect(("127.0.0.1", peers.free_port()))
    assert fresh.getsockopt(TLS, ssa.TLS_ERROR) == b"Connection refused"


def test_error_of_an_untrusted_server(fresh, stranger):
    with peers.openssl(stranger) as (port, _), pytest.raises(ssa.CertificateError) as caught:
        fresh.connect(("localhost", port))
    assert fresh.getsockopt(TLS, ssa.TLS_ERROR).decode() == caught.value.strerror
    assert "trust anchor" in caught.value.strerror
    with refused(errno.ENOTCONN) as again:
        fresh.send(b"x")
    assert "trust anchor" in str(again.value)


def test_error_of_a_cut_stream(pair):
    client, accepted = pair
    os.close(accepted.detach())
    with pytest.raises(ConnectionAbortedError):
        client.recv(1)
    assert b"close_notify" in client.getsockopt(TLS, ssa.TLS_ERROR)


# --- on listening sockets ---------------------------------------------------------------------------------------------


def test_accepted_sockets_have_the_listeners_options(ssad, pki):
    with serving(pki, alpn=["a"]) as listener:
        listener.setsockopt(TLS, ssa.TLS_SESSION_TTL, 7)
        with connected(listener) as (_, accepted):
            assert accepted.getsockopt(TLS, ssa.TLS_SESSION_TTL) == 7
            assert accepted.getsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN) == pki.cert.read_bytes()
            with refused(errno.ENOPROTOOPT):
                accepted.getsockopt(TLS, ssa.TLS_PRIVATE_KEY)


def test_a_certificate_that_is_renewed_on_a_listener(ssad, pki):
    certificate, key = pki.issue("renewed", "localhost")
    with serving(pki) as listener:
        for option, value in (
            (ssa.TLS_PRIVATE_KEY, b""),
            (ssa.TLS_CERTIFICATE_CHAIN, b""),
            (ssa.TLS_CERTIFICATE_CHAIN, certificate),
            (ssa.TLS_PRIVATE_KEY, key),
        ):
            listener.setsockopt(TLS, option, value)
        for _ in range(50):
            with connected(listener) as (client, _):
                if client.getsockopt(TLS, ssa.TLS_PEER_CERTIFICATE_CHAIN) == pem(certificate):
                    return
        pytest.fail("the old one is still served")


@pytest.mark.parametrize(
    ("option", "bad"), [(ssa.TLS_ALPN, b","), (ssa.TLS_DISABLE_CIPHER, b"no"), (ssa.TLS_HOSTNAME, b"a b")]
)
def test_a_bad_option_of_a_listener_leaves_it_as_it_is(ssad, pki, option, bad):
    with serving(pki) as listener:
        with refused(errno.EINVAL):
            listener.setsockopt(TLS, option, bad)
        with connected(listener) as (client, accepted):
            client.sendall(b"x")
            assert accepted.recv(1) == b"x"


# --- upgrade ----------------------------------------------------------------------------------------------------------


def plain_pair():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        return client, listener.accept()[0]


@pytest.mark.parametrize("as_c", [False, True])
def test_upgrade(ssad, pki, as_c):
    client, server = (ssa.socket(fileno=sock.detach()) for sock in plain_pair())
    with client, server:
        for sock in (client, server):
            sock.settimeout(10)
            assert sock.getsockopt(TLS, ssa.TLS_UPGRADE) == 0
            with refused(errno.EINVAL):
                sock.setsockopt(TLS, ssa.TLS_UPGRADE, 3)
            with refused(errno.ENOTCONN):
                sock.send(b"x")  # not in plain text, by accident
            with refused(errno.ENOTCONN):
                sock.getsockopt(TLS, ssa.TLS_CHOSEN_CIPHER)
        client.setsockopt(TLS, ssa.TLS_REMOTE_HOSTNAME, b"localhost")
        server.setsockopt(TLS, ssa.TLS_CERTIFICATE_CHAIN, pki.cert)
        server.setsockopt(TLS, ssa.TLS_PRIVATE_KEY, pki.key)
        one, two = (number.to_bytes(4, sys.byteorder) if as_c else number for number in (1, 2))
        other = threading.Thread(target=server.setsockopt, args=(TLS, ssa.TLS_UPGRADE, two))
        other.start()
        client.setsockopt(TLS, ssa.TLS_UPGRADE, one)
        other.join()
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        for sock in (client, server):
            assert sock.getsockopt(TLS, ssa.TLS_UPGRADE) == 1
            with refused(errno.EISCONN):
                sock.setsockopt(TLS, ssa.TLS_UPGRADE, 1)


def test_upgrade_of_what_is_not_connected(fresh, pki):
    with refused(errno.ENOTCONN):
        fresh.setsockopt(TLS, ssa.TLS_UPGRADE, 1)
    with serving(pki) as listener, refused(errno.ENOTCONN):
        listener.setsockopt(TLS, ssa.TLS_UPGRADE, 2)


def test_upgrade_without_a_daemon_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path))
    one, other = plain_pair()
    with other, ssa.socket(fileno=one.detach()) as client:
        with pytest.raises(ConnectionRefusedError, match="no ssad"):
            client.setsockopt(TLS, ssa.TLS_UPGRADE, 1)
        assert client.getsockopt(TLS, ssa.TLS_UPGRADE) == 0
        other.sendall(b"still plain")
        with socket.socket(fileno=client.detach()) as again:
            assert again.recv(100) == b"still plain"
