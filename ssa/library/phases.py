"""The phases of a TLS or DTLS socket as tables: the effect of each call in each phase. No I/O here.

A phase says what the descriptor's number is at the moment. Only in `LIVE` (of datagrams also in `GATHERING`) does
application data pass it. The two tables are all that decides whether a call is allowed: `STREAM` for `ssa.TLSSocket`,
`DATAGRAMS` for `DTLSSocket`. A phase that a table lacks is one that such a socket never has.

    FRESH ── connect ──► CONNECTING ──► LIVE ──► BROKEN           FRESH ── listen ───► LISTENING
    PLAIN ── upgrade ──►     │                                    FRESH ── recvfrom ─► GATHERING (datagrams)
                             └────────► FAILED, or FRESH again where TCP never reached its peer

A blocking connect or upgrade has no CONNECTING that a program could see. A descriptor that comes from another process
(`fileno`) begins in FRESH, PLAIN, LIVE or BORROWED.
"""

from __future__ import annotations

from errno import EALREADY, EBUSY, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

LIVE, FRESH, PLAIN, CONNECTING, LISTENING, BORROWED, GATHERING, FAILED, BROKEN = range(9)

WORDS = {
    LIVE: "it is connected",
    FRESH: "it is not connected",
    PLAIN: "it is connected, and in plain text until TLS_UPGRADE",
    CONNECTING: "its handshake is under way",
    LISTENING: "it listens",
    BORROWED: "it listens, and another program has made it",
    GATHERING: "it serves all its clients",
    FAILED: "its handshake failed",
    BROKEN: "its connection has failed",
}

# The calls, and what a refusal says of each. {} is the option's name.
CONNECT, UPGRADE, LISTEN, ACCEPT, SET, READ, TRANSFER, DETACH, DUP = range(9)
REFUSALS = {
    CONNECT: "the socket cannot connect",
    UPGRADE: "there is nothing to upgrade",
    LISTEN: "the socket cannot listen",
    ACCEPT: "the socket does not listen",
    SET: "{} has to be set before the handshake, by the program that makes the socket",
    READ: "{} can be read after the handshake",
    TRANSFER: "the socket is no TLS connection",
    DETACH: "the socket cannot be detached",
    DUP: "the socket cannot be duplicated",
}

# What a table says where it does not give the errno (above 0) with which the call is refused.
GO = 0  # the call is made
FINISH = -1  # the handshake that is under way comes first: how it ends decides
SERVE_ALL = -2  # from now on all clients of the bound socket are served: GATHERING
AS_FAILED = -3  # the error that has ended the connection is raised again

#              connect   upgrade     listen  accept  set         read      transfer   detach  dup
STREAM: Mapping[int, tuple[int, ...]] = {
    LIVE:       (EISCONN, EISCONN,    EINVAL, EINVAL, EISCONN,    GO,       GO,        GO,     GO),
    FRESH:      (GO,      ENOTCONN,   GO,     EINVAL, GO,         ENOTCONN, ENOTCONN,  GO,     GO),
    PLAIN:      (EISCONN, GO,         EINVAL, EINVAL, GO,         ENOTCONN, ENOTCONN,  GO,     GO),
    CONNECTING: (FINISH,  FINISH,     EINVAL, EINVAL, EISCONN,    ENOTCONN, FINISH,    EBUSY,  EALREADY),
    LISTENING:  (EISCONN, ENOTCONN,   GO,     GO,     GO,         ENOTCONN, ENOTCONN,  EBUSY,  GO),
    BORROWED:   (EISCONN, ENOTCONN,   EINVAL, GO,     EOPNOTSUPP, ENOTCONN, ENOTCONN,  GO,     GO),
    FAILED:     (EINVAL,  ENOTCONN,   EINVAL, EINVAL, EISCONN,    ENOTCONN, ENOTCONN,  GO,     GO),
    BROKEN:     (EISCONN, ENOTCONN,   EINVAL, EINVAL, EISCONN,    GO,       AS_FAILED, GO,     GO),
}  # fmt: skip

DATAGRAMS: Mapping[int, tuple[int, ...]] = {
    LIVE:       (EISCONN, EOPNOTSUPP, EINVAL, EINVAL, EISCONN,    GO,       GO,        GO,     GO),
    FRESH:      (GO,      EOPNOTSUPP, GO,     EINVAL, GO,         ENOTCONN, SERVE_ALL, GO,     GO),
    CONNECTING: (FINISH,  EOPNOTSUPP, EINVAL, EINVAL, EISCONN,    ENOTCONN, FINISH,    EBUSY,  EALREADY),
    LISTENING:  (EISCONN, EOPNOTSUPP, GO,     GO,     GO,         ENOTCONN, ENOTCONN,  EBUSY,  GO),
    BORROWED:   (EISCONN, EOPNOTSUPP, EINVAL, GO,     EOPNOTSUPP, ENOTCONN, ENOTCONN,  GO,     GO),
    GATHERING:  (EISCONN, EOPNOTSUPP, EINVAL, EINVAL, EISCONN,    ENOTCONN, GO,        EBUSY,  GO),
    FAILED:     (GO,      EOPNOTSUPP, EINVAL, EINVAL, EISCONN,    ENOTCONN, ENOTCONN,  GO,     GO),
}  # fmt: skip
