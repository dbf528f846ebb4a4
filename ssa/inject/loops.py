"""asyncio's and uvloop's TLS, which ssa does not do yet: refused at the call that asks for it.

Their TLS is `SSLContext.wrap_bio` over memory buffers, once for each connection. Refused there, a server would say that
it runs, and then reset every client. So the methods of the loops that take a context are replaced by ones that look at
it first: at once where the module is loaded, else when it is imported.
"""

from __future__ import annotations

import functools
import sys

from ssa.inject.context import SSLContext
from ssa.inject.failures import error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_LOOPS = {"asyncio.base_events": "BaseEventLoop", "asyncio.unix_events": "_UnixSelectorEventLoop", "uvloop": "Loop"}
_WITH_SSL = (
    "create_connection",
    "create_server",
    "connect_accepted_socket",
    "create_unix_connection",
    "create_unix_server",
)
_WORDS = (
    "ssa does not do TLS over memory buffers: TLS is on a socket, in the kernel. Pass a connected `sock=` instead of "
    "`ssl=` (ssa.create_connection, ssa.create_server, ssa.upgrade); see docs/libraries.md"
)
_replaced: list[tuple[type, str]] = []


class StartTLSError(NotImplementedError):
    """start_tls is not supported.

    It is no OSError, and so no `ssl.SSLError`: to some programs an OSError is a reason to go on in plain text (asyncpg,
    with its default sslmode=prefer).
    """


def guard() -> None:
    """Replace the methods of the loops, of those that will be imported too."""
    for name in _LOOPS:
        if module := sys.modules.get(name):
            _guard_module(module)
    if _FINDER not in sys.meta_path:
        sys.meta_path.insert(0, _FINDER)


def unguard() -> None:
    """Take `guard` back."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    while _replaced:
        loop, name = _replaced.pop()
        method = vars(loop)[name]
        if method.inherited:
            delattr(loop, name)
        else:
            setattr(loop, name, method.__wrapped__)


def _guard_module(module: ModuleType) -> None:
    loop = getattr(module, _LOOPS[module.__name__], None)
    for name in (*_WITH_SSL, "start_tls"):
        method = getattr(loop, name, None)
        if isinstance(loop, type) and method is not None and not hasattr(method, "inherited"):
            guarded = _without_start_tls(method) if name == "start_tls" else _without_ssl(name, method)
            guarded.inherited = name not in vars(loop)  # type: ignore[attr-defined] # as functools.wraps sets its own
            setattr(loop, name, guarded)
            _replaced.append((loop, name))


def _without_ssl(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def guarded(self: object, *args: Any, ssl: Any = None, **options: Any) -> Any:
        if ssl is True or isinstance(ssl, SSLContext):
            raise error("NO_COUNTERPART", f"{name}(ssl=): {_WORDS}")
        return await method(self, *args, **({} if ssl is None else {"ssl": ssl}), **options)

    return guarded


def _without_start_tls(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def guarded(self: object, transport: Any, protocol: Any, sslcontext: Any, **options: Any) -> Any:
        if isinstance(sslcontext, SSLContext):
            transport.abort()  # what is said after the agreement on TLS must not be plain text
            raise StartTLSError(f"start_tls: {_WORDS}")
        return await method(self, transport, protocol, sslcontext, **options)

    return guarded


class _Finder:
    """Finds the modules of the loops as the other finders do, and guards them once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _LOOPS:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            guarding: Any = _Loader(spec.loader)
            spec.loader = guarding
        return spec


class _Loader:
    """A module's loader, and the guarding behind it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _guard_module(module)


_FINDER = _Finder()
