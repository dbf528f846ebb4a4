"""Netlink sockets in other network namespaces. A netlink socket belongs to the namespace in which it was made.

A short-lived thread enters the namespace of a TCP socket, makes the netlink socket there, and ends. The process stays
in its own namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import threading
from weakref import WeakValueDictionary

from ssa.ktls.constants import SO_NETNS_COOKIE
from ssa.ktls.diag import Diag

_SIOCGSKNS = 0x894C  # include/uapi/linux/sockios.h: a descriptor of the socket's network namespace
_CLONE_NEWNET = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12


class Diags:
    """A `Diag` for each network namespace in which there is a socket of ours.

    Only their users hold them: a netlink socket keeps its namespace alive, and its TLS sockets alone are to do that.
    """

    def __init__(self) -> None:
        self._own = Diag()
        with socket.socket() as sock:
            self._own_cookie = _cookie(sock)
        self._others: WeakValueDictionary[bytes, Diag] = WeakValueDictionary()

    def of(self, sock: socket.socket) -> Diag | None:
        """The `Diag` for the socket's namespace; None where we may not enter the namespace."""
        cookie = _cookie(sock)
        if cookie == self._own_cookie:
            return self._own
        diag = self._others.get(cookie)
        if diag is None:
            try:
                diag = self._others[cookie] = _open_in_namespace_of(sock)
            except OSError:
                return None
        return diag

    def close(self) -> None:
        """Close the netlink socket of our own namespace."""
        self._own.close()


def _cookie(sock: socket.socket) -> bytes:
    """The number of a socket's namespace. Kernels before 5.14 have none: there all sockets count as in our own."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise
        return b""


def _open_in_namespace_of(sock: socket.socket) -> Diag:
    """Raises OSError: EPERM without CAP_NET_ADMIN over that namespace and CAP_SYS_ADMIN over ours."""
    namespace = fcntl.ioctl(sock, _SIOCGSKNS)
    outcome: list[Diag | OSError] = []

    def enter() -> None:
        try:
            if _libc.setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            outcome.append(Diag())
        except OSError as exc:
            outcome.append(exc)

    try:
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    finally:
        os.close(namespace)
    (result,) = outcome
    if isinstance(result, OSError):
        raise result
    return result
