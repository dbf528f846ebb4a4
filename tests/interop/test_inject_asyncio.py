"""ssa.inject_into_ssl under asyncio and uvloop: `ssl=` and start_tls, unchanged, on both data paths."""

import contextlib
import os
import socket
import ssl
import threading
import time

import pytest

from tests import peers
from tests.interop.test_inject_programs import needs, ports, run, stranger
from tests.needs import panics_there, slow_there
from tests.programs import Programs

__all__ = ["ports", "stranger"]

LOOPS = {
    "asyncio": "asyncio.run(main())",
    "uvloop": "import uvloop; uvloop.run(main())",
}
BEGIN = """
import asyncio, gc, os, socket, ssl, sys
def client_context():
    return ssl.create_default_context()
def server_context(cert=os.environ.get("CERT"), key=os.environ.get("KEY")):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    return context
async def serving(handle, **options):
    options = {"ssl": server_context(), **options}
    server = await asyncio.start_server(handle, "127.0.0.1", 0, **options)
    return server, server.sockets[0].getsockname()[1]
async def connected(port, context=True, **options):
    return await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost", **options)
async def echo(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError as exc:
        print("server:", type(exc).__name__, exc)
    finally:
        writer.close()
def sockets():
    gc.collect()
    links = (f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd"))
    return sum(os.readlink(link).startswith("socket:") for link in links if os.path.lexists(link))
async def ended(writer):
    writer.close()
    await writer.wait_closed()
"""


# In user-mode Linux too, of uvloop's, those that take the ways that are its own.
ways_of_uvloop = pytest.mark.parametrize("loop", ["asyncio", pytest.param("uvloop", marks=panics_there)], indirect=True)


@pytest.fixture(params=["ktls", pytest.param("relay", marks=slow_there)])
def either(request, cleaned):
    """The running ssad, on each of its data paths; in user-mode Linux on kernel TLS only."""
    if request.param == "ktls":
        request.getfixturevalue("capabilities")
    cleaned.set("data_path", request.param)
    return cleaned


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=slow_there)])
def loop(request):
    """How a program ends that runs `main` on this loop."""
    needs(request.param)
    return LOOPS[request.param]


@pytest.fixture
def counted(either):
    """How many handshakes the daemon has counted since the test began."""
    before = int(either.get("stats/handshakes"))
    return lambda: int(either.get("stats/handshakes")) - before


@pytest.fixture(scope="module")
def programs():
    with contextlib.closing(Programs()) as found:
        yield found


@pytest.fixture
def program(either, pki, loop, programs):
    """Run a program with `main` on the loop; what it prints, line by line."""

    def run_it(script, *arguments, prefix=None, **options):
        environment = {"CERT": pki.cert, "KEY": pki.key}
        if prefix is not None:  # it begins before the injection
            return run(BEGIN + script + loop, *arguments, prefix=prefix, **environment).splitlines()
        return programs.run(BEGIN + script + loop, *arguments, **options, **environment)

    return run_it


# --- clients --------------------------------------------------------------------------------------------------------


@ways_of_uvloop
def test_streams(program, counted, ports):
    script = """
async def main():
    for context in (True, client_context()):
        reader, writer = await asyncio.open_connection("localhost", int(sys.argv[1]), ssl=context)
        writer.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
        print((await reader.read()).split()[-1].decode())
        info = writer.get_extra_info
        tls = info("ssl_object")
        print(type(tls).__name__, tls.version() == info("cipher")[1], info("peercert")["subjectAltName"][0][1],
              info("compression"), isinstance(info("sslcontext"), ssl.SSLContext),
              str(info("peername")[1]) == sys.argv[1], info("sockname")[0], info("socket").family == socket.AF_INET,
              info("nothing", 7), writer.can_write_eof())
        await ended(writer)
"""
    facts = "SSLSocket True localhost None True True 127.0.0.1 True 7 False"
    assert program(script, ports[0]) == ["nginx", facts] * 2
    assert counted() == 2


