"""DTLS as values: addresses before packets, cookies, records, and the engine without a socket."""

import contextlib
import functools
import socket

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from ssa import errors, trust
from ssa.credentials import pair_untrusted
from ssa.dtls import records
from ssa.dtls.association import Association
from ssa.dtls.cookies import Cookies
from ssa.dtls.engine import DatagramClient, DatagramServer
from ssa.dtls.states import CLIENT, SERVER
from ssa.errors import CertificateError, HandshakeError, PolicyError
from ssa.handshake import engine as engine_module
from ssa.handshake.contexts import ContextCache
from ssa.handshake.states import JUDGING, Event, Impossible, State, follow
from ssa.policy.schema import Policy
from ssa.protocol import addresses

PORTS = st.integers(0, 65535)


@given(st.ip_addresses(v=4), PORTS, st.sampled_from([addresses.DATA, addresses.GONE]))
def test_an_ipv4_address_there_and_back(host, port, kind):
    packed = addresses.packed((str(host), port), kind)
    assert len(packed) == addresses.SIZE
    assert addresses.unpacked(packed + b"data") == (kind, (str(host), port))


@given(st.ip_addresses(v=6), PORTS)
def test_an_ipv6_address_there_and_back(host, port):
    text = socket.inet_ntop(socket.AF_INET6, host.packed)
    packed = addresses.packed((text, port, 0, 0))
    assert addresses.unpacked(packed) == (addresses.DATA, (text, port, 0, 0))


def test_a_zone_by_number_and_by_name():
    loopback = socket.if_nametoindex("lo")
    by_name, by_number = addresses.packed(("fe80::1%lo", 7)), addresses.packed(("fe80::1", 7, 0, loopback))
    assert by_name == by_number
    assert addresses.unpacked(by_name)[1] == ("fe80::1%lo", 7, 0, loopback)


def test_a_name_is_no_address():
    with pytest.raises(OSError, match="illegal"):
        addresses.packed(("localhost", 7))


def test_cookies_belong_to_an_address_and_expire():
    cookies = Cookies(0)
    first = cookies.of(b"a", 0)[0]
    assert first != cookies.of(b"b", 0)[0]
    assert first in cookies.of(b"a", 29)
    assert first in cookies.of(b"a", 31)
    assert first in cookies.of(b"a", 60)
    assert first not in cookies.of(b"a", 62)
    assert Cookies(0).of(b"a", 0)[0] != first


def test_cookies_expire_while_nobody_asks():
    cookies = Cookies(0)
    first = cookies.of(b"a", 0)[0]
    assert first not in cookies.of(b"a", 61)


@given(st.binary(max_size=200))
def test_no_datagram_is_a_hello_by_accident(data):
    hello = records.hello_untrusted(data)
    assert hello == b"" or (data[0] == 22 and data[13] == 1 and data.endswith(hello))


@given(st.lists(st.integers(0, 900), max_size=12), st.integers(100, 2000))
def test_records_are_packed_in_order_and_never_cut(sizes, room):
    flight = b"".join(bytes(11) + size.to_bytes(2, "big") + bytes(size) for size in sizes)
    datagrams = records.packed(flight, room)
    assert b"".join(datagrams) == flight
    for datagram in datagrams:
        assert len(datagram) <= room or len(list(records.split(datagram))) == 1


# --- the engine ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def contexts(pki):
    cache, policy = ContextCache(lambda *_: None), Policy.default()
    credentials = pair_untrusted([pki.cert.read_bytes()], [pki.key.read_bytes()], complete=True)
    return cache.datagrams("client", policy), cache.datagrams("server", policy, credentials)


def client(contexts, size=1472):
    return DatagramClient(contexts[0], "localhost", (), size)


def server(contexts):
    return DatagramServer(contexts[1], lambda _: contexts[1], (), False, 1472)


