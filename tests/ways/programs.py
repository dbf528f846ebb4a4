"""The programs, and how each is told to fetch a page from a host without verifying it, or to serve one. Pure."""

from __future__ import annotations

import sys
from typing import NamedTuple

from tests.tables import ROOT

EXAMPLES = ROOT / "examples"
C = ROOT / "build" / "native" / "examples"
GO = ROOT / "build" / "examples-go"
HOST = "example.test"  # run.py puts it into /etc/hosts: some programs look localhost up by themselves
REQUEST = f"GET /hello HTTP/1.0\r\nHost: {HOST}\r\n\r\n"


class Way(NamedTuple):
    """A way to ssa: the words before a program's own.

    Attributes:
        title: the head of its column.
    """

    title: str
    words: tuple[str, ...]


_RUN = (sys.executable, "-m", "ssa.cli.main", "run")
WAYS = {
    "library": Way("its own library: libssa, `clients/`, `import ssa`", ()),
    "run": Way("`ssa run`", _RUN),
    "tls": Way("`ssa run --tls`, `--tls-listen`", (*_RUN, "--tls")),
    "listen": Way("`ssa run --tls`, `--tls-listen`", (*_RUN, "--tls-listen")),
    "seccomp": Way("`ssa run --seccomp`", (*_RUN, "--seccomp")),
    "seccomp-tls": Way("`ssa run --seccomp`", (*_RUN, "--seccomp", "--tls")),
    "seccomp-listen": Way("`ssa run --seccomp`", (*_RUN, "--seccomp", "--tls-listen")),
}


class Program(NamedTuple):
    """A program.

    Attributes:
        tls: the TLS that it has in it.
        words: its command, with {host}, {port}, {url}, {plain} (the URL without TLS), and for a server {cert},
            {key} and {directory}.
        given: its standard input.
        serves: it is a server.
    """

    name: str
    tls: str
    words: tuple[str, ...]
    given: str = ""
    serves: bool = False

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways that it is tried by."""
        if self.tls == "ssa":
            return ("library",)
        if self.tls == "none":
            return ("listen", "seccomp-listen") if self.serves else ("tls", "seccomp-tls")
        return ("run", "seccomp") if self.serves else ("run", "tls", "seccomp")

    def expected(self, way: str, path: str) -> str:
        """What is to come of it on a data path."""
        if way in ("seccomp-tls", "seccomp-listen") and path == "ktls":
            return "refused"  # a supervised program reads by itself, so its sockets are relayed ones
        if (self.name, way) in EXCEPTIONS:
            return EXCEPTIONS[self.name, way]
        if way in ("run", "tls", "listen") and "static" in self.name:
            return "refused"  # nothing can be preloaded
        if self.tls in ("none", "ssa"):
            return "works"
        return {"run": "works", "tls": "refused", "seccomp": "past"}[way]  # TLS in TLS; --seccomp leaves TLS alone


EXCEPTIONS = {
    ("python3: asyncio", "run"): "refused",  # memory BIOs
    ("openssl s_server", "run"): "refused",  # BIO_f_ssl
    ("node: https", "run"): "refused",  # it has OpenSSL built in
    (
        "nc (netcat-traditional)",
        "seccomp-tls",
    ): "refused",  # it selects low numbers; TLS has high ones
}
"""Outcomes that are otherwise than those of most programs, by the program and the way."""


_PYTHON = """
import ssl, sys, urllib.request
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
print(urllib.request.urlopen(sys.argv[1], timeout=20, context=context).read().decode())
"""
_ASYNCIO = """
import asyncio, ssl, sys
async def fetch(host, port):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    writer.write(b"GET /hello HTTP/1.0\\r\\n\\r\\n")
    print((await reader.read()).decode())
asyncio.run(fetch(sys.argv[1], int(sys.argv[2])))
"""
_PLAIN_PYTHON = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=20).read().decode())"
_PHP = """
$no = stream_context_create(["ssl" => ["verify_peer" => false, "verify_peer_name" => false]]);
echo file_get_contents($argv[1], false, $no) ?: exit(1);
"""
_NODE = """
require("https").get(process.argv[1], {rejectUnauthorized: false}, reply => reply.pipe(process.stdout))
  .on("error", error => { console.error(error.message); process.exit(1) })
