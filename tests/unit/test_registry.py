"""The daemon's live sockets: what is counted by user, and what a worker is told of those that are gone."""

import dataclasses
import os
import socket
from types import SimpleNamespace

import pytest

from ssa.daemon.registry import Registry
from ssa.ktls.diag import SocketKey
from ssa.worker.records import Application, SocketRecord


@pytest.fixture
def registry():
    registry = Registry()
    yield registry
    registry.close()


def record(number, uid, data_path):
    values = dict.fromkeys((field.name for field in dataclasses.fields(SocketRecord)), "")
    key = SocketKey(socket.AF_INET, ("127.0.0.1", 1), ("127.0.0.1", 2), 0, 0)
    values |= {"id": number, "application": Application(os.getpid(), uid, uid, ""), "data_path": data_path, "key": key}
    return SocketRecord(**values)


def test_relayed_sockets_are_counted_by_user_while_they_are_open(registry):
    pairs = [socket.socketpair() for _ in range(3)]
    told = []
    worker = SimpleNamespace(gone=told.append)
    for number, (uid, path) in enumerate([(1000, "relay"), (1000, "ktls"), (1001, "relay")], 1):
        inode = registry.watch(pairs[number - 1][0])
        registry.add(record(number, uid, path), inode, None, worker)
    assert [registry.relayed(uid) for uid in (1000, 1001, 1002)] == [1, 1, 0]
    registry.forget(3)
    assert told == [3]
    for pair in pairs:
        for sock in pair:
            sock.close()
    registry._liveness._looked = float("-inf")  # its look is good for ten milliseconds
    assert [registry.relayed(uid) for uid in (1000, 1001)] == [0, 0]
    assert registry.ids() == []
    assert told == [3, 1, 2]


def test_the_kernel_is_asked_for_relayed_sockets_where_they_would_reach_a_limit(registry):
    pair = socket.socketpair()
    worker = SimpleNamespace(gone=lambda _: None)
    registry.add(record(1, 1000, "relay"), registry.watch(pair[0]), None, worker)
    for sock in pair:
        sock.close()
    assert registry.relayed(1000, 2) == 1  # it is gone, and that does not matter yet
    assert registry.relayed(1000, 1) == 0


def test_an_inode_that_is_given_out_again_is_no_longer_another_workers(registry):
    """Before the registry looks again, a socket of another user can have the number of one that is gone."""
    told = {"one": [], "other": []}
    one, other = (SimpleNamespace(gone=numbers.append) for numbers in told.values())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inode = registry.watch(ours)
        for number in (1, 2):  # as sessions that share a pair
            registry.add(record(number, 1000, "relay"), inode, None, one)
        assert told == {"one": [], "other": []}
        registry.add(record(3, 1001, "relay"), inode, None, other)
        assert told == {"one": [1, 2], "other": []}
        assert [registry.relayed(uid) for uid in (1000, 1001)] == [0, 1]
        assert registry.of(ours).id == 3
