"""Closing in threads: what lingers is interrupted, and keeps nobody else waiting."""

import contextlib
import os
import socket
import struct
import time

import pytest
import trio

from ssa.worker.closing import Closers
from tests.peers import settled


def lingering():
    """A descriptor whose close waits twenty seconds for its peer, and the peer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = socket.create_connection(server.getsockname())
        peer, _ = server.accept()
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.send(bytes(65536))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 20))
    return sock.detach(), peer


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture
def closers():
    made = Closers()
    made.end_lingering()
    return made


def test_what_lingers_is_interrupted(closers):
    fds, peers = zip(*(lingering() for _ in range(4)), strict=True)

    async def close():
        await closers.of(1000).close(fds).wait()

    began = time.monotonic()
    trio.run(close)
    assert time.monotonic() - began < 5
    assert not any(map(is_open, fds))
    for peer in peers:
        peer.close()


def test_who_waits_waits_alone(closers):
    pipes = [os.pipe() for _ in range(100)]
    release = [os.pipe() for _ in range(64)]

    def stuck(fd):
        os.read(fd, 1)
        os.close(fd)

    async def close():
        one, another = closers.of(1000), closers.of(1001)
        jobs = [one.close([reading], stuck) for reading, _ in release]
        waiting = one.close([fd for pair in pipes for fd in pair])
        assert (one.open(), another.open()) == (200, 0)
        other = os.dup(0)
        await another.close([other]).wait()
        assert not is_open(other)
        assert is_open(pipes[0][0])
        for _, writing in release:
            os.write(writing, b"x")
        for job in (*jobs, waiting):
            await job.wait()

    trio.run(close)
    assert not any(is_open(fd) for pair in pipes for fd in pair)
    assert closers.open(1000) == 0
    for _, writing in release:
        os.close(writing)


def test_an_error_keeps_nothing_open(closers):
    fd = os.dup(0)
    trio.run(closers.of(1000).close([-1, fd]).wait)
    assert not is_open(fd)


def test_a_close_that_hangs_keeps_nobody_elses_connection(closers):
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    theirs.settimeout(3)

    def stuck(fd):
        os.read(fd, 1)
        os.close(fd)

    async def close():
        hanging = closers.of(1000).close([reading], stuck)
        await trio.sleep(0.2)
        closers.of(1001).hang_up(ours)
        assert await trio.to_thread.run_sync(theirs.recv, 1) == b""
        os.write(writing, b"x")
        await hanging.wait()

    with theirs:
        trio.run(close)
    os.close(writing)


def test_what_can_wait_is_closed_with_the_next_that_cannot(closers):
    closer, sockets = closers.of(1000), socket.socketpair()
    fds = [sock.fileno() for sock in sockets]

    async def close():
        closers._stirred.set()  # somebody closes at this moment: the threads are looked at in fifty milliseconds
        for sock in sockets:
            closer.drop_soon(sock)
        assert closer.open() == 2
        assert closers.of(1001).open() == 0
        assert closers.open(None) == 2
        assert all(map(is_open, fds))
        await closer.close([os.dup(0)]).wait()

    trio.run(close)
    assert settled(lambda: not closer.open())
    assert not any(map(is_open, fds))


def test_what_can_wait_does_not_wait_for_ever(closers):
    closer, (one, other) = closers.of(1000), socket.socketpair()
    fd = one.fileno()
    with other:
        closer.drop_soon(one)
        assert is_open(fd)
        began = time.monotonic()
        while is_open(fd):
            assert time.monotonic() - began < 5
            time.sleep(0.005)
    assert closers.open(None) == 0
