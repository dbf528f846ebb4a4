"""The file system's operations, called as pyfuse3 calls them, without a mount."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import trio
from pyfuse3 import FUSEError

from ssa.configfs import render
from ssa.configfs.nodes import Collection, File, Node
from ssa.configfs.operations import Operations
from ssa.configfs.root import build
from ssa.configfs.sockets import LISTENER_FILES, SOCKET_FILES
from ssa.configfs.tree import ROOT, Tree
from ssa.credentials import CredentialStore
from ssa.ktls import probe
from ssa.policy.schema import SETTINGS
from tests.unit import trust_factory

sys.path.append(str(Path(__file__).parents[1] / "fuse"))
import served

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

DOCS = Path(__file__).parents[2] / "docs" / "configfs.md"
ROOT_USER = SimpleNamespace(uid=0, pid=42)
ANOTHER = SimpleNamespace(uid=0, pid=43)


@dataclass
class Shell:
    """The operations by path, as a program sees them through the kernel."""

    view: served.FixedView
    ops: Operations

    def inode(self, path: str) -> int:
        async def walk() -> int:
            inode = ROOT
            for name in filter(None, path.split("/")):
                inode = (await self.ops.lookup(inode, name.encode(), ROOT_USER)).st_ino
            return inode

        return trio.run(walk)

    def call(self, handler: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
        return trio.run(functools.partial(handler, *args))

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        info = self.call(self.ops.open, self.inode(path), flags, ROOT_USER)
        assert info.direct_io
        return info.fh

    def read(self, fh: int, size: int = 65536, off: int = 0) -> bytes:
        return self.call(self.ops.read, fh, off, size)

    def cat(self, path: str) -> bytes:
        fh = self.open(path)
        try:
            return self.read(fh)
        finally:
            self.call(self.ops.release, fh)

    def write(self, path: str, data: bytes, off: int = 0) -> None:
        fh = self.open(path, os.O_WRONLY)
        try:
            assert self.call(self.ops.write, fh, off, data) == len(data)
            self.call(self.ops.flush, fh)
        finally:
            self.call(self.ops.release, fh)

    def mkdir(self, path: str) -> Any:
        parent, _, name = path.rpartition("/")
        return self.call(self.ops.mkdir, self.inode(parent), name.encode(), 0o700, ROOT_USER)

    def rmdir(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        self.call(self.ops.rmdir, self.inode(parent), name.encode(), ROOT_USER)

    def gather(self, path: str, *pieces: bytes) -> None:
        """Write a value in pieces, as a program with a buffer does, and close it."""
        fh, off = self.open(path, os.O_WRONLY), 0
        try:
            for piece in pieces:
                assert self.call(self.ops.write, fh, off, piece) == len(piece)
                off += len(piece)
            self.call(self.ops.flush, fh)
        finally:
            self.call(self.ops.release, fh)

    def stat(self, path: str) -> Any:
        return self.call(self.ops.getattr, self.inode(path), ROOT_USER)

    def ls(self, path: str) -> list[str]:
        return [name for name, _ in self.ops._tree.children(self.inode(path))]


@pytest.fixture
def shell() -> Shell:
    view = served.view(sockets=3)
    return Shell(view, Operations(Tree(build(view), view)))


def fails(number: int) -> Any:
    return pytest.raises(FUSEError, match=f"^{os.strerror(number)}$")


def files(node: Node, path: str = "") -> Iterator[tuple[str, File[Any]]]:
    """Every file of the tree, with * for a collection's members."""
    if isinstance(node, File):
        yield path, node
    elif isinstance(node, Collection):
        yield from files(node.each, f"{path}/*")
    else:
        for child in node.children:
            yield from files(child, f"{path}/{child.name}")


# --- names ---


def test_what_is_there(shell: Shell) -> None:
    assert shell.ls("/") == [
        "version",
        "kernel",
        "policy",
        "credentials",
        "sockets",
        "listeners",
        "sockets.jsonl",
        "stats",
    ]
    assert shell.ls("credentials") == []
    assert shell.ls("policy") == list(SETTINGS)
    assert shell.ls("kernel") == [fact.name for fact in probe.FACTS]
    assert shell.ls("sockets") == ["1", "2", "3"]
    assert shell.ls("stats") == ["handshakes", "failures"]
    assert shell.ls("sockets/2") == [file.name for file in SOCKET_FILES]
    assert shell.ls("listeners") == ["90"]
    assert shell.ls("listeners/90") == [file.name for file in LISTENER_FILES]


@pytest.mark.parametrize(
    "path",
    ["x", "policy/x", "sockets/9", "sockets/01", "sockets/+1", "sockets/²", "sockets/1/x", "stats/x", "version/x"],
)
def test_what_is_not_there(shell: Shell, path: str) -> None:
    with fails(errno.ENOENT):
        shell.inode(path)


def test_names_that_are_no_text(shell: Shell) -> None:
    for name in (b"\xff\xfe", b"9" * 255, b"-1", b""):
        with fails(errno.ENOENT):
            shell.call(shell.ops.lookup, shell.inode("sockets"), name, ROOT_USER)


