"""What is in the file system: tables of name, read, write. Nothing here knows of FUSE.

A file's `read` makes its bytes from a subject, its `write` takes text to it; the mode follows from which of them
there are. A `Directory` has fixed children. A `Collection` has one child a member, named by its provider, each of
them a copy of one template: the sockets, the counters.

Inodes are stateless, so that nothing has to be remembered or forgotten: a fixed node's inode is its place in the
table (the root is 1), a member's says which collection, which member and which node of the template:

    bits 63..56 the collection   55..8 the member   7..0 the node in the template
"""

from __future__ import annotations

import errno
import itertools
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ssa.configfs import render
from ssa.policy.schema import MAX_TEXT, SETTINGS, BadValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

    from ssa.configfs.view import Credential, KernelState, Listener, Socket, View

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

ROOT = 1
_MEMBER_BITS = 48
_NODE_BITS = 8


# --- nodes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File(Generic[S]):
    """One row of a table: a file.

    Attributes:
        doc: what it says, for the manual.
        read: subject to content; raises OSError.
        write: takes a whole new value; raises `BadValue` or OSError, and then nothing has changed.
        limit: bytes of one value.
        encoding: of the text; latin-1 takes any byte, for a text that may have comments in it.
        prepare: does before `check` and `write` what may take long, and raises as they do.
        refresh: finds out what is there now, before it is opened.
        check: for a value that may come in several writes, and is complete when the file is closed: takes what has come
            so far, and raises as `write` does if nothing more can make it a value.
        look_up: does in a thread, before `check` and `write`, what may take long, and raises as they do.
        changed: when its content last changed, in nanoseconds since 1970. None: it may be another one at any time, so
            neither its time nor its size is known before it is opened.
        pieces: content that is long to make, in place of `read`: for the sockets of one user, or of all users for None.
        most: bytes that it can have, where its size is not known before it is opened. A page where this is not given.
    """

    name: str
    doc: str
    read: Callable[[S], bytes] | None = None
    write: Callable[[S, str], None] | None = None
    limit: int = MAX_TEXT
    prepare: Callable[[S, str], Awaitable[None]] | None = None
    check: Callable[[S, str], None] | None = None
    look_up: Callable[[S, str], None] | None = None
    encoding: str = "ascii"
    refresh: Callable[[], Awaitable[None]] | None = None
    changed: Callable[[S], int] | None = None
    pieces: Callable[[S, int | None], Iterator[bytes]] | None = None
    most: Callable[[S], int] | None = None

    @property
    def is_readable(self) -> bool:
        """Whether it has any content."""
        return bool(self.read or self.pieces)

    @property
    def mode(self) -> int:
        """The permission bits: what can be read is read by everyone, what can be written by the owner."""
        return (0o444 if self.is_readable else 0) | (0o200 if self.write else 0)


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory whose children are fixed."""

    name: str
    doc: str
    children: tuple[Node, ...]
    mode: int = 0o755


@dataclass(frozen=True, slots=True)
class Collection:
    """A directory with one child a member, each like the template `each`.

    Attributes:
        create: makes a member of this name (mkdir); raises ValueError or OSError.
        remove: takes the member of this name away (rmdir); raises OSError.
        owner: whom a member belongs to, by uid; nobody else but root may look into it. None: it is the daemon's.
        refresh: finds out what is there now, before it is looked at.
    """

    name: str
    doc: str
    members: Members[Any]
    each: File[Any] | Directory
    mode: int = 0o755
    create: Callable[[str], None] | None = None
    remove: Callable[[str], None] | None = None
    owner: Callable[[Any], int] | None = None
    refresh: Callable[[], Awaitable[None]] | None = None


Node = File[Any] | Directory | Collection


class Members(Protocol[S_co]):
    """What a collection's children are. A member's number is never given to another one."""

    def numbers(self) -> Iterable[int]:
        """The members there are, by number: 0 to 2**48 - 1."""

    def name(self, number: int) -> str:
        """A member's name."""

    def find(self, name: str) -> int | None:
        """A member's number by its name, or None if there is none."""

    def get(self, number: int) -> S_co | None:
        """The subject of a member's files, or None if it is gone."""


