"""The states of a DTLS session as tables: those of a handshake, cookies before it, data behind it. Pure.

Client and server begin in START. A server answers a first datagram with a cookie, and keeps nothing, until a datagram
shows one. `ssa.handshake.states` has the states, the events, and what the tables are read with.
"""

from __future__ import annotations

from ssa.handshake.states import JUDGING, STREAM, Event, Leaves, State, Table

_S, _E, _L = State, Event, Leaves

LIVE = frozenset({State.ESTABLISHED, State.CLOSED})  # with data on its way, or with the peer's close_notify read

_SESSION: Table = {
    # An end that waits for an answer to its flight sends the flight again.
    (_S.READING, _E.RETRANSMIT): (_S.READING, _L.FLIGHT),
    (_S.ADMITTED, _E.RETRANSMIT): (_S.ADMITTED, _L.FLIGHT),
    # There is no kernel to go on: the session is the engine's.
    (_S.ESTABLISHED, _E.DATA): (_S.ESTABLISHED, _L.FLIGHT),
    (_S.ESTABLISHED, _E.SEAL): (_S.ESTABLISHED, _L.FLIGHT),
    (_S.ESTABLISHED, _E.FAIL): (_S.FAILED, _L.ALERT),
    (_S.ESTABLISHED, _E.CLOSE): (_S.CLOSED, _L.FLIGHT),
    (_S.ESTABLISHED, _E.END): (_S.ENDED, _L.FLIGHT),
    (_S.CLOSED, _E.END): (_S.CLOSED, _L.FLIGHT),
    # Where there is no session there is nothing to end.
    (_S.START, _E.END): (_S.ENDED, _L.NOTHING),
    (_S.GREETED, _E.END): (_S.ENDED, _L.NOTHING),
    (_S.READING, _E.END): (_S.ENDED, _L.NOTHING),
    (_S.HELD, _E.END): (_S.ENDED, _L.NOTHING),
    (_S.HELD_LAST, _E.END): (_S.ENDED, _L.NOTHING),
    (_S.ADMITTED, _E.END): (_S.ENDED, _L.NOTHING),
    (_S.REFUSED, _E.END): (_S.REFUSED, _L.NOTHING),
    (_S.FAILED, _E.END): (_S.FAILED, _L.NOTHING),
}
# Without what only a stream has: the keys stay with OpenSSL, and a peer is refused at the verdict alone.
_HANDSHAKE: Table = {
    (state, event): then
    for (state, event), then in STREAM.items()
    if event is not Event.KEYS and (event is not Event.REFUSE or state in JUDGING)
}

CLIENT: Table = _HANDSHAKE | _SESSION

# A server that has seen no cookie sends no flight: it would be sent to whoever the datagram claims to be from.
SERVER: Table = {step: then for step, then in CLIENT.items() if step != (State.START, Event.START)} | {
    (_S.START, _E.LISTEN): (_S.START, _L.FLIGHT),
    (_S.START, _E.GREET): (_S.GREETED, _L.NOTHING),
    (_S.GREETED, _E.START): (_S.READING, _L.FLIGHT),
    (_S.GREETED, _E.FAIL): (_S.FAILED, _L.ALERT),
}
