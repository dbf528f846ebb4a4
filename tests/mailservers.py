"""Debian's servers that speak plain text first: dovecot for SMTP and IMAP, vsftpd for FTP."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tests.peers import free_port, listens, program

DOVECOT = """
base_dir = {directory}/run
state_dir = {directory}/run
log_path = {directory}/log
listen = 127.0.0.1
protocols = {protocols}
ssl = required
ssl_cert = <{cert}
ssl_key = <{key}
passdb {{
  driver = static
  args = password=secret
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home={directory}/mail
}}
mail_location = maildir:{directory}/mail
submission_relay_host = 127.0.0.1
submission_max_mail_size = 128M
submission_relay_port = {relay}
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
  }}
}}
service submission-login {{
  inet_listener submission {{
    port = {smtp}
  }}
}}
"""

# What dovecot(also=ALL) serves besides, with Debian's dovecot-pop3d.
ALL = """
service pop3-login {{
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
  }}
}}
service submission-login {{
  inet_listener submissions {{
    port = {smtps}
    ssl = yes
  }}
}}
"""

VSFTPD = """
background=NO
listen=YES
listen_address=127.0.0.1
listen_port={port}
anonymous_enable=YES
no_anon_password=YES
anon_root={directory}/files
write_enable=YES
anon_upload_enable=YES
anon_umask=022
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=NO
rsa_cert_file={cert}
rsa_private_key_file={key}
ssl_ciphers=HIGH
secure_chroot_dir={directory}/empty
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
vsftpd_log_file={directory}/log
dual_log_enable=YES
"""

LIMITS = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = limits
[limits]
MaxProtocol = {versions}
"""

NOBODY = 65534


@contextlib.contextmanager
def open_directory():
    """A directory that users without privileges can enter, as these servers' processes are."""
    directory = Path(tempfile.mkdtemp(prefix="ssa-test-", dir="/tmp"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)  # a server's last process may still be about to write


@contextlib.contextmanager
def dovecot(pki, relay: int = 0, also: str = "", versions: str | None = None):
    """Dovecot; yields its ports by protocol. Mail goes on to the SMTP server on port `relay`.

    `also`: more services. `versions`: TLSv1.2 for no later one.
    """
    with open_directory() as directory:
        (directory / "mail").mkdir()
        os.chown(directory / "mail", NOBODY, NOBODY)
        names = ("imap", "imaps", "smtp", *(("pop3", "pop3s", "smtps") if also else ()))
        ports = {name: free_port() for name in names}
        protocols = "imap submission" + " pop3" * bool(also)
        limit = ""
        if versions:  # its own ssl_min_protocol is the lowest
            (directory / "openssl.cnf").write_text(LIMITS.format(versions=versions))
            limit = f"import_environment = TZ OPENSSL_CONF={directory}/openssl.cnf\n"
        text = (DOVECOT + limit + also).format(
            directory=directory, cert=pki.cert, key=pki.key, relay=relay, protocols=protocols, **ports
        )
        configuration = directory / "dovecot.conf"
        configuration.write_text(text)
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        with program("/usr/sbin/dovecot", "-F", "-c", configuration, port=ports["smtp"], **quiet) as process:
            while not all(map(listens, ports.values())):
                time.sleep(0.01)
            yield ports
            process.terminate()  # it takes its processes along
            process.wait(10)


@contextlib.contextmanager
def vsftpd(pki):
    """vsftpd; yields its port and its directory of files, with `in` to upload to."""
    with open_directory() as directory:
        for name in ("files", "files/in", "empty"):
            (directory / name).mkdir()
        shutil.chown(directory / "files" / "in", "ftp")
        port = free_port()
        configuration = directory / "vsftpd.conf"
        configuration.write_text(VSFTPD.format(directory=directory, port=port, cert=pki.cert, key=pki.key).lstrip())
        with program("/usr/sbin/vsftpd", configuration, port=port, stdin=subprocess.DEVNULL):
            yield port, directory / "files"
