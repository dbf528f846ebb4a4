"""ssa.inject_into_ssl under asynchronous libraries that people use, unchanged."""

import contextlib
import subprocess
import sys

import pytest

from tests import peers
from tests.interop.test_inject_asyncio import LOOPS, counted, either, programs
from tests.interop.test_inject_programs import INJECTED, needs, ports, stranger
from tests.needs import slow_there

__all__ = ["counted", "either", "ports", "programs", "stranger"]

ON = {
    "asyncio": "import asyncio; asyncio.run(main())",
    "uvloop": LOOPS["uvloop"],
    "trio": "import trio; trio.run(main)",
}
MARKS = {"uvloop": slow_there}


def pairs(backends):
    """A library with each thing that it runs on."""
    return [pytest.param(name, on, marks=MARKS.get(on, ())) for name, all_ in backends.items() for on in all_]


# A library, what it runs on, and its own smallest program: `url` and `other` are nginx's, whose certificates the policy
# trusts, and does not.
CLIENTS = {
    "httpx": (
        ("asyncio", "uvloop", "trio"),
        """
import httpx
async def main():
    async with httpx.AsyncClient() as client:
        for _ in range(2):
            print((await client.get(url)).text.strip())
        try:
            await client.get(other)
        except httpx.ConnectError as refused:
            print("refused")
""",
    ),
    "aiohttp": (
        ("asyncio", "uvloop"),
        """
import aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        for how in (True, False):
            async with session.get(url, ssl=how) as response:
                print((await response.text()).strip())
        try:
            await session.get(other, ssl=False)
        except aiohttp.ClientConnectorCertificateError as refused:
            print("refused" if "no effect" in str(refused) else refused)
""",
    ),
    "anyio": (
        ("asyncio", "uvloop", "trio"),
        """
import anyio, ssl
from anyio.streams.tls import TLSAttribute
async def main():
    for _ in range(2):
        async with await anyio.connect_tcp("localhost", port, tls=True, tls_standard_compatible=False) as stream:
            await stream.send(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
            print(b"".join([part async for part in stream]).split(b"\\r\\n\\r\\n")[1].decode().strip())
            assert stream.extra(TLSAttribute.tls_version).startswith("TLSv1."), stream.extra(TLSAttribute.cipher)
            assert stream.extra(anyio.abc.SocketAttribute.remote_port) == port
    try:
        await anyio.connect_tcp("localhost", other_port, tls=True)
    except ssl.SSLCertVerificationError:
        print("refused")
""",
    ),
    "trio": (
        ("trio",),
        """
import trio
async def main():
    for _ in range(2):
        stream = await trio.open_ssl_over_tcp_stream("localhost", port, https_compatible=True)
        async with stream:
            await stream.send_all(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
            print(b"".join([part async for part in stream]).split(b"\\r\\n\\r\\n")[1].decode().strip())
            assert stream.transport_stream.socket.getpeername()[1] == port
    stream = await trio.open_ssl_over_tcp_stream("localhost", other_port)
    try:
        await stream.do_handshake()
    except trio.BrokenResourceError as refused:
        print("refused" if "UNKNOWN_CA" in str(refused.__cause__) else refused)
""",
    ),
}


@pytest.mark.parametrize(("library", "backend"), pairs({name: all_ for name, (all_, _) in CLIENTS.items()}))
def test_clients(counted, ports, programs, library, backend):
    needs(library, backend if backend != "asyncio" else library)
    names = "import sys; port, other_port = map(int, sys.argv[1:])\n"
    urls = 'url, other = (f"https://localhost:{one}/hello" for one in (port, other_port))\n'
    told = programs.run(names + urls + CLIENTS[library][1] + ON[backend], *ports)
    assert [line for line in told if "has no effect: servers" not in line and "by itself" not in line] == [
        *["hello from nginx"] * 2,
        "refused",
    ]
    assert counted() == (1 if library == "httpx" else 2)


# --- servers --------------------------------------------------------------------------------------------------------

SERVERS = {
    "uvicorn": """
import uvicorn
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["scheme"].encode() + b" " + b"x" * 100_000})
uvicorn.run(app, port=port, ssl_certfile=cert, ssl_keyfile=key, loop=backend, log_level="error", lifespan="off")
""",
    "aiohttp": """
import ssl
from aiohttp import web
async def hello(request):
    return web.Response(text=request.scheme + " " + "x" * 100_000)
async def file(request):
    return web.FileResponse(cert)
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(cert, key)
app = web.Application()
app.add_routes([web.get("/", hello), web.get("/file", file)])
loop = __import__("uvloop" if backend == "uvloop" else "asyncio").new_event_loop()
web.run_app(app, host="127.0.0.1", port=port, ssl_context=context, print=None, loop=loop)
""",
    "anyio": """
import anyio, ssl
from anyio.streams.tls import TLSListener
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(cert, key)
async def handle(stream):
    async with stream:
        await stream.receive()
        await stream.send(b"HTTP/1.0 200 OK\\r\\n\\r\\nhttps " + b"x" * 100_000)
async def main():
    listener = TLSListener(await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=port), context)
    await listener.serve(handle)
options = {"use_uvloop": True} if backend == "uvloop" else None
anyio.run(main, backend="trio" if backend == "trio" else "asyncio", backend_options=options)
""",
    "trio": """
import ssl, trio
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(cert, key)
async def handle(stream):
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.0 200 OK\\r\\n\\r\\nhttps " + b"x" * 100_000)
trio.run(trio.serve_ssl_over_tcp, handle, port, context)
""",
}
BACKENDS = {"uvicorn": ("asyncio", "uvloop"), "aiohttp": ("asyncio", "uvloop"), "anyio": tuple(ON), "trio": ("trio",)}


