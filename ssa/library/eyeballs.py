"""A TCP connection to a host of several addresses: Happy Eyeballs (RFC 8305), as values and one loop over select."""

from __future__ import annotations

import errno
import itertools
import os
import select
import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any, Self

    AddressInfo = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]  # as getaddrinfo gives it

ATTEMPT_DELAY = 0.25  # seconds before the next address is tried beside the last (RFC 8305 section 5)


def interleave(found: Iterable[AddressInfo]) -> list[AddressInfo]:
    """The addresses with their families taking turns, the resolver's first family first (RFC 8305 section 4)."""
    families: dict[int, list[AddressInfo]] = {}
    for info in found:
        families.setdefault(info[0], []).append(info)
    rounds = itertools.zip_longest(*families.values())
    return [info for turn in rounds for info in turn if info is not None]


def connect(
    host: bytes, port: int | str, *, deadline: float | None, source_address: tuple[str, int] | None
) -> socket.socket:
    """A connected TCP socket, in blocking mode. `deadline` is on `time.monotonic`'s clock.

    Raises `socket.gaierror`, and the OSError of the last address that could be tried at all.
    """
    addresses = interleave(socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM, socket.IPPROTO_TCP))
    with _Race(deadline, source_address) as race:
        return race.run(iter(addresses))


_NOT_TRIED = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}  # of connect(2) where IPv6 is turned off


class _Race:
    """Attempts that run beside each other; the first that is connected wins, and the others are closed."""

    def __init__(self, deadline: float | None, source_address: tuple[str, int] | None) -> None:
        self._deadline = deadline
        self._source = source_address
        self._running: dict[int, socket.socket] = {}
        self._errors: list[OSError] = []
        self._poll = select.poll()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for sock in self._running.values():
            sock.close()

    def run(self, addresses: Iterator[AddressInfo]) -> socket.socket:
        more = True
        while True:
            if more:
                more = self._start_next(addresses)
            if not self._running:
                if more:
                    continue
                raise self._most_telling()
            winner = self._wait(ATTEMPT_DELAY if more else None)
            if winner is not None:
                winner.setblocking(True)
                return winner

    def _most_telling(self) -> OSError:
        """The last error of a server or a network; that this machine lacks an address family says less."""
        tried = [error for error in self._errors if error.errno not in _NOT_TRIED]
        return (tried or self._errors)[-1]

    def _start_next(self, addresses: Iterator[AddressInfo]) -> bool:
        """Begin the next attempt. False when there are no more addresses."""
        info = next(addresses, None)
        if info is None:
            return False
        family, kind, protocol, _, address = info
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as exc:
            self._errors.append(exc)
            return True
        try:
            sock.setblocking(False)
            if self._source is not None:
                sock.bind(self._source)
            code = sock.connect_ex(address)
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError as exc:
            self._errors.append(exc)
            sock.close()
            return True
        self._running[sock.fileno()] = sock
        self._poll.register(sock, select.POLLOUT)
        return True

    def _wait(self, delay: float | None) -> socket.socket | None:
        """Wait until an attempt ends, or for `delay` seconds. The socket that is connected, if one is."""
        remaining = None if self._deadline is None else self._deadline - time.monotonic()
        waits = [wait for wait in (delay, remaining) if wait is not None]
        ready = self._poll.poll(max(0, min(waits)) * 1000 if waits else None)
        if not ready and remaining is not None and remaining <= (delay or remaining):
            raise TimeoutError(errno.ETIMEDOUT, "timed out")
        for fd, _ in ready:
            sock = self._running.pop(fd)
            self._poll.unregister(fd)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == 0:
                return sock
            sock.close()
            self._errors.append(OSError(code, os.strerror(code)))
        return None
