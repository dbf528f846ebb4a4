"""ssa.trio: trio's own streams, listeners and checks, over TLS sockets."""

import contextlib
import functools
import hashlib
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
import trio
import trio.testing

import ssa
import ssa.trio
from tests import peers


@pytest.fixture
def server(ssad, pki):
    """The arguments of a server with the throw-away authority's certificate."""
    return {"certificate": pki.cert, "private_key": pki.key}


@pytest.fixture
def listener(server):
    with ssa.create_server(("127.0.0.1", 0), **server) as listener:
        yield listener


def run(function, *arguments):
    """Run it, bounded; the one exception that came out of nurseries is raised as it was."""

    async def bounded():
        with trio.fail_after(60):
            return await function(*arguments)

    try:
        return trio.run(bounded)
    except BaseExceptionGroup as group:
        exc = group
        while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
            (exc,) = exc.exceptions
        raise exc from None


def connected(listener):
    """Makes connected streams, as trio's checks want them."""

    async def make():
        taker = ssa.trio.TLSListener(listener)
        async with trio.open_nursery() as nursery:
            accepted = []

            async def accept():
                accepted.append(await taker.accept())

            nursery.start_soon(accept)
            stream = await ssa.trio.open_stream("localhost", listener.getsockname()[1])
        return stream, accepted[0]

    return make


async def read_all(stream):
    return b"".join([part async for part in stream])


async def clog(stream):
    """Leave no room for what the stream sends, wherever it could be on its way."""
    while True:
        with contextlib.suppress(BlockingIOError):
            while True:
                stream.socket.send(bytes(4096))
        with trio.move_on_after(0.1) as waited:
            await trio.lowlevel.wait_writable(stream.socket)
        if waited.cancelled_caught:
            return


def clogged(make):
    """Make streams with `make`, and leave no room in their send buffers."""

    async def make_clogged():
        streams = await make()
        for stream in streams:
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for stream in streams:
            await clog(stream)
        return streams

    return make_clogged


def test_trios_own_checks(listener):
    make = connected(listener)
    run(trio.testing.check_half_closeable_stream, make, clogged(make))


def test_a_stream_from_a_socket(listener):
    async def main():
        with ssa.create_connection(("localhost", listener.getsockname()[1]), timeout=10) as sock:
            stream = ssa.trio.from_stdlib_socket(sock)
            async with await ssa.trio.TLSListener(listener).accept() as accepted, stream:
                assert stream.socket is sock
                await stream.send_all(b"abc")
                assert await accepted.receive_some() == b"abc"
            assert sock.fileno() == -1

    run(main)
    with pytest.raises(TypeError), socket.socket() as plain:
        ssa.trio.from_stdlib_socket(plain)


async def serving(nursery, handler, server, **options):
    listeners = await nursery.start(functools.partial(ssa.trio.serve, handler, 0, **server, **options))
    return listeners[0].socket.getsockname()[1]


async def echo(stream):
    async for data in stream:
        await stream.send_all(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", None])
def test_serve(server, host):
    async def main():
        async with trio.open_nursery() as nursery:
            port = await serving(nursery, echo, server, host=host, alpn=["echo"])
            stream = await ssa.trio.open_stream(host or "localhost", port, alpn=["other", "echo"])
            async with stream:
                assert stream.socket.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_ALPN) == b"echo"
                await stream.send_all(b"hello")
                assert await stream.receive_some() == b"hello"
                await stream.send_eof()
                assert await read_all(stream) == b""  # the end in order, once the handler has returned
            nursery.cancel_scope.cancel()

    run(main)


def test_a_slow_client_stops_nobody(server):
    async def main():
        async with trio.open_nursery() as nursery:
            port = await serving(nursery, echo, server, host="127.0.0.1")
            silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(20)]
            async with await ssa.trio.open_stream("localhost", port) as stream:
                await stream.send_all(b"me first")
                assert await stream.receive_some() == b"me first"
            for stream in silent:
                await stream.aclose()
            nursery.cancel_scope.cancel()

    run(main)


