"""A handshake's table of states, walked whole, and handshakes between our engines and OpenSSL without a socket."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssa import errors
from ssa.credentials import pair_untrusted
from ssa.handshake import engine as engine_module
from ssa.handshake import records
from ssa.handshake.session import Session
from ssa.handshake.states import HELD, JUDGING, STREAM, Event, Impossible, Leaves, State, follow
from ssa.ktls.probe import Capabilities
from ssa.policy.schema import Policy
from ssa.suites import SUITES, TLSVersion
from ssa.tls import ALERT, APPLICATION_DATA, CHANGE_CIPHER_SPEC, HANDSHAKE, RECORD_HEADER
from tests.unit.pairs import VERDICT, ConnectionPair, Kit, opened, sealed

EVERYTHING = Capabilities(
    frozenset((version, suite.aead.kernel) for version in TLSVersion for suite in SUITES.values()),
    rekey=True,
    reason="",
)
NEW, OLD = TLSVersion.TLSv1_3, TLSVersion.TLSv1_2
KINDS = [("ours", "ours"), ("ours", "OpenSSL"), ("OpenSSL", "ours")]
PAIRS = pytest.mark.parametrize("kinds", KINDS, ids=" to ".join)


@pytest.fixture(scope="module")
def credentials(pki):
    own = pki.issue("client-of-pairs", "client.test")
    return [
        pair_untrusted([cert.read_bytes()], [key.read_bytes()], complete=True)
        for cert, key in ((pki.cert, pki.key), own)
    ]


def kit_of(credentials, version):
    server, client = credentials
    return Kit(Policy.default(), EVERYTHING, version, server_credentials=server, client_credentials=client)


@pytest.fixture(scope="module", params=TLSVersion, ids=lambda version: version.label)
def kit(request, credentials):
    return kit_of(credentials, request.param)


@pytest.fixture(scope="module")
def new_kit(credentials):
    return kit_of(credentials, NEW)


@pytest.fixture(scope="module")
def old_kit(credentials):
    return kit_of(credentials, OLD)


def pair(kit, kinds, change=None, *, session=None, certificate=False, ask=False, picky=False, **refuses):
    """`refuses` is the alert with which the `client` or the `server` refuses its peer."""
    if kinds[0] == "ours":
        client = kit.client(session=session, certificate=certificate, refuses=refuses.get("client"))
    else:
        client = kit.plain_client(session=session, certificate=certificate)
    if kinds[1] == "ours":
        server = kit.server(ask=ask, picky=picky, refuses=refuses.get("server"))
    else:
        server = kit.plain_server(ask=ask, picky=picky)
    return ConnectionPair(client, server, *([change] if change else [])).run()


def exchange_data(done, kinds):
    """Whatever one end seals under its keys the other end opens, at the very record where the kernel would go on."""
    if kinds == ("ours", "ours"):
        ours, theirs = done.client.engine.keys(), done.server.engine.keys()
        assert ours.tx.key == theirs.rx.key
        assert ours.rx.key == theirs.tx.key
        assert ours.tx.sequence == theirs.rx.sequence
        assert ours.rx.sequence + len(done.client.left) == theirs.tx.sequence
        return
    mine, plain = (done.client, done.server) if kinds[0] == "ours" else (done.server, done.client)
    keys = mine.engine.keys()
    assert plain.receive(sealed(keys.tx, APPLICATION_DATA, b"from us")) == b"from us"
    assert opened(keys.rx, plain.send(b"from OpenSSL"), len(mine.left)) == (APPLICATION_DATA, b"from OpenSSL")


# --- handshakes ------------------------------------------------------------------------------------------------------


@PAIRS
def test_a_handshake(kit, kinds):
    done = pair(kit, kinds)
    assert done.done
    exchange_data(done, kinds)


def test_what_leaves_before_the_verdict(kit):
    """Of a client the ClientHello alone; of a server all but what `HELD` says."""
    done = pair(kit, ("ours", "ours"))
    assert [record[RECORD_HEADER] for record in done.client.said_unjudged] == [1]
    held = done.server.said[len(done.server.said_unjudged) :]
    kinds = [record[0] for record in held]
    assert kinds == ([APPLICATION_DATA] * 2 if kit.version is NEW else [HANDSHAKE, CHANGE_CIPHER_SPEC, HANDSHAKE])
    assert len(done.server.judged) == 0
    assert len(done.client.judged) >= 1


@PAIRS
def test_a_client_with_a_certificate(kit, kinds):
    done = pair(kit, kinds, certificate=True, ask=True)
    assert done.done
    if kinds[1] == "ours":
        assert len(done.server.judged) >= 1
    if kinds[0] == "ours":
        assert done.client.engine.presented > 100
    exchange_data(done, kinds)


@PAIRS
def test_a_client_without_the_certificate_that_is_demanded(kit, kinds):
    done = pair(kit, kinds, ask=True)
    if kinds[1] == "ours":
        assert done.server.error.reason == "NO_CERTIFICATE"
        assert done.server.engine.state is State.FAILED
        assert done.server.judged is None
    if kinds[0] == "ours" and kit.version is OLD:
        assert done.client.engine.state is State.FAILED
        assert "certificate" in str(done.client.error)
    assert not done.server.done


def resumable(kit, kinds):
    """A first handshake, and what its client can resume."""
    first = pair(kit, kinds)
    if kinds[0] == "OpenSSL":
        first.client.alert()  # reads the tickets
        return first.client.connection.get_session()
    engine = first.client.engine
    if kit.version is OLD:
        return Session(engine.resumable(), first.client.judged, 0, 1)
    keys = engine.keys()
    _, ticket = opened(keys.rx, first.client.left[0])
    return Session(engine.resumable_by_untrusted(ticket), first.client.judged, 0, 1)


@PAIRS
def test_a_session_that_is_resumed(kit, kinds):
    session = resumable(kit, kinds)
    done = pair(kit, kinds, session=session)
    assert done.done
    for end in (done.client, done.server):
        if hasattr(end, "engine"):
            assert end.engine.resumed
            assert end.judged is not None
    if kinds[0] == "ours":
        assert done.client.judged == session.chain != ()
    exchange_data(done, kinds)


@PAIRS
def test_a_session_that_is_declined(kit, kinds, credentials):
    session = resumable(kit, kinds)
    other = kit_of(credentials, kit.version)
    other._client = kit._client  # OpenSSL offers a session in its own context only
    other._plain_contexts = {key: value for key, value in kit._plain_contexts.items() if key[0] == "client"}
    done = pair(other, kinds, session=session)
    assert done.done
    for end in (done.client, done.server):
        assert not hasattr(end, "engine") or not end.engine.resumed
    exchange_data(done, kinds)


@PAIRS
def test_hello_retry_request(new_kit, kinds):
    """The client's second ClientHello is no answer to anything that the server has said of itself: it is not held."""
    done = pair(new_kit, kinds, picky=True)
    assert done.done
    if kinds[0] == "ours":
        hellos = [record for record in done.client.said_unjudged if record[0] == HANDSHAKE]
        assert [record[RECORD_HEADER] for record in hellos] == [1, 1]
        assert done.client.engine.group == "secp384r1"
    exchange_data(done, kinds)


