"""An answer is sent when all that came with the request is closed, and not before."""

import contextlib
import os
import select
import socket

import pytest
import trio

from ssa.protocol import wire
from ssa.worker.answers import answer
from ssa.worker.closing import Closers
from ssa.worker.packets import Handover, Packet

USER = 1000
REPLY = wire.Reply(version="TLSv1.3")


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def with_a_pipe(closer):
    """A packet that came with the end of a pipe, and the pipe's other end, which tells when that is closed."""
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    return Packet(b"", closer, [writing]), reading


class Stuck:
    """Closes when it is let."""

    def __init__(self):
        self._closers = Closers()
        self._waiting, self._letting = os.pipe()

    def close(self, descriptors, then):
        return self._closers.hand((USER, False), descriptors, self._close, then)

    def _close(self, fd):
        os.read(self._waiting, 1)
        os.close(fd)

    def let(self):
        os.write(self._letting, b"x")


def received(sock):
    return wire.parse_untrusted(sock.recv(wire.MAX_REPLY), wire.Reply)


async def in_time(connection, packet, reply):
    with trio.fail_after(5):
        return await answer(connection, packet, reply)


def test_what_came_is_closed_when_the_answer_comes(ends):
    ours, theirs = ends
    stuck = Stuck()
    packet, reading = with_a_pipe(stuck)

    async def serve():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_time, ours, packet, REPLY)
            await trio.sleep(0.1)
            assert not select.select([theirs], [], [], 0)[0]
            stuck.let()
            assert await trio.to_thread.run_sync(received, theirs) == REPLY
            assert os.read(reading, 1) == b""
            theirs.send(b"more")

    trio.run(serve)
    os.close(reading)


def test_a_queue_without_room_gets_its_answer_later(ends):
    ours, theirs = ends
    packet, reading = with_a_pipe(Closers().of(USER))
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            ours.send(b"x", socket.MSG_DONTWAIT)
            filled += 1

    async def serve():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_time, ours, packet, REPLY)
            await trio.sleep(0.2)
            assert os.read(reading, 1) == b""
            for _ in range(filled):
                theirs.recv(1)
            assert await trio.to_thread.run_sync(received, theirs) == REPLY

    trio.run(serve)
    os.close(reading)


def test_an_application_that_has_gone_is_told_of(ends):
    ours, theirs = ends
    packet, reading = with_a_pipe(Closers().of(USER))
    theirs.close()
    with pytest.raises(BrokenPipeError):
        trio.run(in_time, ours, packet, REPLY)
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_nothing_to_close_and_nothing_to_say(ends):
    ours, _ = ends
    closer = Closers().of(USER)
    assert trio.run(in_time, ours, Packet(b"", closer), None)


def test_what_is_passed_is_closed_here(ends):
    ours, theirs = ends
    closer = Closers().of(USER)
    packet, reading = with_a_pipe(closer)
    passed, other = socket.socketpair()

    async def serve():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(in_time, ours, packet, Handover(closer, REPLY, passed))
            _, fds, _, _ = await trio.to_thread.run_sync(socket.recv_fds, theirs, 65536, 1)
            theirs.close()
            os.close(fds[0])

    trio.run(serve)
    other.settimeout(5)
    assert other.recv(1) == b""
    assert passed.fileno() == -1
    other.close()
    os.close(reading)


def test_a_thread_that_hangs_keeps_its_connection(ends):
    """The daemon ends meanwhile. No other connection may get the number of this one, as the thread will send to it."""
    ours, _ = ends
    stuck = Stuck()
    packet, reading = with_a_pipe(stuck)
    number = ours.fileno()

    async def serve():
        with trio.move_on_after(0.1):
            await answer(ours, packet, REPLY)

    trio.run(serve)
    assert ours.fileno() == -1
    os.fstat(number)
    stuck.let()
    os.set_blocking(reading, True)
    assert os.read(reading, 1) == b""
    os.close(number)
    os.close(reading)
