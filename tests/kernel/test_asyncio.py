"""TLS sockets in asyncio, without a line of help from ssa: streams, transports and the calls of the loop."""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import selectors
import socket
import subprocess
import termios
import threading
import time
from pathlib import Path

import pytest

import ssa
from tests import peers

pytestmark = [
    pytest.mark.filterwarnings("error::ResourceWarning"),
    pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning"),
]

MIB = 2**20


@pytest.fixture(autouse=True)
def quiet(caplog):
    """In its debug mode, asyncio finds nothing to complain about."""
    yield
    complaints = [r.getMessage() for r in caplog.get_records("call") if r.levelno >= logging.WARNING]
    assert complaints == []


@pytest.fixture
def listener(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        yield listener


def run(function, *arguments, selector=selectors.DefaultSelector):
    with asyncio.Runner(debug=True, loop_factory=lambda: asyncio.SelectorEventLoop(selector())) as runner:
        runner.get_loop().slow_callback_duration = 0.9  # nothing may hold up the loop
        return runner.run(asyncio.wait_for(function(*arguments), 60))


def fresh(name="localhost"):
    sock = ssa.socket()
    sock.setblocking(False)
    sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REMOTE_HOSTNAME, name.encode())
    return sock


async def dial(port, name="localhost"):
    sock = fresh(name)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


async def connected(listener):
    """Two sockets."""
    listener.setblocking(False)
    client = await dial(listener.getsockname()[1])
    server, _ = await asyncio.get_running_loop().sock_accept(listener)
    return client, server


async def streams(listener):
    """Two pairs of reader and writer."""
    client, server = await connected(listener)
    return await asyncio.open_connection(sock=client), await asyncio.open_connection(sock=server)


async def close(*writers):
    for writer in writers:
        writer.close()
    for writer in writers:
        await writer.wait_closed()


async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    await close(writer)


@pytest.mark.parametrize(
    "selector", [selectors.DefaultSelector, selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector]
)
def test_streams_both_ways(listener, selector):
    async def main():
        async with await asyncio.start_server(echo, sock=listener):
            port = listener.getsockname()[1]
            reader, writer = await asyncio.open_connection(sock=await dial(port))
            assert writer.get_extra_info("peername") == ("127.0.0.1", port)
            assert writer.get_extra_info("socket").getsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_CONN)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            writer.write_eof()
            assert await reader.read() == b""
            await close(writer)

    run(main, selector=selector)


def test_the_calls_of_the_loop(listener):
    async def main():
        loop = asyncio.get_running_loop()
        client, server = await connected(listener)
        with client, server:
            receiving = loop.create_task(loop.sock_recv(server, 100))
            await asyncio.sleep(0)
            await loop.sock_sendall(client, b"to the server")
            assert await receiving == b"to the server"
            buffer = bytearray(100)
            receiving = loop.create_task(loop.sock_recv_into(client, buffer))
            await asyncio.sleep(0)
            await loop.sock_sendall(server, b"to the client")
            assert buffer[: await receiving] == b"to the client"
            server.shutdown(socket.SHUT_WR)
            assert await loop.sock_recv(client, 100) == b""

    run(main)


def test_readers_and_writers(listener):
    async def main():
        loop = asyncio.get_running_loop()
        client, server = await connected(listener)
        with client, server:
            writable, readable = loop.create_future(), loop.create_future()
            loop.add_writer(client, writable.set_result, None)
            await writable
            loop.remove_writer(client)
            loop.add_reader(server, lambda: readable.set_result(server.recv(10)))
            client.send(b"ready")
            assert await readable == b"ready"
            loop.remove_reader(server)

    run(main)


class Buffered(asyncio.BufferedProtocol):
    def __init__(self):
        self.buffer, self.data = bytearray(1000), b""
        self.ended = asyncio.get_running_loop().create_future()

    def get_buffer(self, _hint):
        return self.buffer

    def buffer_updated(self, size):
        self.data += self.buffer[:size]

    def connection_lost(self, exc):
        self.ended.set_result(exc)


def test_a_transport_with_a_buffer(listener):
    async def main():
        client, server = await connected(listener)
        _, protocol = await asyncio.get_running_loop().create_connection(Buffered, sock=client)
        _, writer = await asyncio.open_connection(sock=server)
        writer.write(b"x" * 10000)
        await close(writer)
        assert await protocol.ended is None
        assert protocol.data == b"x" * 10000

    run(main)


