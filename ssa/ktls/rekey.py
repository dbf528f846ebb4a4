"""TLS 1.3's KeyUpdate (RFC 8446 section 4.6.3) on a socket whose keys are in the kernel, one direction at a time.

For kernels that can (`Capabilities.rekey`, Linux 6.14 on). Others refuse with EBUSY, as all do for TLS 1.2; nothing
has changed then.

The kernel knows nothing of both halves belonging together: no record may come between our KeyUpdate and our next key,
so nobody else may be sending meanwhile. And sendmsg waits for a send that another thread is blocked in, whatever the
flags say.

Under one key no number may come twice, so no key may be installed twice: whoever calls `change_sending_key` or
`follow_untrusted` for a socket is the only one who does so, until it returns.
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

    One that is None is not known any more: a change has failed half way, and there can be no other.
    """

    tx: bytes | None = field(repr=False)
    rx: bytes | None = field(repr=False)


@dataclass(slots=True)
class Incoming:
    """What has come of a handshake message that goes on in the next record, and of the peer's wishes."""

    begun: bytes = b""
    number: int = 0  # records that had been received by then
    answer_due: bool = False  # the peer waits for a KeyUpdate of ours


@dataclass(slots=True)
class Followed:
    """What `follow_untrusted` has found."""

    updates: int = 0  # KeyUpdates of the peer's
    tickets: bytes = b""  # NewSessionTicket messages
    unfinished: bool = False  # a message goes on in a record that has not come yet


def change_sending_key(sock: socket.socket, suite: Suite, secrets: TrafficSecrets, incoming: Incoming) -> None:
    """Send our KeyUpdate, install the next key and remember its secret. Raises as `advance_tx`, and BrokenPipeError.

    Whatever goes wrong, but for a send buffer without room, ends the connection: nobody knows then which key is in use.
    """
    if control.tcp_state(sock) not in _OPEN:  # the kernel would take it all the same
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
_MOST = 64  # records at a time: more of them are another request's


def follow_untrusted(
    sock: socket.socket, suite: Suite, secrets: TrafficSecrets | None, incoming: Incoming, *, server: bool
) -> Followed:
    """Take the handshake messages that are next in the socket, join those that come in pieces, and follow KeyUpdates.

    A message that breaks the protocol stays where it is, and so does a KeyUpdate where there are no `secrets`: then
    this is NO_REKEY of `ssa.SSAError`. Raises `posthandshake.Broken`, and OSError where the connection fails.
    """
    found = Followed()
    for _ in range(_MOST):
        try:
            kind, content = control.look(sock)
        except OSError:  # nothing is there, or what the application will meet itself
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


def _take_untrusted(  # noqa: PLR0913 - the state of one connection
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
        control.shut_down(sock)  # what it was is lost
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
    """Go on reading under the secret that follows `secret`, which is returned: the peer's KeyUpdate has been read.

    Whatever is read next must be under that key, and what has been read already is not affected.
    Raises OSError EBUSY where the kernel can't rekey.
    """
    following, info = _next(suite, secret)
    sock.setsockopt(SOL_TLS, TLS_RX, info)
    return following


def advance_tx(sock: socket.socket, suite: Suite, secret: bytes, *, request_update: bool = False) -> bytes:
    """Send our KeyUpdate and go on writing under the secret that follows `secret`, which is returned.

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
    """Raises OSError EBUSY where a next key would be refused: to be known before a KeyUpdate leaves."""
    try:
        sock.setsockopt(SOL_TLS, TLS_TX, bytes(HEADER))  # no key at all: EINVAL from a kernel that looks into it
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise


def key_update(*, requested: bool) -> bytes:
    """The handshake message; `requested` asks the peer to change its key too."""
    return bytes([KEY_UPDATE, 0, 0, 1, requested])


def parse_key_update_untrusted(message: bytes) -> bool:
    """Whether the peer asks for a KeyUpdate of ours. `message` has to be all that its record holds.

    Raises ValueError for anything but one well-formed KeyUpdate.
    """
    for requested in (False, True):
        if message == key_update(requested=requested):
            return requested
    raise ValueError(f"not a KeyUpdate: {message[:8].hex()}")