"""
_OPENSSL, _GNUTLS = "OpenSSL", "GnuTLS"
_KEPT_OPEN = 'F=$(mktemp -u); mkfifo "$F"; exec 3<>"$F"; rm "$F"; cat >&3; exec "$@" <&3'

PROGRAMS = (
    Program("curl", _OPENSSL, ("curl", "-sSk", "-m", "20", "{url}")),
    Program("socat", _OPENSSL, ("socat", "-t", "20", "-", "OPENSSL:{host}:{port},verify=0"), REQUEST),
    Program("ncat", _OPENSSL, ("ncat", "--ssl", "{host}", "{port}"), REQUEST),
    Program("php", _OPENSSL, ("php", "-r", _PHP, "{url}")),
    Program("python3: urllib", _OPENSSL, ("/usr/bin/python3", "-c", _PYTHON, "{url}")),
    Program("python3: asyncio", _OPENSSL, ("/usr/bin/python3", "-c", _ASYNCIO, "{host}", "{port}")),
    Program("openssl s_client", _OPENSSL, ("openssl", "s_client", "-quiet", "-connect", "{host}:{port}"), REQUEST),
    Program("wget", _GNUTLS, ("wget", "-nv", "-O", "-", "--tries=1", "--no-check-certificate", "{url}")),
    Program("git", _GNUTLS, ("git", "-c", "http.sslVerify=false", "ls-remote", "https://{host}:{port}/hello.git")),
    Program("lftp", _GNUTLS, ("lftp", "-c", "set net:max-retries 1; set ssl:verify-certificate no; cat {url}")),
    Program(
        "gnutls-cli",
        _GNUTLS,
        ("sh", "-c", _KEPT_OPEN, "-", "gnutls-cli", "--logfile=/dev/null", "--insecure", "-p", "{port}", "{host}"),
        REQUEST,
    ),
    Program("a static Go program: crypto/tls", "its own", (str(GO / "tls"), "{host}", "{port}", "/hello")),
    Program("node: https", "its own", ("node", "-e", _NODE, "{url}")),
    Program("nc (netcat-openbsd)", "none", ("nc.openbsd", "{host}", "{port}"), REQUEST),
    Program("nc (netcat-traditional)", "none", ("nc.traditional", "{host}", "{port}"), REQUEST),
    Program("python3: urllib, http://", "none", ("/usr/bin/python3", "-c", _PLAIN_PYTHON, "{plain}")),
    Program("curl, http://", "none", ("curl", "-sS", "-m", "20", "{plain}")),
    Program("wget, http://", "none", ("wget", "-nv", "-O", "-", "--tries=1", "{plain}")),
    Program("a static program: busybox wget", "none", ("/bin/busybox", "wget", "-q", "-O", "-", "{plain}")),
    Program("a static Go program: net", "none", (str(GO / "plain"), "{host}", "{port}", "/hello")),
    Program("C: examples/http-client", "ssa", (str(C / "http-client" / "ssa"), "{host}", "{port}", "/hello")),
    Program(
        "Python: examples/http-client",
        "ssa",
        (sys.executable, str(EXAMPLES / "http-client" / "by_ssa.py"), "{host}", "{port}", "/hello"),
    ),
    Program("Go: examples/http-client", "ssa", (str(GO / "ssa"), "{host}", "{port}", "/hello")),
    Program(
        "PHP: examples/http-client",
        "ssa",
        ("php", str(EXAMPLES / "http-client" / "by_ssa.php"), "{host}", "{port}", "/hello"),
    ),
    Program("nginx", _OPENSSL, ("/usr/sbin/nginx", "-g", "user root;", "-c", "{directory}/nginx.conf"), serves=True),
    Program("lighttpd", _OPENSSL, ("/usr/sbin/lighttpd", "-D", "-f", "{directory}/lighttpd.conf"), serves=True),
    Program(
        "socat",
        _OPENSSL,
        (
            "socat",
            "OPENSSL-LISTEN:{port},reuseaddr,fork,cert={cert},key={key},verify=0",
            "SYSTEM:cat {directory}/reply",
        ),
        serves=True,
    ),
    Program(
        "openssl s_server",
        _OPENSSL,
        ("openssl", "s_server", "-quiet", "-WWW", "-accept", "{port}", "-cert", "{cert}", "-key", "{key}"),
        serves=True,
    ),
    Program("python3: http.server", "none", ("/usr/bin/python3", "-m", "http.server", "{port}"), serves=True),
    Program(
        "a static program: busybox httpd",
        "none",
        ("/bin/busybox", "httpd", "-f", "-p", "{port}", "-h", "{directory}"),
        serves=True,
    ),
    Program("C: examples/http-server", "ssa", (str(C / "http-server" / "ssa"), "{port}", "{directory}"), serves=True),
    Program("C: examples/event-server", "ssa", (str(C / "event-server" / "ssa"), "{port}", "6"), serves=True),
)
