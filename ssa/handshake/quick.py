"""OpenSSL's calls over memory BIOs, without what pyOpenSSL adds to each: an exception for "the peer's next record".

A handshake meets that word in nearly all of its steps, and Python's exceptions cost more than the steps do. What is no
usual answer goes to pyOpenSSL, which raises what it always raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.bindings._rust import _openssl

if TYPE_CHECKING:
    from OpenSSL import SSL

_ffi, _lib = _openssl.ffi, _openssl.lib

_WANT_READ = _lib.SSL_ERROR_WANT_READ
_PART = 16 * 1024  # bytes: a usual flight; for a larger buffer malloc(3) would ask the kernel for memory each time
_room = _ffi.new_allocator(should_clear_after_alloc=False)


def is_finished(connection: SSL.Connection) -> bool:
    """Let OpenSSL go on with the handshake: True where it has finished, False where it wants more of the peer.

    Raises what `SSL.Connection.do_handshake` raises for all else, and what a callback has raised.
    """
    raw = cast("Any", connection)
    ssl = raw._ssl  # noqa: SLF001 - pyOpenSSL has no call without exceptions
    result = _lib.SSL_do_handshake(ssl)
    if result != 1 and _lib.SSL_get_error(ssl, result) == _WANT_READ:
        return False
    raw._raise_ssl_error(ssl, result)  # noqa: SLF001 - its words for what has happened
    return True


def take_out(connection: SSL.Connection) -> bytes:
    """The bytes that OpenSSL wants to send; there may be none."""
    out = cast("Any", connection)._from_ssl  # noqa: SLF001 - as above
    found, buffer = b"", _room("char[]", _PART)
    while (size := _lib.BIO_read(out, buffer, _PART)) > 0:
        found += _ffi.buffer(buffer, size)
        if size < _PART:
            break
    return found