# --- refused at the verdict ------------------------------------------------------------------------------------------

REFUSALS = [(role, alert) for role in ("client", "server") for alert in ("unknown_ca", "certificate_expired")]


@pytest.mark.parametrize(("role", "alert"), REFUSALS)
@pytest.mark.parametrize("resumed", [False, True], ids=["full", "resumed"])
@pytest.mark.parametrize("other", ["ours", "OpenSSL"])
def test_a_peer_that_is_refused_is_told_why(kit, role, alert, resumed, other):
    kinds = ("ours", other) if role == "client" else (other, "ours")
    session = resumable(kit, kinds) if resumed else None
    done = pair(kit, kinds, session=session, **{role: alert})
    refusing, refused = (done.client, done.server) if role == "client" else (done.server, done.client)
    assert refusing.engine.state is State.REFUSED
    assert refusing.said[len(refusing.said_unjudged) :] == refusing.said[-1:]  # the alert alone
    assert not refusing.done
    if other == "OpenSSL":
        assert alert.replace("_", " ") in refused.alert() or f"alert {alert.split('_')[-1]}" in refused.alert()
    elif refused.error is not None:
        assert refused.error.alert == alert
    else:  # a TLS 1.3 client whose handshake is done by then: the kernel would meet the alert
        assert refused.done
        assert opened(refused.engine.keys().rx, refused.left[0]) == (ALERT, records.fatal_alert(alert))
    for use in (refusing.engine.keys, refusing.engine.stream):
        with pytest.raises(Impossible):
            use()


