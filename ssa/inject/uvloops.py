"""uvloop's `ssl=`: the methods of `uvloop.Loop` that take a context, by the same class as asyncio's.

uvloop has its TLS in C and never looks for `asyncio.sslproto`. So its methods are called without `ssl=`, with an
`SSLProtocol` of ours as the protocol. Contexts from before the injection go to uvloop's own.
"""

# ruff: noqa: SLF001 - asyncio's own name for the transport

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ssa.inject.base import is_ssa
from ssa.inject.sslprotocol import SSLProtocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable


def methods(loop: Any) -> dict[str, Callable[..., Any]]:
    """The methods to put in the place of `uvloop.Loop`'s, by name."""
    return {
        "create_connection": _create_connection(loop.create_connection),
        "create_server": _create_server(loop.create_server),
        "start_tls": _start_tls(loop.start_tls),
        "connect_accepted_socket": _connect_accepted_socket(loop.connect_accepted_socket),
    }


def _timeouts(options: dict[str, Any]) -> dict[str, Any]:
    """Take what is about TLS out of a call's options."""
    names = ("ssl_handshake_timeout", "ssl_shutdown_timeout")
    return {name: options.pop(name) for name in names if name in options}


async def _finished(protocol: SSLProtocol, waiter: asyncio.Future[None]) -> Any:
    """The transport of a protocol, when its handshake is done."""
    try:
        await waiter
    except BaseException:
        protocol._app_transport.close()
        raise
    return protocol._app_transport


def _create_connection(theirs: Callable[..., Any]) -> Callable[..., Any]:
    async def create_connection(  # noqa: PLR0913 - as asyncio has it
        self: Any,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        if ssl is not True and not is_ssa(ssl):
            more = {} if server_hostname is None else {"server_hostname": server_hostname}
            return await theirs(self, protocol_factory, host, port, ssl=ssl, **more, **options)  # type: ignore[no-any-return] # uvloop has no types
        if server_hostname is None:
            if not host:
                raise ValueError("You must set server_hostname when using ssl without a host")
            server_hostname = host
        timeouts, app, waiter = _timeouts(options), protocol_factory(), self.create_future()
        context = None if ssl is True else ssl
        protocol = SSLProtocol(self, app, context, waiter, server_hostname=server_hostname, **timeouts)
        sock = options.get("sock")
        try:
            if sock is not None and host is None and port is None:
                # uvloop attaches the object to its handle after connection_made, which has closed it by then: a
                # descriptor that may be somebody else's would be closed a second time.
                protocol.take(sock)
            else:
                await theirs(self, lambda: protocol, host, port, **options)
        except BaseException:
            waiter.cancel()
            protocol._app_transport.abort()  # the handshake can be done by now, and nobody wait for it
            raise
        return await _finished(protocol, waiter), app

    return create_connection


def _create_server(theirs: Callable[..., Any]) -> Callable[..., Any]:
    async def create_server(
        self: Any,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: Any = None,
        *,
        ssl: Any = None,
        **options: Any,
    ) -> Any:
        if not is_ssa(ssl):
            return await theirs(self, protocol_factory, host, port, ssl=ssl, **options)
        ssl.parameters(server_side=True)
        timeouts = _timeouts(options)

        def factory() -> Any:
            return SSLProtocol(self, protocol_factory(), ssl, None, server_side=True, **timeouts)

        return await theirs(self, factory, host, port, **options)

    return create_server


def _start_tls(theirs: Callable[..., Any]) -> Callable[..., Any]:
    async def start_tls(  # noqa: PLR0913 - as asyncio has it
        self: Any,
        transport: Any,
        protocol: Any,
        sslcontext: Any,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
        **options: Any,
    ) -> Any:
        if not is_ssa(sslcontext):
            named = {"server_side": server_side, "server_hostname": server_hostname}
            return await theirs(self, transport, protocol, sslcontext, **named, **options)
        if not getattr(transport, "_start_tls_compatible", True):
            raise TypeError(f"transport {transport!r} is not supported by start_tls()")
        waiter = self.create_future()
        ours = SSLProtocol(
            self, protocol, sslcontext, waiter, server_side, server_hostname, call_connection_made=False, **options
        )
        transport.pause_reading()
        transport.set_protocol(ours)
        ours.connection_made(transport)
        return await _finished(ours, waiter)

    return start_tls


def _connect_accepted_socket(theirs: Callable[..., Any]) -> Callable[..., Any]:
    async def connect_accepted_socket(
        self: Any, protocol_factory: Callable[[], Any], sock: Any, *, ssl: Any = None, **options: Any
    ) -> tuple[Any, Any]:
        if not is_ssa(ssl):
            return await theirs(self, protocol_factory, sock, ssl=ssl, **options)  # type: ignore[no-any-return] # uvloop has no types
        waiter, app = self.create_future(), protocol_factory()
        protocol = SSLProtocol(self, app, ssl, waiter, server_side=True, **options)
        protocol.take(sock)
        return await _finished(protocol, waiter), app

    return connect_accepted_socket
