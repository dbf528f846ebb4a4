"""Cookies: a client shows that it can be reached where it says it is, before anything is kept of it.

RFC 6347 section 4.2.1. A cookie is made of the client's address and a secret that changes; so it need not be
remembered, and a forged address gets nothing but an answer smaller than what it sent.
"""

from __future__ import annotations

import hmac
import os

_LIFE = 30.0  # seconds; one is good for as long again, as the exchange may fall on a change
_SIZE = 32  # bytes, as many as DTLS 1.0 allows


class Cookies:
    """The cookies of one port."""

    def __init__(self, now: float) -> None:
        """`now` is on any clock that only goes forward; the others' too."""
        self._secrets = (os.urandom(_SIZE), os.urandom(_SIZE))
        self._changed = now

    def of(self, address: bytes, now: float) -> tuple[bytes, ...]:
        """Those that are good for an address; the first is the one to give out."""
        if now - self._changed > _LIFE:
            kept = self._secrets[0] if now - self._changed <= 2 * _LIFE else os.urandom(_SIZE)
            self._secrets, self._changed = (os.urandom(_SIZE), kept), now
        return tuple(hmac.digest(secret, address, "sha256") for secret in self._secrets)
