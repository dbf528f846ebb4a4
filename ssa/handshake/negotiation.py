"""OpenSSL's callbacks. They belong to a context, and find what they need of one connection in its app data."""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from OpenSSL import SSL

from ssa import errors
from ssa.handshake.secrets import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable

_SHOWN = 8  # protocols of a client's list


@dataclass(slots=True)
class Negotiation:
    """The app data of a connection."""

    secrets: Secrets = field(default_factory=Secrets)
    alpn: tuple[bytes, ...] = ()  # a server's, in order of preference
    choose: Callable[[str | None], SSL.Context] | None = None  # a server's: by the name in SNI
    server_name: str | None = None  # what the client asked for
    refusal: errors.SSAError | None = None  # of `choose`: a callback cannot raise it
    cookies: tuple[bytes, ...] = ()  # a server's over datagrams: those that are good, the one to give out first


def serve_name(connection: SSL.Connection) -> None:
    """OpenSSL's callback for SNI: go on with the context that is chosen for the name."""
    negotiation: Negotiation = connection.get_app_data()
    name = connection.get_servername()
    negotiation.server_name = None if name is None else name.decode("ascii", "replace")
    try:
        if negotiation.choose is not None:
            connection.set_context(negotiation.choose(negotiation.server_name))
    except errors.SSAError as exc:
        negotiation.refusal = exc


def select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """OpenSSL's callback for ALPN: the server's order decides (RFC 7301 section 3.2)."""
    ours = connection.get_app_data().alpn
    if not ours:
        return SSL.NO_OVERLAPPING_PROTOCOLS
    chosen = next((name for name in ours if name in offered), None)
    if chosen is None:
        names = ", ".join(errors.printable(repr(name), 40) for name in offered[:_SHOWN])
        raise errors.error("NO_COMMON_PROTOCOL", names)
    return chosen


def give_cookie(connection: SSL.Connection) -> bytes:
    """OpenSSL's callback: the cookie for the client that a datagram claims to be from."""
    cookie: bytes = connection.get_app_data().cookies[0]
    return cookie


def take_cookie(connection: SSL.Connection, cookie: bytes) -> bool:
    """OpenSSL's callback: true where the client shows a cookie that was given to it."""
    return any(hmac.compare_digest(cookie, good) for good in connection.get_app_data().cookies)


def take_any_certificate(*_: object) -> bool:
    """OpenSSL's callback for a client's certificate: true, as `ssa.trust` judges it."""
    return True