def test_a_stranger_is_refused(program, counted, ports):
    script = """
async def main():
    loose = client_context()
    loose.check_hostname, loose.verify_mode = False, ssl.CERT_NONE
    for context in (True, loose):
        try:
            await asyncio.open_connection("localhost", int(sys.argv[1]), ssl=context)
        except ssl.SSLCertVerificationError as refused:
            print(refused.reason, "verify_mode = CERT_NONE of the program's context has no effect" in str(refused))
"""
    lines = program(script, ports[1])
    assert [line for line in lines if line.startswith("UNKNOWN_CA")] == ["UNKNOWN_CA False", "UNKNOWN_CA True"]
    assert "verify_mode = CERT_NONE has no effect: servers are verified, as the policy says" in lines
    assert any(line.startswith("program: localhost was refused (UNKNOWN_CA)") for line in lines)  # which is its name
    assert counted() == 0


def test_a_connected_socket(program, counted, ports):
    script = """
async def main():
    for _ in range(3):
        plain = socket.create_connection(("localhost", int(sys.argv[1])))
        plain.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=plain, ssl=True, server_hostname="localhost")
        writer.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
        print((await reader.read()).split()[-1].decode())
        await ended(writer)
"""
    assert program(script, ports[0]) == ["nginx"] * 3
    assert counted() == 3


def test_openssl_s_server(program, pki):
    """KeyUpdates of the peer's included, where this kernel can follow them; and the peer's close_notify."""
    script = """
async def main():
    reader, writer = await connected(int(sys.argv[1]))
    writer.write(b"hello\\n")
    print((await reader.readline()).decode().strip())
    await ended(writer)
"""
    with peers.openssl(pki, "-rev") as (port, _):
        assert program(script, port) == ["olleh"]


def test_a_server_that_greets_in_plain_text(program):
    """Without a word in plain text before it is no STARTTLS: the peer just does not speak TLS."""
    script = """
async def main():
    try:
        await connected(int(sys.argv[1]))
    except ssl.SSLError as refused:
        print(refused.reason)
"""

    def greet(connection):
        connection.sendall(b"220 mail.example ESMTP\r\n")
        time.sleep(0.5)

    with peers.script(greet) as port:
        assert program(script, port) == ["NOT_TLS"]


# --- servers --------------------------------------------------------------------------------------------------------


@ways_of_uvloop
def test_a_server_of_streams(program, counted):
    script = """
async def main():
    server, port = await serving(echo)
    data = os.urandom(3_000_000)
    for _ in range(2):
        reader, writer = await connected(port)
        writer.write(data)
        print(await reader.readexactly(len(data)) == data)
        await ended(writer)
    server.close()
    await server.wait_closed()
"""
    assert program(script) == ["True", "True"]
    assert counted() == 4


def test_openssl_s_client(program, pki):
    script = """
async def main():
    async def handle(reader, writer):
        writer.write(b"you said " + await reader.readline())
        await ended(writer)
        server.close()
    server, port = await serving(handle)
    client = await asyncio.create_subprocess_exec("openssl", "s_client", "-quiet", "-connect", f"127.0.0.1:{port}",
        "-CAfile", sys.argv[1], "-verify_return_error", stdin=-1, stdout=-1, stderr=-3)
    client.stdin.write(b"hello\\n")
    print((await client.stdout.read()).decode().strip())
    await client.wait()
"""
    assert program(script, pki.ca) == ["you said hello"]


