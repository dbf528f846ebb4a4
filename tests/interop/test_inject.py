"""ssa.inject_into_ssl: programs written for the standard `ssl` module, unchanged, under the administrator's policy."""

import ast
import os
import pickle
import select
import socket
import ssl
import subprocess
import sys
import threading

import pytest
from OpenSSL._util import ffi, lib

import ssa
from ssa import errors, inject
from tests import mailservers, peers

INJECTED = "import ssa; ssa.inject_into_ssl()\n"


def run(script, *arguments, prefix=INJECTED, **environment):
    """A program, and two lines before it."""
    command = [sys.executable, "-P", "-W", "error::RuntimeWarning", "-c", prefix + script, *map(str, arguments)]
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/tmp", env=environment)
    return done.stdout.strip() if not done.stderr else done.stderr.strip()


# --- programs -------------------------------------------------------------------------------------------------------

URLOPEN = """
import sys, urllib.request
with urllib.request.urlopen(f"https://localhost:{sys.argv[1]}/hello", timeout=10) as response:
    print(response.read().decode().strip())
"""

HTTP_CLIENT = """
import http.client, os, sys
connection = http.client.HTTPSConnection("localhost", sys.argv[1], timeout=10)
connection.request("GET", "/hello")
sock = connection.sock
sockets = os.environ["SSA_MOUNT"] + "/sockets"
[entry] = os.listdir(sockets)
facts = {name: open(f"{sockets}/{entry}/{name}").read().strip() for name in ("hostname", "version", "rx", "uid")}
print([connection.getresponse().read(), type(sock).__mro__[1].__name__, facts, sock.version(), sock.cipher(),
       sock.getpeercert(), sock.server_hostname, sock.gettimeout()])
"""

REQUESTS = """
import sys, requests
try:
    print(requests.get(f"https://localhost:{sys.argv[1]}/hello", timeout=10, verify=eval(sys.argv[2])).text.strip())
except requests.exceptions.SSLError as refused:
    print("SSLError", refused)
"""


UNVERIFIED = """
import logging, os, sys, requests, urllib3
urllib3.disable_warnings()
logged = []
logging.getLogger("ssa.inject").addFilter(lambda record: logged.append(record.getMessage()))
def get():
    return requests.get(f"https://localhost:{sys.argv[1]}/hello", timeout=10, verify=False).text.strip()
print(get(), get(), sep="\\n")
assert logged == ["verify_mode = CERT_NONE has no effect: servers are verified, as the policy says"], logged
with open(os.environ["SSA_MOUNT"] + "/policy/trust_store", "w") as file:
    file.write("system\\n")
try:
    get()
except requests.exceptions.SSLError as refused:
    print("no path" in str(refused))
"""


def test_urlopen(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path) as port:
        assert run(URLOPEN, port) == "hello from nginx"
        assert "CERTIFICATE_VERIFY_FAILED" in run(URLOPEN, port, prefix="")  # ssl's own knows nothing of the policy
        ssad.set("trust_store", "system")
        assert "UNKNOWN_CA" in run(URLOPEN, port)


