"""The plain values that a worker and the daemon tell each other: who asked, what is known of a socket or a listener.

Each of them can be copied into another process: no descriptor, no key, nothing that changes later.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from ssa import errors
from ssa.ktls.diag import SocketKey  # noqa: TC001 - `ssa.worker.frames` looks at the types of fields

if TYPE_CHECKING:
    from ssa.errors import SSAError

_T = TypeVar("_T", bound=Hashable)


@functools.lru_cache(maxsize=1024)
def _shared(value: Hashable) -> Hashable:
    return value


def shared(value: _T) -> _T:
    """An equal value that is in memory already, if one was seen lately: peers and programs repeat themselves."""
    return cast("_T", _shared(value))


def address(end: tuple[str, int]) -> str:
    """An end of a connection as address:port, with brackets around an IPv6 address."""
    host, port = end
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Application:
    """The process that connected to the daemon, as the kernel vouches for it (`ssa.daemon.who`).

    Attributes:
        exe: the path of its program; empty where it is not known.
        groups: the supplementary ones.
        settled: the program is no longer looked at.
    """

    pid: int
    uid: int
    gid: int
    exe: str
    groups: tuple[int, ...] = ()
    settled: bool = False

    @property
    def all_groups(self) -> tuple[int, ...]:
        """The process's group and the supplementary ones."""
        return (self.gid, *self.groups)

    def of_unknown_program(self) -> Application:
        """The process and user of an application, without a program: it is not known which one asks."""
        return replace(self, exe="")


class Presented(NamedTuple):
    """A server's own certificates, DER, and the name of the credential that they are of."""

    credential: str
    chain: tuple[bytes, ...]


NOTHING = Presented("", ())


class AskedFor:
    """A thing that an application has asked for: it remembers the application."""

    __slots__ = ()
    application: Application

    @property
    def pid(self) -> int:
        """The process that asked for it; others may hold it by now."""
        return self.application.pid

    @property
    def uid(self) -> int:
        """Its user."""
        return self.application.uid

    @property
    def exe(self) -> str:
        """Its program."""
        return self.application.exe


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketRecord(AskedFor):
    """One TLS socket, as it is remembered. The kernel is asked for what it knows better.

    It is made to be small, as there can be thousands: texts that repeat are shared, certificates too.

    Attributes:
        role: ours: "client" or "server".
        chain: the peer's certificates, DER, its own first.
        protocol: the protocol and its version, as TLSv1.3.
        data_path: who encrypts and decrypts: "ktls" (the kernel) or "relay" (ssad).
        opened: when the handshake was done, in seconds since the epoch.
        presented: a server's own certificates, DER.
        credential: the name of the credential that these are of.
        took: seconds that the handshake took.
        session_age: seconds since the peer of a session that was resumed had proved itself.
        cut_is_error: a stream that ends without close_notify is an error to every program, by the policy.
    """

    id: int
    key: SocketKey
    application: Application
    role: str
    hostname: str
    identity: str
    chain: tuple[bytes, ...] = field(repr=False)
    verdicts: tuple[str, ...]
    protocol: str
    suite: str
    group: str
    alpn: str
    resumed: bool
    data_path: str
    profile: str
    opened: float
    presented: tuple[bytes, ...] = field(default=(), repr=False)
    credential: str = ""
    took: float = 0
    session_age: float = 0
    cut_is_error: bool = False

    @property
    def local(self) -> str:
        """Our end, as address:port."""
        return address(self.key.local)

    @property
    def remote(self) -> str:
        """The other end, as address:port."""
        return address(self.key.remote)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerRecord(AskedFor):
    """One socket that listens, as it is remembered.

    Attributes:
        local: its address, as address:port.
        hostname: the one name that is served, or nothing.
        protocol: "TLS" or "DTLS".
        opened: since when it listens, in seconds since the epoch.
    """

    id: int
    application: Application
    local: str
    hostname: str
    protocol: str
    opened: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """The record of a request, or of a connection to a listener, that was refused or failed.

    Attributes:
        asked: what was asked for, as fields of a line of the log.
        pid: the process that asked.
        exe: its program; empty where that is not known.
        reason: a row of `ssa.errors.REASONS`.
        fault: whose it was.
        alert: the TLS alert that was sent or received, or nothing.
        detail: the details in words.
        counter: the counter under /ssa/stats that it belongs to.
    """

    asked: tuple[tuple[str, str], ...]
    pid: int
    exe: str
    reason: str
    fault: str
    alert: str
    detail: str
    counter: str

    @classmethod
    def of(cls, failure: SSAError, application: Application, **asked: str) -> Refusal:
        """The record of an error that an application was told."""
        fault, alert, who = failure.whose_fault, failure.alert or "", (application.pid, application.exe)
        return cls(tuple(asked.items()), *who, failure.reason, fault, alert, failure.detail, _counter(failure))


def _counter(failure: SSAError) -> str:
    if isinstance(failure, errors.CertificateError):
        return "certificates_refused"
    return "handshakes_failed" if isinstance(failure, errors.HandshakeError) else "requests_refused"
