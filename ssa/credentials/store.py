"""The administrator's credentials: first those made in /ssa, which end with the daemon, then the directory's."""

from __future__ import annotations

import contextlib
import errno
import logging
import threading
import time
from typing import TYPE_CHECKING

from ssa.credentials.credential import is_name, parse_hostnames_untrusted, whole_words
from ssa.credentials.folder import Folder
from ssa.credentials.pem import check_chain_so_far_untrusted, check_key_so_far_untrusted
from ssa.credentials.slot import Slot
from ssa.credentials.users import Users, own_name
from ssa.errors import SSAError, printable
from ssa.policy.schema import BadValue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from ssa.credentials.credential import Credential
    from ssa.credentials.folder import Stored

_log = logging.getLogger("ssa.daemon")


class Live:
    """A credential that was made in /ssa. A change that raises `BadValue` has changed nothing."""

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self._slot = Slot(name)
        self._report = changed
        self._changed: dict[str, int] = {}
        self._users = Users()
        self._looked_up: dict[tuple[str, ...], Users] = {}  # by `look_up_users`, for the writes that follow

    @property
    def credential(self) -> Credential | None:
        """The pair in service."""
        return self._slot.serving

    @property
    def certificate(self) -> bytes:
        """The chain in service, PEM; while none is, the chain that waits for its key."""
        return self._slot.certificate

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The names that it serves for."""
        return self._slot.hostnames

    def changed(self, file: str) -> int:
        """The time when one of its files last changed, in nanoseconds since 1970; 0 if it never had content."""
        return self._changed.get(file, 0)

    @property
    def status(self) -> str:
        """Its state, in words."""
        return self._slot.status()

    def check_certificate(self, text: str) -> None:
        """Refuse the beginning of a text that cannot become a certificate chain."""
        with _bad_values():
            check_chain_so_far_untrusted(_bytes(text))

    def check_key(self, text: str) -> None:
        """Refuse the beginning of a text that cannot become a key."""
        with _bad_values():
            check_key_so_far_untrusted(_bytes(text))

    def check_hostnames(self, text: str) -> None:
        """Refuse the beginning of a text that cannot become a list of names. Its last word may be unfinished."""
        with _bad_values():
            parse_hostnames_untrusted(whole_words(text))

    def set_certificate(self, text: str) -> None:
        """Put another chain in service, as soon as its key has come."""
        with _bad_values():
            self._change(self._slot.with_certificate_untrusted(_bytes(text)))

    def set_key(self, text: str) -> None:
        """Put another key in service, as soon as its certificate has come."""
        with _bad_values():
            self._change(self._slot.with_key_untrusted(_bytes(text)))
        self._changed["key"] = time.time_ns()

    def set_hostnames(self, text: str) -> None:
        """Serve for these names instead of those in the certificate. With an empty list those count again."""
        with _bad_values():
            self._change(self._slot.with_hostnames_untrusted(text))

    @property
    def users(self) -> Users:
        """The users who may serve with it."""
        return self._users

    def check_users(self, text: str) -> None:
        """Refuse the beginning of a text that cannot become a list of users. Its last line may be unfinished."""
        with _bad_values():
            Users.parse_untrusted(text[: text.rfind("\n") + 1])

    def look_up_users(self, text: str) -> None:
        """Do what `check_users` does, and refuse a name that this machine does not know. It may take a second."""
        with _bad_values():
            users = Users.parse_untrusted(text[: text.rfind("\n") + 1])
        if len(self._looked_up) >= _LOOKED_UP:
            self._looked_up.clear()
        self._looked_up[users.entries] = self._known(users)

    def set_users(self, text: str) -> None:
        """Let these users serve with it. With an empty list only root and the daemon's own user may."""
        with _bad_values():
            users = Users.parse_untrusted(text)
        known = self._looked_up.pop(users.entries, users)
        self._users = self._known(users) if known is users else known
        self._changed["users"] = time.time_ns()
        _log.info("credential %s: may be served with by %s", self._slot.name, ", ".join(users.shown()))
        self._report()

    @staticmethod
    def _known(users: Users) -> Users:
        """Look up the names of a list. Raises `BadValue` for a name that this machine does not know."""
        if unknown := users.unknown():
            raise BadValue(f"this machine knows no {_listed(unknown)}: write one user, or one %group, a line")
        return users

    def _change(self, slot: Slot) -> None:
        now = time.time_ns()
        self._changed |= {name: now for name in ("certificate", "hostnames") if _differ(name, slot, self._slot)}
        self._slot = slot
        _log.info("credential %s: %s", slot.name, slot.describe())
        self._report()


def _bytes(text: str) -> bytes:
    """The bytes of a file that was decoded as latin-1: the text around the PEM may have any encoding."""
    return text.encode("latin-1")


def _differ(name: str, one: Slot, other: Slot) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


