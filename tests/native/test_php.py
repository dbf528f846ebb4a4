"""clients/php against real servers: streams, classes, STARTTLS, listeners; and bad luck."""

import json
import os
import re
import socket
import ssl
import subprocess
import threading
import urllib.request

import pytest

from tests import peers
from tests.mailservers import dovecot
from tests.native.languages import DOCS, HOST, PHP, killed, run
from tests.native.test_c_bad_luck import LIES, Liar
from tests.peers import Daemon

once = pytest.mark.skipif(not HOST, reason="tested on this machine's own kernel")

BEGIN = """
use Ssa\\Connection; use Ssa\\Listener; use Ssa\\SsaException; use Ssa\\StreamWrapper;
$port = (int) getenv('PORT');
function say(mixed ...$words): void {
    echo implode(' ', array_map(static fn ($word) => is_string($word) ? $word : json_encode($word), $words)), "\\n";
}
function told(callable $act): mixed {
    try { return $act(); } catch (SsaException $e) { return "$e->errno $e->reason $e->whoseFault"; }
}
function descriptors(): int { return count(scandir('/proc/self/fd')); }
"""


@pytest.fixture(scope="module")
def web(pki, tmp_path_factory):
    directory = tmp_path_factory.mktemp("web")
    (directory / "large").write_bytes(bytes(range(256)) * 8192)
    with peers.nginx(pki, directory) as port:
        yield port


@pytest.fixture
def php(ssad, tmp_path):
    """Runs a program of PHP's; its warnings are lines that begin with "warning: "."""

    def go(program, environment=ssad.environment, **words):
        return run("php", BEGIN + program, environment, directory=tmp_path, **words)

    return go


# --- streams ---


def test_a_stream(php, web):
    said = php(
        """
$stream = fopen("ssa://localhost:$port", 'r+');
fwrite($stream, "GET /hello HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n");
say(rtrim(fgets($stream)), feof($stream));
while (rtrim(fgets($stream)) !== '');
say(stream_get_contents($stream), feof($stream), fread($stream, 10));
say(Connection::of($stream)->info()['version'], Connection::of($stream)->info()['identity']);
$peer = openssl_x509_parse(Connection::of($stream)->peerCertificates());
say(str_contains($peer['extensions']['subjectAltName'], 'DNS:localhost'));
say(Connection::of($stream)->peerName() === "127.0.0.1:$port");
fclose($stream);
""",
        PORT=web,
    )
    assert said == ["HTTP/1.1 200 OK false", "hello from nginx", " true ", "TLSv1.2 localhost", "true", "true"]


def test_much_through_streams(php, web):
    said = php(
        """
$stream = fopen("ssa://localhost:$port", 'r+');
fwrite($stream, "GET /large HTTP/1.0\\r\\n\\r\\n");
while (rtrim(fgets($stream)) !== '');
$copy = fopen('php://temp', 'w+');
say(stream_copy_to_stream($stream, $copy));
rewind($copy);
say(stream_get_contents($copy) === str_repeat(implode('', array_map('chr', range(0, 255))), 8192));
""",
        PORT=web,
    )
    assert said == ["2097152", "true"]


def test_without_waiting(php, pki):
    """stream_set_blocking, stream_select, and a time to wait in."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            while data := tls.recv(100):
                tls.sendall(data)
            tls.unwrap()

    with peers.script(serve) as port:
        said = php(
            """
