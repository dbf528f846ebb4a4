"""The policy's file: ``/etc/ssa/policy.toml``, a table ``[policy]`` with one key for each setting.

    [policy]
    min_version = "TLSv1.3"
    alpn = ["h2", "http/1.1"]   # a list, or one string with separators
    min_rsa_bits = 3072
    handshake_timeout = 7.5

A missing file means the default policy, unless somebody named the file. One unknown key or one bad value refuses the
whole file: half a policy is not what its administrator wrote.

The files ``policy.d/*.toml`` beside it are drop-ins of the same form, in the order of their names: a setting in a later
file counts in place of an earlier one's. A list is replaced, not added to.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from ssa.files import Trail, read_regular
from ssa.policy.levels import Level
from ssa.policy.schema import SETTINGS, BadValue, Policy

_TABLE = "policy"
DROP_INS = "policy.d"  # the directory beside the file
_SOURCE = "source"  # of a level
_MAX_FILE = 1 << 20  # bytes
_NOT_THERE = "there is no such file; --config or SSA_CONFIG names it, and an empty file would be the default policy"
_NUMBER = re.compile(r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_HEADER = "The TLS policy of this machine, as ssad starts with it. The one in force is /ssa/policy."


def load(path: str | os.PathLike[str], *, required: bool = False) -> Policy:
    """The policy in a file, or the default policy if there is no file. Raises `BadValue` or OSError; see `find`."""
    return find(path, required=required)[0]


def find(path: str | os.PathLike[str], *, required: bool = False) -> tuple[Policy, str]:
    """The policy in a file and its drop-ins, and the names of those files. If there is none: the default policy.

    Args:
        path: the file.
        required: the file has to be there, because somebody named it.

    Raises:
        BadValue: a file is refused. The message names the file, the key and the reason.
        OSError: a file could not be read.
    """
    policy, source = _find(path, required=required)
    sources = [source] if source else []
    for name, texts in drop_ins(path):
        policy = _policy_untrusted(texts, name, policy)
        sources.append(name)
    return policy, ", ".join(sources)


def drop_ins(path: str | os.PathLike[str]) -> list[tuple[str, dict[str, str]]]:
    """The drop-ins of a policy's file, in order: the name of each, and its texts. Raises as `find` does."""
    directory = Path(path).parent / DROP_INS
    try:
        found = sorted(file for file in directory.iterdir() if file.suffix == ".toml" and file.name[0] != ".")
    except FileNotFoundError:
        if broken := _dangling(directory):
            raise FileNotFoundError(errno.ENOENT, f"{broken} is a link whose target does not exist") from None
        return []
    return [(str(file), _texts_untrusted(_read(str(file)), str(file))) for file in found]


def _find(path: str | os.PathLike[str], *, required: bool) -> tuple[Policy, str]:
    name = os.fspath(path)
    try:
        data = _read(name)
    except FileNotFoundError:
        if broken := _dangling(Path(name)):
            raise FileNotFoundError(errno.ENOENT, f"{broken} is a link whose target does not exist", name) from None
        if required:
            raise FileNotFoundError(errno.ENOENT, _NOT_THERE, name) from None
        return Policy.default(), ""
    return _policy_untrusted(_texts_untrusted(data, name), name), name


def load_level(path: str | os.PathLike[str]) -> Level:
    """A level of the administrator's own: a file with a table ``[policy]``, and a text `source` that may be left out.

    Raises:
        BadValue: the file is refused. The message names the file, the key and the reason.
        OSError: the file could not be read.
    """
    name = os.fspath(path)
    document = _document_untrusted(_read(name), name)
    source = document.pop(_SOURCE, name)
    if not isinstance(source, str):
        raise BadValue(f"{name}: {_SOURCE}: expected a string")
    texts = _table_untrusted(document, name)
    _policy_untrusted(texts, name)
    return Level(Path(name).stem, source, texts)


def save(path: str | os.PathLike[str], policy: Policy) -> None:
    """Write a policy to its file. The file is replaced whole or not at all; its comments and its layout stay.

    A setting is written if the file has it already, or if its value is not the default.

    Raises:
        BadValue: the present content of the file is refused, or a drop-in has another value, which would count at the
            next start. The file stays as it was.
        OSError: the file could not be written. It stays as it was.
    """
    target = Path(os.path.realpath(path))
    before = _read(str(target)) if target.exists() else b""
    written = _texts_untrusted(before, os.fspath(path))
    _policy_untrusted(written, os.fspath(path))
    dropped = _dropped(path, policy)
    changes = {name: policy.text(name) for name in SETTINGS if name not in dropped and _differs(name, written, policy)}
    _replace(target, _changed(before, written, changes, os.fspath(path)))


def _dropped(path: str | os.PathLike[str], policy: Policy) -> set[str]:
    """The settings that drop-ins have. Raises `BadValue` where one of them would undo the policy."""
    last = {name: (file, text) for file, texts in drop_ins(path) for name, text in texts.items()}
    for name, (file, text) in last.items():
        if _policy_untrusted({name: text}, file, policy) != policy:
            raise BadValue(
                f"{path}: {file} has another value of {name}, which would count at the next start: change it there, "
                f"or take {name} out of it. The file stays as it was"
            )
    return set(last)


def _changed(before: bytes, written: dict[str, str], changes: dict[str, str], path: str) -> bytes:
    """The file's new content. Raises `BadValue` if none can be made that means this policy.

    The TOML library writes some layouts wrongly. So its output is read again. If it means another policy, the table is
    written anew in the ordinary layout.
    """
    for edit in (_update, _rewrite):
        data = edit(before, written, changes)
        if _says(data, written | changes):
            return data
    raise BadValue(
        f"{path}: its layout cannot be changed safely, so the file stays as it was: write the settings below a line "
        "[policy], one a line, and try again"
    )


