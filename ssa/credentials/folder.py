"""The lasting credentials: a directory with one sub-directory for each. They are read again when their files change.

    /etc/ssa/credentials/www.example.org/certificate    the chain, PEM; may be a symbolic link
    /etc/ssa/credentials/www.example.org/key            the private key, PEM, nobody else's to read
    /etc/ssa/credentials/www.example.org/hostnames      optional: the names to serve for
    /etc/ssa/credentials/www.example.org/users          optional: who may serve with it (`ssa.credentials.users`)

A renewal replaces one file and then the other. While certificate and key do not fit together, the last good pair stays
in service; they are read again when a file changes.

`reload` reads files, and belongs in a thread: a link can lead to a file system that does not answer. Everything else
uses what was read last.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
from typing import TYPE_CHECKING, NoReturn

from ssa.credentials.credential import combine, is_name, parse_hostnames_untrusted
from ssa.credentials.pem import parse_chain_untrusted, parse_key_untrusted
from ssa.credentials.users import Users
from ssa.errors import SSAError, error, printable
from ssa.files import Trail, list_directory, read_regular, settled
from ssa.pem import MAX_PEM
from ssa.policy.schema import BadValue

if TYPE_CHECKING:
    from pathlib import Path

    from ssa.credentials.credential import Credential

_log = logging.getLogger("ssa.daemon")

_FILES = ("certificate", "key", "hostnames", "users")
_MOST = 4096  # entries of the directory


class _Read:
    """Something read from files, which is read again when the files have changed.

    Args:
        path: its place.
        avoid: a mount point below which no file is read.
    """

    def __init__(self, path: Path, avoid: str) -> None:
        self.path = path
        self._avoid = avoid
        self._trail: Trail | None = None

    def is_stale(self) -> bool:
        """True if `reload` has to be called. It asks no file system that may not answer: for those it is True."""
        return self._trail is None or self._trail.is_stale()

    def reload(self) -> None:
        """Read it again if anything has changed. May wait for ever."""
        if self._trail is None or self._trail.changed():
            _, self._trail = settled(self._read, self._avoid)

    def _read(self, trail: Trail) -> None:
        raise NotImplementedError


class Stored(_Read):
    """A credential in a sub-directory. /ssa shows it, and neither the daemon nor writes to /ssa change it."""

    def __init__(self, path: Path, avoid: str = "") -> None:
        super().__init__(path, avoid)
        self.problem = ""
        self._times: dict[str, int] = {}
        self.credential: Credential | None = None  # the last good pair, which may be older than the files
        self.users = Users()  # the users who may serve with it, whatever the pair's state
        self._users_problem = ""

    def anew(self) -> Stored:
        """A copy that will be read again even if its files seem unchanged."""
        other = Stored(self.path, self._avoid)
        other.take(self)
        other._trail = None
        return other

    def take(self, other: Stored) -> None:
        """Take over what `other`, of the same name, has read."""
        self._trail, self._times = other._trail, other._times
        self.problem, self.credential = other.problem, other.credential
        self.users, self._users_problem = other.users, other._users_problem

    @property
    def certificate(self) -> bytes:
        """The chain in service, PEM."""
        return self.credential.certificate_pem if self.credential else b""

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The names that it is in service for."""
        return self.credential.hostnames if self.credential else ()

    @property
    def status(self) -> str:
        """Its state, in words."""
        return "; ".join(
            filter(None, (self.credential.status() if self.credential else "", self.problem, self._users_problem))
        )

    def changed(self, file: str) -> int:
        """The time when one of its files last changed, in nanoseconds since 1970; 0 if there is no such file.

        Without a file of names, the names are in the certificate, so its time counts.
        """
        return self._times.get(file) or (self._times.get("certificate", 0) if file == "hostnames" else 0)

    def set_certificate(self, _text: str) -> NoReturn:
        """Refuse: the administrator changes the files in the directory instead."""
        self._refuse()

    set_key = set_hostnames = set_users = set_certificate
    check_certificate = check_key = check_hostnames = check_users = look_up_users = set_certificate

    def _refuse(self) -> NoReturn:
        raise PermissionError(errno.EPERM, "it is read from a directory: change the files there", str(self.path))

    def report(self, problem: str) -> None:
        """Log once what is wrong. Every handshake during a renewal may find it."""
        state = "the last good one stays in service" if self.credential else "not served"
        said = f"{printable(problem, 400)}; {state}"
        if said != self.problem:
            _log.warning("credential %s: %s", self.path, said)
        self.problem = said

    def _read(self, trail: Trail) -> None:
        self._read_users(trail)
        try:
            found = self._pair(trail)
        except SSAError as failure:
            self.report(str(failure.strerror))
        except OSError as failure:
            self.report(f"{failure.filename}: {failure.strerror}" if failure.filename else str(failure.strerror))
        except ValueError as failure:
            self.report(str(failure))
        else:
            if self.problem or found != self.credential:
                _log.info("credential %s: serves %s", self.path, ", ".join(found.hostnames[:6]) or "no name of its own")
            self.problem, self.credential = "", found

    def _read_users(self, trail: Trail) -> None:
        """Read the users who may serve with it. A file that cannot be used names nobody."""
        users, problem = Users(), ""
        try:
            users = Users.parse_untrusted(self._file("users", trail).decode())
            if unknown := users.unknown():
                problem = f"users: this machine knows no {', '.join(unknown)}"
        except FileNotFoundError:
            pass
        except UnicodeDecodeError:
            problem = "users: not UTF-8; nobody but root may serve with it"
        except (OSError, ValueError) as failure:  # SSAError is an OSError
            words = failure.strerror if isinstance(failure, OSError) else str(failure)
            problem = f"users: {words}; nobody but root may serve with it"
        if problem and problem != self._users_problem:
            _log.warning("credential %s: %s", self.path, printable(problem, 400))
        self.users, self._users_problem = users, problem

    def _pair(self, trail: Trail) -> Credential:
        times = {}
        for name in _FILES:  # all of them, so that a change of any is noticed, even if another is bad
            with contextlib.suppress(OSError):
                if (status := trail.follow(self.path / name)) is not None:
                    times[name] = status.st_mtime_ns
        self._times = times
        chain = parse_chain_untrusted(self._file("certificate", trail))
        key = parse_key_untrusted(self._file("key", trail))
        return combine(chain, key, self.path.name, self._override(trail))

    def _override(self, trail: Trail) -> tuple[str, ...] | None:
        try:
            return parse_hostnames_untrusted(self._file("hostnames", trail).decode()) or None
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            raise error("BAD_VALUE", "hostnames: not UTF-8") from None

    def _file(self, name: str, trail: Trail) -> bytes:
        data, status = read_regular(self.path / name, trail, MAX_PEM)
        if name == "key":
            _check_mode(self.path / name, status.st_mode)
        return data


