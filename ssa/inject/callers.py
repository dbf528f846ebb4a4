"""Decides who may call `SSLContext.wrap_bio`: trio and anyio, whose streams have a socket. See `ssa.inject.bio`."""

from __future__ import annotations

import sys

from ssa.inject.failures import error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KNOWN = ("anyio", "trio")
_WORDS = (
    "ssa does not do TLS over memory buffers for this library ({}): TLS is on a socket. Pass it a socket that has its "
    "TLS already (ssa.create_connection, SSLContext.wrap_socket); see docs/libraries.md"
)


def allow() -> None:
    """Teach trio and anyio what to do with the object. Raises `ssa.SSAError` NO_COUNTERPART for another caller."""
    frame: Any = sys._getframe(1)  # noqa: SLF001 - there is no other way to know
    while frame.f_back is not None and frame.f_code.co_name in ("allow", "wrap_bio"):
        frame = frame.f_back
    library = str(frame.f_globals.get("__name__", "?")).partition(".")[0]
    if library not in _KNOWN:
        raise error("NO_COUNTERPART", f"wrap_bio: {_WORDS.format(library)}")
    if "trio._ssl" in sys.modules:
        from ssa.inject import bio_trio

        bio_trio.teach()
    if "anyio.streams.tls" in sys.modules:
        from ssa.inject import bio_anyio

        bio_anyio.teach()
