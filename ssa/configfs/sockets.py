"""The files of a socket and of a listener, and all of them in one file: each fact is one row of a table.

A fact is shown twice: as a file of its own, and as a key of the socket's line in ``sockets.jsonl``.
"""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ssa.configfs import render
from ssa.configfs.members import Numbered
from ssa.configfs.nodes import File
from ssa.policy.parsers import BadValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from ssa.configfs.view import KernelState, Listener, Socket, View

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Fact(Generic[S]):
    """One row: what is known of a socket or listener.

    Attributes:
        doc: one line for the manual.
        value: gives the value for a subject; raises OSError.
        shown: makes the file's bytes from the value.
        live: the value may change at any time.
    """

    name: str
    doc: str
    value: Callable[[S], Any]
    shown: Callable[[Any], bytes] = render.line
    live: bool = False

    def read(self, subject: S) -> bytes:
        """The file's content."""
        return self.shown(self.value(subject))

    def json(self, subject: S) -> Any:
        """The value in JSON. It is null if there is none, or if the kernel does not tell it. Text is as in the file."""
        try:
            value = self.value(subject)
        except OSError:
            return None
        return _JSON.get(self.shown, _as_is)(value)


def _as_is(value: Any) -> Any:
    return render.text(value) or None if isinstance(value, str) else value


_JSON: dict[Callable[[Any], bytes], Callable[[Any], Any]] = {
    render.lines: lambda values: [render.text(value) for value in values],
    render.pem: lambda chain: render.pem(chain).decode() if chain else None,
    render.moment: lambda seconds: render.moment(seconds).decode().strip(),
}


# --- sockets ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SocketSubject:
    """A socket, together with the view that it is seen in."""

    socket: Socket
    view: View
    answer: KernelState | OSError | None = None  # of the kernel, if it was asked before

    @property
    def kernel(self) -> KernelState:
        """The kernel's answer. Raises OSError."""
        if self.answer is None:
            return self.socket.kernel()
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer

    @property
    def state(self) -> str:
        """The state of the connection: ``open``, or how far it has ended."""
        try:
            return self.kernel.state
        except OSError as failure:
            if failure.errno == errno.ENOENT:  # a process holds the descriptor; the kernel has forgotten the connection
                return "ended"
            raise

    @property
    def compliant(self) -> str:
        """``yes``, or ``no:`` and the settings of the policy in force that the connection does not meet."""
        unmet = self.socket.unmet(self.view.policy.current)
        return f"no: {'; '.join(unmet)}" if unmet else "yes"

    async def look(self) -> None:
        """Ask how it stands."""
        await self.view.fresh_trust()
        await self.socket.look()

    def close(self, text: str) -> Awaitable[None]:
        """End the connection. Raises `BadValue` for any text but 1."""
        if text.strip() != "1":
            raise BadValue("expected 1, which ends the connection")
        return self.socket.end()


@dataclass(frozen=True, slots=True)
class SocketMembers(Numbered[Any]):
    """The members of /sockets."""

    view: View

    def get(self, number: int) -> SocketSubject | None:
        """The subject of the socket of that number, or None if it is gone."""
        socket = self.things.get(number)
        return None if socket is None else SocketSubject(socket, self.view)


SOCKET_FACTS: tuple[Fact[SocketSubject], ...] = (
    Fact("peer_cert", "The peer's certificate, PEM.", lambda s: s.socket.chain[:1], render.pem),
    Fact(
        "peer_chain", "All certificates that the peer sent, its own first, PEM.", lambda s: s.socket.chain, render.pem
    ),
    Fact(
        "peer_identity", "The name, address or subject that the peer was verified to have.", lambda s: s.socket.identity
    ),
    Fact("own_cert", "The certificate that a server presented, PEM.", lambda s: s.socket.presented[:1], render.pem),
    Fact("credential", "The name of the credential that a server presented.", lambda s: s.socket.credential),
    Fact("hostname", "The host name asked for (SNI).", lambda s: s.socket.hostname),
    Fact("role", "client or server: which side this machine is.", lambda s: s.socket.role),
    Fact("version", "Protocol version, asked of the kernel.", lambda s: s.kernel.version, live=True),
    Fact("cipher", "Record cipher, asked of the kernel.", lambda s: s.kernel.cipher, live=True),
    Fact("group", "Key exchange group.", lambda s: s.socket.group),
    Fact("alpn", "Application protocol agreed on; an empty line if none was.", lambda s: s.socket.alpn),
    Fact("resumed", "yes if a session was resumed, else no.", lambda s: s.socket.resumed, render.yes_no),
    Fact("data_path", "ktls or relay: which is in use.", lambda s: s.socket.data_path),
    Fact(
        "tx",
        "Where sent data is encrypted: sw, hw or base (nowhere), asked of the kernel.",
        lambda s: s.kernel.tx,
        live=True,
    ),
    Fact("rx", "Where received data is decrypted, asked of the kernel.", lambda s: s.kernel.rx, live=True),
    Fact("local", "This side's address and port.", lambda s: s.socket.local),
    Fact("remote", "The peer's address and port.", lambda s: s.socket.remote),
    Fact("pid", "The process that asked for TLS.", lambda s: s.socket.pid),
    Fact("uid", "The user that asked for TLS.", lambda s: s.socket.uid),
    Fact("exe", "The program that asked for TLS.", lambda s: s.socket.exe),
    Fact("profile", "The profile that matched; an empty line if none did.", lambda s: s.socket.profile),
    Fact("verdicts", "The verdict of each validator, one a line.", lambda s: s.socket.verdicts, render.lines),
    Fact("opened", "When the handshake was done, RFC 3339 in UTC.", lambda s: s.socket.opened, render.moment),
    Fact(
        "state",
        "open, or how far the connection has ended; some process holds its descriptor.",
        lambda s: s.state,
        live=True,
    ),
    Fact(
        "bytes_sent",
        "Bytes sent by TCP, records and handshake included: asked of the kernel, or counted by the relay.",
        lambda s: s.kernel.bytes_sent,
        live=True,
    ),
    Fact(
        "bytes_received",
        "Bytes received by TCP, records and handshake included: asked of the kernel, or counted by the relay.",
        lambda s: s.kernel.bytes_received,
        live=True,
    ),
    Fact(
        "compliant",
        "yes if this connection would be made under the policy in force now; else no: and the settings that it fails.",
        lambda s: s.compliant,
        live=True,
    ),
)


