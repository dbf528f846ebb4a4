"""Puts another open file on a descriptor's number, unnoticed by whatever polls it.

A descriptor whose connect(2) is under way must not look ready before the handshake is done, and one that listens
not before a connection can be accepted. So for that time its number is the connection to the daemon, whose readiness
says just that (`DaemonConnection.start` and `ssa.protocol.wire.Plug`), and the library holds the TCP socket beside it.

select(2) and poll(2) name the number at each call and notice nothing. An epoll set holds the open file, not the
number, and would lose it: so its entry is made again for the file that is there now, as it was. Where the entry is:

    an asyncio loop runs in this thread    in its selector, which is asked: constant time
    uvloop's loop does                     in its epoll set, whose entries the kernel lists
    neither                                in any epoll set of the process: all its descriptors are looked through

The kernel lists a set's entries in its fdinfo (Documentation/filesystems/proc.rst).
"""

from __future__ import annotations

import functools
import os
import socket
import struct
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    _Entry = tuple[Callable[[], Any], Callable[[], Any]]  # takes the entry out of its set, and puts it in again

_EPOLL_CTL_ADD, _EPOLL_CTL_DEL, _EPOLL_CTL_MOD = 1, 2, 3
# struct epoll_event: packed on x86-64 only (include/uapi/linux/eventpoll.h)
_EVENT = struct.Struct("=IQ" if os.uname().machine == "x86_64" else "@IQ")


def swap(fd: int, other: int, *, watched: bool = True) -> int:
    """Put the open file of `other` on the number `fd`; a new number for the one that was there. Raises OSError.

    With `watched` false the caller knows that nothing watches the descriptor.
    """
    aside = os.dup(fd)  # close-on-exec, as all that Python makes
    try:
        entries = _entries(fd) if watched else []
        for take_out, _ in entries:
            take_out()
        try:
            os.dup2(other, fd, inheritable=os.get_inheritable(fd))
        finally:
            for _, put_in in entries:  # of whatever file is there now
                put_in()
    except BaseException:
        os.close(aside)
        raise
    return aside


def _entries(fd: int) -> list[_Entry]:
    """A descriptor's entries in this thread's event loop; where none runs, in all epoll sets of the process."""
    loop = _running_loop()
    selector = getattr(loop, "_selector", None)
    if selector is not None and hasattr(selector, "get_map"):
        return _of_selector(selector, fd)
    backend = getattr(loop, "_get_backend_id", None)  # uvloop's
    return list(_of_epoll_sets(_all_epoll_sets() if backend is None else (backend(),), fd))


def _running_loop() -> Any:
    """The asyncio event loop that runs in this thread; None where none does, and where asyncio is not loaded."""
    events = sys.modules.get("asyncio.events")
    return None if events is None else events._get_running_loop()  # noqa: SLF001 - documented, "for event loops"


def _of_selector(selector: Any, fd: int) -> list[_Entry]:
    key = selector.get_map().get(fd)
    if key is None:
        return []
    return [(lambda: selector.unregister(fd), lambda: selector.register(key.fileobj, key.events, key.data))]


def _register(epoll: int, fd: int, event: bytes) -> None:
    """Have an epoll set watch a descriptor.

    It can have an entry for that file on that number already, from a time before the number was another file's:
    trio leaves those of what it does not wait for.
    """
    try:
        _epoll_ctl(epoll, _EPOLL_CTL_ADD, fd, event)
    except FileExistsError:
        _epoll_ctl(epoll, _EPOLL_CTL_MOD, fd, event)


def _of_epoll_sets(epoll_sets: Iterable[int], fd: int) -> Iterator[_Entry]:
    """The entries of a descriptor in these epoll sets."""
    inode = os.fstat(fd).st_ino
    for epoll in epoll_sets:
        for event in _events_of(epoll, fd, inode):
            yield (
                functools.partial(_epoll_ctl, epoll, _EPOLL_CTL_DEL, fd),
                functools.partial(_register, epoll, fd, event),
            )


def _events_of(epoll: int, fd: int, inode: int) -> Iterator[bytes]:
    """The struct epoll_event of a descriptor's entry in an epoll set, if it has one."""
    try:
        with open(f"/proc/self/fdinfo/{epoll}") as info:  # noqa: PTH123 - pathlib is slow to load
            lines = info.readlines()
    except OSError:
        return  # closed meanwhile
    for line in lines:
        if line.startswith("tfd:"):
            words = line.replace(":", ": ").split()
            entry = dict(zip(words[::2], words[1::2], strict=False))
            if int(entry["tfd:"]) == fd and int(entry["ino:"], 16) == inode:
                yield _EVENT.pack(int(entry["events:"], 16), int(entry["data:"], 16))


def _all_epoll_sets() -> Iterator[int]:
    """The descriptors that are epoll sets: first by the mode, as only what is no file in any sense has no type."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.fstat(int(name)).st_mode & _S_IFMT and os.readlink(f"/proc/self/fd/{name}") == _EPOLL:  # noqa: PTH115 - pathlib is slow to load
                yield int(name)
        except OSError:
            continue  # the descriptor of the listing itself, or closed meanwhile


_S_IFMT = 0o170000
_EPOLL = "anon_inode:[eventpoll]"


@functools.cache
def _ctypes() -> tuple[Any, Any]:
    import ctypes  # late: few programs need it, as those that poll with an epoll set of their own while they connect

    return ctypes, ctypes.CDLL(None, use_errno=True)


def _epoll_ctl(epoll: int, operation: int, fd: int, event: bytes | None = None) -> None:
    ctypes, libc = _ctypes()
    if libc.epoll_ctl(epoll, operation, fd, event):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def disconnect(fd: int) -> None:
    """Dissolve a UDP socket's association with its peer (connect(2), AF_UNSPEC). Raises OSError."""
    ctypes, libc = _ctypes()
    if libc.connect(fd, bytes(_SOCKADDR), _SOCKADDR):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


_SOCKADDR = 16  # bytes of a struct sockaddr, whose zeros say AF_UNSPEC


def is_held_elsewhere(fd: int) -> bool:
    """True where another descriptor is of the same socket, in this process or one whose /proc we may read."""
    link = f"socket:[{os.fstat(fd).st_ino}]"
    own = f"/proc/{os.getpid()}/fd/{fd}"
    for process in os.listdir("/proc"):
        if not process.isdigit():
            continue
        directory = f"/proc/{process}/fd"
        try:
            names = os.listdir(directory)
        except OSError:
            continue  # not ours to look at, or gone
        for name in names:
            path = f"{directory}/{name}"
            try:
                if os.readlink(path) == link and path != own:  # noqa: PTH115 - pathlib is slow to load
                    return True
            except OSError:
                continue
    return False


class Borrowed:
    """A descriptor as a plain socket object that does not own it, never waits by itself, and leaves its flags alone."""

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
