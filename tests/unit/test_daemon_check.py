"""`ssad --check`: what it says of good files, and of each bad one beside good ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ssa.daemon import main as daemon
from tests.unit import trust_factory

if TYPE_CHECKING:
    from pathlib import Path

ROOT = trust_factory.root()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Files of all kinds, in which nothing is wrong."""
    (tmp_path / "ca.pem").write_bytes(ROOT.pem)
    leaf = trust_factory.leaf(ROOT, "www.example")
    for name in ("policy.d", "levels.d", "credentials", "credentials/www"):
        (tmp_path / name).mkdir()
    (tmp_path / "credentials" / "www" / "certificate").write_bytes(leaf.pem)
    (tmp_path / "credentials" / "www" / "key").write_bytes(leaf.key_pem)
    (tmp_path / "credentials" / "www" / "key").chmod(0o600)
    (tmp_path / "policy.d" / "10.toml").write_text(f"[policy]\ntrust_store = '{tmp_path}/ca.pem'\n")
    (tmp_path / "levels.d" / "inside.toml").write_text("source = 'rule 12'\n[policy]\nmin_rsa_bits = 3072\n")
    (tmp_path / "policy.toml").write_text("[policy]\nmin_version = 'TLSv1.3'\n")
    return tmp_path / "policy.toml"


def check(config: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], list[str]]:
    status = daemon.main(["--check", "--config", str(config)])
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


def test_good_files(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = config.parent
    assert check(config, capsys) == (
        0,
        [
            f"policy: ok: {config}, {folder}/policy.d/10.toml",
            f"trust_store: ok: {folder}/ca.pem, 1 anchors",
            f"credentials: ok: 1 in {folder}/credentials",
            "level inside: ok: rule 12",
        ],
        [],
    )
    assert sorted(path.name for path in folder.iterdir()) == [
        "ca.pem", "credentials", "levels.d", "policy.d", "policy.toml"]  # fmt: skip


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        (
            "policy.toml",
            "[policy]\nmin_version = 'TLSv1.1'\n",
            "policy: {file}: min_version: 'TLSv1.1' is",
        ),
        ("policy.toml", "[policy]\nmin_version =\n", "policy: {file}: not TOML: Invalid value (at line 2"),
        ("policy.d/10.toml", "[policy]\ngroups = 'x'\n", "policy: {file}: groups: 'x' is not a group"),
        ("ca.pem", "nothing", "trust_store: "),
        ("credentials/www/certificate", "nothing", "credentials: credential www: "),
        ("levels.d/inside.toml", "[policy]\nx = 1\n", "level inside: {file}: 'x' is not a setting"),
        ("levels.d/pq.toml", "[policy]\n", "level pq: {file}: pq is a level of ssa's own"),
        ("levels.d/In Side.toml", "[policy]\n", "level In Side: 'In Side' is no level's name"),
    ],
)
def test_one_bad_file(config: Path, capsys: pytest.CaptureFixture[str], file: str, text: str, words: str) -> None:
    (config.parent / file).write_text(text)
    status, good, bad = check(config, capsys)
    assert (status, len(bad)) == (1, 1)
    assert bad[0].startswith(words.replace("{file}", str(config.parent / file)))
    assert len(good) >= 3  # the others are checked all the same


def test_all_that_is_bad_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("policy.toml", "credentials/www/key", "levels.d/inside.toml"):
        (config.parent / file).write_text("nothing")
    _, _, bad = check(config, capsys)
    assert [line.partition(":")[0] for line in bad] == ["policy", "credentials", "level inside"]


def test_a_file_that_was_named_has_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, bad = check(tmp_path / "policy.toml", capsys)
    assert status == 1
    assert "there is no such file" in bad[0]
