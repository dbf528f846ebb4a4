"""Telling whoever started us that requests are served from now on."""

from __future__ import annotations

import os
import socket


def notify_systemd(state: str) -> None:
    """Send a state such as ``READY=1`` to the service manager, if there is one (sd_notify(3))."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        # A leading @ stands for the NUL of an abstract address.
        sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)


def announce(ready_fd: int | None) -> None:
    """Say that we are ready: a line to the descriptor, which is closed then, and to the service manager."""
    if ready_fd is not None:
        os.write(ready_fd, b"ready\n")
        os.close(ready_fd)
    notify_systemd("READY=1")
