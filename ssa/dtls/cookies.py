"""Cookies, by which a client shows that it receives datagrams at its address (RFC 6347 section 4.2.1).

A cookie is made of the client's address and a secret that changes, so the server remembers nothing of a client that
has not shown one. A datagram with a forged address makes the server send a smaller datagram there, and nothing else.
"""

from __future__ import annotations

import hmac
import os

_LIFE = 30.0  # seconds that a secret is given out; its cookies are good for as long again
_SIZE = 32  # bytes: DTLS 1.0 allows no more


class Cookies:
    """The cookies of one port."""

    def __init__(self, now: float) -> None:
        """`now` is on any clock that only goes forward, here and below."""
        self._secrets = (os.urandom(_SIZE), os.urandom(_SIZE))
        self._changed = now

    def of(self, address: bytes, now: float) -> tuple[bytes, ...]:
        """The cookies that are good for an address. The first is the one to give out."""
        if now - self._changed > _LIFE:
            kept = self._secrets[0] if now - self._changed <= 2 * _LIFE else os.urandom(_SIZE)
            self._secrets, self._changed = (os.urandom(_SIZE), kept), now
        return tuple(hmac.digest(secret, address, "sha256") for secret in self._secrets)