def test_inodes_are_of_one_node_each_and_come_back(shell: Shell) -> None:
    tree = shell.ops._tree

    def walk(inode: int) -> Iterator[int]:
        yield inode
        for _, child in tree.children(inode):
            yield from walk(child)

    inodes = list(walk(ROOT))
    assert (
        len(inodes)
        == len(set(inodes))
        == (1 + 8 + 3 + len(SETTINGS) + 3 * (1 + len(SOCKET_FILES)) + (1 + len(LISTENER_FILES)) + 2)
    )
    assert all(shell.inode(tree.path(inode)) == inode for inode in inodes)


@pytest.mark.parametrize("inode", [0, 2**16, 2**56, 9 << 56, (5 << 56) | 255, 2**63 - 1])
def test_an_inode_that_never_was(shell: Shell, inode: int) -> None:
    for handler in (shell.ops.getattr, functools.partial(shell.ops.open, inode, os.O_RDONLY)):
        with pytest.raises(FUSEError):
            shell.call(handler, *(() if isinstance(handler, functools.partial) else (inode,)), ROOT_USER)


def test_attributes(shell: Shell) -> None:
    ours = os.geteuid()
    for path, mode, size, uid in (
        ("policy", stat.S_IFDIR | 0o755, 0, ours),
        ("policy/alpn", stat.S_IFREG | 0o644, 1, ours),
        ("version", stat.S_IFREG | 0o444, 9, ours),
        ("stats/failures", stat.S_IFREG | 0o444, 4096, ours),
        ("sockets", stat.S_IFDIR | 0o755, 0, ours),
        ("sockets/1", stat.S_IFDIR | 0o500, 0, 1000),
        ("sockets/1/hostname", stat.S_IFREG | 0o400, 15, 1000),
        ("sockets/1/bytes_sent", stat.S_IFREG | 0o400, 4096, 1000),
        ("sockets/1/close", stat.S_IFREG | 0o200, 0, 1000),
        ("listeners/90", stat.S_IFDIR | 0o500, 0, 1000),
        ("listeners/90/local", stat.S_IFREG | 0o400, 12, 1000),
        ("sockets.jsonl", stat.S_IFREG | 0o444, 4 << 19, ours),
    ):
        attributes = shell.stat(path)
        assert (attributes.st_mode, attributes.st_size, attributes.st_uid) == (mode, size, uid), path
        assert attributes.st_blocks * 512 >= size
    assert shell.stat("sockets/1").entry_timeout == 0
    assert shell.stat("sockets/1/pid").attr_timeout == 0


# --- reading ---


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("version", b"0.0.test\n"),
        ("kernel/ciphers", b"aes-gcm-128\naes-gcm-256\n"),
        ("policy/min_version", b"TLSv1.2\n"),
        ("policy/alpn", b"\n"),
        ("stats/handshakes", b"7\n"),
        ("stats/failures", b"0\n"),
        ("sockets/1/peer_cert", b"\n"),
        ("sockets/1/alpn", b"\n"),
        ("sockets/1/version", b"TLSv1.3\n"),
        ("sockets/1/cipher", b"aes-gcm-256\n"),
        ("sockets/1/bytes_sent", b"1234\n"),
        ("sockets/1/bytes_received", b"5678\n"),
        ("sockets/1/verdicts", b"path: good\nhostname: good\n"),
        ("sockets/1/opened", b"2023-11-14T22:13:20Z\n"),
        ("sockets/1/resumed", b"no\n"),
        ("sockets/1/compliant", b"yes\n"),
    ],
)
def test_read(shell: Shell, path: str, content: bytes) -> None:
    assert shell.cat(path) == content


def test_every_file_that_can_be_read_ends_its_line(shell: Shell) -> None:
    shell.mkdir("credentials/x")
    members = {
        "sockets/*": "sockets/1",
        "listeners/*": "listeners/90",
        "stats/*": "stats/failures",
        "credentials/*": "credentials/x",
    }
    for path, file in files(build(shell.view)):
        if file.is_readable:
            collection, *below = path.lstrip("/").partition("*")
            content = shell.cat("".join((members.get(f"{collection}*", collection), *below[1:])))
            assert content.endswith(b"\n")
            assert content.count(b"\n") == 1 or not content.startswith(b"\n")


def test_a_list_is_read_back_one_a_line_as_written(shell: Shell) -> None:
    shell.write("policy/groups", b"P-256:X25519\n")
    assert shell.cat("policy/groups") == b"P-256\nX25519\n"
    shell.write("policy/handshake_timeout", b" 0.50 \n")
    assert shell.cat("policy/handshake_timeout") == b"0.50\n"


def test_what_the_kernel_does_not_say(shell: Shell) -> None:
    socket = shell.view.sockets.by_id[1]
    for number, answer in ((errno.ENOENT, errno.ENODATA), (errno.ENODATA, errno.ENODATA), (errno.EPERM, errno.EIO)):
        socket.state = OSError(number, os.strerror(number))
        with fails(answer):
            shell.cat("sockets/1/cipher")
        assert shell.cat("sockets/1/hostname") == b"server.example\n"