@pytest.mark.parametrize(("library", "backend"), pairs(BACKENDS))
def test_servers(either, counted, pki, library, backend):
    needs(library, backend if backend != "asyncio" else library)
    names = "import sys; port, cert, key, backend = int(sys.argv[1]), *sys.argv[2:]\n"
    port = peers.free_port()
    command = [sys.executable, "-P", "-W", "ignore", "-c", INJECTED + names + SERVERS[library], port]
    with peers.program(*command, pki.cert, pki.key, backend, port=port) as server:
        curl = ["curl", "-sS", "--max-time", "20", "--cacert", pki.ca]
        answer = subprocess.run([*curl, f"https://localhost:{port}/"], capture_output=True, timeout=30, check=False)
        assert (answer.stdout, answer.stderr) == (b"https " + b"x" * 100_000, b"")
        if library == "aiohttp":  # by loop.sendfile, where there is one
            command = [*curl, f"https://localhost:{port}/file"]
            answer = subprocess.run(command, capture_output=True, timeout=30, check=False)
            assert answer.stdout == pki.cert.read_bytes()
        assert server.poll() is None
    assert counted() == 1 + (library == "aiohttp")


def test_what_is_not_on_a_socket_is_refused(either, programs):
    script = """
import anyio, ssl, trio
from anyio.streams.tls import TLSStream
async def of_trio():
    ours, _ = trio.testing.memory_stream_pair()
    try:
        await trio.SSLStream(ours, ssl.create_default_context(), server_hostname="localhost").do_handshake()
    except ssl.SSLError as refused:
        print(refused.reason, "MemoryStream" in str(refused) or "StapledStream" in str(refused))
async def of_anyio():
    sending, receiving = anyio.create_memory_object_stream()
    stream = anyio.streams.stapled.StapledObjectStream(sending, receiving)
    try:
        await TLSStream.wrap(stream, hostname="localhost")
    except ssl.SSLError as refused:
        print(refused.reason, "StapledObjectStream" in str(refused))
import trio.testing, anyio.streams.stapled
trio.run(of_trio)
anyio.run(of_anyio)
"""
    assert programs.run(script) == ["NO_COUNTERPART True"] * 2


# A library, and a program that closes the stream below its TLS stream.
CLOSED_BELOW = {
    "anyio": """
import anyio
from anyio.streams.tls import TLSStream
async def main():
    async with await anyio.connect_tcp("localhost", port) as below:
        stream = await TLSStream.wrap(below, hostname="localhost")
        sock = stream.extra(anyio.abc.SocketAttribute.raw_socket)
    print(sock.fileno())
    try:
        await stream.send(b"x")
    except anyio.ClosedResourceError:
        print("closed")
""",
    "trio": """
import ssl, trio
async def main():
    async with await trio.open_tcp_stream("localhost", port) as below:
        stream = trio.SSLStream(below, ssl.create_default_context(), server_hostname="localhost")
        await stream.do_handshake()
        sock = stream.transport_stream.socket
    print(sock.fileno())
    try:
        await stream.send_all(b"x")
    except trio.ClosedResourceError:
        print("closed")
""",
}


@pytest.mark.parametrize(("library", "backend"), pairs({"anyio": ON, "trio": ["trio"]}))
def test_closing_the_stream_below_closes_the_socket(either, ports, programs, library, backend):
    needs(library, backend if backend != "asyncio" else library)
    script = "import sys; port = int(sys.argv[1])" + CLOSED_BELOW[library] + ON[backend]
    assert programs.run(script, ports[0]) == ["-1", "closed"]


