"""What a worker may tell the daemon. Each claim that is false ends the worker, and changes nothing."""

import array
import dataclasses
import os
import socket
from types import SimpleNamespace

import pytest
import trio

from ssa.daemon.handle import Handle
from ssa.daemon.registry import Listeners, Registry
from ssa.daemon.reports import Reports
from ssa.ktls.diag import SocketKey
from ssa.worker import frames, messages, outbox
from ssa.worker.closing import Closers
from ssa.worker.frames import BadFrame
from ssa.worker.records import Application, ListenerRecord, Refusal, SocketRecord

UID, OTHER = 4242, 4243
OWN = Application(os.getpid(), UID, UID, "")
ANOTHERS = Application(os.getpid(), OTHER, OTHER, "")


@pytest.fixture
def state():
    counted = []
    return SimpleNamespace(
        sockets=Registry(),
        listeners=Listeners(),
        trust_stores=SimpleNamespace(is_known=lambda source: source == "system"),
        counted=counted,
        count=lambda *args: counted.append(args),
    )


@pytest.fixture
def handle():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        made = Handle.__new__(Handle)
        made.uid, made.granted, made.groups, made.is_taken_up = UID, [range(1, 1001)], {(UID,)}, False
        made.told = []

        def tell(message, _descriptor=None, then=None):
            made.told.append(message)
            if then is not None:
                then()

        made.tell = tell
        yield made


@pytest.fixture
def reports(state):
    return Reports(state, Closers(), lambda *_: None, lambda _: None, lambda _: None)


def socket_record(application=OWN, number=7):
    return SocketRecord(
        id=number,
        key=SocketKey(socket.AF_INET, ("127.0.0.1", 1), ("127.0.0.1", 2), 0, 0),
        application=application,
        role="client",
        hostname="",
        identity="",
        chain=(),
        verdicts=(),
        protocol="TLSv1.3",
        suite="TLS_AES_256_GCM_SHA384",
        group="",
        alpn="",
        resumed=False,
        data_path="relay",
        profile="",
        opened=0,
    )


def listener_record(application=OWN, number=7):
    return ListenerRecord(id=number, application=application, local="", hostname="", protocol="TLS", opened=0)


def socket_with(**others):
    return messages.Add(dataclasses.replace(socket_record(), **others), 1, None)


def key(*address, family=socket.AF_INET):
    return SocketKey(family, address, ("127.0.0.1", 2), 0, 0)


REFUSAL = Refusal((), 1, "", "NOT_TLS", "peer", "", "", "no_such_counter")
LIES = {
    "a socket of another user's": messages.Add(socket_record(ANOTHERS), 1, None),
    "a number that it was not given": messages.Add(socket_record(number=1001), 1, None),
    "a socket of a family that there is not": socket_with(key=key("::1", 1, family=1 << 40)),
    "a socket with an address that is none": socket_with(key=key("127.0.0.1\0", 1)),
    "a socket with a port that is none": socket_with(key=key("127.0.0.1", 1 << 16)),
    "a socket with a suite that there is not": socket_with(suite="TLS_NULL"),
    "a socket of no time": socket_with(opened=1e300),
    "a listener of no time": messages.Listens(dataclasses.replace(listener_record(), opened=-1.0)),
    "a listener of another user's": messages.Listens(listener_record(ANOTHERS)),
    "a listener with a number that it was not given": messages.Listens(listener_record(number=0)),
    "a counter that there is not": messages.Count("sockets", 1),
    "less than nothing": messages.Count("handshakes", -1),
    "more than can be": messages.Count("handshakes", 1 << 40),
    "a refusal of no kind": messages.Refused(REFUSAL),
    "a trust store that no policy has named": messages.Fresh(1, "/etc/shadow"),
    "groups that no application has": messages.Fresh(1, groups=(UID, 0)),
    "another user's application, to be looked at": messages.Settle(1, ANOTHERS),
    "another user's application, that asks elsewhere": messages.Elsewhere(1, ANOTHERS, 1),
    "that it is an earlier daemon's": messages.Hello(5),
    "an epoll set that does not come": messages.Watches(1),
    "a namespace that does not come": messages.Namespace(b"12345678"),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_false_is_refused_and_changes_nothing(reports, state, handle, lie):
    with pytest.raises(BadFrame):
        reports.take_untrusted(handle, LIES[lie], None)
    assert state.listeners.all() == []
    assert state.counted == []
    assert state.sockets._sockets == {}
    assert handle.told == []


@pytest.mark.parametrize("message", [messages.Watches(1), messages.Namespace(b"12345678"), messages.Forget(1)], ids=str)
def test_a_descriptor_that_is_another_thing_is_refused_and_closed(reports, handle, message):
    from ssa.daemon.liveness import Liveness

    handle.liveness = Liveness()
    reading, writing = os.pipe()
    with open(reading, "rb") as told:
        with pytest.raises(BadFrame):
            reports.take_untrusted(handle, message, writing)
        assert told.read() == b""  # the other end is closed


async def made(channel):
    return Handle(UID, 0, channel, Closers().of(UID))


@pytest.mark.parametrize("number", [2, 253])
@pytest.mark.parametrize(
    "data",
    [frames.pack([messages.Watches(1)]), frames.pack([messages.Idle()]), frames.pack([]), b"no packet", b""],
    ids=["one is asked for", "none is asked for", "no message", "no packet", "nothing"],
)
def test_descriptors_that_nothing_asks_for_are_closed(reports, data, number):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reading, writing = os.pipe()
    handle = trio.run(made, ours)
    handle._report = reports.take_untrusted
    with theirs, open(reading, "rb") as told:
        theirs.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writing] * number))])
        os.close(writing)
        with pytest.raises(BadFrame):
            handle._read_one()
        assert told.read() == b""  # all copies of the other end are closed
        handle.close()


def test_a_number_of_anothers_is_not_forgotten(reports, state, handle):
    other = Handle.__new__(Handle)
    state.listeners.add(listener_record(ANOTHERS, 2000), other)
    reports.take_untrusted(handle, messages.ListensNoMore(2000), None)
    reports.take_untrusted(handle, messages.Forget(2000), None)
    assert [listener.id for listener in state.listeners.all()] == [2000]


def test_a_number_is_told_once(reports, state, handle):
    state.sockets.add(socket_record(), 1, None, handle)
    state.listeners.add(listener_record(number=8), handle)
    for again in (messages.Add(socket_record(), 2, None), messages.Listens(listener_record(number=8))):
        with pytest.raises(BadFrame, match="already"):
            reports.take_untrusted(handle, again, None)


def test_a_flood_of_visits_does_not_end_who_is_visited(reports, state, handle):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    owner = trio.run(made, ours)
    owner.kill = pytest.fail
    state.sockets.owner = lambda _: owner
    with theirs:
        for call in range(2000):
            reports.take_untrusted(handle, messages.Elsewhere(call, OWN, 1), None)
        assert len(handle.told) == 2000
        owner.close()


def test_packets_that_take_long_leave_the_others_their_time():
    ours, theirs = outbox.pair()
    states = tuple(messages.SocketState(number, None, ()) for number in range(15_000))
    for _ in range(2):
        theirs.send(frames.pack([messages.Looked(1, states, ())]))
    turns = []

    async def run():
        handle = await made(ours)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(handle.run, lambda *_: turns.append("its"))
            for _ in range(5):
                await trio.lowlevel.checkpoint()
                turns.append("another's")
            nursery.cancel_scope.cancel()
        handle.close()

    trio.run(run)
    theirs.close()
    assert turns.count("its") <= 1
