"""A daemon that serves a fixed view: what the tests of the mount run in a process of its own.

    python served.py MOUNTPOINT [SOCKETS [CREDENTIALS]]

It prints "ready" when the mount is live, logs to stderr, and ends by SIGTERM. SIGUSR1 takes the first socket away.
"""

from __future__ import annotations

import logging
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from ssa.configfs import mount
from ssa.credentials import CredentialStore
from ssa.policy.live import LivePolicy
from ssa.policy.schema import Policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class KernelState:
    """What a kernel might say."""

    version: str = "TLSv1.3"
    cipher: str = "aes-gcm-256"
    tx: str = "sw"
    rx: str = "sw"
    bytes_sent: int = 1234
    bytes_received: int = 5678
    state: str = "open"


@dataclass
class FixedSocket:
    """A socket of plain values."""

    id: int
    chain: tuple[bytes, ...] = ()
    identity: str = "server.example"
    hostname: str = "server.example"
    role: str = "client"
    group: str = "x25519"
    alpn: str = ""
    exe: str = "/usr/bin/curl"
    profile: str = ""
    resumed: bool = False
    data_path: str = "ktls"
    verdicts: tuple[str, ...] = ("path: good", "hostname: good")
    pid: int = 4711
    uid: int = 1000
    opened: float = 1_700_000_000.5
    local: str = "127.0.0.1:50000"
    remote: str = "127.0.0.1:443"
    ended: bool = False
    presented: tuple[bytes, ...] = ()
    credential: str = ""
    state: KernelState | OSError = KernelState()

    def kernel(self) -> KernelState:
        if isinstance(self.state, OSError):
            raise self.state
        return self.state

    def unmet(self, policy: Policy) -> list[str]:
        return [] if policy.min_version.label <= "TLSv1.2" else ["min_version: TLSv1.2 is below TLSv1.3"]

    async def look(self) -> None:
        """All is known."""

    async def end(self) -> None:
        self.ended = True


@dataclass
class FixedSockets:
    """Sockets in a dictionary."""

    by_id: dict[int, FixedSocket] = field(default_factory=dict)

    def ids(self) -> list[int]:
        return list(self.by_id)

    def get(self, number: int, /) -> FixedSocket | None:
        return self.by_id.get(number)

    def all(self) -> list[FixedSocket]:
        return list(self.by_id.values())

    def ask(self, sockets: Sequence[FixedSocket], /) -> list[KernelState | OSError]:
        return [socket.state for socket in sockets]


@dataclass(frozen=True)
class FixedListener:
    """A listener of plain values."""

    id: int
    local: str = "0.0.0.0:443"
    hostname: str = ""
    protocol: str = "TLS"
    pid: int = 4712
    uid: int = 1000
    exe: str = "/usr/sbin/served"
    opened: float = 1_700_000_000.5

    async def look(self) -> None:
        """All is known."""

    def credentials(self) -> list[str]:
        return ["www", "mail"]

    def alpn(self) -> list[str]:
        return ["h2"]


@dataclass
class FixedListeners:
    """Listeners in a dictionary."""

    by_id: dict[int, FixedListener] = field(default_factory=lambda: {90: FixedListener(90)})

    def ids(self) -> list[int]:
        return list(self.by_id)

    def get(self, number: int, /) -> FixedListener | None:
        return self.by_id.get(number)

    def all(self) -> list[FixedListener]:
        return list(self.by_id.values())


@dataclass
class FixedView:
    """A view of plain values."""

    sockets: FixedSockets
    version: str = "0.0.test"
    started: float = 1_700_000_000.0
    listeners: FixedListeners = field(default_factory=FixedListeners)
    policy: LivePolicy = field(default_factory=lambda: LivePolicy(Policy.default()))
    kernel: Mapping[str, str] = field(
        default_factory=lambda: {"tls": "yes", "ciphers": "aes-gcm-128\naes-gcm-256", "rekey": "no"}
    )
    counters: dict[str, int] = field(default_factory=lambda: {"handshakes": 7, "failures": 0})
    credentials: CredentialStore = field(default_factory=lambda: CredentialStore(Path("/nowhere")))

    async def prepare(self, policy: Policy) -> None:
        """Nothing takes long here."""

    async def fresh_credentials(self) -> None:
        self.credentials.refresh()

    async def fresh_trust(self) -> None:
        """There is no trust store."""

    def hear(self) -> None:
        """Nobody tells anything."""

    async def in_force(self) -> None:
        """Nobody else has the policy."""

    async def look(self) -> None:
        """All is known."""

    def stats(self) -> Mapping[str, int]:
        return self.counters


def view(sockets: int = 0) -> FixedView:
    return FixedView(FixedSockets({number: FixedSocket(number) for number in range(1, sockets + 1)}))


async def _signals(
    shown: FixedView, cancel_scope: trio.CancelScope, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGUSR1) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGTERM:
                cancel_scope.cancel()
                return
            shown.sockets.by_id.pop(min(shown.sockets.by_id))
            print("gone", flush=True)  # noqa: T201 - the test reads it


async def _main(mountpoint: str, sockets: int, credentials: str) -> None:
    shown = view(sockets)
    shown.credentials = CredentialStore(Path(credentials))
    mounted = await mount.init(shown, mountpoint)
    async with trio.open_nursery() as nursery:
        await nursery.start(_signals, shown, nursery.cancel_scope)
        await nursery.start(mounted.main)
        print("ready", flush=True)  # noqa: T201 - the test reads it


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    try:
        arguments = [*sys.argv[1:], *("0", "/nowhere")[len(sys.argv) - 2 :]]
        trio.run(_main, arguments[0], int(arguments[1]), arguments[2])
    except mount.MountError as refused:
        sys.exit(f"refused: {refused}")
