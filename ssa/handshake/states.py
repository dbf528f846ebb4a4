"""The states of a handshake as a table: from a state and an event to the next state, and what may leave then. Pure.

Rule 1: what decides what an engine does next is in this file. An engine has one state, `State`, and changes it by
`follow` only. A pair of state and event that is not in the table cannot happen; `follow` raises `Impossible` for it,
and the engine stays as it is.

The normal way, of a client and of a server:

    START ── start ──► READING ──┬── ready ─────► HELD ────── admit ──► ADMITTED ── finished ──► ESTABLISHED
                                 └── finished ──► HELD_LAST ── admit ──────────────────────────► ESTABLISHED

A flight of ours is held while the peer is judged. `HELD` has which one it is, by role and version. Nothing of it has
left before `admit`; `refuse` throws it away, and an alert leaves in its place. The keys exist in ESTABLISHED only.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from ssa.suites import TLSVersion

if TYPE_CHECKING:
    from ssa.handshake.secrets import Role


class _Named(Enum):
    """An enumeration for the keys of tables: a member is hashed by its identity, which Python does without a call."""

    __hash__ = object.__hash__


class State(_Named):
    """The state of a handshake. The value ends the sentence "it cannot happen while ..."."""

    START = "nothing has been sent or received"
    GREETED = "a client has shown its cookie"  # a server's over datagrams only
    READING = "the peer's next record is awaited, and nobody has judged the peer"
    HELD = "a flight is held until the peer is judged, and the peer will answer it"
    HELD_LAST = "the last flight is held until the peer is judged"
    ADMITTED = "the peer was admitted, and its next record is awaited"
    ESTABLISHED = "the handshake is done"
    REFUSED = "we have ended the handshake"
    FAILED = "the handshake has failed"
    # Over datagrams the engine goes on after the handshake:
    CLOSED = "the peer has ended the session"
    ENDED = "we have ended the session"


class Event(_Named):
    """An event of a handshake. The value begins the sentence "... cannot happen while"."""

    START = "our first flight"
    MORE = "a record after which OpenSSL waits for another one"
    READY = "a record after which OpenSSL has the flight ready that is held"
    FINISHED = "a record after which OpenSSL has finished"
    FAIL = "a failure of OpenSSL's or of a callback"
    ADMIT = "admitting the peer"
    REFUSE = "refusing the peer"
    KEYS = "the use of keys"
    # Over datagrams:
    LISTEN = "a first datagram without a cookie"
    GREET = "a first datagram with its cookie"
    RETRANSMIT = "a retransmission"
    DATA = "a datagram of the session"
    SEAL = "sending data"
    CLOSE = "the peer's close_notify"
    END = "our close_notify"


class Leaves(_Named):
    """The bytes that may be sent to the peer in a step."""

    NOTHING = "nothing"
    FLIGHT = "what OpenSSL has ready"
    ALERT = "one alert"


class Impossible(RuntimeError):
    """A fault of ssa's own: an event that the table does not have in this state."""


Table = dict[tuple[State, Event], tuple[State, Leaves]]

_S, _E, _L = State, Event, Leaves

# A handshake over TCP, of both roles. A server begins in READING.
STREAM: Table = {
    (_S.START, _E.START): (_S.READING, _L.FLIGHT),
    (_S.START, _E.FAIL): (_S.FAILED, _L.ALERT),
    (_S.READING, _E.MORE): (_S.READING, _L.FLIGHT),
    (_S.READING, _E.READY): (_S.HELD, _L.NOTHING),
    (_S.READING, _E.FINISHED): (_S.HELD_LAST, _L.NOTHING),
    (_S.READING, _E.REFUSE): (_S.REFUSED, _L.ALERT),
    (_S.READING, _E.FAIL): (_S.FAILED, _L.ALERT),
    (_S.HELD, _E.ADMIT): (_S.ADMITTED, _L.FLIGHT),
    (_S.HELD, _E.REFUSE): (_S.REFUSED, _L.ALERT),
    (_S.HELD_LAST, _E.ADMIT): (_S.ESTABLISHED, _L.FLIGHT),
    (_S.HELD_LAST, _E.REFUSE): (_S.REFUSED, _L.ALERT),
    (_S.ADMITTED, _E.MORE): (_S.ADMITTED, _L.FLIGHT),
    (_S.ADMITTED, _E.FINISHED): (_S.ESTABLISHED, _L.FLIGHT),
    (_S.ADMITTED, _E.REFUSE): (_S.REFUSED, _L.ALERT),
    (_S.ADMITTED, _E.FAIL): (_S.FAILED, _L.ALERT),
    (_S.ESTABLISHED, _E.KEYS): (_S.ESTABLISHED, _L.NOTHING),
}

AWAITING = frozenset(state for state, event in STREAM if event is Event.MORE)  # the peer's next record is awaited
JUDGING = frozenset(state for state, event in STREAM if event is Event.ADMIT)  # `admit` or `refuse` is awaited
ADMITTED = frozenset(following for (_, event), (following, _) in STREAM.items() if event is Event.ADMIT)


def follow(table: Table, state: State, event: Event) -> tuple[State, Leaves]:
    """The next state, and what may leave. Raises `Impossible`."""
    try:
        return table[state, event]
    except KeyError:
        raise Impossible(f"{event.value} cannot happen while {state.value}") from None


class Held(NamedTuple):
    """The flight that is held until the verdict, and what protects an alert that leaves in its place."""

    flight: str
    secret: str  # TLS 1.3: the label of the secret, of whose key the alert is record 0; empty in TLS 1.2
    alert: str


# In TLS 1.2 an alert is plain text until our ChangeCipherSpec has left. From then on it is sealed, as the record behind
# our Finished. ChangeCipherSpec leaves with `admit`. Only a server that resumes a session sends it before the verdict:
# its Finished comes before the client's then.
#
# Before the verdict a server has sent its own certificate, and in TLS 1.3 its Finished. No application data can follow
# these, as nobody has the keys yet.
HELD: dict[tuple[Role, TLSVersion], Held] = {
    ("client", TLSVersion.TLSv1_3): Held(
        "our certificate and Finished", "CLIENT_HANDSHAKE_TRAFFIC_SECRET", "sealed under the client's handshake key"
    ),
    ("client", TLSVersion.TLSv1_2): Held("our certificate, ClientKeyExchange and Finished", "", "plain text"),
    ("server", TLSVersion.TLSv1_3): Held(
        "session tickets", "SERVER_TRAFFIC_SECRET_0", "sealed under the server's application key"
    ),
    ("server", TLSVersion.TLSv1_2): Held(
        "session ticket and Finished", "", "plain text; sealed where a session was resumed"
    ),
}
