"""`loop.sendfile` on a TLS socket of the kernel's: sendfile(2), so that nothing of the file passes through the program.

On a relayed connection there is no such thing, and asyncio falls back to reading the file and writing it.
"""

# ruff: noqa: SLF001 - the transport is ours

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

from ssa.library.datapath import RELAYED
from ssa.library.sending import NO_SENDFILE

if TYPE_CHECKING:
    from ssa.inject.sslsocket import SSLSocket
    from ssa.inject.transport import TLSTransport

_PART = 2**20  # bytes between two looks at whether the key has to change


async def send_file(transport: TLSTransport, file: Any, offset: int, count: int | None) -> int:
    """Send a file, as `loop.sendfile` does. Raises `asyncio.SendfileNotAvailableError` if asyncio has to copy it."""
    sock = transport._sock
    if sock is None or sock._path is RELAYED:
        raise asyncio.SendfileNotAvailableError("the connection is relayed: there is no sendfile(2) on it")
    size = _size(file)
    due = size - offset if count is None else min(count, size - offset)
    reading = transport.is_reading()
    transport.pause_reading()
    try:
        await transport.emptied()
        return await _send(transport, sock, file, offset, due)
    finally:
        transport.written_to_again()
        if reading:
            transport.resume_reading()


def _size(file: Any) -> int:
    """The file's size in bytes. Raises `asyncio.SendfileNotAvailableError` for what is no regular file."""
    try:
        return os.fstat(file.fileno()).st_size
    except (AttributeError, OSError) as exc:
        raise asyncio.SendfileNotAvailableError("not a regular file") from exc


async def _send(transport: TLSTransport, sock: SSLSocket, file: Any, offset: int, due: int) -> int:
    total = 0
    try:
        while total < due:
            try:
                sent = sock.send_part_of_file(file.fileno(), offset + total, min(_PART, due - total))
            except BlockingIOError:
                await transport.writable()
                continue
            except OSError as exc:
                if total or exc.errno not in NO_SENDFILE:
                    transport._fatal_error(exc)
                    raise
                raise asyncio.SendfileNotAvailableError("os.sendfile call failed") from exc
            if not sent:  # the file is shorter by now
                break
            total += sent
            await asyncio.sleep(0)
        return total
    finally:
        if total:
            file.seek(offset + total)
