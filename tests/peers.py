"""Real servers and a real ssad as context managers: Debian's programs, each on a port of its own."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import select
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

if TYPE_CHECKING:
    from collections.abc import Callable


class PKI:
    """A throw-away authority and what it has issued, as files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.authority = trustme.CA()
        self.ca = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.cert, self.key = self.issue("server", "localhost", "127.0.0.1", "::1", "example.test")

    def issue(self, name: str, *identities: str, key_type: str = "ECDSA", **options: object) -> tuple[Path, Path]:
        leaf = self.authority.issue_cert(*identities, key_type=trustme.KeyType[key_type], **options)
        return self.store(name, leaf)

    def store(self, name: str, leaf: trustme.LeafCert) -> tuple[Path, Path]:
        cert, key = self.directory / f"{name}.pem", self.directory / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
        leaf.private_key_pem.write_to_path(key)
        return cert, key

    def revocations(self, *revoked: Path) -> bytes:
        """The authority's list of revoked certificates, PEM: those in these files."""
        authority = x509.load_pem_x509_certificate(self.ca.read_bytes())
        key = serialization.load_pem_private_key(self.authority.private_key_pem.bytes(), None)
        now = dt.datetime.now(dt.UTC)
        made = x509.CertificateRevocationListBuilder().issuer_name(authority.subject)
        made = made.last_update(now - dt.timedelta(1)).next_update(now + dt.timedelta(1))
        for path in revoked:
            number = x509.load_pem_x509_certificate(path.read_bytes()).serial_number
            one = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now)
            made = made.add_revoked_certificate(one.build())
        return made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def as_user(uid: int, action: Callable[[], object], *, gid: int | None = None, groups: tuple[int, ...] = ()) -> str:
    """What an action comes to in a child process of that user: `repr` of its value, or of what it raises."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            group = uid if gid is None else gid
            os.setgroups(groups)
            os.setresgid(group, group, group)
            os.setresuid(uid, uid, uid)
            try:
                told = repr(action())
            except BaseException as exc:  # noqa: BLE001 - whatever it is, it is told
                told = f"{type(exc).__name__}: {exc}"
            os.write(writing, told.encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read().decode()
    os.waitpid(child, 0)
    return told


def settled(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether something comes to be."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]


def has_ipv6() -> bool:
    """Whether the loopback has IPv6."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


def listens(port: int) -> bool:
    """Whether some socket of this network namespace listens on the port: asked without a connection."""
    wanted = f":{port:04X} "
    return any(
        wanted in line and " 0A " in line
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()
    )


