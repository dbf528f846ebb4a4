"""Handles signals by one table of what each does. So nothing but SIGKILL leaves a dead mount behind.

At first a signal that ends ssad ends the process at once, as there is nothing to undo yet. From the mount on signals
are blocked, and a thread takes them. A signal that comes while ssad ends changes nothing more.

The signals of a fault of the program's own (SIGSEGV and its like) still end it: there, as after SIGKILL, the
next start takes the mount over.
"""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from signal import Signals
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAVING = Signals.SIGUSR2
ENDING = (Signals.SIGTERM, Signals.SIGINT, Signals.SIGQUIT, Signals.SIGABRT, Signals.SIGXCPU, LEAVING)
RELOADING = Signals.SIGHUP
_HEARD = (*ENDING, RELOADING)
# Those that have no deadly default (signal(7)), cannot be caught, or are Python's (an error of write(2) instead).
_LEFT = {
    *(Signals.SIGKILL, Signals.SIGSTOP, Signals.SIGTSTP, Signals.SIGTTIN, Signals.SIGTTOU, Signals.SIGCONT),
    *(Signals.SIGCHLD, Signals.SIGURG, Signals.SIGWINCH, Signals.SIGPIPE, Signals.SIGXFSZ),
}
IGNORED = tuple(sorted(signal.valid_signals() - {*_HEARD, *_LEFT}))

HELP = """\
signals:
  SIGTERM, SIGINT, SIGQUIT, SIGABRT, SIGXCPU   end ssad and its workers in order, and unmount. Sockets whose keys are in
                                               the kernel stay open, but no later ssad lists them, and their peer's next
                                               KeyUpdate ends them. Relayed sockets, and those of DTLS, end with ssad
  SIGUSR2                                      ends ssad in order, and leaves its workers to the next one: all sockets
                                               go on, and the next ssad lists them. After SIGKILL too
  SIGHUP                                       reads the policy's file and the credentials again, and logs the changes.
                                               If any of them is bad, the log says why, and nothing changes
  SIGUSR1, SIGALRM and all others              are ignored. After SIGKILL the next start takes over what is left
"""


def prepare() -> None:
    """Ignore the signals that are to be ignored, and block the others: threads that are made now never take them."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)


def end_at_once() -> None:
    """Have the signals that end the daemon do so by themselves: there is nothing to put in order yet.

    Until then the daemon may be reading a file of a file system that hangs.
    """
    for number in ENDING:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def keep_back() -> None:
    """Block all of them in this thread, and in those that it makes. What is pending at the end has no effect."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HEARD)


@contextlib.contextmanager
def heard() -> Iterator[trio.MemoryReceiveChannel[int]]:
    """The signals that the daemon acts on, as they come.

    A thread takes them, by sigwait(3). No handler is ever called: in a flood of signals Python's handlers interrupt
    each other until the stack is full.
    """
    told, received = trio.open_memory_channel[int](math.inf)
    token = trio.lowlevel.current_trio_token()

    def take() -> None:
        with contextlib.suppress(trio.RunFinishedError):
            while True:
                token.run_sync_soon(told.send_nowait, signal.sigwait(_HEARD), idempotent=True)

    threading.Thread(target=take, name="signals", daemon=True).start()
    yield received
