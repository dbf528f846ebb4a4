"""The relay's tables, walked whole; its records in memory between two ends; and what each end gets for the other's."""

import contextlib
import hashlib
import os
import select
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from ssa.credentials import pair_untrusted
from ssa.handshake import records
from ssa.policy.schema import Policy
from ssa.protocol.attributes import CLOSE_NOTIFY, TRUNCATED
from ssa.relay import states
from ssa.relay.channel import FORGED, TURN, Channel, Workspace
from ssa.relay.connection import Relay
from ssa.relay.states import (
    EFFECTS,
    FLOWS,
    PHASES,
    End,
    Event,
    Flow,
    Impossible,
    Phase,
    Pipe,
    Step,
    follow,
)
from ssa.suites import TLSVersion
from tests.unit.pairs import ConnectionPair, Kit
from tests.unit.test_handshake_states import EVERYTHING

# --- the tables ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
@pytest.mark.parametrize("flow", Flow, ids=lambda flow: flow.name)
def test_each_event_in_each_state_of_a_direction(flow, event):
    pipe = Pipe()
    pipe.flow, pipe.kept = flow, b"kept" if flow in {Flow.BLOCKED, Flow.DRAINING} else b""
    if (flow, event) not in FLOWS:
        with pytest.raises(Impossible):
            pipe.move(event)
        assert pipe.flow is flow
        return
    ended = pipe.move(event)
    assert pipe.flow is FLOWS[flow, event]
    assert ended == (flow is not Flow.SHUT and pipe.flow is Flow.SHUT)  # once
    assert pipe.kept == b"" or pipe.flow is not Flow.SHUT


@pytest.mark.parametrize("step", Step, ids=lambda step: step.name)
@pytest.mark.parametrize("phase", Phase, ids=lambda phase: phase.name)
def test_each_step_in_each_phase(phase, step):
    if (phase, step) in PHASES:
        assert follow(phase, step) is PHASES[phase, step]
        assert phase is not Phase.OVER or PHASES[phase, step] is Phase.OVER  # there is no way back
    else:
        with pytest.raises(Impossible):
            follow(phase, step)


@given(st.lists(st.sampled_from(["room", "none", "end", "cut"]), max_size=30))
def test_a_direction_loses_nothing_while_it_is_not_cut(happenings):
    """What is taken is either given on or kept, and it is at its end only when nothing is kept."""
    pipe, taken, given_on, cut = Pipe(), 0, 0, False
    for number, happening in enumerate(happenings):
        if happening == "end":
            pipe.move(Event.ENDED)
        elif happening == "cut":
            pipe.move(Event.CUT)
            cut = True
        elif pipe.kept:
            if happening == "room":
                given_on += len(pipe.kept)
                pipe.keep(b"")
        elif pipe.flow is Flow.OPEN:
            data = bytes(1 + number)
            taken += len(data)
            rest = data[:1] if happening == "none" else b""
            given_on += len(data) - len(rest)
            pipe.keep(rest)
        assert (pipe.flow in {Flow.BLOCKED, Flow.DRAINING}) == bool(pipe.kept)
        assert cut or taken == given_on + len(pipe.kept)


def test_the_table_at_the_top_is_the_one_that_is_followed():
    lines = states.__doc__.splitlines()
    for end, effect in EFFECTS.items():
        assert f"    {end.value:<46} {effect.words}" in lines
    assert set(EFFECTS) == set(End)


# --- records in memory -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=TLSVersion, ids=lambda version: version.label)
def kit(request, pki):
    own = pair_untrusted([pki.cert.read_bytes()], [pki.key.read_bytes()], complete=True)
    return Kit(Policy.default(), EVERYTHING, request.param, server_credentials=own, client_credentials=own)


def channel_of(end):
    channel = Channel(end.engine.stream(), end.engine.suite, Workspace())
    receive(channel, b"".join(end.left))
    return channel


def receive(channel, sealed):
    """The content of records, how the stream has ended, and what OpenSSL says to that."""
    content = b""
    for at in range(0, max(1, len(sealed)), TURN):
        part = sealed[at : at + TURN]
        channel.room.records[: len(part)] = part
        found, ended = channel.open_untrusted(len(part))
        content += bytes(found)
        if ended:
            return content, ended, bytes(channel.take_pending())
    return content, "", bytes(channel.take_pending())


def send(channel, content):
    sealed = b""
    for at in range(0, len(content), TURN):
        part = content[at : at + TURN]
        channel.room.content[: len(part)] = part
        sealed += bytes(channel.seal(len(part)))
    return sealed


@pytest.fixture
def channels(kit):
    """Both ends relayed: a client's and a server's channel, behind their handshake."""
    done = ConnectionPair(kit.client(), kit.server()).run()
    return channel_of(done.client), channel_of(done.server)