$stream = fopen("ssa://localhost:$port", 'r+');
say(stream_set_timeout($stream, 0, 50000), fread($stream, 10), Connection::of($stream)->timedOut(), feof($stream));
say(stream_set_blocking($stream, false), fread($stream, 10), feof($stream));
$selected = static function (float $seconds) use ($stream): int {
    $read = [$stream];
    $none = null;
    return stream_select($read, $none, $none, 0, (int) ($seconds * 1000000));
};
say($selected(0.05));
fwrite($stream, 'hello');
say($selected(5), fread($stream, 100));
$connection = Connection::of($stream);
$connection->shutdown();
say($connection->isReadable(5), fread($stream, 10), feof($stream));
fclose($stream);
""",
            PORT=port,
        )
    assert said == ["true  true false", "true  false", "0", "1 hello", "true  true"]


def test_what_a_context_asks_for(php, pki):
    cert, key = pki.issue("php-client", "client@example.test")
    verify = ("-Verify", 1, "-verify_return_error", "-CAfile", pki.ca, "-alpn", "http/1.1", "-www", "-tls1_3")
    with peers.openssl(pki, *verify) as (port, _):
        said = php(
            """
$options = ['local_cert' => getenv('CERT'), 'local_pk' => getenv('KEY'), 'cafile' => getenv('CA'),
    'peer_name' => 'example.test', 'alpn_protocols' => 'h2,http/1.1', 'min_version' => 'TLSv1.3', 'timeout' => 10,
    'verify_peer' => true];
$stream = fopen("ssa://127.0.0.1:$port", 'r+', false, stream_context_create(['ssa' => $options]));
$info = Connection::of($stream)->info();
say($info['version'], $info['alpn'], $info['identity'], $info['cipher'], $info['resumed']);
fwrite($stream, "GET / HTTP/1.0\\r\\n\\r\\n");
say(rtrim(fgets($stream)));
fclose($stream);
say(told(fn () => Connection::connect('localhost', $port, ['max_version' => 'TLSv1.2'])));
$mixed = ['local_cert' => getenv('CERT'), 'local_pk' => file_get_contents(getenv('OTHER'))];
say(told(fn () => Connection::connect('localhost', $port, $mixed)));
""",
            PORT=port,
            CERT=cert,
            KEY=key,
            CA=pki.ca,
            OTHER=pki.key,
        )
    assert said[:2] == ["TLSv1.3 http/1.1 example.test TLS_AES_256_GCM_SHA384 false", "HTTP/1.0 200 ok"]
    assert said[2].split()[1] in ("PEER_ALERT", "UNSUPPORTED_VERSION")
    assert said[3].startswith("22 KEY_MISMATCH caller")


def test_failures_are_warnings_of_streams_and_exceptions_of_classes(php, web):
    said = php(
        """
$options = stream_context_create(['ssa' => ['peer_name' => 'wrong.example']]);
say(fopen("ssa://127.0.0.1:$port", 'r+', false, $options));
say(@fopen('ssa://127.0.0.1:1', 'r+'), StreamWrapper::lastError()->errno === SOCKET_ECONNREFUSED);
say(told(fn () => Connection::connect('127.0.0.1', $port, ['peer_name' => 'wrong.example'])));
say(told(fn () => Connection::connect('127.0.0.1', $port, ['verify_peer' => false])));
say(told(fn () => Connection::connect('127.0.0.1', $port, ['ciphers' => 'HIGH'])));
say(told(fn () => Connection::connect('127.0.0.1', $port, ['session_ttl' => 5])));
say(told(fn () => Connection::connect('127.0.0.1', $port, ['cafile' => '/no/such/file'])));
say(@fopen('ssa://localhost', 'r'), @fopen('ssa://user@localhost:1', 'r'), StreamWrapper::lastError()->reason);
""",
        PORT=web,
    )
    assert said[0].startswith("warning: [HOSTNAME_MISMATCH] certificate is for another name: ")
    assert said[0].endswith("Connect by a name that the certificate is for")
    assert said[1].startswith("warning: fopen(")
    errors = [line for line in said[2:] if not line.startswith("warning: ")]
    assert errors == [
        "false",
        "false true",
        "129 HOSTNAME_MISMATCH peer",
        "13 POLICY_DENIED policy",
        "22 BAD_VALUE caller",
        "95 NO_COUNTERPART caller",
        "2  system",
        "false false BAD_VALUE",
    ]


def test_a_cut_stream_is_no_end(php, pki):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"half of")
            socket.socket(fileno=tls.detach()).close()

    with peers.script(serve) as port:
        said = php(
            """