def test_a_program_that_must_not_be_touched(ssad, pki, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import ssa\n\nssa.inject_into_ssl()\n")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with peers.nginx(pki, tmp_path / "nginx") as port:
        assert run(URLOPEN, port, prefix="", PYTHONPATH=path) == "hello from nginx"


def test_no_daemon_is_no_excuse(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path) as port:
        assert "no ssad listens" in run(URLOPEN, port, SSA_RUN_DIR=tmp_path)


def test_the_policy_is_the_administrators(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path, "ssl_protocols TLSv1.2;") as port:
        assert run(URLOPEN, port, SSL_CERT_FILE=pki.ca) == "hello from nginx"
        ssad.set("min_version", "TLSv1.3")
        assert run(URLOPEN, port, SSL_CERT_FILE=pki.ca, prefix="") == "hello from nginx"
        assert "UNSUPPORTED_VERSION" in run(URLOPEN, port, SSL_CERT_FILE=pki.ca)


def test_what_the_system_knows_of_the_socket(ssad, pki, tmp_path):
    with peers.nginx(pki, tmp_path, "ssl_protocols TLSv1.3;") as port:
        answer, kind, facts, version, cipher, certificate, name, timeout = ast.literal_eval(run(HTTP_CLIENT, port))
    assert answer == b"hello from nginx\n"
    assert kind == "TLSSocket"
    assert facts["rx"] in ("sw", "unknown")
    assert (facts["hostname"], facts["version"], facts["uid"]) == ("localhost", "TLSv1.3", str(os.getuid()))
    assert (version, cipher) == ("TLSv1.3", ("TLS_AES_256_GCM_SHA384", "TLSv1.3", 256))
    assert ("DNS", "localhost") in certificate["subjectAltName"]
    assert (name, timeout) == ("localhost", 10.0)


def test_requests(ssad, pki, tmp_path):
    stranger = peers.PKI(tmp_path / "stranger")
    with peers.nginx(pki, tmp_path) as port:
        assert run(REQUESTS, port, True) == "hello from nginx"  # certifi's authorities stand for the system's
        assert run(REQUESTS, port, repr(str(pki.ca))) == "hello from nginx"
        refused = run(REQUESTS, port, repr(str(stranger.ca)))
        assert refused.startswith("SSLError")
        assert "TLS_TRUSTED_PEER_CERTIFICATES" in refused
        unverified = run(UNVERIFIED, port)
        assert unverified.splitlines() == ["hello from nginx", "hello from nginx", "True"]


STARTTLS = {
    "smtp": """
import smtplib, sys
with smtplib.SMTP("localhost", int(sys.argv[1]), timeout=10) as smtp:
    smtp.starttls()
    smtp.login("me", "secret")
    print(type(smtp.sock).__module__)
""",
    "imap": """
import imaplib, sys
with imaplib.IMAP4("localhost", int(sys.argv[1]), timeout=10) as imap:
    imap.starttls()
    imap.login("me", "secret")
    print(type(imap.sock).__module__)
""",
    "imaps": """
import imaplib, sys
with imaplib.IMAP4_SSL("localhost", int(sys.argv[1]), timeout=10) as imap:
    imap.login("me", "secret")
    print(type(imap.sock).__module__)
""",
}


@pytest.mark.parametrize("protocol", STARTTLS)
def test_mail(ssad, pki, tmp_path, protocol):
    elsewhere = peers.PKI(tmp_path)
    elsewhere.cert, elsewhere.key = pki.issue("elsewhere", "elsewhere.test")
    script = STARTTLS[protocol]
    with mailservers.dovecot(pki) as ports:
        assert run(script, ports[protocol]) == "ssa.inject.sslsocket"
    with mailservers.dovecot(elsewhere) as ports:
        assert run(script, ports[protocol], prefix="") == "ssl"  # these verify nobody, by default
        assert "HOSTNAME_MISMATCH" in run(script, ports[protocol])


@pytest.mark.parametrize("prefix", [INJECTED, "import ftplib\n" + INJECTED])
def test_ftp(ssad, pki, prefix):
    script = """
import ftplib, io, sys
with ftplib.FTP_TLS(timeout=20) as ftp:
    ftp.connect("localhost", int(sys.argv[1]))
    ftp.login()
    ftp.prot_p()
    ftp.storbinary("STOR in/file", io.BytesIO(b"hello"))
    ftp.retrbinary("RETR in/file", print)
    ftp.retrlines("NLST in")
"""
    with mailservers.vsftpd(pki) as (port, _):
        assert run(script, port, prefix=prefix) == "b'hello'\nin/file"


@pytest.mark.parametrize("wrapped", ["listening", "before it listens"])
def test_a_server(ssad, pki, tmp_path, wrapped):
    early = """
import http.server, ssl, sys
class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments): pass
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[2], sys.argv[3])
"""
    late = {
        "listening": """
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
""",
        "before it listens": """
server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler, bind_and_activate=False)
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.server_bind(); server.server_activate()
server.serve_forever()
""",
    }
    (tmp_path / "hello").write_text("hello\n")
    port = peers.free_port()
    command = [sys.executable, "-c", INJECTED + early + late[wrapped], port, pki.cert, pki.key]
    curl = ["curl", "-sS", "--max-time", "20", "--cacert", pki.ca, f"https://localhost:{port}/hello"]
    idle = socket.socket()  # who says nothing is in nobody's way
    with peers.program(*command, port=port, cwd=tmp_path), idle:
        idle.connect(("127.0.0.1", port))
        answer = subprocess.run(curl, capture_output=True, timeout=30, check=False)
    assert (answer.stdout, answer.stderr) == (b"hello\n", b"")


def test_before_and_after():
    script = """
import ssl, ftplib
from ssl import SSLContext, SSLSocket
import ssa
earlier = ssl.create_default_context()
names = SSLContext, SSLSocket, ssl.create_default_context, ssl._create_unverified_context, ssl._create_stdlib_context
ssa.inject_into_ssl()
ssa.inject_into_ssl()
assert ssl.SSLContext is SSLContext is not names[0]
assert ssl.SSLSocket is SSLSocket is ftplib._SSLSocket is not names[1]
assert type(ssl.create_default_context()) is SSLContext
assert isinstance(ssl.create_default_context(), ssl.SSLContext)
assert type(ssl._create_stdlib_context()) is SSLContext
unverified = ssl._create_unverified_context()
assert (type(unverified), unverified.verify_mode, unverified.check_hostname) == (SSLContext, ssl.CERT_NONE, False)
# A context that was made before is as it was, and its settings work
earlier.minimum_version = ssl.TLSVersion.TLSv1_3
earlier.options |= ssl.OP_NO_TICKET
earlier.check_hostname, earlier.verify_mode = False, ssl.CERT_NONE
assert (earlier.minimum_version, earlier.verify_mode) == (ssl.TLSVersion.TLSv1_3, ssl.CERT_NONE)
assert type(earlier.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO())) is ssl.SSLObject
import socket
assert type(earlier.wrap_socket(socket.socket())) is names[1]
ssa.extract_from_ssl()
assert (SSLContext, SSLSocket, ssl.create_default_context, ssl._create_unverified_context,
        ssl._create_stdlib_context) == names
assert ssl.SSLContext is names[0] and ftplib._SSLSocket is ssl.SSLSocket is names[1]
ssl.create_default_context().minimum_version = ssl.TLSVersion.TLSv1_3
print("well")
"""
    assert run(script, prefix="") == "well"


def test_ssa_alone_loads_no_ssl():
    assert run("import sys, ssa; print([name for name in ('ssl', '_ssl') if name in sys.modules])", prefix="") == "[]"


# --- contexts -------------------------------------------------------------------------------------------------------


def client_context():
    return inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def server_context():
    return inject.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def unchecked_context():
    context = client_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


LOOSENING = {
    "nobody's name": lambda: unchecked_context().wrap_socket(socket.socket()),
    "nobody's name, for either side": lambda: inject.SSLContext(ssl.PROTOCOL_TLS).wrap_socket(socket.socket()),
    "proxy certificates": lambda: setattr(client_context(), "verify_flags", ssl.VERIFY_ALLOW_PROXY_CERTS),
    "an old version": lambda: setattr(client_context(), "maximum_version", ssl.TLSVersion.TLSv1_1),
    "an old protocol": lambda: inject.SSLContext(ssl.PROTOCOL_TLSv1),
}

WITHOUT_COUNTERPART = {
    "wrap_bio": lambda: client_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO()),
    "keylog_filename": lambda: setattr(client_context(), "keylog_filename", "/tmp/keys"),
    "sni_callback": lambda: setattr(server_context(), "sni_callback", print),
    "set_servername_callback": lambda: server_context().set_servername_callback(print),
    "num_tickets": lambda: setattr(server_context(), "num_tickets", 0),
    "hostname_checks_common_name": lambda: setattr(client_context(), "hostname_checks_common_name", True),
    "verify_flags": lambda: setattr(client_context(), "verify_flags", ssl.VERIFY_CRL_CHECK_LEAF),
    "verify_mode": lambda: setattr(server_context(), "verify_mode", ssl.CERT_OPTIONAL),
    "check_hostname": lambda: setattr(server_context(), "check_hostname", True),
    "set_ecdh_curve": lambda: server_context().set_ecdh_curve("prime256v1"),
    "load_dh_params": lambda: server_context().load_dh_params("/tmp/dh.pem"),
    "session_stats": lambda: server_context().session_stats(),
    "get_ca_certs": lambda: client_context().get_ca_certs(),
    "cert_store_stats": lambda: client_context().cert_store_stats(),
    "session": lambda: client_context().wrap_socket(socket.socket(), server_hostname="localhost", session=object()),
}