@pytest.fixture(params=["client", "server"])
def channel_and_openssl(request, kit):
    """One end relayed, the other plain OpenSSL."""
    if request.param == "client":
        done = ConnectionPair(kit.client(), kit.plain_server()).run()
        return channel_of(done.client), done.server
    done = ConnectionPair(kit.plain_client(), kit.server()).run()
    return channel_of(done.server), done.client


@pytest.mark.parametrize("size", [1, 16384, 16385, TURN, 3 * TURN + 7])
def test_data_both_ways(channels, size):
    content = os.urandom(size)
    for one, other in (channels, reversed(channels)):
        assert receive(other, send(one, content)) == (content, "", b"")


def test_both_ends_say_goodbye(channels):
    one, other = channels
    assert receive(other, send(one, b"last words") + bytes(one.end())) == (b"last words", CLOSE_NOTIFY, b"")
    assert receive(one, send(other, b"still here") + bytes(other.end())) == (b"still here", CLOSE_NOTIFY, b"")


def test_with_openssl_at_the_other_end(channel_and_openssl):
    channel, plain = channel_and_openssl
    assert receive(channel, plain.send(b"from OpenSSL"))[:2] == (b"from OpenSSL", "")
    assert plain.receive(send(channel, b"from us")) == b"from us"
    with pytest.raises(SSL.ZeroReturnError):
        plain.receive(bytes(channel.end()))


@st.composite
def damage(draw):
    how = draw(st.sampled_from(["cut", "flip", "twice"]))
    place, bits = draw(st.integers(0, 999)), draw(st.integers(1, 255))

    def change(record):
        if how == "flip":
            at = records.RECORD_HEADER + place % (len(record) - records.RECORD_HEADER)
            return record[:at] + bytes([record[at] ^ bits]) + record[at + 1 :]
        return record * 2 if how == "twice" else record[: place % len(record)]

    return how, change


@given(damage())
@settings(max_examples=40, deadline=None)
def test_records_that_are_damaged_on_their_way(kit, damaged):
    how, change = damaged
    done = ConnectionPair(kit.client(), kit.server()).run()
    one, other = channel_of(done.client), channel_of(done.server)
    first, second = send(one, b"first"), send(one, b"second")
    delivered = change(first) + second
    content, ended, said = receive(other, delivered)
    if how == "twice":  # a replay
        assert (content, ended) == (b"first", FORGED)
    elif how == "flip":
        assert (content, ended) == (b"", FORGED)
    elif change(first):  # half a record, and the next one makes no sense as its rest, but for a byte now and then
        assert content == (b"first" if delivered.startswith(first) else b"")
        assert ended in {"", FORGED}
    if ended:
        told, how_ended, _ = receive(one, said)
        assert told == b""
        assert how_ended  # an alert
        with pytest.raises(SSL.Error):
            send(other, b"nothing goes on")


# --- with sockets ----------------------------------------------------------------------------------------------------


class Relayed:
    """An application's end, a relay that is served turn by turn, and a peer with OpenSSL."""

    def __init__(self, kit):
        done = ConnectionPair(kit.client(), kit.plain_server()).run()
        self.tls = done.server
        self.told = set()
        self.inner, self.outer = socket.socketpair()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.tcp = socket.create_connection(listener.getsockname())
            self.peer, _ = listener.accept()
        self.outer.settimeout(5)
        self.peer.settimeout(5)
        self.relay = Relay(
            channel_of(done.client), self.tcp, self.inner, lambda: self.outer.fileno() >= 0, lambda _, job: job()
        )

    def settle(self, patience=20):
        """Serve what is ready, until nothing has been for some milliseconds."""
        while not self.relay.over:
            poll = select.poll()
            ends = zip((self.tcp, self.inner), self.relay.wanted(), strict=True)
            for sock, mask in ends:
                poll.register(sock, mask & (select.POLLIN | select.POLLOUT))
            polled = poll.poll(patience)
            ready = [(fd, events) for fd, events in polled if events & ~select.POLLHUP or self._is_new(fd, events)]
            if not ready:
                return
            for fd, events in ready:
                serve = self.relay.serve_peer if fd == self.tcp.fileno() else self.relay.serve_application
                if not self.relay.over:
                    serve(events)

    def _is_new(self, fd, events):
        """Hang-ups are told once, as by an epoll set with EPOLLET."""
        fresh = (fd, events) not in self.told
        self.told.add((fd, events))
        return fresh

    def heard(self):
        """All that the peer gets: its content, then what stands for the end."""
        got = []
        self.peer.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while True:
                try:
                    data = self.peer.recv(1 << 16)
                except ConnectionResetError:
                    return [*got, "reset"]
                if not data:
                    return [*got, "FIN"]
                self.tls.connection.bio_write(data)
                got += self._content()
        return got

    def _content(self):
        while True:
            try:
                yield self.tls.connection.recv(1 << 16)
            except SSL.WantReadError:
                return
            except SSL.ZeroReturnError:
                yield "close_notify"
                return
            except SSL.Error as exc:
                yield str(exc)
                return

    def close(self):
        for sock in (self.inner, self.outer, self.tcp, self.peer):
            sock.close()