def _opened(subject: SocketSubject) -> int:
    return int(subject.socket.opened * 1e9)


SOCKET_FILES: tuple[File[SocketSubject], ...] = (
    *(
        File(
            fact.name,
            fact.doc,
            fact.read,
            changed=None if fact.live else _opened,
            look=SocketSubject.look if fact.live else None,
        )
        for fact in SOCKET_FACTS
    ),
    File("close", "Write 1 to end the connection.", write=SocketSubject.close, changed=_opened),
)

# --- listeners ----------------------------------------------------------------------------------------------------


LISTENER_FACTS: tuple[Fact[Listener], ...] = (
    Fact("role", "listener.", lambda _: "listener"),
    Fact("local", "The address and port that are served.", lambda s: s.local),
    Fact("hostname", "The one name that is served; an empty line if any is.", lambda s: s.hostname),
    Fact(
        "credentials",
        "The names of the credentials that are presented, one a line.",
        lambda s: s.credentials(),
        render.lines,
        live=True,
    ),
    Fact("alpn", "Application protocols that are agreed to, one a line.", lambda s: s.alpn(), render.lines, live=True),
    Fact("protocol", "TLS or DTLS.", lambda s: s.protocol),
    Fact("pid", "The process that listens.", lambda s: s.pid),
    Fact("uid", "Its user.", lambda s: s.uid),
    Fact("exe", "Its program.", lambda s: s.exe),
    Fact("opened", "When it began to listen, RFC 3339 in UTC.", lambda s: s.opened, render.moment),
)

_LONGEST_LIST = 64 << 10  # bytes of names

LISTENER_FILES: tuple[File[Listener], ...] = tuple(
    File(
        fact.name,
        fact.doc,
        fact.read,
        changed=None if fact.live else lambda s: int(s.opened * 1e9),
        look=(lambda s: s.look()) if fact.live else None,
        most=lambda _: _LONGEST_LIST,
    )
    for fact in LISTENER_FACTS
)


def owner(thing: SocketSubject | Listener) -> int:
    """The uid of the user that a socket or listener belongs to."""
    return thing.socket.uid if isinstance(thing, SocketSubject) else thing.uid


# --- all of them in one file --------------------------------------------------------------------------------------

_BATCH = 32  # sockets that the kernel is asked about at once
_LONGEST_ROW = 512 << 10  # bytes: OpenSSL takes 100 kB of certificates, and a row has them twice, as PEM


def most_rows(view: View) -> int:
    """The most bytes that `rows` can make now."""
    return _LONGEST_ROW * (len(view.listeners.ids()) + len(view.sockets.ids()))


def rows(view: View, uid: int | None) -> Iterator[bytes]:
    """One line of JSON for each listener and each socket of a user (None: of all), read when its turn comes."""
    for listener in view.listeners.all():
        if uid in (None, listener.uid):
            yield _row(listener.id, LISTENER_FACTS, listener)
    shown = [socket for socket in view.sockets.all() if uid in (None, socket.uid)]
    for start in range(0, len(shown), _BATCH):
        batch = shown[start : start + _BATCH]
        for socket, answer in zip(batch, view.sockets.ask(batch), strict=True):
            yield _row(socket.id, SOCKET_FACTS, SocketSubject(socket, view, answer))


def _row(number: int, facts: Iterable[Fact[Any]], subject: object) -> bytes:
    row = {"id": number, **{fact.name: fact.json(subject) for fact in facts}}
    return json.dumps(row).encode() + b"\n"
