"""clients/node and bad luck: no ssad, one that dies, stops or lies; destroyed sockets; many at once; threads."""

import os
import signal
import socket
import ssl
import threading
import time

import pytest

from tests import peers
from tests.native.languages import HOST, killed, run
from tests.native.test_c_bad_luck import LIES, Liar
from tests.peers import Daemon

pytestmark = pytest.mark.skipif(not HOST, reason="tested on this machine's own kernel")

BEGIN = """
const fs = require('fs');
const say = (...words) => console.log(...words);
const port = process.env.PORT;
const sleep = (milliseconds) => new Promise((resolve) => { setTimeout(resolve, milliseconds); });
const descriptors = () => fs.readdirSync('/proc/self/fd').length;
const ended = (socket) => new Promise((resolve) => {
  let error = null;
  socket.on('error', (failed) => { error = failed; }).on('close', () => resolve(error));
});
const get = (options) => new Promise((resolve) => {
  let text = '';
  const socket = ssa.connect({ host: 'localhost', port, ...options });
  socket.write('GET /hello HTTP/1.0\\r\\n\\r\\n');
  socket.on('data', (part) => { text += part; });
  socket.on('end', () => resolve(text.split('\\r')[0])).on('error', (error) => resolve(error.code));
});
"""


@pytest.fixture
def node(tmp_path):
    """Runs a program of Node's, under an environment that says where ssad is."""

    def go(program, environment, **words):
        return run("node", f"{BEGIN}(async () => {{\n{program}\n}})();\n", environment, directory=tmp_path, **words)

    return go


@pytest.fixture(scope="module")
def web(pki):
    """A server that takes as many connections as come, and answers each with a page."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(100)
            tls.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            tls.unwrap()

    with peers.script(serve) as port:
        yield port


def stalls(connection):
    """A server that never answers, and notes when its client has gone."""
    while connection.recv(10000):
        pass


# --- no ssad, and one that is not itself ---


def test_no_ssad(node, tmp_path):
    said = node(
        """
const error = await ended(ssa.connect({ host: '127.0.0.1', port: 1 }));
await sleep(50);
const before = descriptors();
say(error.code, error.whoseFault, error.message);
const server = ssa.createServer({}).on('error', (failed) => say(failed.code)).listen(0);
await sleep(50);
say(server.listening, descriptors() === before);
""",
        {"SSA_RUN_DIR": str(tmp_path)},
    )
    assert said[0].startswith("ECONNREFUSED system no ssad listens at")
    assert str(tmp_path) in said[0]
    assert "start it with `ssad`" in said[0]
    assert said[1:] == ["ECONNREFUSED", "false true"]


@pytest.mark.parametrize("lie", LIES)
def test_an_ssad_that_lies(lie, node, tmp_path):
    answer, number, _ = LIES[lie]
    with Liar(tmp_path, answer).socket, peers.script(stalls) as port:
        said = node(
            """
await ended(ssa.connect({ host: '127.0.0.1', port }));
const before = descriptors();
const socket = ssa.connect({ host: '127.0.0.1', port });
socket.write('plain text');
const error = await ended(socket);
await sleep(20);
say(error.name, error.code, descriptors() - before);
""",
            {"SSA_RUN_DIR": str(tmp_path)},
            PORT=port,
        )
    assert said == [f"SSAError {number} 0"]


def test_an_ssad_that_dies(node, pki, tmp_path):
    """In the middle of a handshake, and of a stream: the first fails, the second is cut."""

    def serve(connection):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pki.cert, pki.key)
        with context.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"hello")
            tls.recv(100)

    with (
        Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon,
        peers.script(serve) as port,
        peers.script(stalls) as stalling,
        killed(daemon, tmp_path / "kill") as tell,
    ):
        said = node(
            """
const streaming = ssa.connect({ host: 'localhost', port });
const cut = ended(streaming);
await new Promise((resolve) => { streaming.once('data', resolve); });
const shaking = ssa.connect({ host: 'localhost', port: process.env.STALLING });
const failed = ended(shaking);
await sleep(200);
fs.writeFileSync(process.env.TELL, 'kill it');
for (const error of [await failed, await cut]) say(error.name, error.code);
""",
            daemon.environment,
            PORT=port,
            STALLING=stalling,
            TELL=tell,
        )
    assert said[0] in ("SSAError EIO", "SSAError ECONNRESET")
    assert said[1] == "SSAError ECONNABORTED"


def test_an_ssad_that_is_stopped_holds_nobody_up(node, pki, tmp_path, web):
    """The event loop goes on, whatever ssad does. More connects than its queue has room for are made in the end."""
    with Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        said = node(
            """
