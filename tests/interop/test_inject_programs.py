"""ssa.inject_into_ssl under libraries that people use, unchanged: they work, or are told what to do."""

import contextlib
import importlib.util
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ssa
from ssa import inject
from ssa.inject import wrapping
from tests import mailservers, peers
from tests.needs import once

INJECTED = "import ssa; ssa.inject_into_ssl()\n"
NO_ANCHORS = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE", "PIP_CERT")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    for name in NO_ANCHORS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def stranger(tmp_path):
    return peers.PKI(tmp_path / "stranger")


@pytest.fixture
def ports(pki, stranger, tmp_path):
    """nginx with a certificate that the policy trusts, and with one that it does not."""
    with peers.nginx(pki, tmp_path / "ours") as ours, peers.nginx(stranger, tmp_path / "theirs") as theirs:
        yield ours, theirs


def run(script, *arguments, prefix=INJECTED, fails=False, **environment):
    """A program; what it prints. What it says on the standard error comes behind."""
    command = [sys.executable, "-P", "-W", "ignore", "-c", prefix + script, *map(str, arguments)]
    environment = os.environ | {name: str(value) for name, value in environment.items()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/tmp", env=environment)
    assert fails == (done.returncode != 0), done.stderr
    return (done.stdout + done.stderr).strip()


def needs(*libraries):
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: make setup")


HTTPS = """
import sys, {library}
get = {get}
for how in ({{}}, {unverified}):
    print(get(f"https://localhost:{{sys.argv[1]}}/hello", **how).strip())
    try:
        print(get(f"https://localhost:{{sys.argv[2]}}/hello", **how))
    except {error}:
        print("refused")
"""
LIBRARIES = {
    "requests": {
        "get": "lambda url, **how: requests.get(url, timeout=10, **how).text",
        "unverified": '{"verify": False}',
        "error": "requests.RequestException",
    },
    "httpx": {
        "get": "lambda url, **how: httpx.get(url, timeout=10, **how).text",
        "unverified": '{"verify": False}',
        "error": "httpx.ConnectError",
    },
    "urllib3": {
        "get": "lambda url, **how: urllib3.PoolManager(retries=0, **how).request('GET', url).data.decode()",
        "unverified": '{"cert_reqs": "CERT_NONE"}',
        "error": "urllib3.exceptions.HTTPError",
    },
}


PLAIN_TEXT = (
    "-c: localhost was refused (UNKNOWN_CA). Its context asks for less verification; "
    "if it goes on in plain text now, the program does so by itself"
)


@pytest.mark.parametrize("library", LIBRARIES)
def test_https(cleaned, ports, library):
    """Verified whatever they say, by the policy."""
    needs(library)
    said = run(HTTPS.format(library=library, **LIBRARIES[library]), *ports).splitlines()
    assert said[:4] == ["hello from nginx", "refused"] * 2
    assert said[4:] == [
        "verify_mode = CERT_NONE has no effect: servers are verified, as the policy says",
        PLAIN_TEXT,
    ]


@once
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_environment_of_a_machine(cleaned, ports, pki, tmp_path, library):
    """A key log that the program has not asked for, and a list of directories with one that is damaged."""
    needs(library)
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "0123abcd.0").symlink_to("nowhere")
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "ca.pem").write_bytes(pki.ca.read_bytes())
    subprocess.run(["openssl", "rehash", tmp_path / "good"], check=True, capture_output=True)
    environment = {
        "SSLKEYLOGFILE": tmp_path / "keys",
        "SSL_CERT_FILE": "/nowhere/ca.pem",
        "SSL_CERT_DIR": f"{tmp_path}/damaged:{tmp_path}/good:/nowhere",
    }
    if library == "httpx":
        del environment["SSL_CERT_FILE"]  # it opens that file itself
    script = f"""
import sys, urllib.request, {library}
get = {LIBRARIES[library]["get"]}
url = f"https://localhost:{{sys.argv[1]}}/hello"
print(get(url).strip(), get(url).strip(), urllib.request.urlopen(url, timeout=10).read().decode().strip())
"""
    *answers, warned = run(script, ports[0], **environment).splitlines()
    assert answers == ["hello from nginx hello from nginx hello from nginx"]
    assert warned.startswith("SSLKEYLOGFILE=")
    assert not (tmp_path / "keys").exists()