@pytest.mark.filterwarnings("ignore:ssl:DeprecationWarning")
@pytest.mark.parametrize("loosen", LOOSENING)
def test_what_would_loosen_is_denied(loosen):
    with pytest.raises(ssa.PolicyError) as denied:
        LOOSENING[loosen]()
    assert denied.value.reason == "POLICY_DENIED"
    assert isinstance(denied.value, ssl.SSLError)


@pytest.mark.parametrize("name", WITHOUT_COUNTERPART)
def test_what_has_no_counterpart_says_so(name):
    with pytest.raises(ssa.SSAError) as refused:
        WITHOUT_COUNTERPART[name]()
    assert refused.value.reason == "NO_COUNTERPART"
    assert name.replace("set_servername_callback", "sni_callback") in refused.value.detail
    assert isinstance(refused.value, ssl.SSLError)


def test_what_holds_anyway_can_be_said():
    context = client_context()
    context.verify_mode, context.check_hostname = ssl.CERT_OPTIONAL, True
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_OPTIONAL, True)
    context.post_handshake_auth = context.sni_callback = context.keylog_filename = None
    context.hostname_checks_common_name = False
    context.minimum_version, context.options = ssl.TLSVersion.TLSv1, context.options | ssl.OP_NO_COMPRESSION
    assert context.minimum_version == ssl.TLSVersion.TLSv1
    context.load_default_certs()
    server = server_context()
    server.verify_mode, server.check_hostname = ssl.CERT_NONE, False
    assert server.verify_mode == ssl.CERT_NONE
    with pytest.raises(ValueError, match="server_hostname"):
        context.wrap_socket(socket.socket())
    with pytest.raises(TypeError):
        context.load_verify_locations()
    with pytest.raises(TypeError):
        inject.SSLSocket()


