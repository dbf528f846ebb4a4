"""A connect in an event loop costs the same however many descriptors the process has: none of them is looked at."""

import asyncio
import contextlib
import os
import time

import pytest
import trio
import uvloop

import ssa
import ssa.trio
from ssa.library import fdswap
from tests import needs


@pytest.fixture
def ssad(either):
    """All that is said here holds on both data paths."""
    return either


@pytest.fixture
def port(ssad, pki):
    with ssa.create_server(("127.0.0.1", 0), certificate=pki.cert, private_key=pki.key) as listener:
        listener.settimeout(20)
        yield listener.getsockname()[1]


@pytest.fixture
def looked(monkeypatch):
    """The directories of descriptors that were listed."""
    listed, listdir = [], os.listdir
    monkeypatch.setattr(fdswap.os, "listdir", lambda path=".": listed.append(path) or listdir(path))
    return listed


async def dial(port, name="localhost"):
    sock = ssa.socket()
    try:
        sock.setblocking(False)
        sock.setsockopt(ssa.IPPROTO_TLS, ssa.TLS_REMOTE_HOSTNAME, name.encode())
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    except BaseException:
        sock.close()
        raise
    return sock


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(function, *arguments, loop="asyncio"):
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(asyncio.wait_for(function(*arguments), 30))


@pytest.fixture(params=["asyncio", pytest.param("uvloop", marks=needs.panics_there)])
def loop(request):
    return request.param


def test_asyncio(port, looked, loop):
    async def use():
        for _ in range(3):
            (await dial(port)).close()
        sock = await dial(port)
        await asyncio.get_running_loop().sock_sendall(sock, b"x")
        sock.close()

    run(use, loop=loop)
    assert looked == []


def test_what_fails_in_asyncio_looks_no_further(port, looked, loop):
    async def use():
        with pytest.raises(OSError, match="another name"):
            await dial(port, "other.test")

    run(use, loop=loop)
    assert looked == []


def test_trio(port, looked):
    async def use():
        with trio.fail_after(20):
            for _ in range(3):
                await (await ssa.trio.open_stream("localhost", port)).aclose()
            with pytest.raises(ssa.CertificateError):
                await ssa.trio.open_stream("localhost", port, server_hostname="other.test")

    trio.run(use)
    assert looked == []


def test_trio_gives_up_and_nothing_is_left(ssad, looked):
    before = len(os.listdir("/proc/self/fd"))

    async def use():
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        with trio.move_on_after(0.5) as scope:
            await ssa.trio.open_stream("127.0.0.1", listeners[0].socket.getsockname()[1])
        assert scope.cancelled_caught
        await listeners[0].aclose()

    trio.run(use)
    assert len(os.listdir("/proc/self/fd")) == before


def test_with_thousands_of_descriptors_a_connect_takes_no_longer(port):
    """The shortest of several, in turns: the machine may be busy."""

    async def shortest(count=12):
        took = []
        for _ in range(count):
            began = time.perf_counter()
            (await dial(port)).close()
            took.append(time.perf_counter() - began)
        return min(took)

    few = run(shortest)
    kept = []
    with contextlib.suppress(OSError):  # as many as there may be
        for _ in range(9000):
            kept.append(os.open("/dev/null", os.O_RDONLY))  # noqa: PERF401 - those before the limit count
    try:
        for _ in range(40):
            os.close(kept.pop())
        many = run(shortest)
    finally:
        for fd in kept:
            os.close(fd)
    assert many < few * 3 + 0.005