def test_half_close(listener):
    async def main():
        (reader, writer), (other_reader, other_writer) = await streams(listener)
        writer.write(b"q" * MIB)
        writer.write_eof()
        assert await other_reader.read() == b"q" * MIB
        other_writer.write(b"the answer")
        other_writer.write_eof()
        assert await reader.read() == b"the answer"
        await close(writer, other_writer)

    run(main)


def test_closing_sends_all_and_then_the_end(listener):
    async def main():
        (_, writer), (reader, other_writer) = await streams(listener)
        writer.write(b"z" * 4 * MIB)
        writer.close()
        assert len(await reader.read()) == 4 * MIB
        await close(writer, other_writer)

    run(main)


def test_a_cut_stream_is_an_error(listener):
    async def main():
        client, server = await connected(listener)
        reader, writer = await asyncio.open_connection(sock=client)
        server.send(b"half of")
        os.close(server.detach())
        with pytest.raises(ConnectionAbortedError, match="close_notify"):
            await reader.read()
        with contextlib.suppress(ConnectionAbortedError):
            await close(writer)

    run(main)


def test_a_cut_stream_is_an_error_to_the_calls_of_the_loop(listener):
    async def main():
        client, server = await connected(listener)
        with client:
            os.close(server.detach())
            with pytest.raises(ConnectionAbortedError, match="close_notify"):
                await asyncio.get_running_loop().sock_recv(client, 100)

    run(main)