@once
def test_httpx_asks_for_the_protocol(cleaned, ports):
    needs("httpx")
    script = """
import sys, httpx
response = httpx.get(f"https://localhost:{sys.argv[1]}/hello")
print(response.http_version, type(response.extensions["network_stream"].get_extra_info("ssl_object")).__name__)
"""
    assert run(script, ports[0]) == "HTTP/1.1 SSLSocket"


TRUSTSTORE = """
import ssl, sys, urllib.request
context = truststore.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED
context.options |= ssl.OP_NO_TICKET
context.verify_flags |= ssl.VERIFY_X509_STRICT
def get(port, context=None):
    try:
        return urllib.request.urlopen(f"https://localhost:{port}/hello", context=context, timeout=10).read().decode()
    except OSError as refused:
        return type(refused.reason).__name__
print(get(sys.argv[1], context), get(sys.argv[2], context))
truststore.inject_into_ssl()
print(get(sys.argv[1]), get(sys.argv[2]))
"""


@once
@pytest.mark.parametrize("prefix", [INJECTED + "import truststore\n", "import truststore\n" + INJECTED])
def test_truststore(cleaned, ports, prefix):
    needs("truststore")
    answers = run(TRUSTSTORE, *ports, prefix=prefix).split()
    assert answers == ["hello", "from", "nginx", "CertificateError"] * 2


@once
def test_truststore_in_the_place_of_ssl(cleaned):
    needs("truststore")
    told = run("", prefix="import truststore; truststore.inject_into_ssl()\n" + INJECTED, fails=True)
    assert "ssl.SSLContext has been replaced by truststore._api: leave it out" in told


GEVENT = """
import sys, urllib.request, gevent
def get(port):
    try:
        return urllib.request.urlopen(f"https://localhost:{port}/hello", timeout=10).read().decode().strip()
    except OSError as refused:
        return str(refused.reason)
jobs = [gevent.spawn(get, port) for port in sys.argv[1:]]
gevent.joinall(jobs)
print(*(job.value for job in jobs), sep="\\n")
"""


@pytest.mark.parametrize("first", [True, False])
def test_gevent(cleaned, ports, first):
    needs("gevent")
    patch = "from gevent import monkey; monkey.patch_all(ssl=False)\n"
    prefix = "import ssa\n" + patch + INJECTED if first else INJECTED + patch
    answers = run(GEVENT, *ports, prefix=prefix).splitlines()
    assert answers[0] == "hello from nginx"
    assert "UNKNOWN_CA" in answers[1]


@once
def test_gevents_own_tls_is_refused(cleaned, ports):
    needs("gevent")
    patch = "from gevent import monkey; monkey.patch_all()\n"
    for told in (run(GEVENT, *ports, prefix=INJECTED + patch), run("", prefix=patch + INJECTED, fails=True)):
        assert "monkey.patch_all(ssl=False)" in told or "inject_into_ssl() first" in told
    assert "monkey.patch_all(ssl=False)" in run("", prefix="import ssa\n" + patch + INJECTED, fails=True)
    told = run("", prefix="from gevent import monkey; monkey.patch_all(ssl=False)\n" + INJECTED, fails=True)
    assert "socket.socket has been replaced by gevent._socket3: call ssa.inject_into_ssl() first" in told


def test_redis(cleaned, pki, tmp_path):
    needs("redis")
    script = """
import sys, threading, redis
for options in ({}, {"ssl_ca_certs": sys.argv[2]}, {"ssl_cert_reqs": "none"}, {"ssl_check_hostname": False}):
    server = redis.Redis("localhost", int(sys.argv[1]), ssl=True, **options)
    server.set("key", bytes(100_000))
    told = server.pubsub()
    told.subscribe("channel")
    first, nothing = told.get_message(timeout=5), told.get_message(timeout=0.05)
    server.publish("channel", "hello")
    print(len(server.get("key")), first["type"], nothing, told.get_message(timeout=5)["data"])
    told.close(); server.close()
"""
    port = peers.free_port()
    command = (
        "redis-server",
        "--port",
        0,
        "--tls-port",
        port,
        "--save",
        "",
        "--dir",
        tmp_path,
        "--tls-auth-clients",
        "no",
    )
    files = ("--tls-cert-file", pki.cert, "--tls-key-file", pki.key, "--tls-ca-cert-file", pki.ca)
    with peers.program(*command, *files, port=port, stdout=subprocess.DEVNULL):
        said = run(script, port, pki.ca).splitlines()
    assert said[:4] == ["100000 subscribe None b'hello'"] * 4


