"""Places for each user, and what becomes of the daemon when an application for which there is none has hung up."""

import os
import socket
from collections import Counter

import pytest
import trio

from ssa import errors
from ssa.daemon import quota
from ssa.daemon import server as listener
from ssa.protocol import wire
from ssa.worker import ipc as requests


class Full(quota.Quota):
    def __init__(self):
        super().__init__(0, 0)

    def take(self, uid, _=1):
        raise errors.error("OVERLOADED", f"uid {uid}")


class Service:
    def __init__(self):
        self.counted = Counter()
        self.quota = Full()

    def count(self, counter):
        self.counted[counter] += 1


def serve_one(connection):
    service = Service()
    trio.run(listener._serve_one, service, requests.HangUps(), connection)
    return service.counted


def test_each_user_has_a_quarter_and_root_three(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    places = quota.Quota(48, 8)
    assert [places.limit(uid) for uid in (1000, 1001, 0, 77)] == [10, 10, 30, 30]
    with places.of(1000, 9), places.of(1001, 10), places.of(0, 20):
        with pytest.raises(errors.SSAError, match="uid 1000 has 9 descriptors in ssad, of 10"):
            places.take(1000, 2)
        places.take(1000)
        assert places.left(1000) == 0
        assert places.unused() == 0
        places.give(1000)
    assert places.unused() == 40


def test_what_is_counted_elsewhere_counts(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    places = quota.Quota(48, 8, lambda uid: 9 if uid in {1000, None} else 0)
    places.take(1000)
    with pytest.raises(errors.SSAError):
        places.take(1000)
    assert places.unused() == 30


def test_who_has_no_place_is_told():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        assert serve_one(ours)["requests_refused"] == 1
        assert wire.parse_untrusted(theirs.recv(65536), wire.Reply).reason == "OVERLOADED"


def test_who_has_no_place_and_has_gone_hurts_nobody():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    assert serve_one(ours)["requests_refused"] == 1
    assert ours.fileno() == -1