# --- the sockets --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class SocketSubject:
    """A socket, and what it is seen under."""

    socket: Socket
    view: View
    told: KernelState | OSError | None = None  # what the kernel said, where it was asked before

    @property
    def kernel(self) -> KernelState:
        """What the kernel says. Raises OSError."""
        if self.told is None:
            return self.socket.kernel()
        if isinstance(self.told, OSError):
            raise self.told
        return self.told

    @property
    def state(self) -> str:
        """What has become of the connection."""
        try:
            return self.kernel.state
        except OSError as failure:
            if failure.errno == errno.ENOENT:  # some process holds a socket that the kernel has done with
                return "ended"
            raise

    @property
    def compliant(self) -> str:
        """Which settings of the policy in force it does not meet."""
        unmet = self.socket.unmet(self.view.policy.current)
        return f"no: {'; '.join(unmet)}" if unmet else "yes"


@dataclass(frozen=True, slots=True)
class Numbered(Generic[S_co]):
    """Members by number, which is their name, too."""

    things: ByNumber[S_co]

    def numbers(self) -> Iterable[int]:
        """Those that are there."""
        return self.things.ids()

    def name(self, number: int) -> str:
        """The number is the name."""
        return str(number)

    def find(self, name: str) -> int | None:
        """By the number as it is shown: 7, not 007."""
        number = int(name) if name.isascii() and name.isdigit() and len(name) <= 15 else -1
        return number if str(number) == name and self.get(number) else None

    def get(self, number: int) -> S_co | None:
        """The thing of that number."""
        return self.things.get(number)


class ByNumber(Protocol[S_co]):
    """Things by number, none of which is used twice."""

    def ids(self) -> Iterable[int]:
        """The numbers."""

    def get(self, number: int, /) -> S_co | None:
        """The thing of a number, or None if it is gone."""


@dataclass(frozen=True, slots=True)
class SocketMembers(Numbered[Any]):
    """The members of /sockets."""

    view: View

    def get(self, number: int) -> SocketSubject | None:
        """Ask the daemon."""
        socket = self.things.get(number)
        return None if socket is None else SocketSubject(socket, self.view)


def _close(subject: SocketSubject, text: str) -> None:
    if text.strip() != "1":
        raise BadValue("expected 1, which ends the connection")
    subject.socket.end()


@dataclass(frozen=True, slots=True)
class Fact(Generic[S]):
    """One row of a table: what is known of a socket, as a file and as a key of a line of JSON.

    Attributes:
        doc: what it says, for the manual.
        value: subject to value; raises OSError.
        shown: value to the file's bytes.
        live: it may be another one at any time.
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
        """The value in JSON; null where there is none, or the kernel does not tell. Text is as in the file."""
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


SOCKET_FACTS: tuple[Fact[SocketSubject], ...] = (
    Fact("peer_cert", "The peer's certificate, PEM.", lambda s: s.socket.chain[:1], render.pem),
    Fact(
        "peer_chain", "All certificates that the peer sent, its own first, PEM.", lambda s: s.socket.chain, render.pem
    ),
    Fact("peer_identity", "Who the peer was verified to be.", lambda s: s.socket.identity),
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
        "Who encrypts what is sent: sw, hw or base (nobody), asked of the kernel.",
        lambda s: s.kernel.tx,
        live=True,
    ),
    Fact("rx", "Who decrypts what is received, asked of the kernel.", lambda s: s.kernel.rx, live=True),
    Fact("local", "This side's address and port.", lambda s: s.socket.local),
    Fact("remote", "The peer's address and port.", lambda s: s.socket.remote),
    Fact("pid", "The process that asked for TLS.", lambda s: s.socket.pid),
    Fact("uid", "The user that asked for TLS.", lambda s: s.socket.uid),
    Fact("exe", "The program that asked for TLS.", lambda s: s.socket.exe),
    Fact("profile", "The profile that matched; an empty line if none did.", lambda s: s.socket.profile),
    Fact("verdicts", "What each validator said, one a line.", lambda s: s.socket.verdicts, render.lines),
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
    Fact("bytes_received", "Bytes received by TCP: the same.", lambda s: s.kernel.bytes_received, live=True),
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
    *(File(fact.name, fact.doc, fact.read, changed=None if fact.live else _opened) for fact in SOCKET_FACTS),
    File("close", "Write 1 to end the connection.", write=_close, changed=_opened),
)

# --- the listeners ------------------------------------------------------------------------------------------------


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
    Fact("opened", "Since when, RFC 3339 in UTC.", lambda s: s.opened, render.moment),
)

_LONGEST_LIST = 64 << 10  # bytes of names

LISTENER_FILES: tuple[File[Listener], ...] = tuple(
    File(
        fact.name,
        fact.doc,
        fact.read,
        changed=None if fact.live else lambda s: int(s.opened * 1e9),
        most=lambda _: _LONGEST_LIST,
    )
    for fact in LISTENER_FACTS
)

# --- all of them in one file --------------------------------------------------------------------------------------

_BATCH = 32  # sockets that the kernel is asked about at once
_LONGEST_ROW = 512 << 10  # bytes: OpenSSL takes 100 kB of certificates, which are in it twice, as PEM


def _row(number: int, facts: Iterable[Fact[Any]], subject: object) -> bytes:
    row = {"id": number, **{fact.name: fact.json(subject) for fact in facts}}
    return json.dumps(row).encode() + b"\n"


def _most_rows(view: View) -> int:
    return _LONGEST_ROW * (len(view.listeners.ids()) + len(view.sockets.ids()))


def _rows(view: View, uid: int | None) -> Iterator[bytes]:
    """A line a listener and socket, each as it is when its turn comes."""
    for listener in view.listeners.all():
        if uid in (None, listener.uid):
            yield _row(listener.id, LISTENER_FACTS, listener)
    shown = [socket for socket in view.sockets.all() if uid in (None, socket.uid)]
    for start in range(0, len(shown), _BATCH):
        batch = shown[start : start + _BATCH]
        for socket, told in zip(batch, view.sockets.ask(batch), strict=True):
            yield _row(socket.id, SOCKET_FACTS, SocketSubject(socket, view, told))


# --- the counters -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StatMembers:
    """The members of /stats: numbers are given to names as they first appear."""

    view: View
    names: list[str] = field(default_factory=list)

    def numbers(self) -> Iterable[int]:
        """All counters."""
        stats = self.view.stats()
        self.names.extend(name for name in stats if name not in self.names)
        return [number for number, name in enumerate(self.names) if name in stats]

    def name(self, number: int) -> str:
        """The counter's name."""
        return self.names[number]

    def find(self, name: str) -> int | None:
        """By the counter's name."""
        return next((number for number in self.numbers() if self.names[number] == name), None)

    def get(self, number: int) -> int | None:
        """The counter's value."""
        return self.view.stats().get(self.names[number]) if number < len(self.names) else None


