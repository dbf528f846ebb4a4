"""The states of a relayed connection as tables: its two directions, what is known of its ends, its end. Pure.

What is known of an end, and what it means for the other one (`EFFECTS`). Where a library said `half`, the FIN behind a
close_notify comes when the application's end is closed:

    the application's end                          the peer gets
    its writing side was shut down                 close_notify and a FIN, behind the last byte
    it was closed, and its library had said so     close_notify and a FIN, behind the last byte
    it was closed without a word                   a FIN alone, behind the last byte: a truncation
    it was closed with SO_LINGER {1, 0}            a reset; what was not sent yet is thrown away
    nobody can read from it any more               what was written before, for a minute at most

    the peer                                       the application's end
    sent close_notify                              can be read to its end; writing goes on
    sent a FIN without close_notify                can be read to its end ("truncated"); writing goes on
    sent a forged record, a fatal alert or a reset can be read to its end (which it was is told); writing fails
    takes nothing more                             can be read to its end; writing fails

    the administrator                              the application's end
    ends the connection                            is at its end; what was not sent yet is thrown away

Where the application's library has said `half`, the FIN behind that close_notify goes out when the application has
closed its end, or when both directions have ended.

Each direction is a `Pipe`: it takes from its source while it is OPEN, and keeps what its destination has no room for.
While it keeps something it takes nothing more, so that TCP's window or the pair's buffer fills, and the source waits.

A connection is RELAYING until both directions are SHUT. Then it is LEAVING: what the peer sends is read and thrown
away until the peer has acknowledged all. Then it is OVER, and its sockets can be closed.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class _Named(Enum):
    """An enumeration for the keys of tables: a member is hashed by its identity, which Python does without a call."""

    __hash__ = object.__hash__


class Flow(_Named):
    """The state of one direction."""

    OPEN = "what its source sends is taken"
    BLOCKED = "its destination has no room for what was taken last"
    DRAINING = "its source has ended, and what was taken last is still to go"
    SHUT = "its destination has been told the end, or takes nothing more"


class Event(_Named):
    """An event of one direction."""

    KEPT = "the destination has not taken all"
    TAKEN = "the destination has taken all that was kept"
    ENDED = "the source has ended"
    CUT = "what is kept is thrown away, and no more is taken"


class Impossible(RuntimeError):
    """A fault of ssa's own: an event that a table does not have in this state."""


_F, _E = Flow, Event

FLOWS: dict[tuple[Flow, Event], Flow] = {
    (_F.OPEN, _E.KEPT): _F.BLOCKED,
    (_F.OPEN, _E.ENDED): _F.SHUT,
    (_F.OPEN, _E.CUT): _F.SHUT,
    (_F.BLOCKED, _E.KEPT): _F.BLOCKED,
    (_F.BLOCKED, _E.TAKEN): _F.OPEN,
    (_F.BLOCKED, _E.ENDED): _F.DRAINING,
    (_F.BLOCKED, _E.CUT): _F.SHUT,
    (_F.DRAINING, _E.KEPT): _F.DRAINING,
    (_F.DRAINING, _E.TAKEN): _F.SHUT,
    (_F.DRAINING, _E.ENDED): _F.DRAINING,
    (_F.DRAINING, _E.CUT): _F.SHUT,
    (_F.SHUT, _E.ENDED): _F.SHUT,
    (_F.SHUT, _E.CUT): _F.SHUT,
}


class Pipe:
    """One direction: its state, and the bytes that its destination had no room for."""

    __slots__ = ("flow", "kept")

    def __init__(self) -> None:
        self.flow = Flow.OPEN
        self.kept = b""

    def move(self, event: Event) -> bool:
        """Follow the table. Returns True where the direction has come to its end by that. Raises `Impossible`."""
        before = self.flow
        try:
            self.flow = FLOWS[before, event]
        except KeyError:
            raise Impossible(f"a direction is {before.name}, and {event.value}") from None
        if self.flow is Flow.SHUT:
            self.kept = b""
        return self.flow is not before and self.flow is Flow.SHUT

    def keep(self, rest: bytes) -> bool:
        """The destination has taken all but `rest`. Returns True where the direction has come to its end by that."""
        if not rest and not self.kept:
            return False
        ended = self.move(Event.KEPT if rest else Event.TAKEN)
        self.kept = rest
        return ended


