"""The policy that is in force, and how it changes while the daemon runs."""

from __future__ import annotations

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

    @property
    def current(self) -> Policy:
        """The policy in force."""
        return self._state[0]

    @property
    def generation(self) -> int:
        """How often the policy has changed: a cache's key."""
        return self._state[1]

    def set(self, name: str, text: str) -> None:
        """Change one setting; raises `BadValue`, and then nothing has changed."""
        self.put(self.current.replace(name, text))

    def set_many(self, texts: Mapping[str, str]) -> None:
        """Change several settings at once; raises `BadValue`, and then nothing has changed."""
        self.put(self.current.replace_many(texts))

    def put(self, policy: Policy) -> None:
        """Put another policy in force, as one read again from its file."""
        self._check(policy)
        self._state = (policy, self.generation + 1)