def test_what_fails_otherwise_is_eio_and_logged(shell: Shell, caplog: pytest.LogCaptureFixture) -> None:
    shell.view.sockets.by_id[1].opened = float("nan")
    with fails(errno.EIO):
        shell.cat("sockets/1/opened")
    assert "lookup failed" in caplog.text


def test_a_reader_sees_one_value(shell: Shell) -> None:
    fh = shell.open("policy/min_version")
    start = shell.read(fh, 3)
    shell.write("policy/min_version", b"TLSv1.3")
    assert start + shell.read(fh, 100, 3) == b"TLSv1.2\n"
    assert shell.read(fh) == b"TLSv1.3\n"  # from the start again: the value of now


def test_an_open_file_outlives_its_socket(shell: Shell) -> None:
    fh, inode = shell.open("sockets/1/hostname"), shell.inode("sockets/1/hostname")
    writer, folder = shell.open("sockets/1/close", os.O_WRONLY), shell.inode("sockets/1")
    socket = shell.view.sockets.by_id.pop(1)
    assert shell.read(fh) == shell.read(fh) == b"server.example\n"
    assert shell.call(shell.ops.getattr, inode, ROOT_USER).st_size == len(b"server.example\n")
    with fails(errno.ENODEV):
        shell.call(shell.ops.write, writer, 0, b"1")
    assert not socket.ended
    with fails(errno.ENOENT):
        shell.inode("sockets/1")
    with fails(errno.ENOENT):
        shell.call(shell.ops.lookup, folder, b"pid", ROOT_USER)
    with fails(errno.ENOENT):
        shell.call(shell.ops.open, inode, os.O_RDONLY, ROOT_USER)
    assert shell.ls("sockets") == ["2", "3"]


def test_certificates_are_what_openssl_reads(shell: Shell, tmp_path: Path) -> None:
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    leaf = authority.issue_cert("server.example").cert_chain_pems[0].bytes()
    made = subprocess.run(["openssl", "x509", "-outform", "DER"], input=leaf, capture_output=True, check=True).stdout
    shell.view.sockets.by_id[1].chain = (made, made)
    assert shell.cat("sockets/1/peer_cert") == leaf
    assert shell.cat("sockets/1/peer_chain") == leaf * 2


# --- size and time ---


def test_a_readers_own_size_is_what_it_can_read(shell: Shell) -> None:
    """Also when the value has changed since it was opened: who copies by size gets all of it, or sees it too short."""
    shell.write("policy/groups", b"secp256r1 x25519")
    fh, inode = shell.open("policy/groups"), shell.inode("policy/groups")
    size = len(b"secp256r1\nx25519\n")
    shell.write("policy/groups", b"x25519")
    assert shell.call(shell.ops.getattr, inode, ROOT_USER).st_size == size
    assert shell.call(shell.ops.getattr, inode, ANOTHER).st_size == len(b"x25519\n")
    assert len(shell.read(fh)) == size
    shell.call(shell.ops.release, fh)
    assert shell.call(shell.ops.getattr, inode, ROOT_USER).st_size == len(b"x25519\n")


def test_a_live_file_has_the_size_of_what_was_opened(shell: Shell) -> None:
    inode = shell.inode("stats/handshakes")
    assert shell.call(shell.ops.getattr, inode, ROOT_USER).st_size == 4096
    fh = shell.open("stats/handshakes")
    first, second = (shell.call(shell.ops.getattr, inode, ROOT_USER) for _ in range(2))
    assert first.st_size == second.st_size == len(shell.read(fh)) == 2
    assert first.st_mtime_ns == second.st_mtime_ns > 0
    assert shell.call(shell.ops.getattr, inode, ANOTHER).st_size == 4096


# Whose content can be another one at any moment, as the manual says.
LIVE = {
    *("/sockets.jsonl", "/stats/*", "/listeners/*/credentials", "/listeners/*/alpn", "/credentials/*/status"),
    *(f"/sockets/*/{name}" for name in ("version", "cipher", "tx", "rx", "state", "bytes_sent", "bytes_received")),
    "/sockets/*/compliant",
}


def test_every_other_file_knows_its_size_and_time(shell: Shell) -> None:
    assert {path for path, file in files(build(shell.view)) if file.changed is None} == LIVE
    shell.mkdir("credentials/x")
    members = {"sockets/*": "sockets/1", "listeners/*": "listeners/90", "credentials/*": "credentials/x"}
    for path, file in files(build(shell.view)):
        if file.changed is not None:
            collection, star, rest = path.lstrip("/").partition("*")
            there = members[collection + star] + rest if star else path
            assert shell.stat(there).st_size == (len(shell.cat(there)) if file.is_readable else 0), path


