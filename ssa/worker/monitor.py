"""A worker's interface to the daemon: its questions and reports, for one user, in values that can be copied.

The daemon gives each worker an object of this kind (`ssa.daemon.workers`). A worker knows nothing else of the daemon.
A socket is passed along where the kernel is asked about it. Nobody keeps it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import socket

    from ssa.credentials import Credential
    from ssa.ktls.probe import Capabilities
    from ssa.policy.schema import Policy
    from ssa.protocol.wire import Message, Reply
    from ssa.trust import TrustStore
    from ssa.worker.packets import Handover
    from ssa.worker.records import Application, ListenerRecord, Refusal, SocketRecord


class Monitor(Protocol):
    """The daemon, as one user's worker sees it."""

    # --- what is in force ---

    @property
    def policy(self) -> Policy:
        """The policy in force at this moment."""

    def capabilities(self) -> Capabilities:
        """The kernel's TLS features, as they were found last."""

    async def fresh_capabilities(self, *, urgent: bool) -> None:
        """Have a kernel that had no TLS asked again: after a second; if `urgent`, at once."""

    async def fresh_trust(self, source: str) -> None:
        """Have a trust store read again if its files may have changed. `trust_store` raises what is wrong with it."""

    def trust_store(self, source: str) -> TrustStore:
        """The trust store as it was read last. Raises `ssa.SSAError` TRUST_STORE: then nothing is trusted."""

    async def fresh_credentials(self, application: Application) -> None:
        """Have the credentials that this application may serve with read again where their files may have changed."""

    def look_soon(self, application: Application) -> None:
        """Have `fresh_credentials` begin in the background, for a caller that cannot wait."""

    def usable(self, application: Application) -> tuple[tuple[Credential, ...], tuple[str, ...]]:
        """The administrator's credentials that the application's user and groups may serve with; the others' names."""

    # --- who asks ---

    async def settled(self, application: Application) -> Application:
        """The application of a listener: its program is looked at once more, and never again."""

    # --- the sockets that applications hold ---

    def new_id(self) -> int:
        """A number for a socket or a listener that is about to be told of. It is never given out twice."""

    def watches(self, number: int, epoll: int) -> None:
        """Give the daemon an epoll set of sockets that are watched: it looks there which of them live."""

    def watches_no_more(self, number: int) -> None:
        """Tell the daemon that a set is empty."""

    def add(self, record: SocketRecord, inode: int, sock: socket.socket | None) -> bytes | None:
        """Register a TLS socket, and return the number of its network namespace.

        Its record lasts as long as the watched socket, unless it is forgotten first.

        `sock` is the TCP socket where the kernel does its TLS: the kernel is asked about it later.
        """

    async def elsewhere(
        self, application: Application, request: Message, sock: socket.socket
    ) -> Reply | Handover | None:
        """The answer to a request about a TLS socket that another user's worker has made.

        Raises `ssa.SSAError`: UNKNOWN_SOCKET, and what that worker raises.
        """

    def forget(self, number: int) -> None:
        """Remove a TLS socket that has ended, though a descriptor of it may still be open.

        The daemon then calls `Worker.gone`, which it also does when nobody holds a socket any more.
        """

    def listens(self, record: ListenerRecord) -> None:
        """Register a listener. The daemon asks the worker for its credentials and ALPN when they are to be shown."""

    def listens_no_more(self, number: int) -> None:
        """Remove a listener."""

    # --- what has happened ---

    def count(self, counter: str, number: int = 1) -> None:
        """Count events, by the name of a file under /ssa/stats."""

    def refused(self, refusal: Refusal) -> None:
        """Count and log that a request, or a connection to a listener, came to nothing."""

    def was_cut(self, record: SocketRecord) -> None:
        """Count and log that the peer's stream has ended without close_notify, as the application has read."""

    def note_relayed(self, reason: str) -> None:
        """Log, once for each reason, that connections go by the relay."""

    async def told(self) -> None:
        """Wait until all of this is on its way to the daemon: a reply comes behind it. Raises OSError."""
