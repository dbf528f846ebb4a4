"""Netlink sockets in other network namespaces. A netlink socket belongs to the namespace in which it was made.

A short-lived thread enters the namespace of a TCP socket, makes the netlink socket there, and ends. The process stays
in its own namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import functools
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
        self._own_cookie = own_cookie()
        self._others: WeakValueDictionary[bytes, Diag] = WeakValueDictionary()

    def of(self, cookie: bytes) -> Diag | None:
        """The `Diag` for the namespace of that number, if there is one."""
        return self._own if cookie == self._own_cookie else self._others.get(cookie)

    def enter_untrusted(self, cookie: bytes, namespace: int) -> Diag | None:
        """The `Diag` for a namespace, whose descriptor is closed; None where we may not enter it."""
        try:
            if cookie and (found := self.of(cookie)) is not None:
                return found
            diag, its_own = _open_in(namespace)
            if its_own == cookie:
                self._others[cookie] = diag
                return diag
            diag.close()
        except OSError:
            return None
        finally:
            os.close(namespace)
        return None

    def close(self) -> None:
        """Close the netlink socket of our own namespace."""
        self._own.close()


def is_namespace(descriptor: int) -> bool:
    """True for the descriptor of a network namespace. It asks nobody but the kernel."""
    return os.readlink(f"/proc/self/fd/{descriptor}").startswith("net:[")  # noqa: PTH115 - it is no path


def namespace_of(sock: socket.socket) -> tuple[bytes, int | None]:
    """The number of a socket's network namespace, and a descriptor of one that is not ours, where we may have it."""
    cookie = cookie_of(sock)
    if cookie == own_cookie():
        return cookie, None
    try:
        return cookie, fcntl.ioctl(sock, _SIOCGSKNS)
    except OSError:
        return cookie, None


@functools.cache
def own_cookie() -> bytes:
    """The number of our own network namespace."""
    with socket.socket(socket.AF_UNIX) as sock:
        return cookie_of(sock)


def cookie_of(sock: socket.socket) -> bytes:
    """The number of a socket's namespace. Kernels before 5.14 have none: there all sockets count as in our own."""
    try:
        return sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    except OSError as exc:
        if exc.errno != errno.ENOPROTOOPT:
            raise
        return b""


def _open_in(namespace: int) -> tuple[Diag, bytes]:
    """A `Diag` in a namespace, and the namespace's number.

    Raises OSError: EPERM without CAP_SYS_ADMIN over that namespace and over ours.
    """
    outcome: list[tuple[Diag, bytes] | OSError] = []

    def enter() -> None:
        try:
            if _libc.setns(namespace, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            with socket.socket(socket.AF_UNIX) as sock:
                outcome.append((Diag(), cookie_of(sock)))
        except OSError as exc:
            outcome.append(exc)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    (result,) = outcome
    if isinstance(result, OSError):
        raise result
    return result
