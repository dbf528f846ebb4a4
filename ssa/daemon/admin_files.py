"""The administrator's files as they are now: trust stores, and the folder of credentials.

Files are read in threads and within a bounded time: one can be on a network that does not answer.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from typing import TYPE_CHECKING

import trio

from ssa import errors, trust
from ssa.credentials.folder import Stored
from ssa.credentials.users import look_up
from ssa.daemon.errands import Errands
from ssa.intime import in_time
from ssa.logfmt import fields
from ssa.policy.schema import BadValue
from ssa.trust.recent import Recent

if TYPE_CHECKING:
    from ssa.credentials import CredentialStore, Folder

_log = logging.getLogger("ssa.daemon")

_PATIENCE = 5.0  # seconds for the administrator's files
_STORES = 8  # trust stores that the policy has named, kept
_NAMED = 8  # anchors that were skipped, named in the log
_NEGLIGENCE = 3600.0  # seconds between looks for certificates that have expired meanwhile


class TrustStores:
    """The trust stores that policies name, as their files were when they were read last.

    Args:
        mount: where our own file system is: no file is looked for in it, as it would wait for us.
    """

    def __init__(self, mount: str) -> None:
        self._mount = mount
        self._errands = Errands()
        self._stores: Recent[str, trust.TrustStore | errors.SSAError] = Recent(_STORES)

    def get(self, source: str) -> trust.TrustStore:
        """The trust store of a source, as `refresh` found it last.

        Raises `ssa.SSAError` TRUST_STORE when it can't be read any more: then nothing is trusted.
        """
        return trust.good(self._stores.get(source), source)

    def found(self, source: str) -> trust.TrustStore | errors.SSAError:
        """The trust store of a source, or the reason why it can't be read, as `refresh` found it last."""
        try:
            return self.get(source)
        except errors.SSAError as failure:
            return failure

    def is_known(self, source: str) -> bool:
        """True for a source that was read before: a policy has named it."""
        return self._stores.get(source) is not None

    def unchanged(self, source: str) -> trust.TrustStore | None:
        """The trust store of a source, if its files are now as they were read. It does not wait. None: `refresh`."""
        known = self._stores.get(source)
        return known if isinstance(known, trust.TrustStore) and not known.is_stale() else None

    async def refresh(self, source: str) -> None:
        """Read a trust store again if its files have changed. `get` raises what is wrong with it."""
        if self.unchanged(source) is not None:
            return
        with contextlib.suppress(errors.SSAError):
            await self._loaded(source)

    async def prepare(self, source: str) -> None:
        """Read a trust store that is to be put in force. Raises `BadValue` where it can't be read."""
        try:
            await self._loaded(source)
        except errors.SSAError as exc:
            raise BadValue(f"trust_store: {exc.strerror}") from exc

    def check(self, source: str) -> None:
        """Refuse a trust store that can't be read. Raises `BadValue`.

        As a rule `prepare` has read it. Before there is an event loop nobody has.
        """
        try:
            if self._stores.get(source) is None:
                self._stores.put(source, in_time(functools.partial(self._load, source, None), _PATIENCE))
            self.get(source)
        except (OSError, ValueError) as exc:
            failure = exc if isinstance(exc, errors.SSAError) else _failure(source, exc)
            raise BadValue(f"trust_store: {failure.strerror}") from exc

    async def _loaded(self, source: str) -> None:
        known = self._stores.get(source)
        try:
            found = await self._errands.run(source, functools.partial(self._load, source, known), _PATIENCE)
        except Exception as exc:  # fails closed
            self._stores.put(source, failure := _failure(source, exc))
            raise failure from exc
        self._stores.put(source, found)

    def _load(self, source: str, known: trust.TrustStore | errors.SSAError | None) -> trust.TrustStore:
        """Load a store. Called in a thread. Raises OSError, ValueError."""
        if isinstance(known, trust.TrustStore) and not known.changed():
            return known
        found = trust.TrustStore.load(source, self._mount)
        _log.info("trust store %s: %d trust anchors, %d skipped", source, len(found), len(found.skipped))
        for line in found.skipped[:_NAMED]:
            _log.warning("trust store %s: skipped: %s", source, line)
        return found


def _failure(source: str, exc: Exception) -> errors.SSAError:
    reason = (exc.strerror or str(exc)) if isinstance(exc, OSError) else str(exc)
    return errors.error("TRUST_STORE", f"{source}: {reason.removeprefix('trust store cannot be read: ')}")


class CredentialFiles:
    """Keeps a store of credentials up to date with its files."""

    def __init__(self, credentials: CredentialStore) -> None:
        self._credentials = credentials
        self._looks = Errands()  # apart, so that credentials that hang never keep a trust store waiting
        self._looking = False

    async def refresh(self) -> None:
        """Read the credentials again if their files have changed. One whose files hang keeps its last good pair."""
        folder = self._credentials.folder
        if folder.is_stale():
            await self._look(folder)
        stale = [stored for stored in folder.stored().values() if stored.is_stale()]
        if stale:
            async with trio.open_nursery() as nursery:
                for stored in stale:
                    nursery.start_soon(self._look, stored)
            self._credentials.remind()
        if lists := self._credentials.stale_users():
            try:
                await self._looks.run("accounts", lambda: look_up(lists), _PATIENCE)
            except Exception as exc:  # noqa: BLE001 - whatever it is, they are who they were
                _log.warning("accounts cannot be looked up %s", fields(reason=str(exc)))

    async def _look(self, what: Folder | Stored) -> None:
        try:
            await self._looks.run(what, what.reload, _PATIENCE)
        except Exception as exc:  # noqa: BLE001 - of this one: the others are looked at all the same
            what.report(str(exc))

    def look_soon(self) -> None:
        """Begin `refresh` in the background where there is something to look at."""
        folder = self._credentials.folder
        stale = folder.is_stale() or any(map(Stored.is_stale, folder.stored().values()))
        if not self._looking and (stale or self._credentials.stale_users()):
            self._looking = True
            trio.lowlevel.spawn_system_task(self._look_now)

    async def _look_now(self) -> None:
        try:
            await self.refresh()
        except Exception:  # noqa: BLE001 - of a task that nobody waits for
            _log.exception("a fault of ssad's own, looking at the credentials")
        finally:
            self._looking = False

    async def remind(self) -> None:
        """Say which certificates in service expire, from time to time. Until cancelled."""
        while True:
            self._credentials.remind()
            await trio.sleep(_NEGLIGENCE)
