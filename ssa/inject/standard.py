"""The standard `ssl` module's own classes, as they were before anybody replaced them."""

from __future__ import annotations

import ssl

from ssa.inject.failures import error
from ssa.library.held import SocketState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WHAT_TO_DO = {
    "gevent": "leave ssl to ssa: gevent.monkey.patch_all(ssl=False)",
    "truststore": "leave it out: what is trusted is the policy's to say",
}


def _check_sockets() -> None:
    """Raise `ssa.SSAError` NO_COUNTERPART where ssa's sockets were made of another library's: gevent's have a loop."""
    below = SocketState.__mro__[1]
    if below.__module__ != "socket":
        raise error(
            "NO_COUNTERPART",
            f"socket.socket has been replaced by {below.__module__}: call ssa.inject_into_ssl() first, or import ssa",
        )


def _standard(name: str) -> Any:
    """A class of the module. Raises `ssa.SSAError` NO_COUNTERPART where another library has replaced it."""
    found = getattr(ssl, name)
    if found.__module__ != "ssl":
        whose = found.__module__.partition(".")[0]
        advice = _WHAT_TO_DO.get(whose, "call ssa.inject_into_ssl() first")
        raise error("NO_COUNTERPART", f"ssl.{name} has been replaced by {found.__module__}: {advice}")
    return found


_check_sockets()
Context: Any = _standard("SSLContext")
CContext: Any = Context.__base__  # what OpenSSL's is wrapped in
Socket: Any = _standard("SSLSocket")
