"""The policy in force, and its changes while the daemon runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ssa.policy.schema import Policy


def _accept(_policy: Policy) -> None:
    """Accept every policy: the check of a `LivePolicy` that is given no other."""


class LivePolicy:
    """Holds the policy in force. A change is made whole or not at all, and counts from the next handshake on.

    A handshake takes `current` once and keeps it: a `Policy` is immutable. One thread makes all changes.

    Args:
        policy: the first policy in force.
        check: judges a changed policy before it counts (does its trust store load?), and raises `BadValue`.
    """

    def __init__(self, policy: Policy, check: Callable[[Policy], None] = _accept) -> None:
        check(policy)
        self._check = check
        self._state = (policy, 0)
        self._changed = dict.fromkeys(policy.texts, time.time_ns())

    @property
    def current(self) -> Policy:
        """The policy in force."""
        return self._state[0]

    @property
    def generation(self) -> int:
        """The number of changes so far. Caches use it as a key."""
        return self._state[1]

    def changed(self, name: str) -> int:
        """The time of a setting's last change, in nanoseconds since 1970."""
        return self._changed[name]

    def check(self, name: str, text: str) -> None:
        """Raise `BadValue` for the beginning of a setting's text if no more text can make it valid. Changes nothing."""
        if (policy := self.current.check_so_far(name, text)) is not None:
            self._check(policy)

    def set(self, name: str, text: str) -> None:
        """Change one setting. Raises `BadValue`, and then changes nothing."""
        self.put(self.current.replace(name, text))

    def set_many(self, texts: Mapping[str, str]) -> None:
        """Change several settings at once. Raises `BadValue`, and then changes nothing."""
        self.put(self.current.replace_many(texts))

    def put(self, policy: Policy) -> None:
        """Put another policy in force, such as one that was read from its file again. Raises `BadValue`."""
        self._check(policy)
        now = time.time_ns()
        self._changed |= {name: now for name, text in policy.texts.items() if text != self.current.text(name)}
        self._state = (policy, self.generation + 1)