$stream = fopen("ssa://localhost:$port", 'r');
say(stream_get_contents($stream), feof($stream), StreamWrapper::lastError()->errno === SOCKET_ECONNABORTED);
say(told(fn () => Connection::connect('localhost', $port)->readAll()));
""",
            PORT=port,
        )
    assert said == [
        "warning: the connection was cut: its end came without TLS's close_notify",
        "half of true true",
        "103  system",
    ]


# --- STARTTLS, and listeners ---


def test_starttls_with_a_mail_server(php, pki):
    with dovecot(pki) as ports:
        said = php(
            """
$plain = stream_socket_client("tcp://127.0.0.1:$port");
say(str_starts_with(fgets($plain), '* OK'));
fwrite($plain, "a STARTTLS\\r\\n");
say(str_starts_with(fgets($plain), 'a OK'));
$tls = Connection::upgrade($plain, 'localhost')->stream();
say(is_resource($plain));
fwrite($tls, "b LOGOUT\\r\\n");
say(str_contains(stream_get_contents($tls), 'b OK'), Connection::of($tls)->info()['version']);
""",
            PORT=ports["imap"],
        )
    assert said == ["true", "true", "false", "true TLSv1.3"]


@once
def test_plain_text_behind_the_agreement_is_refused(php):
    def serve(connection):
        connection.sendall(b"220 go ahead\r\n250 injected\r\n")
        connection.recv(10000)

    with peers.script(serve) as port:
        said = php(
            """
$plain = stream_socket_client("tcp://127.0.0.1:$port");
fgets($plain);
say(told(fn () => Connection::upgrade($plain, 'localhost')), is_resource($plain));
say(told(fn () => Connection::upgrade('no stream', 'localhost')));
""",
            PORT=port,
        )
    assert said == ["71 PLAINTEXT_PENDING peer false", "22 BAD_VALUE caller"]


def test_a_listener(php, pki, tmp_path):
    """It gives connections whose handshake is done; and a plain connection can be upgraded as a server."""
    tell, seen = tmp_path / "port", []
    context = ssl.create_default_context(cafile=pki.ca)
    context.set_alpn_protocols(["http/1.1"])

    def client():
        assert peers.settled(lambda: tell.exists() and tell.read_text().count("\n") == 2)
        for number, line in enumerate(tell.read_text().split()):
            tcp = socket.create_connection(("127.0.0.1", int(line.rpartition(":")[2])))
            if number:
                tcp.sendall(b"STARTTLS\n")
                tcp.recv(100)
            with context.wrap_socket(tcp, server_hostname="localhost") as tls:
                tls.sendall(b"hello")
                seen.append(tls.recv(100))
                tls.unwrap()

    thread = threading.Thread(target=client)
    thread.start()
    said = php(
        """
$options = ['local_cert' => getenv('CERT'), 'local_pk' => getenv('KEY'), 'alpn_protocols' => 'h2,http/1.1'];
$listener = Listener::listen('127.0.0.1', 0, $options);
$server = stream_socket_server('tcp://127.0.0.1:0');
say($listener->accept(0.05));
file_put_contents(getenv('TELL'), $listener->name() . "\\n" . stream_socket_get_name($server, false) . "\\n");
$connection = $listener->accept(10);
say($connection->info()['alpn'], $connection->info()['server_name'], $connection->read());
$connection->write('one');
say($connection->read(), $connection->eof());
$connection->close();
$plain = stream_socket_accept($server);
fgets($plain);
fwrite($plain, "go ahead\\n");
$connection = Connection::upgradeServer($plain, $options);
say($connection->read());
$connection->write('two');
say($connection->read(), $connection->eof());
say(told(fn () => Listener::listen('127.0.0.1', 0, ['bindto' => '127.0.0.1'])));
say(told(fn () => Listener::listen('127.0.0.1', 0)), told(fn () => Listener::listen('localhost', 0)));
""",
        CERT=pki.cert,
        KEY=pki.key,
        TELL=tell,
    )
    thread.join(10)
    assert seen == [b"one", b"two"]
    assert said == [
        "null",
        "http/1.1 localhost hello",
        " true",
        "hello",
        " true",
        "95 NO_COUNTERPART caller",
        "126 NO_CREDENTIALS caller 22 BAD_VALUE caller",
    ]


# --- bad luck ---


@once
def test_no_ssad(php, tmp_path):
    said = php(
        """
