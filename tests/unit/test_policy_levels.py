"""Levels: what is in them, what they change, and that they are put in force whole or not at all."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from ssa.cli import levels as verbs
from ssa.cli import main as cli
from ssa.cli.failure import Failure
from ssa.cli.filesystem import FileSystem
from ssa.handshake.contexts import ContextCache
from ssa.ktls.probe import Capabilities
from ssa.policy.levels import LEVELS, NAMES, Level, changes
from ssa.policy.schema import SETTINGS, BadValue, Policy
from ssa.suites import TLSVersion
from tests.unit.test_policy_never_looser import STRICT

if TYPE_CHECKING:
    from pathlib import Path

DEFAULTS = {row.name: row.default for row in SETTINGS.values()}
NO_KERNEL = Capabilities(frozenset(), rekey=False, reason="")


def of(name: str) -> Policy:
    return Policy.default().replace_many(LEVELS[name].texts)


@pytest.mark.parametrize("name", LEVELS)
def test_a_level_is_whole_and_openssl_takes_it(name: str) -> None:
    assert tuple(LEVELS[name].texts) == NAMES
    ContextCache(lambda *_: None).client(of(name), NO_KERNEL)


@pytest.mark.parametrize(("looser", "stricter"), [("legacy", name) for name in LEVELS] + [("intermediate", "modern")])
def test_what_is_stricter(looser: str, stricter: str) -> None:
    one, other = of(looser), of(stricter)
    assert [name for name in NAMES if not STRICT[name](getattr(other, name), getattr(one, name))] == []


def test_what_the_levels_say() -> None:
    assert all("MLKEM" in group for name in ("pq", "cnsa2") for group in of(name).groups)
    assert {name for name in LEVELS if of(name).min_version is TLSVersion.TLSv1_3} == {"modern", "pq", "cnsa2"}
    assert [suite.name for suite in of("cnsa2").ciphersuites] == ["TLS_AES_256_GCM_SHA384"]
    assert not any("CHACHA20" in suite.name for suite in of("nist").ciphers)
    assert (of("bsi").min_rsa_bits, of("nist").min_rsa_bits) == (3000, 2048)


def test_a_difference_is_about_values() -> None:
    written = DEFAULTS | {"groups": "X25519MLKEM768 X25519 P-256 P-384"}
    assert "groups" not in [it.name for it in changes(written, LEVELS["intermediate"])]
    found = {it.name: it.words for it in changes(written, LEVELS["modern"])}
    assert found["min_version"] == ("TLSv1.2 becomes TLSv1.3",)
    assert found["ciphersuites"] == ("without TLS_AES_128_CCM_SHA256",)
    order = Level("own", "", {"groups": "secp256r1 x25519"})
    assert [it.words for it in changes({"groups": "x25519 secp256r1"}, order)] == [("in the order secp256r1 x25519",)]


# --- the command ---


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of a daemon's file system; the policy's file beside it is not there."""
    (tmp_path / "ssa" / "policy").mkdir(parents=True)
    (tmp_path / "ssa" / "version").write_text("0.1.0\n")
    for name, text in DEFAULTS.items():
        (tmp_path / "ssa" / "policy" / name).write_text(f"{text}\n")
    (tmp_path / "levels.d").mkdir()
    monkeypatch.setattr(FileSystem, "write", lambda self, path, text: (self.root / path).write_text(f"{text}\n"))
    monkeypatch.setenv("SSA_MOUNT", str(tmp_path / "ssa"))
    monkeypatch.setenv("SSA_CONFIG", str(tmp_path / "policy.toml"))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["policy", *arguments])
    return status, *capsys.readouterr()


def in_force(tree: Path, name: str) -> str:
    return (tree / "ssa" / "policy" / name).read_text().strip()


def test_a_level_is_shown_and_put_in_force(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, shown, _ = call(capsys, "use", "pq", "--dry-run")
    assert (status, in_force(tree, "min_version")) == (0, "TLSv1.2")
    assert shown.startswith("pq: key exchange by hybrids")
    assert "TLSv1.2 becomes TLSv1.3" in shown
    assert shown.endswith("nothing was changed (--dry-run)\n")
    assert call(capsys, "use", "pq")[0] == 0
    assert {name: in_force(tree, name) for name in NAMES} == dict(LEVELS["pq"].texts)
    assert "its values are in force" in call(capsys, "use", "pq")[1]
    told = json.loads(call(capsys, "use", "legacy", "--json")[1])
    assert (told["level"], told["in_force"]) == ("legacy", True)
    assert {"name": "min_version", "before": "TLSv1.3", "after": "TLSv1.2"} in told["changes"]


def test_a_level_of_ones_own(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = tree / "levels.d" / "inside.toml"
    own.write_text('source = "rule 12"\n[policy]\nallowed_hosts = ["*.inside.example"]\n')
    assert "inside        rule 12" in call(capsys, "levels")[1]
    assert call(capsys, "use", "inside")[1].startswith("inside: rule 12\nallowed_hosts  with *.inside.example\n")
    assert in_force(tree, "allowed_hosts") == "*.inside.example"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("inside", "[policy]\nmin_version = 'TLSv1.1'\n", "inside.toml: min_version: 'TLSv1.1' is not supported"),
        ("inside", "[policy]\nmin_versoin = 'TLSv1.3'\n", "inside.toml: 'min_versoin' is not a setting, did you mean"),
        ("inside", "[profile]\n", "inside.toml: 'profile' does not belong here"),
        ("inside", "source = 3\n", "inside.toml: source: expected a string"),
        ("inside", "[policy", "inside.toml: not TOML"),
        ("pq", "[policy]\n", "pq.toml: pq is a level of ssa's own: give the file another name"),
    ],
)
def test_a_bad_level_changes_nothing(tree: Path, name: str, text: str, words: str) -> None:
    (tree / "levels.d" / f"{name}.toml").write_text(text)
    with pytest.raises(BadValue) as refused:
        verbs.find(name)
    assert words in str(refused.value)


@pytest.mark.parametrize("name", ["modren", "../etc/passwd", "", "A", "x" * 65])
def test_what_is_no_level(tree: Path, name: str) -> None:
    assert os.listdir(tree / "levels.d") == []
    with pytest.raises(BadValue, match="is no level"):
        verbs.find(name)


def test_an_order_of_changes_is_found() -> None:
    """From TLS 1.2 only to TLS 1.3 only: max_version has to be first."""
    policy = Policy.default().replace("max_version", "TLSv1.2")

    def put(name: str, text: str) -> None:
        nonlocal policy
        try:
            policy = policy.replace(name, text)
        except BadValue as bad:
            raise Failure(str(bad)) from None

    verbs._apply(changes(policy.texts, LEVELS["modern"]), put)
    assert policy == of("modern")


def test_what_is_refused_half_way_leaves_all_as_it_was() -> None:
    policy = Policy.default()

    def put(name: str, text: str) -> None:
        nonlocal policy
        if name == "groups":
            raise Failure("groups: Input/output error")
        policy = policy.replace(name, text)

    with pytest.raises(Failure, match="groups"):
        verbs._apply(changes(policy.texts, LEVELS["pq"]), put)
    assert policy == Policy.default()