def test_much_at_once_with_back_pressure(listener):
    total = 64 * MIB

    async def main():
        (_, writer), (other_reader, other_writer) = await streams(listener)
        most = 0

        async def send():
            nonlocal most
            sent, block = hashlib.sha256(), os.urandom(MIB)
            for number in range(total // MIB):
                part = number.to_bytes(4, "big") + block[4:]
                sent.update(part)
                writer.write(part)
                most = max(most, writer.transport.get_write_buffer_size())
                await writer.drain()
            writer.write_eof()
            return sent.digest()

        async def receive():
            received = hashlib.sha256()
            await asyncio.sleep(0.2)  # late: the sender has to wait
            while data := await other_reader.read(MIB):
                received.update(data)
            return received.digest()

        sent, received = await asyncio.gather(send(), receive())
        assert sent == received
        assert most <= 2 * MIB
        await close(writer, other_writer)

    run(main)


@pytest.fixture
def big(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(os.urandom(4 * MIB))
    return path


def test_sending_a_file(listener, big):
    async def main():
        loop = asyncio.get_running_loop()
        client, server = await connected(listener)
        reader, writer = await asyncio.open_connection(sock=client)
        reading = loop.create_task(reader.read())
        with big.open("rb") as file, server:
            assert await loop.sock_sendfile(server, file, fallback=False) == 4 * MIB
        assert await reading == big.read_bytes()
        await close(writer)

    run(main)


def test_sending_a_file_through_a_transport(listener, big):
    async def main():
        loop = asyncio.get_running_loop()
        (reader, writer), (_, other_writer) = await streams(listener)
        reading = loop.create_task(reader.read())
        other_writer.write(b"before ")
        with big.open("rb") as file:
            assert await loop.sendfile(other_writer.transport, file, fallback=False) == 4 * MIB
        other_writer.write(b" behind")
        await close(other_writer)
        assert await reading == b"before " + big.read_bytes() + b" behind"
        await close(writer)

    run(main)


# --- what goes wrong in connecting ----------------------------------------------------------------------------------


def test_connection_refused(ssad):
    with pytest.raises(ConnectionRefusedError):
        run(dial, peers.free_port())


def test_a_refused_certificate(listener):
    async def main():
        with fresh("wrong.test") as sock:
            with pytest.raises(OSError, match=r"another name.*Connect call failed") as caught:
                await asyncio.get_running_loop().sock_connect(sock, listener.getsockname())
            assert caught.value.errno == errno.EKEYREJECTED
            assert b"another name" in sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ERROR)
            with pytest.raises(OSError, match="no TLS connection"):
                await asyncio.get_running_loop().sock_sendall(sock, b"secret")

    run(main)


def test_a_server_that_hangs_up(ssad):
    with peers.script(lambda connection: connection.recv(1)) as port, pytest.raises(ConnectionResetError):
        run(dial, port)


def test_no_daemon(ssad, tmp_path, monkeypatch):
    async def main():
        with ssa.socket() as sock:
            sock.setblocking(False)
            with pytest.raises(ConnectionRefusedError, match="no ssad"):
                await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", 1))

    monkeypatch.setenv("SSA_RUN_DIR", str(tmp_path))
    run(main)


def stalls(connection):
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("selector", [selectors.DefaultSelector, selectors.PollSelector, selectors.SelectSelector])
def test_a_connect_under_way_costs_nothing_and_can_be_cancelled(ssad, selector):
    before = counted(ssad)

    async def main(port):
        connecting = [asyncio.create_task(dial(port)) for _ in range(5)]
        await asyncio.sleep(0.3)
        cpu = time.process_time()
        threads = threading.active_count()
        await asyncio.sleep(1)
        assert time.process_time() - cpu < 0.5
        assert threads <= before[2] + 6  # the server's
        for task in connecting:
            task.cancel()
        results = await asyncio.gather(*connecting, return_exceptions=True)
        assert [type(result) for result in results] == [asyncio.CancelledError] * 5

    with peers.script(stalls) as port:
        run(main, port, selector=selector)
    deadline = time.monotonic() + 10
    while left_over(now := counted(ssad), before) and time.monotonic() < deadline:
        time.sleep(0.05)  # the server's threads may be late
    assert not left_over(now, before)
    assert ssad.sockets() == []


def left_over(now, before):
    return any(count > was for count, was in zip(now, before, strict=True))


def counted(ssad):
    return len(os.listdir("/proc/self/fd")), ssad.descriptors(), threading.active_count()


def test_idle_connections_cost_nothing(listener):
    threads_before = threading.active_count()

    async def main():
        async with await asyncio.start_server(echo, sock=listener):
            pairs = [await asyncio.open_connection(sock=await dial(listener.getsockname()[1])) for _ in range(10)]
            threads = threading.active_count()
            cpu = time.process_time()
            await asyncio.sleep(1)
            assert time.process_time() - cpu < 0.5
            assert threads <= threads_before
            await close(*(writer for _, writer in pairs))

    run(main)


def test_many_at_once_beside_silent_ones(listener):
    """Who is slow in the handshake holds up nobody."""

    async def one(port, number):
        reader, writer = await asyncio.open_connection(sock=await dial(port))
        writer.write(b"%d\n" % number)
        line = await reader.readline()
        await close(writer)
        return int(line)

    async def main():
        port = listener.getsockname()[1]
        async with await asyncio.start_server(echo, sock=listener):
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
            assert await asyncio.gather(*(one(port, number) for number in range(30))) == list(range(30))
            await close(*(writer for _, writer in silent))

    run(main)


def test_a_server_outlives_its_daemon(capabilities, tmp_path, pki, monkeypatch, caplog):
    """It rests while there is none, and serves on with the next."""
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)

        async def main():
            complaints = []
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
            with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
                async with await asyncio.start_server(echo, sock=listener):
                    await asyncio.to_thread(daemon.stop)
                    cpu = time.process_time()
                    await asyncio.sleep(1.5)
                    assert time.process_time() - cpu < 0.7
                    assert 1 <= len(complaints) <= 3
                    assert "no ssad" in str(complaints[-1]["exception"])
                    await asyncio.to_thread(daemon.start)
                    reader, writer = await asyncio.open_connection(sock=await dial(listener.getsockname()[1]))
                    writer.write(b"still there?")
                    assert await reader.readexactly(12) == b"still there?"
                    await close(writer)

        run(main)


# --- what the documentation shows --------------------------------------------------------------------------------


def documented(text, section):
    """What a section's program defines."""
    _, _, rest = text.partition(f"\n## {section}\n")
    names = {}
    exec(rest.partition("```python\n")[2].partition("```")[0], names)
    return names


