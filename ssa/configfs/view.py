"""The interface of the daemon to the file system, which knows nothing else of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ssa.policy.live import LivePolicy
    from ssa.policy.schema import Policy


T_co = TypeVar("T_co", covariant=True)


class KernelState(Protocol):
    """The kernel's answer about a socket."""

    @property
    def version(self) -> str:
        """The protocol version, as TLSv1.3."""

    @property
    def cipher(self) -> str:
        """The record cipher, as aes-gcm-256."""

    @property
    def tx(self) -> str:
        """The place where sent data is encrypted: sw, hw or base (nowhere)."""

    @property
    def rx(self) -> str:
        """The place where received data is decrypted: sw, hw or base (nowhere)."""

    @property
    def bytes_sent(self) -> int:
        """Bytes sent over TCP."""

    @property
    def bytes_received(self) -> int:
        """Bytes received over TCP."""

    @property
    def state(self) -> str:
        """The state of the connection: open, or who has ended it."""


class Asked(Protocol):
    """The facts that a TLS socket and a listener have in common. Properties, so that a frozen class fits."""

    @property
    def id(self) -> int:
        """Its number, which is the name of its directory. No number is used twice."""

    @property
    def hostname(self) -> str:
        """The server's name. A client asked for it (SNI); a listener serves no other; empty for any name."""

    @property
    def local(self) -> str:
        """Our address and port."""

    @property
    def pid(self) -> int:
        """The process that asked for it."""

    @property
    def uid(self) -> int:
        """The user that asked for it."""

    @property
    def exe(self) -> str:
        """The path of the program that asked for it."""

    @property
    def opened(self) -> float:
        """Since when it is there, in seconds since 1970. A socket is there when its handshake is done."""


class Socket(Asked, Protocol):
    """One live TLS socket."""

    @property
    def chain(self) -> Sequence[bytes]:
        """The peer's certificates in DER, its own first; empty if it showed none."""

    @property
    def identity(self) -> str:
        """The name, address or subject that the peer was verified to have."""

    @property
    def presented(self) -> Sequence[bytes]:
        """A server's own certificates in DER, as it presented them; empty if it resumed a session, and for clients."""

    @property
    def credential(self) -> str:
        """The name of the credential that the presented certificates are from."""

    @property
    def role(self) -> str:
        """``client`` or ``server``: which side we are."""

    @property
    def group(self) -> str:
        """The group of the key exchange."""

    @property
    def alpn(self) -> str:
        """The application protocol agreed on, or an empty text."""

    @property
    def resumed(self) -> bool:
        """True if a session was resumed."""

    @property
    def data_path(self) -> str:
        """The data path in use: ktls or relay."""

    @property
    def remote(self) -> str:
        """The peer's address and port."""

    @property
    def profile(self) -> str:
        """The profile that matched, or an empty text."""

    @property
    def verdicts(self) -> Sequence[str]:
        """The answers of the validators, one text each."""

    async def look(self) -> None:
        """Ask whoever knows how it stands, for `kernel` and `unmet`."""

    def kernel(self) -> KernelState:
        """Ask the kernel now, or give what `look` has found where the kernel does not know; raises OSError."""

    def unmet(self, policy: Policy) -> Sequence[str]:
        """The settings of the policy in force that this connection does not meet, with the reasons; raises OSError.

        Empty if the connection would be made under that policy. `look` has found it.
        """

    async def end(self) -> None:
        """End the connection, because the administrator says so; raises OSError."""


class Listener(Asked, Protocol):
    """One socket that listens."""

    @property
    def protocol(self) -> str:
        """TLS or DTLS."""

    async def look(self) -> None:
        """Ask what it is served with."""

    def credentials(self) -> Sequence[str]:
        """The names of the credentials that it is served with, as `look` has found them."""

    def alpn(self) -> Sequence[str]:
        """The application protocols that it agrees to, as `look` has found them."""


