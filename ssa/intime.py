"""Runs blocking work with a deadline, for code without an event loop. Code in the event loop has `Errands`."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# All signals but those of a fault in the thread itself, which are not to be blocked (signal(7)).
_OTHERS = signal.valid_signals() - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}


class TooSlow(TimeoutError):
    """The work was not done in time. Its thread goes on."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no answer within {seconds:g} seconds")


def in_time(work: Callable[[], T], seconds: float) -> T:
    """Run `work` in a thread, and wait for its result. A thread that is late is left behind.

    Raises:
        TooSlow: it was not done within so many seconds.
        Exception: what the work raises.
    """
    found: list[T] = []
    failures: list[Exception] = []

    def do() -> None:
        # The thread may outlast its caller, and must not take the signals that are meant for others.
        signal.pthread_sigmask(signal.SIG_BLOCK, _OTHERS)
        try:
            found.append(work())
        except Exception as failure:  # noqa: BLE001 - the caller gets it
            failures.append(failure)

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    thread.join(seconds)
    if failures:
        raise failures[0]
    if not found:
        raise TooSlow(seconds)
    return found[0]
