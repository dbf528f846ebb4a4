"""The administrator's credentials: those made in the file system, which go with the daemon, then the directory's."""

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
    """A credential that was made in the file system. A change raises `BadValue`, and then nothing has changed."""

    def __init__(self, name: str, changed: Callable[[], None]) -> None:
        self._slot = Slot(name)
        self._told = changed
        self._changed: dict[str, int] = {}
        self._users = Users()
        self._looked_up: dict[tuple[str, ...], Users] = {}  # by `look_up_users`, for those who write now

    @property
    def credential(self) -> Credential | None:
        """The pair in service."""
        return self._slot.serving

    @property
    def certificate(self) -> bytes:
        """The chain in service, PEM, or the one that waits for its key while none is."""
        return self._slot.certificate

    @property
    def hostnames(self) -> tuple[str, ...]:
        """The names it serves for."""
        return self._slot.hostnames

    def changed(self, file: str) -> int:
        """When the content of one of its files last changed, in nanoseconds since 1970; 0: there never was any."""
        return self._changed.get(file, 0)

    @property
    def status(self) -> str:
        """What is to be said of it, in words."""
        return self._slot.status()

    def check_certificate(self, text: str) -> None:
        """Refuse the beginning of a certificate's text that cannot become one."""
        with _bad_values():
            check_chain_so_far_untrusted(_bytes(text))

    def check_key(self, text: str) -> None:
        """Refuse the beginning of a key's text that cannot become one."""
        with _bad_values():
            check_key_so_far_untrusted(_bytes(text))

    def check_hostnames(self, text: str) -> None:
        """Refuse the beginning of a text that cannot become a list of names. Its last word may be cut short."""
        with _bad_values():
            parse_hostnames_untrusted(whole_words(text))

    def set_certificate(self, text: str) -> None:
        """Put another chain in service, as soon as its key is there."""
        with _bad_values():
            self._change(self._slot.with_certificate_untrusted(_bytes(text)))

    def set_key(self, text: str) -> None:
        """Put another key in service, as soon as its certificate is there."""
        with _bad_values():
            self._change(self._slot.with_key_untrusted(_bytes(text)))
        self._changed["key"] = time.time_ns()

    def set_hostnames(self, text: str) -> None:
        """Serve for other names than those in the certificate; for these again, if there are none."""
        with _bad_values():
            self._change(self._slot.with_hostnames_untrusted(text))

    @property
    def users(self) -> Users:
        """Who may serve with it."""
        return self._users

    def check_users(self, text: str) -> None:
        """Refuse the beginning of a text that cannot become a list of users. Its last line may be cut short."""
        with _bad_values():
            Users.parse_untrusted(text[: text.rfind("\n") + 1])

    def look_up_users(self, text: str) -> None:
        """Refuse it as `check_users` does, and where this machine does not know a name. It may take a second."""
        with _bad_values():
            users = Users.parse_untrusted(text[: text.rfind("\n") + 1])
        if len(self._looked_up) >= _LOOKED_UP:
            self._looked_up.clear()
        self._looked_up[users.entries] = self._known(users)

    def set_users(self, text: str) -> None:
        """Have others serve with it; none but root and the daemon's own user, if there are none."""
        with _bad_values():
            users = Users.parse_untrusted(text)
        known = self._looked_up.pop(users.entries, users)
        self._users = self._known(users) if known is users else known
        self._changed["users"] = time.time_ns()
        _log.info("credential %s: may be served with by %s", self._slot.name, ", ".join(users.shown()))
        self._told()

    @staticmethod
    def _known(users: Users) -> Users:
        """The same list, its names looked up. Raises `BadValue` for one that this machine does not know."""
        if unknown := users.unknown():
            raise BadValue(f"this machine knows no {_listed(unknown)}: a line each for a user, or %group")
        return users

    def _change(self, slot: Slot) -> None:
        now = time.time_ns()
        self._changed |= {name: now for name in ("certificate", "hostnames") if _differ(name, slot, self._slot)}
        self._slot = slot
        _log.info("credential %s: %s", slot.name, slot.describe())
        self._told()


def _bytes(text: str) -> bytes:
    """The bytes of a file, which came as latin-1: what stands beside the PEM can be in any encoding."""
    return text.encode("latin-1")


def _differ(name: str, one: Slot, other: Slot) -> bool:
    return bool(getattr(one, name) != getattr(other, name))