def test_boto3(cleaned, ports, pki, stranger, tmp_path):
    needs("boto3")
    script = """
import sys, boto3
from botocore.config import Config
from botocore.exceptions import SSLError
port, *bundles = sys.argv[1:]
quick = Config(retries={"max_attempts": 0}, connect_timeout=5, read_timeout=5)
for verify in (None, False, *bundles):
    client = boto3.client("s3", endpoint_url=f"https://localhost:{port}", region_name="here", verify=verify,
                          config=quick, aws_access_key_id="a", aws_secret_access_key="b")
    try:
        print(client.get_object(Bucket="bucket", Key="key")["Body"].read().decode())
    except SSLError as refused:
        print("refused")
"""
    (tmp_path / "ours" / "bucket").mkdir()
    (tmp_path / "ours" / "bucket" / "key").write_text("value")
    said = run(script, ports[0], pki.ca, stranger.ca).splitlines()
    assert said[:4] == ["value", "value", "value", "refused"]


@once
def test_pip(cleaned, ports, pki, stranger, tmp_path):
    """Of its own urllib3, certifi and, since 24.2, truststore."""
    packages = tmp_path / "ours" / "simple" / "nothing"
    packages.mkdir(parents=True)
    wheel = "nothing-1.0-py3-none-any.whl"
    (packages / "index.html").write_text(f'<a href="{wheel}">{wheel}</a>')
    (tmp_path / "theirs" / "simple").symlink_to(tmp_path / "ours" / "simple")
    make_wheel(packages / wheel)
    script = """
import sys
from pip._internal.cli.main import main
sys.exit(main(["--isolated", "--retries", "0", "--disable-pip-version-check", "download", "--no-deps", "--no-cache-dir",
               "-d", sys.argv[2], "--index-url", f"https://localhost:{sys.argv[1]}/simple/", *sys.argv[3:], "nothing"]))
"""
    for number, more in enumerate([(), ("--cert", str(pki.ca)), ("--trusted-host", "localhost")]):
        run(script, ports[0], tmp_path / str(number), *more)
        assert (tmp_path / str(number) / wheel).exists()
    assert "no path from the certificate" in run(script, ports[1], tmp_path / "none", "-v", fails=True)


def make_wheel(path):
    import zipfile

    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nothing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: nothing\nVersion: 1.0\n")
        file.writestr("nothing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr("nothing-1.0.dist-info/RECORD", "")


def test_logging_over_https(cleaned, pki):
    script = """
import logging, logging.handlers, ssl, sys
context = ssl.create_default_context()
handler = logging.handlers.HTTPHandler(f"localhost:{sys.argv[1]}", "/log", secure=True, context=context)
handler.emit(logging.LogRecord("name", logging.WARNING, "file", 1, "hello", None, None))
"""
    got = []

    def serve(tls, _tcp):
        got.append(tls.recv(4096).split(b" HTTP")[0])
        tls.sendall(b"HTTP/1.0 200 OK\r\n\r\n")

    with peers.python_server(pki, serve) as port:
        assert run(script, port) == ""
    assert got
    assert got[0].startswith(b"GET /log?name=name")


def test_logging_by_mail(cleaned, pki):
    script = """
import logging, logging.handlers, sys
server, me = ("localhost", int(sys.argv[1])), ("me", "secret")
handler = logging.handlers.SMTPHandler(server, "me@x", ["you@x"], "subject", me, secure=())
logging.raiseExceptions = True
handler.emit(logging.LogRecord("name", logging.WARNING, "file", 1, "hello", None, None))
"""
    with mailservers.dovecot(pki) as served:  # it has no relay to send it on to, and says so inside TLS
        assert "SMTP" in run(script, served["smtp"])
    assert "handshakes" in os.listdir(cleaned.mount / "stats")
    assert int(cleaned.get("stats/handshakes")) > 0


# --- servers of other people, in steps -----------------------------------------------------------------------------


def test_a_server_that_never_waits(cleaned, pki):
    """As ftplib's test server does it: do_handshake, `_sslobj` and unwrap on a non-blocking socket."""
    context = inject.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)
    client = ssl.create_default_context(cafile=pki.ca)

    def talk(port):
        with client.wrap_socket(socket.create_connection(("localhost", port), 10), server_hostname="localhost") as tls:
            got.append(tls.recv(10))
            tls.unwrap()

    got = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=talk, args=[listener.getsockname()[1]])
        thread.start()
        plain, _ = listener.accept()
    plain.setblocking(False)
    with context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False) as sock:
        assert sock._sslobj is not None
        stepped(sock.do_handshake)
        sock.send(b"hello")
        assert stepped(sock.unwrap) is sock
        assert sock._sslobj is None
        with pytest.raises(ValueError, match="No SSL wrapper"):
            sock.unwrap()
    thread.join(10)
    assert got == [b"hello"]


