"""clients/node against real servers: HTTP by https, http2 and fetch; a server of its own; STARTTLS; what it refuses."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from threading import Thread

import pytest

from tests import peers
from tests.mailservers import dovecot
from tests.native.conftest import PATHS
from tests.native.languages import DOCS, HOST, NODE, run

WAYS = PATHS if PATHS == ["relay"] else ["ktls-or-relay"]
once = pytest.mark.skipif(not HOST, reason="tested on this machine's own kernel")


@pytest.fixture(params=WAYS)
def ssad(request, cleaned):
    """Node asks for a relay: what the policy says besides."""
    cleaned.set("data_path", request.param)
    return cleaned


@pytest.fixture(scope="module")
def web(pki, tmp_path_factory):
    """nginx, which speaks HTTP/2 on another port: both are told."""
    directory = tmp_path_factory.mktemp("web")
    (directory / "page.txt").write_text("hello")
    (directory / "large").write_bytes(bytes(range(256)) * 8192)
    second = peers.free_port()
    with peers.nginx(pki, directory, f"listen 127.0.0.1:{second} ssl http2;") as port:
        yield port, second


@pytest.fixture
def node(ssad, tmp_path):
    """Runs a program of Node's, which has `ssa` and `say`."""

    def go(program, **words):
        begin = "const say = (...words) => console.log(...words);\n"
        return run("node", begin + program, ssad.environment, directory=tmp_path, **words)

    return go


def test_https_by_an_agent(node, web):
    said = node(
        """
const https = require('https');
const agent = new ssa.Agent({ keepAlive: true });
const get = (path) => new Promise((resolve, reject) => {
  https.get({ host: 'localhost', port: process.env.PORT, path, agent }, (response) => {
    const parts = [], { socket } = response;
    response.on('data', (part) => parts.push(part));
    response.on('end', () => resolve([response.statusCode, Buffer.concat(parts), socket]));
  }).on('error', reject);
});
(async () => {
  const [status, hello, first] = await get('/page.txt');
  say(status, String(hello), first.authorized, first.encrypted, first.getProtocol(), first.getPeerIdentity());
  say(first.remoteAddress, first.remotePort === +process.env.PORT, first.localAddress);
  say(first.getPeerCertificate().subjectaltname.includes('DNS:localhost'));
  await new Promise(setImmediate);
  const [, large, second] = await get('/large');
  say(large.length, large.equals(Buffer.alloc(2097152, Buffer.from(Array.from({ length: 256 }, (_, at) => at)))));
  say(first === second);
  agent.destroy();
})();
""",
        PORT=web[0],
    )
    assert said == [
        "200 hello true true TLSv1.2 localhost",
        "127.0.0.1 true 127.0.0.1",
        "true",
        "2097152 true",
        "true",
    ]


def test_http2(node, web):
    said = node(
        """
const http2 = require('http2');
const socket = ssa.connect({ host: 'localhost', port: process.env.PORT, ALPNProtocols: ['h2'] });
const session = http2.connect('https://localhost', { createConnection: () => socket });
const request = session.request({ ':path': '/large' });
let size = 0;
request.on('response', (headers) => say(headers[':status'], socket.alpnProtocol));
request.on('data', (part) => { size += part.length; });
request.on('end', () => { say(size); session.close(); });
session.on('close', () => say('closed'));
""",
        PORT=web[1],
    )
    assert said == ["200 h2", "2097152", "closed"]


def test_fetch(node, web):
    said = node(
        """
(async () => {
  await fetch('http://127.0.0.1:1').catch(() => {}); // so that Node's own undici is loaded
  const { constructor: Undici } = globalThis[Symbol.for('undici.globalDispatcher.1')];
  const dispatcher = new Undici({ connect: ssa.connector() });
  const response = await fetch(`https://localhost:${process.env.PORT}/page.txt`, { dispatcher });
  say(response.status, await response.text());
  const stranger = new Undici({ connect: ssa.connector({ servername: 'wrong.example' }) });
  const refused = fetch(`https://localhost:${process.env.PORT}/`, { dispatcher: stranger });
  const wrong = await refused.catch((error) => error.cause);
  say(wrong.code, wrong.reason);
  await Promise.all([dispatcher.close(), stranger.close()]);
})();
""",
        PORT=web[0],
    )
    assert said == ["200 hello", "EKEYREJECTED HOSTNAME_MISMATCH"]


def test_it_is_relayed_whatever_the_kernel_can_do(node, ssad, web):
    said = node(
        """
const fs = require('fs');
const socket = ssa.connect({ host: 'localhost', port: process.env.PORT }, () => {
  const [id] = fs.readdirSync(`${process.env.SSA_MOUNT}/sockets`);
  say(fs.readFileSync(`${process.env.SSA_MOUNT}/sockets/${id}/data_path`, 'utf8').trim());
  socket.destroy();
});
""",
        PORT=web[0],
    )
    assert said == ["relay"]


