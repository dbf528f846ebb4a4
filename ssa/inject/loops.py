"""Patches asyncio and uvloop: at once where they are loaded, else when they are imported.

asyncio's TLS is one class, `asyncio.sslproto.SSLProtocol`, and `ssa.inject.sslprotocol` has the one in its place. What
else changes is small: `loop.sendfile` uses the kernel's sendfile(2) on a kernel TLS socket, and what ssa does not do is
refused at the call, as a server would otherwise say that it runs, and reset each client. uvloop has TLS of its own, in
C; `ssa.inject.uvloops` has its Loop's methods.
"""

from __future__ import annotations

import functools
import sys

from ssa.inject.base import is_ssa
from ssa.inject.failures import error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_MISSING = object()
_replaced: list[tuple[Any, str, Any]] = []  # owner, name, and what its own __dict__ had there


def guard() -> None:
    """Change the modules, those too that will be imported. Nothing where that is done already."""
    if _FINDER in sys.meta_path:
        return
    for name, change in _MODULES.items():
        if module := sys.modules.get(name):
            change(module)
    sys.meta_path.insert(0, _FINDER)


def unguard() -> None:
    """Take `guard` back."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    while _replaced:
        owner, name, before = _replaced.pop()
        if before is _MISSING:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def replace(owner: Any, name: str, value: Any) -> None:
    """Put something in the place of a class's or module's attribute, until `unguard`."""
    _replaced.append((owner, name, vars(owner).get(name, _MISSING)))
    setattr(owner, name, value)


def _sslproto(module: Any) -> None:
    from ssa.inject import sslprotocol

    if module.SSLProtocol is sslprotocol.THEIRS:
        replace(module, "SSLProtocol", sslprotocol.SSLProtocol)


def _selector_events(module: Any) -> None:
    loop = module.BaseSelectorEventLoop
    theirs = loop._sendfile_native  # noqa: SLF001 - loop.sendfile calls it

    async def native(self: Any, transp: Any, file: Any, offset: int, count: int | None) -> int:
        from ssa.inject.sendfile import send_file
        from ssa.inject.transport import TLSTransport

        if isinstance(transp, TLSTransport):
            return await send_file(transp, file, offset, count)
        return await theirs(self, transp, file, offset, count)  # type: ignore[no-any-return]  # of Any

    replace(loop, "_sendfile_native", native)


def _base_events(module: Any) -> None:
    replace(module.BaseEventLoop, "create_server", _checking(module.BaseEventLoop.create_server))


def _unix_events(module: Any) -> None:
    refuse_unix(module._UnixSelectorEventLoop)  # noqa: SLF001 - it has no other name


def _uvloop(module: Any) -> None:
    from ssa.inject import uvloops

    for name, method in uvloops.methods(module.Loop).items():
        replace(module.Loop, name, method)
    refuse_unix(module.Loop)


def _checking(method: Callable[..., Any]) -> Callable[..., Any]:
    """`create_server`, which refuses at once the context that it would refuse for each client."""

    @functools.wraps(method)
    async def create_server(self: object, *args: Any, ssl: Any = None, **options: Any) -> Any:
        if is_ssa(ssl):
            ssl.parameters(server_side=True)
        return await method(self, *args, ssl=ssl, **options)

    return create_server


def refuse_unix(loop: Any) -> None:
    """Have a loop refuse TLS over Unix sockets, which ssad does not do."""
    for name in ("create_unix_connection", "create_unix_server"):
        replace(loop, name, _without_ssl(name, getattr(loop, name)))


def _without_ssl(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def guarded(self: object, *args: Any, ssl: Any = None, **options: Any) -> Any:
        if ssl is True or is_ssa(ssl):
            raise error("NO_COUNTERPART", f"{name}(ssl=): TLS runs over TCP here, not over a Unix socket")
        return await method(self, *args, **({} if ssl is None else {"ssl": ssl}), **options)

    return guarded


_MODULES: dict[str, Callable[[Any], None]] = {
    "asyncio.sslproto": _sslproto,
    "asyncio.base_events": _base_events,
    "asyncio.selector_events": _selector_events,
    "asyncio.unix_events": _unix_events,
    "uvloop": _uvloop,
}


class _Finder:
    """Finds these modules as the other finders do, and has them changed once they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            changing: Any = _Loader(spec.loader)
            spec.loader = changing
        return spec


class _Loader:
    """A module's loader, and the change behind it."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        _MODULES[module.__name__](module)


_FINDER = _Finder()
