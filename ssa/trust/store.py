"""The trust anchors: read from disk once, kept as OpenSSL wants them, used for every judgement.

Loading Debian's bundle takes tens of milliseconds and a judgement far less than one, so a store is loaded once
and asked `is_stale` before use. This module reads files; nothing else in the package does.
"""

from __future__ import annotations

import binascii
import os
import re
import stat
import threading
import warnings
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, cast

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import crypto

from ssa.errors import printable
from ssa.trust.certificate import Certificate

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from ssa.names import Host
    from ssa.trust.evidence import Role, Strength, Verified

# Where distributions keep the system's anchors, the first that exists counts.
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
_MAX_RECENT = 256  # intermediates kept parsed, and judgements kept
_MAX_KEPT = 16 << 10  # bytes of certificates worth keeping: what is bigger is no usual chain
# Base64 has no '-', so a block that was cut short does not swallow the one after it.
_PEM = re.compile(rb"-----BEGIN (X509 )?CERTIFICATE-----([^-]*)-----END (?:X509 )?CERTIFICATE-----")

# What it takes for OpenSSL to check the purpose, which X509StoreContext alone does not.
_PURPOSES: dict[Role, int] = {
    "server": _openssl.lib.X509_PURPOSE_SSL_SERVER,
    "client": _openssl.lib.X509_PURPOSE_SSL_CLIENT,
}
# An intermediate or a leaf that the administrator put in the store is trusted, as curl does since 7.68. Certificate
# policies are not processed, as curl does not: OpenSSL's POLICY_CHECK takes "no policy asked for" as "none will
# do", and so refuses every chain of a CA that demands one.
_FLAGS = crypto.X509StoreFlags.PARTIAL_CHAIN

Signature = tuple[int, ...]
Question = tuple[tuple[bytes, ...], "Host | None", "Role", "Strength"]  # chain, host, role of the peer, policy

Key = TypeVar("Key")
Value = TypeVar("Value")


class Judgement(NamedTuple):
    """A judgement that was made, and from when to when its certificates are all valid."""

    verified: Verified
    start: datetime
    end: datetime


class Recent(Generic[Key, Value]):
    """The values used last, a limited number of them. Safe to use from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._values: dict[Key, Value] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, which now is the one used last."""
        with self._lock:
            value = self._values.pop(key, None)
            if value is not None:
                self._values[key] = value
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keep the value, and forget the one not used for longest if there are too many."""
        with self._lock:
            self._values.pop(key, None)
            self._values[key] = value
            if len(self._values) > self._size:
                del self._values[next(iter(self._values))]


def native_store(anchors: Iterable[Certificate], role: Role, *, strict: bool = False) -> crypto.X509Store:
    """OpenSSL's store of these anchors, which judges peers of this role."""
    store: Any = crypto.X509Store()
    store.set_flags(_FLAGS | crypto.X509StoreFlags.X509_STRICT if strict else _FLAGS)
    native = store._store  # noqa: SLF001  # pyOpenSSL has no call of its own to set the purpose
    if _openssl.lib.X509_STORE_set_purpose(native, _PURPOSES[role]) != 1:
        raise RuntimeError("OpenSSL cannot check the purpose of certificates")
    for anchor in anchors:
        store.add_cert(anchor.native)
    return cast("crypto.X509Store", store)


