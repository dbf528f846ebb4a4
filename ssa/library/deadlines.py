"""Deadlines: times on `time.monotonic`'s clock, None where a call may take as long as it takes."""

from __future__ import annotations

import select
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket

LOCAL = 5.0  # seconds for a request that the daemon answers at once: it waits for no peer
_FOREVER = 2**21  # seconds, 24 days: what poll(2) can wait
_MOST_MILLISECONDS = 2**32 - 1  # what a request has room for


def local() -> float:
    """The deadline of a request that the daemon answers at once."""
    return time.monotonic() + LOCAL


def after(timeout: float | None) -> float | None:
    """The deadline of a call that was given a timeout in seconds. Raises ValueError for one below 0, or no number."""
    if timeout is None:
        return None
    if not timeout >= 0:  # a NaN is not
        raise ValueError("timeout has to be a number of seconds, 0 or more")
    return time.monotonic() + min(timeout, _FOREVER)


def of(sock: socket.socket) -> float | None:
    """The end of the socket's timeout, on time.monotonic's clock; None if it has no timeout or is non-blocking."""
    timeout = sock.gettimeout()
    return time.monotonic() + timeout if timeout else None


def to_be_taken(timeout: float | None, deadline: float | None) -> float | None:
    """The time by which the daemon has to take a request: `deadline`, or `LOCAL` seconds for a non-blocking socket."""
    return local() if timeout == 0 else deadline


def seconds_left(deadline: float | None) -> float | None:
    """Seconds until a deadline, at least 0."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def milliseconds_left(deadline: float | None) -> int | None:
    """Milliseconds until a deadline, at least 1, as a request has them."""
    if deadline is None:
        return None
    return max(1, min(round((deadline - time.monotonic()) * 1000), _MOST_MILLISECONDS))


def wait(sock: socket.socket, events: int, deadline: float | None) -> bool:
    """Wait for a descriptor (poll(2)). False when the deadline came first."""
    poll = select.poll()
    poll.register(sock.fileno(), events)
    left = seconds_left(deadline)
    return bool(poll.poll(None if left is None else left * 1000))
