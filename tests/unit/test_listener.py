"""Places for each user, and what becomes of the daemon when an application for which there is none has hung up."""

import socket
from collections import Counter

import pytest
import trio

from ssa import errors, wire
from ssa.daemon import listener, quota, requests


class Full(quota.Quota):
    def of(self, uid):
        raise errors.error("OVERLOADED", f"uid {uid}")


class Counting:
    def __init__(self):
        self.counted = Counter()

    def count(self, counter):
        self.counted[counter] += 1


def serve_one(connection):
    service = Counting()
    trio.run(listener._serve_one, service, Full(0), requests.HangUps(), connection)
    return service.counted


def test_a_user_has_so_many_places_and_root_any_number():
    places = quota.Quota(1)
    with places.of(1000), places.of(1001), places.of(0), places.of(0), pytest.raises(errors.SSAError, match="1000"):
        places.of(1000).__enter__()
    with places.of(1000):
        pass


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