def test_times_are_of_the_last_change(shell: Shell) -> None:
    before = shell.stat("policy/groups").st_mtime_ns
    shell.write("policy/groups", b"x25519 secp256r1")
    assert before < shell.stat("policy/groups").st_mtime_ns == shell.view.policy.changed("groups")
    assert shell.stat("policy/alpn").st_mtime_ns <= before
    assert shell.stat("sockets/1/hostname").st_mtime_ns == int(1_700_000_000.5e9)
    shell.mkdir("credentials/x")
    for name in ("certificate", "key", "hostnames"):
        assert shell.stat(f"credentials/x/{name}").st_mtime_ns == 0  # so that whatever is written is newer
    shell.gather("credentials/x/certificate", ONE.pem)
    shell.gather("credentials/x/key", ONE.key_pem)
    assert len({shell.stat(f"credentials/x/{name}").st_mtime_ns > before for name in ("certificate", "key")}) == 1


# --- writing ---


def test_two_writers_each_give_a_whole_value(shell: Shell) -> None:
    one, two = (shell.open("policy/groups", os.O_WRONLY) for _ in range(2))
    for off, a, b in ((0, b"x2551", b"secp2"), (5, b"9\nsecp3", b"56r1\nx4"), (12, b"84r1\n", b"48\n")):
        shell.call(shell.ops.write, one, off, a)
        shell.call(shell.ops.write, two, off, b)
    before = shell.view.policy.current
    shell.call(shell.ops.flush, one)
    assert shell.view.policy.current.groups == ("x25519", "secp384r1") != before.groups
    shell.call(shell.ops.flush, two)
    assert shell.view.policy.current.groups == ("secp256r1", "x448")


def test_what_can_become_a_value_is_judged_when_it_is_closed(shell: Shell) -> None:
    for path, text in (("policy/groups", b"P-25"), ("policy/min_version", b"TLSv1."), ("policy/groups", b"\n")):
        fh = shell.open(path, os.O_WRONLY)
        shell.call(shell.ops.write, fh, 0, text)
        for _ in range(2):
            with fails(errno.EINVAL):
                shell.call(shell.ops.flush, fh)
        shell.call(shell.ops.release, fh)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("policy/groups", b"x25519 bad "),
        ("policy/groups", b"x25519\nX25519\n"),
        ("policy/min_version", b"TLSv1.1\n"),
        ("policy/min_version", b"TLSv1.3\nTLSv1.2"),
        ("policy/min_rsa_bits", b"12\n"),
        ("policy/trust_store", b"relative\n"),
        ("policy/data_path", b"rely"),
    ],
)
def test_what_nothing_can_mend_fails_the_write(shell: Shell, path: str, text: bytes) -> None:
    fh = shell.open(path, os.O_WRONLY)
    with fails(errno.EINVAL):
        shell.call(shell.ops.write, fh, 0, text)
    with fails(errno.EINVAL):
        shell.call(shell.ops.flush, fh)


def test_a_value_that_is_bad_beside_another_fails_the_write(shell: Shell) -> None:
    """An echo does not look at close(2): a line of one word is judged whole, as it stands."""
    shell.write("policy/max_version", b"TLSv1.2\n")
    fh = shell.open("policy/min_version", os.O_WRONLY)
    with fails(errno.EINVAL):
        shell.call(shell.ops.write, fh, 0, b"TLSv1.3\n")


def test_ftruncate_cuts_what_was_gathered(shell: Shell) -> None:
    fh = shell.open("policy/groups", os.O_WRONLY)

    def cut(size: int) -> None:
        names = ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")
        changes = SimpleNamespace(**{f"update_{name}": name == "size" for name in names})
        shell.call(
            shell.ops.setattr, shell.inode("policy/groups"), SimpleNamespace(st_size=size), changes, fh, ROOT_USER
        )

    shell.call(shell.ops.write, fh, 0, b"x25519 x448")
    cut(6)
    shell.call(shell.ops.flush, fh)
    assert shell.view.policy.current.groups == ("x25519",)
    with fails(errno.EINVAL):
        shell.call(shell.ops.write, fh, 0, b"junk\n")
    cut(0)
    shell.call(shell.ops.flush, fh)
    shell.call(shell.ops.write, fh, 0, b"x448")
    shell.call(shell.ops.flush, fh)
    assert shell.view.policy.current.groups == ("x448",)


# --- who sees what ---


def rows(shell: Shell, uid: int) -> list[dict[str, Any]]:
    context = SimpleNamespace(uid=uid, pid=44)
    fh = shell.call(shell.ops.open, shell.inode("sockets.jsonl"), os.O_RDONLY, context).fh
    content = shell.read(fh, 1 << 20)
    assert shell.call(shell.ops.getattr, shell.inode("sockets.jsonl"), context).st_size == (len(content) or 0)
    shell.call(shell.ops.release, fh)
    return [json.loads(line) for line in content.splitlines()]


