"""A program's own wishes narrow the policy; what would loosen it, and what ssa cannot do, is refused with words."""

import base64
import contextlib
import os
import socket
import ssl
import subprocess
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from tests import datagrams
from tests.native.openssl import programs, servers
from tests.native.openssl.conftest import counted, run
from tests.peers import free_port, nginx, openssl, program, python_server

WRITE_OUT = ("-o", "/dev/null", "-w", "%{http_version} %{num_connects} %{ssl_verify_result}")


def curl(ssad, port, *options, what="hello", host="localhost"):
    return run(ssad, ["curl", "-sS", "-m", 20, *options, f"https://{host}:{port}/{what}"])


@pytest.fixture
def empty(tmp_path):
    """A directory of trust anchors without any: curl's --capath, which is the system's by default."""
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


# --- what curl can be told -----------------------------------------------------------------------------------------


def test_curl_speaks_http2_and_in_parallel(ssad, serving):
    port = serving("web")
    assert curl(ssad, port, *WRITE_OUT).stdout == b"2 1 0"
    urls = [word for _ in range(4) for word in ("-o", "/dev/null", f"https://localhost:{port}/big")]
    done = run(ssad, ["curl", "-sS", "--http1.1", "-Z", "-w", "%{size_download} ", *urls])
    assert done.stdout.split() == [str(programs.WEB_SIZE).encode()] * 4, done.stderr


def test_curls_own_ca_narrows(ssad, serving, pki, strangers, empty):
    port = serving("web")
    assert curl(ssad, port, "--cacert", pki.ca, "--capath", empty).stdout == b"hello from the web\n"
    refused = curl(ssad, port, "--cacert", strangers.ca, "--capath", empty)
    assert refused.returncode == 60
    assert b"no path from the certificate to a trust anchor" in refused.stderr
    assert curl(ssad, port, "--cacert", strangers.ca).returncode == 0  # the system's store is beside it


def test_a_directory_of_anchors_narrows(ssad, serving, pki, strangers, tmp_path):
    for name, ca in ("own", pki.ca), ("other", strangers.ca):
        hashed = subprocess.check_output(["openssl", "x509", "-hash", "-noout", "-in", ca], text=True).strip()
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{hashed}.0").write_bytes(ca.read_bytes())
    code = "import ssl, socket, sys; c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)"
    code += "; c.load_verify_locations(capath=sys.argv[1])"
    code += "; c.wrap_socket(socket.create_connection(('localhost', int(sys.argv[2]))), server_hostname='localhost')"
    command = [programs.PYTHON, "-c", code]
    assert run(ssad, [*command, tmp_path / "own", serving("web")]).returncode == 0
    assert b"CERTIFICATE_VERIFY_FAILED" in run(ssad, [*command, tmp_path / "other", serving("web")]).stderr


def test_pins_count(ssad, serving, pki):
    port = serving("web")
    public = x509.load_pem_x509_certificate(pki.cert.read_bytes()).public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    digest = hashes.Hash(hashes.SHA256())
    digest.update(public.public_bytes(serialization.Encoding.DER, form))

    pin = base64.b64encode(digest.finalize()).decode()
    assert curl(ssad, port, "--pinnedpubkey", f"sha256//{pin}").returncode == 0
    assert curl(ssad, port, "--pinnedpubkey", f"sha256//{pin[::-1]}").returncode == 90


def test_not_verifying_is_not_honoured_and_said(ssad, serving):
    with servers.forwarder(serving("web"), "127.0.0.2") as port:
        done = curl(ssad, port, "-k", host="127.0.0.2")
    assert done.returncode == 60
    assert b"verification cannot be turned off: certificate is for another name" in done.stderr
    assert 'hostname=127.0.0.2 unverified="asked for by the program, and not done"' in ssad.log


def test_names_that_resolve_elsewhere(ssad, serving):
    port = serving("web")
    assert curl(ssad, port, "--resolve", f"example.test:{port}:127.0.0.1", host="example.test").returncode == 0
    refused = curl(ssad, port, "--resolve", f"wrong.test:{port}:127.0.0.1", host="wrong.test")
    assert b"expected DNS wrong.test" in refused.stderr