@pytest.mark.parametrize("backend", [pytest.param(on, marks=MARKS.get(on, ())) for on in ON])
def test_nothing_is_lost_or_sent_by_a_cancelled_call_of_anyio(either, pki, programs, backend):
    needs("anyio", backend if backend != "asyncio" else "anyio")
    script = """
import anyio, ssl, sys
from anyio.streams.tls import TLSListener, TLSStream
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(sys.argv[1], sys.argv[2])
async def handle(stream):
    async with stream:
        await stream.send(b"abc")
        print((await stream.receive()).decode())
async def cancel(scope):
    scope.cancel()
async def receive(stream, tasks, late):
    with anyio.CancelScope() as scope:
        tasks.start_soon(cancel, scope) if late else scope.cancel()
        return await stream.receive(1)
    return b""
async def main():
    plain = await anyio.create_tcp_listener(local_host="127.0.0.1")
    address = plain.extra(anyio.abc.SocketAttribute.local_address)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(TLSListener(plain, context).serve, handle)
        below = await anyio.connect_tcp(*address)
        async with await TLSStream.wrap(below, hostname="localhost") as stream:
            await anyio.sleep(0.3)  # all has come
            got = b"".join([await receive(stream, tasks, late) for late in (False, True)])
            with anyio.move_on_after(0.5):
                while len(got) < 3:
                    got += await stream.receive(1)
            print(got.decode())
            with anyio.CancelScope() as scope:
                scope.cancel()
                await stream.send(b"cancelled")
            await stream.send(b"sent")
            await anyio.sleep(0.3)
        tasks.cancel_scope.cancel()
"""
    assert programs.run(script + ON[backend], pki.cert, pki.key) == ["abc", "sent"]


@pytest.mark.parametrize("backend", [pytest.param(on, marks=MARKS.get(on, ())) for on in ON])
def test_a_peer_that_goes_in_the_handshake_breaks_the_stream_of_anyio(either, pki, programs, backend):
    needs("anyio", backend if backend != "asyncio" else "anyio")
    script = """
import anyio, socket, ssl, struct, sys, threading
from anyio.streams.tls import TLSStream
def going(listener):
    for lingers in (False, True):
        sock, _ = listener.accept()
        sock.recv(1)
        if lingers:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.recv(65536)
        sock.close()
async def main():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=going, args=(listener,)).start()
        for _ in range(2):
            below = await anyio.connect_tcp(*listener.getsockname())
            try:
                await TLSStream.wrap(below, hostname="localhost")
            except anyio.BrokenResourceError as broken:
                print(isinstance(broken.__cause__, OSError))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        socket.create_connection(listener.getsockname()).close()
        client, _ = listener.accept()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(sys.argv[1], sys.argv[2])
    stream = await anyio.abc.SocketStream.from_socket(client)
    try:
        await TLSStream.wrap(stream, server_side=True, ssl_context=context)
    except anyio.BrokenResourceError as broken:
        print(broken.__cause__.reason)
"""
    assert programs.run(script + ON[backend], pki.cert, pki.key) == ["True", "True", "PEER_CLOSED"]


# --- databases ------------------------------------------------------------------------------------------------------


SSL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


@contextlib.contextmanager
def postgres():
    """What asks a database for TLS, and then goes away: the packets that it gets, each connection's first."""
    asked = []

    def serve(connection):
        asked.append(connection.recv(100))
        if asked[-1] == SSL_REQUEST:
            connection.sendall(b"S")
            connection.recv(100)

    with peers.script(serve) as port:
        yield port, asked


@pytest.mark.parametrize(("mode", "connections"), [("require", 1), ("context", 1), ("prefer", 2)])
def test_asyncpg(either, programs, mode, connections):
    """With `prefer`, its default, it goes on in plain text where TLS fails: the documentation says so."""
    needs("asyncpg")
    script = """
import asyncio, ssl, sys, asyncpg
async def main():
    how = ssl.create_default_context() if sys.argv[2] == "context" else sys.argv[2]
    try:
        await asyncpg.connect(host="localhost", port=int(sys.argv[1]), user="me", password="secret", database="d",
                              timeout=10, ssl=how)
    except (OSError, asyncpg.PostgresError, asyncpg.ClientConfigurationError) as refused:
        print(type(refused).__name__)
asyncio.run(main())
"""
    with postgres() as (port, asked):
        programs.run(script, port, mode)
    assert asked[:1] == [SSL_REQUEST]
    assert len(asked) == connections
    if mode == "prefer":
        assert b"secret" not in asked[1]
        assert any("refused request=connect hostname=localhost" in line for line in either.log.splitlines())


def test_redis(either, counted, pki, programs, tmp_path):
    needs("redis")
    port = peers.free_port()
    command = ["redis-server", "--port", 0, "--tls-port", port, "--tls-cert-file", pki.cert, "--tls-key-file", pki.key]
    more = ["--tls-ca-cert-file", pki.ca, "--tls-auth-clients", "no", "--dir", tmp_path, "--save", ""]
    script = """
import asyncio, sys
import redis.asyncio as redis
async def main():
    client = redis.Redis(host="localhost", port=int(sys.argv[1]), ssl=True)
    await client.set("key", "value" * 10_000)
    print(len(await client.get("key")))
    await client.aclose()
asyncio.run(main())
"""
    with peers.program(*command, *more, port=port):
        assert programs.run(script, port) == ["50000"]
    assert counted() == 1