def stepped(method):
    """Call until it does not want to wait: with exactly the classes of `ssl`, as redis-py looks them up."""
    import time

    for _ in range(2000):
        try:
            return method()
        except ssl.SSLError as wait:
            assert type(wait) in (ssl.SSLWantReadError, ssl.SSLWantWriteError)
            time.sleep(0.005)
    raise TimeoutError


@once
def test_what_is_refused_cannot_go_on_in_plain_text(cleaned, monkeypatch):
    """Where TLS was agreed on and then refused, the connection is over."""
    monkeypatch.setattr(wrapping, "address_on_this_machine", lambda sock: None)  # as of a server elsewhere
    context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for how in ({}, {"server_hostname": "localhost", "session": object()}):
            plain = socket.create_connection(listener.getsockname(), 10)
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, **how)
            with pytest.raises(OSError, match="Bad file descriptor"):
                plain.sendall(b"secret")


def test_the_chain_of_the_peer(cleaned, pki):
    with peers.python_server(pki, lambda tls, _tcp: tls.recv(1)) as port:
        plain = socket.create_connection(("localhost", port), 10)
        with inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_socket(plain, server_hostname="localhost") as sock:
            [first, *_] = sock.get_unverified_chain()
            assert first == sock.getpeercert(binary_form=True) == first.public_bytes(2)
            assert first.public_bytes() == ssl.DER_cert_to_PEM_cert(first)
            with pytest.raises(ssl.SSLError, match="context"):
                sock.context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


# --- files that people have ----------------------------------------------------------------------------------------


def pem_variants(pem):
    """One certificate, as different programs write it."""
    text = pem.decode()
    latin = "# Società à Zürich\n".encode("latin-1")
    return {
        "BOM": b"\xef\xbb\xbf" + pem,
        "CRLF": pem.replace(b"\n", b"\r\n"),
        "comments": latin + pem + latin,
        "X509 CERTIFICATE": text.replace(" CERTIFICATE", " X509 CERTIFICATE").encode(),
    }


@once
@pytest.mark.parametrize("variant", ["BOM", "CRLF", "comments", "X509 CERTIFICATE"])
def test_pem_as_people_have_it(cleaned, pki, tmp_path, variant):
    data = pem_variants(pki.ca.read_bytes())[variant]
    own = pem_variants(pki.cert.read_bytes())[variant]
    both = tmp_path / "both.pem"
    both.write_bytes(own + pki.key.read_bytes())
    (tmp_path / "ca.pem").write_bytes(data)
    server = inject.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(both, both)
    with server.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        for source in ({"cafile": tmp_path / "ca.pem"}, {"cadata": data}, {"cadata": data.decode("latin-1")}):
            client = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.load_verify_locations(**source)
            plain = socket.create_connection(listener.getsockname(), 10)
            client.wrap_socket(plain, server_hostname="localhost").close()


