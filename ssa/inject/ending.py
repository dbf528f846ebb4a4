"""How a relayed stream has ended: a descriptor's end of file does not say, ssad does, and the event loop does not wait.

On kernel TLS the end is in the stream itself, and nobody has to be asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssa.inject.handshake import PAUSE

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ssa.inject.sslsocket import SSLSocket
    from ssa.library.connection import DaemonConnection


class Ending:
    """One question to ssad. `told` is called with None for an end in order, else with what a read would raise."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, sock: SSLSocket, told: Callable[[OSError | None], None]
    ) -> None:
        self._loop, self._sock, self._told = loop, sock, told
        self._daemon: DaemonConnection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ask()

    def _ask(self) -> None:
        try:
            self._daemon = self._sock.ask_end()
        except TimeoutError:  # ssad's queue of connections is full
            self._timer = self._loop.call_later(PAUSE, self._ask)
        except OSError as exc:
            self._timer = None
            self._loop.call_soon(self._tell, exc)
        else:
            self._loop.add_reader(self._daemon.fileno(), self._answered)

    def _answered(self) -> None:
        if self._daemon is None:
            return
        try:
            self._sock.end_told(self._daemon)
        except BlockingIOError:
            return
        except OSError as exc:
            self._tell(exc)
        else:
            self._tell(None)

    def _tell(self, exc: OSError | None) -> None:
        self.close()
        told, self._told = self._told, _nobody
        told(exc)

    def close(self) -> None:
        """Ask no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._daemon is not None:
            self._loop.remove_reader(self._daemon.fileno())
            self._daemon.close()
            self._daemon = None


def _nobody(_exc: OSError | None) -> None:
    """Ignore the answer: the transport waits for none any more."""
