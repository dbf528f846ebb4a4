"""What the steps of the pipeline share: the policy in force, what is cached for it, the live sockets, the counters."""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from ssa import __version__, errors, trust
from ssa.daemon import log, requests
from ssa.daemon.compliance import Made
from ssa.daemon.quota import Crowd, for_user, most_descriptors
from ssa.daemon.registry import Listeners, LiveListener, LiveSocket, Registry, address
from ssa.handshake.contexts import ContextCache
from ssa.handshake.sessions import SessionCache
from ssa.handshake.tickets import TicketMemory
from ssa.ktls.netns import Diags
from ssa.ktls.probe import Capabilities, probe
from ssa.policy.live import LivePolicy
from ssa.policy.schema import BadValue, Policy
from ssa.relay import Relays
from ssa.trust.store import Recent

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from OpenSSL import SSL

    from ssa.credentials import CredentialStore
    from ssa.daemon.registry import Application
    from ssa.daemon.serving import Serving
    from ssa.relay import Relay

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


_APPLICATIONS_STORES = 16
_NOBODY = trust.TrustStore((), "TLS_TRUSTED_PEER_CERTIFICATES, which is an empty set", {}, ())


class Service:
    """The daemon's state. It is the `View` that the file system shows."""

    def __init__(self, policy: Policy, kernel: Capabilities, credentials: CredentialStore) -> None:
        """Raises `BadValue` when the policy's trust store can't be loaded."""
        self._stores: dict[str, trust.TrustStore] = {}
        self._anchors: Recent[bytes, trust.TrustStore] = Recent(_APPLICATIONS_STORES)  # by digest
        self._counts: Counter[str] = Counter()
        self._capabilities = kernel
        self.policy = LivePolicy(policy, self._check)
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
        self._relay_reasons: set[str] = set()
        self._probed = time.monotonic()
        self.crowd = Crowd(most_descriptors())
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
            _log.info("data path: relay, as %s", reason)

    def stats(self) -> Mapping[str, int]:
        """The files under /ssa/stats."""
        counts = {name: self._counts[name] for name in COUNTERS}
        return {"sockets": len(self.sockets.ids()), **counts, "log_lines_dropped": log.dropped()}

    def count(self, counter: str, number: int = 1) -> None:
        """Count an event, by a name of `COUNTERS`."""
        self._counts[counter] += number

    def check_room(self, uid: int) -> None:
        """Raise `ssa.SSAError` OVERLOADED where a user has as many relayed sockets as one may. Root is not counted."""
        if uid and max(self.sockets.relayed(uid), self.relays.open(uid)) >= most_descriptors():
            raise errors.error("OVERLOADED", f"uid {uid} has {most_descriptors()} sockets that are relayed")

    def count_failure(self, failure: errors.SSAError) -> None:
        """Count what a request, or a connection to a listener, came to."""
        self.count(_FAILURES.get(type(failure), "requests_refused"))

    def trust_store(self, policy: Policy) -> trust.TrustStore:
        """The policy's trust store, read again when its files have changed.

        Raises `ssa.SSAError` TRUST_STORE when it can't be read any more: then nothing is trusted.
        """
        store = self._stores.get(policy.trust_store)
        if store is None or store.is_stale():
            try:
                store = self._stores[policy.trust_store] = trust.TrustStore.load(policy.trust_store)
            except (OSError, ValueError) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else str(exc)
                raise errors.error("TRUST_STORE", f"{policy.trust_store}: {reason}") from exc
            _log.info("trust store %s: %d trust anchors", policy.trust_store, len(store))
        return store

    def anchors_untrusted(self, pem: bytes) -> trust.TrustStore:
        """An application's own trust anchors: no text has none.

        Raises `ssa.SSAError` BAD_VALUE where a text has none that can be used.
        """
        digest = hashlib.sha256(pem).digest()
        store = self._anchors.get(digest)
        if store is None:
            try:
                store = trust.TrustStore.of_pem_untrusted(pem, "TLS_TRUSTED_PEER_CERTIFICATES") if pem else _NOBODY
            except ValueError as exc:
                raise errors.error("BAD_VALUE", str(exc)) from exc
            self._anchors.put(digest, store)
        return store

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
        strength = trust.Strength(policy.min_rsa_bits, policy.signature_algorithms, strict)
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
        """A trust store that can't be read is a bad value, found before the policy counts."""
        try:
            self.trust_store(policy)
        except errors.SSAError as exc:
            raise BadValue(f"trust_store: {exc.strerror}") from exc


def _let_go(relay: Relay) -> None:
    tcp, inner = relay.sockets()
    requests.hang_up(inner)
    requests.drop(tcp)


def _keep_secret(connection: SSL.Connection, line: bytes) -> None:
    connection.get_app_data().secrets.add(line)