def test_what_a_handler_raises_goes_on_and_its_stream_is_cut(server):
    read = []

    async def fails(stream):
        await stream.send_all(b"so far")
        raise RuntimeError("a fault in the handler")

    async def main():
        async with trio.open_nursery() as outside:

            async def client(port):
                async with await ssa.trio.open_stream("localhost", port) as stream:
                    read.append(await stream.receive_some())
                    with pytest.raises(trio.BrokenResourceError, match="close_notify"):
                        await stream.receive_some()

            async with trio.open_nursery() as nursery:
                port = await serving(nursery, fails, server, host="127.0.0.1")
                outside.start_soon(client, port)

    with pytest.raises(RuntimeError, match="a fault in the handler"):
        run(main)


def test_a_handlers_own_nursery_and_errors(server):
    """With a nursery of their own, what handlers raise is that nursery's."""

    async def main():
        async with trio.open_nursery() as nursery, trio.open_nursery() as handlers:
            port = await serving(nursery, echo, server, host="127.0.0.1", handler_nursery=handlers)
            async with await ssa.trio.open_stream("localhost", port) as stream:
                await stream.send_all(b"x")
                assert await stream.receive_some() == b"x"
                assert len(handlers.child_tasks) == 1
            nursery.cancel_scope.cancel()

    run(main)


