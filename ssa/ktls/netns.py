"""Asking about sockets of another network namespace: a netlink socket belongs to the namespace it was made in.

A thread of its own enters the namespace that a TCP socket is of, makes the netlink socket there, and ends; the
process stays where it is.
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
    """A `Diag` for each network namespace that has a socket of ours.

    They are held by who uses them only: a netlink socket keeps its namespace alive, and that shall not outlast the
    TLS sockets in it.
    """

    def __init__(self) -> None:
        self._own = Diag()
        with socket.socket() as sock:
            self._own_cookie = _cookie(sock)
        self._others: WeakValueDictionary[bytes, Diag] = WeakValueDictionary()

    def of(self, sock: socket.socket) -> Diag | None:
        """The one for the socket's namespace; None where we may not enter it."""
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
        """Give the netlink socket of our own namespace back."""
        self._own.close()


def _cookie(sock: socket.socket) -> bytes:
    """What tells one namespace from another. Kernels before 5.14 do not tell: there all count as our own."""
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