say(await get());
process.kill(+process.env.SSAD, 'SIGSTOP');
let longest = 0, last = Date.now();
const ticks = setInterval(() => { longest = Math.max(longest, Date.now() - last); last = Date.now(); }, 5);
const many = Array.from({ length: 200 }, () => get());
await sleep(1500);
process.kill(+process.env.SSAD, 'SIGCONT');
clearInterval(ticks);
say(longest < 1000, (await Promise.all(many)).filter((line) => line === 'HTTP/1.1 200 OK').length);
process.kill(+process.env.SSAD, 'SIGSTOP');
const started = Date.now();
const error = await ended(ssa.connect({ host: 'localhost', port, handshakeTimeout: 100 }));
say(error.code, Date.now() - started < 3000);
process.kill(+process.env.SSAD, 'SIGCONT');
""",
            daemon.environment,
            PORT=web,
            SSAD=daemon.process.pid,
        )
        daemon.process.send_signal(signal.SIGCONT)
    assert said == ["HTTP/1.1 200 OK", "true 200", "ETIMEDOUT true"]


# --- sockets that are given up ---


def test_a_socket_that_is_destroyed_while_it_connects_leaves_nothing(node, cleaned):
    gone = []

    def serve(connection):
        stalls(connection)
        gone.append(True)

    with peers.script(serve) as port:
        said = node(
            """
await ended(ssa.connect({ host: 'localhost', port, handshakeTimeout: 50 }));
await sleep(50);
const before = descriptors();
const sockets = Array.from({ length: 20 }, () => ssa.connect({ host: 'localhost', port }));
const ends = sockets.map(ended);
for (const [at, socket] of sockets.entries()) {
  setTimeout(() => socket.destroy(), at * 5); // at each step
}
say((await Promise.all(ends)).every((error) => error === null));
const controller = new AbortController();
const aborted = ended(ssa.connect({ host: 'localhost', port, signal: controller.signal }));
setTimeout(() => controller.abort(), 50);
say((await aborted).name);
const request = require('https').get({ host: 'localhost', port, agent: new ssa.Agent() });
setTimeout(() => request.destroy(), 50);
say((await ended(request)).code);
await sleep(50);
say(descriptors() - before);
""",
            cleaned.environment,
            PORT=port,
        )
        assert said == ["true", "AbortError", "ECONNRESET", "0"]
        assert peers.settled(lambda: len(gone) >= 3)  # ssad has given the handshakes up, and closed
    assert peers.settled(lambda: cleaned.sockets() == [])


def test_what_was_not_sent_is_not_said_to_be_the_end(node, cleaned, pki):
    """`destroy` with unsent data, and `resetAndDestroy`, cut the stream; `destroy` with none ends it."""
    seen = []

    def serve(connection):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(pki.cert, pki.key)
        context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
        try:
            with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
                first = tls.recv(1)
                time.sleep(0.2 if first == b"l" else 0)
                while tls.recv(65536):
                    pass
                seen.append("end")
        except OSError as exc:
            seen.append("reset" if isinstance(exc, ConnectionResetError) else "cut")

    with peers.script(serve) as port:
        node(
            """
const { once } = require('events');
for (const [text, act] of [['x', (socket) => socket.destroy()], ['x', (socket) => socket.resetAndDestroy()],
  ['l'.repeat(20000000), (socket) => socket.destroy()]]) {
  const socket = ssa.connect({ host: 'localhost', port });
  await once(socket, 'secureConnect');
  socket.write(text);
  await sleep(50);
  act(socket);
  await once(socket, 'close');
  await sleep(300);
}
""",
            cleaned.environment,
            PORT=port,
        )
        assert peers.settled(lambda: len(seen) == 3)
    assert seen[0] == "end"
    assert seen[1] in ("reset", "cut")
    assert seen[2] in ("reset", "cut")


# --- many ---


def test_five_hundred_connections_at_once(node, cleaned, web):
    said = node(
        """
say(await get());
await sleep(50);
const before = descriptors();
const lines = await Promise.all(Array.from({ length: 500 }, () => get()));
say(lines.filter((line) => line === 'HTTP/1.1 200 OK').length, [...new Set(lines)].join());
await sleep(100);
say(descriptors() - before);
""",
        cleaned.environment,
        PORT=web,
    )
    assert said == ["HTTP/1.1 200 OK", "500 HTTP/1.1 200 OK", "0"]


def test_no_descriptor_is_left_over(node, cleaned, web):
    said = node(
        """
await get();
await sleep(50);
const before = descriptors();
for (let count = 0; count < 60; count += 1) {
  await get();
  await get({ servername: 'wrong.example', host: '127.0.0.1' });
  await get({ port: 1 });
}
await sleep(50);
say(descriptors() - before);
""",
        cleaned.environment,
        PORT=web,
    )
    assert said == ["0"]


def test_no_descriptor_number_is_left(node, cleaned, web):
    """A process that has no numbers left is told so, and goes on when it has some."""
    said = node(
        """
await get();
const held = [];
try { for (;;) held.push(fs.openSync('/dev/null')); } catch { /* EMFILE */ }
say((await ended(ssa.connect({ host: '127.0.0.1', port }))).code);
fs.closeSync(held.pop());
say((await ended(ssa.connect({ host: '127.0.0.1', port }))).code);
held.forEach(fs.closeSync);
say(await get());
""",
        cleaned.environment,
        PORT=web,
    )
    assert said == ["EMFILE", "EMFILE", "HTTP/1.1 200 OK"]


# --- threads and processes ---


def test_worker_threads(node, cleaned, web):
    said = node(
        f"""
