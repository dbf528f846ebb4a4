"""Trust stores and credentials on their way to a worker, which can open no file: each is in a file in memory."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any, cast

from ssa.credentials import Credential
from ssa.trust.certificate import Certificate
from ssa.trust.store import Anchor, TrustStore
from ssa.worker import frames, messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ssa.trust.evidence import PeerRole

_FIELDS = ("name", "chain", "certificate_pem", "key_pem", "hostnames", "kind", "digest")

Usable = tuple[tuple[Credential, ...], tuple[str, ...]]  # what may be served with, and the names of the others


def of_store(store: TrustStore) -> int:
    """A file with a trust store. The caller closes it. Raises OSError."""
    anchors = tuple((anchor.certificate.der, tuple(anchor.roles)) for anchor in store.anchors())
    return _file(messages.StoreContent(store.source, anchors, store.skipped))


def store(descriptor: int) -> TrustStore:
    """The trust store in a file, which is closed."""
    content: messages.StoreContent = _content(descriptor)
    anchors = [Anchor(Certificate(der), cast("tuple[PeerRole, ...]", roles)) for der, roles in content.anchors]
    return TrustStore(anchors, content.shown, None, content.skipped)


def of_usable(usable: Sequence[Credential], denied: Sequence[str]) -> int:
    """A file with the credentials that a user may serve with. The caller closes it. Raises OSError."""
    pairs = (messages.Pair(**{name: getattr(credential, name) for name in _FIELDS}) for credential in usable)
    return _file(messages.CredentialContent(tuple(pairs), tuple(denied)))


def usable(descriptor: int) -> Usable:
    """The credentials in a file, which is closed."""
    content: messages.CredentialContent = _content(descriptor)
    pairs = (Credential(**{name: getattr(pair, name) for name in _FIELDS}) for pair in content.pairs)
    return tuple(pairs), content.denied


def _file(content: Any) -> int:
    descriptor = os.memfd_create("ssa", os.MFD_CLOEXEC)
    try:
        data = memoryview(frames.pack([content]))
        while data:
            data = data[os.write(descriptor, data) :]
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _content(descriptor: int) -> Any:
    try:
        with mmap.mmap(descriptor, 0, prot=mmap.PROT_READ) as mapped:
            (content,) = frames.parse_untrusted(mapped[:], messages.CONTENTS)
            return content
    finally:
        os.close(descriptor)
