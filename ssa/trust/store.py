"""The trust anchors: read from files once, kept in OpenSSL's form, used for every judgement.

Loading Debian's bundle takes tens of milliseconds, and a judgement far less than one. So a store is loaded once, and
`is_stale` is asked before use. No other module of the package reads files.

One bad certificate must not stop everything: a certificate that cannot be used is skipped and counted. The message of a
refusal names it, as it may be the reason.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import crypto

from ssa import pem
from ssa.errors import SSAError, error, printable
from ssa.files import Trail, list_directory, read_regular, settled
from ssa.trust import der
from ssa.trust.certificate import Certificate
from ssa.trust.extensions import ANY_PURPOSE, PURPOSES
from ssa.trust.recent import Recent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from ssa.names import Host
    from ssa.trust.evidence import PeerRole, Strength, Verified

_ffi, _lib = _openssl.ffi, _openssl.lib

# The places where distributions keep the system's anchors. The first that exists counts.
SYSTEM_PATHS: tuple[str, ...] = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch, Gentoo, Alpine
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # Fedora, RHEL
    "/etc/pki/tls/certs/ca-bundle.crt",  # older Fedora and RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/var/lib/ca-certificates/ca-bundle.pem",  # openSUSE, its target
    "/etc/pki/tls/cacert.pem",  # OpenELEC
    "/etc/ssl/cert.pem",  # Alpine without ca-certificates
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
)

_MAX_FILE = 16 << 20  # bytes: a bundle is 200 kB, so whatever is bigger is something else
_MAX_FILES = 8192  # in a directory
_MAX_ANCHORS = 8192
_MAX_RECENT = 256  # intermediates kept parsed, and judgements kept
_MAX_KEPT = 16 << 10  # bytes of a chain that is kept: usual chains are smaller

ROLES: tuple[PeerRole, ...] = ("server", "client")
# OpenSSL checks the purpose only if the store names one: X509StoreContext alone does not check it.
_PURPOSES: dict[PeerRole, int] = {
    "server": _lib.X509_PURPOSE_SSL_SERVER,
    "client": _lib.X509_PURPOSE_SSL_CLIENT,
}
# An intermediate or a leaf in the store is trusted, as by curl since 7.68. Certificate policies are not processed, as
# in curl: OpenSSL's POLICY_CHECK refuses every chain of a CA that demands a policy if the caller names none.
_FLAGS = crypto.X509StoreFlags.PARTIAL_CHAIN

Question = tuple[tuple[bytes, ...], "Host | None", "PeerRole", "Strength"]  # chain, host, role of the peer, policy


class Judgement(NamedTuple):
    """An earlier judgement, and the period in which all its certificates are valid."""

    verified: Verified
    start: datetime
    end: datetime


class Anchor(NamedTuple):
    """A trust anchor, and the roles of the peers that it is trusted for."""

    certificate: Certificate
    roles: tuple[PeerRole, ...] = ROLES


def native_store(
    anchors: Iterable[Certificate], role: PeerRole, when: datetime | None = None, *, strict: bool = False
) -> crypto.X509Store:
    """OpenSSL's store of these anchors. It judges peers of this role, now or at another moment.

    The time of a store can be set once only: X509_VERIFY_PARAM_inherit(3) does not replace it.
    """
    store: Any = crypto.X509Store()
    store.set_flags(_FLAGS | crypto.X509StoreFlags.X509_STRICT if strict else _FLAGS)
    native = store._store  # noqa: SLF001 - pyOpenSSL has no call to set the purpose
    if _lib.X509_STORE_set_purpose(native, _PURPOSES[role]) != 1 or _lib.X509_STORE_set1_param(native, _NO_CN) != 1:
        raise RuntimeError("OpenSSL cannot check the purpose of certificates")
    if when is not None:
        store.set_time(when)
    for anchor in anchors:
        store.add_cert(anchor.native)
    return cast("crypto.X509Store", store)


def _never_the_subject() -> Any:
    """Parameters that exempt the subject's CN from OpenSSL's name constraints: it is no host name (RFC 9525)."""
    parameters = _ffi.gc(_lib.X509_VERIFY_PARAM_new(), _lib.X509_VERIFY_PARAM_free)
    _lib.X509_VERIFY_PARAM_set_hostflags(parameters, _lib.X509_CHECK_FLAG_NEVER_CHECK_SUBJECT)
    return parameters


_NO_CN = _never_the_subject()


class TrustStore:
    """A set of trust anchors. `load` makes it. Safe to use from several threads.

    Attributes:
        source: the place that the anchors are from, for messages.
        skipped: one line for each certificate or file that could not be used. Without it fewer peers are trusted.
        trail: the way to its files; None if it is from no file.
    """

    def __init__(
        self,
        anchors: Iterable[Certificate | Anchor],
        source: str,
        trail: Trail | None = None,
        skipped: tuple[str, ...] = (),
    ) -> None:
        found = [anchor if isinstance(anchor, Anchor) else Anchor(anchor) for anchor in anchors]
        self._by_der = {anchor.certificate.der: anchor for anchor in found}
        self._by_subject: dict[bytes, list[Anchor]] = defaultdict(list)
        for anchor in self._by_der.values():
            self._by_subject[anchor.certificate.subject].append(anchor)
        self._native = {(role, False): native_store(self._trusted(role), role) for role in ROLES}
        self._intermediates: Recent[bytes, Certificate] = Recent(_MAX_RECENT)
        self._judgements: Recent[Question, Judgement] = Recent(_MAX_RECENT)
        self.source = source
        self.trail = trail
        self.skipped = skipped

    def _trusted(self, role: PeerRole) -> list[Certificate]:
        return [anchor.certificate for anchor in self._by_der.values() if role in anchor.roles]

    @classmethod
    def load(cls, source: str | os.PathLike[str], avoid: str = "") -> TrustStore:
        """Read the trust anchors. Call it in a thread: it may wait for a file system.

        Args:
            source: ``system`` for the anchors of the distribution; or a file, PEM (text between the blocks is ignored)
                or DER; or a directory of such files, hashed (``openssl rehash``) or not.
            avoid: a mount point below which no file is read.

        Raises:
            OSError: the file does not exist, cannot be read, or lies below `avoid`.
            ValueError: it has no usable certificate in it.
        """
        path = _system() if source == "system" else Path(source)
        with _named(path):
            (anchors, skipped), trail = settled(lambda trail: _load(path, trail), avoid)
        if not anchors:
            raise ValueError(f"trust store {path}: {skipped[0] if skipped else 'no certificate in it'}")
        return cls(anchors, str(path), trail, tuple(skipped))

    @classmethod
    def of_pem_untrusted(cls, text: bytes, source: str) -> TrustStore:
        """A store of the certificates in a text. Raises ValueError if none can be used."""
        skipped: list[str] = []
        anchors = list(_parse(_certificates(text, source, skipped), skipped))
        if not anchors:
            raise ValueError(skipped[0] if skipped else f"{source}: no certificate in it")
        return cls(anchors, source, None, tuple(skipped))

    def is_stale(self) -> bool:
        """True if `changed` has to be called, in a thread. It does not wait for a network or another process."""
        return self.trail is not None and self.trail.is_stale()

    def changed(self) -> bool:
        """True if one of its files was changed, replaced or removed, or its directory got a file, since it was read.

        Call it in a thread: it may wait for a file system.
        """
        return self.trail is not None and self.trail.changed()

    def __len__(self) -> int:
        return len(self._by_der)

    def anchors(self) -> list[Anchor]:
        """All anchors."""
        return list(self._by_der.values())

    def trusts(self, certificate: Certificate, role: PeerRole) -> bool:
        """True for a trust anchor of peers of this role."""
        anchor = self._by_der.get(certificate.der)
        return anchor is not None and role in anchor.roles

    def get(self, der: bytes) -> Certificate | None:
        """The parsed certificate with these bytes: an anchor, or an intermediate of an earlier judgement. Or None."""
        anchor = self._by_der.get(der)
        return anchor.certificate if anchor is not None else self._intermediates.get(der)

    def note(self) -> str:
        """A note on the skipped anchors, for the message of a refusal; empty if none was skipped."""
        if not self.skipped:
            return ""
        number = len(self.skipped)
        return f"{number} anchor{'s were' if number > 1 else ' was'} skipped: {self.skipped[0]}"

    def recall(self, question: Question, when: datetime) -> Verified | None:
        """The earlier judgement of this question, if all certificates of its path are valid at that moment. Or None.

        A judgement depends only on its question, these anchors and the time, and on the time only through the
        certificates' periods. So judging again would give the same answer, 0.3 ms later. A future validator that looks
        at anything else, such as revocation, has to be asked in addition.
        """
        known = self._judgements.get(question)
        return known.verified if known is not None and known.start <= when <= known.end else None

    def remember(self, question: Question, path: Sequence[Certificate], verified: Verified) -> None:
        """Keep a judgement, and its intermediates, parsed but not trusted: many peers send the same ones.

        Only chains that were accepted are kept, so a stranger can neither fill the cache nor push others out.
        """
        if sum(map(len, question[0])) > _MAX_KEPT:
            return
        for certificate in path[1:-1]:
            self._intermediates.put(certificate.der, certificate)
        start = max(certificate.valid[0] for certificate in path)
        end = min(certificate.valid[1] for certificate in path)
        self._judgements.put(question, Judgement(verified, start, end))

    def named(self, subject: bytes, role: PeerRole) -> list[Certificate]:
        """The anchors for this role with this subject (a name in DER)."""
        return [anchor.certificate for anchor in self._by_subject.get(subject, ()) if role in anchor.roles]

    def verify(
        self,
        role: PeerRole,
        leaf: Certificate,
        others: Iterable[Certificate],
        when: datetime | None,
        *,
        strict: bool = False,
    ) -> list[crypto.X509]:
        """OpenSSL's path from the leaf to an anchor, now or at a moment. Raises `crypto.X509StoreContextError`."""
        store = self._native.get((role, strict)) if when is None else None
        if store is None:
            store = native_store(self._trusted(role), role, when, strict=strict)
            if when is None:
                self._native[role, strict] = store
        return verify(store, leaf, others)


