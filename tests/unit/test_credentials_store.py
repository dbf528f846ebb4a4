"""The administrator's credentials: made live, or in a directory that is renewed while they serve."""

from __future__ import annotations

import logging
import os
import time

import pytest

from ssa.credentials import CredentialStore
from ssa.policy.schema import BadValue
from tests.unit.trust_factory import leaf, root

CA = root()
ONE, TWO = leaf(CA, "one.example"), leaf(CA, "two.example")


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "credentials").mkdir()
    return tmp_path / "credentials"


class Fresh(CredentialStore):
    """Looks at the directory whenever it is asked, as the daemon has it looked at before."""

    def current(self):
        self.refresh()
        return super().current()

    def names(self):
        self.refresh()
        return super().names()

    def get(self, name):
        self.refresh()
        return super().get(name)


@pytest.fixture
def store(directory):
    return Fresh(directory)


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "ssa.daemon")
    return lambda words: sum(words in record.getMessage() for record in caplog.records)


def put(path, data, mode=0o600):
    """As a careful tool does it: another file, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.chmod(mode)
    new.rename(path)


def keep(directory, name, made):
    put(directory / name / "certificate", made.pem)
    put(directory / name / "key", made.key_pem)


def names(store):
    return [credential.name for credential in store.current()]


def live(store, name, made):
    store.create(name)
    store.get(name).set_certificate(made.pem.decode())
    store.get(name).set_key(made.key_pem.decode())


# --- the directory ---


def test_no_directory_is_an_empty_store(tmp_path):
    store = Fresh(tmp_path / "nowhere")
    assert store.current() == ()
    assert store.names() == ()
    assert store.get("x") is None
    keep_later = tmp_path / "nowhere"
    keep_later.mkdir()
    keep(keep_later, "x", ONE)
    assert names(store) == ["x"]


def test_the_live_ones_come_first_in_order_of_creation(store, directory):
    keep(directory, "b", ONE)
    keep(directory, "a", TWO)
    live(store, "z", TWO)
    live(store, "c", ONE)
    assert names(store) == ["z", "c", "a", "b"]
    assert store.names() == ("z", "c", "a", "b")


def test_a_renewed_certificate_serves_the_next_handshake(store, directory, log):
    keep(directory, "x", ONE)
    (first,) = store.current()
    assert (first.chain, first.hostnames) == ((ONE.der,), ("one.example",))
    put(directory / "x" / "key", TWO.key_pem)
    for _ in range(3):
        assert store.current() == (first,)
    assert log("does not belong to the certificate") == log("the last good one stays in service") == 1
    put(directory / "x" / "certificate", TWO.pem)
    (second,) = store.current()
    assert second.chain == (TWO.der,)
    assert store.get("x").certificate == TWO.pem
    assert log("serves two.example") == 1


def test_links_as_certbot_makes_them(store, directory, tmp_path):
    archive = tmp_path / "archive"
    keep(archive, "1", ONE)
    (tmp_path / "live").symlink_to(archive / "1")
    (directory / "x").mkdir()
    for name in ("certificate", "key"):
        (directory / "x" / name).symlink_to(tmp_path / "live" / name)
    assert store.current()[0].chain == (ONE.der,)
    keep(archive, "2", TWO)
    (tmp_path / "live").unlink()
    (tmp_path / "live").symlink_to(archive / "2")
    assert store.current()[0].chain == (TWO.der,)


def test_a_link_that_leads_somewhere_only_later(store, directory, tmp_path):
    (directory / "x").symlink_to(tmp_path / "later")
    time.sleep(0.03)
    assert store.current() == ()
    keep(tmp_path, "later", ONE)
    assert names(store) == ["x"]


@pytest.mark.parametrize("missing", ["certificate", "key"])
def test_a_half_is_not_served_and_takes_nothing_away(store, directory, log, missing):
    keep(directory, "x", ONE)
    keep(directory, "y", TWO)
    (directory / "y" / missing).unlink()
    for _ in range(2):
        assert names(store) == ["x"]
    assert log(f"y/{missing}: No such file or directory; not served") == 1
    (directory / "x" / missing).unlink()
    assert names(store) == ["x"]
    assert store.names() == ("x", "y")
    assert store.get("y").certificate == b""
    assert store.get("y").hostnames == ()


def test_what_is_removed_is_not_served(store, directory):
    keep(directory, "x", ONE)
    assert names(store) == ["x"]
    (directory / "x").rename(directory.parent / "x")
    assert store.current() == ()
    assert store.get("x") is None


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o602])
def test_a_key_that_everyone_can_read_is_refused(store, directory, log, mode):
    keep(directory, "x", ONE)
    (directory / "x" / "key").chmod(mode)
    assert store.current() == ()
    assert log("everyone can read or change it") == log("chmod 600") == 1
    (directory / "x" / "key").chmod(0o600)
    assert names(store) == ["x"]


def test_a_key_for_a_group_is_a_warning(store, directory, log):
    keep(directory, "x", ONE)
    (directory / "x" / "key").chmod(0o640)
    assert names(store) == ["x"]
    assert log("its group can read") == 1


def test_names_to_serve_for(store, directory, log):
    keep(directory, "x", ONE)
    put(directory / "x" / "hostnames", "bücher.example\n*.example.org\n".encode())
    assert store.current()[0].hostnames == ("xn--bcher-kva.example", "*.example.org")
    put(directory / "x" / "hostnames", b"a/b")
    assert store.current()[0].hostnames == ("xn--bcher-kva.example", "*.example.org")
    put(directory / "x" / "hostnames", b"\xff")
    assert store.current()
    assert log("not UTF-8") == 1
    (directory / "x" / "hostnames").unlink()
    assert store.current()[0].hostnames == ("one.example",)


def test_what_is_no_file_holds_nobody_up(store, directory, log):
    (directory / "x").mkdir()
    os.mkfifo(directory / "x" / "certificate")
    keep(directory, "y", ONE)
    (directory / "y" / "key").unlink()
    (directory / "y" / "key").mkdir()
    put(directory / "z" / "certificate", b"x" * (257 << 10))
    (directory / "README").write_text("not a credential")
    (directory / ".hidden").mkdir()
    (directory / "bad name\n").mkdir()
    assert store.current() == ()
    assert store.names() == ("x", "y", "z")
    assert (log("not a regular file"), log("longer than 256 KiB")) == (2, 1)


def test_nothing_is_read_again_when_nothing_has_changed(store, directory, monkeypatch):
    keep(directory, "x", ONE)
    keep(directory, "y", TWO)
    time.sleep(0.03)  # what is younger could change unseen
    first = store.current()
    looked = []
    lstat = os.lstat
    monkeypatch.setattr(os, "lstat", lambda path: looked.append(path) or lstat(path))
    monkeypatch.setattr(os, "open", None)
    monkeypatch.setattr(os, "scandir", None)
    assert store.current() is first
    assert {path for path in looked if path.startswith(f"{directory}/")} == {
        str(directory / path) for path in ("x", "y", *(f"{name}/{file}" for name in "xy" for file in FILES))
    }


FILES = ("certificate", "key", "hostnames", "users")


def test_changes_within_one_tick_are_seen(store, directory):
    keep(directory, "x", ONE)
    (directory / "x" / "hostnames").write_bytes(b"a.example")
    assert store.current()
    before = (directory / "x" / "hostnames").stat()
    (directory / "x" / "hostnames").write_bytes(b"b.example")
    assert before.st_size == (directory / "x" / "hostnames").stat().st_size
    assert store.current()[0].hostnames == ("b.example",)


def test_those_of_the_directory_are_changed_there(store, directory):
    keep(directory, "x", ONE)
    entry = store.get("x")
    for change in (
        *(entry.set_certificate, entry.set_key, entry.set_hostnames, entry.check_certificate, entry.check_key),
        lambda text: store.remove("x"),
    ):
        with pytest.raises(PermissionError, match="it is read from a directory") as caught:
            change("anything")
        assert caught.value.errno
    with pytest.raises(FileExistsError):
        store.create("x")


# --- those made live ---


@pytest.mark.parametrize("name", ["", ".", "..", ".x", "a/b", "a b", "ü", "x\n", "x" * 65, "*.example.org"])
def test_names_that_are_none(store, name):
    with pytest.raises(ValueError, match="letters, digits"):
        store.create(name)
    assert store.names() == ()


@pytest.mark.parametrize("name", ["x", "www.example.org", "A-b_c.1", "x" * 64, "-"])
def test_names_that_are_some(store, name):
    store.create(name)
    assert store.names() == (name,)
    with pytest.raises(FileExistsError):
        store.create(name)
    store.remove(name)
    assert store.names() == ()
    with pytest.raises(FileNotFoundError):
        store.remove(name)


def test_live_from_half_to_whole_to_gone(store, log):
    store.create("x")
    entry = store.get("x")
    assert (entry.certificate, entry.hostnames) == (b"", ())
    entry.set_certificate(ONE.pem.decode())
    assert entry.certificate == ONE.pem
    assert store.current() == ()
    assert log("serves nothing, waits for its key") == 1
    entry.set_key(ONE.key_pem.decode())
    assert names(store) == ["x"]
    assert store.current() is store.current()
    assert log("serves one.example") == 1
    store.remove("x")
    assert store.current() == ()
    store.create("x")
    assert store.get("x") is not entry


def test_a_bad_write_leaves_the_pair_in_service(store):
    live(store, "x", ONE)
    before, entry = store.current(), store.get("x")
    for change in (entry.set_certificate, entry.set_key, entry.check_certificate, entry.check_key):
        with pytest.raises(BadValue, match="PEM"):
            change("junk")
    with pytest.raises(BadValue, match="a/b"):
        entry.set_hostnames("a/b")
    assert store.current() is before
