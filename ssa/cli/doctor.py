"""`ssa doctor`: say what this machine has, what it lacks, and what to do about it.

Each check of `CHECKS` looks at one thing, needs neither root nor a daemon, and gives its findings as values.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ssa._version import __version__
from ssa.cli import output
from ssa.cli.failure import Failure, explain
from ssa.cli.filesystem import FileSystem
from ssa.cli.output import Column
from ssa.cli.verb import Verb
from ssa.intime import TooSlow, in_time
from ssa.policy import files
from ssa.policy.schema import SETTINGS, Policy
from ssa.protocol import paths

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator

OK, NOTE, LACKS = "ok", "note", "lacks"
_PATIENCE = 3.0  # seconds; a daemon that has not answered by then is stuck


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check.

    Attributes:
        status: ``ok``; ``note`` if ssa works without it; ``lacks`` if it is essential.
        advice: what to do about it, one line.
    """

    check: str
    status: str
    detail: str
    advice: str = ""


# --- the sandbox of workers ---------------------------------------------------------------------------------------


def _sandbox() -> Iterator[Finding]:
    from ssa.worker import sandbox

    advice = "it works without, and a worker that a stranger has taken over could do more (docs/processes.md)"
    for lack in (missing := sandbox.missing()):
        yield Finding("sandbox", NOTE, lack, advice)
    if not missing:
        yield Finding("sandbox", OK, "workers have ids of their own, Landlock, and a filter of system calls")


# --- software -----------------------------------------------------------------------------------------------------


def _versions() -> Iterator[Finding]:
    yield Finding("ssa", OK, f"{__version__} on Python {platform.python_version()} ({sys.executable})")
    try:
        import OpenSSL
        from OpenSSL import SSL
    except ImportError as failure:
        yield Finding("openssl", LACKS, f"pyOpenSSL cannot be loaded: {failure}", "install it: pip install pyOpenSSL")
    else:
        library = SSL.SSLeay_version(SSL.SSLEAY_VERSION).decode()
        yield Finding("openssl", OK, f"{library}, by pyOpenSSL {OpenSSL.__version__}")


# --- kernel TLS ---------------------------------------------------------------------------------------------------


_CIPHERS = "a kernel that has them all has CONFIG_CRYPTO_GCM, CONFIG_CRYPTO_CCM and CONFIG_CRYPTO_CHACHA20POLY1305"


def _kernel() -> Iterator[Finding]:
    from ssa.ktls.probe import probe  # late: it loads the cryptography
    from ssa.suites import AEADS, TLSVersion

    found = probe()
    release = f"Linux {platform.release()}"
    if not found.tls:
        detail = f"{release} has no TLS: {found.reason}; the daemon relays, unless the policy's data_path forbids it"
        yield Finding("kernel tls", NOTE, detail, _without_kernel_tls())
        return
    yield Finding("kernel tls", OK, f"{release}, {_module()}")
    for version in TLSVersion:
        offered = [aead.name for aead in AEADS.values() if (version, aead.kernel) in found.algorithms]
        missing = [aead.name for aead in AEADS.values() if aead.name not in offered]
        detail = ", ".join(offered) + (f"; not {', '.join(missing)}" if missing else "")
        yield Finding(version.label, NOTE if missing else OK, detail or "none", _CIPHERS if missing else "")
    if found.rekey:
        yield Finding("rekey", OK, "keys can be changed in a connection (KeyUpdate)")
    else:
        advice = "Linux 6.14 or later can; without it a peer that sends a KeyUpdate ends the connection"
        yield Finding("rekey", NOTE, "this kernel cannot change the keys of a connection (KeyUpdate)", advice)


def _module() -> str:
    """Say where the kernel has its TLS from: built in, or a module."""
    if _on_disk("modules.builtin"):
        return "built in"
    return "module tls loaded" if Path("/sys/module/tls").exists() else "built in or loaded"


def _on_disk(index: str) -> bool:
    """True if an index of the running kernel's modules names the one for TLS."""
    try:
        return "/net/tls/tls.ko" in Path("/lib/modules", platform.release(), index).read_text()
    except OSError:
        return False


def _without_kernel_tls() -> str:
    if _on_disk("modules.dep"):
        return "load the module: `modprobe tls` as root, and for every start: echo tls > /etc/modules-load.d/tls.conf"
    advice = "boot a kernel with CONFIG_TLS, as distributions' kernels are"
    if shutil.which("linux.uml"):
        return f"{advice}; to try it here: `tools/kernel-run COMMAND` of the sources runs one in user mode"
    return f"{advice}; to try it here: install user-mode-linux, then `tools/kernel-run COMMAND` of the sources"


# --- the file system ----------------------------------------------------------------------------------------------