def test_a_policy_without_a_relay_refuses_with_words(node, ssad, web):
    ssad.set("data_path", "ktls")
    said = node(
        """
ssa.connect({ host: 'localhost', port: process.env.PORT }).on('error', (error) => {
  say(error.name, error.code, error.errno, error.reason, error.whoseFault);
  say(error.message);
});
""",
        PORT=web[0],
    )
    assert said[0] == "SSAError EACCES -13 POLICY_DENIED policy"
    assert "data_path" in said[1]


def test_an_error_says_whose_fault_it_is(node, ssad, web):
    said = node(
        """
const tell = ({ code, reason, whoseFault, message }) => say(code, reason, whoseFault, message);
const port = process.env.PORT;
const stranger = { host: '127.0.0.1', servername: 'wrong.example', port, rejectUnauthorized: false };
ssa.connect(stranger).on('error', (error) => {
  tell(error);
  ssa.connect({ host: '127.0.0.1', port: 1 }).on('error', (refused) => {
    say(refused.code, refused.syscall);
    ssa.connect({ host: 'localhost', port, ca: '/no/such/file' }).on('error', (missing) => {
      say(missing.code, missing.path);
      ssa.connect({ host: 'localhost', port, minVersion: 'TLSv1.3', maxVersion: 'TLSv1.2' }).on('error', tell);
    });
  });
});
""",
        PORT=web[0],
    )
    assert said[0].startswith("EKEYREJECTED HOSTNAME_MISMATCH peer [HOSTNAME_MISMATCH] certificate is for another name")
    assert "Connect by a name that the certificate is for" in said[0]
    assert said[1:3] == ["ECONNREFUSED connect", "ENOENT /no/such/file"]
    assert said[3].startswith("EACCES POLICY_DENIED policy")
    assert 'unverified="asked for by the program, and not done"' in ssad.log


@once
def test_what_cannot_be_done_is_refused(node):
    said = node(
        """
const told = (act) => { try { act(); say('it was done'); } catch (error) { say(error.code, error.reason); } };
told(() => ssa.connect({ host: 'localhost', port: 1, ciphers: 'HIGH' }));
told(() => ssa.connect({ host: 'localhost', port: 1, checkServerIdentity: () => undefined }));
told(() => ssa.connect({ host: 'localhost', port: 1, minVersion: 'TLSv1' }));
told(() => ssa.connect({ host: 'localhost', port: 1, ALPNProtocols: Buffer.from('x') }));
told(() => ssa.createServer({ pfx: 'x' }));
told(() => ssa.TLSSocket.prototype.exportKeyingMaterial());
told(() => new ssa.Agent().createConnection({ socketPath: '/x' }));
"""
    )
    assert said == [
        *["EOPNOTSUPP NO_COUNTERPART"] * 2,
        *["EINVAL BAD_VALUE"] * 2,
        *["EOPNOTSUPP NO_COUNTERPART"] * 3,
    ]


def test_a_certificate_of_its_own_and_anchors(node, pki, tmp_path):
    cert, key = pki.issue("client", "client@example.test")
    with peers.openssl(pki, "-Verify", 1, "-verify_return_error", "-CAfile", pki.ca, "-www") as (port, _):
        said = node(
            """
const fs = require('fs');
const { PORT: port, CERT, KEY, CA } = process.env;
const get = (options) => new Promise((resolve) => {
  let text = '';
  const socket = ssa.connect({ host: 'localhost', port, ...options });
  socket.end('GET / HTTP/1.0\\r\\n\\r\\n');
  socket.on('data', (part) => { text += part; }).on('end', () => resolve(text.split('\\r')[0]));
  socket.on('error', (error) => resolve(error.code));
});
(async () => {
  say(await get({ cert: CERT, key: KEY, ca: CA }));
  say(await get({ cert: fs.readFileSync(CERT), key: fs.readFileSync(KEY, 'utf8'), ca: [fs.readFileSync(CA)] }));
  say(await get({ cert: CERT, key: process.env.OTHER }));
})();
""",
            PORT=port,
            CERT=cert,
            KEY=key,
            CA=pki.ca,
            OTHER=pki.key,
        )
    assert said == ["HTTP/1.0 200 ok", "HTTP/1.0 200 ok", "EINVAL"]


