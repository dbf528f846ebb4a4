"""Who may serve with the administrator's certificates. No kernel TLS is needed."""

import contextlib
import errno
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import ssa
import ssa.library.dtlssocket  # before another user, who may not read it here, would
from tests import peers
from tests.peers import Daemon, as_user, settled

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

STRANGER, WWW, GAMES = 4242, 33, 60  # uid of nobody's; of www-data; the gid of games


@pytest.fixture(scope="module")
def running(pki):
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copy(pki.ca, directory / "ca.pem")
        (directory / "ca.pem").chmod(0o644)
        with Daemon(directory, policy=f'[policy]\ntrust_store = "{directory / "ca.pem"}"\n') as daemon:
            yield daemon


@pytest.fixture
def ssad(running, pki, monkeypatch):
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    put(running, "www", *pki.issue("www", "localhost", "127.0.0.1", "www.test"))
    yield running
    for entry in (running.mount / "credentials").iterdir():
        if not (running.config.parent / "credentials" / entry.name).exists():
            entry.rmdir()


def put(daemon, name, certificate, key):
    directory = daemon.mount / "credentials" / name
    directory.mkdir(exist_ok=True)
    shutil.copyfile(certificate, directory / "certificate")
    shutil.copyfile(key, directory / "key")
    return directory


def permit(daemon, users, name="www"):
    (daemon.mount / "credentials" / name / "users").write_text(f"{users}\n")


def listens():
    with ssa.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[0]


def accepts():
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        threading.Thread(target=handshake, args=(client,), daemon=True).start()
        connection, _ = listener.accept()
        with ssa.upgrade(connection, server_side=True):
            return "served"


def handshake(client, name="localhost"):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with contextlib.suppress(OSError), context.wrap_socket(client, server_hostname=name) as tls:
        tls.recv(1)


def datagrams():
    with ssa.create_server(("127.0.0.1", 0), type=socket.SOCK_DGRAM) as server:
        return server.getsockname()[0]


def gathers():
    with ssa.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            server.recvfrom(1)  # all clients on this descriptor: that begins to serve
        return "gathers"


SERVERS = {"listen": listens, "accept": accepts}


@pytest.mark.parametrize("how", SERVERS)
def test_nobody_else_is_the_machine(ssad, how):
    refused = as_user(STRANGER, SERVERS[how])
    assert refused.startswith("PolicyError: [CREDENTIAL_DENIED]")
    assert f"uid {STRANGER} is not among the users of www" in refused
    assert "/ssa/credentials/www/users" in refused
    assert SERVERS[how]() in {"served", "127.0.0.1"}  # root


def test_the_error_is_a_lack_of_permission(ssad):
    def errno_of():
        try:
            listens()
        except ssa.PolicyError as exc:
            return errno.errorcode[exc.errno]

    assert as_user(STRANGER, errno_of) == "'EACCES'"


def on_datagrams():
    """A bound UDP socket that is made to listen: each client on a socket of its own."""
    with ssa.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        return "listens"


def test_datagrams_too(ssad):
    assert "CREDENTIAL_DENIED" in as_user(STRANGER, on_datagrams)
    permit(ssad, STRANGER)
    assert as_user(STRANGER, on_datagrams) == "'listens'"


@pytest.mark.parametrize("how", [on_datagrams, gathers])
def test_datagrams_are_served_by_members_of_a_group(ssad, how):
    permit(ssad, "%games")
    assert "CREDENTIAL_DENIED" in as_user(STRANGER, how, groups=(1,))
    assert as_user(STRANGER, how, groups=(1, GAMES)) in {"'listens'", "'gathers'"}


@pytest.mark.parametrize(
    ("users", "gid", "groups"),
    [
        (str(STRANGER), STRANGER, ()),
        ("root\n# a comment\n 4242 ", STRANGER, ()),
        ("*", STRANGER, ()),
        ("%games", GAMES, ()),
        ("%games", STRANGER, (1, GAMES)),
        (f"%{GAMES}", STRANGER, (GAMES,)),
        ("%games", STRANGER, (*range(5000, 5400), GAMES)),
        ("www-data,4242", STRANGER, ()),
    ],
)
def test_who_is_named_serves(ssad, users, gid, groups):
    permit(ssad, users)
    assert as_user(STRANGER, listens, gid=gid, groups=groups) == "'127.0.0.1'"
    assert as_user(STRANGER, accepts, gid=gid, groups=groups) == "'served'"


@pytest.mark.parametrize(
    "users", ["", "root", "www-data", "%games", "424", "42420", "%4242", f"%{STRANGER + 1}", "games"]
)
def test_who_is_not_named_does_not(ssad, users):
    permit(ssad, users)
    assert "CREDENTIAL_DENIED" in as_user(STRANGER, listens, gid=100, groups=(1, 2))


def test_a_users_name(ssad):
    permit(ssad, "www-data")
    assert as_user(WWW, listens) == "'127.0.0.1'"
    assert (ssad.mount / "credentials/www/users").read_text() == "www-data\n"


@pytest.mark.parametrize(
    "users", ["no-such-user", "%no-such-group", "www-data\nno-such-user", "a:b", "%", "4294967295"]
)
def test_a_mistake_is_refused_and_changes_nothing(ssad, users):
    permit(ssad, "www-data")
    with pytest.raises(OSError, match="Invalid argument"):
        permit(ssad, users)
    assert (ssad.mount / "credentials/www/users").read_text() == "www-data\n"


