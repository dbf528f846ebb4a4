"""A server for many clients: `python -m bench.server KIND CERT KEY`. It prints its port, and serves until killed.

After the handshake it sends one byte, and closes. KIND is ``ssa``, or ``asyncio`` for Python's `ssl` as asyncio uses
it. Or KIND is ``web``: it answers one request of HTTP with a megabyte, by ssa.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import sys

import ssa
from bench.world import MEGABYTE

_BACKLOG = 2048


def serve_ssa(cert: str, key: str) -> None:
    """Serve with ssa, in a loop of five lines."""
    with ssa.create_server(("127.0.0.1", 0), certificate=cert, private_key=key, backlog=_BACKLOG) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.sendall(b"x")


def serve_web(cert: str, key: str) -> None:
    """Answer one request after the other with a megabyte."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % MEGABYTE + bytes(MEGABYTE)
    with ssa.create_server(("127.0.0.1", 0), certificate=cert, private_key=key, backlog=_BACKLOG) as listener:
        print(listener.getsockname()[1], flush=True)
        while True:
            connection, _ = listener.accept()
            with contextlib.suppress(OSError), connection:
                connection.recv(1 << 12)
                connection.sendall(answer)


def serve_asyncio(cert: str, key: str) -> None:
    """Serve with asyncio's streams and `ssl`."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(b"x")
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context, backlog=_BACKLOG)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(main())


if __name__ == "__main__":
    {"ssa": serve_ssa, "web": serve_web, "asyncio": serve_asyncio}[sys.argv[1]](*sys.argv[2:])
