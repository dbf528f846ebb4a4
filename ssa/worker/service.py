"""What the steps of the pipeline share: the policy in force, what is cached for it, the live sockets, the counters."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import resource
import time
from collections import Counter
from typing import TYPE_CHECKING

import trio

from ssa import errors, trust
from ssa._version import __version__
from ssa.credentials.folder import Stored
from ssa.credentials.users import look_up
from ssa.daemon import log
from ssa.daemon.compliance import Made
from ssa.daemon.errands import Errands
from ssa.daemon.quota import Crowd, Quota, for_user
from ssa.daemon.registry import Listeners, LiveListener, LiveSocket, Registry, address
from ssa.handshake.contexts import ContextCache
from ssa.handshake.session_cache import SessionCache
from ssa.handshake.tickets import TicketMemory
from ssa.intime import in_time
from ssa.ktls.netns import Diags
from ssa.ktls.probe import Capabilities, probe
from ssa.logfmt import fields
from ssa.policy.live import LivePolicy
from ssa.policy.schema import BadValue, Policy
from ssa.relay import Relays
from ssa.trust.store import Recent
from ssa.worker.anchors import Anchors
from ssa.worker.closing import CLOSERS, drop, hang_up

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from OpenSSL import SSL

    from ssa.credentials import CredentialStore
    from ssa.credentials.folder import Folder
    from ssa.daemon.registry import Application
    from ssa.relay import Relay
    from ssa.worker.server_context import Serving

_log = logging.getLogger("ssa.daemon")

_PROBE_AGAIN = 1  # seconds

COUNTERS = (
    "handshakes",  # completed
    "resumed",  # of these: by an earlier session
    "certificates_refused",
    "handshakes_failed",  # for another reason
    "requests_refused",  # malformed, or not allowed by the policy
    "key_updates",  # followed or made
    "tickets",  # taken out of the way of plain reads
)


_FAILURES: dict[type[errors.SSAError], str] = {
    errors.CertificateError: "certificates_refused",
    errors.HandshakeError: "handshakes_failed",
    errors.HandshakeTimeout: "handshakes_failed",
    errors.HandshakeReset: "handshakes_failed",
    errors.ConnectRefused: "handshakes_failed",
}


_PATIENCE = 5.0  # seconds for the administrator's files: one can be on a network that does not answer
_STORES = 8  # trust stores that the policy has named, kept
_NAMED = 8  # anchors that were skipped, named in the log
_NOBODYS = -1  # work that is for all, so that its lines in the log are not counted as a user's
_NEGLIGENCE = 3600.0  # seconds between looks for certificates that have expired meanwhile
_OWN = 16  # descriptors that the daemon itself opens after its start, at most
_RELAYED = 2  # descriptors of a relayed socket


class Service:
    """The daemon's state. It is the `View` that the file system shows."""

    def __init__(
        self,
        policy: Policy,
        kernel: Capabilities,
        credentials: CredentialStore,
        mount: str = "",
    ) -> None:
        """Raises `BadValue` when the policy's trust store can't be loaded.

        `mount` is where our own file system is: no file is looked for in it, as it would wait for us.
        """
        self._mount = mount
        self._errands = Errands()
        self._looks = Errands()  # apart, so that credentials that hang never keep a trust store waiting
        self._looking = False
        self._stores: Recent[str, trust.TrustStore | errors.SSAError] = Recent(_STORES)
        self.anchors = Anchors()
        self._counts: Counter[str] = Counter()
        self._capabilities = kernel
        self._in_force = False
        self.policy = LivePolicy(policy, self._check)
        self._in_force = True
        self.contexts = ContextCache(_keep_secret)
        self.credentials = credentials
        self.tickets = TicketMemory()
        self.sessions = SessionCache()
        self.sockets = Registry()
        self.listeners = Listeners()
        self.started = time.time()
        self.relays = Relays(
            self.sockets.is_held,
            lambda uid, relay: for_user(uid, _let_go, relay),
        )
        self.quota = Quota(
            resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            len(os.listdir("/proc/self/fd")) + _OWN,
            lambda uid: self.relays.descriptors(uid) + CLOSERS.open(uid),
        )
        self._relay_reasons: set[str] = set()
        self._probed = time.monotonic()
        self.crowd = Crowd(lambda uid: max(1, self.quota.limit(uid) // 2))
        self.ready: Counter[int] = Counter()  # by user: connections of listeners that the application has not taken
        self.diags = Diags()

    def close(self) -> None:
        """Give back what the kernel lent. Sockets that applications hold live on."""
        self.relays.close()
        self.sockets.close()
        self.diags.close()

    @property
    def version(self) -> str:
        """The version of this software."""
        return __version__

    @property
    def kernel(self) -> Mapping[str, str]:
        """The files under /ssa/kernel."""
        return self._capabilities.describe()

    def kernel_tls(self, policy: Policy) -> Capabilities:
        """What this kernel can do. One that could do nothing so far is asked again: modules come, and lo comes up.

        Raises `ssa.SSAError` NO_KERNEL_TLS where it can do nothing and the policy's data_path allows nothing else.
        """
        only = policy.data_path == "ktls"
        if not self._capabilities.tls and (only or time.monotonic() - self._probed > _PROBE_AGAIN):
            self._probed = time.monotonic()
            if (found := probe()) != self._capabilities:  # else the contexts that were made for it serve on
                self._capabilities = found
        if only and not self._capabilities.tls:
            raise errors.error("NO_KERNEL_TLS", self._capabilities.reason)
        return self._capabilities

    def note_relayed(self, reason: str) -> None:
        """A connection goes by the relay: for each reason the log says so once."""
        if reason not in self._relay_reasons:
            self._relay_reasons.add(reason)
            for_user(_NOBODYS, _log.info, "data path: relay, as %s", reason)

    def stats(self) -> Mapping[str, int]:
        """The files under /ssa/stats."""
        counts = {name: self._counts[name] for name in COUNTERS}
        return {"sockets": len(self.sockets.ids()), **counts, "log_lines_dropped": log.dropped()}

    def count(self, counter: str, number: int = 1) -> None:
        """Count an event, by a name of `COUNTERS`."""
        self._counts[counter] += number

    def check_room(self, uid: int) -> None:
        """Raise `ssa.SSAError` OVERLOADED where a user has as many relayed sockets as one may."""
        self.quota.check(uid, _RELAYED)
        if self.sockets.relayed(uid) >= (limit := self.quota.limit(uid)):
            raise errors.error("OVERLOADED", f"uid {uid} has {limit} sockets that are relayed")

    def room_for_ready(self, uid: int) -> int:
        """How many more of a user's connections may be ready and wait to be accepted."""
        return min(self.quota.left(uid), max(1, self.quota.limit(uid) // 4) - self.ready[uid])

    def count_failure(self, failure: errors.SSAError) -> None:
        """Count what a request, or a connection to a listener, came to."""
        self.count(_FAILURES.get(type(failure), "requests_refused"))

    def trust_store(self, policy: Policy) -> trust.TrustStore:
        """The policy's trust store, as `fresh_trust` found it last.

        Raises `ssa.SSAError` TRUST_STORE when it can't be read any more: then nothing is trusted.
        """
        store = self._stores.get(policy.trust_store)
        if store is None:
            raise errors.error("TRUST_STORE", f"{policy.trust_store}: it was not read yet")
        if isinstance(store, errors.SSAError):
            raise errors.error(store.reason, store.detail)
        return store

    async def fresh_trust(self, policy: Policy | None = None) -> None:
        """Have the policy's trust store as its files are now; what is wrong with it, `trust_store` raises."""
        source = (policy or self.policy.current).trust_store
        known = self._stores.get(source)
        if isinstance(known, trust.TrustStore) and not known.is_stale():
            return
        with contextlib.suppress(errors.SSAError):
            await self._loaded(source)

    async def prepare(self, policy: Policy) -> None:
        """Do what may take long before a policy can be put in force. Raises `BadValue` for one that can't be."""
        try:
            await self._loaded(policy.trust_store)
        except errors.SSAError as exc:
            raise BadValue(f"trust_store: {exc.strerror}") from exc

    async def _loaded(self, source: str) -> None:
        known = self._stores.get(source)
        try:
            found = await self._errands.run(source, functools.partial(self._load, source, known), _PATIENCE)
        except Exception as exc:  # fails closed
            self._stores.put(source, failure := _trust_failure(source, exc))
            raise failure from exc
        self._stores.put(source, found)

    def _load(self, source: str, known: trust.TrustStore | errors.SSAError | None) -> trust.TrustStore:
        """In a thread. Raises OSError, ValueError."""
        if isinstance(known, trust.TrustStore) and not known.changed():
            return known
        found = trust.TrustStore.load(source, self._mount)
        _log.info("trust store %s: %d trust anchors, %d skipped", source, len(found), len(found.skipped))
        for line in found.skipped[:_NAMED]:
            _log.warning("trust store %s: skipped: %s", source, line)
        return found

    async def fresh_credentials(self) -> None:
        """Have the administrator's credentials as their files are now; of one that hangs, the last good one."""
        folder = self.credentials.folder
        if folder.is_stale():
            await self._look(folder)
        stale = [stored for stored in folder.stored().values() if stored.is_stale()]
        if stale:
            async with trio.open_nursery() as nursery:
                for stored in stale:
                    nursery.start_soon(self._look, stored)
            for_user(_NOBODYS, self.credentials.remind)
        if lists := self.credentials.stale_users():
            try:
                await self._looks.run("accounts", lambda: look_up(lists), _PATIENCE)
            except Exception as exc:  # noqa: BLE001 - whatever it is, they are who they were
                _log.warning("accounts cannot be looked up %s", fields(reason=str(exc)))

    async def _look(self, what: Folder | Stored) -> None:
        try:
            await self._looks.run(what, what.reload, _PATIENCE)
        except Exception as exc:  # noqa: BLE001 - of this one: the others are looked at all the same
            for_user(_NOBODYS, what.report, str(exc))

    def look_soon(self) -> None:
        """Begin `fresh_credentials` where there is something to look at, for who can't wait for it."""
        folder = self.credentials.folder
        stale = folder.is_stale() or any(map(Stored.is_stale, folder.stored().values()))
        if not self._looking and (stale or self.credentials.stale_users()):
            self._looking = True
            trio.lowlevel.spawn_system_task(self._look_now)

    async def _look_now(self) -> None:
        try:
            await self.fresh_credentials()
        except Exception:  # noqa: BLE001 - of a task that nobody waits for
            _log.exception("a fault of ssad's own, looking at the credentials")
        finally:
            self._looking = False

    async def remind(self) -> None:
        """Say which certificates in service expire, from time to time. Until cancelled."""
        while True:
            self.credentials.remind()
            await trio.sleep(_NEGLIGENCE)

    def judge(
        self,
        policy: Policy,
        hostname: str | None,
        chain: tuple[bytes, ...],
        anchors: trust.TrustStore | None = None,
        *,
        strict: bool = False,
    ) -> trust.Verified:
        """The verdict on a peer's chain under a policy: a server's by its host name, a client's where that is None.

        `anchors` narrow: the peer has to satisfy the administrator's trust store, and these. `strict`: by RFC 5280.
        Raises `ssa.CertificateError`.
        """
        evidence = trust.Evidence(chain=chain, hostname=hostname, role="client" if hostname is None else "server")
        strength = trust.Strength(policy.min_rsa_bits, policy.signature_algorithms, policy.verify_depth, strict)
        verified = trust.judge(evidence, self.trust_store(policy), strength)
        if anchors is not None:
            trust.judge(evidence, anchors, strength)
        return verified

    def complies(self, live: LiveSocket, policy: Policy) -> Sequence[str]:
        """Which settings of a policy a socket does not meet, and how; its chain is judged anew at this moment."""
        return policy.unmet(Made(live, self.judge))

    def listed(
        self, application: Application, local: Any, serving: Callable[[], Serving], protocol: str
    ) -> contextlib.AbstractContextManager[None]:
        """A block in which /ssa shows that an application listens at an address."""
        listener = LiveListener(
            id=self.sockets.new_id(),
            application=application,
            local=address(local[:2]),
            hostname=serving().only or "",
            protocol=protocol,
            opened=time.time(),
            offers=lambda: serving().offers(),
        )
        return self.listeners.serving(listener)

    def _check(self, policy: Policy) -> None:
        """A trust store that can't be read is a bad value, found before the policy counts.

        As a rule `prepare` has read it. Before there is an event loop nobody has.
        """
        source = policy.trust_store
        if self._in_force and source == self.policy.current.trust_store:
            return  # what is wrong with it must not keep the other settings as they are
        try:
            if self._stores.get(source) is None:
                self._stores.put(source, in_time(functools.partial(self._load, source, None), _PATIENCE))
            self.trust_store(policy)
        except (OSError, ValueError) as exc:
            failure = exc if isinstance(exc, errors.SSAError) else _trust_failure(source, exc)
            raise BadValue(f"trust_store: {failure.strerror}") from exc


def _trust_failure(source: str, exc: Exception) -> errors.SSAError:
    reason = (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)
    return errors.error("TRUST_STORE", f"{source}: {reason.removeprefix('trust store cannot be read: ')}")


def _let_go(relay: Relay) -> None:
    tcp, inner = relay.sockets()
    hang_up(inner)
    drop(tcp)


def _keep_secret(connection: SSL.Connection, line: bytes) -> None:
    connection.get_app_data().secrets.add(line)