def test_client_certificates_and_alpn(program, counted, pki):
    cert, key = pki.issue("me", "me.example")
    script = """
async def main():
    here = server_context()
    here.verify_mode = ssl.CERT_REQUIRED
    here.set_alpn_protocols(["h2", "http/1.1"])
    async def handle(reader, writer):
        info = writer.get_extra_info
        print(info("peercert")["subjectAltName"][0][1], info("ssl_object").selected_alpn_protocol())
        print((await reader.read()).decode())
        writer.close()
    server, port = await serving(handle, ssl=here)
    mine = client_context()
    mine.load_cert_chain(sys.argv[1], sys.argv[2])
    mine.set_alpn_protocols(["http/1.1", "h2"])
    reader, writer = await connected(port, mine)
    print(writer.get_extra_info("ssl_object").selected_alpn_protocol())
    writer.write(b"data")
    await ended(writer)
    await asyncio.sleep(0.2)
    try:
        reader, writer = await connected(port)
        print(await reader.read())
    except OSError as refused:
        print("refused")
"""
    lines = program(script, cert, key)
    assert sorted(lines[:3]) == ["data", "h2", "me.example h2"]
    assert lines[3:] == ["refused"]


def test_protocols(program):
    """Transports without streams: BufferedProtocol, flow control, close in connection_made."""
    script = """
class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.buffer, self.got, self.done = bytearray(1000), b"", loop.create_future()
    def connection_made(self, transport):
        self.transport = transport
        print(transport.get_write_buffer_limits())
        transport.write(b"x" * 5000)
        transport.writelines([b"y" * 500, memoryview(b"z" * 500)])
    def get_buffer(self, sizehint): return self.buffer
    def buffer_updated(self, count):
        self.got += self.buffer[:count]
        if len(self.got) == 6000:
            self.transport.close()
    def eof_received(self): print("eof")
    def connection_lost(self, exc): self.done.set_result(exc)
class Brief(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(b"bye")
        transport.close()
        transport.write(b"not this")
        print(transport.is_closing(), transport.is_reading())
    def connection_lost(self, exc): print("lost", exc)
async def main():
    global loop
    loop = asyncio.get_running_loop()
    server, port = await serving(echo)
    _, protocol = await loop.create_connection(Buffered, "127.0.0.1", port, ssl=True, server_hostname="localhost")
    print(await protocol.done, protocol.got == b"x" * 5000 + b"y" * 500 + b"z" * 500)
    await loop.create_connection(Brief, "127.0.0.1", port, ssl=True, server_hostname="localhost")
    await asyncio.sleep(0.2)
    try:
        await loop.create_connection(Brief, "127.0.0.1", port, ssl=True)
        await asyncio.sleep(0.2)
    finally:
        print("an address can be the name, too")
"""
    lines = [line for line in program(script) if not line.startswith("server:")]  # to whom its client is gone
    assert lines == [
        "(131072, 524288)",
        "None True",
        *("True False", "lost None") * 2,
        "an address can be the name, too",
    ]


def test_accepted_sockets(program):
    script = """
async def main():
    loop = asyncio.get_running_loop()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    async def accept():
        plain, _ = await loop.sock_accept(listener)
        class Hello(asyncio.Protocol):
            def connection_made(self, transport):
                transport.write(b"hello")
                transport.close()
        await loop.connect_accepted_socket(Hello, plain, ssl=server_context())
    task = asyncio.create_task(accept())
    reader, writer = await connected(listener.getsockname()[1])
    print(await reader.read())
    await ended(writer)
    await task
    listener.close()
"""
    assert program(script) == ["b'hello'"]


# --- start_tls ------------------------------------------------------------------------------------------------------

STARTTLS = """
async def handle(reader, writer):
    line = await reader.readline()
    writer.write(b"go on\\n")
    await writer.start_tls(server_context())
    print(line, writer.get_extra_info("cipher") is not None)
    await echo(reader, writer)
async def main():
    server, port = await serving(handle, ssl=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"STARTTLS\\n")
    print(await reader.readline())
    await writer.start_tls(client_context(), server_hostname="localhost")
    data = os.urandom(1_000_000)
    writer.write(data)
    print(await reader.readexactly(len(data)) == data, writer.get_extra_info("ssl_object").version() is not None)
    await ended(writer)
"""


@ways_of_uvloop
def test_start_tls(program, counted):
    lines = program(STARTTLS)
    assert sorted(lines) == ["True True", "b'STARTTLS\\n' True", "b'go on\\n'"]
    assert counted() == 2


