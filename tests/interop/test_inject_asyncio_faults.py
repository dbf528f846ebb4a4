"""asyncio and uvloop under inject with bad luck: stalled peers, cancelled tasks, daemons that go, raising callbacks."""

import contextlib
import os

import pytest

from tests import peers
from tests.interop.test_inject_asyncio import either, loop, program, programs, ways_of_uvloop
from tests.kernel.conftest import capabilities
from tests.peers import Daemon, settled

__all__ = ["capabilities", "either", "loop", "program", "programs"]

STORM = """
import random
async def main():
    loop = asyncio.get_running_loop()
    complaints = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    async def echo(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
    server, port = await serving(echo)
    before = sockets()
    turns = asyncio.Semaphore(40)
    async def one():
        async with turns:
            reader, writer = await connected(port)
            try:
                data = os.urandom(random.randrange(1, 100_000))
                writer.write(data)
                assert await reader.readexactly(len(data)) == data
            finally:
                writer.close()
            await writer.wait_closed()
    async def maybe(number):
        task = asyncio.create_task(one())
        if number % 3 == 0:
            await asyncio.sleep(random.random() * 0.02 * (number % 50 + 1) ** 0.5)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "done"
    told = await asyncio.gather(*(maybe(number) for number in range(int(sys.argv[1]))))
    for _ in range(100):
        gc.collect()
        left = sockets()
        if left == before:
            break
        await asyncio.sleep(0.1)
    server.close()
    print(told.count("done") >= len(told) * 2 // 3, left - before, [str(one)[:500] for one in complaints[:3]])
"""


@ways_of_uvloop
def test_many_at_once_and_a_third_cancelled(program, either):
    assert program(STORM, 400, timeout=100) == ["True 0 []"]
    assert settled(lambda: either.sockets() == [])


STALLING = """
async def main():
    loop = asyncio.get_running_loop()
    began = loop.time()
    before = sockets()
    try:
        await connected(int(sys.argv[1]), ssl_handshake_timeout=0.4)
    except ConnectionAbortedError as exc:
        print("SSL handshake is taking longer than 0.4 seconds" in str(exc), 0.3 < loop.time() - began < 5)
    gc.collect()
    await asyncio.sleep(0.1)
    print(sockets() - before)
"""


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03", b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03"])
def test_a_server_that_stalls(program, either, said):
    def stall(connection):
        connection.recv(10_000)
        connection.sendall(said)
        with contextlib.suppress(OSError):
            connection.recv(10_000)

    with peers.script(stall) as port:
        assert program(STALLING, port) == ["True True", "0"]
    assert settled(lambda: either.sockets() == [])


def test_a_client_that_stalls(program, either):
    script = """
async def main():
    loop = asyncio.get_running_loop()
    server, port = await serving(echo, ssl_handshake_timeout=0.4)
    async def stall(said):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        began = loop.time()
        try:
            data = await reader.read()
        except ConnectionResetError:
            data = b""
        print(data[:1] in (b"", b"\\x15"), 0.2 < loop.time() - began < 5)
        writer.close()
    await asyncio.gather(*map(stall, (b"", b"\\x16\\x03", b"\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01")))
    reader, writer = await connected(port)  # the others do not wait for them
    writer.write(b"hello")
    print(await reader.readexactly(5))
    await ended(writer)
"""
    assert program(script) == ["True True"] * 3 + ["b'hello'"]


def test_a_transport_that_is_closed_before_ssad_is_asked(program, either):
    """ssad is asked in the loop's next round. A connection that is given up before leaves nothing behind."""
    script = """
from ssa.inject import sslprotocol
class SSLProtocol(sslprotocol.SSLProtocol):
    def _make_handshake(self, plain):
        super()._make_handshake(plain)
        print("asked" if self._handshake.fileno() >= 0 else "not asked yet")
        self._app_transport.abort()
sslprotocol.SSLProtocol.__new__ = lambda cls, *args, **kwargs: object.__new__(SSLProtocol)
async def main():
    before = sockets()
    try:
        await connected(int(sys.argv[1]))
    except ConnectionAbortedError:
        print("aborted")
    await asyncio.sleep(0.1)
    print(sockets() - before)
"""

    def listen(connection):
        with contextlib.suppress(OSError):
            connection.recv(10_000)

    with peers.script(listen) as port:
        assert program(script, port) == ["not asked yet", "aborted", "0"]
    assert either.sockets() == []


