"""The workers by user: has a process forked for each user whose request comes, and hears what becomes of it."""

from __future__ import annotations

import itertools
import logging
import os
import resource
import select
import socket
import time
from typing import TYPE_CHECKING

import trio

from ssa import errors
from ssa.daemon import quota, worker_uids, zygote
from ssa.daemon.handle import Handle
from ssa.daemon.reports import Reports
from ssa.logfmt import charged, fields
from ssa.worker import messages, outbox
from ssa.worker.closing import Closers
from ssa.worker.quota import Quota, Table
from ssa.worker.user import NOBODY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from ssa.daemon.doors import Doors
    from ssa.daemon.state import State
    from ssa.daemon.zygote import Ended, Started

_TRUSTED = 0  # root
_OWN = 16  # descriptors that the daemon itself opens after its start, at most
_PATIENCE = 2.0  # seconds for the workers to end with the daemon
_ROOM = 10.0  # seconds for a worker to take what is in its channel
_MOST_PASSED = 64  # messages that wait for room, with the connections of applications
_MOMENT = 0.005  # seconds between two looks
_FOLLOW = 2.0  # seconds for a worker to put a policy in force; then it is ended, and the next request starts another
_RESTED = 0.5  # seconds since a worker was given an application last: its word that it is idle is newer than that
_FORK = 30.0  # seconds for the zygote to fork one

_log = logging.getLogger("ssa.daemon")