class CredentialStore:
    """All credentials. Safe to use from several threads.

    It uses what was last read from the directory: see `folder` and `refresh`.

    Args:
        directory: the directory of the lasting credentials; it may be missing.
        avoid: a mount point below which no file is read.
    """

    def __init__(self, directory: Path, avoid: str = "") -> None:
        own_name()  # looked up now, because later callers must not wait
        self._directory = directory
        self.folder = Folder(directory, avoid)
        self._live: dict[str, Live] = {}
        self._lock = threading.Lock()
        self._current: tuple[Credential, ...] = ()
        self._hidden: frozenset[str] = frozenset()
        self._warned: dict[str, tuple[bytes, str]] = {}

    def refresh(self) -> None:
        """Read the directory again where it has changed. May wait for ever: the daemon does it by file, in threads."""
        self.folder.reload()
        for stored in self.folder.stored().values():
            stored.reload()

    def remind(self) -> None:
        """Log each certificate in service that has expired, is not valid yet, or expires soon. Each is logged once."""
        for credential in self.current():
            wrong = credential.lifetime()
            said = (credential.digest, " ".join(wrong.split()[:2]))  # without the time left, which changes
            if wrong and self._warned.get(credential.name) != said:
                _log.warning("credential %s: its certificate %s", credential.name, wrong)
            self._warned[credential.name] = said

    def current(self) -> tuple[Credential, ...]:
        """The credentials in service. It is the same object as long as nothing changes."""
        with self._lock:
            found = tuple(credential for entry in self._entries() if (credential := entry.credential))
            if found != self._current:
                self._current = found
            return self._current

    def read_again(self) -> Folder:
        """Read the directory again, for `take`. Raises `BadValue` if a credential cannot be used. May wait for ever."""
        return self.folder.anew()

    def take(self, folder: Folder) -> dict[str, str]:
        """Put in service what was read again. Returns the changed credentials: added, replaced or removed, by name."""
        with self._lock:
            before = self._digests()
            self.folder.take(folder)
            after = self._digests()
        changed = {name: _BECAME[name in before, name in after] for name in before | after}
        return {name: became for name, became in changed.items() if before.get(name) != after.get(name)}

    def _digests(self) -> dict[str, bytes]:
        stored = self.folder.stored()
        return {name: credential.digest for name, it in stored.items() if (credential := it.credential)}

    def stale_users(self) -> list[Users]:
        """The lists of users whose names have to be looked up again."""
        with self._lock:
            return [entry.users for entry in self._entries() if entry.users.is_stale()]

    def usable(self, uid: int, groups: Iterable[int]) -> tuple[tuple[Credential, ...], tuple[str, ...]]:
        """The credentials in service that a process of this user and groups may use, and the names of the others."""
        usable: list[Credential] = []
        denied: list[str] = []
        with self._lock:
            for entry in self._entries():
                if (credential := entry.credential) is None:
                    continue
                if entry.users.admit(uid, groups):
                    usable.append(credential)
                else:
                    denied.append(credential.name)
        return tuple(usable), tuple(denied)

    def _entries(self) -> list[Live | Stored]:
        """The credentials that count, in their order: one made in /ssa hides one of the directory."""
        stored = self.folder.stored()
        self._note_hidden(stored.keys() & self._live.keys())
        by_name: dict[str, Live | Stored] = {**stored, **self._live}
        return [by_name[name] for name in self._names(stored)]

    def names(self) -> tuple[str, ...]:
        """The names of all credentials, in service or not."""
        with self._lock:
            return self._names(self.folder.stored())

    def _names(self, stored: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._live, *stored)))

    def _note_hidden(self, hidden: AbstractSet[str]) -> None:
        """Log once of each name that the credential in the directory is hidden."""
        for name in sorted(hidden - self._hidden):
            _log.warning(
                "credential %s: the one made in /ssa serves, and hides %s until it is removed (rmdir)",
                name,
                self._directory / name,
            )
        self._hidden = frozenset(hidden)

    def get(self, name: str) -> Live | Stored | None:
        """The credential of a name, or None. One made in /ssa hides one of the directory.

        As long as a credential is there, it is one object.
        """
        with self._lock:
            return self._live.get(name) or self.folder.stored().get(name)

    def create(self, name: str) -> None:
        """Make an empty credential. Raises ValueError for a bad name, FileExistsError."""
        if not is_name(name):
            raise ValueError(
                f"{printable(name, 80)!r}: a credential's name is 1 to 64 letters, digits, dots, hyphens or underscores"
            )
        if self.get(name):
            raise FileExistsError(errno.EEXIST, "there is a credential of that name already", name)
        self._live[name] = Live(name, self.remind)

    def remove(self, name: str) -> None:
        """Remove a credential made in /ssa. Raises FileNotFoundError; PermissionError for one of the directory."""
        if name in self._live:
            del self._live[name]
            _log.info("credential %s: removed", name)
        elif self.get(name):
            raise PermissionError(
                errno.EPERM, "it is read from a directory: remove it there", str(self._directory / name)
            )
        else:
            raise FileNotFoundError(errno.ENOENT, "there is no such credential", name)


_LOOKED_UP = 16  # lists of users that are kept between two writes
_BECAME = {(False, True): "added", (True, True): "replaced", (True, False): "removed"}


def _listed(unknown: Iterable[str]) -> str:
    return ", ".join(f"group {name[1:]!r}" if name.startswith("%") else f"user {name!r}" for name in unknown)


@contextlib.contextmanager
def _bad_values() -> Iterator[None]:
    try:
        yield
    except SSAError as failure:
        raise BadValue(failure.strerror) from None