class Folder(_Read):
    """The directory of all credentials. A missing directory is an empty one."""

    def __init__(self, path: Path, avoid: str = "") -> None:
        super().__init__(path, avoid)
        self._stored: dict[str, Stored] = {}

    def stored(self) -> dict[str, Stored]:
        """The credentials by name, in the order of the directory."""
        return self._stored

    def anew(self) -> Folder:
        """A copy with everything read again. Raises `BadValue` if a credential cannot be used. May wait for ever."""
        other = Folder(self.path, self._avoid)
        other._stored = {name: stored.anew() for name, stored in self._stored.items()}
        other.reload()
        for stored in other._stored.values():
            stored.reload()
        bad = [f"credential {name}: {stored.problem}" for name, stored in other._stored.items() if stored.problem]
        if bad:
            raise BadValue("; ".join(bad))
        return other

    def take(self, other: Folder) -> None:
        """Take over what `other`, of the same directory, has read. A name that is in both keeps its object."""
        for name, stored in other._stored.items():
            if name in self._stored:
                self._stored[name].take(stored)
        self._stored = {name: self._stored.get(name, stored) for name, stored in other._stored.items()}
        self._trail = other._trail

    def report(self, problem: str) -> None:
        """Log that the directory cannot be read. The known credentials stay in service."""
        _log.warning("credentials: %s: %s", self.path, printable(problem, 400))

    def _read(self, trail: Trail) -> None:
        try:
            names = self._names(trail)
        except (OSError, ValueError) as failure:
            self.report(str(failure))
        else:
            known = self._stored
            self._stored = {name: known.get(name) or Stored(self.path / name, self._avoid) for name in names}

    def _names(self, trail: Trail) -> list[str]:
        status = trail.follow(self.path, listed=True)
        if status is None or not stat.S_ISDIR(status.st_mode):
            return []
        names = [path.rpartition("/")[2] for path in list_directory(trail, _MOST)]
        return [name for name in names if is_name(name) and self._may_be_one(name)]

    def _may_be_one(self, name: str) -> bool:
        """True for a directory and for any symbolic link: its target may become a directory later."""
        with contextlib.suppress(OSError):
            mode = os.lstat(self.path / name).st_mode
            return stat.S_ISDIR(mode) or stat.S_ISLNK(mode)
        return False


def _check_mode(path: Path, mode: int) -> None:
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        raise error(
            "BAD_VALUE",
            f"key: everyone can read or change it, so it is no secret: chmod 600 {path}",
        )
    if mode & (stat.S_IRGRP | stat.S_IWGRP):
        _log.warning("credential %s: its group can read or change the key", path.parent)
