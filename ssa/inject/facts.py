"""What is known of a TLS transport: the facts that `get_extra_info` gives, its protocol, the server that counts it."""

# ruff: noqa: SLF001 - asyncio's own code looks for these private names

from __future__ import annotations

import sys
from asyncio import protocols, transports
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ssa.inject.sslsocket import SSLSocket

    class _Transport(transports.Transport):
        """The attributes of `_FlowControlMixin`, which typeshed lacks."""

        _loop: asyncio.AbstractEventLoop
        _extra: dict[str, Any]

        def __init__(self, extra: dict[str, Any], loop: asyncio.AbstractEventLoop) -> None: ...
        def _set_write_buffer_limits(self, *, high: int) -> None: ...
        def _maybe_pause_protocol(self) -> None: ...
        def _maybe_resume_protocol(self) -> None: ...

else:

    class _Transport(transports._FlowControlMixin, transports.Transport):
        pass


_LAZILY: dict[str, Callable[[SSLSocket], object]] = {
    "peercert": lambda sock: sock.getpeercert(),
    "cipher": lambda sock: sock.cipher(),
    "compression": lambda sock: sock.compression(),
}


class Facts(_Transport):
    """The facts of a transport, which a subclass makes a transport of.

    Attributes:
        _sock: its socket, from the end of the handshake until it is closed.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.BaseProtocol, context: Any) -> None:
        """Know the `SSLContext`, and the protocol."""
        super().__init__({"sslcontext": context}, loop)
        self._sock: SSLSocket | None = None
        self._closing = False
        self._server: Any = None
        self.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Give a fact as asyncio's TLS transport does. ssad is asked when one of the peer is first wanted."""
        if name not in self._extra and name in _LAZILY and self._sock is not None:
            try:
                self._extra[name] = _LAZILY[name](self._sock)
            except OSError:
                return default
        return self._extra.get(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Does what `asyncio.Transport` documents."""
        self._protocol: Any = protocol
        self._buffered = isinstance(protocol, protocols.BufferedProtocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Does what `asyncio.Transport` documents."""
        return self._protocol  # type: ignore[no-any-return] # it is a protocol's or None once the connection is lost

    def is_closing(self) -> bool:
        """Does what `asyncio.Transport` documents."""
        return self._closing

    def know(self, **facts: Any) -> None:
        """Add facts that `get_extra_info` gives."""
        self._extra.update(facts)

    def attach(self, server: Any) -> None:
        """Belong to a server of asyncio's, which counts its transports."""
        self._server = server
        server._attach(*(self,) * _ATTACHED)

    def detach(self) -> None:
        """Leave the server of asyncio's."""
        if self._server is not None:
            self._server._detach(*(self,) * _ATTACHED)
            self._server = None


_ATTACHED = int(sys.version_info >= (3, 13))  # how many arguments Server._attach and _detach have