def test_errors_are_of_both_kinds():
    refused = inject.CertificateError("UNKNOWN_CA", "CN=x")
    for kind in (ssl.SSLCertVerificationError, ssl.SSLError, ssa.CertificateError, ssa.SSAError, OSError, ValueError):
        assert isinstance(refused, kind)
    assert (refused.reason, refused.verify_code, refused.library) == ("UNKNOWN_CA", 20, "SSA")
    assert "UNKNOWN_CA" in str(refused)
    again = pickle.loads(pickle.dumps(refused))
    assert (type(again), str(again)) == (inject.CertificateError, str(refused))


@pytest.mark.parametrize("reason", [name for name, row in errors.REASONS.items() if row.cls is errors.CertificateError])
def test_a_refused_certificates_error_has_openssls_words(reason):
    """By which programs know it: in its text, in what `args` shows, and by number."""
    refused = inject.CertificateError(reason, "CN=x")
    if reason == "NO_CERTIFICATE":  # of a client's, which `ssl` does not call so either
        assert "verify failed" not in str(refused)
        return
    words = lib.X509_verify_cert_error_string(refused.verify_code)
    assert ffi.string(words).decode().startswith(refused.verify_message)  # later versions say more of the clock
    begin = f"[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: {refused.verify_message} [{reason}] "
    assert str(refused).startswith(begin)
    assert str(refused) == refused.strerror == refused.args[1]
    assert "CN=x" in str(refused)