class Live(Protocol[T_co]):
    """Sockets or listeners that are alive, by number."""

    def ids(self) -> Sequence[int]:
        """Their numbers."""

    def get(self, number: int, /) -> T_co | None:
        """The one of that number, or None if it is gone."""

    def all(self) -> Sequence[T_co]:
        """All of them, the oldest first."""


class Sockets(Live[Socket], Protocol):
    """The live sockets."""

    def ask(self, sockets: Sequence[Any], /) -> Sequence[KernelState | OSError]:
        """The kernel's answers about several sockets, asked at once."""


class Users(Protocol):
    """The users who may serve with a credential."""

    def shown(self) -> Sequence[str]:
        """The entries: a user's name or number, %group, or *."""


class Credential(Protocol):
    """A certificate and its key. A change raises `BadValue` or OSError, and then nothing has changed."""

    @property
    def certificate(self) -> bytes:
        """The chain, PEM; empty if there is none."""

    @property
    def hostnames(self) -> Sequence[str]:
        """The names that it serves for."""

    def changed(self, file: str, /) -> int:
        """The time when one of its files last changed, in nanoseconds since 1970; 0 if it never had content."""

    @property
    def status(self) -> str:
        """Its state, in words."""

    def check_certificate(self, text: str, /) -> None:
        """Refuse the beginning of a text that cannot become a chain."""

    def check_key(self, text: str, /) -> None:
        """Refuse the beginning of a text that cannot become a key."""

    def check_hostnames(self, text: str, /) -> None:
        """Refuse the beginning of a text that cannot become a list of names."""

    def set_certificate(self, text: str, /) -> None:
        """Replace the chain."""

    def set_key(self, text: str, /) -> None:
        """Replace the key."""

    def set_hostnames(self, text: str, /) -> None:
        """Replace the names."""

    @property
    def users(self) -> Users:
        """The users who may serve with it."""

    def check_users(self, text: str, /) -> None:
        """Refuse the beginning of a text that cannot become a list of users."""

    def look_up_users(self, text: str, /) -> None:
        """Refuse a list with a name that this machine does not know. Call it in a thread: it may take a second."""

    def set_users(self, text: str, /) -> None:
        """Replace the users who may serve with it."""


class Credentials(Protocol):
    """The credentials by name. As long as a name is there, its credential is one object."""

    def names(self) -> Sequence[str]:
        """All names."""

    def get(self, name: str, /) -> Credential | None:
        """The credential of a name, or None if there is none."""

    def create(self, name: str, /) -> None:
        """Make an empty credential; raises ValueError or OSError."""

    def remove(self, name: str, /) -> None:
        """Take a credential away; raises OSError."""


class View(Protocol):
    """All that the file system shows."""

    @property
    def version(self) -> str:
        """The version of ssa."""

    @property
    def started(self) -> float:
        """The time when the daemon started, in seconds since 1970."""

    @property
    def policy(self) -> LivePolicy:
        """The policy in force."""

    @property
    def kernel(self) -> Mapping[str, str]:
        """The abilities of this kernel: a text for each row of `ssa.ktls.probe.FACTS`, by name."""

    @property
    def sockets(self) -> Sockets:
        """The live sockets."""

    @property
    def listeners(self) -> Live[Listener]:
        """The listening sockets."""

    @property
    def credentials(self) -> Credentials:
        """The certificates and keys of this machine's servers."""

    async def in_force(self) -> None:
        """Wait until the policy that was set counts for the next handshake, whoever makes it."""

    async def prepare(self, policy: Policy) -> None:
        """Do the work that a new policy needs before it can be in force and that may take long; raises `BadValue`."""

    async def fresh_credentials(self) -> None:
        """Read the credentials' files again where they have changed."""

    async def fresh_trust(self) -> None:
        """Read the trust store's files again where they have changed."""

    def hear(self) -> None:
        """Take what has been told by now, before something is shown. It takes no time."""

    async def look(self) -> None:
        """Ask whoever knows how all sockets stand, and what all listeners serve with."""

    def stats(self) -> Mapping[str, int]:
        """The daemon's counters, by name."""
