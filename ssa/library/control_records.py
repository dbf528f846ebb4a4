"""Reading from a kernel TLS socket beyond recv(2): the records that carry no application data are served here.

A plain read that meets such a record gets EIO, again and again, with nothing lost: nothing is done here before that.
And what the kernel calls the end of the stream is a bare FIN, the truncation of RFC 8446 section 6.1: the true end is
a close_notify alert. `ssa.ktls.post_handshake` is the table of what each record means; this is what is done about it:

    record                          what is done                                       what the reader gets
    close_notify                    it stays in the socket, for every later read       the end of the stream
    what the table passes over      taken; a ClientHello is answered                   what follows
    session tickets                 taken, and handed to the daemon                    what follows
    KeyUpdate                       the daemon takes it, and changes the keys          what follows
    a part of a message             the daemon takes it, and joins it with the rest    what follows
    KeyUpdate, on a kernel that     it stays in the socket                             EPROTONOSUPPORT, each time
    cannot change keys
    what breaks the connection      it stays in the socket; the peer gets the alert    the failure, each time
                                    that it deserves, and the end of our stream

What stays in the socket keeps every other reader from what is behind it, in whatever process: for them it is as it is
here. The daemon joins the parts of a message, as the next one can be met in another process, or through another
descriptor. Where it has gone this process does, as well as it can.
"""

from __future__ import annotations

import errno
import os
import select
import socket

from ssa import errors
from ssa.ktls import control
from ssa.ktls.constants import SO_COOKIE
from ssa.ktls.post_handshake import (
    MOST_WARNINGS,
    Broken,
    is_close_notify_untrusted,
    messages_untrusted,
    pass_over_untrusted,
    unreadable,
    violation,
)
from ssa.library import connection
from ssa.tls import ALERT, APPLICATION_DATA, CLIENT_HELLO, HANDSHAKE, KEY_UPDATE, NEW_SESSION_TICKET, TLS_1_3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

GO_ON, PASSED, END, ANSWER, MORE = "go on", "passed over", "end", "answer", "more"
# PASSED: go on behind an alert. ANSWER: go on, and send a KeyUpdate before the next data. MORE: the rest of a handshake
# message has to come next, and no data.


def serve_control_untrusted(sock: socket.socket, *, server: bool | None = None, unfinished: bool = False) -> str:
    """Serve the record that plain reads stumble over: one of the words above.

    `server` is our role, None where it is not known. `unfinished`: the last word was `MORE`.

    Raises OSError, and `Broken` for what ends the connection in both directions: see `fail`.
    """
    kind, content = control.look(sock)
    if kind == APPLICATION_DATA:
        return _ask_daemon(sock) if unfinished and content else GO_ON
    if is_close_notify_untrusted(kind, content):
        return END
    if kind == HANDSHAKE:
        return _serve_handshake_untrusted(sock, content, server=server)
    if kind != ALERT:
        raise violation(f"a record of type {kind} that no stream has")
    pass_over_untrusted(content, modern=is_modern(sock))
    _take(sock, content)
    return PASSED


def is_modern(sock: socket.socket) -> bool:
    """True where the socket speaks TLS 1.3."""
    return control.version(sock) == TLS_1_3


def _take(sock: socket.socket, content: bytes) -> None:
    """Take the record that was looked at."""
    if control.receive_record(sock, socket.MSG_DONTWAIT)[1] != content:
        raise Broken(errno.EIO, "somebody else reads from this socket, and what came is lost", "internal_error")


def _serve_handshake_untrusted(sock: socket.socket, content: bytes, *, server: bool | None) -> str:
    """Serve whole messages here. The daemon serves those that change a key, or go on in the next record."""
    modern = is_modern(sock)
    begun = _begun.get(cookie(sock), b"") if _begun else b""
    try:
        messages, rest = messages_untrusted(begun, content, modern=modern, server=server)
        broken = None
    except Broken as exc:  # unless it goes on with what the daemon remembers
        messages, rest, broken = [], b"", exc.with_traceback(None)  # which has this frame, and so the caller's socket
    update = bool(messages) and messages[-1][0] == KEY_UPDATE
    if not broken and not update and (begun or not rest):
        return _serve_untrusted(sock, content, messages, rest)
    try:
        return _ask_daemon(sock)
    except (ConnectionRefusedError, errors.SSAError) as exc:
        if update or (isinstance(exc, errors.SSAError) and exc.reason != "UNKNOWN_SOCKET"):
            raise
        try:
            if broken:
                raise broken from None
        finally:
            del broken
        return _serve_untrusted(sock, content, messages, rest)


def _ask_daemon(sock: socket.socket) -> str:
    try:
        answer, unfinished = connection.serve_handshake(sock)
    except errors.SSAError as exc:
        if exc.reason == "PROTOCOL_VIOLATION":
            raise violation(exc.detail, exc.alert or "unexpected_message") from None
        raise
    return MORE if unfinished else ANSWER if answer else GO_ON


