"""TLS 1.3's KeyUpdate (RFC 8446 section 4.6.3) on a socket whose keys are in the kernel, one direction at a time.

Linux can from 6.14 on (`Capabilities.rekey`). Older kernels refuse the second key with EBUSY, as all kernels do for
TLS 1.2. Nothing has changed then.

The kernel does not know that our KeyUpdate and our next key belong together. No record may come between the two, so
no other thread or process may send meanwhile. And sendmsg(2) waits for a send in which another thread is blocked,
whatever the flags say.

Under one key no record number may come twice, so no key may be installed twice. For one socket the caller makes one
call of `change_sending_key` or `follow_untrusted` at a time.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ssa import errors
from ssa.ktls import control
from ssa.ktls.constants import SOL_TLS, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TLS_RX, TLS_SET_RECORD_TYPE, TLS_TX
from ssa.ktls.crypto_info import HEADER, CryptoInfo
from ssa.ktls.key_schedule import next_secret, traffic_key
from ssa.ktls.post_handshake import messages_untrusted, violation
from ssa.suites import TLSVersion
from ssa.tls import APPLICATION_DATA, HANDSHAKE, KEY_UPDATE, NEW_SESSION_TICKET

if TYPE_CHECKING:
    from ssa.suites import Suite


@dataclass(slots=True)
class TrafficSecrets:
    """TLS 1.3's traffic secrets as they are now: what the next keys are made of (RFC 8446 section 7.2).

    A secret is None after a change that failed half way. Then there can be no other change.
    """

    tx: bytes | None = field(repr=False)
    rx: bytes | None = field(repr=False)


@dataclass(slots=True)
class Incoming:
    """The beginning of a handshake message that goes on in the next record, and what the peer has asked for."""

    begun: bytes = b""
    number: int = 0  # records that had been received by then
    answer_due: bool = False  # the peer waits for a KeyUpdate of ours


@dataclass(slots=True)
class Followed:
    """The result of `follow_untrusted`."""

    updates: int = 0  # KeyUpdates of the peer's
    tickets: bytes = b""  # NewSessionTicket messages
    unfinished: bool = False  # a message goes on in a record that has not come yet


def change_sending_key(sock: socket.socket, suite: Suite, secrets: TrafficSecrets, incoming: Incoming) -> None:
    """Send our KeyUpdate, install the next key and remember its secret.

    Raises BlockingIOError when the send buffer is full: nothing has changed then. Every other failure ends the
    connection, as it is unknown which key is in use. Raises BrokenPipeError, and what `advance_tx` raises.
    """
    if control.tcp_state(sock) not in _OPEN:  # the kernel would take the KeyUpdate, and throw it away
        raise BrokenPipeError(errno.EPIPE, "the stream has been ended")
    secret, secrets.tx = secrets.tx, None
    if secret is None:
        raise BrokenPipeError(errno.EPIPE, "an earlier change of its key failed")
    try:
        secrets.tx = advance_tx(sock, suite, secret)
    except BlockingIOError:
        secrets.tx = secret
        raise
    except BaseException:
        control.shut_down(sock)
        raise
    incoming.answer_due = False


_OPEN = (TCP_ESTABLISHED, TCP_CLOSE_WAIT)  # for writing
_MOST = 64  # records of one call: for more there is another request


def follow_untrusted(
    sock: socket.socket, suite: Suite, secrets: TrafficSecrets | None, incoming: Incoming, *, server: bool
) -> Followed:
    """Take the handshake messages that are next in the socket, join those that come in pieces, and follow KeyUpdates.

    A message that breaks the protocol stays in the socket: raises `ssa.ktls.post_handshake.Broken`. So does a KeyUpdate
    where there are no `secrets`: raises `ssa.SSAError` NO_REKEY. Raises OSError where the connection fails.
    """
    found = Followed()
    for _ in range(_MOST):
        try:
            kind, content = control.look(sock)
        except OSError:  # there is nothing, or an error that the application will meet itself
            break
        if kind != HANDSHAKE:
            if incoming.begun and (content or kind != APPLICATION_DATA):
                raise violation("a handshake message that is interrupted by another record (RFC 8446 section 5.1)")
            break
        _take_untrusted(sock, content, suite, secrets, incoming, server=server, found=found)
        if not incoming.begun:
            break
    found.unfinished = bool(incoming.begun)
    return found


def _take_untrusted(  # noqa: PLR0913 - the state of one connection, in the hands of its caller
    sock: socket.socket,
    content: bytes,
    suite: Suite,
    secrets: TrafficSecrets | None,
    incoming: Incoming,
    *,
    server: bool,
    found: Followed,
) -> None:
    """Take one record with `content`, which is next in the socket."""
    received = control.records_received(sock)
    if incoming.begun and received != incoming.number + 1:
        raise violation("a handshake message that was interrupted by other records (RFC 8446 section 5.1)")
    modern = suite.version is TLSVersion.TLSv1_3
    messages, begun = messages_untrusted(incoming.begun, content, modern=modern, server=server)
    update = bool(messages) and messages[-1][0] == KEY_UPDATE
    if update and (secrets is None or secrets.rx is None):
        raise errors.error("NO_REKEY", "Linux 6.14 can")
    if control.receive_record(sock, socket.MSG_DONTWAIT) != (HANDSHAKE, content):
        control.shut_down(sock)  # another reader has taken the record, and it is lost
        raise errors.error("CONNECTION_LOST", "somebody else reads from this socket")
    incoming.begun, incoming.number = begun, received
    found.tickets += b"".join(message for message in messages if message[0] == NEW_SESSION_TICKET)
    if update and secrets is not None:
        _follow_update(sock, suite, secrets, incoming, answer=parse_key_update_untrusted(messages[-1]))
        found.updates += 1
    elif content[0] == KEY_UPDATE:
        control.read_on(sock)


def _follow_update(
    sock: socket.socket, suite: Suite, secrets: TrafficSecrets, incoming: Incoming, *, answer: bool
) -> None:
    secret, secrets.rx = secrets.rx, None
    if secret is None:
        raise errors.error("CONNECTION_LOST", "an earlier change of its key failed")
    try:
        secrets.rx = advance_rx(sock, suite, secret)
    except BaseException:
        control.shut_down(sock)
        raise
    incoming.answer_due |= answer


def advance_rx(sock: socket.socket, suite: Suite, secret: bytes) -> bytes:
    """After the peer's KeyUpdate was read: read on under the next secret, which is returned.

    All that is read from now on must be under its key. What has been read before is not affected.
    Raises OSError EBUSY where the kernel can't rekey.
    """
    following, info = _next(suite, secret)
    sock.setsockopt(SOL_TLS, TLS_RX, info)
    return following


def advance_tx(sock: socket.socket, suite: Suite, secret: bytes, *, request_update: bool = False) -> bytes:
    """Send our KeyUpdate and write on under the next secret, which is returned.

    Raises BlockingIOError when the send buffer is full, OSError EBUSY where the kernel can't rekey, and what
    sendmsg(2) gives: nothing has changed then. Raises `ssa.SSAError` KERNEL_REFUSED when the KeyUpdate is out and the
    kernel would not take its key; the connection has been shut down.
    """
    following, info = _next(suite, secret)
    _ask_for_rekey(sock)
    record_type = [(SOL_TLS, TLS_SET_RECORD_TYPE, bytes([HANDSHAKE]))]
    sock.sendmsg([key_update(requested=request_update)], record_type, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    try:
        sock.setsockopt(SOL_TLS, TLS_TX, info)
    except OSError as exc:
        control.shut_down(sock)
        raise errors.error("KERNEL_REFUSED", f"the next key of {suite.name}: {exc.strerror}") from exc
    return following


def _next(suite: Suite, secret: bytes) -> tuple[bytes, bytes]:
    following = next_secret(suite, secret)
    info = CryptoInfo(TLSVersion.TLSv1_3, suite.aead, traffic_key(suite, following), sequence=0)
    return following, info.pack()


def _ask_for_rekey(sock: socket.socket) -> None:
    """Raises OSError EBUSY where the next key would be refused. This has to be known before a KeyUpdate leaves."""
    try:
        sock.setsockopt(SOL_TLS, TLS_TX, bytes(HEADER))  # no key at all: EINVAL from a kernel that looks into it
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise


def key_update(*, requested: bool) -> bytes:
    """The handshake message; `requested` asks the peer to change its key too."""
    return bytes([KEY_UPDATE, 0, 0, 1, requested])


def parse_key_update_untrusted(message: bytes) -> bool:
    """True where the peer asks for a KeyUpdate of ours. `message` is all that its record holds.

    Raises ValueError for anything but one well-formed KeyUpdate.
    """
    for requested in (False, True):
        if message == key_update(requested=requested):
            return requested
    raise ValueError(f"not a KeyUpdate: {message[:8].hex()}")