def test_a_server_of_http_and_http2(node, pki):
    said = node(
        """
const http = require('http'), http2 = require('http2'), https = require('https');
const answer = (request, response) => { response.end(`${request.httpVersion} ${request.socket.servername}`); };
const one = http.createServer(answer), two = http2.createServer(answer);
const serve = (socket) => (socket.alpnProtocol === 'h2' ? two : one).emit('connection', socket);
const options = { cert: process.env.CERT, key: process.env.KEY, ALPNProtocols: ['h2', 'http/1.1'] };
const server = ssa.createServer(options, serve);
server.on('tlsClientError', (error) => say('refused', error.code, error.whoseFault));
server.listen(0, '127.0.0.1', () => {
  const { port } = server.address();
  https.get({ host: 'localhost', port, agent: new ssa.Agent() }, (response) => response.on('data', (part) => {
    say(String(part));
    const socket = ssa.connect({ host: 'localhost', port, ALPNProtocols: ['h2'] });
    const session = http2.connect('https://localhost', { createConnection: () => socket });
    session.request({ ':path': '/' }).on('data', (body) => {
      say(String(body));
      session.close();
      ssa.connect({ host: '127.0.0.1', servername: 'wrong.example', port }).on('error', (error) => {
        say(error.code);
        setTimeout(() => process.exit(), 200); // the server is told of it
      });
    });
  }));
});
""",
        CERT=pki.cert,
        KEY=pki.key,
    )
    assert said[:2] == ["1.1 localhost", "2.0 localhost"]
    assert sorted(said[2:]) == ["EKEYREJECTED", "refused EPROTO peer"]


@once
def test_much_goes_up_no_faster_than_it_is_read(node, pki):
    said = node(
        """
const http = require('http'), { Readable } = require('stream');
const web = http.createServer((request, response) => {
  let size = 0;
  request.on('data', (part) => { size += part.length; }).on('end', () => response.end(String(size)));
});
const options = { cert: process.env.CERT, key: process.env.KEY };
const server = ssa.createServer(options, (socket) => web.emit('connection', socket)).listen(0, '127.0.0.1', () => {
  const to = { host: 'localhost', port: server.address().port, method: 'POST', agent: new ssa.Agent() };
  const request = require('https').request(to, (response) => {
    response.on('data', (part) => say(String(part))).on('end', () => server.close(() => say('closed')));
  });
  let count = 0;
  new Readable({ read() { count += 1; this.push(count <= 320 ? Buffer.alloc(65536) : null); } }).pipe(request);
});
""",
        CERT=pki.cert,
        KEY=pki.key,
    )
    assert said == ["20971520", "closed"]


def test_a_server_that_may_not_serve_says_so_when_it_listens(node):
    said = node(
        """
const server = ssa.createServer({});
server.on('error', (error) => say(error.code, error.reason, server.listening)).listen(0);
"""
    )
    assert said == ["ENOKEY NO_CREDENTIALS false"]


def test_clients_that_have_no_certificate_are_refused(node, pki):
    said = node(
        """
const server = ssa.createServer({ cert: process.env.CERT, key: process.env.KEY, requestCert: true }, () => say('in'));
server.on('tlsClientError', (error) => { say(error.reason); server.close(); });
server.listen(0, '127.0.0.1', () => {
  ssa.connect({ host: 'localhost', port: server.address().port }).on('error', () => {});
});
""",
        CERT=pki.cert,
        KEY=pki.key,
    )
    assert said == ["NO_CERTIFICATE"]


def test_starttls_with_a_mail_server(node, pki):
    with dovecot(pki) as ports:
        said = node(
            """
const net = require('net');
const plain = net.connect({ host: '127.0.0.1', port: process.env.PORT });
plain.once('data', (greeting) => {
  say(String(greeting).startsWith('* OK'));
  plain.write('a STARTTLS\\r\\n');
  plain.once('data', (begin) => {
    say(String(begin).startsWith('a OK'));
    const tls = ssa.connect({ socket: plain, host: 'localhost' }, () => tls.write('b LOGOUT\\r\\n'));
    let text = '';
    tls.on('data', (part) => { text += part; }).on('end', () => say(text.includes('b OK'), tls.getProtocol()));
  });
});
""",
            PORT=ports["imap"],
        )
    assert said == ["true", "true", "true TLSv1.3"]


def test_plain_text_behind_the_agreement_is_refused(node):
    def serve(connection):
        connection.sendall(b"220 go ahead\r\n250 injected\r\n")
        connection.recv(10000)

    with peers.script(serve) as port:
        said = node(
            """
const net = require('net');
const plain = net.connect({ host: '127.0.0.1', port: process.env.PORT });
plain.once('readable', () => {
  plain.read(14);
  const tls = ssa.connect({ socket: plain, host: 'localhost' });
  tls.on('error', (error) => say(error.code, error.reason, plain.destroyed));
});
""",
            PORT=port,
        )
    assert said == ["EPROTO PLAINTEXT_PENDING true"]


