"""OpenSSL contexts, one for each distinct offer. They are cached: building one takes as long as a handshake."""

from __future__ import annotations

import contextlib
import os
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL, crypto

from ssa import errors
from ssa.handshake.negotiation import give_cookie, select_protocol, serve_name, take_cookie
from ssa.policy.schema import POST_QUANTUM
from ssa.suites import Suite, TLSVersion
from ssa.tls import DTLS_1_2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ssa.credentials import Credential
    from ssa.handshake.secrets import Role
    from ssa.ktls.probe import Capabilities
    from ssa.policy.schema import Policy

# pyOpenSSL binds no call for groups and signature algorithms; the binding that it stands on does.
_lib = _openssl.lib

_OPTIONS = SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
_METHODS: dict[Role, int] = {"client": SSL.TLS_CLIENT_METHOD, "server": SSL.TLS_SERVER_METHOD}
_DATAGRAM_METHODS: dict[Role, int] = {"client": SSL.DTLS_CLIENT_METHOD, "server": SSL.DTLS_SERVER_METHOD}
_CACHED = 256  # contexts; a policy's narrowings are few, the certificates of a server can be many


@dataclass(frozen=True, slots=True)
class _Offer:
    """The settings that an OpenSSL context is made of. Policies that differ in others share a context."""

    role: Role
    suites: tuple[Suite, ...]
    groups: tuple[str, ...]
    signature_algorithms: tuple[str, ...]
    credentials: tuple[Credential, ...]
    session_ttl: int  # seconds; of a server
    only: str | None = None  # the one name that is served: in TLS 1.2 a resumed session has the name it was made with
    datagrams: bool = False  # DTLS
    tickets: bool = True  # of a client: it asks a server of TLS 1.2 for one

    @property
    def versions(self) -> tuple[TLSVersion, ...]:
        return tuple(sorted({suite.version for suite in self.suites}))

    def names(self, version: TLSVersion) -> bytes:
        return ":".join(suite.openssl for suite in self.suites if suite.version is version).encode()


class ContextCache:
    """Makes contexts and keeps them.

    `keylog` is called with a Connection and a line of its key log; it has to be set before a context's first
    Connection, so it belongs to the cache.
    """

    def __init__(self, keylog: Callable[[SSL.Connection, bytes], None]) -> None:
        self._keylog = keylog
        self._contexts: OrderedDict[_Offer, SSL.Context] = OrderedDict()
        self._last: tuple[Policy, Capabilities, SSL.Context] | None = None

    def client(self, policy: Policy, kernel: Capabilities, credentials: tuple[Credential, ...] = ()) -> SSL.Context:
        """The context for a client under this policy, which offers only what this kernel can protect.

        Raises `ssa.PolicyError` when nothing is left to offer.
        """
        if credentials:
            return self._find(_offer("client", policy, kernel, credentials))
        if self._last is not None and self._last[0] is policy and self._last[1] is kernel:
            return self._last[2]  # the usual case: a request that narrows nothing
        context = self._find(_offer("client", policy, kernel, ()))
        self._last = policy, kernel, context
        return context

    def server(
        self,
        policy: Policy,
        kernel: Capabilities,
        credentials: tuple[Credential, ...],
        session_ttl: int,
        only: str | None = None,
    ) -> SSL.Context:
        """The context for a server with these certificates, at most one for each kind of key.

        No session is resumed where `session_ttl` is 0. With `only` the server has sessions of its own.
        Raises `ssa.PolicyError` when nothing is left to offer, `ssa.SSAError` for a certificate that can't be used.
        """
        return self._find(replace(_offer("server", policy, kernel, credentials, session_ttl), only=only))

    def datagrams(
        self,
        role: Role,
        policy: Policy,
        credentials: tuple[Credential, ...] = (),
        session_ttl: int = 0,
        only: str | None = None,
    ) -> SSL.Context:
        """The context for DTLS. It offers all that the policy allows, as OpenSSL protects the records.

        Raises `ssa.PolicyError` when nothing is left to offer, `ssa.SSAError` for a certificate that can't be used.
        """
        return self._find(replace(_datagram_offer(role, policy, credentials, session_ttl), only=only))

    def _find(self, offer: _Offer) -> SSL.Context:
        context = self._contexts.get(offer)
        if context is None:
            context = self._contexts[offer] = _context(offer, self._keylog)
            if len(self._contexts) > _CACHED:
                self._contexts.popitem(last=False)
        else:
            self._contexts.move_to_end(offer)
        return context


