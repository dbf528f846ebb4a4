"""All that is in the file system: the table of the root directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ssa.configfs import render
from ssa.configfs.members import Counters, Named, Numbered
from ssa.configfs.nodes import Collection, Directory, File
from ssa.configfs.sockets import LISTENER_FILES, SOCKET_FILES, SocketMembers, most_rows, owner, rows
from ssa.ktls import probe
from ssa.pem import MAX_PEM
from ssa.policy.schema import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ssa.configfs.view import Credential, View


def build(view: View) -> Directory:
    """The root directory."""
    return Directory(
        "",
        "The root.",
        (
            _fixed_file("version", "The version of ssa.", lambda view: render.line(view.version)),
            Directory("kernel", "What this kernel can do.", tuple(map(_kernel_file, probe.FACTS))),
            Directory("policy", "The policy in force.", tuple(map(_policy_file, SETTINGS))),
            _credentials(view),
            Collection(
                "sockets",
                "The live sockets.",
                SocketMembers(view.sockets, view),
                Directory("", "One live socket.", SOCKET_FILES, mode=0o500),
                owner=owner,
                refresh=view.fresh_trust,
            ),
            Collection(
                "listeners",
                "The listening sockets.",
                Numbered(view.listeners),
                Directory("", "One listening socket.", LISTENER_FILES, mode=0o500),
                owner=owner,
            ),
            File(
                "sockets.jsonl",
                "All listeners and live sockets, a line of JSON each.",
                pieces=rows,
                most=most_rows,
                refresh=view.look,
            ),
            Collection(
                "stats",
                "The daemon's counters.",
                Counters(view.stats),
                File("", "A counter.", render.line),
            ),
        ),
    )


def _fixed_file(name: str, doc: str, read: Callable[[View], bytes]) -> File[View]:
    """A file whose content is the same for as long as the daemon runs."""
    return File(name, doc, read, changed=lambda view: int(view.started * 1e9))


def _kernel_file(fact: probe.Fact) -> File[View]:
    return _fixed_file(fact.name, fact.doc, lambda view: render.lines(view.kernel.get(fact.name, "").splitlines()))


# --- policy -------------------------------------------------------------------------------------------------------


def _policy_file(name: str) -> File[View]:
    return File(
        name,
        SETTINGS[name].doc,
        lambda view: view.policy.current.text(name).encode() + b"\n",
        lambda view, text: _set(view, name, text),
        check=lambda view, text: view.policy.check(name, text),
        changed=lambda view: view.policy.changed(name),
        prepare=_load_store if name == "trust_store" else None,
    )


def _set(view: View, name: str, text: str) -> Awaitable[None]:
    view.policy.set(name, text)
    return view.in_force()


async def _load_store(view: View, text: str) -> None:
    if (policy := view.policy.current.check_so_far("trust_store", text)) is not None:
        await view.prepare(policy)


# --- credentials --------------------------------------------------------------------------------------------------


CREDENTIAL_FILES: tuple[File[Credential], ...] = (
    File(
        "certificate",
        "The certificate and its intermediates, PEM, its own first.",
        lambda c: c.certificate or b"\n",
        lambda c, text: c.set_certificate(text),
        MAX_PEM,
        check=lambda c, text: c.check_certificate(text),
        changed=lambda c: c.changed("certificate"),
        encoding="latin-1",
    ),
    File(
        "key",
        "Its private key, PEM, not encrypted. It cannot be read back.",
        write=lambda c, text: c.set_key(text),
        limit=MAX_PEM,
        check=lambda c, text: c.check_key(text),
        changed=lambda c: c.changed("key"),
        encoding="latin-1",
    ),
    File(
        "hostnames",
        "What it is for: names, *.names and addresses. Those in the certificate, unless others are written.",
        lambda c: render.lines(c.hostnames),
        lambda c, text: c.set_hostnames(text),
        MAX_PEM,
        check=lambda c, text: c.check_hostnames(text),
        changed=lambda c: c.changed("hostnames"),
    ),
    File(
        "users",
        "The users who may serve with it, besides root and ssad's own: names, numbers, %group or *, one a line.",
        lambda c: render.lines(c.users.shown()),
        lambda c, text: c.set_users(text),
        check=lambda c, text: c.check_users(text),
        look_up=lambda c, text: c.look_up_users(text),
        changed=lambda c: c.changed("users"),
    ),
    File(
        "status",
        "Its state: in service or not, until when its certificate is valid, and what is wrong with it.",
        lambda c: render.line(c.status),
    ),
)


def _credentials(view: View) -> Collection:
    credentials = view.credentials
    return Collection(
        "credentials",
        "The certificates and keys of servers.",
        Named(credentials),
        Directory("", "A certificate and its key.", CREDENTIAL_FILES),
        create=credentials.create,
        remove=credentials.remove,
        refresh=view.fresh_credentials,
    )
