"""The daemon, as a worker in a process of its own sees it: a `Monitor` at the end of a channel."""

from __future__ import annotations

import errno
import itertools
import os
import socket
import time
from collections import deque
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import trio

from ssa import errors, trust
from ssa.ktls.netns import namespace_of
from ssa.ktls.probe import Capabilities
from ssa.policy.schema import Policy
from ssa.suites import TLSVersion
from ssa.trust.recent import Recent
from ssa.worker import contents, frames, messages, neighbours
from ssa.worker.outbox import Inbox, Outbox, Question

if TYPE_CHECKING:
    from collections.abc import Callable

    from ssa.protocol.wire import Message, Reply
    from ssa.trust import TrustStore
    from ssa.worker.contents import Usable
    from ssa.worker.packets import Handover
    from ssa.worker.records import Application, ListenerRecord, Refusal, SocketRecord
    from ssa.worker.service import Worker

_PROBE_AGAIN = 1.0  # seconds between two questions whether the kernel has TLS by now
_FEW = 500  # numbers that are left when more are asked for
_KEPT_FOR_THE_NEXT = (messages.Count, messages.Refused, messages.WasCut, messages.Relays, messages.Line)
_JUST_NOW = 0.001  # seconds for which a look of the daemon's at a trust store counts
_ROOMY = 256  # descriptors
_MOMENTS, _MOMENT = 20, 0.001  # how often, and how many seconds, to wait for threads that close
_KEPT = 64  # trust stores, and groups of users

# Of a task that serves a connection: the trust store that the daemon has looked at for it, and when.
_looked: ContextVar[tuple[str, float]] = ContextVar("looked", default=("", 0.0))


