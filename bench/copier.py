"""A program that stands between as the relay does: it copies from a plain socket to `ssl` and back.

`python -m bench.copier PORT CA` prints its port, and connects to that PORT of localhost for each connection it takes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading

_CHUNK = 1 << 16  # bytes


def _copy(context: ssl.SSLContext, port: int, plain: socket.socket) -> None:
    with plain, context.wrap_socket(socket.create_connection(("localhost", port)), server_hostname="localhost") as tls:
        back = threading.Thread(target=_copy_back, args=(tls, plain))
        back.start()
        while data := plain.recv(_CHUNK):
            tls.sendall(data)
        with socket.socket(fileno=os.dup(tls.fileno())) as below:  # past `ssl`, which has no half-close
            below.shutdown(socket.SHUT_WR)
        back.join()


def _copy_back(tls: ssl.SSLSocket, plain: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := tls.recv(_CHUNK):
            plain.sendall(data)
        plain.shutdown(socket.SHUT_WR)


def main(port: str, ca: str) -> None:
    """Serve until killed."""
    context = ssl.create_default_context(cafile=ca)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            plain, _ = listener.accept()
            threading.Thread(target=_copy, args=(context, int(port), plain), daemon=True).start()


if __name__ == "__main__":
    main(*sys.argv[1:])
