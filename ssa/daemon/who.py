"""Asks the kernel which process has connected, of which user and groups, and what program it runs.

A process can become another program (execve(2)), and the kernel gives the number of a process that has ended to another
one. So the program is read before a request is read, and again when it has been answered. The program counts as unknown
where the two differ, where another process sent the request, and where it cannot be read. Two things cannot be told.
Whoever may run a program can act inside it (by ptrace, by LD_PRELOAD, by the program's own options). And a process that
sends a request and becomes another program before the first read is taken for that other program.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import signal
import socket
import struct
from dataclasses import replace
from pathlib import Path

from ssa.worker.ipc import UCRED
from ssa.worker.records import Application

_SO_PEERGROUPS, _SO_PEERPIDFD = 59, 77  # include/uapi/asm-generic/socket.h; the second since Linux 6.5
_MOST_GROUPS = 4096  # each goes to the worker with each request, and any user can have 65536 (user_namespaces(7))
_BUFFER = 1024  # bytes that getsockopt of the socket module gives at most


def asks(connection: socket.socket) -> Application:
    """The process at the other end of a connection. Raises OSError."""
    return with_groups(connected(connection), connection)


def connected(connection: socket.socket) -> Application:
    """The process at the other end of a connection, without its supplementary groups. Raises OSError."""
    pid, uid, gid = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    return Application(pid, uid, gid, _program_of(connection, pid))


def with_groups(application: Application, connection: socket.socket) -> Application:
    """The application, with the supplementary groups that it had when it connected."""
    return replace(application, groups=_groups(connection))


def confirmed(application: Application) -> Application:
    """The application when its request has been answered. If it runs another program by now, its program is unknown.

    In a user namespace of its own any user can mount any file at any path: there the program is unknown, too. It is
    enough to look at the end, as no process without privilege comes back from such a namespace (setns(2)).
    """
    pid, exe = application.pid, application.exe
    if application.settled or not exe or (_program(pid) == exe and _link(pid, "ns/user") == _OUR_NAMESPACE):
        return application
    return application.of_unknown_program()


def settled(application: Application) -> Application:
    """The application of a listener: its program is the one that began to listen."""
    return replace(confirmed(application), settled=True)


def has_groups(application: Application) -> bool:
    """True where the process has these ids and groups now (proc(5), status): an earlier daemon's word is not enough."""
    try:
        text = Path(f"/proc/{application.pid}/status").read_text()
    except OSError:
        return False
    rows = {name: tuple(map(int, words.split())) for name, words in _STATUS.findall(text)}
    return (rows["Uid"][1], rows["Gid"][1]) == (application.uid, application.gid) and sorted(rows["Groups"]) == sorted(
        application.groups
    )


_STATUS = re.compile(r"^(Uid|Gid|Groups):[ \t]*([0-9 \t]*)$", re.MULTILINE)


def _program_of(connection: socket.socket, pid: int) -> str:
    """The program of the process that connected, and not of another one that has its number by now."""
    try:
        process = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    except OSError as exc:
        return _program(pid) if exc.errno == errno.ENOPROTOOPT else ""
    try:
        program = _program(pid)
        with contextlib.suppress(PermissionError):  # it is there
            signal.pidfd_send_signal(process, 0)
    except OSError:  # it has ended
        return ""
    finally:
        os.close(process)
    return program


def _program(pid: int) -> str:
    """The path of a process's program; empty where it is another user's, or gone."""
    return _link(pid, "exe")


def _link(pid: int | str, name: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 - for every request, and twice as fast
    except OSError:
        return ""


_OUR_NAMESPACE = _link("self", "ns/user")


def _groups(connection: socket.socket) -> tuple[int, ...]:
    """The supplementary groups that the process had when it connected: of very many, those with the lowest numbers."""
    try:
        found = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _BUFFER)
    except OSError as exc:
        if exc.errno != errno.ERANGE:
            return ()  # before Linux 4.13: it counts as having none
        found = _many_groups(connection)
    return struct.unpack(f"={len(found) // _GID}I", found)[:_MOST_GROUPS]


_GID = 4  # bytes


def _many_groups(connection: socket.socket) -> bytes:
    """The groups of a process with more of them than the socket module has room for: up to 65536 (NGROUPS_MAX)."""
    size = ctypes.c_uint32(_GID << 16)
    buffer = ctypes.create_string_buffer(size.value)
    if _libc.getsockopt(connection.fileno(), socket.SOL_SOCKET, _SO_PEERGROUPS, buffer, ctypes.byref(size)):
        return b""
    return buffer.raw[: size.value]


_libc = ctypes.CDLL(None, use_errno=True)