def _offer(
    role: Role, policy: Policy, kernel: Capabilities, credentials: tuple[Credential, ...], session_ttl: int = 0
) -> _Offer:
    allowed = [
        suite
        for suite in (*policy.ciphersuites, *policy.ciphers)
        if policy.min_version <= suite.version <= policy.max_version and (role == "client" or not suite.is_dhe)
    ]
    _check_groups(policy, role, allowed)
    suites = _PREFERENCES[policy.data_path]([suite for suite in allowed if _has_group(policy, suite)], kernel)
    if not suites:
        who = "this kernel" if allowed else f"a {role}"
        raise errors.error("POLICY_DENIED", f"{who} can do none of the cipher suites that the policy allows")
    offer = _Offer(role, suites, policy.groups, policy.signature_algorithms, credentials, session_ttl)
    return replace(offer, tickets=_asks_for_tickets(role, policy))


def _asks_for_tickets(role: Role, policy: Policy) -> bool:
    return role == "server" or policy.session_tickets == "on"


def withheld(policy: Policy, kernel: Capabilities) -> str:
    """Names what the policy allows and a peer is not offered, because data_path is ktls and this kernel cannot."""
    if policy.data_path != "ktls":
        return ""
    suites = [suite for suite in (*policy.ciphersuites, *policy.ciphers) if not kernel.offers(suite)]
    return ", ".join(dict.fromkeys(f"{suite.version.label} with {suite.aead.name}" for suite in suites))


def _has_group(policy: Policy, suite: Suite) -> bool:
    """True where the policy has a group for the suite: the hybrids are of TLS 1.3, and TLS 1.2's DHE needs none."""
    return suite.version is TLSVersion.TLSv1_3 or suite.is_dhe or not POST_QUANTUM.issuperset(policy.groups)


def _check_groups(policy: Policy, role: Role, suites: Sequence[Suite]) -> None:
    if suites and not any(_has_group(policy, suite) for suite in suites):
        names = ", ".join(policy.groups)
        raise errors.error("POLICY_DENIED", f"a {role} needs TLS 1.3 for the groups that the policy allows: {names}")


def group_list(groups: tuple[str, ...], role: Role) -> str:
    """The groups in OpenSSL's notation (SSL_CTX_set1_groups_list(3)).

    A client sends key shares, marked `*`, for its first classical group and for a hybrid before that. A server that
    can do either of the two need not ask for another share. A server prefers all groups before a `/` to those behind
    it, even where it has to ask the client for a share (HelloRetryRequest): so a hybrid is used where both ends can.
    """
    classical = next((index for index, name in enumerate(groups) if name not in POST_QUANTUM), len(groups))
    if role == "client":
        shares = {*groups[: min(classical, 1)], *groups[classical : classical + 1]}
        return ":".join(f"*{name}" if name in shares else name for name in groups)
    return "/".join(":".join(part) for part in (groups[:classical], groups[classical:]) if part)


def _datagram_offer(role: Role, policy: Policy, credentials: tuple[Credential, ...], session_ttl: int) -> _Offer:
    if policy.min_version > TLSVersion.TLSv1_2:
        raise errors.error(
            "POLICY_DENIED",
            f"min_version is {policy.min_version.label}, and the OpenSSL of this ssad has no DTLS 1.3: {_library()}",
        )
    suites = tuple(suite for suite in policy.ciphers if not suite.is_dhe)
    _check_groups(policy, role, suites)
    if not suites:
        raise errors.error("POLICY_DENIED", "the policy's ciphers leave nothing for DTLS 1.2, done without DHE")
    offer = _Offer(role, suites, policy.groups, policy.signature_algorithms, credentials, session_ttl, datagrams=True)
    return replace(offer, tickets=_asks_for_tickets(role, policy))


def _library() -> str:
    return SSL.OpenSSL_version(SSL.OPENSSL_VERSION).decode("ascii", "replace")


