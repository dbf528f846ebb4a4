"""The nodes of the file system by inode. Inodes are computed, so that nothing has to be remembered or forgotten.

The inode of a fixed node is its place in the table of nodes (the root is 1). The inode of a member's node has three
numbers in it:

    bits 63..56 the collection   55..8 the member   7..0 the node in the collection's template
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssa.configfs.members import MEMBER_BITS
from ssa.configfs.nodes import Collection, Directory, File

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ssa.configfs.nodes import Node

ROOT = 1
_NODE_BITS = 8


@dataclass(frozen=True, slots=True)
class _Numbered:
    """A node of a table, with the path to it, and the places of its children by name."""

    node: Node
    path: str
    children: dict[str, int]


def _number(node: Node, path: str, table: list[_Numbered]) -> int:
    """Add a node and all nodes below it to a table. Returns the node's place."""
    place = len(table)
    entry = _Numbered(node, path, {})
    table.append(entry)
    for child in node.children if isinstance(node, Directory) else ():
        entry.children[child.name] = _number(child, f"{path}/{child.name}".lstrip("/"), table)
    return place


def _nothing() -> None:
    return


class Tree:
    """Finds nodes, subjects, owners and children by inode."""

    def __init__(self, root: Directory, subject: object, hear: Callable[[], None] = _nothing) -> None:
        """`hear` is called before something is looked at."""
        self._subject = subject
        self.hear = hear
        self._fixed: list[_Numbered] = []
        _number(root, "", self._fixed)
        self._templates: dict[int, list[_Numbered]] = {}
        for place, entry in enumerate(self._fixed):
            if isinstance(entry.node, Collection):
                self._templates[place] = []
                _number(entry.node.each, "", self._templates[place])

    def node(self, inode: int) -> Node | None:
        """The node of an inode, even if its member is gone; None if no node can have that inode."""
        entry = self._entry(inode)
        return entry.node if entry else None

    def is_fixed(self, inode: int) -> bool:
        """True for a node that is no member's: it is there as long as the tree is."""
        return not _split(inode)[0]

    def subject(self, inode: int) -> Any:
        """The subject that a node's functions take, or None if the member is gone."""
        collection, number, _ = _split(inode)
        return self._collection(collection).members.get(number) if collection else self._subject

    def owner(self, inode: int) -> int | None:
        """The uid that a member and all its files belong to; None for what is the daemon's.

        The files of a member that is gone belong to the daemon's uid.
        """
        collection, number, _ = _split(inode)
        if not collection or (of := self._collection(collection)).owner is None:
            return None
        subject = of.members.get(number)
        return os.geteuid() if subject is None else of.owner(subject)

    async def refresh(self, inode: int) -> None:
        """Run the `refresh` of the collection or file that the inode belongs to, if it has one."""
        collection = _split(inode)[0] or inode - ROOT
        node = self._fixed[collection].node if 0 <= collection < len(self._fixed) else None
        if isinstance(node, (Collection, File)) and node.refresh is not None:
            await node.refresh()

    def path(self, inode: int) -> str:
        """The path of an inode below the mount point, for a message."""
        collection, number, place = _split(inode)
        if not collection:
            return self._fixed[inode - ROOT].path
        parts = (self._fixed[collection].path, self._collection(collection).members.name(number))
        return "/".join(filter(None, (*parts, self._templates[collection][place].path)))

    def child(self, inode: int, name: str) -> int | None:
        """The inode of a name in a directory, or None if the directory has no such name."""
        entry = self._entry(inode)
        if entry is None or self.subject(inode) is None:
            return None
        if isinstance(entry.node, Collection):
            number = entry.node.members.find(name)
            return None if number is None else _join(inode - ROOT, number, 0)
        place = entry.children.get(name)
        return None if place is None else self._sibling(inode, place)

    def children(self, inode: int) -> Iterator[tuple[str, int]]:
        """The names in a directory, with their inodes."""
        entry = self._entry(inode)
        if entry is None or self.subject(inode) is None:
            return
        if isinstance(entry.node, Collection):
            members = entry.node.members
            yield from ((members.name(number), _join(inode - ROOT, number, 0)) for number in sorted(members.numbers()))
        yield from ((name, self._sibling(inode, place)) for name, place in entry.children.items())

    def make(self, inode: int, name: str) -> int | None:
        """Make a member of a directory. Returns its inode, or None if the directory cannot have new members.

        Raises ValueError or OSError, as `Collection.create` does.
        """
        node = self.node(inode)
        if not isinstance(node, Collection) or node.create is None:
            return None
        node.create(name)
        return self.child(inode, name)

    def remove(self, inode: int, name: str) -> bool:
        """Take a member away from a directory. Returns False if the directory does not allow that.

        Raises OSError, as `Collection.remove` does.
        """
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
        """The inode of the node at another place of this inode's table, for the same member."""
        collection, number, _ = _split(inode)
        return _join(collection, number, place) if collection else place + ROOT


def _split(inode: int) -> tuple[int, int, int]:
    """The collection, the member and the place that are in an inode; (0, 0, place) for a fixed node."""
    collection = inode >> (MEMBER_BITS + _NODE_BITS)
    if not collection:
        return 0, 0, inode - ROOT
    return collection, (inode >> _NODE_BITS) & ((1 << MEMBER_BITS) - 1), inode & ((1 << _NODE_BITS) - 1)


def _join(collection: int, number: int, place: int) -> int:
    return (collection << (MEMBER_BITS + _NODE_BITS)) | (number << _NODE_BITS) | place
