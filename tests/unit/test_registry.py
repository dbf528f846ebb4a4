"""The daemon's live sockets: what is counted by user."""

import socket
from types import SimpleNamespace

import pytest

from ssa.daemon.registry import Registry


@pytest.fixture
def registry():
    registry = Registry()
    yield registry
    registry.close()


def live(number, uid, data_path):
    return SimpleNamespace(id=number, uid=uid, data_path=data_path)


def test_relayed_sockets_are_counted_by_user_while_they_are_open(registry):
    pairs = [socket.socketpair() for _ in range(3)]
    registry.add(live(1, 1000, "relay"), pairs[0][0])
    registry.add(live(2, 1000, "ktls"), pairs[1][0])
    registry.add(live(3, 1001, "relay"), pairs[2][0])
    assert [registry.relayed(uid) for uid in (1000, 1001, 1002)] == [1, 1, 0]
    registry.forget(3)
    for pair in pairs:
        for sock in pair:
            sock.close()
    registry._liveness._looked = float("-inf")  # its look is good for ten milliseconds
    assert [registry.relayed(uid) for uid in (1000, 1001)] == [0, 0]
    assert registry.ids() == []