def _says(data: bytes, wanted: dict[str, str]) -> bool:
    try:
        return _texts_untrusted(data, "") == wanted and _policy_untrusted(wanted, "") is not None
    except BadValue:
        return False


# --- reading -----------------------------------------------------------------------------------------------------


def _read(path: str) -> bytes:
    """A regular file's content. Raises OSError, `BadValue`."""
    try:
        return read_regular(path, Trail(), _MAX_FILE)[0]
    except OSError as failure:
        raise OSError(failure.errno, failure.strerror, path) from None
    except ValueError as bad:
        raise BadValue(str(bad)) from None


def _dangling(path: Path) -> Path | None:
    """The symbolic link on the way to a file whose target does not exist, if there is one."""
    return next((step for step in (path, *path.parents) if step.is_symlink() and not step.exists()), None)


def _policy_untrusted(texts: dict[str, str], path: str, base: Policy | None = None) -> Policy:
    try:
        return (base or Policy.default()).replace_many(texts)
    except BadValue as bad:
        raise BadValue(f"{path}: {bad}") from None


def _texts_untrusted(data: bytes, path: str) -> dict[str, str]:
    """The text of each setting in the file."""
    return _table_untrusted(_document_untrusted(data, path), path)


def _document_untrusted(data: bytes, path: str) -> dict[str, Any]:
    try:
        # A decimal number stays as it is written.
        return tomllib.loads(data.decode(), parse_float=str)
    except (ValueError, RecursionError) as bad:
        raise BadValue(f"{path}: not TOML: {bad}") from None


def _table_untrusted(document: dict[str, Any], path: str) -> dict[str, str]:
    strangers = document.keys() - {_TABLE}
    if strangers:
        raise BadValue(f"{path}: {min(strangers)!a} does not belong here, expected a table [{_TABLE}]")
    table = document.get(_TABLE, {})
    if not isinstance(table, dict):
        raise BadValue(f"{path}: {_TABLE} is not a table")
    return {name: _text_untrusted(value, f"{path}: {name}") for name, value in table.items()}


def _text_untrusted(value: Any, where: str) -> str:
    """The text of one TOML value: a string, a number, or an array of strings."""
    if isinstance(value, list):
        if not all(isinstance(word, str) for word in value):
            raise BadValue(f"{where}: expected an array of strings only")
        return "\n".join(value)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise BadValue(f"{where}: expected a string, a number or an array of strings")
    if isinstance(value, int) and abs(value) > 2**63:
        raise BadValue(f"{where}: the number is out of range")
    return str(value)


# --- writing -----------------------------------------------------------------------------------------------------


def _update(before: bytes, _written: dict[str, str], changes: dict[str, str]) -> bytes:
    """Change the settings in the file that differ from the policy, and nothing else."""
    import tomlkit  # late: only saving needs it, and it is slow to load

    document = tomlkit.parse(before or f"# {_HEADER}\n")
    if changes and _TABLE not in document:
        document.add(_TABLE, tomlkit.table())
    for name, text in changes.items():
        document[_TABLE][name] = _toml(name, text)
    return tomlkit.dumps(document).encode()


def _rewrite(before: bytes, written: dict[str, str], changes: dict[str, str]) -> bytes:
    """Write the table anew, below the comment lines of the file."""
    import tomlkit

    document = tomlkit.document()
    for line in before.decode().splitlines():
        if line.lstrip().startswith("#"):
            document.add(tomlkit.comment(line.lstrip().removeprefix("#").lstrip()))
    table = tomlkit.table()
    for name, text in (written | changes).items():
        table.add(name, _toml(name, text))
    document.add(_TABLE, table)
    return tomlkit.dumps(document).encode()


def _differs(name: str, written: dict[str, str], policy: Policy) -> bool:
    before = written.get(name, SETTINGS[name].default)
    return SETTINGS[name].text_untrusted(before) != policy.text(name)


def _toml(name: str, text: str) -> Any:
    """A setting's text as a TOML value: an array for a list, a number as it was written, else a string."""
    import tomlkit

    if SETTINGS[name].many:
        return text.split("\n") if text else []
    return tomlkit.value(text) if _NUMBER.fullmatch(text) else text


def _replace(target: Path, data: bytes) -> None:
    """Replace a file's content by rename(2), so that a crash leaves the old content or the new, never half of it.

    The owner, the mode and the extended attributes (access lists) stay. Raises OSError, which names the target.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                _copy_owner(file.fileno(), target)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, target)  # noqa: PTH104 - the message is made below
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_directory(target.parent)
    except OSError as exc:
        words = _CANNOT_REPLACE.get(exc.errno or 0, exc.strerror)
        raise OSError(exc.errno, words, str(target)) from exc


_CANNOT_REPLACE = {
    errno.EBUSY: "it is a mount point of its own (a bind mount) and cannot be replaced, so it stays as it was: "
    "mount its directory instead",
    errno.EROFS: "it is on a read-only file system, so it stays as it was",
}


def _copy_owner(descriptor: int, target: Path) -> None:
    """Give a file that will take the target's place the target's owner, mode and extended attributes."""
    try:
        old = target.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    created = os.fstat(descriptor)
    if (created.st_uid, created.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
    for name in os.listxattr(target):
        os.setxattr(descriptor, name, os.getxattr(target, name))


def sync_directory(path: Path) -> None:
    """Wait until the names in a directory are on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
