"""Drop-ins: policy.d/*.toml beside the policy's file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from ssa.policy import files
from ssa.policy.schema import BadValue, Policy
from ssa.suites import TLSVersion

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "policy.d").mkdir()
    return tmp_path / "policy.toml"


def drop(path: Path, name: str, text: str) -> Path:
    file = path.parent / "policy.d" / name
    file.write_text(f"[policy]\n{text}\n")
    return file


def test_a_later_file_counts(path: Path) -> None:
    path.write_text("[policy]\nmin_rsa_bits = 3072\ngroups = 'x25519'\nsession_ttl = 60\n")
    first = drop(path, "10-a.toml", "groups = ['secp256r1']\nmin_rsa_bits = 4096")
    second = drop(path, "20-b.toml", "groups = ['secp384r1']")
    policy, source = files.find(path)
    assert (policy.min_rsa_bits, policy.groups, policy.session_ttl) == (4096, ("secp384r1",), 60)
    assert source == f"{path}, {first}, {second}"


def test_without_the_file_drop_ins_count(path: Path) -> None:
    file = drop(path, "a.toml", "min_version = 'TLSv1.3'")
    policy, source = files.find(path)
    assert (policy.min_version, source) == (TLSVersion.TLSv1_3, str(file))
    with pytest.raises(FileNotFoundError):
        files.find(path, required=True)


def test_what_is_no_drop_in(path: Path) -> None:
    for name in (".a.toml.swp", ".a.toml", "a.toml~", "a.toml.bak", "README"):
        drop(path, name, "min_versoin = 3")
    assert files.find(path) == (Policy.default(), "")
    (path.parent / "policy.d" / "README").unlink()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("min_versoin = 'TLSv1.3'", "did you mean min_version?"),
        ("min_rsa_bits = 12", "min_rsa_bits: '12' is not a key size"),
        ("[[", "not TOML"),
        ("max_version = 'TLSv1.2'", "no version would be left"),
    ],
)
def test_one_bad_drop_in_refuses_all(path: Path, text: str, words: str) -> None:
    path.write_text("[policy]\nmin_version = 'TLSv1.3'\n")
    drop(path, "10.toml", "min_rsa_bits = 4096")
    bad = drop(path, "20.toml", text)
    with pytest.raises(BadValue) as refused:
        files.find(path)
    assert str(refused.value).startswith(f"{bad}: ")
    assert words in str(refused.value)


def test_what_cannot_be_read_is_an_error(path: Path) -> None:
    (path.parent / "policy.d" / "a.toml").symlink_to("nowhere")
    with pytest.raises(OSError, match=r"a\.toml"):
        files.find(path)
    (path.parent / "policy.d" / "a.toml").unlink()
    os.mkfifo(path.parent / "policy.d" / "b.toml")
    with pytest.raises((OSError, BadValue), match=r"b\.toml"):
        files.find(path)


def test_a_directory_that_is_a_broken_link(tmp_path: Path) -> None:
    (tmp_path / "policy.d").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"policy\.d is a link whose target does not exist"):
        files.find(tmp_path / "policy.toml")


def test_a_save_leaves_to_drop_ins_what_they_have(path: Path) -> None:
    path.write_text("[policy]\nsession_ttl = 60\n")
    file = drop(path, "10.toml", "groups = ['P-256']")
    policy = files.load(path).replace("min_rsa_bits", "4096")
    files.save(path, policy)
    assert path.read_text() == "[policy]\nsession_ttl = 60\nmin_rsa_bits = 4096\n"
    assert files.load(path) == policy
    with pytest.raises(BadValue, match=f"{file} has another value of groups, which would count at the next start"):
        files.save(path, policy.replace("groups", "x25519"))
    assert files.load(path) == policy


def test_lists_with_words_of_their_own_are_saved(path: Path) -> None:
    """Addresses of IPv6 have colons, pins have spaces."""
    texts = {
        "allowed_hosts": "2001:db8::/32 *.example",
        "pinned_keys": "a.example sha256/47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n::1 sha256/" + "A" * 43 + "=",
    }
    policy = Policy.default().replace_many(texts)
    files.save(path, policy)
    assert files.load(path).texts == policy.texts
    assert 'allowed_hosts = ["2001:db8::/32", "*.example"]' in path.read_text()
