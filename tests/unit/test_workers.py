"""Workers: one for each user, made at the first request; nothing that one user can make last is another's."""

import os
from types import SimpleNamespace

import pytest

from ssa.daemon.workers import Workers
from ssa.errors import SSAError

OWN = ("threads", "quota", "crowd", "sessions", "tickets", "lingering", "relays", "closer", "sockets", "monitor", "log")
STRANGER, OTHER = 4242, 4243


@pytest.fixture
def workers():
    workers = Workers(SimpleNamespace(sockets=SimpleNamespace(is_held=lambda _: False, relayed=lambda _: 0)))
    yield workers
    workers.close()


def test_each_user_has_one_with_things_of_its_own(workers):
    one, other = workers.of(STRANGER), workers.of(OTHER)
    assert workers.of(STRANGER) is one
    assert [name for name in OWN if getattr(one, name) is getattr(other, name)] == []
    assert one.contexts is other.contexts  # caches, which tell nothing of who has filled them


def test_what_one_takes_is_not_left_for_all_but_is_no_others(workers):
    one, other, root = workers.of(STRANGER), workers.of(OTHER), workers.of(0)
    before = other.quota.left()
    one.quota.take(one.quota.left())
    with pytest.raises(SSAError, match=f"uid {STRANGER} has"):
        one.quota.take()
    assert other.quota.left() == before
    assert one.quota.unused() == root.quota.unused() < workers.process.table.free
    one.quota.give(one.quota.used())
    assert one.quota.unused() == workers.process.table.free


def test_root_may_have_more(workers):
    stranger, root = workers.of(STRANGER).quota, workers.of(os.geteuid()).quota
    assert stranger.limit < root.limit < workers.process.table.free