def test_the_documented_programs(ssad, pki):
    text = (Path(ssa.__file__).parent.parent / "docs" / "async.md").read_text()
    client, server = documented(text, "asyncio: a client"), documented(text, "asyncio: a server")

    async def main():
        options = {"certificate": pki.cert, "private_key": pki.key}
        async with await server["serve"](("127.0.0.1", 0), **options) as serving:
            port = serving.sockets[0].getsockname()[1]
            assert await client["fetch"]("localhost", port) == b"HTTP/1.0 200 OK\r\n\r\nGET / HTTP/1.0\n"

    run(main)


# --- what else there is in a stream ---------------------------------------------------------------------------------


def type_into(process, line):
    process.stdin.write(line)
    process.stdin.flush()


async def until_read(process):
    """openssl takes for a command what it reads at one go: so a line at a time."""
    unread = bytearray(4)
    while process.poll() is None:
        fcntl.ioctl(process.stdin, termios.FIONREAD, unread)
        if not any(unread):
            return
        await asyncio.sleep(0.01)


@pytest.fixture(params=[0, 4], ids=["no tickets", "tickets"])
def foreign_server(ssad, pki, request):
    with peers.openssl(pki, "-num_tickets", request.param, stdout=subprocess.PIPE) as (port, process):
        yield port, process


def test_tickets_in_a_stream(foreign_server):
    port, process = foreign_server

    async def main():
        sock = await dial(port)
        assert sock.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_VERSION_CONN) == 0x0304
        reader, writer = await asyncio.open_connection(sock=sock)
        for line in (b"one\n", b"two\n"):
            type_into(process, line)
            assert await reader.readline() == line
        await close(writer)

    run(main)


@pytest.mark.parametrize("command", [b"K\n", b"k\n"], ids=["asked for an answer", "not asked"])
@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
def test_the_peers_key_update(capabilities, foreign_server, command, hidden):
    """By itself, or right behind data: then the kernel finds it in the same read, and poll(2) tells of nothing."""
    port, process = foreign_server

    async def main():
        reader, writer = await asyncio.open_connection(sock=await dial(port))
        type_into(process, b"one\n")
        if not hidden:
            assert await reader.readline() == b"one\n"
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is to stand still - nothing is read meanwhile
        type_into(process, command)
        time.sleep(0.2)  # noqa: ASYNC251 - the loop is to stand still
        if hidden:
            assert await reader.readline() == b"one\n"
        type_into(process, b"two\n")
        if not capabilities.rekey:
            with pytest.raises(OSError, match="key") as caught:
                await reader.readline()
            assert caught.value.errno == errno.EPROTONOSUPPORT
            writer.transport.abort()
            return
        assert await reader.readline() == b"two\n"
        writer.write(b"under which key?\n")
        line = b""
        while line != b"under which key?\n":
            line = await asyncio.to_thread(process.stdout.readline)
            assert line
        await close(writer)

    run(main)


def test_a_clients_key_updates(capabilities, listener, pki):
    """openssl s_client changes its keys between its lines; the server answers."""
    port = listener.getsockname()[1]
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", "localhost", "-CAfile", pki.ca]
    lines = [b"line %d\n" % number for number in range(5)]

    async def main(client):
        served = asyncio.get_running_loop().create_future()

        async def serve(reader, writer):
            try:
                for expected in lines:
                    line = await reader.readline()
                    assert line == expected
                    writer.write(line)
                served.set_result(None)
            except OSError as exc:
                served.set_result(exc.errno)
            writer.transport.abort()

        async with await asyncio.start_server(serve, sock=listener):
            with contextlib.suppress(BrokenPipeError):
                for typed in (typed for line in lines for typed in (line, b"K\n")):
                    type_into(client, typed)
                    await until_read(client)
            assert await served == (None if capabilities.rekey else errno.EPROTONOSUPPORT)

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(BrokenPipeError), subprocess.Popen(command, stdin=subprocess.PIPE, **quiet) as client:
        run(main, client)


def test_ending_with_a_full_send_buffer_holds_up_nobody(ssad, pki):
    """The peer reads nothing: what ends the stream is left to the daemon, and comes behind the last byte."""
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        client = ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10)
        server, _ = listener.accept()
        with client, server:
            server.setblocking(False)
            sent = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    sent += server.send(bytes(1 << 16))
            began = time.monotonic()
            server.shutdown(socket.SHUT_WR)
            server.close()
            assert time.monotonic() - began < 0.5
            received = 0
            while data := client.recv(1 << 16):
                received += len(data)
            assert received == sent