def _fuse() -> Iterator[Finding]:
    device = Path("/dev/fuse")
    if not device.exists():
        yield Finding(
            "fuse",
            LACKS,
            f"there is no {device}",
            "load the module: `modprobe fuse` as root; in a container: give it the device",
        )
    elif not os.access(device, os.R_OK | os.W_OK):
        yield Finding("fuse", LACKS, f"{device} may not be opened", "`chmod 666 /dev/fuse` as root, as udev does it")
    else:
        yield Finding("fuse", OK, str(device))
    helper = shutil.which("fusermount3")
    if helper:
        yield Finding("fusermount3", OK, helper)
    else:
        yield Finding("fusermount3", NOTE, "not found: `ssad --user` cannot mount without it", "apt-get install fuse3")


# --- the daemon ---------------------------------------------------------------------------------------------------


def _daemon() -> Iterator[Finding]:
    from ssa.library.connection import DaemonConnection

    path = Path(paths.socket_path())
    try:
        DaemonConnection().__exit__(None, None, None)
    except ConnectionRefusedError:
        advice = 'start it: `ssad` as root; without root: `ssad --user`, then eval "$(ssa env)"'
        yield Finding("daemon", LACKS, f"none listens at {path}", advice)
    except OSError as failure:
        yield Finding(
            "daemon",
            LACKS,
            f"{path}: {failure.strerror}",
            "it may be another user's daemon: set SSA_RUN_DIR to the run directory of yours",
        )
    else:
        yield Finding("daemon", OK, f"listens at {path}")


def _mount() -> Iterator[Finding]:
    stuck = f"the daemon does not answer at {paths.mounted()}"
    yield from _asked(_mounted, Finding("file system", LACKS, stuck, "it is stuck: see its log, start it again"))


def _mounted() -> Iterator[Finding]:
    try:
        tree = FileSystem()
    except Failure as failure:
        detail, _, advice = str(failure).partition(": ")
        yield Finding("file system", LACKS, detail, advice)
        return
    if tree.version != __version__:
        detail = f"{tree.root} is of ssad {tree.version}, this is {__version__}"
        yield Finding("file system", NOTE, detail, "start ssad again")
    else:
        yield Finding("file system", OK, f"{tree.root}, TLS sockets: {tree.count()}")


# These have no finding without a daemon: `_daemon` and `_mount` have reported that.


def _data_path() -> Iterator[Finding]:
    yield from _asked(_path_in_force)


def _path_in_force() -> Iterator[Finding]:
    """Compare the data path of the policy in force with what the kernel can do."""
    with contextlib.suppress(Failure, OSError):
        tree = FileSystem()
        wanted, has = (tree.read(name).strip() for name in ("policy/data_path", "kernel/tls"))
        if wanted != "ktls" or has == "yes":
            yield Finding("data path", OK, wanted)
        else:
            detail = f"the policy in force says ktls, and this kernel has none ({has}): every connection is refused"
            advice = "`ssa policy set data_path ktls-or-relay`, or boot a kernel with TLS"
            yield Finding("data path", LACKS, detail, advice)


def _policy() -> Iterator[Finding]:
    yield from _asked(_policy_in_force)


def _policy_in_force() -> Iterator[Finding]:
    """Say which file the policy in force is from, and what has been changed since."""
    try:
        texts = FileSystem().policy()
    except (Failure, OSError):
        return
    path = paths.told(paths.run_dir(), paths.CONFIG_LINK) or paths.policy_file()
    try:
        read, source = files.find(path)
    except (OSError, ValueError) as failure:
        detail = f"the one in force is from an earlier state of its file: {explain(failure)}"
        yield Finding("policy", NOTE, detail, "correct the file: ssad does not start with it as it is")
        return
    detail = f"from {source}" if source else f"the defaults, as {path} is not there"
    changed = [name for name, text in texts.items() if name in SETTINGS and text != read.text(name)]
    if changed:
        advice = "`ssa policy save` keeps what is in force for the next start; SIGHUP to ssad goes back to the file"
        yield Finding("policy", NOTE, f"{detail}; changed since: {', '.join(sorted(changed))}", advice)
    else:
        yield Finding("policy", OK, detail)


def _credentials() -> Iterator[Finding]:
    yield from _asked(_credentials_in_force)


def _credentials_in_force() -> Iterator[Finding]:
    """Say who may serve with each credential, and what is wrong with it."""
    try:
        tree = FileSystem()
        names = os.listdir(tree.root / "credentials")
    except (Failure, OSError):
        return
    for name in names:
        with contextlib.suppress(OSError):  # it may have been removed meanwhile
            status = tree.read(f"credentials/{name}/status").strip()
            yield _of_credential(name, status, tree.read(f"credentials/{name}/users").splitlines())


def _of_credential(name: str, status: str, users: list[str]) -> Finding:
    from ssa.credentials.users import Users  # late: it loads the cryptography

    unknown = Users(tuple(users)).unknown()
    notes = [advice for begins, advice in _STATUS_ADVICE if begins.search(status)][:1]
    if unknown:
        notes.append(f"correct its users: this machine knows no {', '.join(unknown)}")
    elif "*" in users:
        notes.append(
            f"every user of this machine can prove its names: name those who serve in credentials/{name}/users"
        )
    detail = f"{name}: {status}; may be served with by {'everybody' if '*' in users else ', '.join(users)}"
    return Finding("credential", NOTE if notes else OK, detail, "; ".join(notes))