class TrustStore:
    """A set of trust anchors. Made by `load`; safe to use from several threads.

    Attributes:
        source: where they came from, for messages.
        skipped: a line for each certificate or file that could not be used; trust is then only narrower.
    """

    def __init__(
        self, anchors: Iterable[Certificate], source: str, signatures: dict[Path, Signature], skipped: tuple[str, ...]
    ) -> None:
        self._by_der = {anchor.der: anchor for anchor in anchors}
        self._by_subject: dict[bytes, list[Certificate]] = defaultdict(list)
        for anchor in self._by_der.values():
            self._by_subject[anchor.subject].append(anchor)
        self._native = {role: native_store(self._by_der.values(), role) for role in _PURPOSES}
        self._strict: dict[Role, crypto.X509Store] = {}  # made when they are first asked for
        self._signatures = signatures
        self._lock = threading.Lock()
        self._intermediates: Recent[bytes, Certificate] = Recent(_MAX_RECENT)
        self._judgements: Recent[Question, Judgement] = Recent(_MAX_RECENT)
        self.source = source
        self.skipped = skipped

    @classmethod
    def load(cls, source: str | os.PathLike[str]) -> TrustStore:
        """Read the trust anchors.

        Args:
            source: ``system`` for the anchors of the distribution; or a file, PEM (anything between the blocks is
                ignored) or DER; or a directory of such files, hashed (``openssl rehash``) or not.

        Raises:
            OSError: there is no such file, or it cannot be read.
            ValueError: there is no usable certificate in it.
        """
        path = _system() if source == "system" else Path(source)
        signatures: dict[Path, Signature] = {}
        skipped: list[str] = []
        ders = list(dict.fromkeys(_read(path, signatures, skipped)))
        anchors = list(_parse(ders, skipped))
        if not anchors:
            raise ValueError(f"trust store {path}: {skipped[0] if skipped else 'no certificate in it'}")
        return cls(anchors, str(path), signatures, tuple(skipped))

    @classmethod
    def of_pem_untrusted(cls, pem: bytes, source: str) -> TrustStore:
        """The certificates of a text as trust anchors. Raises ValueError where there is none that can be used."""
        skipped: list[str] = []
        anchors = list(_parse(dict.fromkeys(_certificates(pem, Path(source), skipped)), skipped))
        if not anchors:
            raise ValueError(skipped[0] if skipped else f"{source}: no certificate in it")
        return cls(anchors, source, {}, tuple(skipped))

    def is_stale(self) -> bool:
        """Whether a file of it was changed, replaced or removed, or one came to its directory, since it was read."""
        return any(_signature_of(path) != signature for path, signature in self._signatures.items())

    def __len__(self) -> int:
        return len(self._by_der)

    def __contains__(self, certificate: Certificate) -> bool:
        return certificate.der in self._by_der

    def get(self, der: bytes) -> Certificate | None:
        """The certificate with these bytes, parsed already: an anchor, or an intermediate met before."""
        return self._by_der.get(der) or self._intermediates.get(der)

    def recall(self, question: Question, when: datetime) -> Verified | None:
        """The judgement of the same question, if all certificates of its path are valid at that moment, too.

        A judgement depends on nothing but its question, these anchors and the time, and on the time only through
        the periods of the certificates in the path. So the answer would be the same, 0.3 ms later. A validator
        that looks at anything else, such as revocation, has to be asked beside this.
        """
        known = self._judgements.get(question)
        return known.verified if known is not None and known.start <= when <= known.end else None

    def remember(self, question: Question, path: Sequence[Certificate], verified: Verified) -> None:
        """Keep a judgement, and its intermediates parsed (not trusted): most peers of a kind send the same ones.

        A stranger's certificates never get here, so he can neither fill it nor push others out.
        """
        if sum(map(len, question[0])) > _MAX_KEPT:
            return
        for certificate in path[1:-1]:
            self._intermediates.put(certificate.der, certificate)
        start = max(certificate.parsed.not_valid_before_utc for certificate in path)
        end = min(certificate.parsed.not_valid_after_utc for certificate in path)
        self._judgements.put(question, Judgement(verified, start, end))

    def named(self, subject: bytes) -> list[Certificate]:
        """The anchors with this subject (a name, DER)."""
        return self._by_subject.get(subject, [])

    def verify(
        self, role: Role, leaf: Certificate, others: Iterable[Certificate], when: datetime, *, strict: bool = False
    ) -> list[crypto.X509]:
        """OpenSSL's path from the leaf to an anchor. Raises `crypto.X509StoreContextError`."""
        with self._lock:  # the store carries the time of the judgement
            if strict and role not in self._strict:
                self._strict[role] = native_store(self._by_der.values(), role, strict=True)
            return verify((self._strict if strict else self._native)[role], leaf, others, when)


def verify(
    store: crypto.X509Store, leaf: Certificate, others: Iterable[Certificate], when: datetime
) -> list[crypto.X509]:
    """Have OpenSSL build and verify a path. Raises `crypto.X509StoreContextError`."""
    store.set_time(when)
    try:
        return crypto.X509StoreContext(store, leaf.native, [other.native for other in others]).get_verified_chain()
    finally:
        # What a refusal leaves in OpenSSL's queue of errors would be taken for one of the next connection's.
        _openssl.lib.ERR_clear_error()


def _system() -> Path:
    for name in SYSTEM_PATHS:
        if (path := Path(name)).exists():
            return path
    raise FileNotFoundError(f"this system has no trust store: none of {', '.join(SYSTEM_PATHS)} exists")


def _read(path: Path, signatures: dict[Path, Signature], skipped: list[str]) -> Iterator[bytes]:
    """The certificates of a file or directory, DER, not parsed."""
    if not path.is_dir():
        yield from _certificates(_read_file(path, signatures), path, skipped)
        return
    # Before the listing: what comes to the directory during it makes the store stale.
    if (signature := _signature_of(path)) is not None:
        signatures[path] = signature
    for entry in sorted(path.iterdir()):
        if not entry.is_file():
            continue
        try:
            data = _read_file(entry, signatures)
        except (OSError, ValueError) as failure:  # a key that is not ours to read, or a dangling link
            skipped.append(str(failure))
        else:
            yield from _certificates(data, entry, skipped)


def _read_file(path: Path, signatures: dict[Path, Signature]) -> bytes:
    try:
        with path.open("rb") as file:
            signatures[path] = _signature(os.fstat(file.fileno()))
            data = file.read(_MAX_FILE + 1)
    except OSError as failure:
        raise type(failure)(failure.errno, f"trust store cannot be read: {failure.strerror}", str(path)) from failure
    if len(data) > _MAX_FILE:
        raise ValueError(f"trust store {path}: bigger than {_MAX_FILE >> 20} MiB, this is no list of certificates")
    return data


def _certificates(data: bytes, path: Path, skipped: list[str]) -> Iterator[bytes]:
    blocks = _PEM.findall(data)
    for number, (_, body) in enumerate(blocks, 1):
        try:
            yield binascii.a2b_base64(b"".join(body.split()), strict_mode=True)
        except binascii.Error as failure:
            skipped.append(f"{path}: certificate {number}: {failure}")
    if not blocks and data.startswith(b"\x30"):
        yield data


def _parse(ders: Iterable[bytes], skipped: list[str]) -> Iterator[Certificate]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of the world's roots have a serial number of 0
        for der in ders:
            try:
                yield Certificate(der)
            except Exception as failure:  # noqa: BLE001  # an anchor that a parser chokes on, however, is no anchor
                skipped.append(f"a certificate of {len(der)} bytes: {printable(str(failure))}")


def _signature(status: os.stat_result) -> Signature:
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    return (status.st_dev, status.st_ino, size, status.st_mtime_ns, status.st_ctime_ns)


def _signature_of(path: Path) -> Signature | None:
    try:
        return _signature(path.stat())
    except OSError:
        return None