@once
@pytest.mark.parametrize(("setting", "accepted"), [("-addtrust", True), ("-addreject", False)])
def test_what_a_trusted_certificate_is_trusted_for(cleaned, pki, tmp_path, setting, accepted):
    """OpenSSL's TRUSTED CERTIFICATE says so itself."""
    trusted = tmp_path / "trusted.pem"
    subprocess.run(["openssl", "x509", "-in", pki.ca, setting, "serverAuth", "-trustout", "-out", trusted], check=True)
    with peers.python_server(pki, lambda tls, _tcp: tls.recv(1)) as port:
        for source in ({"cafile": trusted}, {"cadata": trusted.read_text()}):
            client = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            client.load_verify_locations(**source)
            plain = socket.create_connection(("localhost", port), 10)
            with contextlib.nullcontext() if accepted else pytest.raises(ssl.SSLCertVerificationError):
                client.wrap_socket(plain, server_hostname="localhost").close()


@once
def test_one_file_for_both_of_a_client(cleaned, pki, tmp_path):
    """`cert=(X, X)` of requests."""
    cert, key = pki.issue("client", "me.test")
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    script = """
import sys, requests
print(requests.get(f"https://localhost:{sys.argv[1]}/hello", timeout=10, cert=eval(sys.argv[2])).text.strip())
"""
    extra = f"ssl_client_certificate {pki.ca}; ssl_verify_client on;"
    with peers.nginx(pki, tmp_path / "nginx", extra) as port:
        for how in ((str(both), str(both)), str(both)):
            assert run(script, port, repr(how)) == "hello from nginx"


def test_a_certificate_that_is_renewed(cleaned, pki):
    """Of both sides: the last that was loaded is the one in use, however often."""
    renewed = [pki.issue(f"renewed{number}", "localhost") for number in range(3)]
    server, client = inject.SSLContext(ssl.PROTOCOL_TLS_SERVER), inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_REQUIRED
    for pair in renewed * 7:
        server.load_cert_chain(*pair)
        client.load_cert_chain(*pair)
    newest = ssl.PEM_cert_to_DER_cert(renewed[-1][0].read_text().partition("-----END")[0] + "-----END CERTIFICATE-----")
    with server.wrap_socket(socket.create_server(("127.0.0.1", 0)), server_side=True) as listener:
        plain = socket.create_connection(listener.getsockname(), 10)
        with client.wrap_socket(plain, server_hostname="localhost") as sock, listener.accept()[0] as accepted:
            assert sock.getpeercert(binary_form=True) == newest
            assert accepted.getpeercert(binary_form=True) == newest


@once
def test_a_password_that_is_not_needed(cleaned, pki, tmp_path):
    context = inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(pki.cert, pki.key, password=lambda: "secret")
    encrypted = tmp_path / "encrypted.key"
    command = ["openssl", "pkey", "-in", pki.key, "-aes128", "-passout", "pass:secret", "-out", encrypted]
    subprocess.run(command, check=True, capture_output=True)
    with pytest.raises(ssl.SSLError, match="password"):
        context.load_cert_chain(pki.cert, encrypted, password="secret")
    with pytest.raises(FileNotFoundError):
        context.load_cert_chain("/nowhere/cert.pem", password=lambda: "secret")


@once
def test_many_authorities(cleaned, pki, tmp_path, monkeypatch):
    """certifi's bundle and three hundred companies' roots, in one file and in as many calls."""
    import certifi
    import trustme

    roots = [trustme.CA().cert_pem.bytes() for _ in range(300)]
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(Path(certifi.where()).read_bytes() + b"".join(roots) + pki.ca.read_bytes())
    assert bundle.stat().st_size > 256 << 10
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    by_environment, by_file, by_calls, by_data = (inject.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(4))
    by_environment.load_default_certs()
    by_file.load_verify_locations(cafile=bundle)
    by_data.load_verify_locations(cadata=bundle.read_text())
    for root in (*roots, pki.ca.read_bytes()):
        by_calls.load_verify_locations(cadata=root.decode())
    with peers.python_server(pki, lambda tls, _tcp: tls.sendall(b"hello")) as port:
        for context in (by_environment, by_file, by_calls, by_data):
            plain = socket.create_connection(("localhost", port), 10)
            with context.wrap_socket(plain, server_hostname="localhost") as sock:
                assert sock.recv(10) == b"hello"
        with ssa.create_connection(("localhost", port), 10, trusted=bundle) as sock:
            assert sock.recv(10) == b"hello"
    bundle.write_bytes(b"#" * (5 << 20))
    with pytest.raises(ssl.SSLError, match="longer than 4 MiB"):
        by_file.load_verify_locations(cafile=bundle)
