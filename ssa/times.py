"""Writes times in the one form that ssa shows: RFC 3339, in UTC, in whole seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


def rfc3339(time: datetime) -> str:
    """The text of a time in UTC: ``2027-01-31T12:00:00Z``."""
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"