def test_start_tls_that_is_cancelled_or_too_slow(program, either):
    script = """
async def main():
    lost = []
    class Plain(asyncio.Protocol):
        def connection_lost(self, exc): lost.append(type(exc).__name__)
    loop = asyncio.get_running_loop()
    before = sockets()
    for how in ("cancelled", "slow"):
        transport, protocol = await loop.create_connection(Plain, "127.0.0.1", int(sys.argv[1]))
        task = asyncio.create_task(loop.start_tls(transport, protocol, client_context(), server_hostname="localhost",
                                                  ssl_handshake_timeout=0.4))
        await asyncio.sleep(0.2)
        if how == "cancelled":
            task.cancel()
        try:
            await task
        except (asyncio.CancelledError, ConnectionAbortedError) as exc:
            print(how, type(exc).__name__)
        del transport, protocol, task
        await asyncio.sleep(0.1)
    gc.collect()
    print(lost, sockets() - before)
"""

    def stall(connection):
        with contextlib.suppress(OSError):
            while connection.recv(10_000):
                pass

    with peers.script(stall) as port:
        assert program(script, port) == [
            "cancelled CancelledError",
            "slow ConnectionAbortedError",
            "['ConnectionAbortedError', 'ConnectionAbortedError'] 0",
        ]


def test_callbacks_that_raise(program, either):
    script = """
async def main():
    loop = asyncio.get_running_loop()
    told = []
    loop.set_exception_handler(lambda _, context: told.append(str(context.get("exception"))))
    server, port = await serving(echo)
    lost = asyncio.Queue()
    class Raising(asyncio.Protocol):
        def __init__(self, where): self.where = where
        def connection_made(self, transport):
            transport.write(b"x")
            self.maybe("connection_made")
        def data_received(self, data): self.maybe("data_received")
        def eof_received(self): self.maybe("eof_received")
        def connection_lost(self, exc):
            lost.put_nowait(str(exc))
            self.maybe("connection_lost")
        def maybe(self, where):
            if where == self.where:
                raise RuntimeError(where)
    for where in ("connection_made", "data_received", "connection_lost"):
        try:
            transport, _ = await loop.create_connection(lambda: Raising(where), "127.0.0.1", port, ssl=True,
                                                        server_hostname="localhost")
            if where == "connection_lost":
                transport.abort()
        except RuntimeError as exc:
            print("raised", exc)
        print(await asyncio.wait_for(lost.get(), 5))
    await asyncio.sleep(0.1)
    print(told)
"""
    lines = [line for line in program(script) if not line.startswith("server:")]
    expected = ["connection_made", "data_received", "connection_lost"]
    assert lines == ["raised connection_made", "connection_made", "data_received", "None", str(expected)]


def test_a_loop_that_is_closed_with_connections_open(program, either):
    script = """
import warnings
async def main():
    pass
async def open_them():
    server, port = await serving(echo)
    reader, writer = await connected(port)
    stalled = asyncio.create_task(connected(int(sys.argv[1])))
    await asyncio.sleep(0.2)
    return reader, writer
loop = asyncio.new_event_loop()
before = sockets()
kept = loop.run_until_complete(open_them())
import logging
logging.disable(logging.CRITICAL)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    loop.close()
    del kept
    gc.collect()
    gc.collect()
print(any("unclosed transport <TLSTransport" in str(one.message) for one in caught))
for name in os.listdir("/proc/self/fd"):
    try: print("left", os.readlink("/proc/self/fd/" + name)) if "socket" in os.readlink("/proc/self/fd/" + name) else 0
    except OSError: pass
"""

    def stall(connection):
        with contextlib.suppress(OSError):
            connection.recv(10_000)
            connection.recv(10_000)

    with peers.script(stall) as port:
        told = program(script, port)
    assert "True" in told
    assert [line for line in told if line.startswith("left ")] == []
    assert settled(lambda: either.sockets() == [])