def greeted(contexts, size=1472):
    """A client and a server behind the exchange of cookies; the server's flight."""
    ours = client(contexts, size)
    theirs = DatagramServer(contexts[1], lambda _: contexts[1], (), False, size)
    greet(ours, theirs)
    return ours, theirs, theirs.start()


def greet(ours, theirs):
    """The exchange of cookies."""
    cookies = Cookies(0).of(b"here", 0)
    known, challenge = theirs.listen_untrusted(ours.start(), cookies)
    assert not known
    assert theirs.state is State.START
    assert theirs.listen_untrusted(ours.feed_untrusted(challenge), cookies) == (True, b"")
    assert theirs.state is State.GREETED


def established(contexts, size=1472):
    """Both ends of a session."""
    ours, theirs, flight = greeted(contexts, size)
    for datagram in theirs.packed(flight):
        ours.feed_untrusted(datagram)
    for datagram in ours.packed(ours.admit(trust.unasked())):
        theirs.feed_untrusted(datagram)
    for datagram in theirs.packed(theirs.admit(trust.unasked())):
        ours.feed_untrusted(datagram)
    return ours, theirs


@pytest.fixture(scope="module")
def session(contexts):
    return established(contexts)


@pytest.mark.parametrize("size", [548, 700, 1472])
def test_a_handshake_in_datagrams_of_that_size(contexts, size):
    ours, theirs, flight = greeted(contexts, size)
    datagrams = theirs.packed(flight)
    assert max(map(len, datagrams)) <= size
    for datagram in reversed(datagrams):  # whatever the order
        assert ours.state is State.READING
        assert ours.feed_untrusted(datagram) == b""
    assert ours.state in JUDGING
    for datagram in ours.packed(ours.admit(trust.unasked())):
        theirs.feed_untrusted(datagram)
    for datagram in theirs.packed(theirs.admit(trust.unasked())):
        ours.feed_untrusted(datagram)
    assert (ours.state, theirs.state) == (State.ESTABLISHED, State.ESTABLISHED)
    sealed = ours.seal(b"content")
    assert len(sealed) == len(b"content") + ours.costs
    assert theirs.open_untrusted(sealed) == ([b"content"], b"")
    assert theirs.open_untrusted(sealed) == ([], b"")  # a replay
    assert theirs.open_untrusted(ours.end())[0] == []
    assert theirs.closed


def test_nothing_leaves_before_the_verdict(contexts):
    ours, theirs, flight = greeted(contexts)
    for datagram in theirs.packed(flight):
        assert ours.feed_untrusted(datagram) == b""
    assert ours.state in JUDGING
    with pytest.raises(RuntimeError, match="cannot happen while a flight is held"):
        ours.open_untrusted(b"")
    alert = ours.refuse("unknown_ca")
    with pytest.raises(HandshakeError, match="unknown_ca"):
        theirs.feed_untrusted(alert)


def test_a_server_that_was_not_greeted_forgets(contexts):
    theirs = DatagramServer(contexts[1], lambda _: contexts[1], (), False, 0)
    for number in range(50):
        known, answer = theirs.listen_untrusted(client(contexts).start(), Cookies(0).of(b"%d" % number, 0))
        assert (known, answer[13]) == (False, 3)


def test_the_policys_versions_and_ciphers():
    cache = ContextCache(lambda *_: None)
    with pytest.raises(PolicyError, match=r"min_version is TLSv1\.3"):
        cache.datagrams("client", Policy.default().replace("min_version", "TLSv1.3"))
    with pytest.raises(PolicyError, match="ciphers"):
        cache.datagrams("client", Policy.default().replace("ciphers", "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"))


class NoPort:
    """Where an association is, as far as it asks before its handshake."""

    def __init__(self):
        self.associations, self.living, self.sent = {}, set(), []

    def send(self, datagrams, *_):
        self.sent += datagrams
        return 0