# What is offered of the suites that the policy allows, by the setting data_path.
_PREFERENCES: dict[str, Callable[[list[Suite], Capabilities], tuple[Suite, ...]]] = {
    "ktls": lambda allowed, kernel: tuple(filter(kernel.offers, allowed)),
    "ktls-or-relay": lambda allowed, kernel: tuple(sorted(allowed, key=kernel.offers, reverse=True)),  # stable
    "relay": lambda allowed, _: tuple(allowed),
}


def _context(offer: _Offer, keylog: Callable[[SSL.Connection, bytes], None]) -> SSL.Context:
    context = _bare_context(offer)
    context.set_options(_OPTIONS)
    context.set_mode(_lib.SSL_MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    # OpenSSL verifies nothing: ssa.trust judges the chain, when the peer has sent it (`Engine.admit`).
    context.set_verify(SSL.VERIFY_NONE)
    for version, setter in _SUITE_SETTERS.items():
        if names := offer.names(version):
            setter(context, names)
    _set_list(_lib.SSL_CTX_set1_curves_list, context, group_list(offer.groups, offer.role))
    _set_list(_lib.SSL_CTX_set1_sigalgs_list, context, ":".join(offer.signature_algorithms))
    if not offer.datagrams:  # DTLS keys stay in OpenSSL
        context.set_keylog_callback(keylog)
    for credential in offer.credentials:
        _use(context, credential)
    if not offer.tickets:
        context.set_options(SSL.OP_NO_TICKET)
    if offer.role == "server":
        _prepare_server(context, offer)
    return context


def _bare_context(offer: _Offer) -> SSL.Context:
    if not offer.datagrams:
        context = SSL.Context(_METHODS[offer.role])
        context.set_min_proto_version(offer.versions[0])
        context.set_max_proto_version(offer.versions[-1])
        return context
    context = SSL.Context(_DATAGRAM_METHODS[offer.role])
    context.set_min_proto_version(DTLS_1_2)
    context.set_max_proto_version(DTLS_1_2)
    context.set_options(SSL.OP_NO_QUERY_MTU)  # a memory BIO has no MTU
    if offer.role == "server":
        context.set_cookie_generate_callback(give_cookie)
        context.set_cookie_verify_callback(take_cookie)
    return context


def _use(context: SSL.Context, credential: Credential) -> None:
    try:
        # OpenSSL keeps a chain for each kind of key only if it reads it from a file. This file is in memory.
        with _in_memory(credential.certificate_pem) as path:
            context.use_certificate_chain_file(path)
        _use_key(context, crypto.load_privatekey(crypto.FILETYPE_PEM, credential.key_pem))
    except (SSL.Error, crypto.Error) as exc:
        reason = exc.args[0][0][2] if exc.args and exc.args[0] else "OpenSSL gives no reason"
        raise errors.error("BAD_CREDENTIALS", f"{credential.name or 'certificate'}: {reason}") from exc


def _use_key(context: Any, key: Any) -> None:
    """Use a key as OpenSSL's own object: `cryptography` has no RSASSA-PSS keys."""
    if _lib.SSL_CTX_use_PrivateKey(context._context, key._pkey) != 1:  # noqa: SLF001 - the objects for the raw binding
        _lib.ERR_clear_error()
        raise SSL.Error([("", "", "the key is not the certificate's")])


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    fd = os.memfd_create("ssa-certificate", os.MFD_CLOEXEC)
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def _prepare_server(context: SSL.Context, offer: _Offer) -> None:
    context.set_tlsext_servername_callback(serve_name)
    context.set_alpn_select_callback(select_protocol)
    context.set_session_id(b"ssa")
    context.set_timeout(offer.session_ttl)
    if not offer.session_ttl:
        context.set_options(SSL.OP_NO_TICKET)


_SUITE_SETTERS: dict[TLSVersion, Callable[[SSL.Context, bytes], None]] = {
    TLSVersion.TLSv1_2: SSL.Context.set_cipher_list,
    TLSVersion.TLSv1_3: SSL.Context.set_tls13_ciphersuites,
}


def _set_list(setter: Any, context: SSL.Context, names: str) -> None:
    if setter(context._context, names.encode()) != 1:  # noqa: SLF001 - the context for the raw binding
        # The policy knows only names that OpenSSL takes. So this OpenSSL is another one than ssa was made for.
        raise errors.error("DAEMON_FAULT", f"OpenSSL refuses the list {names}")
