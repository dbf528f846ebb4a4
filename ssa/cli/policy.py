"""`ssa policy`: shows, changes, resets and saves the policy in force."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssa.cli import levels, output
from ssa.cli.failure import Failure, explain
from ssa.cli.filesystem import FileSystem
from ssa.cli.verb import Verb
from ssa.directories import make_directory
from ssa.intime import in_time
from ssa.policy.schema import SETTINGS, BadValue, Policy, Setting, setting_untrusted
from ssa.protocol import paths

if TYPE_CHECKING:
    import argparse

# --- showing ------------------------------------------------------------------------------------------------------


def describe(setting: Setting[Any], text: str) -> dict[str, Any]:
    """A setting and its value, for --json."""
    return {
        "name": setting.name,
        "value": _value(setting, text),
        "default": _value(setting, setting.default),
        "is_default": _is_default(setting, text),
        "stricter": setting.stricter,
        "doc": setting.doc,
    }


def _is_default(setting: Setting[Any], text: str) -> bool:
    return bool(setting.parse(text) == setting.parse(setting.default))


def _value(setting: Setting[Any], text: str) -> str | list[str]:
    return text.splitlines() if setting.many else text


def _entry(setting: Setting[Any], text: str) -> tuple[str, tuple[str, ...]]:
    default = "" if _is_default(setting, text) else "  (not the default)"
    value = (" ".join(text.splitlines()) or "(empty)") + default
    return setting.name, (value, f"{setting.doc} Stricter: {setting.stricter}.")


def _list(options: argparse.Namespace) -> int:
    texts = FileSystem().policy()
    known = [(setting, texts[setting.name]) for setting in SETTINGS.values() if setting.name in texts]
    if options.json:
        output.print_json([describe(setting, text) for setting, text in known])
    else:
        output.print_entries([_entry(setting, text) for setting, text in known])
    return 0


def _get(options: argparse.Namespace) -> int:
    asked = [setting_untrusted(name) for name in options.names]
    tree = FileSystem()
    read = [(setting, tree.read(f"policy/{setting.name}").removesuffix("\n")) for setting in asked]
    if options.json:
        found = [describe(setting, text) for setting, text in read]
        output.print_json(found if len(found) > 1 else found[0])
    elif len(asked) > 1:
        output.print_entries([_entry(setting, text) for setting, text in read])
    else:
        for line in read[0][1].splitlines():
            output.print_line(line)
    return 0


# --- changing -----------------------------------------------------------------------------------------------------


DEFAULT = "default"  # this value means the setting's default


def _set(options: argparse.Namespace) -> int:
    setting = setting_untrusted(options.name)
    text = setting.default if options.values == [DEFAULT] else "\n".join(options.values)
    _put(FileSystem(), setting, text)
    if not options.json:
        return 0
    options.names = [setting.name]
    return _get(options)


def _reset(options: argparse.Namespace) -> int:
    """Put the defaults back.

    A default may contradict another setting's present value (such as a max_version below the default min_version). So
    a default that is refused is tried again after the others.
    """
    named = [setting_untrusted(name) for name in options.names]
    tree = FileSystem()
    before = _known(tree)
    asked = named or [SETTINGS[name] for name in before]
    left = [it for it in asked if it.name not in before or not _is_default(it, before[it.name])]
    while left:
        refused = [(setting, failure) for setting in left if (failure := _failure(tree, setting, setting.default))]
        if len(refused) == len(left):
            raise refused[0][1]
        left = [setting for setting, _ in refused]
    after = _known(tree)
    changed = [name for name, text in after.items() if before.get(name) != text]
    if options.json:
        output.print_json([describe(SETTINGS[name], after[name]) for name in changed])
    elif changed:
        output.print_entries([_entry(SETTINGS[name], after[name]) for name in changed])
    else:
        output.print_line("nothing to change: the defaults are in force")
    return 0


def _failure(tree: FileSystem, setting: Setting[Any], text: str) -> Failure | None:
    try:
        _put(tree, setting, text)
    except Failure as failure:
        return failure
    return None


def _put(tree: FileSystem, setting: Setting[Any], text: str) -> None:
    try:
        tree.write(f"policy/{setting.name}", text)
    except OSError as failure:
        raise Failure(_refusal(tree, setting.name, text, failure)) from failure


def _refusal(tree: FileSystem, name: str, text: str, failure: OSError) -> str:
    """Say why the daemon refused a value. The file system gives an errno only, so the value is judged again here."""
    if failure.errno in (errno.EACCES, errno.EPERM):
        return f"{name}: only ssad's own user may change the policy: run this as root, or as the user of `ssad --user`"
    if failure.errno != errno.EINVAL:
        return f"{name}: {failure.strerror}"
    reason = _reason(tree, name, text)
    return f"{reason}{'' if reason.endswith('?') else '.'} The policy stays as it was"


def _reason(tree: FileSystem, name: str, text: str) -> str:
    try:
        changed = Policy.default().replace_many(_known(tree)).replace(name, text)
        if name == "trust_store":
            from ssa.trust import TrustStore  # late: it loads the cryptography

            in_time(lambda: TrustStore.load(changed.trust_store, paths.mounted()), _PATIENCE)
    except BadValue as bad:
        return str(bad)
    except (OSError, ValueError) as failure:
        return f"{name}: {explain(failure)}"
    return f"{name}: ssad refused the value: its log says why"


_PATIENCE = 5.0  # seconds to wait for a file system, as long as the daemon waits


def _known(tree: FileSystem) -> dict[str, str]:
    """The settings in force, without those of a newer daemon that this program does not know."""
    return {name: text for name, text in tree.policy().items() if name in SETTINGS}


def _use(options: argparse.Namespace) -> int:
    tree = FileSystem()
    return levels.use(options, lambda: _known(tree), lambda name, text: _put(tree, SETTINGS[name], text))


def _save(options: argparse.Namespace) -> int:
    from ssa.policy import files

    target = Path(paths.policy_file())
    policy = Policy.default().replace_many(_known(FileSystem()))
    try:
        make_directory(target.parent, 0o755)
        files.save(target, policy)
    except PermissionError as failure:
        raise Failure(f"{target}: {failure.strerror}: run this as root, or as the owner of the file") from failure
    if options.json:
        output.print_json({"file": str(target)})
    else:
        output.print_line(f"the policy in force is saved in {target}: ssad starts with it")
    return 0


# --- the verbs ----------------------------------------------------------------------------------------------------


_NAME_HELP = "a setting: " + ", ".join(SETTINGS)


def _one_or_more(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="+", metavar="NAME", help=_NAME_HELP)


def _any_number(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{_NAME_HELP}; none: all of them")


def _name_and_values(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=_NAME_HELP)
    parser.add_argument(
        "values",
        nargs="+",
        metavar="VALUE",
        help="the value; a list may be several arguments or one; '' is the empty list, `default` the default value",
    )


_SETTINGS_HELP = "settings:\n" + "".join(f"  {row.name:21} {row.doc}\n" for row in SETTINGS.values())

_LIST = Verb(
    name="list",
    summary="show all settings (`ssa policy` does the same)",
    description="""\
