"""Tells whoever started ssad its state, as sd_notify(3) does. A failure to tell is a warning, and never more."""

from __future__ import annotations

import logging
import os
import socket
import time

from ssa.logfmt import fields

_log = logging.getLogger("ssa.daemon")


def notify_systemd(state: str) -> None:
    """Send a state such as ``READY=1`` to the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        _send(state, address)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else exc
        told = fields(NOTIFY_SOCKET=address, state=state.split("\n", maxsplit=1)[0], reason=reason)
        _log.warning("the service manager could not be notified %s", told)


def _send(state: str, address: str) -> None:
    if address[0] not in "/@":
        raise ValueError("neither a path nor an abstract address")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        # A leading @ stands for the NUL of an abstract address. MSG_DONTWAIT: the manager may not be reading.
        name = "\0" + address[1:] if address.startswith("@") else address
        sock.sendto(state.encode(), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL, name)


def reloading() -> None:
    """Say that the configuration is being read again, until `ready` is said."""
    notify_systemd(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def ready() -> None:
    """Say that requests are served."""
    notify_systemd("READY=1")


def stopping() -> None:
    """Say that ssad is ending."""
    notify_systemd("STOPPING=1")


def announce(ready_fd: int | None) -> None:
    """Say that ssad is ready: write a line to the descriptor and close it, and tell the service manager."""
    if ready_fd is not None:
        _write(ready_fd)
    ready()


def _write(descriptor: int) -> None:
    try:
        os.write(descriptor, b"ready\n")
        os.close(descriptor)
    except OSError as exc:
        _log.warning("readiness could not be reported %s", fields(ready_fd=descriptor, reason=exc.strerror))
