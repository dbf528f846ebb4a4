"""SIGHUP: reads the policy's file and the credentials again. All of it counts from the next handshake on, or nothing.

Files are read in a thread and within a bounded time, so a file system that hangs holds nobody up.
"""

from __future__ import annotations

import contextlib
import logging
import math
from typing import TYPE_CHECKING

import trio

from ssa.daemon import sd_notify
from ssa.logfmt import fields
from ssa.policy import files
from ssa.policy.schema import SETTINGS, BadValue

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ssa.credentials import Folder
    from ssa.daemon.state import State
    from ssa.policy.schema import Policy

_log = logging.getLogger("ssa.daemon")

_PATIENCE = 20  # seconds to read the files in


class Reloader:
    """Reloads when it is asked to, once at a time. Whatever is asked meanwhile makes it reload once more.

    Args:
        config: the policy's file.
        required: somebody named it, so it has to be there.
    """

    def __init__(self, state: State, config: Path, *, required: bool) -> None:
        self._state = state
        self._config = config
        self._required = required
        self._ask, self._asked = trio.open_memory_channel[None](1)

    def ask(self) -> None:
        """Ask for a reload, which `run` does soon."""
        with contextlib.suppress(trio.WouldBlock):
            self._ask.send_nowait(None)

    async def run(self) -> None:
        """Reload whenever that is asked for, until cancelled."""
        async for _ in self._asked:
            sd_notify.reloading()
            try:
                await self._reload()
            except (OSError, BadValue) as exc:
                reason = exc.strerror if isinstance(exc, OSError) else exc
                _log.error("not reloaded, all stays in force as it was %s", fields(file=self._config, reason=reason))
            except Exception:  # noqa: BLE001 - the daemon goes on with what it has
                _log.exception("not reloaded, by a fault of ssad's own")
            sd_notify.ready()

    async def _reload(self) -> None:
        """Raises OSError or `BadValue`, and then nothing has changed."""
        found: list[tuple[Policy, str, Folder]] = []
        with trio.move_on_after(_PATIENCE) as patience:
            found.append(await trio.to_thread.run_sync(self._read, abandon_on_cancel=True, limiter=_THREADS))
        if patience.cancelled_caught:
            raise BadValue(f"the files cannot be read within {_PATIENCE} s")
        [(policy, source, folder)] = found
        await self._state.prepare(policy)
        before = self._state.policy.current
        if policy.texts != before.texts:
            self._state.policy.put(policy)
            await self._state.in_force()
        lines = [*_differences(before, policy), *_became(self._state.credentials.take(folder))]
        for line in lines:
            _log.info("changed %s", line)
        _log.info("reloaded%s %s", "" if lines else ", and nothing has changed", shown(source, self._config))

    def _read(self) -> tuple[Policy, str, Folder]:
        return *files.find(self._config, required=self._required), self._state.credentials.read_again()


_THREADS = trio.CapacityLimiter(math.inf)  # a thread that hangs in a file system leaves room for the next reload


def _differences(before: Policy, after: Policy) -> Iterator[str]:
    for name in SETTINGS:
        if before.text(name) != after.text(name):
            yield fields(setting=name, old=before.text(name), new=after.text(name))


def _became(credentials: dict[str, str]) -> Iterator[str]:
    for name, became in sorted(credentials.items()):
        yield fields(credential=name, became=became)


def shown(source: str, config: Path) -> str:
    """The policy that is in force, in words for the log."""
    return fields(file=source) if source else fields(file="", defaults=f"as {config} is not there")
