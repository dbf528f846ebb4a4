"""One worker, as the daemon sees it: the channel to its process, what it was told, and what it was asked."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import signal
import time
from typing import TYPE_CHECKING, Any, TypeVar

import trio

from ssa import errors
from ssa.daemon.liveness import Liveness
from ssa.ktls.netns import Diags
from ssa.logfmt import charged, fields
from ssa.worker import contents, frames, messages
from ssa.worker.outbox import Inbox, Outbox, Question

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from ssa.credentials import Credential
    from ssa.ktls.diag import Diag
    from ssa.ktls.probe import Capabilities
    from ssa.policy.live import LivePolicy
    from ssa.trust import TrustStore
    from ssa.worker.closing import Closer
    from ssa.worker.records import Application

T = TypeVar("T")

_PATIENCE = 2.0  # seconds for a worker to answer a question of the file system's
_MOST_WAITING = 1000  # messages: a worker that leaves so many unread is stuck
_HEARD = 64  # packets that are taken at most before something is shown
_TOGETHER = 8  # packets that are read in one go, before others get their turn
_HEARD_FOR = 0.05  # seconds for which they are taken at most
_LONG = 0.02  # seconds of CPU that no honest packet takes: then the worker has to wait
_REST = 4  # times as long, for the next one


class Handle:
    """One worker.

    Attributes:
        pid: of its process.
        own: the uid that it was given; 0 if an earlier daemon has done so, or if it runs as this daemon does.
        alive: it has not ended.
        is_taken_up: an earlier daemon has started it.
        goes_on: it is of another version, and is left alone.
        liveness: the sockets that it watches.
    """

    def __init__(self, uid: int, pid: int, channel: socket.socket, closer: Closer) -> None:
        """`closer` closes what it has passed: that can block."""
        self.uid = uid
        self.pid = pid
        self.own = 0
        self.room = 1  # messages that may wait where another application's connection is put behind them
        self.door = ""  # the name of its door (`ssa.daemon.doors`)
        self.is_taken_up = self.goes_on = False
        self.all_told = trio.Event()  # of a worker that is taken up
        self.alive = True
        self.passed_at = trio.current_time()  # when it was given an application last
        self.liveness = Liveness()
        self.diags = Diags()
        self.kernel = Kernel()
        self.log = charged(logging.getLogger("ssa.daemon"), uid)
        self.log_of_ends = charged(logging.getLogger("ssa.daemon"), uid, "truncated")
        self.granted: list[range] = []  # numbers for sockets
        self.groups: set[tuple[int, ...]] = set()  # of its applications
        self.diag: Diag | None = None  # for the network namespace that it has told last
        self.channel = channel
        self._closer = closer
        self._outbox = Outbox(channel)
        self._inbox = Inbox(channel)
        self._calls = itertools.count(1)
        self._report: Callable[[Handle, Any, int | None], None] = _nothing
        self._asked: dict[int, Question] = {}
        self._told_epoch = self._epoch = -1  # of the policy that it was told, and that it has in force
        self._has_followed = trio.Event()
        self._kernel: Capabilities | None = None
        self._stores: dict[str, TrustStore | str] = {}
        self._usable: dict[tuple[int, ...], tuple[object, object]] = {}

    # --- what it is told ---

    def tell(self, message: Any, descriptor: int | None = None, then: Callable[[], object] | None = None) -> None:
        """Send a message soon. One that leaves too many unread is ended."""
        if not self.alive:
            if then is not None:
                then()
            return
        self._outbox.put(message, descriptor, then)
        if len(self._outbox) > _MOST_WAITING:
            self.kill("it leaves its messages unread")
        self._outbox.flush()

    def policy_is(self, policy: LivePolicy) -> None:
        """Tell it the policy in force."""
        if policy.generation != self._told_epoch:
            self._told_epoch = policy.generation
            self.tell(messages.PolicyIs(policy.generation, tuple(policy.current.texts.items())))

    def follows(self, epoch: int) -> None:
        """It has put a policy in force."""
        self._epoch = epoch
        self._has_followed.set()
        self._has_followed = trio.Event()

    def is_behind(self, epoch: int) -> bool:
        """True where it runs, and has not yet the policy of that number in force."""
        return self.alive and self._epoch < epoch

    async def has_in_force(self, epoch: int) -> None:
        """Wait until it has the policy of that number in force, or a later one, or has ended."""
        while self.is_behind(epoch):
            await self._has_followed.wait()

    def kernel_is(self, kernel: Capabilities) -> None:
        """Tell it the kernel's features."""
        if kernel is not self._kernel:
            self._kernel = kernel
            algorithms = tuple((int(version), cipher) for version, cipher in sorted(kernel.algorithms))
            self.tell(messages.KernelIs(algorithms, kernel.rekey, kernel.reason, kernel.limits))

    def store_is(self, source: str, store: TrustStore | errors.SSAError) -> None:
        """Tell it a trust store, or what is wrong with that."""
        known = store.detail if isinstance(store, errors.SSAError) else store
        if self._stores.get(source) is known or self._stores.get(source) == known:
            return
        self._stores[source] = known
        if isinstance(store, errors.SSAError):
            self.tell(messages.StoreIs(source, store.reason, store.detail))
        else:
            self._tell_content(messages.StoreIs(source), contents.of_store(store))

    def usable_are(self, groups: tuple[int, ...], usable: Sequence[Credential], denied: Sequence[str]) -> None:
        """Tell it the credentials that a user in some groups may serve with."""
        if self._usable.get(groups) != (usable, denied):
            self._usable[groups] = usable, denied
            self._tell_content(messages.CredentialsAre(groups), contents.of_usable(usable, denied))

    def _tell_content(self, message: Any, descriptor: int) -> None:
        self.tell(message, descriptor, lambda: os.close(descriptor))

    # --- what it is asked ---

    async def ask(self, make: Callable[[int], Any]) -> Any:
        """Ask it something. Raises OSError ETIMEDOUT where it does not answer, or has ended."""
        call = next(self._calls)
        question = self._asked[call] = Question()
        try:
            self.tell(make(call))
            with trio.move_on_after(_PATIENCE if self.alive else 0):
                await question.answered.wait()
                if question.answer is not None:
                    return question.answer
        finally:
            del self._asked[call]
        raise OSError(errno.ETIMEDOUT, "its worker does not answer" if self.alive else "its worker has ended")

    def answer(self, message: Any) -> None:
        """Take an answer. One that comes too late is nobody's."""
        if (question := self._asked.get(message.call)) is not None:
            question.settle(message)

    # --- its life ---

    async def run(self, report: Callable[[Handle, Any, int | None], None]) -> None:
        """Take what it tells until it has ended. `report` is called with each message; it raises BadFrame."""
        self._report = report
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._outbox.run)
            try:
                await self._read()
            except frames.OtherVersion as exc:
                self.goes_on = True
                self.log.warning("a worker goes on by itself %s", fields(worker=self.pid, reason=str(exc)))
            except frames.BadFrame as exc:
                self.kill(f"it sends what it may not: {exc}")
            except OSError as exc:
                self.log.debug("a worker went away: %s", exc.strerror)
            nursery.cancel_scope.cancel()

    async def _read(self) -> None:
        for number in itertools.count(1):
            began = time.thread_time()
            try:
                if not self._read_one():
                    return
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.channel)
                continue
            if (took := time.thread_time() - began) > _LONG:
                await trio.sleep(took * _REST)
            elif number % _TOGETHER == 0:
                await trio.lowlevel.checkpoint()

    def _read_one(self) -> bool:
        """Take a packet; False where the worker has gone. Raises BlockingIOError where there is none, BadFrame."""
        packet = self._inbox.read()
        if packet is None:
            return False
        data, descriptors = packet
        try:
            told = frames.parse_untrusted(data, messages.TO_DAEMON)
            if len(descriptors) > min(len(told), 1):
                raise frames.BadFrame(f"{len(descriptors)} descriptors")
        except frames.BadFrame:
            self._closer.close(descriptors)
            raise
        for message in told:
            self._report(self, message, descriptors.pop() if descriptors else None)
        return True

    @property
    def is_heard(self) -> bool:
        """True while `run` runs."""
        return self.alive and self._report is not _nothing

    def hear(self) -> None:
        """Take what it has told by now: what an application knows by its reply has to be shown."""
        end = time.monotonic() + _HEARD_FOR
        try:
            for _ in range(_HEARD):
                if not self._read_one() or time.monotonic() > end:
                    return
        except BlockingIOError:
            return
        except frames.BadFrame as exc:
            self.kill(f"it sends what it may not: {exc}")
        except Exception:
            self.log.exception("a fault of ssad's own, hearing a worker")
            self.kill("the daemon could not hear it")

    def kill(self, why: str) -> None:
        """End it at once."""
        self.log.error("a worker is ended %s", fields(worker=self.pid, reason=why))
        if self.pid:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end."""
        self.tell(messages.Stop())

    def close(self) -> None:
        """Forget it. What waits for an answer gets none."""
        self.alive = False
        self.all_told.set()
        self._outbox.close()
        self._closer.drop(self.channel)  # with descriptors in packets that nobody has read
        self._has_followed.set()
        for question in self._asked.values():
            question.answered.set()

    @property
    def has_room(self) -> bool:
        """True where another application's connection may be put into its channel."""
        return len(self._outbox) < self.room

    def pass_on(
        self, application: Application, connection: socket.socket, fresh: str, then: Callable[[], object]
    ) -> None:
        """Give it an application's connection; `then` is called when it has it. `fresh` is a store just looked at."""
        self.groups.add(application.all_groups)
        self.passed_at = trio.current_time()
        self.tell(messages.Serve(application, fresh, time.monotonic()), connection.fileno(), then)


def _nothing(_handle: Handle, _message: Any, _descriptor: int | None) -> None:
    raise frames.BadFrame("it tells something too early")


class Kernel:
    """Asks the kernel about a user's sockets, in a thread: the user can make the kernel wait for one of them."""

    def __init__(self) -> None:
        self._turn = trio.Lock()
        self._thread = trio.CapacityLimiter(1)

    async def ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises OSError: what the question raises, and ETIMEDOUT."""
        with trio.move_on_after(_PATIENCE):
            async with self._turn:
                return await trio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=self._thread)
        raise OSError(errno.ETIMEDOUT, "the kernel does not answer about this user's sockets")
