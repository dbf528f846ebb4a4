"""Explains an error to a person in one line: what is wrong, whose fault it is, what to do about it."""

from __future__ import annotations

import socket

from ssa.cli.output import printable
from ssa.errors import SSAError


class Failure(Exception):
    """A verb failed. The message is for a person, and complete."""


FAULTS: dict[str, str] = {
    "peer": "the peer's fault",
    "policy": "this machine's policy",
    "caller": "the request's fault",
    "network": "the network's fault",
    "system": "this machine's fault",
}

_TRUST = "If you do trust it, add its CA to the policy's trust_store (`ssa policy get trust_store`)"
_POLICY = "`ssa policy` shows what is allowed"
_DOCTOR = "`ssa doctor` says what is wrong and what to do"

# Advice for the rows of `ssa.errors.REASONS` where a user of this machine can do something.
ADVICE: dict[str, str] = {
    "CERTIFICATE_EXPIRED": "Its operator has to renew it; check that this machine's clock is right",
    "CERTIFICATE_NOT_YET_VALID": "Check that this machine's clock is right",
    "SELF_SIGNED_CERTIFICATE": _TRUST,
    "UNKNOWN_CA": _TRUST,
    "HOSTNAME_MISMATCH": "Connect by a name that the certificate is for",
    "WEAK_KEY": _POLICY,
    "WEAK_SIGNATURE": _POLICY,
    "UNSUPPORTED_VERSION": "The policy's min_version and max_version say which are allowed",
    "NO_COMMON_CIPHER": "The policy's ciphers, ciphersuites and groups say which are allowed",
    "NO_COMMON_GROUP": "The policy's groups say which are allowed",
    "NO_COMMON_SIGNATURE": "The policy's signature_algorithms say which are allowed",
    "NOT_TLS": "Check that the port is one for TLS",
    "HANDSHAKE_TIMEOUT": "Check that the port is one for TLS; --timeout and the policy's handshake_timeout limit it",
    "POLICY_DENIED": _POLICY,
    "KERNEL_REFUSED": _DOCTOR,
    "TRUST_STORE": _DOCTOR,
    "OVERLOADED": "Try again later",
}


_RESOLVER = {
    socket.EAI_ADDRFAMILY: "the local address is of another family (IPv4, IPv6) than the server's",
    socket.EAI_SERVICE: "there is no service of that name: give the port's number, or a name of /etc/services",
}


def explain(failure: BaseException) -> str:
    """The explanation, without a line end. Text that a peer chose is escaped in it."""
    return printable(_words(failure))


def _words(failure: BaseException) -> str:
    if isinstance(failure, SSAError):
        advice = ADVICE.get(failure.reason)
        return f"{failure.strerror} ({failure.reason}: {FAULTS[failure.whose_fault]})" + (
            f". {advice}" if advice else ""
        )
    if isinstance(failure, socket.gaierror):
        return _RESOLVER.get(failure.errno or 0, f"the name cannot be resolved: {failure.strerror}")
    if isinstance(failure, OSError):
        named = f"{failure.filename}: " if failure.filename else ""
        return f"{named}{failure.strerror or failure}"
    return str(failure) or type(failure).__name__