def test_of_another_name_it_has_pythons_words():
    for name, kind, code in (("x.test", "Hostname", 62), ("10.0.0.1", "IP address", 64), ("::1", "IP address", 64)):
        refused = inject.CertificateError("HOSTNAME_MISMATCH").of(name)
        words = f"{kind} mismatch, certificate is not valid for '{name}'."
        assert (refused.verify_code, refused.verify_message) == (code, words)
        assert words in str(refused)
    assert inject.CertificateError("UNKNOWN_CA").of("x.test").verify_code == 20


# --- sockets --------------------------------------------------------------------------------------------------------


@pytest.fixture
def context(ssad, pki):
    """A server's context."""
    made = server_context()
    made.load_cert_chain(pki.cert, pki.key)
    return made


@pytest.fixture
def listener(context):
    """A listening socket of the `ssl` module's kind."""
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as sock:
        sock.settimeout(10)
        yield sock


def connect(listener, context=None):
    plain = socket.create_connection(listener.getsockname(), 10)
    return (context or client_context()).wrap_socket(plain, server_hostname="localhost")


@pytest.fixture
def pair(listener):
    """Both ends: the client's, the server's."""
    with connect(listener) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(10)
            yield client, server


def test_the_methods_of_an_ssl_socket(pair):
    client, server = pair
    assert type(server) is type(client) is inject.SSLSocket
    assert client.write(b"hello") == 5
    buffer = bytearray(3)
    assert (server.read(3, buffer), bytes(buffer), server.read()) == (3, b"hel", b"lo")
    assert (client.pending(), client.compression(), client.session, client.session_reused) == (0, None, None, False)
    assert (client.server_side, server.server_side, server.server_hostname) == (False, True, None)
    assert client.context.protocol == ssl.PROTOCOL_TLS_CLIENT
    assert client.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(
        ssl.DER_cert_to_PEM_cert(client.getpeercert(True))
    )
    assert client.getpeercert()["notAfter"]
    assert server.getpeercert() is None
    assert client.selected_alpn_protocol() is None
    client.do_handshake()  # is done already
    with client.dup() as twin:
        assert (type(twin), twin.context) == (inject.SSLSocket, client.context)
    for refused in ("get_channel_binding", "shared_ciphers", "verify_client_post_handshake"):
        with pytest.raises(ssl.SSLError, match=refused):
            getattr(client, refused)()


def test_a_timeout_is_a_timeout(pair):
    client, _ = pair
    client.settimeout(0.05)
    with pytest.raises(TimeoutError):
        client.recv()
    client.setblocking(False)
    with pytest.raises(ssl.SSLWantReadError) as nothing:
        client.recv(10)
    assert nothing.value.args[0] == ssl.SSL_ERROR_WANT_READ
    full = bytes(65536)
    with pytest.raises(ssl.SSLWantWriteError):
        all(client.send(full) for _ in range(10_000))


def test_unwrap(pair):
    client, server = pair
    thread = threading.Thread(target=server.unwrap)
    thread.start()
    ended = client.unwrap()
    thread.join(10)
    assert client.recv(10) == b""
    with pytest.raises(BrokenPipeError):
        ended.sendall(b"plain text")


def test_a_handshake_that_is_stepped(listener):
    plain = socket.create_connection(listener.getsockname(), 10)
    plain.setblocking(False)
    context = client_context()
    with pytest.raises(ValueError, match="non-blocking"):
        context.wrap_socket(plain, server_hostname="localhost")
    wants = {ssl.SSL_ERROR_WANT_READ: select.POLLIN, ssl.SSL_ERROR_WANT_WRITE: select.POLLOUT}
    with context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as client:
        while True:
            try:
                client.do_handshake()
                break
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError) as wait:
                poll = select.poll()
                poll.register(client, wants[wait.errno])
                assert poll.poll(10_000)
        server, _ = listener.accept()
        with server:
            client.send(b"done")
            assert server.recv(10) == b"done"


