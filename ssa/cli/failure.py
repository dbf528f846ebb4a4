"""Explains an error to a person in one line: what is wrong, whose fault it is, what to do about it."""

from __future__ import annotations

import errno
import os
import socket

from ssa.cli.output import printable
from ssa.errors import REASONS, SSAError


class Failure(Exception):
    """A verb failed. The message is for a person, and complete."""


FAULTS: dict[str, str] = {
    "peer": "the peer's fault",
    "policy": "this machine's policy",
    "caller": "the request's fault",
    "network": "the network's fault",
    "system": "this machine's fault",
}

# What to do about the system's errors of a connection.
_ADVICE = {
    errno.ECONNREFUSED: "no server listens there: check the host and the port",
    errno.ETIMEDOUT: "the host does not answer: check the host and the port, and this machine's network",
    errno.EHOSTUNREACH: "check the address, and this machine's network",
    errno.ENETUNREACH: "this machine has no route to that network: check its network",
    errno.EADDRNOTAVAIL: "the local address is not one of this machine's",
}
_LOOK_UP = "check its spelling, and this machine's DNS"
_RESOLVER = {
    socket.EAI_ADDRFAMILY: "the local address is of another family (IPv4, IPv6) than the server's",
    socket.EAI_SERVICE: "there is no service of that name: give the port's number, or a name of /etc/services",
}


def explain(failure: BaseException) -> str:
    """The explanation, without a line end. Text that a peer chose is escaped in it."""
    return printable(_words(failure))


def _words(failure: BaseException) -> str:
    if isinstance(failure, SSAError):
        advice = REASONS[failure.reason].advice
        return f"{failure.strerror} ({failure.reason}: {FAULTS[failure.whose_fault]})" + (
            f". {advice}" if advice else ""
        )
    if isinstance(failure, socket.gaierror):
        return _RESOLVER.get(failure.errno or 0, f"the name cannot be resolved: {failure.strerror}: {_LOOK_UP}")
    if isinstance(failure, OSError):
        named = f"{failure.filename}: " if failure.filename else ""
        own = failure.strerror == os.strerror(failure.errno or 0)  # the words are the system's, and not ssa's
        what_to_do = _ADVICE.get(failure.errno or 0) if own else None
        return f"{named}{failure.strerror or failure}" + (f": {what_to_do}" if what_to_do else "")
    return str(failure) or type(failure).__name__