class Link:
    """The daemon, as one worker sees it. Its methods are for the event loop."""

    worker: Worker

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self.outbox = Outbox(channel)
        self._inbox = Inbox(channel)
        self._look = 0  # the question of `look_soon` that is not answered yet
        self._last = 0
        self.retires = trio.Event()
        self._calls = itertools.count(1)
        self._asked: dict[int, Question] = {}
        self._policy = Policy.default()
        self._kernel = Capabilities(frozenset(), rekey=False, reason="the daemon has not told it yet")
        self._probed = 0.0
        self._stores: Recent[str, TrustStore | errors.SSAError] = Recent(_KEPT)
        self._credentials: Recent[tuple[int, ...], Usable] = Recent(_KEPT)
        self._numbers: deque[int] = deque()

    # --- what is in force ---

    @property
    def policy(self) -> Policy:
        """The policy in force at this moment."""
        return self._policy

    def capabilities(self) -> Capabilities:
        """The kernel's TLS features, as the daemon has told them last."""
        return self._kernel

    async def fresh_capabilities(self, *, urgent: bool) -> None:
        """Have a kernel that had no TLS asked again: after a second; if `urgent`, at once."""
        if not self._kernel.tls and (urgent or time.monotonic() - self._probed > _PROBE_AGAIN):
            self._probed = time.monotonic()
            await self._ask(messages.Fresh(next(self._calls), urgent=urgent))

    async def fresh_trust(self, source: str) -> None:
        """Have a trust store read again where its files may have changed, unless the daemon has just looked."""
        fresh, looked = _looked.get()
        if source != fresh or time.monotonic() - looked > _JUST_NOW:
            await self._ask(messages.Fresh(next(self._calls), source))

    @staticmethod
    def has_looked(message: messages.Serve) -> None:
        """Remember, for this task, the trust store that the daemon has looked at."""
        _looked.set((message.fresh, message.looked))

    def trust_store(self, source: str) -> TrustStore:
        """The trust store as it was read last. Raises `ssa.SSAError` TRUST_STORE."""
        return trust.good(self._stores.get(source), source)

    async def fresh_credentials(self, application: Application) -> None:
        """Have the administrator's credentials read again where their files may have changed."""
        await self._ask(messages.Fresh(next(self._calls), groups=application.all_groups))

    def look_soon(self, application: Application) -> None:
        """Have `fresh_credentials` begin in the background."""
        if not self._look:  # one at a time, however many strangers make us look
            self._look = next(self._calls)
            self.outbox.put(messages.Fresh(self._look, groups=application.all_groups))

    def usable(self, application: Application) -> Usable:
        """The administrator's credentials that this user may serve with; the names of the others."""
        return self._credentials.get(application.all_groups) or ((), ())

    # --- who asks ---

    async def settled(self, application: Application) -> Application:
        """The application of a listener, whose program is that which began to listen."""
        return cast("Application", await self._ask(messages.Settle(next(self._calls), application)))

    # --- the sockets that applications hold ---

    def new_id(self) -> int:
        """A number for a socket or a listener. Raises `ssa.SSAError` OVERLOADED."""
        if len(self._numbers) == _FEW:
            self.outbox.put(messages.Numbers())
        if not self._numbers:
            raise errors.error("OVERLOADED", "the numbers for sockets are used up for a moment")
        return self._numbers.popleft()

    def watches(self, number: int, epoll: int) -> None:
        """Give the daemon an epoll set of watched sockets."""
        descriptor = os.dup(epoll)
        self.outbox.put(messages.Watches(number), descriptor, partial(os.close, descriptor))

    def watches_no_more(self, number: int) -> None:
        """Tell the daemon that a set is empty and closed."""
        self.outbox.put(messages.WatchesNoMore(number))

    def add(self, record: SocketRecord, inode: int, sock: socket.socket | None) -> bytes | None:
        """Register a TLS socket, and return the number of its network namespace."""
        cookie, namespace = (None, None) if sock is None else namespace_of(sock)
        if cookie is not None and namespace is not None:
            self.outbox.put(messages.Namespace(cookie), namespace, partial(os.close, namespace))
        self.outbox.put(messages.Add(record, inode, cookie))
        return cookie

    async def elsewhere(
        self, application: Application, request: Message, sock: socket.socket
    ) -> Reply | Handover | None:
        """The answer of another user's worker to a request about a TLS socket that it has made."""
        inode = os.fstat(sock.fileno()).st_ino
        found = await self._ask(messages.Elsewhere(next(self._calls), application, inode))
        if not isinstance(found, socket.socket):
            raise errors.error("UNKNOWN_SOCKET")
        with found:
            return await neighbours.ask(self.worker.closer, found, request, sock)

    def forget(self, number: int) -> None:
        """Remove a TLS socket that has ended."""
        self.outbox.put(messages.Forget(number))

    def listens(self, record: ListenerRecord) -> None:
        """Register a listener."""
        self.outbox.put(messages.Listens(record))

    def listens_no_more(self, number: int) -> None:
        """Remove a listener."""
        self.outbox.put(messages.ListensNoMore(number))

    # --- what has happened ---

    def count(self, counter: str, number: int = 1) -> None:
        """Count events."""
        if number:
            self.outbox.put(messages.Count(counter, number))

    def refused(self, refusal: Refusal) -> None:
        """Count and log a refusal, on this user's account."""
        self.outbox.put(messages.Refused(refusal))

    def was_cut(self, record: SocketRecord) -> None:
        """Count and log that the peer's stream has ended without close_notify."""
        self.outbox.put(messages.WasCut(record.id))

    def note_relayed(self, reason: str) -> None:
        """Log, once for each reason, that connections go by the relay."""
        self.outbox.put(messages.Relays(reason))

    async def told(self) -> None:
        """Wait until the daemon has been sent all of this. Raises OSError where it has gone."""
        await self.outbox.sent()

    # --- the channel ---

    async def _ask(self, message: Any) -> Any:
        """Ask the daemon, and wait for the answer."""
        question = self._asked[message.call] = Question(message)
        try:
            self.outbox.put(message)
            await self.outbox.sent()
            await question.answered.wait()
            return question.answer
        finally:
            del self._asked[message.call]

    def attach(self, channel: socket.socket) -> None:
        """Go on with another daemon, which gets to know all that the worker has, and is asked what the last one was."""
        trio.lowlevel.notify_closing(self.channel)
        self.channel.close()
        self.channel, self._inbox = channel, Inbox(channel)
        self._stores, self._credentials = Recent(_KEPT), Recent(_KEPT)
        told = [(messages.Hello(self._last), None), *self.worker.all_told(), (messages.AllTold(), None)]
        asked = [(question.message, None) for question in self._asked.values()]
        self._numbers.clear()
        self._look = 0
        self.outbox.attach(channel, [*told, *asked], _KEPT_FOR_THE_NEXT)

    async def run(self, serve: Callable[[messages.Serve | messages.Visit, socket.socket], None]) -> bool:
        """Take the daemon's messages until it has gone; True where it says stop. `serve` is called for a connection."""
        while True:
            try:
                packet = self._inbox.read()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.channel)
                continue
            if packet is None:
                return False
            data, descriptors = packet
            descriptor = descriptors[0] if descriptors else None
            try:
                told = frames.parse_untrusted(data, messages.TO_WORKER)
            except frames.OtherVersion:  # the next ssad's: it leaves us alone
                return False
            for message in told:
                if isinstance(message, messages.Stop):
                    return True
                if not isinstance(message, (messages.Serve, messages.Visit)):
                    _HANDLERS[type(message)](self, message, descriptor)
                elif descriptor is not None:
                    serve(message, socket.socket(fileno=descriptor))
                    await self._have_room()

    async def _have_room(self) -> None:
        """Wait for a moment where few descriptors are left: what is refused is closed meanwhile, and is counted."""
        if self.worker.quota.unused() > _ROOMY:
            return
        await trio.lowlevel.checkpoint()
        for _ in range(_MOMENTS):
            if self.worker.quota.left() > 0:
                return
            await trio.sleep(_MOMENT)

    def policy_is(self, message: messages.PolicyIs, _: int | None) -> None:
        """Put another policy in force."""
        self._policy = Policy.default().replace_many(dict(message.texts))
        self.outbox.put(messages.InForce(message.epoch))

    def kernel_is(self, message: messages.KernelIs, _: int | None) -> None:
        """Take the kernel's features. Equal ones are one object: contexts are made for it."""
        found = frozenset((TLSVersion(version), cipher) for version, cipher in message.algorithms)
        kernel = Capabilities(found, message.rekey, message.reason, message.limits)
        if kernel != self._kernel:
            self._kernel = kernel

    def store_is(self, message: messages.StoreIs, descriptor: int | None) -> None:
        """Take a trust store, or the reason for which it can't be read."""
        if descriptor is None:
            self._stores.put(message.source, errors.error(message.reason, message.detail))
        else:
            self._stores.put(message.source, contents.store(descriptor))

    def credentials_are(self, message: messages.CredentialsAre, descriptor: int | None) -> None:
        """Take the administrator's credentials for the users in some groups."""
        if descriptor is None:
            raise frames.BadFrame("credentials came without their content")
        self._credentials.put(message.groups, contents.usable(descriptor))

    def numbers_are(self, message: messages.NumbersAre, _: int | None) -> None:
        """Take numbers for sockets."""
        self._last = message.first + message.count - 1
        self._numbers.extend(range(message.first, message.first + message.count))

    def gone(self, message: messages.Gone, _: int | None) -> None:
        """Forget sockets that nobody holds any more."""
        for number in message.numbers:
            self.worker.gone(number)

    def retire(self, _message: messages.Retire, _: int | None) -> None:
        """End when nothing is left to do."""
        self.retires.set()

    def done(self, message: messages.Done, descriptor: int | None) -> None:
        """A question was answered."""
        self._answer(message.call, None if descriptor is None else socket.socket(fileno=descriptor))

    def is_settled(self, message: messages.IsSettled, _: int | None) -> None:
        """An application was looked at."""
        self._answer(message.call, message.application)

    def _answer(self, call: int, answer: Any) -> None:
        if call == self._look:
            self._look = 0
        elif (question := self._asked.get(call)) is not None:
            question.settle(answer)
        elif isinstance(answer, socket.socket):  # nobody waits for it any more
            answer.close()

    def look(self, message: messages.Look, _: int | None) -> None:
        """Tell how sockets stand and what listeners serve with."""
        sockets = tuple(found for found in map(self.worker.stands, message.sockets) if found is not None)
        listeners = tuple(messages.Offer(number, *self.worker.offers(number)) for number in message.listeners)
        self.outbox.put(messages.Looked(message.call, sockets, listeners))

    def end(self, message: messages.End, _: int | None) -> None:
        """End a connection."""
        failed = 0
        try:
            self.worker.end(message.number)
        except OSError as exc:
            failed = exc.errno or errno.EIO
        self.outbox.put(messages.Ended(message.call, failed))


_HANDLERS: dict[type, Callable[[Link, Any, int | None], None]] = {
    messages.PolicyIs: Link.policy_is,
    messages.KernelIs: Link.kernel_is,
    messages.StoreIs: Link.store_is,
    messages.CredentialsAre: Link.credentials_are,
    messages.NumbersAre: Link.numbers_are,
    messages.Gone: Link.gone,
    messages.Retire: Link.retire,
    messages.Done: Link.done,
    messages.IsSettled: Link.is_settled,
    messages.Look: Link.look,
    messages.End: Link.end,
}
