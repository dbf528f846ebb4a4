"""DTLS as values: addresses before packets, cookies, records, and the engine without a socket."""

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssa import trust
from ssa.credentials import pair_untrusted
from ssa.dtls import records
from ssa.dtls.cookies import Cookies
from ssa.dtls.engine import DatagramClient, DatagramServer
from ssa.errors import CertificateError, HandshakeError, PolicyError
from ssa.handshake.contexts import ContextCache
from ssa.handshake.states import JUDGING, State
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


def greeted(contexts, size=1472):
    """A client and a server behind the exchange of cookies; the server's flight."""
    ours = client(contexts, size)
    theirs = DatagramServer(contexts[1], lambda _: contexts[1], (), False, size)
    cookies = Cookies(0).of(b"here", 0)
    known, challenge = theirs.listen_untrusted(ours.start(), cookies)
    assert not known
    assert theirs.listen_untrusted(ours.feed_untrusted(challenge), cookies) == (True, b"")
    return ours, theirs, theirs.start()


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