def test_a_hello_that_is_repeated_before_it_was_answered(contexts):
    """A server answers in its turn: what comes meanwhile starts nothing, and is no fault."""

    async def main():
        theirs, port = server(contexts), NoPort()
        ours = client(contexts)
        greet(ours, theirs)
        association = Association(port, ("127.0.0.1", 7), theirs)
        for datagram in (client(contexts).start(), b"junk", b""):
            association.arrived_untrusted(datagram)
        assert theirs.state is State.GREETED
        assert port.sent == []
        await association.seal_and_send(b"nothing can be sent yet")
        assert port.sent == []

    trio.run(main)


# --- the tables of states --------------------------------------------------------------------------------------------

CALLS = {  # the events that a call can come to
    "start": ({Event.START}, lambda engine: engine.start()),
    "feed": ({Event.MORE, Event.READY, Event.FINISHED}, lambda engine: engine.feed_untrusted(b"junk")),
    "admit": ({Event.ADMIT}, lambda engine: engine.admit(trust.unasked())),
    "refuse": ({Event.REFUSE}, lambda engine: engine.refuse("unknown_ca")),
    "keys": ({Event.KEYS}, lambda engine: engine.keys()),
    "stream": ({Event.KEYS}, lambda engine: engine.stream()),
    "retransmit": ({Event.RETRANSMIT}, lambda engine: engine.retransmit()),
    "open": ({Event.DATA, Event.CLOSE}, lambda engine: engine.open_untrusted(b"")),
    "seal": ({Event.SEAL}, lambda engine: engine.seal(b"content")),
    "end": ({Event.END}, lambda engine: engine.end()),
    "listen": ({Event.LISTEN, Event.GREET}, lambda engine: engine.listen_untrusted(b"junk", (b"cookie",))),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("state", State, ids=lambda state: state.name)
@pytest.mark.parametrize("role", ["client", "server"])
def test_what_the_table_lacks_is_an_error(contexts, role, state, call):
    """In each state what cannot happen raises, and changes nothing: no state, and not a byte leaves."""
    engine = client(contexts) if role == "client" else server(contexts)
    events, do = CALLS[call]
    if any((state, event) in engine.table for event in events):
        return
    if call == "listen" and role == "client":
        assert not hasattr(engine, "listen_untrusted")
        return
    engine.state, engine._pending = state, b"the flight that is held"
    with pytest.raises(Impossible, match="cannot happen while"):
        do(engine)
    assert (engine.state, engine._pending) == (state, b"the flight that is held")


def refused_by_the_client(contexts):
    ours, theirs, flight = greeted(contexts)
    for datagram in theirs.packed(flight):
        ours.feed_untrusted(datagram)
    assert ours.refuse("unknown_ca")[0] == 21
    assert ours.end() == b""


def refused_by_the_server(contexts):
    """The client has admitted the server by then, and waits for its Finished."""
    ours, theirs, flight = greeted(contexts)
    for datagram in theirs.packed(flight):
        ours.feed_untrusted(datagram)
    for datagram in ours.packed(ours.admit(trust.unasked())):
        theirs.feed_untrusted(datagram)
    ours.feed_untrusted(b"junk")
    ours.retransmit()
    with pytest.raises(HandshakeError, match="unknown_ca"):
        ours.feed_untrusted(theirs.refuse("unknown_ca"))
    assert ours.end() == b""


def ended_by(contexts, *, client):
    ours, theirs = established(contexts)
    first, second = (ours, theirs) if client else (theirs, ours)
    assert second.open_untrusted(first.seal(b"content")) == ([b"content"], b"")
    second.open_untrusted(first.end())
    assert second.end()
    assert (first.state, second.state) == (State.ENDED, State.CLOSED)
    assert second.closed
    assert not first.closed


def failed_session(contexts):
    ours, _ = established(contexts)
    ours._connection.shutdown()
    with pytest.raises(errors.SSAError):
        ours.seal(b"content")


def given_up(contexts):
    for state in (State.START, State.READING, State.HELD, State.HELD_LAST, State.ADMITTED):
        ours = client(contexts)
        ours.state, ours._pending = state, b"a flight that is held"
        assert ours.end() == b""
        assert ours.farewell() == b""
        assert (ours.state, ours._pending) == (State.ENDED, b"")


def given_up_while_held(contexts):
    """The session is replaced, or its socket closed, before the verdict."""
    for state in (State.HELD, State.HELD_LAST):
        ours, _, _ = greeted(contexts)
        ours.state = state
        assert ours.end() == b""


def unanswered(contexts):
    ours = client(contexts)
    ours.start()
    assert ours.retransmit() == b""  # its timer is not due yet
    with pytest.raises(HandshakeError):
        ours.feed_untrusted(records.plain_alert("internal_error"))


def broken(contexts):
    ours = client(contexts)
    ours._connection.set_accept_state()
    with pytest.raises(HandshakeError):
        ours.start()


def greeted_and_given_up(contexts):
    theirs = server(contexts)
    greet(client(contexts), theirs)
    assert theirs.end() == b""


def without_a_certificate_for_the_name(contexts):
    def choose(name):
        raise errors.error("NO_CREDENTIALS", name)

    theirs = DatagramServer(contexts[1], choose, (), False, 1472)
    greet(client(contexts), theirs)
    with pytest.raises(errors.SSAError, match="localhost"):
        theirs.start()
    farewell = theirs.farewell()
    assert farewell[0] == 21
    assert len(list(records.split(farewell))) == 1


WALKS = [
    refused_by_the_client,
    refused_by_the_server,
    functools.partial(ended_by, client=True),
    functools.partial(ended_by, client=False),
    failed_session,
    given_up,
    given_up_while_held,
    unanswered,
    broken,
    greeted_and_given_up,
    without_a_certificate_for_the_name,
]


def test_real_sessions_walk_the_whole_table(contexts, monkeypatch):
    """Each row happens to a client or a server of these."""
    walked = set()

    def followed(table, state, event):
        then = follow(table, state, event)
        walked.add((state, event))
        return then

    monkeypatch.setattr(engine_module, "follow", followed)
    for walk in WALKS:
        walk(contexts)
    assert {*CLIENT, *SERVER} - walked == set()


# --- whatever comes --------------------------------------------------------------------------------------------------


def damaged(draw, datagram):
    """A datagram, or something made of it."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=100))
    data = bytearray(datagram)
    for _ in range(draw(st.integers(0, 3))):
        data[draw(PLACES) % len(data)] = draw(st.integers(0, 255))
    return bytes(data if draw(st.booleans()) else data[: 1 + draw(PLACES) % len(data)])


PLACES = st.integers(0, 2**16)  # not by the length, which is not always the same


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_first_datagram(contexts, data):
    theirs = DatagramServer(contexts[1], lambda _: contexts[1], (), False, 0)
    with contextlib.suppress(HandshakeError, CertificateError):
        known, answer = theirs.listen_untrusted(damaged(data.draw, client(contexts).start()), Cookies(0).of(b"a", 0))
        assert not known
        assert len(answer) < 100


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_flights(contexts, data):
    ours, theirs, flight = greeted(contexts)
    with contextlib.suppress(HandshakeError, CertificateError):
        for datagram in theirs.packed(flight):
            answer = ours.feed_untrusted(damaged(data.draw, datagram))
            assert answer == b"" or answer[0] == 21  # nobody was judged: an alert at most
            if ours.state in JUDGING:
                break


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_data(session, data):
    ours, theirs = session
    sealed = ours.seal(b"content")
    broken = damaged(data.draw, sealed)
    if broken != sealed:
        assert theirs.open_untrusted(broken)[0] == []
    assert theirs.open_untrusted(sealed)[0] == [b"content"]
