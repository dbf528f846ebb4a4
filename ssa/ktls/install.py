"""Puts the keys into a TCP socket (Documentation/networking/tls.rst).

There is no way back: a socket with one direction installed and the other one refused is dead. So `attach`, which fails
where the kernel has no TLS, comes before the handshake. And after the first setsockopt(2) of `install` comes nothing
that can fail for another reason.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import TYPE_CHECKING

from ssa import errors
from ssa.ktls.constants import SOL_TLS, TCP_ULP, TLS_RX, TLS_TX, TLS_TX_MAX_PAYLOAD_LEN
from ssa.ktls.control import shut_down

if TYPE_CHECKING:
    from ssa.ktls.crypto_info import CryptoInfo

_ATTACH_REASONS = {
    errno.EEXIST: "ALREADY_TLS",
    errno.ENOENT: "NO_KERNEL_TLS",  # no such module
    errno.ENOPROTOOPT: "NO_KERNEL_TLS",  # a kernel without upper layer protocols
    errno.EPERM: "NO_KERNEL_TLS",  # the module is not loaded and we may not load it
    errno.ENOTCONN: "PEER_CLOSED",  # a moment ago it was connected
}


def attach(sock: socket.socket) -> None:
    """Attach TLS to a connected TCP socket. Until it has keys it sends and receives plain text as before.

    Raises `ssa.SSAError`: ALREADY_TLS (EEXIST), NO_KERNEL_TLS (EPROTONOSUPPORT), PEER_CLOSED (ENOTCONN).
    """
    try:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    except OSError as exc:
        reason = _ATTACH_REASONS.get(exc.errno or 0, "KERNEL_REFUSED")
        raise errors.error(reason, exc.strerror or "") from exc


def install(sock: socket.socket, tx: CryptoInfo, rx: CryptoInfo) -> None:
    """Give the kernel the keys of both directions. From then on it encrypts and decrypts.

    Raises `ssa.SSAError` KERNEL_REFUSED. The connection has been shut down then: a socket that encrypts only one
    direction must not be used.
    """
    packed = tx.pack(), rx.pack()
    try:
        sock.setsockopt(SOL_TLS, TLS_TX, packed[0])
        sock.setsockopt(SOL_TLS, TLS_RX, packed[1])
    except OSError as exc:
        shut_down(sock)
        raise errors.error("KERNEL_REFUSED", f"{tx.version.label} {tx.aead.name}: {exc.strerror}") from exc


def limit(sock: socket.socket, largest: int) -> None:
    """Bound the content of each record that is sent, in bytes. Called on an attached socket, before `install`.

    Raises `ssa.SSAError` KERNEL_REFUSED. The socket is unchanged then.
    """
    try:
        sock.setsockopt(SOL_TLS, TLS_TX_MAX_PAYLOAD_LEN, largest.to_bytes(2, sys.byteorder))
    except OSError as exc:
        raise errors.error("KERNEL_REFUSED", f"records of at most {largest} bytes: {exc.strerror}") from exc