def test_one_line_of_json_a_socket_for_who_may_see_it(shell: Shell) -> None:
    shell.view.sockets.by_id[2].uid = 1001
    shell.view.sockets.by_id[2].state = OSError(errno.ENOENT, "gone")
    shell.view.sockets.by_id[3].exe = "/a\x9b\u202e\udcff\n/b"
    assert [row["id"] for row in rows(shell, 0)] == [90, 1, 2, 3]
    assert [row["id"] for row in rows(shell, 1000)] == [90, 1, 3]
    assert [row["id"] for row in rows(shell, 1001)] == [2]
    assert rows(shell, 1002) == []
    listener, first, second, third = rows(shell, 0)
    assert list(listener) == ["id", *(file.name for file in LISTENER_FILES)]
    assert (listener["role"], listener["credentials"]) == ("listener", ["www", "mail"])
    assert list(first) == ["id", *(file.name for file in SOCKET_FILES if file.read)]
    assert (first["bytes_sent"], first["state"], first["compliant"], first["alpn"]) == (1234, "open", "yes", None)
    assert (second["bytes_sent"], second["state"]) == (None, "ended")
    assert third["exe"] == shell.cat("sockets/3/exe").decode().strip()
    assert third["exe"].isprintable()


def test_others_take_turns_while_a_long_file_is_made(shell: Shell) -> None:
    made = shell.view.sockets
    made.by_id = {number: served.FixedSocket(number, chain=(b"x" * 20_000,)) for number in range(1, 501)}
    inode = shell.inode("sockets.jsonl")

    async def watch() -> float:
        longest, last = 0.0, time.thread_time()

        async def turns() -> None:
            nonlocal longest, last
            while True:
                await trio.lowlevel.checkpoint()
                longest, last = max(longest, time.thread_time() - last), time.thread_time()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(turns)
            await shell.ops.open(inode, os.O_RDONLY, ROOT_USER)
            nursery.cancel_scope.cancel()
        return longest

    assert trio.run(watch) < 0.02  # of some 0.1


def test_one_user_has_few_long_files_made_at_once(shell: Shell) -> None:
    inode, nobody = shell.inode("sockets.jsonl"), SimpleNamespace(uid=65534, pid=44)
    shell.view.sockets.by_id = {number: served.FixedSocket(number, uid=65534) for number in range(1, 301)}
    failed = []

    async def opened(context: Any) -> None:
        try:
            await shell.ops.open(inode, os.O_RDONLY, context)
        except FUSEError as failure:
            failed.append(failure.errno)

    async def all_at_once() -> None:
        async with trio.open_nursery() as nursery:
            for context in (nobody,) * 6 + (ROOT_USER,) * 6:
                nursery.start_soon(opened, context)

    trio.run(all_at_once)
    assert failed == [errno.EBUSY] * 2
    failed.clear()
    trio.run(opened, nobody)
    assert not failed