# Advice for a status; the first row that fits counts.
_STATUS_ADVICE = (
    (re.compile(r"expire[sd] on"), "renew it"),
    (re.compile(r"waits for"), "write the file that it waits for"),
    (re.compile(r"^(?!in service until [^ ;]+$)"), "correct its files"),
)


def _asked(check: Callable[[], Iterable[Finding]], *late: Finding) -> Iterable[Finding]:
    """The findings of a check, or `late` if it takes too long: a file system whose daemon is stuck never answers."""
    try:
        return in_time(lambda: [*check()], _PATIENCE)
    except TooSlow:
        return late


# --- policy and trust ---------------------------------------------------------------------------------------------


def _config() -> Iterator[Finding]:
    path = Path(paths.policy_file())
    advice = "correct the file, ssad does not start with it: its keys are those of `ssa policy get --help`"
    try:
        policy = files.load(path, required=paths.is_config_named())
    except FileNotFoundError as failure:
        policy = Policy.default()
        yield Finding("policy file", LACKS, explain(failure), "make the file (it may be empty), or unset SSA_CONFIG")
    except (OSError, ValueError) as failure:
        policy = Policy.default()
        yield _unreadable("policy file", failure, advice)
    else:
        yield Finding("policy file", OK, f"{path}" if path.exists() else f"{path} is not there: the defaults hold")
    stuck = Finding(
        "trust store",
        LACKS,
        f"{policy.trust_store} does not answer",
        "see whether it is on a network file system that is down",
    )
    yield from _asked(lambda: _trust(policy.trust_store), stuck)


_NAMED = 8  # trust anchors that are named, of those that could not be used


def _trust(source: str) -> Iterator[Finding]:
    from ssa.trust import TrustStore

    try:
        store = TrustStore.load(source, paths.mounted())
    except (OSError, ValueError) as failure:
        system = source == "system"
        advice = "apt-get install ca-certificates" if system else "correct trust_store in the policy's file"
        yield _unreadable("trust store", failure, advice)
        return
    named = "; ".join(store.skipped[:_NAMED])
    skipped = f"; {len(store.skipped)} could not be used: {named}" if store.skipped else ""
    yield Finding("trust store", NOTE if skipped else OK, f"{store.source}, trust anchors: {len(store)}{skipped}")


def _unreadable(check: str, failure: Exception, advice: str) -> Finding:
    """The finding for a file that cannot be used. Without root, one that we may not read may be fine for the daemon."""
    if isinstance(failure, PermissionError) and os.geteuid() != 0:
        return Finding(check, NOTE, explain(failure), "run `ssa doctor` as the user that ssad runs as")
    return Finding(check, LACKS, explain(failure), advice)


# --- all of it ----------------------------------------------------------------------------------------------------

CHECKS: tuple[Callable[[], Iterable[Finding]], ...] = (
    _versions,
    _kernel,
    _fuse,
    _sandbox,
    _config,
    _daemon,
    _mount,
    _policy,
    _data_path,
    _credentials,
)


def examine() -> list[Finding]:
    """All findings. A check that raises is a finding, too."""
    return [finding for check in CHECKS for finding in _carefully(check)]


def _carefully(check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as failure:  # noqa: BLE001 - the other checks go on
        detail = f"could not be checked: {explain(failure)}"
        yield Finding(check.__name__.strip("_"), LACKS, detail, "report this as a bug of ssa, with the detail")


def _run(options: argparse.Namespace) -> int:
    findings = examine()
    lacking = [finding for finding in findings if finding.status == LACKS]
    if options.json:
        output.print_json({"ok": not lacking, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings, len(lacking))
    return 1 if lacking else 0


_COLUMNS = (Column("CHECK"), Column("STATUS"), Column("FINDING", prose=True))


def _print(findings: Iterable[Finding], lacking: int) -> None:
    output.print_table(_COLUMNS, [(f.check, f.status, _told(f)) for f in findings])
    output.print_line("")
    output.print_line(
        f"{lacking} essential {'things are' if lacking > 1 else 'thing is'} lacking" if lacking else "all is well"
    )


def _told(finding: Finding) -> str:
    return f"{finding.detail}\n-> {finding.advice}" if finding.advice else finding.detail


VERB = Verb(
    name="doctor",
    summary="say what this machine has and lacks, and what to do about it",
    description="""\
Looks at all that ssa needs of this machine: the kernel's TLS with each version and cipher, FUSE, the policy's
file, the trust store, the daemon and its file system. For each lack it says what to do. It needs neither root
nor a daemon. Status 1 if something essential is lacking.
""",
    examples="""\
ssa doctor
ssa doctor --json | jq -r '.findings[] | select(.status == "lacks") | .advice'
""",
    run=_run,
)