def _serve_untrusted(sock: socket.socket, content: bytes, messages: list[bytes], rest: bytes) -> str:
    """Serve a record by ourselves, and remember the beginning of a message that is not complete."""
    _take(sock, content)
    if content[0] == KEY_UPDATE:
        control.read_on(sock)
    number = cookie(sock)
    _begun.pop(number, None)
    if rest:
        if len(_begun) >= _MOST_BEGUN:
            del _begun[next(iter(_begun))]
        _begun[number] = rest
    tickets = b"".join(message for message in messages if message[0] == NEW_SESSION_TICKET)
    if tickets:
        connection.hand_in_ticket(sock, tickets)
    if any(message[0] == CLIENT_HELLO for message in messages):
        control.refuse_renegotiation(sock)
    return MORE if rest else GO_ON


def cookie(sock: socket.socket) -> bytes:
    """The socket's cookie (SO_COOKIE), a number that no other socket ever has."""
    return sock.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)


# Beginnings of messages, of sockets that no daemon knows (any more).
_begun: dict[bytes, bytes] = {}
_MOST_BEGUN = 64


def fail(sock: socket.socket, broken: Broken) -> None:
    """End a connection that has failed, in both directions: the peer gets its alert, once, and no close_notify."""
    control.fail(sock, broken.alert, unreadable=broken.errno in (errno.EMSGSIZE, errno.EINVAL))


class Truncated(ConnectionAbortedError):
    """ECONNABORTED: the stream ended without close_notify, so what came may not be all (RFC 8446 section 6.1)."""


def truncated() -> Truncated:
    """The error for a stream that was cut."""
    return Truncated(errno.ECONNABORTED, "the connection was cut: its end came without TLS's close_notify")


def is_cut_untrusted(sock: socket.socket) -> bool:
    """True if a read of no bytes means a bare FIN. An empty record before a record that is no data reads so too."""
    return control.look(sock)[0] == APPLICATION_DATA


def look_behind_untrusted(sock: socket.socket) -> str:
    """Serve a KeyUpdate that waits behind what was read: as `serve_control_untrusted`, without its errors.

    Where a read had room to spare, the kernel has looked on, and may have found one. It waits to be read, and poll(2)
    says that there is nothing, whatever follows: a reader that polls first would never read again.
    """
    try:
        sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError as exc:
        if exc.errno != errno.EIO:
            return GO_ON  # the next read will meet it
    else:
        return GO_ON
    kind, content = control.look(sock)
    if kind != HANDSHAKE or content[:1] != bytes([KEY_UPDATE]):
        return GO_ON  # others do not hide
    try:
        return serve_control_untrusted(sock)
    except OSError:  # deliver what was read; poll() then reports readable, and the next read meets the error
        sock.shutdown(socket.SHUT_RD)
        return GO_ON


def recv(sock: socket.socket, size: int, asked: Callable[[], None]) -> bytes:
    """Up to `size` bytes of data from a socket that nobody keeps a state of; empty at the peer's close_notify.

    `asked` is called as soon as the peer has asked for a KeyUpdate of ours: it is due before the next data is sent,
    which another thread may do meanwhile. Raises `Broken` for a connection that has failed, and OSError.
    """
    patience = Patience()
    served = GO_ON
    while size:
        if served != MORE:
            if data := _plain_read(sock, size):
                if len(data) < size and look_behind_untrusted(sock) == ANSWER:
                    asked()
                return data
        elif not _is_readable(sock):
            raise BlockingIOError(errno.EAGAIN, "the rest of a handshake message has not come yet")
        served = serve_control_untrusted(sock, unfinished=served == MORE)
        if served == END:
            break
        patience.tried_by(served)
        if served == ANSWER:
            asked()
    return b""


def _plain_read(sock: socket.socket, size: int) -> bytes:
    """The data that recv(2) gives; empty where a record that is no data comes first. Raises as `recv`."""
    try:
        data = sock.recv(size)
    except OSError as exc:
        if exc.errno != errno.EIO:
            raise unreadable(exc.errno) or exc from None
        return b""
    if not data and is_cut_untrusted(sock):
        connection.tell_truncated(sock)
        raise truncated()
    return data


def _is_readable(sock: socket.socket) -> bool:
    """Wait until something can be read; on a descriptor that does not wait, whether it can be now."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(None if os.get_blocking(sock.fileno()) else 0))


class Patience:
    """Counts the alerts that a reader passes over without anything between them."""

    __slots__ = ("_passed",)

    def __init__(self) -> None:
        self._passed = 0

    def tried_by(self, served: str) -> None:
        """Note what was served. Raises `Broken` where it is one alert too many."""
        self._passed = self._passed + 1 if served == PASSED else 0
        if self._passed > MOST_WARNINGS:
            raise violation("alert after alert, and no end")
