"""Who may serve with a credential: names are looked up beforehand, so that asking never waits."""

from types import SimpleNamespace

from ssa.credentials import users


def test_asking_waits_for_no_account_service(tmp_path, monkeypatch):
    accounts, known = tmp_path / "passwd", {"alice": SimpleNamespace(pw_uid=1001)}
    accounts.write_text("one\n")
    monkeypatch.setattr(users, "_ACCOUNTS", (str(accounts),))
    monkeypatch.setattr(users.pwd, "getpwnam", known.__getitem__)
    listed = users.Users.parse_untrusted("alice\nbob\n")
    assert listed.is_stale()
    assert not listed.admit(1001, ())  # nobody has looked yet
    assert listed.unknown() == ("bob",)
    assert (listed.admit(1001, ()), listed.admit(1002, ()), listed.is_stale()) == (True, False, False)
    known["bob"] = SimpleNamespace(pw_uid=1002)
    accounts.write_text("one\nand another\n")
    assert listed.is_stale()
    assert not listed.admit(1002, ())
    users.look_up([listed])
    assert (listed.admit(1002, ()), listed.is_stale()) == (True, False)


def test_numbers_need_no_look():
    listed = users.Users.parse_untrusted("1001, %60")
    assert not listed.is_stale()
    assert (listed.admit(1001, ()), listed.admit(1, (60,)), listed.admit(1, ())) == (True, True, False)
