"""The members of collections, by number and by name. A member's inode has its number in it.

A number is never given to a second member: a program that has a file of the first one open must not get the second.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

MEMBER_BITS = 48  # of a member's number


class Members(Protocol[S_co]):
    """The children of a collection."""

    def numbers(self) -> Iterable[int]:
        """The numbers of the members there are: 0 to 2**MEMBER_BITS - 1."""

    def name(self, number: int) -> str:
        """The name of a member."""

    def find(self, name: str) -> int | None:
        """The number of the member of this name, or None if there is none."""

    def get(self, number: int) -> S_co | None:
        """The subject of a member's files, or None if it is gone."""


# --- by number ----------------------------------------------------------------------------------------------------


class ByNumber(Protocol[S_co]):
    """Things by number. No number is used twice."""

    def ids(self) -> Iterable[int]:
        """The numbers of the things there are."""

    def get(self, number: int, /) -> S_co | None:
        """The thing of a number, or None if it is gone."""


@dataclass(frozen=True, slots=True)
class Numbered(Generic[S_co]):
    """Members whose name is their number."""

    things: ByNumber[S_co]

    def numbers(self) -> Iterable[int]:
        """The numbers of the members there are."""
        return self.things.ids()

    def name(self, number: int) -> str:
        """The number in decimal digits."""
        return str(number)

    def find(self, name: str) -> int | None:
        """The number that a name is, as `name` writes it: 7, not 007."""
        number = int(name) if name.isascii() and name.isdigit() and len(name) <= 15 else -1
        return number if str(number) == name and self.get(number) else None

    def get(self, number: int) -> S_co | None:
        """The thing of that number, or None if it is gone."""
        return self.things.get(number)


# --- counters -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counters:
    """Counters by name. Each name gets a number when it is first seen."""

    counts: Callable[[], Mapping[str, int]]
    names: list[str] = field(default_factory=list)

    def numbers(self) -> Iterable[int]:
        """The numbers of all counters."""
        counts = self.counts()
        self.names.extend(name for name in counts if name not in self.names)
        return [number for number, name in enumerate(self.names) if name in counts]

    def name(self, number: int) -> str:
        """The name of a counter."""
        return self.names[number]

    def find(self, name: str) -> int | None:
        """The number of the counter of this name, or None if there is none."""
        return next((number for number in self.numbers() if self.names[number] == name), None)

    def get(self, number: int) -> int | None:
        """The value of a counter, or None if there is none of that number."""
        return self.counts().get(self.names[number]) if number < len(self.names) else None


# --- by name, made and removed --------------------------------------------------------------------------------------


class ByName(Protocol[S_co]):
    """Things by name. As long as a name is there, its thing is one object."""

    def names(self) -> Iterable[str]:
        """All names."""

    def get(self, name: str, /) -> S_co | None:
        """The thing of a name, or None if there is none."""


@dataclass(frozen=True, slots=True)
class Named(Generic[S]):
    """Members by name. One that is removed and made again gets another number."""

    things: ByName[S]
    _numbers: dict[str, tuple[int, S]] = field(default_factory=dict)
    _names: dict[int, str] = field(default_factory=dict)
    _count: Iterator[int] = field(default_factory=itertools.count)

    def numbers(self) -> Iterable[int]:
        """The numbers of the members there are. Those of members that are gone are forgotten."""
        for gone in [number for number in self._names if self.get(number) is None]:
            del self._names[gone]
        names = [*self.things.names()]
        for name in self._numbers.keys() - names:
            del self._numbers[name]
        found = map(self.find, names)
        return [number for number in found if number is not None]

    def name(self, number: int) -> str:
        """The name of a member; ``#`` and its number if it is gone."""
        return self._names.get(number, f"#{number}")

    def find(self, name: str) -> int | None:
        """The number of the thing of this name, or None if there is none. A new thing gets a new number."""
        thing = self.things.get(name)
        if thing is None:
            return None
        if name not in self._numbers or self._numbers[name][1] is not thing:
            self._numbers[name] = (next(self._count), thing)
            self._names[self._numbers[name][0]] = name
        return self._numbers[name][0]

    def get(self, number: int) -> S | None:
        """The thing of that number, or None if it is gone."""
        name = self._names.get(number, "")
        latest, thing = self._numbers.get(name, (-1, None))
        return thing if latest == number and self.things.get(name) is thing else None
