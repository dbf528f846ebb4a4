"""What the file system shows, as the daemon provides it: the only thing that it knows of the daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ssa.policy.live import LivePolicy
    from ssa.policy.schema import Policy


class KernelState(Protocol):
    """What the kernel says of a socket, asked now."""

    @property
    def version(self) -> str:
        """The protocol version, as TLSv1.3."""

    @property
    def cipher(self) -> str:
        """The record cipher, as aes-gcm-256."""

    @property
    def tx(self) -> str:
        """Who encrypts, as sw."""

    @property
    def rx(self) -> str:
        """Who decrypts."""

    @property
    def bytes_sent(self) -> int:
        """Bytes sent over TCP."""

    @property
    def bytes_received(self) -> int:
        """Bytes received over TCP."""

    @property
    def state(self) -> str:
        """How the connection stands: open, or who has ended it."""


class Socket(Protocol):
    """One live TLS socket. Properties, so that a frozen class will do."""

    @property
    def id(self) -> int:
        """Its number and the name of its directory: never used twice."""

    @property
    def chain(self) -> Sequence[bytes]:
        """The peer's certificates in DER, its own first; empty if it showed none."""

    @property
    def identity(self) -> str:
        """Who the peer was verified to be."""

    @property
    def presented(self) -> Sequence[bytes]:
        """A server's own certificates in DER, as it presented them; empty if it resumed a session, and for clients."""

    @property
    def credential(self) -> str:
        """The name of the credential that these are of."""

    @property
    def hostname(self) -> str:
        """The name that was asked for: by us of a server, or by a client of us."""

    @property
    def role(self) -> str:
        """Client or server."""

    @property
    def group(self) -> str:
        """The key exchange's group."""

    @property
    def alpn(self) -> str:
        """The application protocol agreed on, or nothing."""

    @property
    def resumed(self) -> bool:
        """Whether a session was resumed."""

    @property
    def data_path(self) -> str:
        """The one in use: ktls or relay."""

    @property
    def local(self) -> str:
        """Our address and port."""

    @property
    def remote(self) -> str:
        """The peer's address and port."""

    @property
    def pid(self) -> int:
        """The process that asked."""

    @property
    def uid(self) -> int:
        """The user that asked."""

    @property
    def exe(self) -> str:
        """The path of the program that asked."""

    @property
    def profile(self) -> str:
        """The profile that matched, or nothing."""

    @property
    def verdicts(self) -> Sequence[str]:
        """What each validator said."""

    @property
    def opened(self) -> float:
        """When the handshake was done, in seconds since 1970."""

    def kernel(self) -> KernelState:
        """Ask the kernel now; raises OSError."""

    def unmet(self, policy: Policy) -> Sequence[str]:
        """Which settings of a policy this connection does not meet, and how; none if it would be made under it."""

    def end(self) -> None:
        """End the connection, as the administrator's word; raises OSError."""


class Sockets(Protocol):
    """The live sockets."""

    def ids(self) -> Sequence[int]:
        """The numbers of the sockets that are alive."""

    def get(self, number: int, /) -> Socket | None:
        """A socket by its number, or None if it is gone."""

    def all(self) -> Sequence[Socket]:
        """The sockets that are alive, in order of their making."""

    def ask(self, sockets: Sequence[Any], /) -> Sequence[KernelState | OSError]:
        """What the kernel says of several sockets, asked at once."""


class Listener(Protocol):
    """One socket that listens."""

    @property
    def id(self) -> int:
        """Its number: never used twice, nor a socket's."""

    @property
    def local(self) -> str:
        """Its address and port."""

    @property
    def hostname(self) -> str:
        """The one name that is served, or nothing."""

    @property
    def protocol(self) -> str:
        """TLS or DTLS."""

    @property
    def pid(self) -> int:
        """The process that asked."""

    @property
    def uid(self) -> int:
        """The user that asked."""

    @property
    def exe(self) -> str:
        """The path of the program that asked."""

    @property
    def opened(self) -> float:
        """Since when, in seconds since 1970."""

    def credentials(self) -> Sequence[str]:
        """The names of the credentials that it is served with now."""

    def alpn(self) -> Sequence[str]:
        """The application protocols that it agrees to now."""


class Listeners(Protocol):
    """The listening sockets."""

    def ids(self) -> Sequence[int]:
        """Their numbers."""

    def get(self, number: int, /) -> Listener | None:
        """A listener by its number, or None if it is gone."""

    def all(self) -> Sequence[Listener]:
        """All of them, in order of their making."""


class Users(Protocol):
    """Who may serve with a credential."""

    def shown(self) -> Sequence[str]:
        """The entries: a user's name or number, %group, or *."""


class Credential(Protocol):
    """A certificate and its key. A change raises `BadValue` or OSError, and then nothing has changed."""

    @property
    def certificate(self) -> bytes:
        """The chain, PEM; nothing if there is none."""

    @property
    def hostnames(self) -> Sequence[str]:
        """The names that it serves for."""

    def changed(self, file: str, /) -> int:
        """When the content of one of its files last changed, in nanoseconds since 1970; 0: there never was any."""

    @property
    def status(self) -> str:
        """What is to be said of it, in words."""

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
        """Who may serve with it."""

    def check_users(self, text: str, /) -> None:
        """Refuse the beginning of a text that cannot become a list of users."""

    def look_up_users(self, text: str, /) -> None:
        """Refuse it too where this machine does not know a name. In a thread, as it may take a second."""

    def set_users(self, text: str, /) -> None:
        """Replace who may serve with it."""


class Credentials(Protocol):
    """The credentials by name. As long as a name is there, its credential is one object."""

    def names(self) -> Sequence[str]:
        """All names."""

    def get(self, name: str, /) -> Credential | None:
        """The credential of a name, or None if there is none."""

    def create(self, name: str, /) -> None:
        """Make an empty one; raises ValueError or OSError."""

    def remove(self, name: str, /) -> None:
        """Take one away; raises OSError."""


class View(Protocol):
    """All of it."""

    @property
    def version(self) -> str:
        """The version of ssa."""

    @property
    def started(self) -> float:
        """Since when the daemon runs, in seconds since 1970."""

    @property
    def policy(self) -> LivePolicy:
        """The policy in force."""

    @property
    def kernel(self) -> Mapping[str, str]:
        """What this kernel can do: the rows of `tree.KERNEL_FILES`."""

    @property
    def sockets(self) -> Sockets:
        """The live sockets."""

    @property
    def listeners(self) -> Listeners:
        """The listening sockets."""

    @property
    def credentials(self) -> Credentials:
        """What this machine's servers prove their names with."""

    async def prepare(self, policy: Policy) -> None:
        """Do what may take long before a policy can be put in force; raises `BadValue`."""

    async def fresh_credentials(self) -> None:
        """Look at the credentials' files again."""

    async def fresh_trust(self) -> None:
        """Look at the trust store's files again."""

    def stats(self) -> Mapping[str, int]:
        """The daemon's counters, by name."""
