"""The standard `ssl` module's contexts and sockets as ssa's, for programs that know nothing of ssa.

After `inject` the name `ssl.SSLContext` means the class here, and so does every function that makes a context, and
every module that has imported the class by its name. Its `wrap_socket` gives a `TLSSocket` with the methods that
`ssl.SSLSocket` has. So the policy is the administrator's. `ssa.inject.meaning` is the table of what becomes of each
thing that a program can say to `ssl`:

    kept         passed on where it narrows the policy: load_verify_locations, versions, suites, VERIFY_X509_STRICT
    refused      POLICY_DENIED or NO_COUNTERPART, at the line that says it: callbacks
    overruled    taken, without effect, and logged once where a socket is made with it: CERT_NONE
    no meaning   taken, without effect: it is about what is not there

The TLS of event loops goes by ssa too, each by the one place where the loop or library meets `ssl`:

    asyncio      `asyncio.sslproto.SSLProtocol`: `ssa.inject.sslprotocol`, put there by `ssa.inject.loops`
    uvloop       four methods of `uvloop.Loop`: `ssa.inject.uvloops`
    trio, anyio  what `SSLContext.wrap_bio` gives, and one method of each: `ssa.inject.bio`

An error is of ssa's class and of ssl's, whichever a program looks out for. Contexts that were made before are as they
were: the injection belongs at the start of a program.
"""

# ruff: noqa: SLF001 - to stand in for `ssl` is to know what it is made of

from __future__ import annotations

import os
import ssl
import sys
import types

from ssa.inject import loops, standard
from ssa.inject.context import SSLContext
from ssa.inject.failures import (
    CertificateError,
    HandshakeError,
    PolicyError,
    SSLError,
    StreamCut,
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
    "extract",
    "inject",
]

_create: Any = vars(standard.Socket)["_create"]
_create_stdlib_context: Any = ssl._create_stdlib_context  # type: ignore[attr-defined]  # private


def _stdlib_context(protocol: int | None = None, *, cert_reqs: int | None = None, **options: Any) -> Any:
    """The context that ftplib, imaplib, poplib and smtplib make by default. Without ssa it verifies no server."""
    if cert_reqs is not None or options.get("purpose", ssl.Purpose.SERVER_AUTH) != ssl.Purpose.SERVER_AUTH:
        return _create_stdlib_context(protocol, cert_reqs=cert_reqs, **options)
    context = _create_stdlib_context(protocol, **options)
    context.check_hostname = True
    if "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ:
        context.load_default_certs()
    return context


_PAIRS: list[tuple[Any, Any]] = [
    (standard.Context, SSLContext),
    (standard.Socket, SSLSocket),
    (_create_stdlib_context, _stdlib_context),
]


def inject() -> None:
    """Put these classes in the place of the `ssl` module's, wherever a module has a name for them."""
    standard.Socket._create = _create_of_older()  # before: other threads may be about to wrap a socket
    _exchange({id(theirs): ours for theirs, ours in _PAIRS})
    ssl._create_unverified_context = _create_stdlib_context
    loops.guard()


def extract() -> None:
    """Take `inject` back. What it has made meanwhile goes on."""
    _exchange({id(ours): theirs for theirs, ours in _PAIRS})
    standard.Socket._create = _create
    loops.unguard()


def _create_of_older() -> Any:
    """`ssl.SSLSocket._create` for contexts that were made before: it finds its class by its name, which is ours now."""
    theirs = _create.__func__
    names = {**vars(ssl), "SSLSocket": standard.Socket}
    ours = types.FunctionType(theirs.__code__, names, theirs.__name__, theirs.__defaults__, theirs.__closure__)
    return classmethod(ours)


def _exchange(others: dict[int, Any]) -> None:
    for name, module in list(sys.modules.items()):
        if isinstance(module, types.ModuleType) and not name.startswith(__name__):
            for attribute, value in list(vars(module).items()):
                if id(value) in others:
                    setattr(module, attribute, others[id(value)])
                elif type(value) is super and (other := others.get(id(_class_of(value)))):
                    setattr(module, attribute, super(other, other))


def _class_of(value: Any) -> Any:
    """The class that a `super` object begins behind: truststore keeps one of `ssl.SSLContext`'s."""
    return value.__thisclass__
