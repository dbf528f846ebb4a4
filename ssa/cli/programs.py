"""The ways by which unmodified programs get the system's TLS, and the programs that each is tested with. Pure.

docs/programs.md has both tables. A way is a library that `ssa run` has preloaded, or the supervisor that it becomes.
"""

from __future__ import annotations

from typing import NamedTuple


class Way(NamedTuple):
    """A way.

    Attributes:
        library: the file that is preloaded, or that runs the program.
        takes: which programs it is for.
    """

    name: str
    library: str
    takes: str


class Program(NamedTuple):
    """A program that is tested.

    Attributes:
        role: client or server.
        works: what of it goes by ssa.
        differs: what is refused, or is not as with its own TLS.
    """

    name: str
    role: str
    way: str
    works: str
    differs: str = ""


WAYS = {
    way.name: way
    for way in (
        Way("openssl", "libssa-tls.so", "programs that link OpenSSL 3 (libssl.so.3), also in a module"),
        Way("gnutls", "libssa-tls.so", "programs that link GnuTLS 3.6 or later (libgnutls.so.30), also in a module"),
        Way("sockets", "libssa.so", "programs that know no TLS: `--tls`, `--tls-to`, `--tls-listen`"),
        Way(
            "seccomp",
            "ssa-supervise",
            "any binary, static ones too, with `--seccomp`: one that asks for TLS by socket(2), or that knows no TLS, "
            "with the same options",
        ),
    )
}

DEFAULT_WAY = WAYS["openssl"]  # its library is that of `gnutls` too
SOCKETS = WAYS["sockets"]
SECCOMP = WAYS["seccomp"]

_ANYWAY = "a server that does not prove its name is refused with"

PROGRAMS = (
    Program(
        "curl",
        "client",
        "openssl",
        "HTTP/1.1, HTTP/2, `--parallel`, `--resolve`, proxies (CONNECT), `--cert`, `--pinnedpubkey`, `--crlfile`, "
        "`--ciphers`, `--tls-max`",
        f"{_ANYWAY} `-k` too. `--cacert` narrows together with `--capath` only. An HTTPS proxy is TLS in TLS",
    ),
    Program("irssi", "client", "openssl", "`/connect -tls`", f"{_ANYWAY} `-notls_verify` too"),
    Program("socat", "client", "openssl", "`OPENSSL:`", f"{_ANYWAY} `verify=0` too. No DTLS (`OPENSSL-DTLS-CLIENT`)"),
    Program("ncat", "client", "openssl", "`--ssl`", f"{_ANYWAY} `--ssl` alone, which is not to verify"),
    Program("php", "client", "openssl", "`https://` and `ssl://` streams", f"{_ANYWAY} `verify_peer` false too"),
    Program("redis-cli", "client", "openssl", "`--tls`", f"{_ANYWAY} `--insecure` too"),
    Program(
        "psql",
        "client",
        "openssl",
        "all values of `sslmode` that use TLS",
        f"{_ANYWAY} `sslmode=require` too. `prefer`, its default, goes on in plain text then",
    ),
    Program(
        "python3",
        "client",
        "openssl",
        "`ssl` on sockets: urllib, http.client, smtplib",
        f"{_ANYWAY} `CERT_NONE` too. Memory BIOs, as of asyncio: see `coercion`",
    ),
    Program(
        "pip", "client", "openssl", "downloads", "it has trust anchors of its own, so both have to know the server"
    ),
    Program(
        "mosquitto_pub, mosquitto_sub", "client", "openssl", "`--cafile`, `--capath`", f"{_ANYWAY} `--insecure` too"
    ),
    Program("mariadb", "client", "openssl", "`--ssl`", f"{_ANYWAY} `--ssl` alone, which is not to verify"),
    Program(
        "wget",
        "client",
        "gnutls",
        "`--ca-certificate` with `--ca-directory`, `--certificate`, `--crl-file`, `--ciphers`, `--secure-protocol`, "
        "`--pinnedpubkey`",
        f"{_ANYWAY} `--no-check-certificate` too",
    ),
    Program(
        "git",
        "client",
        "gnutls",
        "`https://`, in the processes that it starts; `http.sslCAInfo` with `http.sslCAPath`",
        f"{_ANYWAY} `http.sslVerify=false` too",
    ),
    Program(
        "lftp",
        "client",
        "gnutls",
        "`https://`, and FTP with TLS on both connections",
        f"{_ANYWAY} `ssl:verify-certificate no` too. FTP says the reason on standard error only (`ssa run`)",
    ),
    Program(
        "mutt",
        "client",
        "gnutls",
        "IMAP and SMTP, by STARTTLS and at once",
        "it is not asked about a server that does not prove its name: that is refused. Certificates that it has stored "
        "(`certificate_file`) do not make a server acceptable",
    ),
    Program(
        "msmtp",
        "client",
        "gnutls",
        "STARTTLS, `tls_starttls off`, `tls_trust_file`",
        f"{_ANYWAY} `tls_certcheck off` too",
    ),
    Program(
        "gnutls-cli",
        "client",
        "gnutls",
        "`--priority`, `--alpn`, `--x509certfile`, `--tofu`",
        f"{_ANYWAY} `--insecure` too. No DTLS (`--udp`), no renegotiation, no early data",
    ),
    Program("lighttpd", "server", "openssl", "HTTP/1.1, HTTP/2, certificates by name", "no OCSP stapling"),
    Program(
        "nginx",
        "server",
        "openssl",
        "HTTP/1.1, HTTP/2, certificates by name, `ssl_verify_client`, its answer to plain HTTP",
        "no OCSP stapling, no session cache of its own",
    ),
    Program("redis-server", "server", "openssl", "`--tls-port`"),
    Program("socat", "server", "openssl", "`OPENSSL-LISTEN:`"),
    Program("PostgreSQL", "server", "openssl", "`ssl = on`"),
    Program("mosquitto", "server", "openssl", "`certfile`"),
    Program("mariadbd", "server", "openssl", "`--ssl-cert`"),
    Program(
        "gnutls-serv",
        "server",
        "gnutls",
        "`--x509certfile`, for several kinds of keys, `--require-client-cert`",
        "no DTLS (`--udp`), no `--sni-hostname`",
    ),
    Program("nc (netcat-openbsd)", "client", "sockets", "`-N`, `-v`, `-w`"),
    Program("nc (netcat-traditional)", "client", "sockets", "`-q`, `-v`"),
    Program("telnet", "client", "sockets", "what needs no urgent data", "urgent data (Synch) is refused: TLS has none"),
    Program("python3", "client", "sockets", "`socket`, `asyncio` (epoll)"),
    Program("nc (netcat-openbsd)", "server", "sockets", "`-l`"),
    Program("nc (netcat-traditional)", "server", "sockets", "`-l -p`"),
    Program("memcached", "server", "sockets", "its text protocol, several connections, threads"),
    Program("python3", "server", "sockets", "`-m http.server`, `asyncio` (epoll), servers that fork beforehand"),
    Program(
        "static Go programs",
        "client, server",
        "seccomp",
        "`net`, `net/http` without TLS; socket(2) with 205",
        "names that come by the DNS over TCP, TLS or HTTPS lead nowhere: `--name`",
    ),
    Program(
        "static programs (musl, glibc)",
        "client, server",
        "seccomp",
        "blocking, poll(2), epoll(7), threads, fork(2), exec(2)",
        "setuid programs run without that, as no_new_privs is implied",
    ),
)