@contextlib.contextmanager
def program(*command: object, port: int | None, ready: Callable[[int], bool] = listens, seconds: float = 20, **options):
    """A program, from the moment its port is `ready` (within `seconds`), if it has one, until the end of the block."""
    process = subprocess.Popen([str(word) for word in command], start_new_session=True, **options)
    try:
        deadline = time.monotonic() + seconds
        while port is not None and not ready(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{command} does not serve port {port} (status {process.poll()})")
            time.sleep(0.01)
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@contextlib.contextmanager
def openssl(pki: PKI, *arguments: object, cert: tuple[Path, Path] | None = None, **options):
    """`openssl s_server`; yields (port, process)."""
    port = free_port()
    certificate, key = cert or (pki.cert, pki.key)
    command = ["openssl", "s_server", "-accept", port, "-cert", certificate, "-key", key]
    begin = "-----BEGIN CERTIFICATE-----"
    _, _, *others = Path(certificate).read_text().split(begin)
    if others:
        chain = Path(certificate).with_suffix(".chain")
        chain.write_text("".join(begin + other for other in others))
        command += ["-cert_chain", chain]
    options.setdefault("stdin", subprocess.PIPE)  # at the end of its input it hangs up
    options.setdefault("stdout", subprocess.DEVNULL)
    options.setdefault("stderr", subprocess.DEVNULL)
    with program(*command, *arguments, port=port, **options) as process:
        yield port, process


@contextlib.contextmanager
def gnutls(pki: PKI, priority: str = "NORMAL", *arguments: object, cert: tuple[Path, Path] | None = None):
    """`gnutls-serv --echo`; yields its port."""
    port = free_port()
    certificate, key = cert or (pki.cert, pki.key)
    command = ("gnutls-serv", "--echo", "--quiet", "-p", port, "--priority", priority)
    files = ("--x509certfile", certificate, "--x509keyfile", key)
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with program(*command, *files, *arguments, port=port, **quiet):
        yield port


NGINX = """
daemon off; master_process off; pid {directory}/nginx.pid; error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
  server {{
    listen 127.0.0.1:{port} ssl; {also}
    ssl_certificate {cert}; ssl_certificate_key {key};
    {extra}
    location / {{ root {directory}; }}
    location /hello {{ return 200 "hello from nginx\\n"; }}
  }}
}}
"""

LIGHTTPD = """
server.document-root = "{directory}"
server.port = {port}
server.bind = "{address}"
server.modules = ("mod_openssl")
ssl.engine = "enable"
ssl.pemfile = "{cert}"
ssl.privkey = "{key}"
{extra}
"""


@contextlib.contextmanager
def nginx(pki: PKI, directory: Path, extra: str = ""):
    """nginx serving a directory; yields its port, which `extra` can name as PORT."""
    port = free_port()
    directory.mkdir(parents=True, exist_ok=True)
    configuration = directory / "nginx.conf"
    also = f"listen [::1]:{port} ssl;" if has_ipv6() else ""
    configuration.write_text(
        NGINX.format(
            directory=directory,
            port=port,
            also=also,
            cert=pki.cert,
            key=pki.key,
            extra=extra.replace("PORT", str(port)),
        )
    )
    command = (shutil.which("nginx") or "/usr/sbin/nginx", "-e", directory / "error.log", "-c", configuration)
    with program(*command, "-g", "user root;" if os.geteuid() == 0 else "", port=port):
        yield port


# The Python that ssad runs with. Tests of programs can run on another, which has no pyfuse3.
DAEMONS_PYTHON = os.environ.get("SSA_DAEMONS_PYTHON", sys.executable)


class Daemon:
    """An ssad of our own: its run directory, its mount, its policy."""

    def __init__(
        self, directory: Path, *, arguments: tuple[str, ...] = (), policy: str = "", descriptors: int | None = None
    ) -> None:
        """`descriptors` are those that the process may have (ulimit -n)."""
        self.run_dir = directory / "run"
        self.mount = directory / "ssa"
        self.config = directory / "policy.toml"
        self.log_file = directory / "ssad.log"
        self._arguments = arguments
        self._limits = () if descriptors is None else ("prlimit", f"--nofile={descriptors}")
        self.environment = {
            "SSA_RUN_DIR": str(self.run_dir),
            "SSA_MOUNT": str(self.mount),
            "SSA_CONFIG": str(self.config),
        }
        self.config.write_text(policy)

    def start(self) -> Daemon:
        ready, told = os.pipe()
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._limits, DAEMONS_PYTHON, "-m", "ssa.daemon.main", "--ready-fd", str(told), *self._arguments],
                env=os.environ | self.environment,
                pass_fds=[told],
                stderr=log,
            )
        os.close(told)
        try:
            if not select.select([ready], [], [], 30)[0] or os.read(ready, 16) != b"ready\n":
                self.stop()
                raise RuntimeError(f"ssad did not get ready: {self.log}")
        finally:
            os.close(ready)
        return self

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        """Kill all its processes at once."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self._kill_left()

    def _kill_left(self) -> None:
        """Kill the workers that an ssad has left to the next one."""
        for door in (self.run_dir / "workers").glob("*.*.*"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(door.name.split(".")[1]), signal.SIGKILL)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._kill_left()
        if os.path.ismount(self.mount) or not os.access(self.mount, os.F_OK):  # it was killed, and could not unmount
            subprocess.run(["fusermount3", "-u", "-z", self.mount], check=False, capture_output=True)

    @property
    def log(self) -> str:
        """What it has logged, when that has come to rest: a thread of its own writes it."""
        before, text = None, self.log_file.read_text()
        while text != before:
            time.sleep(0.03)
            before, text = text, self.log_file.read_text()
        return text

    def set(self, name: str, text: str) -> None:
        with (self.mount / "policy" / name).open("w") as file:
            file.write(text + "\n")

    def get(self, path: str) -> str:
        return (self.mount / path).read_text()

    def sockets(self) -> list[str]:
        return sorted(os.listdir(self.mount / "sockets"), key=int)

    def processes(self) -> list[int]:
        """The process that was started, and those that it has started."""
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                parents.setdefault(int(entry.read_text().rpartition(")")[2].split()[1]), []).append(int(entry.parts[2]))
        found = [self.process.pid]
        for pid in found:
            found += sorted(parents.get(pid, []))
        return found

    @contextlib.contextmanager
    def stopped(self):
        """All its processes are stopped while the block runs."""
        pids = self.processes()
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            assert settled(lambda: all(map(_has_stopped, pids)))
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    def workers(self) -> list[int]:
        """The processes that serve users."""
        return self.processes()[2:]

    def open_files(self) -> int:
        """How many descriptors its processes have."""
        count = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                count += len(os.listdir(f"/proc/{pid}/fd"))
        return count

    def memory(self) -> int:
        """Bytes of memory that its processes have. What they share counts for each."""
        pages = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def shared_memory(self) -> int:
        """Bytes of memory that its processes have. What they share counts once (proc(5), Pss)."""
        kilobytes = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                kilobytes += sum(int(row.split()[1]) for row in rows if row.startswith("Pss:"))
        return kilobytes * 1024

    def cpu(self) -> float:
        """Seconds of processor time that its processes have taken."""
        ticks = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def descriptors(self) -> int:
        """How many it has when it has come to rest: it closes an application's connection after the application has."""
        counts: list[int] = []
        while len(counts) < 3 or len(set(counts[-3:])) > 1:
            time.sleep(0.05)
            counts.append(self.open_files())
        return counts[-1]


def _has_stopped(pid: int) -> bool:
    states = (path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat"))
    return set(states) == {"T"}


@contextlib.contextmanager
def script(serve, count: int | None = None):
    """A TCP server whose every connection is handed to `serve(connection)` in a thread; yields its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    connections = []

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=run, args=(connection,), daemon=True).start()

    def run(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def python_server(
    pki: PKI, serve: Callable[[ssl.SSLSocket, socket.socket], None], version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
):
    """Python's own `ssl`, which tells a close_notify from a bare end; yields its port. `serve(tls, tcp)`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.cert, pki.key)
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # Python's default
    context.minimum_version = context.maximum_version = version

    def wrap(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True, suppress_ragged_eofs=False) as tls:
            serve(tls, connection)

    with script(wrap) as port:
        yield port
