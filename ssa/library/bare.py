"""Plain descriptors of TLS sockets: `ssa.connect_tls`, and `ssa.recv`, `ssa.send`, `ssa.close` for what it returns.

A descriptor has no object that remembers anything. What a program's other calls need (that a KeyUpdate is due, what has
ended the connection) is kept in a table by the descriptor's number.
"""

from __future__ import annotations

import os
import socket

from ssa.ktls import control
from ssa.ktls.post_handshake import Broken
from ssa.library import datapath, deadlines, eyeballs
from ssa.library.connecting import looked_up
from ssa.library.connection import DaemonConnection
from ssa.library.control_records import cookie, fail
from ssa.library.fdswap import Borrowed
from ssa.library.key_lifetime import PART
from ssa.library.option_values import protocol_names
from ssa.library.sharing import Turns
from ssa.protocol.wire import Connect

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

    The server's certificate is verified under the administrator's policy. That cannot be turned off. `os.read`,
    `os.write`, `sendfile` and their like work on the descriptor as on any other. `ssa.recv` and `ssa.close` also do
    what TLS requires at the end of a stream.

    Args:
        host: a host name, in any script, or an IP address. Its certificate has to be for it.
        port: a number or a service's name.
        timeout: seconds for the TCP connection and the handshake together; the policy's timeout holds too.
        alpn: application protocols to offer, the preferred one first (RFC 7301).
        source_address: the local address and port to connect from.

    Raises:
        ValueError: the timeout is no number of 0 or more, or a protocol name is not valid.
        ConnectionRefusedError: no daemon runs, or the server refuses the connection.
        OSError: the connection fails, as in `socket.create_connection`.
        ssa.CertificateError: the server's certificate was refused.
        ssa.HandshakeError: the handshake failed; `ssa.HandshakeTimeout` (a TimeoutError) if it took too long.
        ssa.PolicyError: the policy does not allow what was asked.
    """
    deadline = deadlines.after(timeout)
    protocols = None if alpn is None else protocol_names(alpn)
    with (
        DaemonConnection(deadline) as daemon,
        eyeballs.connect(looked_up(host), port, deadline=deadline, source_address=source_address) as sock,
    ):
        _, passed = daemon.ask_for_tls(Connect(host, protocols, deadlines.milliseconds_left(deadline)), sock)
        fd = passed[0] if passed else sock.detach()
        _bare[fd] = _Bare(fd, shared=False)
        return fd


def recv(fd: int, size: int) -> bytes:
    """Read up to `size` bytes from a descriptor of `connect_tls`; ``b""`` when the peer has ended the stream.

    Raises:
        ConnectionAbortedError: the stream was cut without TLS's close_notify: what came may not be all (RFC 8446, 6.1).
        OSError: EPROTO for an alert of the peer's or what else breaks the protocol, EBADMSG for a forged record,
            EMSGSIZE for one that is too long or none: these end the connection, and `send` raises them too. Else as
            recv(2).
    """
    with Borrowed(fd) as sock:
        state = _state(fd)
        state.check(sock)
        try:
            return datapath.of(sock).recv(sock, size, state.asked)
        except Broken as exc:
            raise state.fail(sock, exc) from None


def send(fd: int, data: bytes) -> int:
    """Write to a descriptor of `connect_tls`; the number of bytes written.

    Before that, and after each 1 MiB, it changes the key (KeyUpdate) where that is due: the peer has asked for it, or
    the key has served for long enough. Threads, and processes that come of a fork(2), take turns.

    Raises OSError as the system call does; EKEYEXPIRED where the key has served its time, and cannot be changed; what
    has ended the connection, as `recv`.
    """
    state = _state(fd)
    size = memoryview(data).nbytes
    if size <= PART:
        return _send_part(fd, state, data)
    view, sent = memoryview(data).cast("B"), 0
    with state.turns.turn:
        while sent < size and sent % PART == 0:
            try:
                sent += _send_part(fd, state, view[sent : sent + PART])
            except OSError:
                if not sent:
                    raise
                break  # what was sent is told first, and the next call meets this again
    return sent


def _send_part(fd: int, state: _Bare, data: bytes | memoryview) -> int:
    with state.turns.turn, Borrowed(fd) as sock:
        state.check(sock)
        if state.answer_due or state.sendable < 0:
            state.sendable = _renew_key(fd, state, sock)
        try:
            sent = sock.send(data, socket.MSG_NOSIGNAL)
        except OSError as exc:
            raise _cannot_send(state, sock, exc) from None
        state.sendable -= 1 + (sent >> 10)
        return sent


def _cannot_send(state: _Bare, sock: socket.socket, exc: OSError) -> OSError:
    """The error to raise in place of an error of send(2)."""
    path = datapath.of(sock)
    if isinstance(exc, (BrokenPipeError, ConnectionResetError)):
        return path.why_closed(sock, exc)
    broken = path.unreadable(exc.errno)
    return exc if broken is None else state.fail(sock, broken)


def _renew_key(fd: int, state: _Bare, sock: socket.socket) -> int:
    answer, state.answer_due = state.answer_due, False  # before, as another thread may read of the next one meanwhile
    try:
        return datapath.of(sock).renew_key(sock, None if os.get_blocking(fd) else 0, answer=answer)
    except OSError:
        state.answer_due |= answer
        raise


def close(fd: int) -> None:
    """Tell the peer that the stream ends here (close_notify), and close the descriptor.

    If the send buffer is full, the daemon sends close_notify later, and keeps the connection until the peer has all.
    Without a daemon this waits for room for a second. A connection that has failed gets no close_notify.

    It is no error if the peer has gone already. The descriptor is closed in any case.
    """
    state = _state(fd)
    try:
        with Borrowed(fd) as sock:
            path, failed = datapath.of(sock), state.has_failed(sock)
            if not failed and control.aborts(sock):
                path.abort(sock)
            else:
                path.end(sock, has_failed=failed)
    finally:
        _bare.pop(fd, None)
        os.close(fd)


class _Bare:
    """The state of a bare descriptor. It is found by the descriptor's number.

    The program may close the descriptor with close(2), and another socket may get its number. The state left here then
    costs that socket no more than a look, or a KeyUpdate, that was not due. A failure counts for its own socket only.
    """

    __slots__ = ("__weakref__", "_failure", "_fd", "answer_due", "sendable", "turns")

    def __init__(self, fd: int, *, shared: bool) -> None:
        self._fd = fd
        self.sendable = -1  # what may be sent before the next look at the key, in `key_lifetime.STRIDE`'s unit
        self.answer_due = False  # the peer waits for a KeyUpdate
        self._failure: tuple[bytes, OSError] | None = None  # of which socket, and what
        self.turns = Turns(shared=shared)
        self.turns.of(self)

    def fileno(self) -> int:
        return self._fd

    def asked(self) -> None:
        """The peer has asked for a KeyUpdate."""
        self.answer_due = True

    def fail(self, sock: socket.socket, broken: Broken) -> OSError:
        """End a connection that has failed, send the peer the alert, and remember why. Returns the error to raise."""
        self._failure = cookie(sock), OSError(broken.errno, broken.strerror)
        fail(sock, broken)
        return OSError(broken.errno, broken.strerror)

    def has_failed(self, sock: socket.socket) -> bool:
        return self._failure is not None and self._failure[0] == cookie(sock)

    def check(self, sock: socket.socket) -> None:
        """Raise the OSError that has ended the connection."""
        if self._failure is not None and self.has_failed(sock):
            raise OSError(self._failure[1].errno, self._failure[1].strerror)


_bare: dict[int, _Bare] = {}


def _state(fd: int) -> _Bare:
    """The state of a descriptor. One that `connect_tls` has not made in this process may be shared already."""
    return _bare.get(fd) or _bare.setdefault(fd, _Bare(fd, shared=True))
