"""What applications call."""

from __future__ import annotations

import os
import socket
import time

from ssa import errors, eyeballs
from ssa.client import Daemon
from ssa.ktls import control
from ssa.wire import Connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def connect_tls(
    host: str,
    port: int | str,
    *,
    timeout: float | None = None,
    alpn: Sequence[str] | None = None,
    source_address: tuple[str, int] | None = None,
) -> int:
    """Connect to a TLS server and return a plain, blocking descriptor whose records the kernel protects.

    The server is verified under the administrator's policy: there is no way to connect without. `os.read`,
    `os.write`, `sendfile` and their like work on the descriptor as on any other; `ssa.recv` and `ssa.close`
    do besides what TLS demands at the end of a stream.

    Args:
        host: a host name, in any script, or an IP address. Its certificate has to be for it.
        port: a number or a service's name.
        timeout: seconds for the TCP connection and the handshake together; the policy's timeout holds too.
        alpn: application protocols to offer, the preferred one first (RFC 7301).
        source_address: the local address and port to connect from.

    Raises:
        ValueError: a timeout or a protocol name that is none.
        ConnectionRefusedError: no daemon runs, or the server refuses the connection.
        OSError: the connection fails, as in `socket.create_connection`.
        ssa.CertificateError: the server's certificate was refused.
        ssa.HandshakeError: the handshake failed; `ssa.HandshakeTimeout` (a TimeoutError) if it took too long.
        ssa.PolicyError: the policy does not allow what was asked.
    """
    deadline = _deadline(timeout)
    protocols = None if alpn is None else _protocols(alpn)
    with (
        Daemon(deadline) as daemon,
        eyeballs.connect(_looked_up(host), port, deadline=deadline, source_address=source_address) as sock,
    ):
        daemon.handshake(Connect(host, protocols, _milliseconds_left(deadline)), sock)
        return sock.detach()


def _looked_up(host: str) -> bytes:
    """The name to ask the resolver for. Given a str, `socket` would convert it by the rules of 2003: another name."""
    if not isinstance(host, str):
        raise TypeError(f"host has to be a str, not {type(host).__name__}")
    if not host.isascii():
        from ssa.names import normalise  # late: few names need it

        try:
            host = str(normalise(host))
        except ValueError as exc:
            raise errors.error("BAD_VALUE", str(exc)) from None
    return host.encode("ascii")


_FOREVER = 2**21  # seconds, 24 days: what poll(2) can wait


def _deadline(timeout: float | None) -> float | None:
    if timeout is None:
        return None
    if not timeout >= 0:  # a NaN is not
        raise ValueError("timeout has to be a number of seconds, 0 or more")
    return time.monotonic() + min(timeout, _FOREVER)


def _protocols(alpn: Sequence[str]) -> tuple[str, ...]:
    if isinstance(alpn, str):
        raise TypeError(f"alpn has to be a list of protocol names, as [{alpn!r}]")
    for name in alpn:
        if not name.isascii() or not 1 <= len(name) <= 255:
            raise ValueError(f"alpn: {name!r} is no protocol name: 1 to 255 ASCII characters (RFC 7301)")
    return tuple(alpn)


def _milliseconds_left(deadline: float | None) -> int | None:
    if deadline is None:
        return None
    return max(1, min(round((deadline - time.monotonic()) * 1000), 2**32 - 1))


class _Borrowed:
    """A descriptor as a socket object that does not own it, and leaves its flags alone."""

    def __init__(self, fd: int) -> None:
        was_blocking = socket.getdefaulttimeout() is None or os.get_blocking(fd)
        # Told what it is, it asks the kernel nothing; the family only matters for addresses, which nobody here uses.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=fd)
        if self._socket.gettimeout() is not None:
            # setdefaulttimeout() has just made the *application's* open file non-blocking: as it was, then.
            self._socket.settimeout(None)
            os.set_blocking(fd, was_blocking)

    def __enter__(self) -> socket.socket:
        return self._socket

    def __exit__(self, *exc: object) -> None:
        self._socket.detach()


def recv(fd: int, size: int) -> bytes:
    """Read up to `size` bytes from a descriptor of `connect_tls`; ``b""`` when the peer has ended the stream.

    Raises:
        ConnectionAbortedError: the stream was cut without TLS's close_notify: what came may not be all (RFC 8446, 6.1).
        OSError: EPROTO for an alert of the peer's, EBADMSG for a forged record, else as recv(2).
    """
    with _Borrowed(fd) as sock:
        return control.recv(sock, size)


def send(fd: int, data: bytes) -> int:
    """Write to a descriptor of `connect_tls`; the number of bytes written. Raises OSError as the system call does."""
    with _Borrowed(fd) as sock:
        return sock.send(data, socket.MSG_NOSIGNAL)


def close(fd: int) -> None:
    """Tell the peer that the stream ends here (close_notify), and close the descriptor.

    Waits, for a second at most, where what was written before fills the send buffer.

    A peer that has gone already needs no telling: the descriptor is closed in any case.
    """
    try:
        with _Borrowed(fd) as sock:
            control.end(sock)
    finally:
        os.close(fd)
