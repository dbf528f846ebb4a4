"""The session cache, with OpenSSL at both ends and no socket between them."""

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from OpenSSL import SSL

from ssa import errors, trust
from ssa.handshake import records
from ssa.handshake import session_cache as sessions
from ssa.handshake.client import ClientEngine
from ssa.handshake.secrets import tls13_keys
from ssa.handshake.session import Session
from ssa.handshake.session_cache import Server, SessionCache
from ssa.handshake.states import AWAITING, JUDGING
from ssa.suites import TLSVersion

VERSIONS = pytest.mark.parametrize("version", TLSVersion, ids=lambda version: version.label)
TTL = 100


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class World:
    """A server, and a client's engines and cache."""

    def __init__(self, version=TLSVersion.TLSv1_3, server_ttl=7200):
        self.clock = Clock()
        self.cache = SessionCache(self.clock)
        self.client = SSL.Context(SSL.TLS_CLIENT_METHOD)
        self.client.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.client.set_max_proto_version(version)
        self.client.set_keylog_callback(lambda connection, line: connection.get_app_data().secrets.add(line))
        self.forget(server_ttl)
        self.server = Server(1000, "localhost", 443, self.client, (), None)

    def forget(self, ttl=7200):
        """The server starts anew: its ticket keys are others."""
        self.context = SSL.Context(SSL.TLS_SERVER_METHOD)
        trustme.CA().issue_cert("localhost").configure_cert(self.context)
        self.context.set_session_id(b"test")
        self.context.set_timeout(ttl)

    def connect(self, *, ttl=TTL, server=None, trusts=lambda chain: True, bare=True, number=1):
        """A handshake, as the pipeline makes it; the engine and the tickets that came."""
        resumption = self.cache.resume(server or self.server, ttl, trusts)
        engine = ClientEngine(self.client, "localhost", (), resumption.session)
        theirs = SSL.Connection(self.context, None)
        theirs.set_accept_state()
        with resumption:
            judged = handshake(engine, theirs)
        tickets = b"".join(self.tickets(engine, theirs)) if engine.version is TLSVersion.TLSv1_3 else b""
        resumption.tickets = tickets if bare else b""
        resumption.keep(number, judged, engine)
        return engine, tickets

    @staticmethod
    def tickets(engine, theirs):
        rx = tls13_keys(engine.suite, engine.secrets, "client", sent=0).rx
        sealed, _ = records.split_untrusted(theirs.bio_read(1 << 16))
        return [records.open_untrusted(rx.aead, rx.key, number, record)[1] for number, record in enumerate(sealed)]


def handshake(engine, theirs):
    """Both to the end; the chain that was judged."""
    theirs.bio_write(engine.start())
    judged = ()
    while engine.state in AWAITING:
        advance(theirs)
        for record in records.split_untrusted(theirs.bio_read(1 << 16))[0]:
            answer = engine.feed_untrusted(record)
            if engine.state in JUDGING:
                judged = engine.chain
                answer = engine.admit(trust.unasked())
            if answer:
                theirs.bio_write(answer)
    advance(theirs)
    return judged


def advance(connection):
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return


@VERSIONS
def test_resumed_with_the_chain_of_the_first(version):
    world = World(version)
    first, _ = world.connect()
    second, _ = world.connect()
    third, _ = world.connect()
    assert [engine.resumed for engine in (first, second, third)] == [False, True, True]
    assert first.chain
    assert first.chain == second.chain == third.chain


@VERSIONS
def test_each_is_handed_out_once(version):
    world = World(version)
    world.connect()
    offers = [world.cache.resume(world.server, TTL, lambda chain: True).session for _ in range(4)]
    given_out = [offer for offer in offers if offer is not None]
    assert len(given_out) == len(set(map(id, given_out))) == (2 if version is TLSVersion.TLSv1_3 else 1)


def test_tickets_that_are_read_later():
    world = World()
    _engine, tickets = world.connect(bare=False, number=7)
    assert len(world.cache) == 0
    assert not world.cache.tickets_untrusted(8, tickets)
    assert world.cache.tickets_untrusted(7, tickets)
    assert len(world.cache) == 2
    assert world.connect()[0].resumed


def test_an_engine_waits_for_a_while_only():
    world = World()
    _, tickets = world.connect(bare=False, number=7)
    world.clock.now += 60
    assert not world.cache.tickets_untrusted(7, tickets)
    assert len(world.cache) == 0


def test_few_engines_wait():
    world = World()
    _, tickets = world.connect(bare=False, number=1)
    _, harvest = world.cache._waiting[1]
    for number in range(2, 100):
        world.cache.wait(number, harvest)
    assert len(world.cache._waiting) == 64
    assert not world.cache.tickets_untrusted(1, tickets)
    assert world.cache.tickets_untrusted(99, tickets)


@VERSIONS
@pytest.mark.parametrize(
    "other",
    [
        {"uid": 1001},
        {"hostname": "other.test"},
        {"port": 444},
        {"context": SSL.Context(SSL.TLS_CLIENT_METHOD)},
        {"alpn": ("h2",)},
        {"anchors": object()},
    ],
    ids=lambda other: next(iter(other)),
)
def test_not_offered_to_another(version, other):
    world = World(version)
    world.connect()
    another = world.server._replace(**other)
    assert world.cache.resume(another, TTL, lambda chain: True).session is None
    assert world.cache.resume(world.server, TTL, lambda chain: True).session is not None


