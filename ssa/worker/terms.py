"""The terms of a handshake: the policy as the request narrows it, and the certificates that the application brought."""

from __future__ import annotations

import functools
import itertools
import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import trio

from ssa import errors, trust
from ssa.credentials import Credential, pair_untrusted
from ssa.names import normalise
from ssa.policy.resolve import Narrowing, narrow
from ssa.protocol.options import MAX_ANCHORS, MAX_FILES
from ssa.protocol.wire import MAX_AHEAD
from ssa.suites import TLSVersion

if TYPE_CHECKING:
    from ssa.policy.schema import Policy
    from ssa.protocol.wire import Accept, Request
    from ssa.worker.anchors import Anchors
    from ssa.worker.user import User

_MAX_FILE = 256 * 1024  # bytes of a certificate's file, or a key's
_CLIENT_AUTH = {None: None, 0: None, 2: "optional"}  # what `peer_auth` asks for: with another number "required"
_PATIENCE = 5  # seconds: a file can be of the application's own file system, and never give a byte


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one handshake: the policy in force, narrowed by the request, and what the program brought.

    Attributes:
        wish: how the request narrows a policy.
        base: the policy that was in force.
        policy: that policy, narrowed.
        anchors: the application's trust anchors, which the peer has to satisfy besides the administrator's.
    """

    wish: Narrowing
    base: Policy
    policy: Policy
    anchors: trust.TrustStore | None
    credentials: tuple[Credential, ...]  # that the application brought
    strict: bool = False  # certificates have to keep to RFC 5280 strictly
    with_chain: bool = False  # the reply has the peer's certificates

    @property
    def ask_certificate(self) -> bool:
        """True if a client is asked for a certificate."""
        return self.policy.client_auth != "as-program"

    @property
    def optional(self) -> bool:
        """True if a client that is asked for a certificate may have none."""
        return self.policy.client_auth == "optional"

    @property
    def asks_for_relay(self) -> bool:
        """True where the program asked for the relay."""
        return self.wish.data_path is not None

    def under(self, base: Policy) -> Terms:
        """The terms of the same request under another policy, for a listener. Raises `ssa.PolicyError`."""
        return self if base is self.base else replace(self, base=base, policy=narrow(base, self.wish))


async def agree(user: User, request: Request, descriptors: list[int], *, complete: bool = True) -> Terms:
    """The terms for a request, whose files are `descriptors`.

    `complete` is False while options are being set one by one: a certificate may be without its key then.

    Raises `ssa.SSAError`: POLICY_DENIED where it asks for more than the policy allows, BAD_VALUE, KEY_MISMATCH.
    """
    wish, base = _narrowing_untrusted(request), user.monitor.policy
    policy = narrow(base, wish)
    brought = await _files_untrusted(user, request, descriptors, complete=complete)
    return Terms(
        wish,
        base,
        policy,
        brought.anchors,
        brought.credentials,
        strict=bool(request.strict),
        with_chain=bool(request.with_chain),
    )


def hostname_untrusted(text: str) -> str:
    """A request's host name in its canonical form. Raises `ssa.SSAError` BAD_VALUE."""
    try:
        return str(normalise(text))
    except ValueError as exc:
        raise errors.error("BAD_VALUE", f"host name: {exc}") from exc


def ahead_untrusted(request: Accept) -> bytes:
    """The client's first bytes, which the application has read. Raises `ssa.SSAError` BAD_VALUE for too many."""
    ahead = request.ahead or b""
    if len(ahead) > MAX_AHEAD:
        raise errors.error("BAD_VALUE", f"{len(ahead)} bytes were read ahead, at most {MAX_AHEAD} are taken")
    return ahead


def _narrowing_untrusted(request: Request) -> Narrowing:
    timeout = None if request.timeout_ms is None else max(request.timeout_ms, 1) / 1000
    return Narrowing(
        alpn=request.alpn,
        handshake_timeout=timeout,
        session_ttl=request.session_ttl,
        min_version=_version_untrusted(request.version_min),
        max_version=_version_untrusted(request.version_max),
        disabled=request.disabled or (),
        client_auth=_CLIENT_AUTH.get(request.peer_auth, "required"),
        data_path="relay" if request.relay else None,
    )


def _version_untrusted(number: int | None) -> TLSVersion | None:
    if number is None:
        return None
    try:
        return TLSVersion(number)
    except ValueError:
        raise errors.error("BAD_VALUE", f"{number:#06x} is no TLS version: 0x0303 is 1.2, 0x0304 is 1.3") from None


@dataclass(frozen=True, slots=True)
class _Brought:
    """The trust anchors and certificates in an application's files."""

    anchors: trust.TrustStore | None = None
    credentials: tuple[Credential, ...] = ()


async def _files_untrusted(user: User, request: Request, descriptors: list[int], *, complete: bool) -> _Brought:
    counts = (request.trusted, request.certificates or 0, request.keys or 0)
    announced = [count or 0 for count in counts]
    if sum(announced) != len(descriptors) or max(announced) > MAX_FILES:
        raise errors.error("NO_DESCRIPTOR", f"{len(descriptors)} files where {sum(announced)} were announced")
    if not descriptors:
        return _Brought(None if request.trusted is None else user.anchors.get_untrusted(user.uid, ()))
    with trio.move_on_after(_PATIENCE):
        read = functools.partial(_read_all, user.anchors, user.uid, counts, descriptors.copy(), complete=complete)
        return await trio.to_thread.run_sync(read, abandon_on_cancel=True, limiter=user.threads.read_files)
    raise errors.error("BAD_VALUE", f"a file cannot be read within {_PATIENCE} seconds")


def _read_all(
    anchors: Anchors, uid: int, counts: tuple[int | None, int, int], descriptors: list[int], *, complete: bool
) -> _Brought:
    """Read the files, in a thread. The application has opened them, so it may read them; nothing is opened here."""
    trusted, certificates, _ = counts
    files = iter(descriptors)
    texts = [_read(fd, MAX_ANCHORS) for fd in itertools.islice(files, trusted or 0)]
    store = anchors.get_untrusted(uid, texts) if trusted is not None else None
    chains = [_read(fd, _MAX_FILE) for fd in itertools.islice(files, certificates)]
    keys = [_read(fd, _MAX_FILE) for fd in files]
    return _Brought(store, pair_untrusted(chains, keys, complete=complete) if chains or keys else ())


def _read(fd: int, most: int) -> bytes:
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise errors.error("BAD_VALUE", "a certificate or key has to be in a regular file")
        data = b""
        while len(data) <= most and (more := os.pread(fd, most + 1 - len(data), len(data))):
            data += more
    except OSError as exc:
        if isinstance(exc, errors.SSAError):
            raise
        raise errors.error("BAD_VALUE", f"a file cannot be read: {exc.strerror}") from exc
    if len(data) > most:
        raise errors.error("BAD_VALUE", f"a file is longer than {most >> 10} KiB")
    return data
