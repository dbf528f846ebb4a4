"""Places for each user, and what becomes of the daemon when an application for which there is none has hung up."""

import logging
import os
import socket
from collections import Counter
from types import SimpleNamespace

import pytest
import trio

from ssa import errors
from ssa.daemon import quota, server
from ssa.protocol import wire
from ssa.worker.closing import Closers
from ssa.worker.quota import Quota, Table


class Worker:
    """A user's worker that has no place for one more connection."""

    def __init__(self):
        self.counted = Counter()
        self.quota = Quota(Table(0, 0), os.geteuid(), 0)
        self.closer = Closers().of(os.geteuid())
        self.log = logging.getLogger("ssa.daemon")
        self.monitor = SimpleNamespace(count=lambda counter: self.counted.update([counter]))


class Workers:
    def __init__(self):
        self.worker = Worker()
        self.process = SimpleNamespace(nobody=self.worker.closer)
        self.log = self.worker.log

    def of(self, uid):
        assert uid == os.geteuid()
        return self.worker


def serve_one(connection):
    workers = Workers()
    trio.run(server._serve_one, workers, connection)
    return workers.worker.counted


def test_each_user_has_a_quarter_and_root_three(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 77)
    table = Table(48, 8)
    limits = [quota.limit(table.free, uid) for uid in (1000, 1001, 0, 77)]
    assert limits == [10, 10, 30, 30]
    one, other, root, _ = (Quota(table, uid, limit) for uid, limit in zip((1000, 1001, 0, 77), limits, strict=True))
    with one.of(9), other.of(10), root.of(20):
        with pytest.raises(errors.SSAError, match="uid 1000 has 9 descriptors in ssad, of 10"):
            one.take(2)
        one.take()
        assert one.left() == 0
        assert one.unused() == other.unused() == 0
        one.give()
    assert table.unused() == 40


def test_what_is_counted_elsewhere_counts():
    table = Table(48, 8, lambda: 9)
    one = Quota(table, 1000, 10, lambda: 9)
    one.take()
    with pytest.raises(errors.SSAError):
        one.take()
    assert table.unused() == 30


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
