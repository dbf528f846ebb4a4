"""The limit of ssad's descriptors for each user."""

from __future__ import annotations

import os

_TRUSTED = 0  # root


def limit(free: int, uid: int) -> int:
    """The share of `free` descriptors that a user may have: a quarter; root and ssad's own user, three quarters."""
    return free * 3 // 4 if uid in {_TRUSTED, os.geteuid()} else free // 4