class Phase(_Named):
    """The state of the connection."""

    RELAYING = "at least one direction goes on"
    LEAVING = "nothing more is to be said or heard, but the peer has not acknowledged all"
    OVER = "its sockets can be closed"


class Step(_Named):
    """An event of the connection."""

    LEAVE = "both directions are at their end, or given up"
    FINISH = "the peer has acknowledged all, or is not waited for"
    RESET = "the peer gets a reset"
    LOSE = "a fault of ssa's own"


_P, _S = Phase, Step

PHASES: dict[tuple[Phase, Step], Phase] = {
    (_P.RELAYING, _S.LEAVE): _P.LEAVING,
    (_P.RELAYING, _S.RESET): _P.OVER,
    (_P.RELAYING, _S.LOSE): _P.OVER,
    (_P.LEAVING, _S.FINISH): _P.OVER,
    (_P.LEAVING, _S.RESET): _P.OVER,
    (_P.LEAVING, _S.LOSE): _P.OVER,
    (_P.OVER, _S.LOSE): _P.OVER,
}


def follow(phase: Phase, step: Step) -> Phase:
    """The next phase. Raises `Impossible`."""
    try:
        return PHASES[phase, step]
    except KeyError:
        raise Impossible(f"a relayed connection is {phase.name}, and {step.value}") from None


class End(_Named):
    """The state of an end that calls for an effect at the other one."""

    # The application's:
    SHUT = "its writing side was shut down"
    CLOSED = "it was closed, and its library had said so"
    CRASHED = "it was closed without a word"
    ABORTED = "it was closed with SO_LINGER {1, 0}"
    UNREAD = "nobody can read from it any more"
    # The peer:
    CLOSE_NOTIFY = "sent close_notify"
    FIN = "sent a FIN without close_notify"
    BROKEN = "sent a forged record, a fatal alert or a reset"
    WRITE_FAILED = "takes nothing more"
    # The administrator:
    STOPPED = "ends the connection"


class Effect(NamedTuple):
    """The effect on the other end."""

    words: str
    up: Event | None = None  # to the direction from the application to the peer
    down: Event | None = None  # to the direction from the peer to the application
    close_notify: bool = False  # our own is sent first
    writing_fails: bool = False  # the application's writing fails from now on
    final: bool = False  # how it ended counts, whatever was said before


EFFECTS: dict[End, Effect] = {
    End.SHUT: Effect("close_notify and a FIN, behind the last byte", up=Event.ENDED, close_notify=True),
    End.CLOSED: Effect("close_notify and a FIN, behind the last byte", up=Event.ENDED, close_notify=True),
    End.CRASHED: Effect("a FIN alone, behind the last byte: a truncation", up=Event.ENDED),
    End.ABORTED: Effect("a reset; what was not sent yet is thrown away", up=Event.CUT, down=Event.CUT),
    End.UNREAD: Effect("what was written before, for a minute at most", down=Event.CUT),
    End.CLOSE_NOTIFY: Effect("can be read to its end; writing goes on", down=Event.ENDED, final=True),
    End.FIN: Effect('can be read to its end ("truncated"); writing goes on', down=Event.ENDED),
    End.BROKEN: Effect(
        "can be read to its end (which it was is told); writing fails",
        up=Event.ENDED,
        down=Event.ENDED,
        writing_fails=True,
        final=True,
    ),
    End.WRITE_FAILED: Effect("can be read to its end; writing fails", up=Event.CUT, writing_fails=True),
    End.STOPPED: Effect(
        "is at its end; what was not sent yet is thrown away",
        up=Event.CUT,
        down=Event.CUT,
        writing_fails=True,
        final=True,
    ),
}
