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


def test_who_is_out_of_reach_stays_who_it_was(monkeypatch):
    """An account service that does not answer, or not now, takes nobody's leave away; and it is asked again soon."""
    answers = {"alice": SimpleNamespace(pw_uid=1001)}
    monkeypatch.setattr(users.pwd, "getpwnam", answers.__getitem__)
    listed = users.Users.parse_untrusted("alice\n")
    listed.look_up()

    def fail(_name):
        raise OSError("out of reach")

    monkeypatch.setattr(users.pwd, "getpwnam", fail)
    listed.look_up()
    assert listed.admit(1001, ())
    now = users.time.monotonic()
    monkeypatch.setattr(users.time, "monotonic", lambda: now + 11)
    assert listed.is_stale()
    monkeypatch.setattr(users.pwd, "getpwnam", {}.__getitem__)
    listed.look_up()
    assert not listed.admit(1001, ())  # it answers, and knows nobody of that name
