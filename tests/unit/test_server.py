"""Places for each user, and what becomes of the daemon when an application for which there is none has hung up."""

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
from ssa.worker.records import Application


class Workers:
    """Workers of users who have no place for one more connection."""

    closers = Closers()

    async def with_room(self, uid):
        raise errors.error("OVERLOADED", f"uid {uid} has 1 descriptors in ssad, of 1")


def serve_one(connection):
    counted = Counter()
    state = SimpleNamespace(count=lambda counter: counted.update([counter]))
    application = Application(os.getpid(), os.geteuid(), os.getegid(), "")
    trio.run(server._wait_for_a_worker, state, Workers(), application, connection)
    return counted


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


def test_who_has_hung_up_without_a_word_is_passed_over_and_who_has_asked_is_not():
    for said, given_up in ((b"", True), (b"x", False)):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            assert not server._is_given_up(ours)
            if said:
                theirs.send(said)
            theirs.close()
            assert server._is_given_up(ours) is given_up
