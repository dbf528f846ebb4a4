"""What a context's settings mean for one connection: they can only narrow the administrator's policy."""

# ruff: noqa: SLF001 - the context's settings, which `ssl` has no names for

from __future__ import annotations

import socket
import ssl

from ssa.inject.failures import denied, log_once
from ssa.inject.meaning import OVERRULED, flags_of
from ssa.inject.parameters import Parameters
from ssa.library.option_values import Settings
from ssa.suites import TLSVersion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ssa.library.option_values import File

_IGNORE_UNEXPECTED_EOF = 0x80  # SSL_OP_IGNORE_UNEXPECTED_EOF of OpenSSL 3


def parameters(
    context: Any, *, server_side: bool, server_hostname: str | bytes | None, cut_is_error: bool
) -> Parameters:
    """The parameters of a connection, by an `SSLContext` as it is now. See `SSLContext.parameters`."""
    name = _checked_name(context, server_hostname, server_side=server_side)
    _log_what_is_overruled(context)
    return Parameters(
        context,
        _settings(context, server_side=server_side, name=name),
        server_side=server_side,
        server_hostname=name,
        cut_is_error=cut_is_error and not context._options & _IGNORE_UNEXPECTED_EOF,
        overruled="" if server_side else _loosened(context),
    )


def address_on_this_machine(sock: socket.socket) -> str | None:
    """The peer's address, where it is of this machine's loopback: a server without a name is verified by that.

    aiosmtpd's Controller connects so to itself, and urllib3 1.26 where a URL has an address in the place of a name.
    For other addresses a name is asked for: behind a proxy they are the proxy's. None for these, and where there is no
    peer.
    """
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    try:
        host: str = sock.getpeername()[0]
    except OSError:
        return None
    return host if host == "::1" or host.removeprefix("::ffff:").startswith("127.") else None


def _settings(context: Any, *, server_side: bool, name: str | None) -> Settings:
    return Settings().having(
        **{field: files[::-1] if server_side else files for field, files in context._pairs.items() if files},
        trusted=_trusted(context),
        hostname=name,
        alpn=context._alpn,
        disabled=context._disabled or None,
        version_min=_version_min(context),
        version_max=_version_max(context),
        session_ttl=0 if context._options & ssl.OP_NO_TICKET else None,
        peer_auth=1 if server_side and context._verify_mode == ssl.CERT_REQUIRED else None,
        strict=1 if context._verify_flags & ssl.VERIFY_X509_STRICT else None,
    )


def _trusted(context: Any) -> tuple[File, ...] | None:
    """The authorities that the program trusts, of those that the policy trusts; None: all of these.

    A set that was named and is empty trusts nobody. With CERT_NONE it was not meant to: a program that looked for a
    file of authorities, and found none, goes on so (asyncpg's `require`). It narrows nothing: the policy's count.
    """
    files: tuple[File, ...] | None = context._anchors.files()
    return None if not files and context._verify_mode == ssl.CERT_NONE else files


def _version_min(context: Any) -> int | None:
    only_13 = context._minimum == ssl.TLSVersion.TLSv1_3 or context._options & ssl.OP_NO_TLSv1_2
    return TLSVersion.TLSv1_3 if only_13 or context._minimum == ssl.TLSVersion.MAXIMUM_SUPPORTED else None


def _version_max(context: Any) -> int | None:
    only_12 = context._maximum == ssl.TLSVersion.TLSv1_2 or context._options & ssl.OP_NO_TLSv1_3
    return TLSVersion.TLSv1_2 if only_12 else None


def _loosened(context: Any) -> str:
    """The setting of a client's context by which less would be verified, in words; empty if there is none."""
    if context._verify_mode == ssl.CERT_NONE:
        return "verify_mode = CERT_NONE"
    return "" if context._check_hostname else "check_hostname = False"


def _log_what_is_overruled(context: Any) -> None:
    said = context._options & ~context._ciphers.options  # by the program, and not by Python itself
    for name, fate, why in flags_of("options", said) if said else ():
        if fate == OVERRULED:
            log_once("warning", f"options: {name} has no effect: {why}")
    if context._post_handshake_auth:
        log_once("info", "post_handshake_auth has no effect: a certificate is asked for in the handshake")


def _checked_name(context: Any, name: str | bytes | None, *, server_side: bool) -> str | None:
    """`server_hostname` as `ssl` checks it; without one a server cannot be verified."""
    if server_side:
        if name is not None:
            raise ValueError("server_hostname can only be specified in client mode")
        return None
    if name is None and context._check_hostname:
        raise ValueError("check_hostname requires server_hostname")
    if context._verify_mode == ssl.CERT_NONE:
        log_once("warning", "verify_mode = CERT_NONE has no effect: servers are verified, as the policy says")
    elif not context._check_hostname:
        log_once("info", "check_hostname = False has no effect: servers are verified by their name")
    if name is None:
        denied("no server_hostname: a server is verified by its name; pass server_hostname=")
    text = name.decode("ascii") if isinstance(name, bytes) else name
    if not text or text.startswith("."):
        raise ValueError("server_hostname cannot be an empty string or start with a leading dot.")
    return text
