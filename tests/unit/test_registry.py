"""The daemon's live sockets: which of them live, and what a worker is told of those that are gone."""

import contextlib
import dataclasses
import gc
import os
import select
import socket

import pytest

from ssa.daemon.liveness import Liveness
from ssa.daemon.registry import Registry
from ssa.ktls.diag import SocketKey
from ssa.worker import messages
from ssa.worker.records import Application, SocketRecord
from ssa.worker.watching import MOST, Watching


@pytest.fixture
def registry():
    registry = Registry()
    yield registry
    registry.close()


class Worker:
    """A worker that watches sockets in this process, as the daemon sees it."""

    def __init__(self):
        self.told = []
        self.alive = True
        self.sets = {}
        self.liveness = Liveness()
        self.watching = Watching(self)

    def watches(self, number, epoll):
        self.sets[number] = epoll
        assert self.liveness.take_untrusted(number, os.dup(epoll))

    def watches_no_more(self, number):
        del self.sets[number]
        self.liveness.drop(number)

    def watch(self, sock):
        inode = self.watching.watch(sock)
        self.liveness.stir()
        return inode

    def tell(self, message):
        assert isinstance(message, messages.Gone)
        self.told += message.numbers
        self.liveness.stir()  # its look is good for ten milliseconds


@contextlib.contextmanager
def pair_of(worker):
    """The inode of a socket that a worker watches, and that is held while the block runs."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield worker.watch(ours)


@pytest.fixture
def worker():
    return Worker()


def record(number, uid, data_path):
    values = dict.fromkeys((field.name for field in dataclasses.fields(SocketRecord)), "")
    key = SocketKey(socket.AF_INET, ("127.0.0.1", 1), ("127.0.0.1", 2), 0, 0)
    values |= {"id": number, "application": Application(os.getpid(), uid, uid, ""), "data_path": data_path, "key": key}
    return SocketRecord(**values)


def test_sockets_are_there_while_some_process_holds_them(registry, worker):
    pairs = [socket.socketpair() for _ in range(3)]
    for number, pair in enumerate(pairs, 1):
        registry.add(record(number, 1000, "relay"), worker.watch(pair[0]), None, worker)
    assert registry.ids() == [1, 2, 3]
    registry.forget(3, worker)
    assert worker.told == [3]
    for pair in pairs:
        for sock in pair:
            sock.close()
    worker.liveness.stir()
    assert registry.ids() == []
    assert worker.told == [3, 1, 2]


def test_a_worker_can_forget_no_other_ones_socket(registry, worker):
    ours, theirs = socket.socketpair()
    with ours, theirs:
        registry.add(record(1, 1000, "relay"), worker.watch(ours), None, worker)
        registry.forget(1, Worker())
        assert registry.ids() == [1]


def test_an_inode_that_is_given_out_again_is_no_longer_another_workers(registry, worker):
    """Before the registry looks again, a socket of another user can have the number of one that is gone."""
    other = Worker()
    gone, theirs = socket.socketpair()
    with gone, theirs:
        inode = worker.watch(gone)
        for number in (1, 2):  # as sessions that share a pair
            registry.add(record(number, 1000, "relay"), inode, None, worker)
    worker.liveness.stir()
    registry.add(record(3, 1001, "relay"), inode, None, other)
    assert worker.told == [1, 2]


def test_a_worker_that_names_another_ones_socket_takes_nothing_from_it(registry, worker):
    liar = Worker()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = worker.watch(ours)
        registry.add(record(1, 1000, "relay"), inode, None, worker)
        registry.add(record(2, 1001, "relay"), inode, None, liar)
        assert registry.owner(inode) is worker
        assert registry.ids() == [1]
        assert liar.told == [2]


def test_a_number_that_another_worker_has_stays_that_ones(registry, worker):
    liar = Worker()
    with pair_of(worker) as its, pair_of(liar) as lies:
        registry.add(record(1, 1000, "relay"), its, None, worker)
        registry.add(record(1, 1001, "relay"), lies, None, liar)
        assert liar.told == [1]
        assert registry.get(1).worker is worker


def test_sessions_over_one_socket_are_all_listed(registry, worker):
    with pair_of(worker) as inode:
        for number in range(1, 4):
            registry.add(record(number, 1000, "relay"), inode, None, worker)
        assert registry.ids() == [1, 2, 3]


def test_the_relayed_sockets_of_a_worker_end_with_it(registry, worker):
    pairs = [socket.socketpair() for _ in range(2)]
    with contextlib.ExitStack() as held:
        for number, (pair, path) in enumerate(zip(pairs, ("relay", "ktls"), strict=True), 1):
            for sock in pair:
                held.enter_context(sock)
            registry.add(record(number, 1000, path), worker.watch(pair[0]), None, worker)
        registry.has_ended(worker)
        assert registry.ids() == [2]


# --- the worker's side of it --------------------------------------------------------------------------------------


def test_a_descriptor_is_known_by_its_open_file(worker):
    ours, theirs = socket.socketpair()
    with ours, theirs, ours.dup() as another:
        worker.watch(ours)
        assert worker.watching.has(ours)
        assert worker.watching.has(another)
        assert not worker.watching.has(theirs)


def test_an_end_that_has_hung_up_and_is_held_is_told_from_one_that_is_closed(worker):
    ours, theirs = socket.socketpair()
    with ours:
        inode = worker.watch(theirs)
        assert not worker.watching.has_hung_up(inode)
        theirs.shutdown(socket.SHUT_RDWR)
        assert select.select([ours], [], [], 0)[0]
        assert worker.watching.has_hung_up(inode)
        theirs.close()
        assert not worker.watching.has_hung_up(inode)


def test_a_set_is_small_and_goes_when_it_is_empty(worker):
    pairs = [socket.socketpair() for _ in range(2 * MOST + 1)]
    inodes = [worker.watch(pair[0]) for pair in pairs]
    assert len(worker.sets) == 3
    assert worker.liveness.alive() == set(inodes)
    for inode, pair in zip(inodes, pairs, strict=True):
        for sock in pair:
            sock.close()
        worker.watching.forget(inode)
    assert len(worker.sets) == 1
    worker.liveness.stir()
    assert worker.liveness.alive() == set()


def test_nothing_is_left_of_a_worker_that_has_ended():
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    worker = Worker()
    with pair_of(worker):
        pass
    worker.watching.close()
    del worker
    gc.collect()
    assert set(os.listdir("/proc/self/fd")) == before


def test_what_is_no_epoll_set_is_not_taken():
    reading, writing = os.pipe()
    assert not Liveness().take_untrusted(1, reading)
    os.close(reading)
    os.close(writing)