class Workers:
    """The workers by user: each is started when the user's first request comes."""

    def __init__(self, state: State, channel: socket.socket, doors: Doors, uids: range) -> None:
        """`channel` is the one to the zygote. Workers run as these uids; as our own user where there are none."""
        self._uids = uids
        self._doors = doors
        self._state = state
        self._zygote = channel
        self._handles: dict[int, Handle] = {}
        self._users: dict[int, int] = {}  # by pid
        self._starting: dict[int, _Start] = {}  # by uid
        self._calls = itertools.count(1)
        self._quotas: dict[int, Quota] = {}
        size, own = resource.getrlimit(resource.RLIMIT_NOFILE)[0], len(os.listdir("/proc/self/fd")) + _OWN
        self.table = Table(size, own, lambda: self.closers.open(None))
        self._nursery: trio.Nursery | None = None
        self.leave = False  # the workers to the next daemon
        self.closers = Closers()
        self._reports = Reports(state, self.closers, self.soon, self.grant, self.retire)
        self.nobody = self.closers.of(NOBODY)  # closes what is no user's
        self.log = charged(_log, NOBODY)
        state.take_reports = self.hear
        state.announce = self.put_in_force
        state.tell_trust = self.tell_trust

    def all(self) -> list[Handle]:
        """The workers that run."""
        return list(self._handles.values())

    def running(self, uid: int) -> Handle | None:
        """The worker of a user, if it runs."""
        return self._handles.get(uid)

    async def with_room(self, uid: int) -> Handle:
        """The worker of a user, when it has taken what was put into its channel. Raises `ssa.SSAError` OVERLOADED."""
        with self._quota(uid).of():
            deadline = trio.current_time() + _ROOM
            while not (handle := await self.of(uid)).has_room:
                if trio.current_time() > deadline:
                    raise errors.error("OVERLOADED", f"the worker of uid {uid} takes no request")
                await trio.sleep(_MOMENT)
            return handle

    def _quota(self, uid: int) -> Quota:
        """The connections of a user that wait for a worker."""
        if (found := self._quotas.get(uid)) is None:
            for idle in [uid for uid, quota in self._quotas.items() if not quota.used()]:
                del self._quotas[idle]
            limit, closer = quota.limit(self.table.free, uid), self.closers.of(uid)
            found = self._quotas[uid] = Quota(self.table, uid, limit, closer.open)
        return found

    async def of(self, uid: int) -> Handle:
        """The worker of a user. Raises `ssa.SSAError` OVERLOADED where none can be started."""
        if (handle := self._handles.get(uid)) is not None:
            return handle
        start = self._starting.get(uid) or self._start(uid)
        with trio.move_on_after(_FORK):
            await start.done.wait()
        if start.handle is None:
            raise errors.error("OVERLOADED", f"no worker can be started: {start.failure}")
        return start.handle

    def _start(self, uid: int) -> _Start:
        start = _Start(next(self._calls))
        try:
            start.own = worker_uids.free(self._uids, self._taken_uids()) if self._uids else 0
            ours, theirs = outbox.pair()
            try:
                with theirs, self._doors.make(start.door) as door:
                    trusted = uid in {_TRUSTED, os.geteuid()}
                    zygote.ask(self._zygote, start.call, uid, start.own, theirs, door, trusted=trusted)
            except OSError:
                ours.close()
                raise
        except OSError as exc:
            start.fail(exc.strerror or str(exc))
            return start
        start.channel, start.uid = ours, uid
        self._starting[uid] = start
        return start

    def _taken_uids(self) -> list[int]:
        """The uids that were given to workers. One that was just forked has not set its own yet."""
        starting = [start.own for start in self._starting.values()]
        return starting + [handle.own for handle in self._handles.values()]

    # --- what becomes of them ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve the workers until cancelled."""
        self.closers.end_lingering()
        async with trio.open_nursery() as self._nursery:
            await self.take_up()
            task_status.started()
            while True:
                await trio.lowlevel.wait_readable(self._zygote)
                if (told := zygote.told(self._zygote)) is None:
                    self.leave = True
                    raise OSError(0, "the process that starts workers has ended")
                if isinstance(told, zygote.Started):
                    self._has_started(told)
                else:
                    self._has_ended(told)

    def _has_started(self, told: Started) -> None:
        start = next((start for start in self._starting.values() if start.call == told.call), None)
        if start is None or start.channel is None:
            return
        del self._starting[start.uid]
        if told.pid < 0:
            start.channel.close()
            start.fail(os.strerror(-told.pid))
            return
        try:
            handle = self._adopt(start.uid, told.pid, start.channel)
        except OSError as exc:  # no descriptor is left: the worker finds that nobody wants it
            start.channel.close()
            start.fail(exc.strerror or str(exc))
            return
        handle.own = start.own
        try:
            handle.door = self._doors.label(start.door, start.uid, told.pid)
        except OSError as exc:  # it has ended
            handle.log.debug("a worker went away: %s", exc.strerror)
        self.greet(handle)
        start.succeed(handle)
        _log.debug("a worker has started %s", fields(worker=handle.pid, uid=handle.uid))

    def _adopt(self, uid: int, pid: int, channel: socket.socket) -> Handle:
        handle = self._handles[uid] = Handle(uid, pid, channel, self.closers.of(uid))
        handle.room = max(1, min(_MOST_PASSED, self.table.free // 8))
        self._users[pid] = uid
        self.soon(self._follow, handle)
        return handle

    async def take_up(self) -> None:
        """Go on with the workers that an earlier daemon has left, and wait for a moment until they have told all."""
        left = [(behind, channel) for behind, channel in self._doors.left() if behind.uid not in self._handles]
        handles = []
        for behind, channel in left:
            handle = self._adopt(behind.uid, behind.pid, channel)
            handle.door = ".".join(map(str, behind))
            handle.policy_is(self._state.policy)
            handle.kernel_is(self._state.capabilities(urgent=False))
            handles.append(handle)
        with trio.move_on_after(_PATIENCE):
            for handle in handles:
                await handle.all_told.wait()
        for handle in handles:
            if handle.all_told.is_set():
                _log.info("a worker of an earlier ssad is taken up %s", fields(worker=handle.pid, uid=handle.uid))
            elif handle.alive:
                handle.kill("it does not answer to this ssad")

    def greet(self, handle: Handle) -> None:
        """Tell a worker what it has to know before its first application."""
        handle.policy_is(self._state.policy)
        handle.kernel_is(self._state.capabilities(urgent=False))
        self.grant(handle)

    def retire(self, handle: Handle) -> None:
        """Let a worker end that has nothing to do, unless it was given something since it said so."""
        if self._handles.get(handle.uid) is handle and trio.current_time() - handle.passed_at > _RESTED:
            del self._handles[handle.uid]
            handle.tell(messages.Retire())

    async def put_in_force(self) -> None:
        """Tell all workers the policy in force, and wait until each has it. One that does not follow is ended."""
        policy, handles = self._state.policy, self.all()
        epoch = policy.generation
        for handle in handles:
            handle.policy_is(policy)
        with trio.move_on_after(_FOLLOW) as late:
            for handle in handles:
                await handle.has_in_force(epoch)
        if late.cancelled_caught:
            for handle in handles:
                if handle.is_behind(epoch):
                    handle.kill("it does not follow the policy")
                    if self._handles.get(handle.uid) is handle:  # the kernel may keep it waiting: its user gets another
                        del self._handles[handle.uid]
            with trio.move_on_after(_FOLLOW):
                for handle in handles:
                    await handle.has_in_force(epoch)

    def hear(self) -> None:
        """Take what the workers have told by now."""
        for handle in self.all():
            if handle.is_heard:
                handle.hear()

    def tell_trust(self, source: str) -> None:
        """Tell all workers a trust store, where it has changed."""
        store = self._state.trust_stores.found(source)
        for handle in self.all():
            handle.store_is(source, store)

    def grant(self, handle: Handle) -> None:
        """Give a worker numbers for sockets and listeners."""
        granted = self._state.sockets.grant()
        handle.granted = [*handle.granted[-1:], granted]
        handle.tell(messages.NumbersAre(granted.start, len(granted)))

    async def _follow(self, handle: Handle) -> None:
        """Hear a worker until it has ended."""
        try:
            await handle.run(self._reports.take_untrusted)
        except Exception:
            handle.log.exception("a fault of ssad's own, hearing a worker")
            handle.kill("the daemon could not hear it")
        self._doors.remove(handle.door)
        if self._handles.get(handle.uid) is handle:
            del self._handles[handle.uid]
        handle.close()
        self._state.sockets.has_ended(handle)
        self._state.listeners.has_ended(handle)
        if not handle.goes_on:
            self.soon(self._see_it_end, handle)

    async def _see_it_end(self, handle: Handle) -> None:
        """End a worker that has hung up and runs on: it would keep its uid, and nobody hears it."""
        await trio.sleep(_PATIENCE)
        if self._doors.runs(handle.door):
            handle.kill("it has hung up, and runs on")

    def _has_ended(self, told: Ended) -> None:
        status = os.waitstatus_to_exitcode(told.status)
        uid = self._users.pop(told.pid, NOBODY)
        if status < 0:
            _log.error("a worker was killed %s", fields(worker=told.pid, uid=uid, signal=-status))
        elif status:
            _log.error("a worker has failed %s", fields(worker=told.pid, uid=uid, status=status))

    def soon(self, work: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Do something in the background."""
        if self._nursery is not None:
            self._nursery.start_soon(work, *args)

    def close(self) -> None:
        """End the workers, or leave them to the next daemon. Sockets that applications hold live on in any case."""
        if not self.leave:
            deadline = time.monotonic() + _PATIENCE
            for handle in self.all():
                handle.stop()
            for handle in self.all():
                if not _has_ended(handle.channel, deadline):
                    handle.kill("it does not end with ssad")
                self._doors.remove(handle.door)
        for handle in self.all():
            handle.close()
        self._zygote.close()
        self._doors.close()


class _Start:
    """A worker that is being started."""

    def __init__(self, call: int) -> None:
        self.call = call
        self.uid = NOBODY
        self.own = 0  # the uid that it runs as
        self.door = f"{os.getpid()}-{call}"
        self.channel: socket.socket | None = None
        self.done = trio.Event()
        self.handle: Handle | None = None
        self.failure = "the zygote does not answer"

    def succeed(self, handle: Handle) -> None:
        """It has started."""
        self.handle = handle
        self.done.set()

    def fail(self, failure: str) -> None:
        """It could not be started."""
        self.failure = failure
        self.done.set()


def _has_ended(channel: socket.socket, deadline: float) -> bool:
    """Read what a worker says until it has ended. False where it has not by the deadline."""
    poll = select.poll()
    poll.register(channel, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0 and poll.poll(left * 1000):
        try:
            data, _, flags, _ = channel.recvmsg(1, 0, socket.MSG_DONTWAIT)
        except OSError:
            return True
        if not data and not flags & socket.MSG_CTRUNC:
            return True
    return False