def test_start_tls_holds_no_more_than_it_has_to(program):
    """The StreamReader pauses the transport that reads, and not the one that was there before."""
    script = """
async def handle(reader, writer):
    await reader.readline()
    writer.write(b"go on\\n")
    await writer.start_tls(server_context())
    for _ in range(20):
        writer.write(bytes(1 << 20))
        await writer.drain()
    writer.close()
async def main():
    server, port = await serving(handle, ssl=None)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"STARTTLS\\n")
    await reader.readline()
    await writer.start_tls(client_context(), server_hostname="localhost")
    await asyncio.sleep(0.5)
    print(len(reader._buffer) < 1 << 20)
    print(len(await reader.read(-1)) >> 20)
    await ended(writer)
"""
    assert program(script) == ["True", "20"]


def test_start_tls_behind_plain_text_that_was_not_sent_yet(program, pki):
    script = """
async def main():
    loop, got = asyncio.get_running_loop(), asyncio.Queue()
    class Client(asyncio.Protocol):
        def data_received(self, data): got.put_nowait(data)
    transport, client = await loop.create_connection(Client, "127.0.0.1", int(sys.argv[1]))
    transport.write(bytes(8 << 20))
    print(transport.get_write_buffer_size() > 0)
    tls = await loop.start_tls(transport, client, client_context(), server_hostname="localhost")
    print(await got.get())
    tls.close()
"""
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(pki.cert, pki.key)

    def serve(connection):
        time.sleep(0.3)
        left = 8 << 20
        while left:
            left -= len(connection.recv(min(left, 1 << 20)))
        with theirs.wrap_socket(connection, server_side=True) as tls:
            tls.sendall(b"hello")
            tls.recv(1)

    with peers.script(serve) as port:
        assert program(script, port) == ["True", "b'hello'"]


def test_start_tls_takes_no_plain_text_for_protected(program):
    script = """
async def handle(reader, writer):
    await reader.readline()
    writer.write(b"go on\\ninjected\\n")
    await asyncio.sleep(0.3)
    writer.close()
async def main():
    server, port = await serving(handle, ssl=None)
    for pause in (0.1, 0):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"STARTTLS\\n")
        await reader.readline()
        await asyncio.sleep(pause)
        try:
            await writer.start_tls(client_context(), server_hostname="localhost")
        except ssl.SSLError as refused:
            print(refused.reason)
        writer.close()
"""
    assert program(script) == ["PLAINTEXT_PENDING"] * 2


def test_tls_in_tls_is_refused(program):
    script = """
async def main():
    server, port = await serving(echo)
    reader, writer = await connected(port)
    try:
        await writer.start_tls(client_context(), server_hostname="localhost")
    except TypeError as refused:
        print("not supported by start_tls()" in str(refused))
    await ended(writer)
"""
    assert program(script) == ["True"]


# --- flow and time --------------------------------------------------------------------------------------------------


def test_back_pressure(program):
    script = """
async def main():
    async def silent(reader, writer):
        reader._transport.pause_reading()
        await done.wait()
        reader._transport.resume_reading()
        print(len(await reader.read(-1)) >> 20)
        writer.close()
        read.set()
    done, read = asyncio.Event(), asyncio.Event()
    server, port = await serving(silent)
    reader, writer = await connected(port)
    async def fill():
        for _ in range(40):
            writer.write(bytes(1 << 20))
            await writer.drain()
    task = asyncio.create_task(fill())
    await asyncio.sleep(0.5)
    print(task.done(), writer.transport.get_write_buffer_size() < 3 << 20)
    done.set()
    await task
    await ended(writer)
    await read.wait()
"""
    assert program(script) == ["False True", "40"]