@VERSIONS
def test_no_longer_than_it_was_kept_for(version):
    world = World(version)
    world.connect(ttl=10)
    world.clock.now += 11
    assert not world.connect(ttl=1000)[0].resumed


@VERSIONS
def test_no_longer_than_is_wanted_now(version):
    world = World(version)
    world.connect(ttl=1000)
    world.clock.now += 11
    assert world.cache.resume(world.server, 10, lambda chain: True).session is None
    assert world.connect(ttl=1000)[0].resumed  # it was not lost by that


@VERSIONS
def test_to_be_resumed_makes_no_session_younger(version):
    world = World(version)
    world.connect(ttl=100)
    for _ in range(3):
        world.clock.now += 30
        assert world.connect(ttl=100)[0].resumed
    world.clock.now += 30
    assert not world.connect(ttl=100)[0].resumed


@VERSIONS
def test_no_longer_than_the_server_allows(version):
    world = World(version, server_ttl=50)
    world.connect(ttl=1000)
    world.clock.now += 51
    assert world.cache.resume(world.server, 1000, lambda chain: True).session is None


def test_never_longer_than_a_week():
    world = World(TLSVersion.TLSv1_2, server_ttl=10**7)
    world.connect(ttl=10**9)
    world.clock.now += 7 * 24 * 3600 + 1
    assert world.cache.resume(world.server, 10**9, lambda chain: True).session is None


@VERSIONS
def test_a_lifetime_of_0(version):
    world = World(version)
    world.connect(ttl=0)
    assert len(world.cache) == 0
    world.connect(ttl=TTL)
    assert world.cache.resume(world.server, 0, lambda chain: True).session is None


@VERSIONS
def test_one_that_is_over_when_it_comes(version):
    """A server can send its ticket as late as it likes."""
    world = World(version)
    world.connect(ttl=1)
    session = world.cache._servers.pop(world.server)[0]
    world.clock.now += 2
    world.cache.keep(world.server, session)
    assert len(world.cache) == 0


def test_tickets_that_last_for_0_seconds():
    """OpenSSL's own never say so (RFC 8446 section 4.6.1: discard it at once)."""
    world = World()
    _, tickets = world.connect(bare=False)
    header, lifetime, rest = tickets[:4], tickets[4:8], tickets[8:]
    assert int.from_bytes(lifetime, "big") == 7200
    length = 4 + int.from_bytes(header[1:], "big")
    assert world.cache.tickets_untrusted(1, header + bytes(4) + rest[: length - 8])
    assert len(world.cache) == 0


@VERSIONS
def test_what_is_not_trusted_any_more_is_dropped(version):
    world = World(version)
    first, _ = world.connect()
    asked = []
    assert world.cache.resume(world.server, TTL, asked.append).session is None
    assert set(asked) == {first.chain}
    assert len(world.cache) == 0


@VERSIONS
def test_a_server_that_declines_shows_another_certificate(version):
    world = World(version)
    first, _ = world.connect()
    world.forget()
    second, _ = world.connect()
    assert not second.resumed
    assert second.chain != first.chain
    assert {session.chain for session in world.cache._servers[world.server]} == {second.chain}


@VERSIONS
def test_a_handshake_that_fails_drops_them_all(version):
    world = World(version)
    world.connect()
    resumption = world.cache.resume(world.server, TTL, lambda chain: True)
    with pytest.raises(errors.HandshakeError), resumption:
        raise errors.error("PROTOCOL_VIOLATION")
    assert len(world.cache) == 0


def test_a_few_of_each_server():
    world = World()
    for number in range(5):
        _, tickets = world.connect(bare=False, number=number)
        world.cache.tickets_untrusted(number, tickets)
        world.cache.tickets_untrusted(number, tickets)
    assert len(world.cache) == 4


def test_a_limited_number_of_servers():
    world = World()
    session = Session(None, (), proven=world.clock.now, expires=world.clock.now + 10)
    for port in range(1000):
        world.cache.keep(world.server._replace(port=port), session)
    assert len(world.cache) == 256
    world.clock.now += 11
    world.connect()
    assert len(world.cache) == 2  # what is over goes


@pytest.mark.parametrize("junk", [b"", b"\x04", b"\x04\0\0\x01a", b"junk", b"\x18\0\0\x01\0", b"\x04\0\0\0" * 9])
def test_junk_for_tickets(junk):
    world = World()
    _, tickets = world.connect(bare=False, number=1)
    world.cache.tickets_untrusted(1, junk)
    assert len(world.cache) == 0
    world.cache.tickets_untrusted(1, tickets)  # what comes behind is as good as lost, and no worse


@given(st.binary() | st.lists(st.binary(max_size=300)).map(lambda parts: b"".join(map(ticket, parts))))
def test_splitting_takes_all_or_nothing(messages):
    split = sessions.split_tickets_untrusted(messages)
    assert b"".join(split) in (messages, b"")
    assert all(message[0] == 4 for message in split)


def ticket(content):
    return b"\x04" + len(content).to_bytes(3, "big") + content


def test_a_ticket_of_any_size_is_not_kept():
    assert sessions.split_tickets_untrusted(ticket(bytes(1000)))
    assert not sessions.split_tickets_untrusted(ticket(bytes(10000)))
