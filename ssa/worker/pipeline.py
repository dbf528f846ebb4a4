"""A request's way through the daemon: one step a line, top to bottom. Read this file first.

`ssa.worker.steps` has the steps. Datagrams take the same steps in `ssa.worker.datagrams`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import trio

from ssa.handshake import driver
from ssa.handshake.client import ClientEngine
from ssa.handshake.contexts import withheld
from ssa.handshake.refusal import explaining
from ssa.handshake.server import ServerEngine
from ssa.handshake.session_cache import Server
from ssa.ktls.install import install, limit
from ssa.relay import reason_for_limit, reason_for_suite
from ssa.worker import steps
from ssa.worker.datapath import KernelTLS, Relayed
from ssa.worker.judge import Judge
from ssa.worker.livesocket import Made, description
from ssa.worker.server_context import Serving
from ssa.worker.terms import agree, ahead_untrusted, hostname_untrusted

if TYPE_CHECKING:
    import socket

    from ssa.protocol.wire import Accept, Connect, Reply
    from ssa.relay.early import EarlyPair
    from ssa.worker.packets import Handover
    from ssa.worker.records import Application
    from ssa.worker.service import Worker


async def connect(  # noqa: PLR0913 - a handshake is made of its request, what came with it, and who asks
    worker: Worker,
    application: Application,
    request: Connect,
    sock: socket.socket,
    files: list[int],
    *,
    early: EarlyPair | None = None,
) -> Reply | Handover:
    """Make the application's connected TCP socket a TLS socket, as a client. `early`: it has its relayed end already.

    Raises `ssa.SSAError`. Once the first byte of the handshake was sent, a failure also ends the connection: the
    application must not be left with a socket to which it might write plain text.
    """
    hostname = hostname_untrusted(request.hostname or "")
    terms = await agree(worker, request, files)
    policy = terms.policy
    await worker.monitor.fresh_trust(policy.trust_store)
    began = trio.current_time()
    connection = await steps.connected(sock, policy.handshake_timeout, began)
    steps.refuse_host(policy, hostname, connection.key.remote[0])
    kernel = await worker.fresh_kernel(policy)
    relayed = "" if connection.deferred else steps.attached(sock, terms, kernel)
    steps.refuse_plaintext(sock, request)
    context = worker.contexts.client(policy, kernel, terms.credentials)
    judge = Judge(worker.monitor, terms, hostname, steps.since(began))
    server = Server(application.uid, hostname, connection.key.remote[1], context, policy.alpn, terms.anchors)
    resumption = worker.sessions.resume(server, policy.resumable, judge.trusts)
    engine = ClientEngine(context, steps.sni_of(hostname), policy.alpn, resumption.session)
    handshake = driver.Handshake(engine, sock)
    with steps.ending(sock), resumption:
        with (
            explaining(engine, policy, partial(withheld, policy, kernel)),
            steps.deadline(policy.handshake_timeout, began),
        ):
            await handshake.start()
            if connection.deferred:  # until now: that was the data that it waited for
                await steps.opened(sock)
                relayed = steps.attached(sock, terms, kernel)
            chain = await handshake.peer_chain()
            verdict = handshake.verdict(judge, chain)
            await handshake.finish(verdict)
            age = resumption.age if engine.resumed else 0
            made = Made(application, engine, judge, connection.key, session_age=age, with_chain=terms.with_chain)
            if relayed := relayed or reason_for_suite(engine.suite, kernel):
                relay = Relayed(worker, engine, sock, relayed, resumption.harvest(judge.chain, engine), early)
                return relay.hand_over(description(worker.sockets.register(made, relay), whole=made.with_chain))
            keys = await steps.keys(worker, engine, connection, resumption, plain_reads=not request.control)
        install(sock, keys.tx, keys.rx)
        ktls = KernelTLS(worker, engine, sock, steps.next_secrets(engine, kernel))
        live = worker.sockets.register(made, ktls)
        resumption.keep(live.record.id, live.record.chain, engine)
    return ktls.hand_over(description(live, whole=made.with_chain))


async def accept(  # noqa: PLR0913 - a handshake is made of its request, what came with it, and who asks
    worker: Worker,
    application: Application,
    request: Accept,
    sock: socket.socket,
    files: list[int],
    *,
    early: EarlyPair | None = None,
) -> Reply | Handover:
    """Make the application's connected TCP socket a TLS socket, as a server. Raises as `connect` does."""
    terms = await agree(worker, request, files)
    await worker.monitor.fresh_credentials(application)
    serving = Serving(worker, application, terms, request.server_name)
    ahead = ahead_untrusted(request)
    steps.refuse_plaintext(sock, request, ahead)
    return await serve(worker, application, serving, sock, ahead, early=early)


async def serve(  # noqa: PLR0913 - a handshake is made of its request, what came with it, and who asks
    worker: Worker,
    application: Application,
    serving: Serving,
    sock: socket.socket,
    ahead: bytes = b"",
    *,
    early: EarlyPair | None = None,
) -> Reply | Handover:
    """Make one accepted connection of a server a TLS socket; `ahead` was read from it already.

    Raises as `connect` does.
    """
    terms = serving.terms()
    policy = terms.policy
    if not terms.credentials:  # it has none of its own, so the administrator's are served with
        await worker.monitor.fresh_credentials(application)
    if terms.ask_certificate:
        await worker.monitor.fresh_trust(policy.trust_store)
    began = trio.current_time()
    connection = await steps.connected(sock, policy.handshake_timeout, began, speaks_first=False)
    kernel = await worker.fresh_kernel(policy)
    relayed = steps.attached(sock, terms, kernel)
    context = steps.first_context(serving, sock)
    engine = ServerEngine(context, serving.context, policy.alpn, terms.ask_certificate, optional=terms.optional)
    judge = Judge(worker.monitor, terms, None, steps.since(began))
    handshake = driver.Handshake(engine, sock, ahead)
    with steps.ending(sock):
        with (
            explaining(engine, policy, partial(withheld, policy, kernel)),
            steps.deadline(policy.handshake_timeout, began),
        ):
            chain = await handshake.peer_chain()
            verdict = handshake.verdict(judge, chain)
            await handshake.finish(verdict)
        presented = serving.presented(engine)
        made = Made(application, engine, judge, connection.key, presented=presented, with_chain=terms.with_chain)
        largest, path = engine.largest, policy.data_path
        if relayed := relayed or reason_for_suite(engine.suite, kernel) or reason_for_limit(largest, path, kernel):
            relay = Relayed(worker, engine, sock, relayed, early=early)
            return relay.hand_over(description(worker.sockets.register(made, relay), whole=made.with_chain))
        keys = engine.keys()
        if largest:
            limit(sock, largest)
        install(sock, keys.tx, keys.rx)
        ktls = KernelTLS(worker, engine, sock, steps.next_secrets(engine, kernel))
        live = worker.sockets.register(made, ktls)
    return ktls.hand_over(description(live, whole=made.with_chain))