def test_cipher_lists_and_versions(ssad, serving):
    code = (
        "import ssl, socket, sys; c = ssl.create_default_context(); c.set_ciphers(sys.argv[2])\n"
        "c.maximum_version = ssl.TLSVersion[sys.argv[3]]\n"
        "s = c.wrap_socket(socket.create_connection(('localhost', int(sys.argv[1]))), server_hostname='localhost')\n"
        "print(s.version(), s.cipher()[0])"
    )
    command = [programs.PYTHON, "-c", code, serving("web")]
    chosen = "ECDHE-ECDSA-CHACHA20-POLY1305"
    assert run(ssad, [*command, chosen, "TLSv1_2"]).stdout.decode() == f"TLSv1.2 {chosen}\n"
    assert run(ssad, [*command, chosen, "TLSv1_3"]).stdout.startswith(b"TLSv1.3")
    assert b"TLSv1_1" not in run(ssad, [*command, "DEFAULT@SECLEVEL=0", "TLSv1_1"]).stdout
    assert curl(ssad, serving("web"), "--tls-max", "1.1").returncode == 35


def test_a_revoked_certificate_is_refused(ssad, serving, pki, empty, tmp_path):
    (tmp_path / "none").write_bytes(pki.revocations())
    (tmp_path / "it").write_bytes(pki.revocations(pki.cert))
    options = ("--cacert", pki.ca, "--capath", empty, "--crlfile")
    assert curl(ssad, serving("web"), *options, tmp_path / "none").returncode == 0
    refused = curl(ssad, serving("web"), *options, tmp_path / "it")
    assert refused.returncode == 60
    assert b"certificate revoked" in refused.stderr


def test_a_verify_callback_is_asked(ssad, serving):
    port = serving("web")
    code = (
        "$c = stream_context_create(['ssl' => ['verify_depth' => (int)$argv[2], 'peer_name' => 'localhost']]);"
        "exit(stream_socket_client('ssl://localhost:' . $argv[1], $n, $w, 10, STREAM_CLIENT_CONNECT, $c) ? 0 : 1);"
    )
    assert run(ssad, ["php", "-r", code, port, 5]).returncode == 0


def test_a_clients_certificate(ssad, pki, tmp_path):
    cert, key = pki.issue("client", "me.test")
    extra = f"ssl_client_certificate {pki.ca}; ssl_verify_client on; location /who {{ return 200 $ssl_client_verify; }}"
    with nginx(pki, tmp_path / "nginx", extra) as port:
        assert curl(ssad, port, "--cert", cert, "--key", key, what="who").stdout == b"SUCCESS"
        assert curl(ssad, port, what="who").stdout != b"SUCCESS"


