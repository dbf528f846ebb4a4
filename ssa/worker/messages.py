"""The messages between the daemon and a worker. `ssa.worker.frames` writes and reads them.

The order of the messages in a direction is kept. So a policy that was told before a connection was passed is in force
for it, and a socket's record that was told before the reply is there when the application has the reply.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ssa.ktls.diag import KernelState  # noqa: TC001 - `ssa.worker.frames` looks at the types of fields
from ssa.worker.records import (  # noqa: TC001 - likewise
    Application,
    ListenerRecord,
    Refusal,
    SocketRecord,
)

Texts = tuple[tuple[str, str], ...]

# --- from the daemon ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve an application, whose connection comes with this message.

    Attributes:
        fresh: a trust store whose files the daemon has just looked at; empty for none.
        looked: when that was, by CLOCK_MONOTONIC.
    """

    application: Application
    fresh: str = ""
    looked: float = 0.0


@dataclass(frozen=True, slots=True)
class PolicyIs:
    """The policy that is in force from now on: its number, and the texts of its settings. The answer is `InForce`."""

    epoch: int
    texts: Texts


@dataclass(frozen=True, slots=True)
class KernelIs:
    """The kernel's TLS features, as `ssa.ktls.probe.Capabilities` has them."""

    algorithms: tuple[tuple[int, int], ...]
    rekey: bool
    reason: str
    limits: bool


@dataclass(frozen=True, slots=True)
class StoreIs:
    """A trust store; a `StoreContent` comes in a file in memory. With a reason it can't be read."""

    source: str
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StoreContent:
    """The anchors of a trust store: the certificates, DER, and for which roles of peers each is trusted."""

    shown: str  # the place that they are from, for messages
    anchors: tuple[tuple[bytes, tuple[str, ...]], ...] = field(repr=False)
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CredentialsAre:
    """The administrator's credentials for users in these groups; a `CredentialContent` comes in a file in memory."""

    groups: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate chain with its key, as `ssa.credentials.Credential` has them."""

    name: str
    chain: tuple[bytes, ...] = field(repr=False)
    certificate_pem: bytes = field(repr=False)
    key_pem: bytes = field(repr=False)
    hostnames: tuple[str, ...]
    kind: str
    digest: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class CredentialContent:
    """The credentials that may be served with, and the names of the others."""

    pairs: tuple[Pair, ...]
    denied: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NumbersAre:
    """Numbers for sockets and listeners: so many, from the first one on."""

    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Gone:
    """No process holds these sockets any more."""

    numbers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """The answer to a question of the worker's that asks for nothing but that something is done."""

    call: int
    found: bool = True


@dataclass(frozen=True, slots=True)
class IsSettled:
    """The answer to `Settle`."""

    call: int
    application: Application


@dataclass(frozen=True, slots=True)
class Visit:
    """Another user's worker asks about a socket of yours, on the connection that comes with this message."""

    application: Application


@dataclass(frozen=True, slots=True)
class Look:
    """Tell how sockets stand, and what listeners serve with."""

    call: int
    sockets: tuple[int, ...]
    listeners: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """End a connection whose records the worker protects."""

    call: int
    number: int


@dataclass(frozen=True, slots=True)
class Retire:
    """End when nothing is left to do: no application is passed any more."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End: nothing more comes."""


TO_WORKER: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(Serve, PolicyIs, KernelIs, StoreIs, CredentialsAre, NumbersAre, Gone, Done, IsSettled),
        *(Visit, Look, End, Retire, Stop),
    )
}
CONTENTS: dict[str, type] = {kind.__name__: kind for kind in (StoreContent, CredentialContent)}

# --- from a worker ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """A worker of an earlier daemon's: all that it has follows. `last` is the highest number that it was ever given."""

    last: int


@dataclass(frozen=True, slots=True)
class AllTold:
    """That was all that the worker has."""


@dataclass(frozen=True, slots=True)
class Watches:
    """A set of sockets is watched: the epoll set comes with this message."""

    number: int


@dataclass(frozen=True, slots=True)
class WatchesNoMore:
    """A set of sockets is empty, and is not watched any more."""

    number: int


@dataclass(frozen=True, slots=True)
class Add:
    """There is a TLS socket. `namespace` is the cookie of its network namespace, for a socket of the kernel's TLS."""

    record: SocketRecord
    inode: int
    namespace: bytes | None


@dataclass(frozen=True, slots=True)
class Namespace:
    """The descriptor of a network namespace comes with this message."""

    cookie: bytes


@dataclass(frozen=True, slots=True)
class Forget:
    """A socket has ended, though a descriptor of it may still be open."""

    number: int


@dataclass(frozen=True, slots=True)
class Listens:
    """There is a listener."""

    record: ListenerRecord


@dataclass(frozen=True, slots=True)
class ListensNoMore:
    """A listener has ended."""

    number: int


@dataclass(frozen=True, slots=True)
class Count:
    """Something has happened so many times."""

    counter: str
    number: int


@dataclass(frozen=True, slots=True)
class Refused:
    """A request, or a connection to a listener, came to nothing."""

    refusal: Refusal


@dataclass(frozen=True, slots=True)
class WasCut:
    """A peer's stream has ended without close_notify."""

    number: int


@dataclass(frozen=True, slots=True)
class Relays:
    """Connections go by the relay, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class Line:
    """A line for the log, and a traceback that belongs to it."""

    logger: str
    level: int
    text: str
    charged: bool
    trace: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """So many lines found no room."""

    lines: int


@dataclass(frozen=True, slots=True)
class InForce:
    """The policy of this number is in force in the worker."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Idle:
    """The worker has nothing to do, and has not had for a while: it could `Retire`."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The worker wants more numbers for sockets."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """Look at the administrator's files and at the kernel again, and tell what has changed; then `Done`.

    Attributes:
        source: a trust store, or nothing.
        groups: those of who wants to serve; None where no credential is wanted.
        urgent: the kernel's features are wanted now, however lately they were looked at.
    """

    call: int
    source: str = ""
    groups: tuple[int, ...] | None = None
    urgent: bool = False


@dataclass(frozen=True, slots=True)
class Settle:
    """Look at the program of an application once more."""

    call: int
    application: Application


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Which worker has the socket of this inode? `Done`, with a connection to it where one has."""

    call: int
    application: Application
    inode: int


@dataclass(frozen=True, slots=True)
class SocketState:
    """How a socket stands.

    Attributes:
        state: None where the kernel has to be asked.
        unmet: the settings of the policy in force that it does not meet.
    """

    number: int
    state: KernelState | None
    unmet: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A listener's credentials, by name, and its application protocols."""

    number: int
    credentials: tuple[str, ...]
    alpn: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Looked:
    """The answer to `Look`. What is gone is left out."""

    call: int
    sockets: tuple[SocketState, ...]
    listeners: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Ended:
    """The answer to `End`: an errno, or 0."""

    call: int
    errno: int


TO_DAEMON: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        *(
            Hello,
            AllTold,
            Watches,
            WatchesNoMore,
            Add,
            Namespace,
            Forget,
            Listens,
            ListensNoMore,
            Count,
            Refused,
            WasCut,
            Relays,
            Line,
            Dropped,
        ),
        *(InForce, Idle, Numbers, Fresh, Settle, Elsewhere, Looked, Ended),
    )
}
