"""Finds out what this kernel can do, by doing it on loopback connections of our own."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ssa import errors
from ssa.ktls.constants import SOL_TLS, TLS_TX
from ssa.ktls.crypto_info import CryptoInfo
from ssa.ktls.install import attach, install, limit
from ssa.ktls.key_schedule import TrafficKey
from ssa.suites import AEAD, AEADS, Suite, TLSVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The TLS features of the running kernel."""

    algorithms: frozenset[tuple[TLSVersion, int]]  # (version, TLS_CIPHER_*)
    rekey: bool  # a second key in the same direction: TLS 1.3's KeyUpdate
    reason: str  # why there is no kernel TLS; empty where there is kernel TLS
    limits: bool = False  # records can be kept shorter than TLS allows, as some clients ask (max_fragment_length)

    @property
    def tls(self) -> bool:
        """True where kernel TLS works."""
        return bool(self.algorithms)

    def offers(self, suite: Suite) -> bool:
        """True where this kernel can protect the suite's records."""
        return (suite.version, suite.aead.kernel) in self.algorithms

    def describe(self) -> dict[str, str]:
        """The content of the files under /ssa/kernel, by name."""
        return {fact.name: fact.show(self) for fact in FACTS}


def _ciphers(kernel: Capabilities) -> str:
    return "\n".join(f"{version.label} {AEADS[cipher].name}" for version, cipher in sorted(kernel.algorithms))


class Fact(NamedTuple):
    """A file under /ssa/kernel."""

    name: str
    doc: str  # one line for the manual
    show: Callable[[Capabilities], str]


FACTS = (
    Fact(
        "tls",
        "yes if this kernel does TLS; else no: and the reason.",
        lambda kernel: "yes" if kernel.tls else f"no: {kernel.reason}",
    ),
    Fact("ciphers", "The record ciphers that this kernel can do, one a line.", _ciphers),
    Fact(
        "rekey",
        "yes if this kernel can change the keys of a connection (TLS 1.3 KeyUpdate), else no.",
        lambda kernel: "yes" if kernel.rekey else "no",
    ),
)


def probe() -> Capabilities:
    """Try each version with each algorithm on a loopback connection; some milliseconds in all."""
    found: set[tuple[TLSVersion, int]] = set()
    try:
        for version in TLSVersion:
            found.update((version, aead.kernel) for aead in AEADS.values() if _works(version, aead))
        rekey = bool(found) and _can_rekey(next(aead for _, aead in sorted(found)))
        limits = bool(found) and _can_limit()
    except errors.SSAError as exc:
        return Capabilities(frozenset(), rekey=False, reason=f"setsockopt(TCP_ULP, tls): {exc.detail}")
    except OSError as exc:
        return Capabilities(frozenset(), rekey=False, reason=f"it could not be tried: {exc.strerror or exc}")
    return Capabilities(frozenset(found), rekey, "" if found else "the kernel refused every cipher", limits)


@contextlib.contextmanager
def _connection() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as sock:
        yield sock


def _key(version: TLSVersion, aead: AEAD) -> CryptoInfo:
    implicit = aead.salt if version is TLSVersion.TLSv1_2 and aead.explicit else aead.salt + aead.iv
    return CryptoInfo(version, aead, TrafficKey(os.urandom(aead.key), os.urandom(implicit)), sequence=0)


def _works(version: TLSVersion, aead: AEAD) -> bool:
    with _connection() as sock:
        attach(sock)
        info = _key(version, aead)
        try:
            install(sock, info, info)
        except errors.SSAError:
            return False
        return True


def _can_limit() -> bool:
    """TLS_TX_MAX_PAYLOAD_LEN is ENOPROTOOPT in older kernels."""
    with _connection() as sock:
        attach(sock)
        try:
            limit(sock, 512)
        except errors.SSAError:
            return False
        return True


def _can_rekey(kernel: int) -> bool:
    """A second TLS_TX is EBUSY before Linux 6.14."""
    with _connection() as sock:
        attach(sock)
        info = _key(TLSVersion.TLSv1_3, AEADS[kernel])
        install(sock, info, info)
        try:
            sock.setsockopt(SOL_TLS, TLS_TX, _key(TLSVersion.TLSv1_3, AEADS[kernel]).pack())
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                return False
            raise
        return True
