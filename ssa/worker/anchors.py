"""Keeps the trust anchors that applications bring, by their content: to read some thousands takes a tenth of a second.

For each user one large set or many small ones are kept. All users together have a limit too, as the memory of a set is
some twelve times that of its text.
"""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, NamedTuple

from ssa import errors, trust
from ssa.protocol.options import MAX_ANCHORS

if TYPE_CHECKING:
    from collections.abc import Sequence

_OF_ONE_USER = 4 << 20  # bytes of text
_OF_ALL = 16 << 20
_EACH = 4096  # bytes that the smallest set counts for


_NOBODY = trust.TrustStore((), "TLS_TRUSTED_PEER_CERTIFICATES, which is an empty set")


class _Kept(NamedTuple):
    store: trust.TrustStore
    size: int


class Anchors:
    """The sets that were used last. Safe to use from several threads."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, bytes], _Kept] = {}
        self._lock = threading.Lock()

    def get_untrusted(self, uid: int, texts: Sequence[bytes]) -> trust.TrustStore:
        """The trust store of some PEM texts; without a text it is empty. It takes long: call it in a thread.

        Raises `ssa.SSAError` BAD_VALUE where there is no usable certificate, or there are too many.
        """
        text = b"\n".join(texts)
        if not text:
            return _NOBODY
        if len(text) > MAX_ANCHORS:
            raise errors.error("BAD_VALUE", f"the trust anchors are longer than {MAX_ANCHORS >> 20} MiB")
        key = (uid, hashlib.sha256(text).digest())
        with self._lock:
            if (kept := self._kept.pop(key, None)) is not None:
                self._kept[key] = kept  # now the one used last
                return kept.store
        try:
            store = trust.TrustStore.of_pem_untrusted(text, "TLS_TRUSTED_PEER_CERTIFICATES")
        except ValueError as exc:
            raise errors.error("BAD_VALUE", str(exc)) from exc
        with self._lock:
            self._put(key, _Kept(store, max(len(text), _EACH)))
            return self._kept[key].store

    def _put(self, key: tuple[int, bytes], kept: _Kept) -> None:
        self._kept.setdefault(key, kept)
        self._shrink([other for other in self._kept if other[0] == key[0]], _OF_ONE_USER)
        self._shrink([*self._kept], _OF_ALL)

    def _shrink(self, keys: list[tuple[int, bytes]], most: int) -> None:
        """Forget the sets that were not used for longest, but never the last one."""
        total = sum(self._kept[key].size for key in keys)
        for key in keys[:-1]:
            if total <= most:
                return
            total -= self._kept.pop(key).size