# --- what has names and can be made -----------------------------------------------------------------------------------


class Named(Protocol[S_co]):
    """Things by name. As long as a name is there, its thing is one object."""

    def names(self) -> Iterable[str]:
        """All names."""

    def get(self, name: str, /) -> S_co | None:
        """The thing of a name, or None if there is none."""


@dataclass(frozen=True, slots=True)
class NamedMembers(Generic[S]):
    """Members by name. What is removed and made again has another number: who had the old one open must not get it."""

    things: Named[S]
    _numbers: dict[str, tuple[int, S]] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def numbers(self) -> Iterable[int]:
        """All that are there; the others are forgotten."""
        for gone in [number for number in self._names if self.get(number) is None]:
            del self._names[gone]
        names = [*self.things.names()]
        for name in self._numbers.keys() - names:
            del self._numbers[name]
        found = map(self.find, names)
        return [number for number in found if number is not None]

    def name(self, number: int) -> str:
        """The member's name, or its number if it is gone."""
        return self._names.get(number, f"#{number}")

    def find(self, name: str) -> int | None:
        """By name: a thing that was not seen before gets a number."""
        thing = self.things.get(name)
        if thing is None:
            return None
        if name not in self._numbers or self._numbers[name][1] is not thing:
            self._numbers[name] = (next(self._count), thing)
            self._names[self._numbers[name][0]] = name
        return self._numbers[name][0]

    def get(self, number: int) -> S | None:
        """The thing, if it is there still."""
        name = self._names.get(number, "")
        latest, thing = self._numbers.get(name, (-1, None))
        return thing if latest == number and self.things.get(name) is thing else None


# --- the credentials ----------------------------------------------------------------------------------------------

_LONGEST_PEM = 256 << 10  # bytes, as for files