class CredentialStore:
    """All of them. Safe to use from several threads.

    What is in the directory is what was read last: see `folder` and `refresh`.

    Args:
        directory: where the lasting ones are; it need not be there.
        avoid: a mount point below which nothing is looked at.
    """

    def __init__(self, directory: Path, avoid: str = "") -> None:
        own_name()  # it is asked for where nobody may wait
        self._directory = directory
        self.folder = Folder(directory, avoid)
        self._live: dict[str, Live] = {}
        self._lock = threading.Lock()
        self._current: tuple[Credential, ...] = ()
        self._hidden: frozenset[str] = frozenset()
        self._warned: dict[str, tuple[bytes, str]] = {}

    def refresh(self) -> None:
        """Look at the directory again. It may wait for ever: the daemon does it file by file, in threads."""
        self.folder.reload()
        for stored in self.folder.stored().values():
            stored.reload()

    def remind(self) -> None:
        """Log, once each, which certificates in service have expired, are not valid yet, or soon will not be."""
        for credential in self.current():
            wrong = credential.lifetime()
            said = (credential.digest, " ".join(wrong.split()[:2]))  # not the time that is left
            if wrong and self._warned.get(credential.name) != said:
                _log.warning("credential %s: its certificate %s", credential.name, wrong)
            self._warned[credential.name] = said

    def current(self) -> tuple[Credential, ...]:
        """Those in service: one and the same object as long as nothing changes."""
        with self._lock:
            found = tuple(credential for entry in self._entries() if (credential := entry.credential))
            if found != self._current:
                self._current = found
            return self._current

    def read_again(self) -> Folder:
        """What is in the directory now, to be put in service by `take`. Raises `BadValue` if some of it is unusable."""
        return self.folder.anew()

    def take(self, folder: Folder) -> dict[str, str]:
        """Put in service what was read again: what became of each credential that has changed, by name."""
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
        """The lists of users that have to be looked up anew."""
        with self._lock:
            return [entry.users for entry in self._entries() if entry.users.is_stale()]

    def usable(self, uid: int, groups: Iterable[int]) -> tuple[tuple[Credential, ...], tuple[str, ...]]:
        """Those in service that a process of a user and groups may serve with; the names of the others."""
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
        """Those that count, in their order."""
        stored = self.folder.stored()
        self._note_hidden(stored.keys() & self._live.keys())
        by_name: dict[str, Live | Stored] = {**stored, **self._live}
        return [by_name[name] for name in self._names(stored)]

    def names(self) -> tuple[str, ...]:
        """All names, served or not."""
        with self._lock:
            return self._names(self.folder.stored())

    def _names(self, stored: Iterable[str]) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self._live, *stored)))

    def _note_hidden(self, hidden: AbstractSet[str]) -> None:
        """Say once of each name that one of the directory is not served."""
        for name in sorted(hidden - self._hidden):
            _log.warning(
                "credential %s: the one made in the file system serves; %s does not, until that is removed (rmdir)",
                name,
                self._directory / name,
            )
        self._hidden = frozenset(hidden)

    def get(self, name: str) -> Live | Stored | None:
        """The credential of a name: one made in the file system hides that of the directory, as it does in service.

        As long as it is there, it is one object.
        """
        with self._lock:
            return self._live.get(name) or self.folder.stored().get(name)

    def create(self, name: str) -> None:
        """Make an empty one. Raises ValueError, FileExistsError."""
        if not is_name(name):
            raise ValueError(
                f"{printable(name, 80)!r}: a credential's name is 1 to 64 letters, digits, dots, hyphens or underscores"
            )
        if self.get(name):
            raise FileExistsError(errno.EEXIST, "there is one already", name)
        self._live[name] = Live(name, self.remind)

    def remove(self, name: str) -> None:
        """Take one out of service. Raises FileNotFoundError; PermissionError for one of the directory."""
        if name in self._live:
            del self._live[name]
            _log.info("credential %s: removed", name)
        elif self.get(name):
            raise PermissionError(
                errno.EPERM, "it is kept in a directory, remove it there", str(self._directory / name)
            )
        else:
            raise FileNotFoundError(errno.ENOENT, "there is none", name)


_LOOKED_UP = 16  # lists of users that are being written
_BECAME = {(False, True): "added", (True, True): "replaced", (True, False): "removed"}


def _listed(unknown: Iterable[str]) -> str:
    return ", ".join(f"group {name[1:]!r}" if name.startswith("%") else f"user {name!r}" for name in unknown)


@contextlib.contextmanager
def _bad_values() -> Iterator[None]:
    try:
        yield
    except SSAError as failure:
        raise BadValue(failure.strerror) from None