const {{ Worker }} = require('worker_threads');
const before = descriptors();
const text = `const ssa = require({str(run.__globals__["NODE"])!r}); const port = process.env.PORT;
  const {{ parentPort }} = require('worker_threads');
  const get = () => new Promise((resolve) => {{
    const socket = ssa.connect({{ host: 'localhost', port }});
    socket.write('GET / HTTP/1.0');
    socket.resume().on('end', () => resolve(1)).on('error', () => resolve(0));
  }});
  Promise.all(Array.from({{ length: 10 }}, get)).then((all) => parentPort.postMessage(all.length));`;
const workers = Array.from({{ length: 4 }}, () => new Worker(text, {{ eval: true }}));
const told = await Promise.all(workers.map((worker) => new Promise((resolve) => {{ worker.on('message', resolve); }})));
say(told.join(), await get());
await Promise.all(workers.map((worker) => worker.terminate()));
for (const wait of [40, 60, 80, 100]) {{ // in the middle
  const stopped = new Worker(text, {{ eval: true }});
  await sleep(wait);
  await stopped.terminate();
}}
await sleep(200);
say(await get(), descriptors() - before < 8);
""",
        cleaned.environment,
        PORT=web,
    )
    assert said == ["10,10,10,10 HTTP/1.1 200 OK", "HTTP/1.1 200 OK true"]


def test_cluster(node, cleaned, pki):
    """Two processes serve one port."""
    said = node(
        """
const cluster = require('cluster');
if (cluster.isPrimary) {
  const workers = [cluster.fork(), cluster.fork()];
  let listening = 0;
  const served = new Set();
  cluster.on('listening', async (worker, { port: at }) => {
    listening += 1;
    if (listening < 2) return;
    for (let count = 0; count < 8; count += 1) {
      await new Promise((resolve) => {
        const socket = ssa.connect({ host: 'localhost', port: at });
        socket.on('data', (part) => served.add(String(part))).on('close', resolve);
      });
    }
    say(served.size);
    workers.forEach((one) => one.kill());
  });
} else {
  const options = { cert: process.env.CERT, key: process.env.KEY };
  ssa.createServer(options, (socket) => socket.end(String(process.pid))).listen(0, '127.0.0.1');
}
""",
        cleaned.environment,
        CERT=pki.cert,
        KEY=pki.key,
    )
    assert said == ["2"]


def test_a_program_ends_while_others_wait(node, cleaned):
    """process.exit() in the middle of a handshake: ssad gives it up."""
    gone = threading.Event()

    def serve(connection):
        stalls(connection)
        gone.set()

    with peers.script(serve) as port:
        node(
            "ssa.connect({ host: 'localhost', port }); await sleep(100); process.exit();",
            cleaned.environment,
            PORT=port,
        )
        assert gone.wait(10)


def test_the_client_of_a_server_that_goes(node, cleaned, pki):
    """Clients that hang up in each state of the handshake: the server goes on."""
    tell = pki.directory / "server-port"
    tell.unlink(missing_ok=True)

    def client():
        assert peers.settled(lambda: tell.exists() and tell.read_text() != "")
        address = ("127.0.0.1", int(tell.read_text()))
        for sent in (b"", b"\x16", b"GET / HTTP/1.0\r\n\r\n", bytes(1000)):
            with socket.create_connection(address) as tcp:
                tcp.sendall(sent)
        context = ssl.create_default_context(cafile=pki.ca)
        with context.wrap_socket(socket.create_connection(address), server_hostname="localhost") as tls:
            tls.recv(100)
            tls.unwrap()

    thread = threading.Thread(target=client)
    thread.start()
    said = node(
        """
let refused = 0;
const options = { cert: process.env.CERT, key: process.env.KEY };
const server = ssa.createServer(options, (socket) => socket.end('hello').on('close', () => {
  setTimeout(() => { say(refused); process.exit(); }, 100);
}));
server.on('tlsClientError', () => { refused += 1; });
server.listen(0, '127.0.0.1', () => fs.writeFileSync(process.env.TELL, String(server.address().port)));
""",
        cleaned.environment,
        CERT=pki.cert,
        KEY=pki.key,
        TELL=tell,
    )
    thread.join(10)
    assert said == ["4"]


def test_a_privileged_program_passes_over_the_environment(node, cleaned, web):
    """One with more rights than its user asks the administrator's ssad."""
    if os.geteuid() != 0:
        return
    said = node(
        """
process.setegid(65534);
say((await ended(ssa.connect({ host: '127.0.0.1', port }))).message.includes('/run/ssa/ssad.sock'));
""",
        cleaned.environment,
        PORT=web,
    )
    assert said == ["true"]
