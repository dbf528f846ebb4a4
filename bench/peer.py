"""The other end of the bulk measurements. It only moves bytes, so that only our end's work is measured.

It makes the handshake in memory and reads one byte. On `SINK` it swallows the records that come without
decrypting them. On `SOURCE` it encrypts everything beforehand, says `READY`, and sends it at the client's next
byte. It uses the standard library alone. `python -m bench.peer CERT KEY MEBIBYTES` prints its port and serves.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import ssl
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SINK, SOURCE, READY, GO = b"S", b"R", b"r", b"g"
BLOCK = 1 << 20  # bytes


class _Peer:
    """One connection, with its TLS in memory."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self._socket = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def serve(self, blocks: int) -> None:
        self._handshake()
        if self._word() == SINK:
            self._sink()
        else:
            self._source(blocks)

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._flush()
                self._fill()
            else:
                self._flush()
                return

    def _word(self) -> bytes:
        """One byte from the client."""
        while True:
            try:
                return self._tls.read(1)
            except ssl.SSLWantReadError:
                self._fill()

    def _sink(self) -> None:
        buffer = bytearray(BLOCK)
        # MSG_TRUNC: the kernel throws the bytes away instead of copying them (tcp(7)).
        while self._socket.recv_into(buffer, 0, socket.MSG_TRUNC):
            pass

    def _source(self, blocks: int) -> None:
        self._tls.write(READY)
        ready = self._outgoing.read()
        records = list(self._encrypted(blocks))
        self._socket.sendall(ready)
        if self._word() == GO:
            for part in records:
                self._socket.sendall(part)
        self._socket.recv(1)  # until the client hangs up

    def _encrypted(self, blocks: int) -> Iterator[bytes]:
        block = bytes(BLOCK)
        for _ in range(blocks):
            self._tls.write(block)
            yield self._outgoing.read()

    def _fill(self) -> None:
        data = self._socket.recv(1 << 16)
        if not data:
            raise ConnectionError("the client has gone")
        self._incoming.write(data)

    def _flush(self) -> None:
        self._socket.sendall(self._outgoing.read())


def main(cert: str, key: str, mebibytes: str) -> None:
    """Serve until killed."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.load_cert_chain(cert, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
        while True:
            sock, _ = listener.accept()
            with sock:
                if os.fork() == 0:
                    with contextlib.suppress(OSError):  # the client may hang up at any time
                        _Peer(context, sock).serve(int(mebibytes))
                    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
