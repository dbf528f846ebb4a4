"""A TLS session, to be resumed: what the session cache keeps and a client's engine offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from OpenSSL import SSL


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A session, and the chain by which the server proved itself."""

    native: SSL.Session = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    proven: float  # when that was, by the cache's clock
    expires: float  # by the cache's clock
