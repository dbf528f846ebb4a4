"""What is in the file system: tables of name, read, write. Nothing here knows of FUSE.

A file's `read` makes its bytes from a subject, its `write` takes text to it; the mode follows from which of them
there are. A `Directory` has fixed children. A `Collection` has one child a member, named by its provider, each of
them a copy of one template: the sockets, the counters.

Inodes are stateless, so that nothing has to be remembered or forgotten: a fixed node's inode is its place in the
table (the root is 1), a member's says which collection, which member and which node of the template:

    bits 63..56 the collection   55..8 the member   7..0 the node in the template
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from ssa.configfs import render
from ssa.policy.schema import MAX_TEXT, SETTINGS, BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ssa.configfs.view import Credential, Socket, View

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
        check: for a value that may come in several writes, and is then complete when the file is closed: takes what
            has come so far, and raises as `write` does if nothing more can make it a value.
    """

    name: str
    doc: str
    read: Callable[[S], bytes] | None = None
    write: Callable[[S, str], None] | None = None
    limit: int = MAX_TEXT
    check: Callable[[S, str], None] | None = None

    @property
    def mode(self) -> int:
        """The permission bits: what can be read is read by everyone, what can be written by the owner."""
        return (0o444 if self.read else 0) | (0o200 if self.write else 0)


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
    """

    name: str
    doc: str
    members: Members[Any]
    each: File[Any] | Directory
    mode: int = 0o755
    create: Callable[[str], None] | None = None
    remove: Callable[[str], None] | None = None


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


@dataclass(frozen=True, slots=True)
class SocketSubject:
    """A socket, and what it is seen under."""

    socket: Socket
    view: View

    @property
    def compliant(self) -> bool:
        """Whether it would be made under the policy in force now."""
        return self.socket.compliant(self.view.policy.current)


@dataclass(frozen=True, slots=True)
class SocketMembers:
    """The members of /sockets."""

    view: View

    def numbers(self) -> Iterable[int]:
        """The live ones."""
        return self.view.sockets.ids()

    def name(self, number: int) -> str:
        """The number is the name."""
        return str(number)

    def find(self, name: str) -> int | None:
        """By the number as it is shown: 7, not 007."""
        number = int(name) if name.isascii() and name.isdigit() and len(name) <= 15 else -1
        return number if str(number) == name and self.get(number) else None

    def get(self, number: int) -> SocketSubject | None:
        """Ask the daemon."""
        socket = self.view.sockets.get(number)
        return None if socket is None else SocketSubject(socket, self.view)


def _close(subject: SocketSubject, text: str) -> None:
    if text.strip() != "1":
        raise BadValue("expected 1, which ends the connection")
    subject.socket.end()


SOCKET_FILES: tuple[File[SocketSubject], ...] = (
    File("peer_cert", "The peer's certificate, PEM.", lambda s: render.pem(s.socket.chain[:1])),
    File(
        "peer_chain", "All certificates that the peer sent, its own first, PEM.", lambda s: render.pem(s.socket.chain)
    ),
    File("peer_identity", "Who the peer was verified to be.", lambda s: render.line(s.socket.identity)),
    File("hostname", "The host name asked for (SNI).", lambda s: render.line(s.socket.hostname)),
    File("role", "client or server: which side this machine is.", lambda s: render.line(s.socket.role)),
    File("version", "Protocol version, asked of the kernel.", lambda s: render.line(s.socket.kernel().version)),
    File("cipher", "Record cipher, asked of the kernel.", lambda s: render.line(s.socket.kernel().cipher)),
    File("group", "Key exchange group.", lambda s: render.line(s.socket.group)),
    File("alpn", "Application protocol agreed on; an empty line if none was.", lambda s: render.line(s.socket.alpn)),
    File("resumed", "yes if a session was resumed, else no.", lambda s: render.yes_no(s.socket.resumed)),
    File("data_path", "ktls or relay: which is in use.", lambda s: render.line(s.socket.data_path)),
    File(
        "tx",
        "Who encrypts what is sent: sw, hw or base (nobody), asked of the kernel.",
        lambda s: render.line(s.socket.kernel().tx),
    ),
    File("rx", "Who decrypts what is received, asked of the kernel.", lambda s: render.line(s.socket.kernel().rx)),
    File("local", "This side's address and port.", lambda s: render.line(s.socket.local)),
    File("remote", "The peer's address and port.", lambda s: render.line(s.socket.remote)),
    File("pid", "The process that asked for TLS.", lambda s: render.line(s.socket.pid)),
    File("uid", "The user that asked for TLS.", lambda s: render.line(s.socket.uid)),
    File("exe", "The program that asked for TLS.", lambda s: render.line(s.socket.exe)),
    File("profile", "The profile that matched; an empty line if none did.", lambda s: render.line(s.socket.profile)),
    File("verdicts", "What each validator said, one a line.", lambda s: render.lines(s.socket.verdicts)),
    File("opened", "When the handshake was done, RFC 3339 in UTC.", lambda s: render.moment(s.socket.opened)),
    File(
        "bytes_sent",
        "Bytes sent by TCP, records and handshake included: asked of the kernel, or counted by the relay.",
        lambda s: render.line(s.socket.kernel().bytes_sent),
    ),
    File(
        "bytes_received",
        "Bytes received by TCP: the same.",
        lambda s: render.line(s.socket.kernel().bytes_received),
    ),
    File(
        "compliant",
        "yes if this connection would be made under the policy in force now, else no.",
        lambda s: render.yes_no(s.compliant),
    ),
    File("close", "Write 1 to end the connection.", write=_close),
)


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

_LONGEST_PEM = 64 << 10  # bytes

CREDENTIAL_FILES: tuple[File[Credential], ...] = (
    File(
        "certificate",
        "The certificate and its intermediates, PEM, its own first.",
        lambda c: c.certificate or b"\n",
        lambda c, text: c.set_certificate(text),
        _LONGEST_PEM,
        lambda c, text: c.check_certificate(text),
    ),
    File(
        "key",
        "Its private key, PEM, not encrypted. It cannot be read back.",
        write=lambda c, text: c.set_key(text),
        limit=_LONGEST_PEM,
        check=lambda c, text: c.check_key(text),
    ),
    File(
        "hostnames",
        "What it is for: names, *.names and addresses. Those in the certificate, unless others are written.",
        lambda c: render.lines(c.hostnames),
        lambda c, text: c.set_hostnames(text),
        _LONGEST_PEM,
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
    )


# --- all of it ----------------------------------------------------------------------------------------------------

KERNEL_FILES: dict[str, str] = {
    "tls": "Whether this kernel does TLS, and since which version.",
    "ciphers": "The record ciphers that this kernel can do, one a line.",
    "rekey": "Whether this kernel can change the keys of a connection (TLS 1.3 KeyUpdate).",
}


def _kernel_file(name: str, doc: str) -> File[View]:
    return File(name, doc, lambda view: render.lines(view.kernel.get(name, "").splitlines()))


def _policy_file(name: str, doc: str) -> File[View]:
    return File(
        name,
        doc,
        lambda view: view.policy.current.text(name).encode() + b"\n",
        lambda view, text: view.policy.set(name, text),
    )


def build(view: View) -> Directory:
    """The root directory."""
    version: File[View] = File("version", "The version of ssa.", lambda view: render.line(view.version))
    kernel = tuple(_kernel_file(name, doc) for name, doc in KERNEL_FILES.items())
    policy = tuple(_policy_file(row.name, row.doc) for row in SETTINGS.values())
    stat: File[int] = File("", "A counter.", render.line)
    socket = Directory("", "One live socket.", SOCKET_FILES)
    return Directory(
        "",
        "The root.",
        (
            version,
            Directory("kernel", "What this kernel can do.", kernel),
            Directory("policy", "The policy in force.", policy),
            _credentials(view),
            Collection("sockets", "The live sockets.", SocketMembers(view), socket),
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