say(fopen('ssa://127.0.0.1:1', 'r'));
say(told(fn () => Listener::listen('127.0.0.1', 0)));
""",
        environment={"SSA_RUN_DIR": str(tmp_path)},
    )
    assert said[0].startswith("warning: no ssad listens at")
    assert "start it with `ssad`" in said[0]
    assert said[2:] == ["false", "111  system"]


@once
@pytest.mark.parametrize("lie", LIES)
def test_an_ssad_that_lies(lie, php, tmp_path):
    answer, number, _ = LIES[lie]
    with Liar(tmp_path, answer).socket, peers.script(lambda connection: connection.recv(100)) as port:
        said = php(
            """
told(fn () => Connection::connect('127.0.0.1', $port));
$before = descriptors();
say(told(fn () => Connection::connect('127.0.0.1', $port)), descriptors() - $before);
""",
            environment={"SSA_RUN_DIR": str(tmp_path)},
            PORT=port,
        )
    code = {"EIO": 5, "EPROTONOSUPPORT": 93, "EMFILE": 24}[number]
    assert said == [f"{code}  system 0"]


@once
def test_an_ssad_that_dies(php, pki, tmp_path):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"hello")
            tls.recv(100)

    policy = f'[policy]\ntrust_store = "{pki.ca}"\n'
    with (
        Daemon(tmp_path, policy=policy) as daemon,
        peers.script(serve) as port,
        killed(daemon, tmp_path / "kill") as tell,
    ):
        said = php(
            """
$connection = Connection::connect('localhost', $port);
say($connection->read());
file_put_contents(getenv('TELL'), 'kill it');
say(told(fn () => $connection->read()));
say(told(fn () => Connection::connect('localhost', $port)));
""",
            environment=daemon.environment,
            PORT=port,
            TELL=tell,
        )
    assert said == ["hello", "103  system", "111  system"]


def forbidden(tmp_path, *settings):
    script = tmp_path / "forbidden.php"
    script.write_text(f"<?php require '{PHP}/autoload.php'; fopen('ssa://localhost:1', 'r');")
    done = subprocess.run(["php", *settings, script], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0
    return done.stdout + done.stderr


@once
def test_ffi_that_is_not_there_is_said_with_what_to_do(tmp_path):
    disabled = forbidden(tmp_path, "-d", "ffi.enable=0")
    assert "ssa needs FFI and libssa.so: php.ini forbids FFI (ffi.enable); put `ffi.enable = preload`" in disabled
    assert f"opcache.preload = {PHP}/preload.php" in disabled
    missing = forbidden(tmp_path, "-n")
    assert "PHP's extension FFI is not loaded: install it" in missing


@once
def test_a_libssa_that_is_not_there_is_said_with_what_to_do(php):
    program = "say(@fopen('ssa://localhost:1', 'r'), StreamWrapper::lastError()->getMessage());"
    said = php(program, SSA_LIBSSA="/no/libssa.so")
    assert "/no/libssa.so" in said[-1]
    assert "`make native`" in said[-1]
    assert "SSA_LIBSSA says where it is" in said[-1]


def test_no_descriptor_is_left_over(php, web):
    said = php(
        """
