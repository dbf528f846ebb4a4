"""A cache that forgets what was not used lately: of judgements, and of trust stores."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Recent(Generic[Key, Value]):
    """A cache of a limited number of values. It forgets those that were not used lately. Safe for threads.

    A look takes no lock, as each lock costs a system call where the kernel has no vDSO. It marks the value as used:
    such a value is passed over once before it is forgotten (the clock algorithm).
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[Key, _Used[Value]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value of a key, or None. It counts as used now."""
        if (used := self._values.get(key)) is None:
            return None
        used.lately = True
        return used.value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value. If there are too many, forget the oldest that was not used since it was passed over."""
        with self._lock:
            if key not in self._values:
                while len(self._values) >= self._size:
                    self._pass_over_the_oldest()
            self._values[key] = _Used(value)

    def _pass_over_the_oldest(self) -> None:
        key = next(iter(self._values))
        used = self._values.pop(key)
        if used.lately:
            used.lately = False
            self._values[key] = used


class _Used(Generic[Value]):
    __slots__ = ("lately", "value")

    def __init__(self, value: Value) -> None:
        self.value = value
        self.lately = False