def test_a_server_passes_on_what_it_has_read_already(node, pki):
    """A STARTTLS server whose client does not wait for the answer: the ClientHello is in Node's buffer."""
    program = """
const net = require('net');
net.createServer((plain) => plain.once('data', () => plain.once('readable', () => {
  const tls = ssa.accept(plain, { cert: process.env.CERT, key: process.env.KEY });
  tls.on('data', (part) => tls.end(part)).on('error', (error) => say(error.message));
  tls.on('close', () => process.exit());
}))).listen(0, '127.0.0.1', function listens() {
  require('fs').writeFileSync(process.env.TELL, String(this.address().port));
});
"""
    tell = pki.directory / "port"
    tell.unlink(missing_ok=True)
    seen = []

    def client():
        assert peers.settled(lambda: tell.exists() and tell.read_text() != "")
        context = ssl.create_default_context(cafile=pki.ca)
        tcp = socket.create_connection(("127.0.0.1", int(tell.read_text())))
        tcp.sendall(b"STARTTLS\r\n")
        time.sleep(0.2)
        with context.wrap_socket(tcp, server_hostname="localhost") as tls:
            tls.sendall(b"hello")
            seen.append(tls.recv(100))
            tls.unwrap()

    thread = Thread(target=client)
    thread.start()
    assert node(program, CERT=pki.cert, KEY=pki.key, TELL=tell) == []
    thread.join(10)
    assert seen == [b"hello"]


# --- the package ---


@once
def test_the_package_builds_by_itself(tmp_path, ssad, web):
    """What `npm install` runs needs a C compiler and make, and none of Node's headers."""
    package = tmp_path / "node_modules" / "ssa"
    shutil.copytree(NODE, package, ignore=shutil.ignore_patterns("build"))
    (script,) = re.findall(r'"install": "(\w+)"', (package / "package.json").read_text())
    begin = subprocess.run(["node", "-e", "require('ssa')"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "ssa's addon is not built: run `npm install`" in begin.stderr
    subprocess.run([script], cwd=package, check=True, capture_output=True)
    program = f"require('ssa').connect({{ host: 'localhost', port: {web[0]} }}, () => process.exit(7))"
    done = subprocess.run(["node", "-e", program], cwd=tmp_path, env=os.environ | ssad.environment, check=False)
    assert done.returncode == 7


@once
def test_the_types_name_what_there_is(tmp_path):
    types = (NODE / "index.d.ts").read_text()
    named = set(re.findall(r"^export (?:class|function) (\w+)", types, re.MULTILINE))
    (there,) = run("node", "console.log(Object.keys(ssa).sort().join(' '));", {}, directory=tmp_path)
    assert named == set(there.split())


@once
def test_the_examples(node, ssad, web, pki, tmp_path):
    environment = os.environ | ssad.environment
    fetch = [NODE / "examples" / "fetch.js", f"https://localhost:{web[0]}/page.txt"]
    done = subprocess.run(["node", *fetch], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("hello", "")
    port = peers.free_port()
    serve = ["node", NODE / "examples" / "server.js", port, pki.cert, pki.key]
    with peers.program(*serve, port=port, env=environment):
        fetch[1] = f"https://localhost:{port}/"
        done = subprocess.run(
            ["node", *fetch], env=environment, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.stdout == "hello by TLSv1.3\n"


@once
def test_the_page(ssad, web, pki, tmp_path):
    """Its programs run, and it names the options that are refused or taken."""
    page = (DOCS / "node.md").read_text()
    agent, connect, server = re.findall(r"```js\n(.*?)```", page, re.DOTALL)
    for program in (agent, connect):
        at = program.replace("'ssa'", repr(str(NODE))).replace("port: 443", f"port: {web[0]}")
        at = at.replace("example.org/", f"localhost:{web[0]}/page.txt").replace("GET / ", "GET /page.txt ")
        assert run_page(at.replace("example.org", "localhost"), ssad, tmp_path).endswith("hello")
    port = peers.free_port()
    files = f"{{ cert: {str(pki.cert)!r}, key: {str(pki.key)!r} }}"
    (tmp_path / "server.js").write_text(
        server.replace("'ssa'", repr(str(NODE))).replace("{}", files).replace("443", str(port))
    )
    with peers.program("node", tmp_path / "server.js", port=port, env=os.environ | ssad.environment):
        at = agent.replace("'ssa'", repr(str(NODE))).replace("example.org", f"localhost:{port}")
        assert run_page(at, ssad, tmp_path) == "hello, localhost\n"


def run_page(program, ssad, tmp_path):
    (tmp_path / "page.js").write_text(program)
    done = subprocess.run(
        ["node", tmp_path / "page.js"],
        env=os.environ | ssad.environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    return done.stdout