$once = static function () use ($port): void {
    $stream = fopen("ssa://localhost:$port", 'r+');
    fwrite($stream, "GET /hello HTTP/1.0\\r\\n\\r\\n");
    stream_get_contents($stream);
    $read = [$stream];
    $none = null;
    stream_select($read, $none, $none, 0);
    told(fn () => Connection::connect('127.0.0.1', $port, ['peer_name' => 'wrong.example', 'cafile' => getenv('CA')]));
    $left = Connection::connect('localhost', $port); // and nobody closes it
};
$once();
$before = descriptors();
for ($count = 0; $count < 25; $count++) {
    $once();
}
say(descriptors() - $before);
""",
        PORT=web,
        CA="/etc/ssl/certs/ca-certificates.crt",
    )
    assert said == ["0"]


SITE = """<?php
require 'LIBRARY/autoload.php';
$stream = fopen('ssa://localhost:PORT', 'r+');
fwrite($stream, "GET /hello HTTP/1.0\\r\\n\\r\\n");
echo stream_get_contents($stream), '|', count(scandir('/proc/self/fd'));
Ssa\\Connection::connect('localhost', PORT); // which the end of the request closes
"""


@once
@pytest.mark.parametrize("settings", [("ffi.enable=1",), ("ffi.enable=preload", f"opcache.preload={PHP}/preload.php")])
def test_many_requests_in_one_process(settings, ssad, web, tmp_path):
    """PHP's own web server: FFI allowed for all, and for what is preloaded only."""
    (tmp_path / "index.php").write_text(SITE.replace("LIBRARY", str(PHP)).replace("PORT", str(web)))
    port = peers.free_port()
    preload = ("-d", "opcache.enable_cli=1", "-d", "opcache.preload_user=root") if len(settings) == 2 else ()
    words = [word for setting in settings for word in ("-d", setting)]
    command = ["php", *words, *preload, "-S", f"127.0.0.1:{port}", "-t", tmp_path]
    with peers.program(*command, port=port, env=os.environ | ssad.environment, stderr=subprocess.DEVNULL):
        counts = []
        for _ in range(25):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as page:
                text, _, count = page.read().decode().rpartition("|")
            assert "hello from nginx" in text
            counts.append(int(count))
    assert max(counts) - counts[1] <= 1  # the server's own connections come and go


# --- the package ---


@once
def test_composers_file_names_what_there_is():
    package = json.loads((PHP / "composer.json").read_text())
    assert "ext-ffi" in package["require"]
    assert all((PHP / path).is_file() for path in package["autoload"]["files"])
    preloaded = re.findall(r"'(\w+)'", re.search(r"\[(.*?)\]", (PHP / "preload.php").read_text()).group(1))
    assert {path.stem for path in (PHP / "src").glob("*.php")} - {"register"} == set(preloaded)


@once
def test_the_example(ssad, web):
    command = ["php", "-d", "ffi.enable=1", PHP / "examples" / "fetch.php"]
    for url, output, status in [
        (f"https://localhost:{web}/hello", "hello from nginx\n", 0),
        (f"https://localhost:{web}/nothing", "404", 1),
        (f"https://127.0.0.2:{web}/", "", 1),
        ("", "", 2),
    ]:
        done = subprocess.run(
            [*command, *([url] if url else [])],
            env=os.environ | ssad.environment,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == status, done
        assert output in done.stdout + done.stderr


@once
def test_the_page(ssad, web, tmp_path):
    """Its program runs, and its table has the options that there are."""
    page = (DOCS / "php.md").read_text()
    (program,) = re.findall(r"```php\n<\?php\n(.*?)```", page, re.DOTALL)
    program = program.replace("clients/php", str(PHP)).replace("ssa://example.org:443", f"ssa://localhost:{web}")
    assert (
        run("php", program.replace("GET / ", "GET /hello "), ssad.environment, directory=tmp_path)[-1]
        == "hello from nginx"
    )
    (known,) = re.findall(r"const KNOWN = \[(.*?)\];", (PHP / "src" / "Options.php").read_text(), re.DOTALL)
    assert set(re.findall(r"'(\w+)' =>", known)) <= set(re.findall(r"`(\w+)`", page))
