"""The daemon takes what a worker tells and asks. A worker is not trusted: each claim is checked here."""

from __future__ import annotations

import logging
import os
import struct
from typing import TYPE_CHECKING, Any

from ssa.daemon import who
from ssa.daemon.state import COUNTERS
from ssa.ktls.netns import is_namespace
from ssa.logfmt import fields
from ssa.suites import SUITES
from ssa.worker import messages, outbox
from ssa.worker.frames import BadFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.daemon.handle import Handle
    from ssa.daemon.state import State
    from ssa.ktls.diag import Diag
    from ssa.worker.closing import Closers
    from ssa.worker.records import Application, SocketRecord

_LOGGERS = {"ssa.daemon", "ssa.relay"}
_MOST_NUMBER = 1 << 31  # that a socket has
_MOST_AT_ONCE = 1 << 20  # of what is counted
_END_OF_TIME = 1 << 33  # seconds since the epoch: the year 2242


class Reports:
    """Takes the messages of workers."""

    def __init__(
        self,
        state: State,
        closers: Closers,
        soon: Callable[..., None],
        grant: Callable[[Handle], None],
        retire: Callable[[Handle], None],
    ) -> None:
        """`soon` does something in the background, `grant` gives more numbers, `retire` lets an idle worker end."""
        self._retire = retire
        self._state = state
        self._closers = closers
        self._soon = soon
        self._grant = grant

    def take_untrusted(self, handle: Handle, message: Any, descriptor: int | None) -> None:
        """Take a message, with the descriptor that came with it. Raises BadFrame for a claim that is false."""
        if type(message) in _WITH_A_DESCRIPTOR:
            if descriptor is None:
                raise BadFrame("no descriptor")
            _WITH_A_DESCRIPTOR[type(message)](self, handle, message, descriptor)
        elif descriptor is not None:
            self._drop(handle, descriptor)
            raise BadFrame("a descriptor that is not asked for")
        else:
            _HANDLERS[type(message)](self, handle, message)

    def _drop(self, handle: Handle, descriptor: int) -> None:
        self._closers.of(handle.uid).close([descriptor])

    # --- sockets ---

    def hello(self, handle: Handle, message: messages.Hello) -> None:
        """Hear how far the numbers go that an earlier daemon has given to it, and give it new ones."""
        if handle.granted or not 0 <= message.last < _MOST_NUMBER:
            raise BadFrame("it is no worker of an earlier daemon, or tells of numbers that no daemon gives")
        self._state.sockets.pass_over(message.last)
        handle.granted = [range(1, message.last + 1)]
        handle.is_taken_up = True
        self._grant(handle)

    @staticmethod
    def has_told_all(handle: Handle, _message: messages.AllTold) -> None:
        """Hear that a worker that is taken up has told all that it has."""
        handle.all_told.set()

    def watches_no_more(self, handle: Handle, message: messages.WatchesNoMore) -> None:
        """Let go of an epoll set."""
        handle.liveness.drop(message.number)

    def watches(self, handle: Handle, message: messages.Watches, descriptor: int) -> None:
        """Take an epoll set."""
        if not handle.liveness.take_untrusted(message.number, descriptor):
            self._drop(handle, descriptor)
            raise BadFrame("no epoll set, or too many")

    def namespace(self, handle: Handle, message: messages.Namespace, descriptor: int) -> None:
        """Take the descriptor of a network namespace, in which the kernel can be asked."""
        if not is_namespace(descriptor):
            self._drop(handle, descriptor)
            raise BadFrame("no network namespace")
        handle.diag = handle.diags.enter_untrusted(message.cookie, descriptor)

    def add(self, handle: Handle, message: messages.Add) -> None:
        """Register a TLS socket."""
        record = message.record
        self._check(handle, record.id, record.application)
        _check_record(record)
        handle.liveness.stir()
        if message.namespace and handle.diags.of(message.namespace) is None:
            handle.diag = _diag_by_process(handle, record.pid, message.namespace)
        self._state.sockets.add(record, message.inode, message.namespace, handle)
        handle.diag = None

    def _check(self, handle: Handle, number: int, application: Application) -> None:
        self._check_user(handle, application)
        if not any(number in granted for granted in handle.granted):
            raise BadFrame(f"the number {number} was not given to it")
        known = self._state.sockets.record(number, handle) or self._state.listeners.get(number)
        if known is not None and known.worker is handle:
            raise BadFrame(f"it has told of the number {number} already")

    def forget(self, handle: Handle, message: messages.Forget) -> None:
        """Remove a TLS socket that has ended."""
        self._state.sockets.forget(message.number, handle)

    def listens(self, handle: Handle, message: messages.Listens) -> None:
        """Register a listener."""
        application = message.record.application
        self._check(handle, message.record.id, application)
        _check_moment(message.record.opened)
        if handle.is_taken_up and who.has_groups(application):
            handle.groups.add(application.all_groups)
        self._state.listeners.add(message.record, handle)

    def listens_no_more(self, handle: Handle, message: messages.ListensNoMore) -> None:
        """Remove a listener."""
        self._state.listeners.remove(message.number, handle)

    def idle(self, handle: Handle, _message: messages.Idle) -> None:
        """Let it end, where it has been given nothing to do meanwhile."""
        self._retire(handle)

    def numbers(self, handle: Handle, _message: messages.Numbers) -> None:
        """Give it more numbers."""
        self._grant(handle)

    # --- what has happened ---

    def count(self, _handle: Handle, message: messages.Count) -> None:
        """Count events."""
        if message.counter not in COUNTERS or not 0 <= message.number <= _MOST_AT_ONCE:
            raise BadFrame(f"it counts {message.number} of {message.counter!a}")
        self._state.count(message.counter, message.number)

    def refused(self, handle: Handle, message: messages.Refused) -> None:
        """Count and log a refusal, on the user's account."""
        refusal = message.refusal
        self.count(handle, messages.Count(refusal.counter, 1))
        asker = {"pid": refusal.pid, "uid": handle.uid, "exe": refusal.exe}
        why = {"reason": refusal.reason, "fault": refusal.fault, "alert": refusal.alert, "detail": refusal.detail}
        handle.log.info("refused %s", fields(**dict(refusal.asked), **asker, **why))

    def was_cut(self, handle: Handle, message: messages.WasCut) -> None:
        """Count and log that a peer's stream has ended without close_notify."""
        self._state.count("truncated")
        if (record := self._state.sockets.record(message.number, handle)) is not None:
            whose = {name: getattr(record, name) for name in ("id", "hostname", "local", "remote", "pid", "uid", "exe")}
            handle.log_of_ends.info("truncated %s", fields(**whose))

    def in_force(self, handle: Handle, message: messages.InForce) -> None:
        """It has put a policy in force."""
        handle.follows(message.epoch)

    def relays(self, _handle: Handle, message: messages.Relays) -> None:
        """Log, once for each reason, that connections go by the relay."""
        self._state.note_relayed(message.reason)

    def line(self, handle: Handle, message: messages.Line) -> None:
        """Log a line, on the user's account."""
        log = logging.getLogger(message.logger if message.logger in _LOGGERS else "ssa.daemon")
        log.log(message.level, "%s", message.text, extra={"uid": handle.uid, "trace": message.trace})

    def dropped(self, _handle: Handle, message: messages.Dropped) -> None:
        """Count lines that were lost."""
        self._state.lines_dropped += max(0, min(message.lines, _MOST_AT_ONCE))

    # --- questions ---

    def fresh(self, handle: Handle, message: messages.Fresh) -> None:
        """Look at the administrator's files in the background, and tell what is there; then that it was done."""
        if message.source and not self._state.trust_stores.is_known(message.source):
            raise BadFrame("a trust store that no policy has named")
        if message.groups is not None and message.groups not in handle.groups and not handle.is_taken_up:
            raise BadFrame("groups that none of its applications has")
        self._soon(self._fresh, handle, message)

    async def _fresh(self, handle: Handle, message: messages.Fresh) -> None:
        state = self._state
        handle.kernel_is(state.capabilities(urgent=message.urgent))
        if message.source:
            await state.trust_stores.refresh(message.source)
            handle.store_is(message.source, state.trust_stores.found(message.source))
        if message.groups is not None:
            await state.credential_files.refresh()
            known = message.groups in handle.groups  # else it says so of an application that we have not seen
            usable = state.credentials.usable(handle.uid, message.groups) if known else ((), ())
            handle.usable_are(message.groups, *usable)
        if message.call:
            handle.tell(messages.Done(message.call))

    def settle(self, handle: Handle, message: messages.Settle) -> None:
        """Look at the program of an application once more."""
        self._check_user(handle, message.application)
        handle.tell(messages.IsSettled(message.call, who.settled(message.application)))

    @staticmethod
    def _check_user(handle: Handle, application: Application) -> None:
        if application.uid != handle.uid:
            raise BadFrame(f"it claims to serve uid {application.uid}")

    def elsewhere(self, handle: Handle, message: messages.Elsewhere) -> None:
        """Connect it to the worker that has a socket, unless that one has much to read already."""
        self._check_user(handle, message.application)
        owner = self._state.sockets.owner(message.inode)
        if owner is None or owner is handle or not owner.has_room:
            handle.tell(messages.Done(message.call))
            return
        ours, theirs = outbox.pair()
        handle.tell(messages.Done(message.call), ours.fileno(), ours.close)
        owner.tell(messages.Visit(message.application), theirs.fileno(), theirs.close)

    def answer(self, handle: Handle, message: messages.Looked | messages.Ended) -> None:
        """Take an answer."""
        handle.answer(message)