def good(store: TrustStore | SSAError | None, source: str) -> TrustStore:
    """A trust store that was read, or why it was not. Raises `ssa.SSAError` TRUST_STORE: then nothing is trusted."""
    if store is None:
        raise error("TRUST_STORE", f"{source}: it was not read yet")
    if isinstance(store, SSAError):
        raise error(store.reason, store.detail)
    return store


def verify(store: crypto.X509Store, leaf: Certificate, others: Iterable[Certificate]) -> list[crypto.X509]:
    """Have OpenSSL build and verify a path. Raises `crypto.X509StoreContextError`."""
    try:
        return crypto.X509StoreContext(store, leaf.native, [other.native for other in others]).get_verified_chain()
    finally:
        # A refusal leaves errors in OpenSSL's queue, which the next connection would take for its own.
        _lib.ERR_clear_error()


# --- reading ------------------------------------------------------------------------------------------------------


def _system() -> Path:
    for name in SYSTEM_PATHS:
        if (path := Path(name)).exists():
            return path
    raise FileNotFoundError(errno.ENOENT, f"this system has no trust store: none of {', '.join(SYSTEM_PATHS)} exists")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make the message of an error say that it is about the trust store."""
    try:
        yield
    except OSError as failure:
        name = failure.filename or str(path)
        raise type(failure)(failure.errno, f"trust store cannot be read: {failure.strerror}", name) from failure
    except ValueError as failure:
        raise ValueError(f"trust store {failure}") from failure


class _Found(NamedTuple):
    """A certificate in a file: its place, for messages; its PEM label; its DER."""

    where: str
    label: str
    data: bytes


def _load(path: Path, trail: Trail) -> tuple[list[Anchor], list[str]]:
    skipped: list[str] = []
    return list(_parse(_read(path, trail, skipped), skipped)), skipped


def _read(path: Path, trail: Trail, skipped: list[str]) -> Iterator[_Found]:
    """The certificates of a file or directory, not parsed yet."""
    status = trail.follow(path, listed=True)
    if status is None or not stat.S_ISDIR(status.st_mode):
        data, _ = read_regular(path, trail, _MAX_FILE)
        yield from _certificates(data, str(path), skipped)
        return
    for entry in list_directory(trail, _MAX_FILES):
        try:
            data, _ = read_regular(entry, trail, _MAX_FILE)
        except (OSError, ValueError) as failure:  # a key that we may not read, or a dangling link
            if not os.path.isdir(entry):  # noqa: PTH112 - it was followed already
                skipped.append(f"{entry}: {failure.strerror}" if isinstance(failure, OSError) else str(failure))
        else:
            yield from _certificates(data, entry, skipped)


def _certificates(data: bytes, path: str, skipped: list[str]) -> Iterator[_Found]:
    blocks = [block for block in pem.blocks(data) if block.is_certificate]
    for number, block in enumerate(blocks, 1):
        try:
            yield _Found(f"{path}: certificate {number}", block.label, block.der_untrusted())
        except ValueError as failure:
            skipped.append(f"{path}: certificate {number}: {failure}")
    if not blocks and data.startswith(b"\x30"):
        yield _Found(path, "", data)


def _parse(found: Iterable[_Found], skipped: list[str]) -> Iterator[Anchor]:
    seen: set[bytes] = set()
    for where, label, data in found:
        if data in seen:
            continue
        seen.add(data)
        if len(seen) > _MAX_ANCHORS:
            raise ValueError(f"{where}: more than {_MAX_ANCHORS} certificates")
        try:
            if anchor := _anchor_untrusted(label, data):
                yield anchor
        except Exception as failure:  # noqa: BLE001 - the parser may raise anything; the other anchors count
            skipped.append(f"{where}: {printable(str(failure))}")


def _anchor_untrusted(label: str, data: bytes) -> Anchor | None:
    """The anchor; None if the file says that it is trusted for neither TLS servers nor clients."""
    if label != pem.TRUSTED:
        return Anchor(Certificate(data))
    certificate, *settings = der.elements_untrusted(data)
    roles = tuple(role for role in ROLES if not settings or _is_trusted_for(role, settings[0]))
    return Anchor(Certificate(certificate.whole), roles) if roles else None


def _is_trusted_for(role: PeerRole, settings: der.Element) -> bool:
    """Read OpenSSL's X509_CERT_AUX. A rejected use is not trusted; if trusted uses are listed, only those are."""
    parts = {part.tag: part.body for part in der.elements_untrusted(der.body_untrusted(settings, der.SEQUENCE))}
    wanted = {PURPOSES[role], ANY_PURPOSE}
    if wanted & _uses_untrusted(parts.get(0xA0, b"")):
        return False
    return der.SEQUENCE not in parts or bool(wanted & _uses_untrusted(parts[der.SEQUENCE]))


def _uses_untrusted(body: bytes) -> set[str]:
    return {der.oid_untrusted(der.body_untrusted(part, der.OID)) for part in der.elements_untrusted(body)}
