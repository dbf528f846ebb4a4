"""The standard `ssl` module's contexts and sockets as ssa's, for programs that know nothing of ssa.

After `inject` the name `ssl.SSLContext` means the class here, and so does every function that makes a context, and
every module that has imported the class by its name. Its `wrap_socket` gives a `TLSSocket` with the methods that
`ssl.SSLSocket` has. So the policy is the administrator's, and what a program says is taken in one of four ways:

    it narrows, or adds   passed on: load_verify_locations, load_cert_chain, versions, suites, ALPN
    it holds anyway       nothing to do: OP_NO_SSLv3, check_hostname = True
    it loosens            POLICY_DENIED, at the line that says it: CERT_NONE, check_hostname = False
    no counterpart        NO_COUNTERPART, at that line too: wrap_bio, callbacks, keylog_filename

An error is of ssa's class and of ssl's, whichever a program looks out for. Contexts that were made before are as they
were: the injection belongs at the start of a program.
"""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

import ssl
import sys
import types

from ssa.inject.context import SSLContext
from ssa.inject.failures import (
    CertificateError,
    HandshakeError,
    PolicyError,
    SSLError,
    StreamCut,
    WantRead,
    WantWrite,
)
from ssa.inject.sslsocket import SSLSocket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CertificateError",
    "HandshakeError",
    "PolicyError",
    "SSLContext",
    "SSLError",
    "SSLSocket",
    "StreamCut",
    "WantRead",
    "WantWrite",
    "extract",
    "inject",
]

_create_stdlib_context: Any = ssl._create_stdlib_context  # type: ignore[attr-defined]


def _stdlib_context(protocol: int | None = None, *, cert_reqs: int | None = None, **options: Any) -> Any:
    """What ftplib, imaplib, poplib and smtplib use where they are given no context: verified by nobody, until now."""
    purpose = options.get("purpose", ssl.Purpose.SERVER_AUTH)
    if cert_reqs is None and purpose == ssl.Purpose.SERVER_AUTH:
        cert_reqs, options["check_hostname"] = ssl.CERT_REQUIRED, True
    return _create_stdlib_context(protocol, cert_reqs=cert_reqs, **options)


_PAIRS: list[tuple[Any, Any]] = [
    (ssl.SSLContext, SSLContext),
    (ssl.SSLSocket, SSLSocket),
    (_create_stdlib_context, _stdlib_context),
]


def inject() -> None:
    """Put these classes in the place of the `ssl` module's, wherever a module has a name for them."""
    _exchange({id(theirs): ours for theirs, ours in _PAIRS})
    ssl._create_unverified_context = _create_stdlib_context  # who asks for it by this name is told


def extract() -> None:
    """Take `inject` back. What it has made meanwhile goes on."""
    _exchange({id(ours): theirs for theirs, ours in _PAIRS})


def _exchange(others: dict[int, Any]) -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and not name.startswith(__name__):
            for attribute, value in list(vars(module).items()):
                if id(value) in others:
                    setattr(module, attribute, others[id(value)])
