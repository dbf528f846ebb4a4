"""A server's OpenSSL contexts, one for each name that clients ask for, as terms and certificates are now."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ssa import errors
from ssa.credentials import choose
from ssa.worker.records import NOTHING, Presented
from ssa.worker.terms import hostname_untrusted

if TYPE_CHECKING:
    from OpenSSL import SSL

    from ssa.credentials import Credential
    from ssa.handshake.engine import Engine
    from ssa.ktls.probe import Capabilities
    from ssa.policy.schema import Policy
    from ssa.worker.records import Application
    from ssa.worker.terms import Terms
    from ssa.worker.user import User

_REMEMBERED = 1024  # names
_SHOWN = 5  # credentials in an error


class Serving:
    """The terms of a server, kept up to date with the policy and with the administrator's certificates."""

    def __init__(self, user: User, application: Application, terms: Terms, only: str | None) -> None:
        """`only` is the one name that is served. Raises `ssa.SSAError` where there is nothing to serve with."""
        self._owner = user
        self._application = application
        self._terms = terms
        self.only = None if only is None else hostname_untrusted(only)
        self._contexts: dict[str | None, SSL.Context] = {}
        self._offered: WeakKeyDictionary[SSL.Context, tuple[Credential, ...]] = WeakKeyDictionary()
        self._made_for: tuple[object, ...] = ()
        self.context(None)
        for credential in terms.credentials:
            if wrong := credential.lifetime():
                user.log.warning("credential %s, an application's own: its certificate %s", credential.name, wrong)

    def terms(self) -> Terms:
        """The terms under the policy of this moment. Raises `ssa.PolicyError` where that denies them by now."""
        self._terms = self._terms.under(self._owner.monitor.policy)
        return self._terms

    def context(self, name: str | None) -> SSL.Context:
        """The context for a client that asks for a name, or for none.

        Raises `ssa.SSAError` NOT_SERVED for another name than the only one, NO_CREDENTIALS; CREDENTIAL_DENIED where
        there are the administrator's only, and the user may serve with none of them.
        """
        terms = self.terms()
        kernel = self._protector()
        credentials = terms.credentials or self._administrators()
        made_for = (terms.policy, kernel, credentials)
        if self._made_for != made_for or len(self._contexts) >= _REMEMBERED:
            self._contexts.clear()
            self._made_for = made_for
        if (context := self._contexts.get(name)) is None:
            # A client that proves who it is has to do so each time: a session would keep the verdict.
            ttl = 0 if terms.ask_certificate else terms.policy.resumable
            chosen = self._chosen(credentials, name)
            context = self._contexts[name] = self._make(terms.policy, chosen, ttl)
            self._offered[context] = chosen
        return context

    def presented(self, engine: Engine) -> Presented:
        """The certificates that the server has presented in a handshake: none where a session was resumed."""
        if engine.resumed:
            return NOTHING
        offered = self._offered.get(engine.context, ())
        own = engine.own_certificate if len(offered) > 1 else None  # there is one for each kind of key
        found = next((credential for credential in offered if own in {None, credential.chain[0]}), None)
        return NOTHING if found is None else Presented(found.name, found.chain)

    def offers(self) -> tuple[list[str], tuple[str, ...]]:
        """The names of the credentials that it may present now, and its application protocols."""
        usable, _ = self._owner.monitor.usable(self._application)
        credentials = self._terms.credentials or usable
        chosen = credentials if self.only is None else choose(credentials, self.only)
        return [credential.name for credential in chosen], self._terms.policy.alpn

    def _administrators(self) -> tuple[Credential, ...]:
        """The administrator's credentials that the application's user may serve with now."""
        user = self._application
        usable, denied = self._owner.monitor.usable(user)
        if denied and not usable:
            raise errors.error(
                "CREDENTIAL_DENIED",
                f"uid {user.uid} is not among the users of {', '.join(denied[:_SHOWN])}; have the administrator write "
                f"the user's name or a %group to /ssa/credentials/{denied[0]}/users, or to the file users beside the "
                "certificate, or bring one (TLS_CERTIFICATE_CHAIN and TLS_PRIVATE_KEY)",
            )
        return usable

    def _protector(self) -> Capabilities | None:
        """The kernel's TLS features, on which the contexts depend; None if the kernel does not protect the records."""
        return self._owner.kernel_tls(self._terms.policy)

    def _make(self, policy: Policy, credentials: tuple[Credential, ...], ttl: int) -> SSL.Context:
        return self._owner.contexts.server(policy, self._owner.kernel_tls(policy), credentials, ttl, self.only)

    def _chosen(self, credentials: tuple[Credential, ...], name: str | None) -> tuple[Credential, ...]:
        if not credentials:
            raise errors.error(
                "NO_CREDENTIALS",
                "bring one (TLS_CERTIFICATE_CHAIN and TLS_PRIVATE_KEY), or have the administrator put one in "
                "/ssa/credentials",
            )
        if self.only is not None and name is not None and name.lower().rstrip(".") != self.only:
            raise errors.error("NOT_SERVED", errors.printable(name, 80))
        return choose(credentials, name or self.only)


class DatagramServing(Serving):
    """The terms and contexts of a server over datagrams. No kernel does the records of DTLS."""

    def _protector(self) -> None:
        return None

    def _make(self, policy: Policy, credentials: tuple[Credential, ...], ttl: int) -> SSL.Context:
        return self._owner.contexts.datagrams("server", policy, credentials, ttl, self.only)
