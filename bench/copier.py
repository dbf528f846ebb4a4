"""A relay made with `ssl`: it copies between a plain socket and a TLS socket, in one loop.

`python -m bench.copier PORT CA` prints its port, and connects to that PORT of localhost for each connection it takes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import sys

_CHUNK = 1 << 16  # bytes


def _copy(tls: ssl.SSLSocket, plain: socket.socket) -> None:
    tls.setblocking(False)
    reading = [plain, tls]
    while tls in reading:
        for ready in select.select(reading, [], [])[0]:
            if ready is plain:
                if data := plain.recv(_CHUNK):
                    _send(tls, data)
                else:
                    reading.remove(plain)
                    with socket.socket(fileno=os.dup(tls.fileno())) as below:  # past `ssl`, which has no half-close
                        below.shutdown(socket.SHUT_WR)
            elif not _pass_on(tls, plain):
                reading.remove(tls)


def _send(tls: ssl.SSLSocket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[tls.send(view) :]
        except ssl.SSLWantWriteError:
            select.select([], [tls], [])


def _pass_on(tls: ssl.SSLSocket, plain: socket.socket) -> bool:
    """Pass on the data that has come. Returns False at the end."""
    with contextlib.suppress(ssl.SSLWantReadError):
        while data := tls.recv(_CHUNK):
            plain.sendall(data)
        return False
    return True


def main(port: str, ca: str) -> None:
    """Serve one connection after the other, until killed."""
    context = ssl.create_default_context(cafile=ca)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            plain, _ = listener.accept()
            outside = socket.create_connection(("localhost", int(port)))
            with contextlib.suppress(OSError), plain, context.wrap_socket(outside, server_hostname="localhost") as tls:
                _copy(tls, plain)


if __name__ == "__main__":
    main(*sys.argv[1:])
