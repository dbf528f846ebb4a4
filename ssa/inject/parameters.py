"""The parameters of one connection: the context's settings at that moment, the role, the server's name.

`SSLContext` makes a `Parameters`, `SSLSocket` keeps it. So neither needs to know the other.
"""

from __future__ import annotations

import sys

from ssa.errors import CertificateError
from ssa.inject.failures import CertificateError as Refused
from ssa.inject.failures import as_ssl, error, log_once

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ssa.library.option_values import Settings


class Parameters:
    """The parameters of one connection.

    Attributes:
        context: the `SSLContext` that the program used. It can change afterwards, these parameters do not.
        settings: the options of the request to ssad.
        server_side: True for the server's end of the connection.
        server_hostname: of a client: the name or address that the server's certificate has to be for.
        cut_is_error: True where the program asked `ssl` for an error when the peer's stream ends without close_notify.
        overruled: what the program said that ssa does not follow, e.g. "verify_mode = CERT_NONE"; empty: nothing.
    """

    __slots__ = ("context", "cut_is_error", "overruled", "server_hostname", "server_side", "settings")

    def __init__(  # noqa: PLR0913 - one for each attribute
        self,
        context: Any,
        settings: Settings,
        *,
        server_side: bool,
        server_hostname: str | None,
        cut_is_error: bool,
        overruled: str,
    ) -> None:
        self.context = context
        self.settings = settings
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.cut_is_error = cut_is_error
        self.overruled = overruled

    def explained(self, exc: OSError) -> OSError:
        """The error as programs that know `ssl` expect it.

        Where the program had asked for no verification, a refused certificate's error says that ssa asks for it.
        """
        if self.overruled and isinstance(exc, CertificateError):
            log_once("warning", f"{_program()}: {self.server_hostname} was refused ({exc.reason}). {_WHAT_NEXT}")
            more = f"{self.overruled} of the program's context has no effect: {_WHO}"
            exc = error(exc.reason, f"{exc.detail}; {more}" if exc.detail else more, exc.alert)
        made = as_ssl(exc)
        return made.of(self.server_hostname) if isinstance(made, Refused) else made


def _program() -> str:
    return sys.argv[0] if getattr(sys, "argv", None) and sys.argv[0] else sys.executable


_WHAT_NEXT = "Its context asks for less verification; if it goes on in plain text now, the program does so by itself"
_WHO = "it is ssa that verifies the peer, as the administrator's policy says"