def test_two_loops_in_two_threads(program, either):
    script = """
import threading
async def work():
    server, port = await serving(echo)
    for _ in range(10):
        reader, writer = await connected(port)
        data = os.urandom(50_000)
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        await ended(writer)
    done.append(1)
async def main():
    pass
done = []
threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(done))
"""
    assert program(script) == ["2"]


def test_forks_after_inject(program, either):
    script = """
async def main():
    server, port = await serving(echo)
    reader, writer = await connected(port)
    writer.write(b"before ")
    print(await reader.readexactly(7))
    child = os.fork()
    if not child:
        os._exit(0)  # who ends without a word ends nobody's stream
    os.waitpid(child, 0)
    writer.write(b"behind")
    print(await reader.readexactly(6))
    await ended(writer)
"""
    assert program(script) == ["b'before '", "b'behind'"]


@pytest.fixture
def own(tmp_path, pki, either):
    """An ssad of the test's own, on the same data path."""
    policy = f'[policy]\ntrust_store = "{pki.ca}"\ndata_path = "{either.get("policy/data_path").strip()}"\n'
    with Daemon(tmp_path, policy=policy) as daemon:
        yield daemon


def test_no_daemon(program, own):
    script = """
async def main():
    server, port = await serving(echo, ssl=None)
    os.environ["SSA_RUN_DIR"] = "/nowhere"
    try:
        await connected(port)
    except ConnectionRefusedError as refused:
        print("no ssad listens at" in str(refused))
"""
    assert program(script, **own.environment) == ["True"]


REPLACED = """
async def main():
    loop = asyncio.get_running_loop()
    server, port = await serving(echo)
    reader, writer = await connected(port)
    writer.write(b"hello")
    print(await reader.readexactly(5))
    stalled = asyncio.create_task(connected(int(sys.argv[1])))
    await asyncio.sleep(0.3)
    print("now", file=open(sys.argv[2], "w"))
    try:
        await asyncio.wait_for(stalled, 20)
    except ssl.SSLError as exc:
        print(exc.reason)
    while os.path.exists(sys.argv[2]):
        await asyncio.sleep(0.05)
    for _ in range(50):
        try:
            reader, writer = await connected(port)
            break
        except OSError:
            await asyncio.sleep(0.1)
    writer.write(b"again")
    print(await reader.readexactly(5))
    await ended(writer)
"""


def test_a_daemon_that_goes_and_another_that_comes(program, own, tmp_path):
    """What is under way fails at once and in words; listeners need nothing to be said anew."""
    import threading

    told = tmp_path / "told"

    def replace():
        settled(told.exists, 30)
        own.kill()
        os.system(f"fusermount3 -u -z {own.mount}")
        own.start()
        told.unlink()

    def stall(connection):
        with contextlib.suppress(OSError):
            while connection.recv(10_000):
                pass

    thread = threading.Thread(target=replace)
    thread.start()
    with peers.script(stall) as port:
        lines = program(REPLACED, port, told, timeout=60, **own.environment)
    thread.join()
    assert [line for line in lines if not line.startswith("server:")] == ["b'hello'", "DAEMON_FAULT", "b'again'"]


def test_a_daemon_that_is_stopped(program, own):
    """The loop goes on meanwhile, and the handshake's timeout holds."""
    script = """
import signal
async def main():
    loop = asyncio.get_running_loop()
    server, port = await serving(echo)
    reader, writer = await connected(port)
    os.kill(int(sys.argv[1]), signal.SIGSTOP)
    longest, last = 0, loop.time()
    async def watch():
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, loop.time() - last), loop.time()
    watching = asyncio.create_task(watch())
    began = loop.time()
    told = await asyncio.gather(*(connected(port, ssl_handshake_timeout=1) for _ in range(30)), return_exceptions=True)
    print({type(one).__name__ for one in told}, 0.9 < loop.time() - began < 6, longest < 1)
    writer.close()
    await asyncio.sleep(0.2)
    os.kill(int(sys.argv[1]), signal.SIGCONT)
    reader, writer = await connected(port)
    writer.write(b"hello")
    print(await reader.readexactly(5))
    await ended(writer)
"""
    lines = program(script, own.process.pid, **own.environment)
    assert [line for line in lines if not line.startswith("server:")] == [
        "{'ConnectionAbortedError'} True True",
        "b'hello'",
    ]