def test_a_name_that_is_not_known_fails_the_write(ssad):
    """`echo` ignores the result of close(2), so the write has to fail."""
    path = ssad.mount / "credentials" / "www" / "users"
    permit(ssad, "www-data")
    done = subprocess.run(["sh", "-c", f"echo nosuchuser > {path}"], capture_output=True, text=True, check=False)
    assert done.returncode
    assert path.read_text() == "www-data\n"
    file = os.open(path, os.O_WRONLY)
    with pytest.raises(OSError) as caught:
        os.write(file, b"www-data\nnosuchuser\n")
    assert caught.value.errno == errno.EINVAL
    with contextlib.suppress(OSError):
        os.close(file)


def test_at_first_it_is_root(ssad):
    assert (ssad.mount / "credentials/www/users").read_text() == "root\n"
    permit(ssad, "*")
    permit(ssad, "")
    assert (ssad.mount / "credentials/www/users").read_text() == "root\n"


def presented(port, name):
    """The certificate that a server shows for a name; the error if it shows none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as tcp,
            context.wrap_socket(tcp, server_hostname=name) as tls,
        ):
            return tls.getpeercert(binary_form=True)
    except OSError as exc:
        return str(exc)


@contextlib.contextmanager
def serving(uid):
    """A listener of that user."""
    port, wake = peers.free_port(), os.pipe()

    def serve():
        with ssa.create_server(("127.0.0.1", port)):
            os.read(wake[0], 1)

    told = []
    thread = threading.Thread(target=lambda: told.append(as_user(uid, serve)))
    thread.start()
    assert peers.settled(lambda: peers.listens(port) or bool(told))
    assert not told
    try:
        yield port
    finally:
        os.write(wake[1], b"x")
        thread.join()
        for fd in wake:
            os.close(fd)


def der(path):
    return ssl.PEM_cert_to_DER_cert(
        path.read_text().partition("-----END CERTIFICATE-----\n")[0] + "-----END CERTIFICATE-----\n"
    )


def test_a_live_listener_is_told_by_the_next_handshake(ssad, pki):
    certificate = der(pki.directory / "www.pem")
    permit(ssad, WWW)
    with serving(WWW) as port:
        assert presented(port, "www.test") == certificate
        permit(ssad, "root")
        assert "alert internal error" in presented(port, "www.test")
        assert "alert internal error" in presented(port, "another.test")
        permit(ssad, "www-data")
        assert presented(port, "www.test") == certificate
    assert settled(lambda: "uid 33 is not among the users of www" in ssad.log)


def test_what_may_not_be_used_is_as_if_it_were_absent(ssad, pki):
    put(ssad, "api", *pki.issue("api", "api.test"))
    permit(ssad, WWW, "api")
    own = der(pki.directory / "api.pem")
    with serving(WWW) as port:
        for name in ("api.test", "www.test", "localhost"):
            assert presented(port, name) == own


def test_a_certificate_of_ones_own_needs_no_leave(ssad, pki):
    certificate, key = pki.issue("own", "localhost")
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        mine = [shutil.copy(file, name) for file in (certificate, key)]
        for file in mine:
            os.chown(file, STRANGER, STRANGER)

        def serve():
            with ssa.create_server(("127.0.0.1", 0), certificate=mine[0], private_key=mine[1]):
                return "serves"

        assert as_user(STRANGER, serve) == "'serves'"


@pytest.fixture
def lasting(ssad, pki):
    directory = ssad.config.parent / "credentials" / "lasting"
    directory.mkdir(parents=True)
    certificate, key = pki.issue("lasting", "lasting.test")
    shutil.copy(certificate, directory / "certificate")
    shutil.copy(key, directory / "key")
    (directory / "key").chmod(0o600)
    yield directory
    shutil.rmtree(directory)


def test_the_directorys_file(ssad, lasting):
    (ssad.mount / "credentials/www").rmdir()
    assert "not among the users of lasting" in as_user(WWW, listens)
    (lasting / "users").write_text("# web\nwww-data\n")
    assert as_user(WWW, listens) == "'127.0.0.1'"
    assert (ssad.mount / "credentials/lasting/users").read_text() == "www-data\n"
    with pytest.raises(PermissionError):
        permit(ssad, "*", "lasting")
    (lasting / "users").write_text("www-data\nno-such-user\n")
    assert as_user(WWW, listens) == "'127.0.0.1'"
    assert settled(lambda: "knows no no-such-user" in ssad.log)
    for bad in (b"www-data\na:b\n", b"\xff", b"x" * 300_000):
        (lasting / "users").write_bytes(bad)
        assert "CREDENTIAL_DENIED" in as_user(WWW, listens)
    (lasting / "users").unlink()
    os.mkfifo(lasting / "users")
    assert "CREDENTIAL_DENIED" in as_user(WWW, listens)
    assert settled(lambda: "users: not a regular file; nobody but root" in ssad.log)


def test_doctor_says_it(ssad):
    def told():
        command = [sys.executable, "-m", "ssa.cli.main", "doctor"]
        return " ".join(subprocess.run(command, capture_output=True, text=True, check=False).stdout.split())

    permit(ssad, "www-data\n%games")
    assert re.search(r"credential ok www: in service until \S+; may be served with by www-data, %games", told())
    permit(ssad, "*")
    assert re.search(r"credential note www: .*; may be served with by everybody", told())
