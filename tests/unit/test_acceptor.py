"""Accepting in threads: where there is none, and where nobody waits for it any more. On real sockets."""

import logging
import os
import socket
import threading
from types import SimpleNamespace

import pytest
import trio

from ssa.logfmt import charged
from ssa.worker.acceptor import _Batch, _Listener
from ssa.worker.closing import Closers
from ssa.worker.quota import Quota, Table, Threads
from tests.peers import settled

APPLICATION = SimpleNamespace(uid=os.geteuid(), gid=os.getegid(), pid=os.getpid())


@pytest.fixture
def listening():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def test_a_listener_that_no_thread_has_is_closed_by_who_abandons_it(listening):
    twin = listening.dup()
    batch = _Batch(APPLICATION, twin, 1)
    assert batch.abandon() == [twin]
    with socket.create_connection(listening.getsockname()):
        batch.accept()  # too late
        assert batch.accepted == []
        assert twin.fileno() >= 0  # it is the caller's
    twin.close()


def test_a_listener_that_a_thread_has_is_closed_there(listening):
    twin = listening.dup()
    batch = _Batch(APPLICATION, twin, 1)
    with socket.create_connection(listening.getsockname()):
        batch.accept()
    assert twin.fileno() < 0
    (accepted,) = batch.abandon()
    accepted.close()


class Worker:
    """What a listener needs of its user's worker."""

    def __init__(self):
        self.quota = Quota(Table(1024, 64), APPLICATION.uid, 1024)
        self.threads = Threads()
        self.closer = Closers().of(APPLICATION.uid)
        self.log = charged(logging.getLogger("ssa.daemon"), APPLICATION.uid)

    def room_for_ready(self):
        return 16


class Served(_Listener):
    """One that only notes what was accepted."""

    async def _serve(self, sock):
        sock.close()
        self.done.set()


@pytest.fixture
def no_thread(monkeypatch):
    """No thread can be started: there is no memory for its stack. The size that there is memory for."""
    monkeypatch.setattr(trio._core._thread_cache.THREAD_CACHE, "_idle_workers", {})
    before = threading.stack_size(2**46)
    yield before
    threading.stack_size(before)


def test_it_goes_on_when_a_thread_could_not_be_started(listening, no_thread, caplog):
    worker = Worker()

    async def main(connection):
        listener = Served(worker, APPLICATION, None, listening, connection, backlog=1)
        listener.done = trio.Event()
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listener.accept, nursery)
                await trio.sleep(0.2)
                assert not listener.done.is_set()
                threading.stack_size(no_thread)
                await listener.done.wait()
                nursery.cancel_scope.cancel()

    before = len(os.listdir("/proc/self/fd"))
    with socket.create_connection(listening.getsockname()), socket.socket(socket.AF_UNIX) as connection:
        trio.run(main, connection)
        assert worker.quota.used() == 0
    assert caplog.messages.count("a connection could not be accepted: can't start new thread") == 1
    worker.closer.close([os.dup(listening.fileno())])  # its thread closes what had none
    assert settled(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_what_waits_for_a_thread_is_counted_and_closed(listening):
    worker = Worker()

    async def main(connection):
        limiter = worker.threads.accept
        for busy in range(16):
            await limiter.acquire_on_behalf_of(busy)
        listener = Served(worker, APPLICATION, None, listening, connection, backlog=1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.accept, nursery)
            await trio.sleep(0.1)
            assert worker.quota.used() == 1
            nursery.cancel_scope.cancel()
        for busy in range(16):
            limiter.release_on_behalf_of(busy)

    with socket.create_connection(listening.getsockname()), socket.socket(socket.AF_UNIX) as connection:
        before = len(os.listdir("/proc/self/fd"))
        trio.run(main, connection)
        assert worker.quota.used() == 0
        assert settled(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_listener_looks_for_as_many_as_are_under_way(listening):
    async def main(connection):
        listener = Served(Worker(), APPLICATION, None, listening, connection, backlog=32)
        found = []
        async with trio.open_nursery() as nursery:
            for number in (1, 2, 5, 16, 40):
                while len(nursery.child_tasks) < number:
                    nursery.start_soon(trio.sleep_forever)
                found.append(listener._room_for_more(nursery))
            nursery.cancel_scope.cancel()
        return found

    with socket.socket(socket.AF_UNIX) as connection:
        assert trio.run(main, connection) == [1, 2, 5, 16, 16]