def test_a_close_that_nobody_reads(program):
    """`ssl_shutdown_timeout` bounds it."""
    script = """
class Silent(asyncio.Protocol):
    def connection_made(self, transport):
        kept.append(transport)
        transport.pause_reading()
kept = []
class Client(asyncio.Protocol):
    def connection_made(self, transport):
        transport.write(bytes(20 << 20))
        transport.close()
    def connection_lost(self, exc): lost.set_result(exc)
async def main():
    global lost
    loop = asyncio.get_running_loop()
    lost = loop.create_future()
    server = await loop.create_server(Silent, "127.0.0.1", 0, ssl=server_context())
    port = server.sockets[0].getsockname()[1]
    began = loop.time()
    await loop.create_connection(Client, "127.0.0.1", port, ssl=True, server_hostname="localhost",
                                 ssl_shutdown_timeout=0.4)
    print(type(await lost).__name__, await lost, 0.3 < loop.time() - began < 5)
"""
    assert program(script) == ["TimeoutError SSL shutdown timed out True"]


def test_sendfile(program, either, tmp_path):
    """By the kernel's sendfile(2) where the kernel has the keys; else asyncio reads and writes."""
    file = tmp_path / "file"
    file.write_bytes(os.urandom(3_000_001))
    script = """
async def main():
    loop = asyncio.get_running_loop()
    if "uvloop" in type(loop).__module__:
        print("uvloop has none")
        return
    async def handle(reader, writer):
        with open(sys.argv[1], "rb") as file:
            print(await loop.sendfile(writer.transport, file), file.tell())
            print(await loop.sendfile(writer.transport, file, 1000, 50), file.tell())
            writer.write(b"behind")
            try:
                await loop.sendfile(writer.transport, file, 0, 1, fallback=False)
                print("native")
            except (RuntimeError, asyncio.SendfileNotAvailableError):
                print("none")
        await ended(writer)
    server, port = await serving(handle)
    reader, writer = await connected(port)
    data = open(sys.argv[1], "rb").read()
    got = await reader.read(-1)
    print(got.startswith(data + data[1000:1050] + b"behind"))
    await ended(writer)
"""
    lines = program(script, file)
    if lines == ["uvloop has none"]:
        return
    path = {"ktls": "native", "relay": "none"}[either.get("policy/data_path").strip()]
    assert sorted(lines) == sorted(["3000001 3000001", "50 1050", path, "True"])


# --- what is refused, and what is not ssa's --------------------------------------------------------------------------


def test_refused_at_the_call(program):
    script = """
async def main():
    loop = asyncio.get_running_loop()
    optional = server_context()
    optional._verify_mode = ssl.CERT_OPTIONAL
    calls = {
        "start_unix_server": lambda: asyncio.start_unix_server(print, "/tmp/nowhere", ssl=server_context()),
        "open_unix_connection": lambda: asyncio.open_unix_connection("/tmp/nowhere", ssl=True, server_hostname="x"),
        "accepted": lambda: loop.connect_accepted_socket(asyncio.Protocol, socket.socketpair()[0],
                                                         ssl=server_context()),
        "CERT_OPTIONAL": lambda: asyncio.start_server(print, "localhost", 0, ssl=optional),
        "wrap_bio": lambda: client_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="localhost"),
        "connected": lambda: client_context().wrap_socket(socket.socketpair()[0], server_hostname="localhost"),
        "to connect": lambda: client_context().wrap_socket(socket.socket(socket.AF_UNIX), server_hostname="localhost"),
        "listening": lambda: server_context().wrap_socket(listener, server_side=True),
    }
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(b"\\0ssa-test-%d" % os.getpid())
    listener.listen()
    for name, call in calls.items():
        try:
            await call()
        except ssl.SSLError as refused:
            print(name, refused.reason)
    try:
        server, port = await serving(echo)
        await asyncio.open_connection("localhost", port, ssl=True, ssl_handshake_timeout=0)
    except ValueError as refused:
        print(refused)
"""
    of_asyncio = ("start_unix_server", "open_unix_connection", "accepted", "CERT_OPTIONAL")
    names = (*of_asyncio, "wrap_bio", "connected", "to connect", "listening")
    assert program(script) == [
        *(f"{name} NO_COUNTERPART" for name in names),
        "ssl_handshake_timeout should be a positive number, got 0",
    ]


