"""The policy's file: what is read, what is refused, what a save leaves alone."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssa.policy import files
from ssa.policy.schema import SETTINGS, BadValue, Policy
from tests import needs

if TYPE_CHECKING:
    from pathlib import Path

WRITTEN = """\
# Ours.

[policy]  # all of it
min_version = "TLSv1.3"   # since the audit
alpn = [ "h2",            # browsers
         "http/1.1" ]
handshake_timeout = 7.50
# the end
"""

REFUSED = [
    ("policy = 3", "policy is not a table"),
    ("min_version = 'TLSv1.3'", "'min_version' does not belong here"),
    ("[policy]\nmin_version = 'TLSv1.1'", "min_version: 'TLSv1.1' is not supported"),
    ("[policy]\nmin_versoin = 'TLSv1.3'", "did you mean min_version?"),
    ("[policy]\nalpn = ['h2', 3]", "alpn: expected an array of strings"),
    ("[policy]\nmin_rsa_bits = true", "min_rsa_bits: expected a string, a number"),
    ("[policy]\nmin_rsa_bits = 1979-05-27", "min_rsa_bits: expected a string, a number"),
    ("[policy]\nmin_rsa_bits = 0x" + "f" * 9000, "min_rsa_bits: the number is out of range"),
    ("[policy.groups]\n", "groups: expected a string"),
    ("[policy]\nmin_version = 'TLSv1.3'\nmax_version = 'TLSv1.2'", "no version would be left"),
    ("[policy", "not TOML"),
    ("\udcff", "not TOML"),
]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "policy.toml"


def test_no_file_is_the_default(path: Path) -> None:
    assert files.load(path) == Policy.default()


def test_load(path: Path) -> None:
    path.write_text(WRITTEN + "min_rsa_bits = 3_072\ngroups = 'P-256:x25519'\n")
    policy = files.load(path)
    assert policy.alpn == ("h2", "http/1.1")
    assert (policy.handshake_timeout, policy.text("handshake_timeout")) == (7.5, "7.50")
    assert policy.min_rsa_bits == 3072
    assert policy.text("groups") == "P-256\nx25519"


@pytest.mark.parametrize(("text", "message"), REFUSED)
def test_refused_whole(path: Path, text: str, message: str) -> None:
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(BadValue) as refused:
        files.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)
    with pytest.raises(BadValue):
        files.save(path, Policy.default())
    assert path.read_bytes() == text.encode(errors="surrogateescape")
    assert list(path.parent.iterdir()) == [path]


@given(st.binary())
def test_load_raises_bad_value_only(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "policy.toml"
    path.write_bytes(data)
    with contextlib.suppress(BadValue):
        files.load(path)


def test_save_changes_what_differs_and_nothing_else(path: Path) -> None:
    path.write_text(WRITTEN)
    policy = files.load(path).replace_many({"handshake_timeout": "8.0", "min_rsa_bits": "4096", "groups": "P-256"})
    files.save(path, policy)
    expected = WRITTEN.replace("7.50", "8.0") + 'groups = ["P-256"]\nmin_rsa_bits = 4096\n'
    assert path.read_text() == expected
    assert files.load(path).texts == policy.texts


def test_save_of_the_same_leaves_the_file_as_it_is(path: Path) -> None:
    path.write_text(WRITTEN)
    files.save(path, files.load(path))
    assert path.read_text() == WRITTEN


def test_back_to_the_default_is_written_where_it_was_not(path: Path) -> None:
    path.write_text(WRITTEN)
    files.save(path, Policy.default())
    assert 'min_version = "TLSv1.2"   # since the audit' in path.read_text()
    assert "alpn = []" in path.read_text()
    assert "min_rsa_bits" not in path.read_text()
    assert files.load(path) == Policy.default()


@pytest.mark.parametrize(
    "before", ["", "# only this\n", "[policy]\n", "policy.min_rsa_bits = 4096\n", "policy = {min_rsa_bits = 4096}\n"]
)
def test_save_into_any_layout(path: Path, before: str) -> None:
    path.write_text(before)
    policy = Policy.default().replace_many({"min_version": "TLSv1.3", "alpn": "h2", "handshake_timeout": "0.50"})
    files.save(path, policy)
    assert files.load(path).texts == policy.texts
    assert "only this" in path.read_text() or "only this" not in before


def test_save_makes_a_file_that_everyone_can_read(path: Path) -> None:
    files.save(path, Policy.default().replace("trust_store", "/etc/anchors"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert files.load(path).trust_store == "/etc/anchors"


def test_save_follows_a_link(path: Path) -> None:
    link = path.with_name("link.toml")
    path.write_text(WRITTEN)
    link.symlink_to(path)
    files.save(link, Policy.default())
    assert link.is_symlink()
    assert "TLSv1.2" in path.read_text()


def test_a_save_that_fails_leaves_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(WRITTEN)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        files.save(path, Policy.default())
    assert path.read_text() == WRITTEN
    assert list(path.parent.iterdir()) == [path]


@given(st.sampled_from(sorted(SETTINGS)), st.text(alphabet="0123456789. :hTLSv/ktlsrelay-", max_size=12))
def test_what_can_be_set_can_be_saved(tmp_path_factory: pytest.TempPathFactory, name: str, text: str) -> None:
    try:
        policy = Policy.default().replace(name, text)
    except BadValue:
        return
    path = tmp_path_factory.mktemp("saved") / "policy.toml"
    files.save(path, policy)
    assert files.load(path) == policy
    assert files.load(path).texts == policy.texts


def test_save_keeps_owner_mode_and_attributes(path: Path) -> None:
    path.write_text(WRITTEN)
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 65533)
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(path, "user.origin", b"the audit")
    before, attributes = path.stat(), {name: os.getxattr(path, name) for name in os.listxattr(path)}
    files.save(path, Policy.default())
    after = path.stat()
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == attributes


def test_what_is_written_is_read_again_before_it_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TOML library has written an inline table without its commas."""
    path.write_text('# the audit\'s\npolicy = { min_rsa_bits = 4096, alpn = ["h2"] }  # inline\n')
    monkeypatch.setattr(files, "_update", lambda *_: b'policy = { min_rsa_bits = 4096 alpn = ["h2"] }\n')
    policy = files.load(path).replace("min_version", "TLSv1.3")
    files.save(path, policy)
    assert files.load(path).texts == policy.texts
    assert path.read_text().startswith("# the audit's\n")
    monkeypatch.setattr(files, "_rewrite", lambda *_: b'[policy]\nmin_version = "TLSv1.2"\n')
    before = path.read_text()
    with pytest.raises(BadValue, match=r"layout cannot be changed safely.*\[policy\]"):
        files.save(path, Policy.default().replace("max_version", "TLSv1.2"))
    assert path.read_text() == before


def test_an_error_of_a_save_names_the_file(path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        files.save(path.parent / "absent" / "policy.toml", Policy.default())
    assert caught.value.filename == str(path.parent / "absent" / "policy.toml")


_SAVE = """
import sys
from ssa.policy import files
from ssa.policy.schema import Policy
try:
    files.save(sys.argv[1], Policy.default().replace("min_version", "TLSv1.3"))
except OSError as failure:
    print(failure)
"""


@needs.namespaces("--mount")
def test_a_file_that_is_a_mount_point(path: Path) -> None:
    path.write_text(WRITTEN)
    (path.parent / "other.toml").write_text(WRITTEN)
    script = f'mount --bind {path.parent}/other.toml {path} && "{sys.executable}" -c "$0" {path}; cat {path}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, _SAVE], check=False, capture_output=True, text=True
    )
    assert re.match(rf"\[Errno 16\] it is a mount point of its own .*: '{re.escape(str(path))}'\n", done.stdout)
    assert done.stdout.endswith(WRITTEN)
    assert sorted(file.name for file in path.parent.iterdir()) == ["other.toml", path.name]