def admitted(kit, server):
    """A TLS 1.2 client that has admitted its server, whose answer to that is lost."""
    client = kit.client()
    return ConnectionPair(
        client, server, lambda sender, _, record: b"" if sender == "server" and client.judged is not None else record
    ).run()


def test_an_alert_behind_the_verdict(old_kit):
    """A client of TLS 1.2 waits for the server's Finished still. What it says by then is under its key."""
    done = admitted(old_kit, old_kit.plain_server())
    assert done.client.engine.state is State.ADMITTED
    done.server.connection.bio_write(done.client.engine.refuse("record_overflow"))
    assert "record overflow" in done.server.alert()


def test_an_alert_of_a_server_that_resumes(old_kit):
    """A server's Finished comes first then: what it says while it waits for the client's is under its key."""
    kinds = "OpenSSL", "ours"
    session = resumable(old_kit, kinds)
    done = pair(
        old_kit, kinds, lambda sender, number, record: b"" if sender == "client" and number else record, session=session
    )
    server = done.server.engine
    assert (server.state, server.resumed) == (State.READING, True)
    done.client.connection.bio_write(server.refuse("record_overflow"))
    assert "record overflow" in done.client.alert()


# --- what a peer may do ----------------------------------------------------------------------------------------------


def fails_closed(done):
    """Whatever the peer has sent: nothing but hellos and an alert has left a client that has judged nobody."""
    for end in (done.client, done.server):
        if not hasattr(end, "engine"):
            continue
        assert end.engine.state not in JUDGING
        if end.error is not None:
            assert end.engine.state is State.FAILED
            for event in (Event.MORE, Event.KEYS):
                with pytest.raises(Impossible):
                    CALLS[event](end.engine)
        if end.judged is None and end.engine.role == "client":
            kinds = {record[0] for record in end.said}
            assert kinds <= {HANDSHAKE, CHANGE_CIPHER_SPEC, ALERT, APPLICATION_DATA}
            sealed_ones = [record for record in end.said if record[0] == APPLICATION_DATA]
            assert len(sealed_ones) <= 1  # an alert of TLS 1.3's
            assert all(record[RECORD_HEADER] == 1 for record in end.said if record[0] == HANDSHAKE)


PLACES = st.integers(0, 2**16)


@st.composite
def damage(draw):
    """What a man in the middle does to one record: cut it short, flip bits, repeat it, keep it, put one before it."""
    sender, number = draw(st.sampled_from(["client", "server"])), draw(st.integers(0, 9))
    how = draw(st.sampled_from(["cut", "flip", "twice", "none", "insert"]))
    place, bits = draw(PLACES), draw(st.integers(1, 255))
    inserted = draw(st.builds(record_of, st.integers(20, 23), st.binary(min_size=1, max_size=40)))

    def change(name, at, record):
        if (name, at) != (sender, number):
            return record
        if how == "cut":
            return record_of(
                record[0], record[RECORD_HEADER : RECORD_HEADER + 1 + place % (len(record) - RECORD_HEADER)]
            )
        if how == "flip":
            body = bytearray(record[RECORD_HEADER:])
            body[place % len(body)] ^= bits
            return record_of(record[0], bytes(body))
        return {"twice": record + record, "none": b"", "insert": inserted + record}[how]

    return change


def record_of(kind, body):
    return bytes([kind, 3, 3]) + len(body).to_bytes(2, "big") + body


@PAIRS
@given(change=damage())
@settings(max_examples=60, deadline=None)
def test_records_that_are_damaged_on_their_way(kit, kinds, change):
    done = pair(kit, kinds, change)
    fails_closed(done)
    if done.done and kinds == ("ours", "ours"):  # what was damaged was not protected: an alert, the header's version
        assert done.client.engine.keys().tx.key == done.server.engine.keys().rx.key


@PAIRS
def test_each_record_cut_short(kit, kinds):
    count = pair(kit, kinds).count
    for sender in ("client", "server"):
        for cut in range(count[sender]):
            done = pair(
                kit,
                kinds,
                lambda name, number, record, at=(sender, cut): (
                    record_of(record[0], record[RECORD_HEADER:-1] or b"\0") if (name, number) == at else record
                ),
            )
            fails_closed(done)