CREDENTIAL_FILES: tuple[File[Credential], ...] = (
    File(
        "certificate",
        "The certificate and its intermediates, PEM, its own first.",
        lambda c: c.certificate or b"\n",
        lambda c, text: c.set_certificate(text),
        _LONGEST_PEM,
        check=lambda c, text: c.check_certificate(text),
        changed=lambda c: c.changed("certificate"),
        encoding="latin-1",
    ),
    File(
        "key",
        "Its private key, PEM, not encrypted. It cannot be read back.",
        write=lambda c, text: c.set_key(text),
        limit=_LONGEST_PEM,
        check=lambda c, text: c.check_key(text),
        changed=lambda c: c.changed("key"),
        encoding="latin-1",
    ),
    File(
        "hostnames",
        "What it is for: names, *.names and addresses. Those in the certificate, unless others are written.",
        lambda c: render.lines(c.hostnames),
        lambda c, text: c.set_hostnames(text),
        _LONGEST_PEM,
        check=lambda c, text: c.check_hostnames(text),
        changed=lambda c: c.changed("hostnames"),
    ),
    File(
        "users",
        "Who may serve with it, one a line: a user's name or number, %group, or *. Else root, and ssad's own user.",
        lambda c: render.lines(c.users.shown()),
        lambda c, text: c.set_users(text),
        check=lambda c, text: c.check_users(text),
        look_up=lambda c, text: c.look_up_users(text),
        changed=lambda c: c.changed("users"),
    ),
    File(
        "status",
        "Whether it is in service, until when its certificate is valid, and what is wrong with it.",
        lambda c: render.line(c.status),
    ),
)


def _credentials(view: View) -> Collection:
    credentials = view.credentials
    return Collection(
        "credentials",
        "What servers prove their names with.",
        NamedMembers(credentials),
        Directory("", "A certificate and its key.", CREDENTIAL_FILES),
        create=credentials.create,
        remove=credentials.remove,
        refresh=view.fresh_credentials,
    )


# --- all of it ----------------------------------------------------------------------------------------------------

KERNEL_FILES: dict[str, str] = {
    "tls": "Whether this kernel does TLS, and since which version.",
    "ciphers": "The record ciphers that this kernel can do, one a line.",
    "rekey": "Whether this kernel can change the keys of a connection (TLS 1.3 KeyUpdate).",
}


def _kernel_file(name: str, doc: str) -> File[View]:
    return File(name, doc, lambda view: render.lines(view.kernel.get(name, "").splitlines()), changed=_started)


async def _prepare_store(view: View, text: str) -> None:
    if (policy := view.policy.current.check_so_far("trust_store", text)) is not None:
        await view.prepare(policy)


def _policy_file(name: str, doc: str) -> File[View]:
    return File(
        name,
        doc,
        lambda view: view.policy.current.text(name).encode() + b"\n",
        lambda view, text: view.policy.set(name, text),
        check=lambda view, text: view.policy.check(name, text),
        changed=lambda view: view.policy.changed(name),
        prepare=_prepare_store if name == "trust_store" else None,
    )


def _started(view: View) -> int:
    return int(view.started * 1e9)


def _owner(thing: SocketSubject | Listener) -> int:
    return thing.socket.uid if isinstance(thing, SocketSubject) else thing.uid


def build(view: View) -> Directory:
    """The root directory."""
    version: File[View] = File(
        "version", "The version of ssa.", lambda view: render.line(view.version), changed=_started
    )
    kernel = tuple(_kernel_file(name, doc) for name, doc in KERNEL_FILES.items())
    policy = tuple(_policy_file(row.name, row.doc) for row in SETTINGS.values())
    stat: File[int] = File("", "A counter.", render.line)
    socket = Directory("", "One live socket.", SOCKET_FILES, mode=0o500)
    listener = Directory("", "One listening socket.", LISTENER_FILES, mode=0o500)
    rows: File[View] = File(
        "sockets.jsonl",
        "All listeners and live sockets, a line of JSON each.",
        pieces=_rows,
        most=_most_rows,
        refresh=view.fresh_trust,
    )
    return Directory(
        "",
        "The root.",
        (
            version,
            Directory("kernel", "What this kernel can do.", kernel),
            Directory("policy", "The policy in force.", policy),
            _credentials(view),
            Collection(
                "sockets",
                "The live sockets.",
                SocketMembers(view.sockets, view),
                socket,
                owner=_owner,
                refresh=view.fresh_trust,
            ),
            Collection("listeners", "Who listens.", Numbered(view.listeners), listener, owner=_owner),
            rows,
            Collection("stats", "The daemon's counters.", StatMembers(view), stat),
        ),
    )


# --- inodes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A node of a table with its place in it, and those of its children by name."""

    node: Node
    path: str
    children: dict[str, int]


def _number(node: Node, path: str, table: list[_Numbered]) -> int:
    """Add a node and all below it to a table, and say where it is."""
    place = len(table)
    entry = _Numbered(node, path, {})
    table.append(entry)
    for child in node.children if isinstance(node, Directory) else ():
        entry.children[child.name] = _number(child, f"{path}/{child.name}".lstrip("/"), table)
    return place