@pytest.fixture
def relayed(kit):
    ends = Relayed(kit)
    yield ends
    ends.close()


def test_data_goes_both_ways(relayed):
    relayed.outer.send(b"question")
    relayed.settle()
    assert relayed.heard() == [b"question"]
    relayed.peer.send(relayed.tls.send(b"answer"))
    relayed.settle()
    assert relayed.outer.recv(100) == b"answer"


def test_the_writing_side_is_shut_down(relayed):
    relayed.outer.send(b"last")
    relayed.outer.shutdown(socket.SHUT_WR)
    relayed.settle()
    assert relayed.heard() == [b"last", "close_notify", "FIN"]
    relayed.peer.send(relayed.tls.send(b"the other direction"))
    relayed.settle()
    assert relayed.outer.recv(100) == b"the other direction"
    assert relayed.relay.phase is Phase.RELAYING


@pytest.mark.parametrize("announced", [True, False], ids=["CLOSED", "CRASHED"])
def test_the_application_closes(relayed, announced):
    relayed.outer.send(b"last")
    if announced:
        relayed.relay.announce_end()
    relayed.outer.close()
    relayed.settle()
    assert relayed.heard() == [b"last", *(["close_notify"] if announced else []), "FIN"]
    relayed.peer.close()
    relayed.settle()
    assert relayed.relay.over


def test_the_application_closes_with_linger(relayed):
    relayed.outer.send(b"never sent")
    relayed.relay.announce_end(abort=True)
    relayed.outer.close()
    relayed.relay.serve_application(select.EPOLLHUP | select.EPOLLIN)
    assert relayed.relay.over
    relayed.tcp.close()
    assert relayed.heard() == ["reset"]


@pytest.mark.parametrize("end", [End.CLOSE_NOTIFY, End.FIN], ids=lambda end: end.name)
def test_the_peer_ends_its_stream(relayed, end):
    relayed.peer.send(relayed.tls.send(b"last"))
    if end is End.CLOSE_NOTIFY:
        relayed.tls.connection.shutdown()
        relayed.peer.send(relayed.tls._out())
    else:
        relayed.peer.shutdown(socket.SHUT_WR)
    relayed.settle()
    assert relayed.outer.recv(100) == b"last"
    assert relayed.outer.recv(100) == b""
    assert relayed.relay.ended == (CLOSE_NOTIFY if end is End.CLOSE_NOTIFY else TRUNCATED)
    relayed.outer.send(b"writing goes on")
    relayed.settle()
    assert relayed.peer.recv(100, socket.MSG_PEEK)
    relayed.outer.close()
    relayed.settle()
    assert relayed.relay.phase is not Phase.RELAYING


@pytest.mark.parametrize("how", [FORGED, "ECONNRESET"])
def test_the_peer_breaks_off(relayed, how):
    relayed.peer.send(relayed.tls.send(b"before"))
    if how == FORGED:
        forged = relayed.tls.send(b"forged")
        relayed.peer.send(forged[:-1] + bytes([forged[-1] ^ 1]))
    else:
        relayed.settle()
        relayed.peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        relayed.peer.close()
    relayed.settle()
    assert relayed.outer.recv(100) == b"before"
    assert relayed.outer.recv(100) == b""
    assert relayed.relay.ended == how
    with pytest.raises(BrokenPipeError):
        relayed.outer.send(b"nothing goes on")
    if how == FORGED:
        assert "bad record mac" in relayed.heard()[0]
    assert relayed.relay.phase is not Phase.RELAYING


def test_the_administrator_ends_it(relayed):
    relayed.relay.abort("ECONNABORTED")
    assert relayed.relay.over
    assert relayed.relay.ended == "ECONNABORTED"
    assert relayed.outer.recv(100) == b""
    assert relayed.heard() == ["FIN"]
    relayed.relay.abort("ECONNABORTED")  # of one that is over: nothing


def test_whoever_does_not_read_is_waited_for(relayed):
    """In both directions what one turn has read is kept, and no more is read."""
    content = os.urandom(1 << 23)
    relayed.outer.setblocking(False)
    sent, got = 0, b""
    while sent < len(content):
        try:
            sent += relayed.outer.send(content[sent : sent + 65536])
        except BlockingIOError:
            relayed.settle(1)
            if relayed.relay.wanted()[1] & select.EPOLLIN:
                continue
            assert 0 < len(relayed.relay._up.kept) <= 2 * TURN
            got += b"".join(relayed.heard())
    while len(got) < len(content):
        relayed.settle(1)
        got += b"".join(relayed.heard())
    assert hashlib.sha256(got).digest() == hashlib.sha256(content).digest()


def test_a_fault_is_the_end(relayed):
    relayed.relay.lose()
    assert relayed.relay.over
    with pytest.raises(Impossible):
        relayed.relay._finish()