def test_a_cut_stream_is_broken(listener):
    async def main():
        stream, other = await connected(listener)()
        await other.send_all(b"half of")
        os.close(other.socket.detach())
        assert await stream.receive_some() == b"half of"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="close_notify"):
                await stream.receive_some()
        await stream.aclose()
        for operation in (stream.receive_some, stream.send_eof, functools.partial(stream.send_all, b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await operation()

    run(main)


def test_a_sender_that_is_cancelled_leaves_a_cut_stream(listener):
    async def main():
        stream, other = await connected(listener)()
        with trio.move_on_after(0.2) as scope:
            await stream.send_all(bytes(64 << 20))
        assert scope.cancelled_caught
        with pytest.raises(trio.BrokenResourceError, match="interrupted"):
            await stream.send_all(b"more")
        await stream.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await read_all(other)
        await other.aclose()

    run(main)


def test_closing_waits_for_room(listener):
    """The last bytes, and the end behind them, arrive at a reader that comes late."""

    async def main():
        stream, other = await clogged(connected(listener))()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.aclose)
            await trio.sleep(0.1)
            assert stream.socket.fileno() >= 0
            assert set(await read_all(other)) == {0}
        assert stream.socket.fileno() == -1
        await other.aclose()

    run(main)


def test_closing_is_not_held_up_when_cancelled(listener):
    async def main():
        stream, other = await clogged(connected(listener))()
        before = time.monotonic()
        await trio.aclose_forcefully(stream)
        assert time.monotonic() - before < 0.9  # a blocking close waits for a second
        assert stream.socket.fileno() == -1
        with pytest.raises(trio.BrokenResourceError):
            await read_all(other)
        await other.aclose()

    run(main)


def test_refusals_are_the_blocking_calls(ssad, server, listener):
    async def main():
        port = listener.getsockname()[1]
        listener.setblocking(False)
        with pytest.raises(ssa.CertificateError) as caught:
            await ssa.trio.open_stream("localhost", port, server_hostname="wrong.test")
        assert caught.value.reason == "HOSTNAME_MISMATCH"
        with pytest.raises(OSError, match="all attempts to connect"):
            await ssa.trio.open_stream("localhost", peers.free_port())
        async with await ssa.trio.open_stream("localhost", port, server_hostname="example.test") as stream:
            assert stream.socket.getsockopt(ssa.IPPROTO_TLS, ssa.TLS_PEER_IDENTITY) == b"example.test"

    run(main)


def counted(ssad):
    return len(os.listdir("/proc/self/fd")), ssad.descriptors()


def left_over(now, before):
    return any(count > was for count, was in zip(now, before, strict=True))


def test_a_stalled_handshake_can_be_cancelled(ssad):
    """And leaves nothing, costs nothing, and lets others go on."""
    before = counted(ssad)
    ticks = []

    async def tick():
        while True:
            await trio.sleep(0.1)
            ticks.append(1)

    async def main(port):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            cpu = time.process_time()
            with trio.move_on_after(1) as scope:
                await ssa.trio.open_stream("localhost", port)
            assert scope.cancelled_caught
            assert time.process_time() - cpu < 0.5
            nursery.cancel_scope.cancel()

    with peers.script(lambda connection: connection.recv(1 << 20) and connection.recv(1 << 20)) as port:
        run(main, port)
        assert len(ticks) >= 3
    deadline = time.monotonic() + 10
    while left_over(now := counted(ssad), before) and time.monotonic() < deadline:
        time.sleep(0.05)  # the server's thread may be late
    assert not left_over(now, before)
    assert ssad.sockets() == []


def test_an_idle_stream_costs_nothing(listener):
    async def main():
        stream, other = await connected(listener)()
        async with stream, other, trio.open_nursery() as nursery:
            nursery.start_soon(stream.receive_some)
            cpu = time.process_time()
            await trio.sleep(1)
            assert time.process_time() - cpu < 0.5
            nursery.cancel_scope.cancel()

    run(main)


def test_a_server_outlives_its_daemon(capabilities, tmp_path, pki, monkeypatch):
    """It rests while there is none, and serves on with the next."""
    with peers.Daemon(tmp_path, policy=f'[policy]\ntrust_store = "{pki.ca}"\n') as daemon:
        for name, value in daemon.environment.items():
            monkeypatch.setenv(name, value)

        async def main():
            async with trio.open_nursery() as nursery:
                server = {"certificate": pki.cert, "private_key": pki.key}
                port = await serving(nursery, echo, server, host="127.0.0.1")
                await trio.to_thread.run_sync(daemon.stop)
                cpu = time.process_time()
                await trio.sleep(1)
                assert time.process_time() - cpu < 0.5
                await trio.to_thread.run_sync(daemon.start)
                async with await ssa.trio.open_stream("localhost", port) as stream:
                    await stream.send_all(b"still there?")
                    assert await stream.receive_some() == b"still there?"
                nursery.cancel_scope.cancel()

        run(main)


def test_the_documented_programs(server):
    text = (Path(ssa.__file__).parent.parent / "docs" / "async.md").read_text()
    section = text.partition("\n## trio\n")[2].partition("\n## ")[0]
    program = {}
    exec(section.partition("```python\n")[2].partition("```")[0], program)

    async def main():
        async with trio.open_nursery() as nursery:
            port = await serving(nursery, program["handle"], server, host="127.0.0.1")
            assert await program["fetch"]("localhost", port) == b"HTTP/1.0 200 OK\r\n\r\nGET / HTTP/1.0\n"
            nursery.cancel_scope.cancel()

    run(main)


def test_much_at_once(listener):
    """Each way 16 MiB, at the same time, with pauses in reading."""
    data = os.urandom(16 << 20)

    async def send(stream):
        await stream.send_all(data)
        await stream.send_eof()

    async def receive(stream):
        await trio.sleep(0.2)
        assert hashlib.sha256(await read_all(stream)).digest() == hashlib.sha256(data).digest()

    async def main():
        streams = await connected(listener)()
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)
        for stream in streams:
            await stream.aclose()

    run(main)


@pytest.mark.parametrize("tickets", [0, 4])
def test_the_peers_key_update(capabilities, ssad, pki, tickets):
    """Right behind data, where the kernel finds it in the same read and poll(2) tells of nothing."""

    async def main(port, process):
        async with await ssa.trio.open_stream("localhost", port) as stream:
            for typed in (b"one\n", b"K\n"):
                process.stdin.write(typed)
                process.stdin.flush()
                await trio.sleep(0.2)
            assert await stream.receive_some() == b"one\n"
            process.stdin.write(b"two\n")
            process.stdin.flush()
            if not capabilities.rekey:
                with pytest.raises(trio.BrokenResourceError, match="key"):
                    await stream.receive_some()
                return
            assert await stream.receive_some() == b"two\n"
            await stream.send_all(b"under which key?\n")
            line = b""
            while line != b"under which key?\n":
                line = await trio.to_thread.run_sync(process.stdout.readline)
                assert line

    with peers.openssl(pki, "-num_tickets", tickets, stdout=subprocess.PIPE) as (port, process):
        run(main, port, process)