def test_reading_makes_the_handshake(listener):
    plain = socket.create_connection(listener.getsockname(), 10)
    wrapped = client_context().wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False)
    with wrapped as client:
        assert (client.version(), client.cipher(), client.selected_alpn_protocol()) == (None, None, None)
        client.sendall(b"hello")
        server, _ = listener.accept()
        with server:
            assert server.recv(10) == b"hello"


def test_connecting_after_wrapping(listener):
    with client_context().wrap_socket(socket.socket(), server_hostname="localhost") as client:
        client.settimeout(10)
        client.connect(listener.getsockname())
        assert client.version() == "TLSv1.3"
        listener.accept()[0].close()
        assert client.recv(10) == b""


def test_what_narrows(listener, context):
    context.set_alpn_protocols(["two", "one"])
    narrow = client_context()
    narrow.set_alpn_protocols(["one"])
    narrow.maximum_version = ssl.TLSVersion.TLSv1_2
    narrow.set_ciphers("ECDHE+CHACHA20")
    other = context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True)
    with other, connect(other, narrow) as client:
        chosen = client.version(), client.cipher(), client.selected_alpn_protocol()
    assert chosen == ("TLSv1.2", ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2", 256), "one")
    assert {cipher["name"] for cipher in narrow.get_ciphers() if cipher["protocol"] == "TLSv1.2"} == {
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    }
    without_12 = client_context()
    without_12.options |= ssl.OP_NO_TLSv1_2
    with connect(listener, without_12) as client:
        assert client.version() == "TLSv1.3"


def test_authorities_narrow(listener, pki, tmp_path):
    stranger = peers.PKI(tmp_path)
    der = ssl.PEM_cert_to_DER_cert(stranger.ca.read_text())
    for source in ({"cafile": stranger.ca}, {"cadata": stranger.ca.read_text()}, {"cadata": der}):
        narrow = client_context()
        narrow.load_verify_locations(**source)
        with pytest.raises(ssl.SSLCertVerificationError) as refused:
            connect(listener, narrow)
        assert refused.value.reason == "UNKNOWN_CA"
        narrow.load_verify_locations(cadata=pki.ca.read_text())  # either of them
        connect(listener, narrow).close()
    directory = tmp_path / "hashed"
    directory.mkdir()
    (directory / "0123abcd.0").write_bytes(pki.ca.read_bytes())
    narrow = client_context()
    narrow.load_verify_locations(capath=directory)
    connect(listener, narrow).close()


def test_client_certificates(context, pki):
    context.verify_mode = ssl.CERT_REQUIRED
    cert, key = pki.issue("me", "me.test")
    known = client_context()
    known.load_cert_chain(cert, key)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        listener.settimeout(10)
        with connect(listener, known):
            server, _ = listener.accept()
            with server:
                assert ("DNS", "me.test") in server.getpeercert()["subjectAltName"]
        with pytest.raises(OSError), connect(listener) as nobody:
            nobody.recv(10)


def test_a_key_that_does_not_match(ssad, pki):
    _, other = pki.issue("other", "other.test")
    with pytest.raises(ssl.SSLError) as refused:
        server_context().load_cert_chain(pki.cert, other)
    assert refused.value.reason == "KEY_MISMATCH"
    with pytest.raises(FileNotFoundError):
        server_context().load_cert_chain("/nowhere/cert.pem")


def test_certificate_and_key_in_one_file(ssad, pki, tmp_path):
    both = tmp_path / "both.pem"
    both.write_bytes(pki.key.read_bytes() + pki.cert.read_bytes())
    context = server_context()
    context.load_cert_chain(both)
    with context.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        connect(listener).close()
