"""The daemon's state: what is in force, which sockets there are, and what has been counted."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from ssa._version import __version__
from ssa.daemon import log
from ssa.daemon.admin_files import CredentialFiles, TrustStores
from ssa.daemon.registry import Listeners, Registry, look
from ssa.ktls.probe import Capabilities, probe
from ssa.policy.live import LivePolicy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from ssa.credentials import CredentialStore
    from ssa.policy.schema import Policy

_log = logging.getLogger("ssa.daemon")

_PROBE_AGAIN = 1  # seconds
_REASONS = 16  # there are two or three; a worker is not trusted to tell no other ones

COUNTERS = (
    "handshakes",  # completed
    "resumed",  # of these: by an earlier session
    "certificates_refused",
    "handshakes_failed",  # for another reason
    "requests_refused",  # malformed, or not allowed by the policy
    "fallbacks",  # left to a program's own TLS library
    "fallbacks_refused",
    "key_updates",  # followed or made
    "truncated",  # streams of peers that ended without close_notify, as was read
    "tickets",  # taken out of the way of plain reads
)


def _nothing() -> None:
    return


class State:
    """The state that all users share. It is the `View` that the file system shows."""

    def __init__(self, policy: Policy, kernel: Capabilities, credentials: CredentialStore, mount: str = "") -> None:
        """Raises `BadValue` when the policy's trust store can't be loaded.

        `mount` is where our own file system is: no file is looked for in it, as it would wait for us.
        """
        self.trust_stores = TrustStores(mount)
        self._counts: Counter[str] = Counter()
        self._capabilities = kernel
        self._probed = time.monotonic()
        self._in_force = False
        self.policy = LivePolicy(policy, self._check)
        self._in_force = True
        self.credentials = credentials
        self.credential_files = CredentialFiles(credentials)
        self.sockets = Registry()
        self.listeners = Listeners()
        self.started = time.time()
        self._relay_reasons: set[str] = set()
        self.lines_dropped = 0  # by workers
        self.take_reports: Callable[[], None] = _nothing  # takes what the workers have told by now
        self.tell_trust: Callable[[str], None] | None = None  # tells the workers a trust store
        self.announce: Callable[[], Awaitable[None]] | None = None  # tells the workers the policy in force

    def _check(self, policy: Policy) -> None:
        """Refuse a policy whose trust store cannot be read, before it is in force. Raises `BadValue`."""
        source = policy.trust_store
        if self._in_force and source == self.policy.current.trust_store:
            return  # what is wrong with it must not keep the other settings as they are
        self.trust_stores.check(source)

    def close(self) -> None:
        """Close the descriptors that ask and watch the kernel. Sockets that applications hold live on."""
        self.sockets.close()

    @property
    def version(self) -> str:
        """The version of this software."""
        return __version__

    @property
    def kernel(self) -> Mapping[str, str]:
        """The files under /ssa/kernel."""
        return self._capabilities.describe()

    def capabilities(self, *, urgent: bool) -> Capabilities:
        """The kernel's TLS features. A kernel that had none is asked again after a second; if `urgent`, at once.

        It may have some by now: a module was loaded, or the loopback interface came up.
        """
        if not self._capabilities.tls and (urgent or time.monotonic() - self._probed > _PROBE_AGAIN):
            self._probed = time.monotonic()
            if (found := probe()) != self._capabilities:  # else the contexts that were made for it serve on
                self._capabilities = found
        return self._capabilities

    def note_relayed(self, reason: str) -> None:
        """Log, once for each of so many reasons, that connections go by the relay."""
        if reason not in self._relay_reasons and len(self._relay_reasons) < _REASONS:
            self._relay_reasons.add(reason)
            _log.info("data path: relay, as %s", reason)

    def stats(self) -> Mapping[str, int]:
        """The files under /ssa/stats."""
        counts = {name: self._counts[name] for name in COUNTERS}
        return {"sockets": len(self.sockets.ids()), **counts, "log_lines_dropped": log.dropped() + self.lines_dropped}

    def count(self, counter: str, number: int = 1) -> None:
        """Count events, by a name of `COUNTERS`."""
        self._counts[counter] += number

    async def fresh_trust(self) -> None:
        """Read the trust store in force again if its files have changed."""
        source = self.policy.current.trust_store
        await self.trust_stores.refresh(source)
        if self.tell_trust is not None:
            self.tell_trust(source)

    def hear(self) -> None:
        """Take what the workers have told by now."""
        self.take_reports()

    async def look(self) -> None:
        """Ask all workers how their sockets stand, and what their listeners serve with."""
        await self.fresh_trust()
        await look(self.sockets.all(), self.listeners.all())

    async def in_force(self) -> None:
        """Wait until all workers have the policy in force that is: the next handshake is made under it."""
        if self.announce is not None:
            await self.announce()

    async def prepare(self, policy: Policy) -> None:
        """Read the trust store of a policy before it is put in force. Raises `BadValue` if that cannot be read."""
        await self.trust_stores.prepare(policy.trust_store)

    async def fresh_credentials(self) -> None:
        """Read the administrator's credentials again if their files have changed."""
        await self.credential_files.refresh()