def test_one_user_does_not_hold_more_than_its_share(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssa.configfs.handles._MOST_HELD", 600)
    nobody = SimpleNamespace(uid=65534, pid=44)

    def opened(context: object) -> int:
        return shell.call(shell.ops.open, shell.inode("policy/ciphers"), os.O_RDONLY, context).fh

    fh = opened(nobody)
    with fails(errno.EMFILE):
        opened(nobody)
    opened(ROOT_USER)
    with fails(errno.EMFILE):
        shell.call(shell.ops.opendir, ROOT, nobody)
    shell.call(shell.ops.release, fh)
    for _ in range(2):
        listing = shell.call(shell.ops.opendir, ROOT, nobody)
        shell.call(shell.ops.releasedir, listing)
    shell.call(shell.ops.release, opened(nobody))
    assert not shell.ops._held._bytes[65534]
    assert not shell.ops._attributes._readers.keys() - {(shell.inode("policy/ciphers"), ROOT_USER.pid)}


# --- writing again ---


@pytest.mark.parametrize("off", [1, 7, 8, 4096])
def test_a_part_of_a_value_is_not_replaced(shell: Shell, caplog: pytest.LogCaptureFixture, off: int) -> None:
    """It stays refused, whatever follows, until a write begins anew."""
    before = shell.view.policy.current
    fh = shell.open("policy/groups", os.O_WRONLY)
    for at in (off, off + 9, off):
        with fails(errno.EINVAL):
            shell.call(shell.ops.write, fh, at, b"secp256r1")
        with fails(errno.EINVAL):
            shell.call(shell.ops.flush, fh)
    assert shell.view.policy.current is before
    assert f"policy/groups: refused from uid 0 pid 42: a write at byte {off}, where 0 bytes have come" in caplog.text
    shell.call(shell.ops.write, fh, 0, b"x448\n")
    shell.call(shell.ops.flush, fh)
    assert shell.view.policy.current.groups == ("x448",)


@pytest.mark.parametrize("off", [3, 8, 500])
def test_a_gap_or_an_overlap_spoils_what_has_come(shell: Shell, off: int) -> None:
    before = shell.view.policy.current
    fh = shell.open("policy/groups", os.O_WRONLY)
    shell.call(shell.ops.write, fh, 0, b"x25519\n")
    with fails(errno.EINVAL):
        shell.call(shell.ops.write, fh, off, b"x448\n")
    with fails(errno.EINVAL):  # where it would have fitted
        shell.call(shell.ops.write, fh, 7, b"x448\n")
    with fails(errno.EINVAL):
        shell.call(shell.ops.flush, fh)
    assert shell.view.policy.current is before


@pytest.mark.parametrize("data", [b"TLSv1.1", b"\0", b"TLSv1.3\0", b"\xff", b"T", b"\n", b"TLSv1.3\n" * 513])
def test_a_bad_write_changes_nothing_and_is_logged(shell: Shell, caplog: pytest.LogCaptureFixture, data: bytes) -> None:
    before = shell.view.policy.current
    with fails(errno.EINVAL), caplog.at_level(logging.WARNING, "ssa.configfs"):
        shell.write("policy/min_version", data)
    assert shell.view.policy.current is before
    assert "policy/min_version: refused from uid 0 pid 42: " in caplog.text
    assert "expected" in caplog.text or "limit" in caplog.text


def test_read_after_write_through_one_descriptor(shell: Shell) -> None:
    for first_read in (True, False):
        shell.write("policy/min_rsa_bits", b"2048")
        fh = shell.open("policy/min_rsa_bits", os.O_RDWR)
        assert not first_read or shell.read(fh) == b"2048\n"
        shell.call(shell.ops.write, fh, 0, b"3072\n")
        assert shell.read(fh) == b"2048\n"  # what is in force
        shell.call(shell.ops.fsync, fh, False)
        assert shell.read(fh) == b"3072\n"


@pytest.mark.parametrize(
    ("path", "flags"),
    [
        ("version", os.O_WRONLY),
        ("sockets/1/pid", os.O_RDWR),
        ("sockets/1/close", os.O_RDONLY),
        ("sockets/1/close", os.O_RDWR),
    ],
)
def test_the_mode_stops_root_too(shell: Shell, path: str, flags: int) -> None:
    with fails(errno.EACCES):
        shell.open(path, flags)


def test_truncation_and_appending_are_harmless(shell: Shell) -> None:
    fh = shell.open("policy/min_version", os.O_WRONLY | os.O_TRUNC | os.O_APPEND)
    assert shell.cat("policy/min_version") == b"TLSv1.2\n"
    shell.call(shell.ops.write, fh, 4096, b"TLSv1.3\n")
    assert shell.cat("policy/min_version") == b"TLSv1.2\n"
    shell.call(shell.ops.flush, fh)
    assert shell.cat("policy/min_version") == b"TLSv1.3\n"


@pytest.mark.parametrize(
    ("fields", "number"),
    [("update_size", 0), ("update_mtime", 0), ("update_mode", errno.EPERM), ("update_uid", errno.EPERM)],
)
def test_setattr(shell: Shell, fields: str, number: int) -> None:
    names = ("atime", "mtime", "ctime", "mode", "uid", "gid", "size")
    changes = SimpleNamespace(**{f"update_{name}": f"update_{name}" == fields for name in names})
    args = (shell.inode("policy/alpn"), None, changes, None, ROOT_USER)
    if number:
        with fails(number):
            shell.call(shell.ops.setattr, *args)
    else:
        assert shell.call(shell.ops.setattr, *args).st_size == 1


def test_nothing_else_can_be_made_or_removed(shell: Shell) -> None:
    refusals = {"create": errno.EACCES} | dict.fromkeys(("mknod", "unlink", "rename", "link", "symlink"), errno.EPERM)
    for name, number in refusals.items():
        with fails(number):
            shell.call(getattr(shell.ops, name), ROOT, b"x", 0o644, ROOT_USER)
    for path in ("/x", "/policy", "sockets/1", "sockets/9", "stats/handshakes", "policy/x", "version/x", "sockets/1/x"):
        for handler in (shell.mkdir, shell.rmdir):
            with fails(errno.EPERM):
                handler(path)


@pytest.mark.parametrize("text", [b"1", b"1\n"])
def test_close_ends_the_connection(shell: Shell, text: bytes) -> None:
    shell.write("sockets/2/close", text)
    assert [socket.ended for socket in shell.view.sockets.by_id.values()] == [False, True, False]


@pytest.mark.parametrize("text", [b"0", b"yes", b"11", b"\n"])
def test_close_wants_a_one(shell: Shell, text: bytes) -> None:
    with fails(errno.EINVAL):
        shell.write("sockets/2/close", text)
    assert not shell.view.sockets.by_id[2].ended


def test_close_passes_the_errno_on(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def end() -> None:
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(shell.view.sockets.by_id[1], "end", end)
    with fails(errno.ENOTCONN):
        shell.write("sockets/1/close", b"1")


def test_compliant_follows_the_policy(shell: Shell) -> None:
    assert shell.cat("sockets/1/compliant") == b"yes\n"
    shell.write("policy/min_version", b"TLSv1.3")
    assert shell.cat("sockets/1/compliant") == b"no: min_version: TLSv1.2 is below TLSv1.3\n"


def test_counters_may_come_and_go(shell: Shell) -> None:
    inode = shell.inode("stats/failures")
    shell.view.counters = {"late": 1, "failures": 2}
    assert sorted(shell.ls("stats")) == ["failures", "late"]
    assert shell.inode("stats/failures") == inode
    assert shell.cat("stats/failures") == b"2\n"
    with fails(errno.ENOENT):
        shell.inode("stats/handshakes")


def test_a_thousand_sockets() -> None:
    view = served.view(sockets=1000)
    tree = Tree(build(view), view)
    sockets = tree.child(ROOT, "sockets")
    assert sockets
    assert [name for name, _ in tree.children(sockets)] == [str(number) for number in range(1, 1001)]


# --- credentials ---

CA = trust_factory.root()
ONE, TWO = trust_factory.leaf(CA, "one.example"), trust_factory.leaf(CA, "two.example")


@pytest.fixture
def made(shell: Shell) -> Shell:
    """With a credential x that serves one.example."""
    shell.mkdir("credentials/x")
    shell.gather("credentials/x/certificate", ONE.pem + CA.pem)
    shell.gather("credentials/x/key", ONE.key_pem)
    return shell


def serving(shell: Shell) -> list[tuple[bytes, ...]]:
    return [credential.chain for credential in shell.view.credentials.current()]


def test_a_credential_is_made_and_removed(shell: Shell) -> None:
    attributes = shell.mkdir("credentials/www.example.org")
    assert attributes.st_ino == shell.inode("credentials/www.example.org")
    assert (attributes.st_mode, attributes.entry_timeout) == (stat.S_IFDIR | 0o755, 0)
    assert shell.ls("credentials") == ["www.example.org"]
    assert shell.ls("credentials/www.example.org") == ["certificate", "key", "hostnames", "users", "status"]
    assert shell.cat("credentials/www.example.org/certificate") == b"\n"
    with fails(errno.EEXIST):
        shell.mkdir("credentials/www.example.org")
    shell.rmdir("credentials/www.example.org")
    assert shell.ls("credentials") == []
    with fails(errno.ENOENT):
        shell.rmdir("credentials/www.example.org")


@pytest.mark.parametrize("name", [".x", "a b", "x" * 65, "*.example.org", "x\n", "ü", "\udcff"])
def test_a_credential_with_no_name(shell: Shell, caplog: pytest.LogCaptureFixture, name: str) -> None:
    with fails(errno.EINVAL):
        shell.call(shell.ops.mkdir, shell.inode("credentials"), os.fsencode(name), 0o755, ROOT_USER)
    assert "not made for uid 0 pid 42: " in caplog.text
    assert not any("\n" in record.getMessage() for record in caplog.records)


def test_a_credential_serves_when_it_is_whole(made: Shell) -> None:
    assert serving(made) == [(ONE.der, CA.der)]
    assert made.cat("credentials/x/certificate") == ONE.pem + CA.pem
    assert made.cat("credentials/x/hostnames") == b"one.example\n"
    assert made.stat("credentials/x/key").st_mode == stat.S_IFREG | 0o200
    for flags in (os.O_RDONLY, os.O_RDWR):
        with fails(errno.EACCES):
            made.open("credentials/x/key", flags)


def test_a_credential_is_renewed_at_once(made: Shell) -> None:
    made.gather("credentials/x/key", TWO.key_pem)
    assert serving(made) == [(ONE.der, CA.der)]
    made.gather("credentials/x/certificate", TWO.pem)
    assert serving(made) == [(TWO.der,)]
    assert made.cat("credentials/x/hostnames") == b"two.example\n"


def test_names_are_overridden(made: Shell) -> None:
    made.write("credentials/x/hostnames", b"a.example *.a.example\n")
    assert made.cat("credentials/x/hostnames") == b"a.example\n*.a.example\n"
    for bad in (b"a:443", b"a:443\n"):
        with fails(errno.EINVAL):
            made.write("credentials/x/hostnames", bad)
    assert made.cat("credentials/x/hostnames") == b"a.example\n*.a.example\n"
    made.write("credentials/x/hostnames", b"\n")
    assert made.cat("credentials/x/hostnames") == b"one.example\n"


@pytest.mark.parametrize("size", [100, 1024, 4096])
def test_a_value_may_come_in_pieces_and_counts_when_it_is_closed(made: Shell, size: int) -> None:
    text = TWO.pem + CA.pem
    made.gather("credentials/x/key", TWO.key_pem)
    fh = made.open("credentials/x/certificate", os.O_WRONLY)
    for off in range(0, len(text), size):
        made.call(made.ops.write, fh, off, text[off : off + size])
        assert serving(made) == [(ONE.der, CA.der)]
    made.call(made.ops.flush, fh)
    assert serving(made) == [(TWO.der, CA.der)]
    made.call(made.ops.flush, fh)
    made.call(made.ops.release, fh)
    assert serving(made) == [(TWO.der, CA.der)]


def test_several_programs_write_through_one_open_file(made: Shell) -> None:
    fh = made.open("credentials/x/certificate", os.O_WRONLY | os.O_APPEND)
    made.gather("credentials/x/key", TWO.key_pem)
    for off, text in ((len(ONE.pem), TWO.pem), (0, CA.pem)):  # at the end of what is shown, whatever that is
        made.call(made.ops.write, fh, off, text)
        made.call(made.ops.flush, fh)
    assert serving(made) == [(TWO.der, CA.der)]
    fh = made.open("credentials/x/certificate", os.O_WRONLY)
    for _ in range(2):
        made.call(made.ops.write, fh, 0, TWO.pem)  # from the start: a new value
    made.call(made.ops.flush, fh)
    assert serving(made) == [(TWO.der,)]


@pytest.mark.parametrize("file", ["certificate", "key"])
@pytest.mark.parametrize("text", [b"junk\n", b"\xff", TWO.pem + TWO.key_pem + b"-" * (256 << 10)])
def test_junk_fails_the_write_and_the_old_pair_stays(
    made: Shell, caplog: pytest.LogCaptureFixture, file: str, text: bytes
) -> None:
    fh = made.open(f"credentials/x/{file}", os.O_WRONLY)
    with fails(errno.EINVAL):
        made.call(made.ops.write, fh, 0, text)
    with fails(errno.EINVAL):  # one that does not look what became of it, and goes on
        made.call(made.ops.write, fh, len(text), TWO.pem)
    with fails(errno.EINVAL):
        made.call(made.ops.flush, fh)
    assert serving(made) == [(ONE.der, CA.der)]
    assert f"credentials/x/{file}: refused from uid 0 pid 42: " in caplog.text
    assert "BEGIN PRIVATE" not in caplog.text


def test_what_is_cut_short_fails_the_close(made: Shell) -> None:
    fh = made.open("credentials/x/certificate", os.O_WRONLY)
    made.call(made.ops.write, fh, 0, TWO.pem[:300])
    for _ in range(2):
        with fails(errno.EINVAL):
            made.call(made.ops.flush, fh)
    assert serving(made) == [(ONE.der, CA.der)]


def test_who_has_a_removed_credential_open_does_not_write_to_the_next(made: Shell) -> None:
    fh = made.open("credentials/x/certificate", os.O_WRONLY)
    late = made.open("credentials/x/hostnames", os.O_WRONLY)
    folder = made.inode("credentials/x")
    made.call(made.ops.write, fh, 0, TWO.pem)
    made.rmdir("credentials/x")
    assert serving(made) == []
    made.mkdir("credentials/x")
    assert made.inode("credentials/x") != folder
    assert made.ls("credentials") == ["x"]
    with fails(errno.ENODEV):
        made.call(made.ops.flush, fh)
    with fails(errno.ENODEV):
        made.call(made.ops.write, late, 0, b"a.example")
    assert made.cat("credentials/x/certificate") == b"\n"
    with fails(errno.ENOENT):
        made.call(made.ops.lookup, folder, b"key", ROOT_USER)


def test_those_of_the_directory_are_shown_and_changed_there(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "certificate").write_bytes(ONE.pem)
    (tmp_path / "y" / "key").write_bytes(ONE.key_pem)
    (tmp_path / "y" / "key").chmod(0o600)
    shell.view.credentials = CredentialStore(tmp_path)
    shell.view.credentials.refresh()
    shell = Shell(shell.view, Operations(Tree(build(shell.view), shell.view)))
    assert shell.ls("credentials") == ["y"]
    assert shell.cat("credentials/y/certificate") == ONE.pem
    assert shell.cat("credentials/y/hostnames") == b"one.example\n"
    for change in (
        functools.partial(shell.rmdir, "credentials/y"),
        functools.partial(shell.gather, "credentials/y/certificate", TWO.pem),
        functools.partial(shell.gather, "credentials/y/key", TWO.key_pem),
        functools.partial(shell.write, "credentials/y/hostnames", b"x.example"),
    ):
        with fails(errno.EPERM):
            change()
    with fails(errno.EEXIST):
        shell.mkdir("credentials/y")


# --- values ---


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("", b"\n"),
        ("a b", b"a b\n"),
        ("a\nb", b"a\\012b\n"),
        ("\\", b"\\134\n"),
        ("é\udcff", b"\xc3\xa9\\377\n"),
        ("\x9b\u202e", b"\\302\\233\\342\\200\\256\n"),
        ("\ud800", b"\\355\\240\\200\n"),
    ],
)
def test_a_line_is_one_line(value: str, content: bytes) -> None:
    assert render.line(value) == content


# --- the manual ---


def test_the_manual_has_every_file_and_setting(shell: Shell) -> None:
    manual = DOCS.read_text() + DOCS.with_name("policy.md").read_text()
    for path, file in files(build(shell.view)):
        name = path.rsplit("/", 1)[-1]
        assert name == "*" or f"`{name}`" in manual, path
        assert file.doc
    for row in SETTINGS.values():
        assert f"| `{row.name}` |" in manual
        assert row.doc.removesuffix(".") in manual, row.name
        assert row.many or not row.default or f"`{row.default}`" in manual
