"""The policy that is in force, and how it changes while the daemon runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ssa.policy.schema import Policy


def _accept(_policy: Policy) -> None:
    """The check of a holder that has no other."""


class LivePolicy:
    """Holds the current `Policy`. A change is whole or not at all, and is for the next handshake.

    A handshake takes `current` once and keeps it: policies are immutable. Changes come from one thread.

    Args:
        policy: what is in force at first.
        check: run on a changed policy before it counts (does the trust store load?); it raises `BadValue`.
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
        """How often the policy has changed: a cache's key."""
        return self._state[1]

    def changed(self, name: str) -> int:
        """Since when a setting has been what it is, in nanoseconds since 1970."""
        return self._changed[name]

    def check(self, name: str, text: str) -> None:
        """Refuse the beginning of a setting's text that no more text can mend; raises `BadValue`. Nothing changes."""
        if (policy := self.current.check_so_far(name, text)) is not None:
            self._check(policy)

    def set(self, name: str, text: str) -> None:
        """Change one setting; raises `BadValue`, and then nothing has changed."""
        self.put(self.current.replace(name, text))

    def set_many(self, texts: Mapping[str, str]) -> None:
        """Change several settings at once; raises `BadValue`, and then nothing has changed."""
        self.put(self.current.replace_many(texts))

    def put(self, policy: Policy) -> None:
        """Put another policy in force, as one read again from its file."""
        self._check(policy)
        now = time.time_ns()
        self._changed |= {name: now for name, text in policy.texts.items() if text != self.current.text(name)}
        self._state = (policy, self.generation + 1)
