"""How many of ssad's descriptors each user may have."""

from __future__ import annotations

import os

_TRUSTED = 0  # root


def limit(free: int, uid: int) -> int:
    """How many of `free` descriptors a user may have: a quarter; root, and the daemon's own user, three quarters."""
    return free * 3 // 4 if uid in {_TRUSTED, os.geteuid()} else free // 4