def test_contexts_from_before(program, counted, pki):
    """They are the standard library's still, in each of the calls."""
    early = """
import ssl, asyncio, sys
early = ssl.create_default_context(cafile=sys.argv[1])
serving_early = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
import os; serving_early.load_cert_chain(os.environ["CERT"], os.environ["KEY"])
import ssa; ssa.inject_into_ssl()
"""
    script = """
async def main():
    server, port = await serving(echo, ssl=serving_early)
    reader, writer = await connected(port, early)
    print(type(writer.get_extra_info("ssl_object")).__name__, isinstance(early, ssl.SSLContext))
    await ended(writer)
"""
    starttls = STARTTLS.replace("client_context()", "early").replace("server_context()", "serving_early")
    assert program(script, pki.ca, prefix=early) == ["SSLObject True"]
    assert len(program(starttls, pki.ca, prefix=early)) == 3
    assert counted() == 0


def test_the_loops_are_given_back():
    script = """
import asyncio, sys
from asyncio import sslproto, base_events, selector_events, unix_events
import ssa
owners = (sslproto, base_events.BaseEventLoop, selector_events.BaseSelectorEventLoop, unix_events.SelectorEventLoop)
before = [dict(vars(owner)) for owner in owners], sys.meta_path.copy()
ssa.inject_into_ssl()
ssa.inject_into_ssl()
assert sslproto.SSLProtocol is not before[0][0]["SSLProtocol"]
assert asyncio.iscoroutinefunction(base_events.BaseEventLoop.create_server)
ssa.extract_from_ssl()
print(([dict(vars(owner)) for owner in owners], sys.meta_path) == before)
"""
    assert run(script, prefix="") == "True"


def test_asyncio_is_loaded_by_nobody_who_does_not_want_it():
    assert run("import sys; print('asyncio' in sys.modules, 'trio' in sys.modules)") == "False False"


def test_pip_and_curl_of_a_server(program, pki):
    """curl against a server of streams, with a request that is answered in parts."""
    script = """
async def main():
    async def handle(reader, writer):
        await reader.readuntil(b"\\r\\n\\r\\n")
        writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 300000\\r\\n\\r\\n")
        for _ in range(30):
            writer.write(b"x" * 10000)
            await writer.drain()
        await ended(writer)
    server, port = await serving(handle)
    curl = await asyncio.create_subprocess_exec("curl", "-sS", "--cacert", sys.argv[1], f"https://localhost:{port}/",
                                                stdout=-1)
    print(len(await curl.stdout.read()), await curl.wait())
"""
    assert program(script, pki.ca) == ["300000 0"]


def test_start_tls_of_a_server_that_has_read_the_hello(program, pki, counted):
    """PROXY protocol: a line in plain text, and the ClientHello behind it, in one packet."""
    script = """
async def main():
    async def handle(reader, writer):
        await asyncio.sleep(0.3)
        print(await reader.readline(), len(reader._buffer) > 100)
        await writer.start_tls(server_context())
        writer.write((await reader.readexactly(6)).upper())
        await ended(writer)
        server.close()
    server, port = await serving(handle, ssl=None)
    with open(sys.argv[1], "w") as file:
        print(port, file=file)
    await server.wait_closed()
    await asyncio.sleep(0.3)
"""
    told = pki.directory / f"port-{time.monotonic_ns()}"
    answers = []

    def talk():
        assert peers.settled(lambda: told.exists() and told.read_text().endswith("\n"))
        plain = socket.create_connection(("127.0.0.1", int(told.read_text())), 10)
        plain.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n")
        with ssl.create_default_context(cafile=pki.ca).wrap_socket(plain, server_hostname="localhost") as tls:
            tls.sendall(b"behind")
            answers.append(tls.recv(100))

    client = threading.Thread(target=talk)
    client.start()
    assert program(script, told) == ["b'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\\r\\n' True"]
    client.join()
    assert answers == [b"BEHIND"]
    assert counted() == 1