class Tree:
    """The nodes by inode, and how they hang together."""

    def __init__(self, root: Directory, subject: object) -> None:
        self._subject = subject
        self._fixed: list[_Numbered] = []
        _number(root, "", self._fixed)
        self._templates: dict[int, list[_Numbered]] = {}
        for place, entry in enumerate(self._fixed):
            if isinstance(entry.node, Collection):
                self._templates[place] = []
                _number(entry.node.each, "", self._templates[place])

    def node(self, inode: int) -> Node | None:
        """What an inode is, whether or not its member is still there."""
        entry = self._entry(inode)
        return entry.node if entry else None

    def is_fixed(self, inode: int) -> bool:
        """Whether a node is there as long as the tree is."""
        return not _split(inode)[0]

    def subject(self, inode: int) -> Any:
        """What the node is about, or None if it is gone."""
        collection, number, _ = _split(inode)
        return self._collection(collection).members.get(number) if collection else self._subject

    def owner(self, inode: int) -> int | None:
        """The uid that a member and all its files belong to; None if that is the daemon's. So is what is gone."""
        collection, number, _ = _split(inode)
        if not collection or (of := self._collection(collection)).owner is None:
            return None
        subject = of.members.get(number)
        return os.geteuid() if subject is None else of.owner(subject)

    async def refresh(self, inode: int) -> None:
        """Find out what is there now, where that has to be looked for."""
        collection = _split(inode)[0] or inode - ROOT
        node = self._fixed[collection].node if 0 <= collection < len(self._fixed) else None
        if isinstance(node, (Collection, File)) and node.refresh is not None:
            await node.refresh()

    def path(self, inode: int) -> str:
        """The path below the mount point, for a message."""
        collection, number, place = _split(inode)
        if not collection:
            return self._fixed[inode - ROOT].path
        parts = (self._fixed[collection].path, self._collection(collection).members.name(number))
        return "/".join(filter(None, (*parts, self._templates[collection][place].path)))

    def child(self, inode: int, name: str) -> int | None:
        """The inode of a name in a directory, or None if there is none."""
        entry = self._entry(inode)
        if entry is None or self.subject(inode) is None:
            return None
        if isinstance(entry.node, Collection):
            number = entry.node.members.find(name)
            return None if number is None else _join(inode - ROOT, number, 0)
        place = entry.children.get(name)
        return None if place is None else self._sibling(inode, place)

    def children(self, inode: int) -> Iterator[tuple[str, int]]:
        """The names in a directory and their inodes."""
        entry = self._entry(inode)
        if entry is None or self.subject(inode) is None:
            return
        if isinstance(entry.node, Collection):
            members = entry.node.members
            yield from ((members.name(number), _join(inode - ROOT, number, 0)) for number in sorted(members.numbers()))
        yield from ((name, self._sibling(inode, place)) for name, place in entry.children.items())

    def make(self, inode: int, name: str) -> int | None:
        """Make a member in a directory, and give its inode; None where none can be made. Raises as `create` does."""
        node = self.node(inode)
        if not isinstance(node, Collection) or node.create is None:
            return None
        node.create(name)
        return self.child(inode, name)

    def remove(self, inode: int, name: str) -> bool:
        """Take a member away from a directory; False where none can be taken away. Raises as `remove` does."""
        node = self.node(inode)
        if not isinstance(node, Collection) or node.remove is None:
            return False
        node.remove(name)
        return True

    def _entry(self, inode: int) -> _Numbered | None:
        collection, _, place = _split(inode)
        table: Sequence[_Numbered] = self._templates.get(collection, ()) if collection else self._fixed
        return table[place] if 0 <= place < len(table) else None

    def _collection(self, place: int) -> Collection:
        node = self._fixed[place].node
        if not isinstance(node, Collection):
            raise TypeError(f"{self._fixed[place].path} is not a collection")
        return node

    @staticmethod
    def _sibling(inode: int, place: int) -> int:
        """The inode of another node in the same table, of the same member."""
        collection, number, _ = _split(inode)
        return _join(collection, number, place) if collection else place + ROOT


def _split(inode: int) -> tuple[int, int, int]:
    """An inode's collection, member and place; (0, 0, place) for a fixed node."""
    collection = inode >> (_MEMBER_BITS + _NODE_BITS)
    if not collection:
        return 0, 0, inode - ROOT
    return collection, (inode >> _NODE_BITS) & ((1 << _MEMBER_BITS) - 1), inode & ((1 << _NODE_BITS) - 1)


def _join(collection: int, number: int, place: int) -> int:
    return (collection << (_MEMBER_BITS + _NODE_BITS)) | (number << _NODE_BITS) | place