@contextlib.contextmanager
def _proxy(connect):
    """An HTTP proxy that knows CONNECT; `connect` wraps its clients."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def serve():
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                with contextlib.suppress(OSError):
                    near = connect(near)
                    asked = b""
                    while not asked.endswith(b"\r\n\r\n"):
                        asked += near.recv(1)
                    far = socket.create_connection(("127.0.0.1", int(asked.split()[1].rpartition(b":")[2])))
                    near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                    for ends in (near, far), (far, near):
                        threading.Thread(target=pump, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def test_through_a_proxy(ssad, serving):
    with _proxy(lambda near: near) as proxy:
        done = curl(ssad, serving("web"), "-x", f"http://127.0.0.1:{proxy}")
        assert done.stdout == b"hello from the web\n", done.stderr
        refused = curl(ssad, serving("web"), "-x", f"http://127.0.0.1:{proxy}", host="wrong.test")
    assert b"expected DNS wrong.test" in refused.stderr


def test_a_stream_that_is_half_closed_keeps_its_tcp_open(ssad, pki):
    seen = []

    def serve(tls, _tcp):
        while tls.recv(1000):
            pass
        with socket.socket(fileno=os.dup(tls.fileno())) as tcp:
            try:
                seen.append(tcp.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
            except BlockingIOError:
                seen.append("open")
        tls.sendall(b"answer")
        tls.unwrap()

    with python_server(pki, serve) as port:
        done = run(ssad, (["socat", "-t", "10", "-", f"OPENSSL:localhost:{port}"], b"question"))
    assert (done.stdout, done.returncode, seen) == (b"answer", 0, ["open"])


# --- what ssa cannot do ----------------------------------------------------------------------------------------------

IN_MEMORY = (
    "import ssl, socket, sys\n"
    "near, far, c = ssl.MemoryBIO(), ssl.MemoryBIO(), ssl.create_default_context(cafile=sys.argv[2])\n"
    "tls = c.wrap_bio(near, far, server_hostname='localhost')\n"
    "tcp = socket.create_connection(('localhost', int(sys.argv[1])))\n"
    "while True:\n"
    "    try:\n"
    "        tls.do_handshake(); break\n"
    "    except ssl.SSLWantReadError:\n"
    "        tcp.sendall(far.read()); near.write(tcp.recv(65536))\n"
    "print(tls.version())"
)


def _fallbacks(ssad):
    return [int(ssad.get(f"stats/{name}")) for name in ("fallbacks", "fallbacks_refused")]


def test_tls_in_memory_is_refused_or_left_to_openssl(ssad, serving, pki):
    command = [programs.PYTHON, "-c", IN_MEMORY, serving("web"), pki.ca]
    left, refused = _fallbacks(ssad)
    made = counted(ssad)[0]
    done = run(ssad, command)
    assert b"coercion is strict" in done.stderr
    assert _fallbacks(ssad) == [left, refused + 1]
    ssad.set("coercion", "fallback")
    assert run(ssad, command).stdout == b"TLSv1.3\n"
    assert _fallbacks(ssad) == [left + 1, refused + 1]
    assert "left to the program's own TLS library" in ssad.log
    assert counted(ssad)[0] == made


def test_tls_within_tls_is_refused_or_left_to_openssl(ssad, serving, pki):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)
    with _proxy(lambda near: context.wrap_socket(near, server_side=True)) as proxy:
        options = ("-x", f"https://localhost:{proxy}", "--cacert", pki.ca, "--proxy-cacert", pki.ca)
        made = counted(ssad)[0]
        refused = curl(ssad, serving("web"), *options)
        assert b"within another TLS connection" in refused.stderr
        ssad.set("coercion", "fallback")
        assert curl(ssad, serving("web"), *options).stdout == b"hello from the web\n"
        assert counted(ssad)[0] == made + 2  # with the proxy


def test_openssls_dtls_is_refused(ssad, pki):
    with datagrams.gnutls_server(pki) as (port, _):
        command = ["socat", "-T", "2", "-", f"OPENSSL-DTLS-CLIENT:localhost:{port},verify=0"]
        refused = run(ssad, (command, b"hello\n"))
        assert refused.returncode
        assert b"cannot do this for the program: DTLS by OpenSSL" in refused.stderr


def test_openssls_own_bio_is_refused_or_left_to_openssl(ssad, pki, monkeypatch):
    for coercion, answers in ("strict", False), ("fallback", True):
        ssad.set("coercion", coercion)
        port = free_port()
        files = ("-cert", pki.cert, "-key", pki.key)
        environment = {"env": {**ssad.environment, "PATH": "/usr/bin:/bin"}, "stdin": subprocess.DEVNULL}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with program("openssl", "s_server", "-www", "-accept", port, *files, port=port, **environment, **quiet):
            done = subprocess.run(
                ["curl", "-sS", "-m", "3", "--cacert", pki.ca, f"https://localhost:{port}/"],
                capture_output=True,
                timeout=20,
                check=False,
            )
        assert (b"Ciphers supported" in done.stdout) is answers


def test_openssl_s_client(ssad, pki):
    with openssl(pki, "-www") as (port, _):
        command = ["openssl", "s_client", "-quiet", "-connect", f"localhost:{port}", "-servername", "localhost"]
        done = run(ssad, (command, b"GET / HTTP/1.0\r\n\r\n"))
    assert b"Ciphers supported" in done.stdout, done.stderr
