"""The credentials that outlast the daemon: a directory with a sub-directory each, read again when its files change.

    /etc/ssa/credentials/www.example.org/certificate    the chain, PEM; may be a symbolic link
    /etc/ssa/credentials/www.example.org/key            the private key, PEM, nobody else's to read
    /etc/ssa/credentials/www.example.org/hostnames      optional: the names to serve for

A renewal replaces one file and then the other. What does not fit together at the moment leaves the last good pair in
service, and is looked at again when a file changes.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from typing import TYPE_CHECKING, NoReturn

from ssa.credentials.credential import combine, is_name, parse_hostnames_untrusted
from ssa.credentials.pem import MAX_PEM, parse_chain_untrusted, parse_key_untrusted
from ssa.errors import SSAError, error, printable
from ssa.policy.schema import BadValue

if TYPE_CHECKING:
    from pathlib import Path

    from ssa.credentials.credential import Credential

_log = logging.getLogger("ssa.daemon")

_FILES = ("certificate", "key", "hostnames")
# Two changes within one tick of the kernel's clock can leave the same times: what is younger is read again.
_TICK = 20_000_000  # nanoseconds

_NAMES = "hostnames"
_MTIME = 3  # its place in a signature

Signature = tuple[int, ...] | None


class Stored:
    """A credential in a sub-directory. The file system shows it, and changes it no more than the daemon does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._signatures: tuple[Signature, ...] | None = None
        self._problem = ""
        self._last: Credential | None = None

    @property
    def credential(self) -> Credential | None:
        """The last good pair, which is that of now unless a renewal is under way."""
        signatures = tuple(_signature(self._path / name) for name in _FILES)
        if signatures != self._signatures:
            self._reload()
            # From before it was read: what changed meanwhile is found the next time.
            self._signatures = signatures if all(map(_settled, signatures)) else None
        return self._last

    @property
    def in_service(self) -> Credential | None:
        """The pair in service, without a look at the files."""
        return self._last

    @property
    def problem(self) -> str:
        """What is wrong with its files, as they were read last."""
        return self._problem

    def anew(self) -> Stored:
        """The same credential, to be read again whether its files seem to have changed or not."""
        other = Stored(self._path)
        other.take(self)
        other._signatures = None
        return other

    def take(self, other: Stored) -> None:
        """Become what another one of this name has read."""
        self._signatures, self._problem, self._last = other._signatures, other._problem, other._last

    @property
    def certificate(self) -> bytes:
        """The chain in service, PEM."""
        credential = self.credential
        return credential.certificate_pem if credential else b""

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The names it is in service for."""
        credential = self.credential
        return credential.hostnames if credential else ()

    def changed(self, file: str) -> int:
        """When one of its files last changed, in nanoseconds since 1970; 0: there is none.

        The names are the certificate's where no file has them.
        """
        signature = _signature(self._path / file) or (
            _signature(self._path / "certificate") if file == _NAMES else None
        )
        return signature[_MTIME] if signature else 0

    def set_certificate(self, _text: str) -> NoReturn:
        """Refuse: that is what the files are for."""
        self._refuse()

    set_key = set_hostnames = check_certificate = check_key = check_hostnames = set_certificate

    def _refuse(self) -> NoReturn:
        raise PermissionError(errno.EPERM, "it is kept in a directory, change the files there", str(self._path))

    def _reload(self) -> None:
        try:
            found = self._read()
        except OSError as failure:  # which an SSAError is, too
            self._report(str(failure.strerror) if isinstance(failure, SSAError) else _words(failure))
            return
        if self._problem or found != self._last:
            _log.info("credential %s: serves %s", self._path, ", ".join(found.hostnames[:6]) or "no name of its own")
        self._problem, self._last = "", found

    def _read(self) -> Credential:
        chain = parse_chain_untrusted(_read(self._path / "certificate"))
        key_path = self._path / "key"
        key = parse_key_untrusted(_read(key_path, secret=True))
        return combine(chain, key, self._path.name, self._override())

    def _override(self) -> tuple[str, ...] | None:
        try:
            text = _read(self._path / "hostnames").decode()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise error("BAD_VALUE", "hostnames: not UTF-8") from None
        return parse_hostnames_untrusted(text) or None

    def _report(self, problem: str) -> None:
        """Say once what is wrong: a renewal is looked at by every handshake that comes while it is under way."""
        if problem != self._problem:
            state = "the last good one stays in service" if self._last else "not served"
            _log.warning("credential %s: %s; %s", self._path, printable(problem, 400), state)
        self._problem = problem


class Folder:
    """The directory. One that is not there is empty."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._signature: Signature = None
        self._stored: dict[str, Stored] = {}

    def stored(self) -> dict[str, Stored]:
        """The credentials by name, in its order."""
        signature = _signature(self._directory)
        if signature is None:
            self._stored = {}
        elif signature != self._signature:
            self._stored = {name: self._stored.get(name) or Stored(self._directory / name) for name in self._names()}
        self._signature = signature if _settled(signature) else None
        return self._stored

    def known(self) -> dict[str, Stored]:
        """The credentials by name, without a look at the directory."""
        return self._stored

    def anew(self) -> Folder:
        """All of it, read again. Raises `BadValue` where something in it cannot be used."""
        other = Folder(self._directory)
        other._stored = {name: stored.anew() for name, stored in self._stored.items()}
        read = [(name, stored, stored.credential) for name, stored in other.stored().items()]
        bad = [f"credential {name}: {stored.problem}" for name, stored, _ in read if stored.problem]
        if bad:
            raise BadValue("; ".join(bad))
        return other

    def take(self, other: Folder) -> None:
        """Become what another one of this directory has read. A name that stays keeps its object."""
        for name, stored in other._stored.items():
            if name in self._stored:
                self._stored[name].take(stored)
        self._stored = {name: self._stored.get(name, stored) for name, stored in other._stored.items()}
        self._signature = other._signature

    def _names(self) -> list[str]:
        try:
            with os.scandir(self._directory) as entries:
                # A link counts wherever it leads: it may lead to a directory only later.
                return sorted(
                    entry.name for entry in entries if is_name(entry.name) and (entry.is_symlink() or entry.is_dir())
                )
        except OSError as failure:
            _log.warning("credentials: %s", _words(failure))
            return sorted(self._stored)


def _read(path: Path, *, secret: bool = False) -> bytes:
    """A file's content. Raises OSError, BAD_VALUE."""
    # Without O_NONBLOCK a FIFO would hold the daemon up.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise error("BAD_VALUE", f"{path.name}: not a regular file")
        if secret:
            _check_mode(path, status.st_mode)
        data = file.read(MAX_PEM + 1)
    if len(data) > MAX_PEM:
        raise error("BAD_VALUE", f"{path.name}: longer than {MAX_PEM >> 10} KiB")
    return data


def _check_mode(path: Path, mode: int) -> None:
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise error("BAD_VALUE", f"key: everyone can read or change it, so it is no secret: chmod 600 {path}")
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        _log.warning("credential %s: its group can read or change the key", path.parent)


def _words(failure: OSError) -> str:
    return f"{failure.filename}: {failure.strerror}"


def _signature(path: Path) -> Signature:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _settled(signature: Signature) -> bool:
    """Whether the next change cannot leave the same signature."""
    return signature is None or not 0 <= time.time_ns() - signature[-1] < _TICK