# --- the table -------------------------------------------------------------------------------------------------------

CALLS = {
    Event.START: lambda engine: engine.start(),
    Event.MORE: lambda engine: engine.feed_untrusted(b"\x16\3\3\0\1\0"),
    Event.ADMIT: lambda engine: engine.admit(VERDICT),
    Event.REFUSE: lambda engine: engine.refuse("unknown_ca"),
    Event.KEYS: lambda engine: (engine.keys(), engine.stream()),
}
STATES = [
    state for state in State if state in {one for (before, _), (after, _) in STREAM.items() for one in (before, after)}
]


@pytest.mark.parametrize("event", CALLS, ids=lambda event: event.name)
@pytest.mark.parametrize("state", STATES, ids=lambda state: state.name)
def test_what_the_table_lacks_is_an_error(new_kit, state, event):
    """In each state what cannot happen raises, and changes nothing: no state, and not a byte leaves."""
    if (state, event) in STREAM:
        assert follow(STREAM, state, event) == STREAM[state, event]
        return
    engine = new_kit.client().engine
    engine.state, engine._pending = state, b"the flight that is held"
    with pytest.raises(Impossible, match="cannot happen while"):
        CALLS[event](engine)
    assert (engine.state, engine._pending) == (state, b"the flight that is held")
    if state is not State.FAILED:
        assert engine.farewell() == b""


@pytest.mark.parametrize("kind", [CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE])
def test_after_a_failure_an_alert_leaves_and_nothing_else(old_kit, kind):
    """Our answer to a flight that has gone wrong stays here: nobody has judged the peer."""
    engine = old_kit.client().engine
    finished, last = record_of(HANDSHAKE, b"our Finished"), record_of(kind, b"\2\x28")
    engine.state, engine._pending = State.FAILED, finished + last
    assert engine.farewell() == (last if kind == ALERT else b"")
    assert engine.farewell() == b""


def test_a_verdict_is_needed(new_kit):
    engine = new_kit.client().engine
    engine.state, engine._pending = State.HELD, b"the flight that is held"
    for no_verdict in (None, True, object()):
        with pytest.raises(TypeError, match="verdict"):
            engine.admit(no_verdict)
    assert engine.state is State.HELD


def test_real_handshakes_walk_the_whole_table(credentials, monkeypatch):
    """Each row of the table happens in some of these handshakes; that nothing else does, `follow` sees to."""
    walked = set()

    def followed(table, state, event):
        then = follow(table, state, event)
        walked.add((state, event))
        return then

    monkeypatch.setattr(engine_module, "follow", followed)
    ours = "ours", "ours"
    for version in TLSVersion:
        kit = kit_of(credentials, version)
        pair(kit, ours, client="unknown_ca")
        pair(kit, ours, server="unknown_ca")
        pair(kit, ours, session=resumable(kit, ours))
        damaged = [
            pair(kit, ours, lambda *at, n=n: flip(at[2]) if at[:2] == ("server", n) else at[2]) for n in range(8)
        ]
        assert {end.client.engine.state for end in damaged} >= {State.FAILED}
        waiting = kit.client()
        waiting.start()
        waiting.engine.refuse("record_overflow")
    admitted(kit := kit_of(credentials, OLD), kit.server()).client.engine.refuse("record_overflow")
    broken = kit.client()
    broken.engine._connection.set_accept_state()
    with pytest.raises(errors.HandshakeError):
        broken.engine.start()
    assert set(STREAM) - walked == set()


def flip(record):
    return record[:-1] + bytes([record[-1] ^ 1])


def test_what_may_leave(new_kit):
    """While the peer is unjudged a flight leaves only on the way to READING; keys are used in ESTABLISHED only."""
    for (state, event), (following, leaves) in STREAM.items():
        if leaves is Leaves.FLIGHT:
            assert event in {Event.START, Event.MORE, Event.ADMIT, Event.FINISHED}
            assert (following is State.READING) == (state in {State.START, State.READING})
        if event is Event.KEYS:
            assert state is State.ESTABLISHED
        if following in {State.REFUSED, State.FAILED}:
            assert leaves is Leaves.ALERT
    assert not {state for state, _ in STREAM} & {State.REFUSED, State.FAILED}  # nothing follows
    assert set(HELD) == {(role, version) for role in ("client", "server") for version in TLSVersion}