Shows the policy in force: for each setting its value, a mark if that is not the default, its meaning, and the stricter
direction.
""",
    examples="""\
ssa policy
ssa policy list --json | jq -r '.[] | select(.is_default | not) | .name'
""",
    run=_list,
)
_GET = Verb(
    name="get",
    summary="print the value of a setting, or of several",
    description="""\
Prints the value in force of one setting: one line, or for a list one line for each word. For several settings it prints
each with its name and its meaning.
""",
    notes=_SETTINGS_HELP,
    examples="""\
ssa policy get min_version
ssa policy get groups ciphersuites
""",
    run=_get,
    arguments=_one_or_more,
)
_SET = Verb(
    name="set",
    summary="change one setting, from the next handshake on",
    description="""\
Changes one setting of the policy in force, for the next handshake of every program. Open connections stay;
/ssa/sockets/*/compliant says which of them the new policy would not allow. A bad value is explained and changes
nothing. The change lasts until the daemon ends: `ssa policy save` keeps it for the next start.
""",
    notes=_SETTINGS_HELP,
    examples="""\
ssa policy set min_version TLSv1.3
ssa policy set groups X25519MLKEM768 x25519 secp256r1
ssa policy set alpn "h2 http/1.1"
ssa policy set alpn ''
ssa policy set groups default
""",
    run=_set,
    arguments=_name_and_values,
)
_RESET = Verb(
    name="reset",
    summary="put the default values back, of some settings or of all",
    description="""\
Puts the default values back, for the next handshake of every program, and prints the changes. The policy's file stays
as it is: `ssa policy save` writes it, and after SIGHUP ssad reads it again.
""",
    examples="""\
ssa policy reset groups
ssa policy reset
""",
    run=_reset,
    arguments=_any_number,
)
_SAVE = Verb(
    name="save",
    summary="keep the policy in force for the daemon's next start",
    description="""\
Writes the policy in force to the file that ssad starts with (SSA_CONFIG, else the file that the running ssad names).
The file is written whole or not at all, and keeps its comments, its owner and its mode.
""",
    examples="ssa policy set min_version TLSv1.3 && ssa policy save\n",
    run=_save,
)

_USE = Verb(
    name="use",
    summary="put a named set of values in force: a level",
    description="""\
Shows what a level changes of the policy in force, and puts it in force: all of it, or nothing. `ssa policy levels`
lists the levels with their sources. Settings that a level does not have stay as they are. A level of your own is a file
levels.d/NAME.toml beside the policy's file (SSA_CONFIG), with a table [policy] and, above it, source = "...".
""",
    examples="""\
ssa policy use modern --dry-run
ssa policy use pq && ssa policy save
""",
    run=_use,
    arguments=levels.arguments,
)
_LEVELS = Verb(
    name="levels",
    summary="list the levels, with their sources",
    description="""\
Lists the levels that `ssa policy use` takes: those of ssa, and those of levels.d beside the policy's file.
""",
    examples="""\
ssa policy levels
ssa policy levels --json | jq '.[] | select(.name == "pq").settings'
""",
    run=levels.show_all,
)

VERB = Verb(
    name="policy",
    summary="show, change, reset and save the policy",
    description="""\
The policy for the TLS connections of all programs of this machine. Without a verb, it is shown. An application can
only make it stricter, and only for itself.
""",
    examples="""\
ssa policy
ssa policy get min_version
ssa policy set min_version TLSv1.3
ssa policy use modern --dry-run
ssa policy save
""",
    run=_list,
    verbs=(_LIST, _GET, _SET, _RESET, _USE, _LEVELS, _SAVE),
)
