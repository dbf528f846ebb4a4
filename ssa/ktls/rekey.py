"""TLS 1.3's KeyUpdate (RFC 8446 section 4.6.3) on a socket whose keys are in the kernel, one direction at a time.

For kernels that can (`Capabilities.rekey`, Linux 6.14 on). Others refuse with EBUSY, as all do for TLS 1.2; nothing
has changed then.

The kernel knows nothing of both halves belonging together: no record may come between our KeyUpdate and our next key,
so nobody else may be sending meanwhile. And sendmsg waits for a send that another thread is blocked in, whatever the
flags say.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING

from ssa import errors
from ssa.ktls.constants import HANDSHAKE, KEY_UPDATE, SOL_TLS, TLS_RX, TLS_SET_RECORD_TYPE, TLS_TX
from ssa.ktls.crypto_info import HEADER, CryptoInfo
from ssa.ktls.install import shut_down
from ssa.ktls.key_schedule import next_secret, traffic_key
from ssa.suites import TLSVersion

if TYPE_CHECKING:
    from ssa.suites import Suite


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
        shut_down(sock)
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
