"""`ssa policy use` and `ssa policy levels`: named sets of values, shown as a difference before they count."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssa.cli import output
from ssa.cli.failure import Failure
from ssa.policy.levels import LEVELS, changes, check_name_untrusted, is_name
from ssa.policy.parsers import closest, quoted
from ssa.policy.schema import SETTINGS, BadValue, Policy
from ssa.protocol import paths

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from ssa.policy.levels import Change, Level

    Known = Callable[[], Mapping[str, str]]  # the settings in force
    Put = Callable[[str, str], None]  # changes a setting; raises `Failure`


def _folder() -> Path:
    """The directory of the administrator's own levels, beside the policy's file."""
    return Path(paths.policy_file()).parent / "levels.d"


def _own() -> list[str]:
    """The names of the administrator's own levels."""
    try:
        return sorted(file.stem for file in _folder().iterdir() if file.suffix == ".toml" and is_name(file.stem))
    except FileNotFoundError:
        return []


def find(name: str) -> Level:
    """A level by its name. Raises `BadValue`, OSError."""
    from ssa.policy import files

    check_name_untrusted(name)
    file = _folder() / f"{name}.toml"
    if name in LEVELS:
        if file.exists():
            raise BadValue(f"{file}: {name} is a level of ssa's own: give the file another name")
        return LEVELS[name]
    if not file.exists():
        raise BadValue(f"{quoted(name)} is no level, {closest(name, [*LEVELS, *_own()])}; {file} is not there")
    return files.load_level(file)


def use(options: argparse.Namespace, known: Known, put: Put) -> int:
    """Put a level in force, or with --dry-run only show what it would change."""
    level = find(options.level)
    before = dict(known())
    found = changes({name: row.default for name, row in SETTINGS.items()} | before, level)
    Policy.default().replace_many(before).replace_many(level.texts)  # whole, before the first setting is changed
    _show(level, found, options)
    if options.dry_run or not found:
        return 0
    _apply(found, put)
    if not options.json:
        output.print_line("all of it is in force, from the next handshake on; `ssa policy save` keeps it")
    return 0


def show_all(options: argparse.Namespace) -> int:
    """List the levels with their sources."""
    known = [find(name) for name in (*LEVELS, *_own())]
    if options.json:
        output.print_json([{"name": it.name, "source": it.source, "settings": dict(it.texts)} for it in known])
    else:
        output.print_entries([(it.name, (it.source,)) for it in known])
    return 0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `ssa policy use`."""
    names = ", ".join(LEVELS)
    parser.add_argument("level", metavar="LEVEL", help=f"{names}, or one of levels.d beside the policy's file")
    parser.add_argument("--dry-run", action="store_true", help="show what would change, and change nothing")


def _show(level: Level, found: list[Change], options: argparse.Namespace) -> None:
    if options.json:
        rows = [_row(change) for change in found]
        told = {"level": level.name, "source": level.source, "changes": rows, "in_force": not options.dry_run}
        output.print_json(told)
        return
    output.print_line(f"{level.name}: {level.source}")
    if not found:
        output.print_line("nothing to change: its values are in force")
        return
    output.print_entries([(it.name, it.words) for it in found])
    if options.dry_run:
        output.print_line("nothing was changed (--dry-run)")


def _row(change: Change) -> dict[str, Any]:
    name = change.name
    return {"name": name, "before": _value(name, change.before), "after": _value(name, change.after)}


def _value(name: str, text: str) -> str | list[str]:
    return text.splitlines() if SETTINGS[name].many else text


def _apply(found: list[Change], put: Put) -> None:
    """Make all changes, or none. One that the others' values contradict is tried again after them."""
    done: list[Change] = []
    left = found
    while left:
        refused = {it.name: failure for it in left if (failure := _failure(put, it.name, it.after))}
        done += [it for it in left if it.name not in refused]
        if len(refused) == len(left):
            _undo(done, put)
            raise refused[left[0].name]
        left = [it for it in left if it.name in refused]


def _undo(done: list[Change], put: Put) -> None:
    """Put the values before back, the last one first."""
    for change in reversed(done):
        put(change.name, change.before)


def _failure(put: Put, name: str, text: str) -> Failure | None:
    try:
        put(name, text)
    except Failure as failure:
        return failure
    return None