def _check_record(record: SocketRecord) -> None:
    """Hold what the daemon does more with than show it against what it can be. Raises BadFrame."""
    _check_moment(record.opened)
    try:
        record.key.pack()
    except (OSError, ValueError, OverflowError, struct.error) as exc:
        raise BadFrame(f"addresses that no socket has: {exc}") from None
    if record.suite not in SUITES:
        raise BadFrame(f"the cipher suite {record.suite!a}")


def _check_moment(moment: float) -> None:
    if not 0 <= moment < _END_OF_TIME:
        raise BadFrame(f"the time {moment}")


def _diag_by_process(handle: Handle, pid: int, cookie: bytes) -> Diag | None:
    """The `Diag` for the namespace of a number, where it is a process's: a worker in its sandbox tells of none."""
    try:
        namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    return handle.diags.enter_untrusted(cookie, namespace)


_WITH_A_DESCRIPTOR: dict[type, Callable[[Reports, Handle, Any, int], None]] = {
    messages.Watches: Reports.watches,
    messages.Namespace: Reports.namespace,
}
_HANDLERS: dict[type, Callable[[Reports, Handle, Any], None]] = {
    messages.Hello: Reports.hello,
    messages.AllTold: lambda _, handle, message: Reports.has_told_all(handle, message),
    messages.WatchesNoMore: Reports.watches_no_more,
    messages.Add: Reports.add,
    messages.Forget: Reports.forget,
    messages.Listens: Reports.listens,
    messages.ListensNoMore: Reports.listens_no_more,
    messages.InForce: Reports.in_force,
    messages.Idle: Reports.idle,
    messages.Numbers: Reports.numbers,
    messages.Count: Reports.count,
    messages.Refused: Reports.refused,
    messages.WasCut: Reports.was_cut,
    messages.Relays: Reports.relays,
    messages.Line: Reports.line,
    messages.Dropped: Reports.dropped,
    messages.Fresh: Reports.fresh,
    messages.Settle: Reports.settle,
    messages.Elsewhere: Reports.elsewhere,
    messages.Looked: Reports.answer,
    messages.Ended: Reports.answer,
}
