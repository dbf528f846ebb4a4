"""Workers: nothing that one user can make last is another's; and what a worker says is held against what it may say."""

import json
import logging
import os
import select
import socket
import struct
from types import SimpleNamespace

import pytest
import trio
import trio.testing

from ssa.errors import SSAError
from ssa.ktls.diag import SocketKey
from ssa.protocol import wire
from ssa.worker import dispatch, frames, messages, outbox, process
from ssa.worker.records import Application, SocketRecord
from ssa.worker.service import Worker
from ssa.worker.user import Process

OWN = ("threads", "quota", "crowd", "sessions", "tickets", "lingering", "relays", "closer", "sockets", "log")
STRANGER, OTHER = 4242, 4243


@pytest.fixture
def made():
    process = Process(1024, 64)
    monitor = SimpleNamespace(watches=lambda *_: None)
    return [Worker(uid, 240, monitor, process) for uid in (STRANGER, OTHER)]


def test_each_user_has_things_of_its_own(made):
    one, other = made
    assert [name for name in OWN if getattr(one, name) is getattr(other, name)] == []


def test_what_one_takes_is_not_left_for_all_but_is_no_others(made):
    one, other = made
    before = other.quota.left()
    one.quota.take(one.quota.left())
    with pytest.raises(SSAError, match=f"uid {STRANGER} has"):
        one.quota.take()
    assert other.quota.left() == before
    one.quota.give(one.quota.used())


def test_a_guest_has_little_and_is_the_same_one_the_next_time(made):
    guest = made[0].guest(OTHER)
    assert guest is made[0].guest(OTHER)
    assert 0 < guest.quota.limit < made[0].quota.limit
    assert guest.threads is not made[0].threads


def test_a_guest_comes_no_more_often_than_it_may_have_descriptors(made):
    guest, asks = made[0].guest(OTHER), Application(1, OTHER, OTHER, "")
    pairs = [outbox.pair() for _ in range(guest.quota.limit + 5)]

    async def come():
        async with trio.open_nursery() as nursery:
            for _, theirs in pairs:
                nursery.start_soon(dispatch.receive_visit, made[0], guest, asks, theirs)
            await trio.testing.wait_all_tasks_blocked()
            refused = [ours for ours, _ in pairs if select.select([ours], [], [], 0)[0]]
            assert len(refused) == 5
            assert wire.parse_untrusted(refused[0].recv(4096), wire.Reply).reason == "OVERLOADED"
            nursery.cancel_scope.cancel()

    trio.run(come)
    assert guest.quota.used() == 0
    for pair in pairs:
        for end in pair:
            end.close()


def test_the_fault_that_ends_a_worker_is_told(monkeypatch):
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    (ours, theirs), (door, _) = outbox.pair(), outbox.pair()
    ours.send(frames.pack([messages.CredentialsAre((1,))]))  # without their content
    with pytest.raises(ExceptionGroup):
        trio.run(process._serve, theirs, door, OTHER, 240, Process(1024, 64))
    (line,) = frames.parse_untrusted(ours.recv(frames.MOST), messages.TO_DAEMON)
    assert "ends this worker" in line.text
    assert "credentials came without their content" in line.trace


# --- packets ------------------------------------------------------------------------------------------------------

RECORD = SocketRecord(
    id=7,
    key=SocketKey(socket.AF_INET, ("127.0.0.1", 1), ("::1", 2), 0, 1 << 63),
    application=Application(1, 2, 3, os.fsdecode(b"/x/\xff"), (4, 5)),
    role="client",
    hostname="a.example",
    identity="",
    chain=(b"\0\xff", b""),
    verdicts=("path: ok",),
    protocol="TLSv1.3",
    suite="TLS_AES_256_GCM_SHA384",
    group="x25519",
    alpn="h2",
    resumed=True,
    data_path="ktls",
    profile="",
    opened=1.5,
)


def test_messages_come_out_as_they_went_in():
    sent = [messages.Add(RECORD, 99, b"12345678"), messages.Add(RECORD, 1, None), messages.Fresh(1, "x", (1, 2))]
    assert frames.parse_untrusted(frames.pack(sent), messages.TO_DAEMON) == sent


def test_a_message_of_the_other_direction_is_none():
    with pytest.raises(frames.BadFrame):
        frames.parse_untrusted(frames.pack([messages.Stop()]), messages.TO_DAEMON)


def packet(text, *blobs, version=frames.VERSION, length=None):
    data = text.encode()
    head = struct.pack("<HHI", version, len(blobs), len(data) if length is None else length)
    return head + b"".join(struct.pack("<I", len(blob)) for blob in blobs) + data + b"".join(blobs)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1",
        packet("[]")[:-1],
        packet("[]") + b"x",
        packet("[]", length=1 << 31),
        packet("{"),
        packet("7"),
        packet("[7]"),
        packet('[["Forget"]]'),
        packet('[["Forget", 7]]'),
        packet('[["Forget", []]]'),
        packet('[["Forget", [1, 2]]]'),
        packet('[["Forget", ["1"]]]'),
        packet('[["Forget", [true]]]'),
        packet('[["Forget", [1.0]]]'),
        packet('[["Forget", [18446744073709551616]]]'),
        packet('[["Forget", [null]]]'),
        packet('[["Unknown", []]]'),
        packet('[["Namespace", [{"b": 0}]]]'),
        packet('[["Namespace", [{"b": "0"}]]]', b"x"),
        packet('[["Namespace", [{"c": 0}]]]', b"x"),
        packet('[["Namespace", ["text"]]]'),
        packet("[" * 100_000),
        packet(f'[["Forget", [{"9" * 5000}]]]'),
        packet('[["Forget", [NaN]]]'),
        packet('[["Serve", [[1, 2, 3, "", [], false], "", NaN]]]'),
        packet('[["Serve", [[1, 2, 3, "", [], false], "", -Infinity]]]'),
        packet(f'[["Serve", [[1, 2, 3, "", [], false], "", {"9" * 400}]]]'),
        packet(json.dumps([["Idle", []]] * 33)),
        b"\1\0\xff\xff" + bytes(100),
    ],
)
def test_what_is_no_packet_is_refused_and_nothing_else(data):
    with pytest.raises(frames.BadFrame):
        frames.parse_untrusted(data, messages.TO_DAEMON | {"Serve": messages.Serve})


def test_another_version_is_told():
    with pytest.raises(frames.OtherVersion, match="version 99"):
        frames.parse_untrusted(packet("[]", version=99), messages.TO_DAEMON)
