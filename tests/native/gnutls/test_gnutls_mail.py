"""mutt and msmtp: plain text first, then TLS on the same descriptor, and much mail."""

import hashlib
import imaplib
import ssl

import pytest

from tests.native.gnutls import programs
from tests.native.gnutls.conftest import counted, run
from tests.native.openssl import servers

MAIL = b"0123456789abcdef" * 4 + b"\n"
BODY = MAIL * (programs.MAIL_SIZE // len(MAIL))


def mailbox(serving, scheme="imap", host="localhost", port=None):
    return f"{scheme}://me@{host}:{port or serving(scheme)}/INBOX"


@pytest.mark.parametrize("scheme", ["imap", "imaps"])
def test_mutt_shows_a_mailbox(ssad, serving, tmp_path, scheme):
    made = counted(ssad)[0]
    shown = programs.mutt(ssad.environment, tmp_path, mailbox(serving, scheme))
    assert "hello from dovecot" in shown
    assert counted(ssad)[0] == made + 1


@pytest.mark.parametrize("insecure", [False, True])
def test_mutt_is_refused_for_another_name(ssad, serving, tmp_path, insecure):
    refused = counted(ssad)[1]
    with servers.forwarder(serving("imap"), "127.0.0.2") as port:
        where = mailbox(serving, host="127.0.0.2", port=port)
        shown = programs.mutt(ssad.environment, tmp_path, where, insecure=insecure, ends=(b"another name",), seconds=10)
    assert "certificate is for another name" in shown
    assert "hello from dovecot" not in shown
    assert counted(ssad)[1] > refused


def test_mutt_is_refused_for_an_unknown_authority_and_an_old_version(ssad, serving, pki, strangers, tmp_path):
    before = counted(ssad)
    ssad.set("trust_store", str(strangers.ca))
    shown = programs.mutt(ssad.environment, tmp_path, mailbox(serving), ends=(b"trust anchor",), seconds=10)
    assert "no path from the certificate" in shown
    ssad.set("trust_store", str(pki.ca))
    ssad.set("min_version", "TLSv1.3")
    where = mailbox(serving, port=serving("imap", "TLSv1.2"))
    shown = programs.mutt(ssad.environment, tmp_path, where, ends=(b"no words",), seconds=4)
    assert "hello from dovecot" not in shown
    now = counted(ssad)
    assert now[0] == before[0]
    assert now[1] > before[1]
    assert now[2] > before[2]


@pytest.fixture(scope="session")
def long_mail(serving, pki):
    """The IMAP port of a server that has a long mail in its mailbox `long`."""
    with imaplib.IMAP4("localhost", serving("imap"), timeout=60) as imap:
        imap.starttls(ssl.create_default_context(cafile=pki.ca))
        imap.login("me", "secret")
        imap.create("long")
        imap.append("long", None, None, b"Subject: it is long\r\n\r\n" + BODY.replace(b"\n", b"\r\n"))
    return serving("imap")


def test_mutt_fetches_a_long_mail_whole(ssad, long_mail, tmp_path):
    keys = f"<pipe-message>cat > {tmp_path}/came; touch {tmp_path}/done<enter>"
    where = f"imap://me@localhost:{long_mail}/long"
    programs.mutt(ssad.environment, tmp_path, where, keys=keys, ends=(b"no such words",), seconds=0.1, file="done")
    came = (tmp_path / "came").read_bytes().partition(b"\n\n")[2]
    assert hashlib.sha256(came).digest() == hashlib.sha256(BODY).digest()


def test_mutt_does_not_take_a_cut_mail_for_a_whole_one(ssad, long_mail, tmp_path):
    keys = f"<pipe-message>cat > {tmp_path}/came<enter>"
    with servers.forwarder(long_mail, cut_after=1 << 20) as port:
        where = f"imap://me@localhost:{port}/long"
        shown = programs.mutt(ssad.environment, tmp_path, where, keys=keys, ends=(b"econnect",), seconds=20)
    assert "reconnect" in shown
    came = tmp_path / "came"
    assert not came.exists() or len(came.read_bytes()) < len(BODY) // 2


def _send(ssad, port, body, *options):
    words = ["msmtp", "--host=localhost", f"--port={port}", "--tls=on", "--timeout=60", "--from=me@example.org"]
    account = ["--auth=plain", "--user=me", "--passwordeval=echo secret"]
    return run(ssad, ([*words, *account, *options, "you@example.org"], b"Subject: it\n\n" + body))


def test_msmtp_sends_a_long_mail_whole(ssad, serving):
    made = counted(ssad)[0]
    done = _send(ssad, serving("smtp"), BODY)
    assert done.returncode == 0, done.stderr
    assert serving("taken").hashes[-1] == hashlib.sha256(BODY).hexdigest()
    assert counted(ssad)[0] == made + 1


def test_mutt_sends_by_smtp(ssad, serving, tmp_path):
    made = counted(ssad)[0]
    rc = tmp_path / "rc"
    rc.write_text(
        f'set smtp_url="smtp://me@localhost:{serving("smtp")}/"\nset smtp_pass=secret\nset ssl_force_tls=yes\n'
        "set smtp_authenticators=plain\nset record=\nset from=me@example.org\n"
    )
    done = run(ssad, (["mutt", "-n", "-F", rc, "-s", "it", "you@example.org"], b"by mutt\n"), HOME=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert serving("taken").hashes[-1] == hashlib.sha256(b"by mutt\n").hexdigest()
    assert counted(ssad)[0] == made + 1


def test_msmtp_is_refused_by_an_old_version_and_a_cut_stream(ssad, serving):
    with servers.forwarder(serving("smtp"), cut_sent_after=1 << 20) as port:
        done = _send(ssad, port, BODY)
    assert done.returncode, done.stderr
    ssad.set("min_version", "TLSv1.3")
    done = _send(ssad, serving("smtp", "TLSv1.2"), b"hello\n")
    assert done.returncode
    assert b"TLS" in done.stderr


def test_msmtp_whose_own_ca_narrows(ssad, serving, pki, strangers):
    assert _send(ssad, serving("smtp"), b"one\n", f"--tls-trust-file={pki.ca}").returncode == 0
    refused = _send(ssad, serving("smtp"), b"two\n", f"--tls-trust-file={strangers.ca}")
    assert refused.returncode
    assert b"no path from the certificate to a trust anchor" in refused.stderr
