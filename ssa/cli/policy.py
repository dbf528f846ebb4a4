"""`ssa policy`: the policy in force, changed and saved."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssa import paths
from ssa.cli import output
from ssa.cli.failure import Failure, explain
from ssa.cli.filesystem import FileSystem
from ssa.cli.output import Column
from ssa.cli.verb import Verb
from ssa.policy.schema import SETTINGS, BadValue, Policy, Setting, setting_untrusted

if TYPE_CHECKING:
    import argparse

# --- showing ------------------------------------------------------------------------------------------------------


def describe(setting: Setting[Any], text: str) -> dict[str, Any]:
    """A setting and its value, as --json prints them."""
    return {
        "name": setting.name,
        "value": _value(setting, text),
        "default": _value(setting, setting.default),
        "is_default": setting.parse(text) == setting.parse(setting.default),
        "stricter": setting.stricter,
        "doc": setting.doc,
    }


def _value(setting: Setting[Any], text: str) -> str | list[str]:
    return text.splitlines() if setting.many else text


_COLUMNS = (
    Column("SETTING"),
    Column("VALUE", prose=True),
    Column("DEFAULT"),
    Column("MEANING", prose=True),
)


def _row(setting: Setting[Any], text: str) -> tuple[str, ...]:
    default = "yes" if describe(setting, text)["is_default"] else "no"
    return setting.name, text or "(empty)", default, f"{setting.doc} Stricter: {setting.stricter}."


def _list(options: argparse.Namespace) -> int:
    texts = FileSystem().policy()
    known = [(setting, texts[setting.name]) for setting in SETTINGS.values() if setting.name in texts]
    if options.json:
        output.print_json([describe(setting, text) for setting, text in known])
    else:
        output.print_table(_COLUMNS, [_row(setting, text) for setting, text in known])
    return 0


def _get(options: argparse.Namespace) -> int:
    setting = setting_untrusted(options.name)
    text = FileSystem().read(f"policy/{setting.name}").removesuffix("\n")
    if options.json:
        output.print_json(describe(setting, text))
    else:
        for line in text.splitlines():
            output.print_line(line)
    return 0


# --- changing -----------------------------------------------------------------------------------------------------


def _set(options: argparse.Namespace) -> int:
    setting, text = setting_untrusted(options.name), "\n".join(options.values)
    tree = FileSystem()
    try:
        tree.write(f"policy/{setting.name}", text)
    except OSError as failure:
        raise Failure(_refusal(tree, setting.name, text, failure)) from failure
    return _get(options) if options.json else 0


def _refusal(tree: FileSystem, name: str, text: str, failure: OSError) -> str:
    """Why the daemon did not take a value: the error it gives has no words, so they are found out again here."""
    if failure.errno in (errno.EACCES, errno.EPERM):
        return f"{name}: only the user that ssad runs as may change the policy (root, or with --user that user)"
    if failure.errno != errno.EINVAL:
        return f"{name}: {failure.strerror}"
    return f"{_reason(tree, name, text)}. The policy stays as it was"


def _reason(tree: FileSystem, name: str, text: str) -> str:
    try:
        changed = Policy.default().replace_many(_known(tree)).replace(name, text)
        if name == "trust_store":
            from ssa.trust import TrustStore  # late: it loads the cryptography

            TrustStore.load(changed.trust_store)
    except BadValue as bad:
        return str(bad)
    except (OSError, ValueError) as failure:
        return f"{name}: {explain(failure)}"
    return f"{name}: ssad refuses the value, its log says why"


def _known(tree: FileSystem) -> dict[str, str]:
    """The settings in force, without those that only a newer daemon has."""
    return {name: text for name, text in tree.policy().items() if name in SETTINGS}


def _save(options: argparse.Namespace) -> int:
    from ssa.policy import files

    target = Path(paths.config_file())
    policy = Policy.default().replace_many(_known(FileSystem()))
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        files.save(target, policy)
    except PermissionError as failure:
        raise Failure(f"{target}: {failure.strerror}: only root, or the file's owner, can save the policy") from failure
    if options.json:
        output.print_json({"file": str(target)})
    else:
        output.print_line(f"the policy in force is in {target}, ssad starts with it")
    return 0


# --- the verbs ----------------------------------------------------------------------------------------------------


def _name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="a setting: " + ", ".join(SETTINGS))


def _name_and_values(parser: argparse.ArgumentParser) -> None:
    _name(parser)
    parser.add_argument(
        "values",
        nargs="+",
        metavar="VALUE",
        help="the value; those of a list are several arguments, or one; '' is empty",
    )


_SETTINGS_HELP = "settings:\n" + "".join(f"  {row.name:21} {row.doc}\n" for row in SETTINGS.values())

_LIST = Verb(
    name="list",
    summary="show all settings (as without a verb)",
    description="""\
Shows the policy in force: each setting's value, whether that is the default, which way is stricter, and what
it means.
""",
    examples="""\
ssa policy
ssa policy list --json | jq -r '.[] | select(.is_default | not) | .name'
""",
    run=_list,
)
_GET = Verb(
    name="get",
    summary="print one setting's value",
    description="Prints the value in force of one setting: a line, or for a list a line a word.",
    notes=_SETTINGS_HELP,
    examples="""\
ssa policy get min_version
ssa policy get groups
""",
    run=_get,
    arguments=_name,
)
_SET = Verb(
    name="set",
    summary="change one setting, from the next handshake on",
    description="""\
Changes one setting of the policy in force, for the next handshake of every program. Connections that are open
stay: /ssa/sockets/*/compliant says which would not be made any more. A bad value changes nothing, and is
explained. It lasts as long as the daemon: `ssa policy save` keeps it.
""",
    notes=_SETTINGS_HELP,
    examples="""\
ssa policy set min_version TLSv1.3
ssa policy set groups X25519MLKEM768 x25519 secp256r1
ssa policy set alpn "h2 http/1.1"
ssa policy set alpn ''
""",
    run=_set,
    arguments=_name_and_values,
)
_SAVE = Verb(
    name="save",
    summary="keep the policy in force for the daemon's next start",
    description="""\
Writes the policy in force to the file that ssad starts with (SSA_CONFIG, or /etc/ssa/policy.toml): whole or
not at all, with the comments that are there.
""",
    examples="ssa policy set min_version TLSv1.3 && ssa policy save\n",
    run=_save,
)

VERB = Verb(
    name="policy",
    summary="show, change and save the policy",
    description="""\
The policy that all TLS of this machine's programs is under. Without a verb it is shown. Applications can only
tighten it ("stricter"), for themselves.
""",
    examples="""\
ssa policy
ssa policy get min_version
ssa policy set min_version TLSv1.3
ssa policy save
""",
    run=_list,
    verbs=(_LIST, _GET, _SET, _SAVE),
)
