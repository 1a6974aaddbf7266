"""`fpr`: the format policy registry in words and tables; registries of others read and written."""

from __future__ import annotations

import argparse
import asyncio
import difflib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ingestd import premis
from ingestd.cli.main import FAILED, OK
from ingestd.config import Settings
from ingestd.errors import RequestError, SourceError, SystemFault, Violation
from ingestd.fpr.layers import Disabled, Entry
from ingestd.fpr.records import RECORDS, Command, Format, FormatVersion, Kind, Purpose, Record, Rule, Tool
from ingestd.fpr.registry import Change, Registry, difference
from ingestd.journal import RuleCount, ServiceJournal

if TYPE_CHECKING:
    from ingestd.fpr.commands import Commands

_NEAR = 5
_UNSAID = frozenset({"id", "enabled", "uuid"})
_HEADS = {
    "rules": ("PURPOSE", "FORMAT", "DESCRIPTION", "COMMAND", "TOOL", "OK", "RULE"),
    "formats": ("PUID", "DESCRIPTION", "GROUP", "KEPT AS", "RULES"),
    "commands": ("COMMAND", "USAGE", "TOOL", "TO BE HAD", "DESCRIPTION"),
}

Action = Callable[[argparse.Namespace, Settings], Coroutine[Any, Any, int]]


async def fpr(options: argparse.Namespace, settings: Settings) -> int:
    """Run the action that `options.action` names."""
    from ingestd.cli import fpr_try

    actions: dict[str, Action] = {
        "show": show,
        "rules": rules,
        "formats": formats,
        "commands": commands,
        "history": history,
        "diff": diff,
        "check": check,
        "test": fpr_try.test,
        "import": import_,
        "export": export,
    }
    return await actions[options.action](options, settings)


async def load(settings: Settings) -> Registry:
    """Read the registry in force."""
    return await asyncio.to_thread(Registry.load, settings.fpr_folders)


def find(registry: Registry, name: str, *types: type[Record]) -> Sequence[Record]:
    """Give the records of this id, PUID or UUID, of all kinds. Raises `RequestError` where there is none."""
    kinds = types or tuple(RECORDS.values())
    found = [record for kind in kinds for record in registry.every(kind) if _is_called(record, name)]
    if found:
        return found
    known = [record.id for kind in kinds for record in registry.every(kind)]
    near = difflib.get_close_matches(name, known, n=_NEAR, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}?" if near else f"`ingestd fpr formats {name}` looks for formats by words."
    raise RequestError(f"the registry has nothing called {name!r}", remediation=hint)


def _is_called(record: Record, name: str) -> bool:
    puid = record.puid if isinstance(record, FormatVersion) else ""
    return name in {record.id, puid, str(record.identifier)} - {""}


# --- show, rules, formats, commands ----------------------------------------------------------------------------------


async def show(options: argparse.Namespace, settings: Settings) -> int:
    registry = await load(settings)
    found = find(registry, options.id)
    if options.json:
        _print_json([{**_fields(registry, record), **_around(registry, record)} for record in found])
        return OK
    for number, record in enumerate(found):
        print(end="\n" if number else "")
        print(f"{record.kind} {record.id}{_state(registry, record)}")
        for name, value in {**_fields(registry, record), **_around(registry, record)}.items():
            if name not in _UNSAID | {"kind", "active"} and value not in ("", None, [], {}):
                _print_field(name, value)
    return OK


def _fields(registry: Registry, record: Record) -> dict[str, Any]:
    return {
        "kind": record.kind.value,
        **record.model_dump(mode="json"),
        "uuid": str(record.identifier),
        "active": registry.is_active(record),
        "file": registry.where(record),
    }


def _around(registry: Registry, record: Record) -> dict[str, Any]:
    """Say what else of the registry belongs to a record."""
    if isinstance(record, FormatVersion):
        group = registry.group_of(record)
        ruled = [rule for rule in registry.active(Rule) if registry.find(FormatVersion, rule.format) == record]
        return {
            "group": group.name if group else "",
            "rules": [f"{rule.purpose}: {registry.followed(rule).command}" for rule in ruled],
        }
    if isinstance(record, Command):
        using = [rule for rule in registry.active(Rule) if registry.command(rule.command) == record]
        return {"rules": [f"{rule.purpose}: {rule.format}" for rule in using]}
    if isinstance(record, Rule):
        followed = registry.followed(record).command
        return {"in_its_place": followed if followed != record.command else ""}
    if isinstance(record, Tool):
        return {
            "commands": [command.id for command in registry.active(Command) if registry.tool(command.tool) == record]
        }
    return {}


def _state(registry: Registry, record: Record) -> str:
    if registry.is_active(record):
        return ""
    in_force = registry.find(type(record), record.id)
    return f" (replaced by {in_force.id})" if in_force and in_force.id != record.id else " (disabled)"


def _print_field(name: str, value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool | dict) else value
    lines = [str(item) for item in text] if isinstance(text, list) else str(text).strip("\n").splitlines()
    print(f"  {name:<16} {lines[0] if len(lines) == 1 else ''}".rstrip())
    for line in lines if len(lines) > 1 else ():
        print(f"    {line}")


async def rules(options: argparse.Namespace, settings: Settings) -> int:
    registry = await load(settings)
    purposes = [_purpose(options.purpose)] if options.purpose else list(Purpose)
    if options.puid:
        versions = [one for one in find(registry, options.puid, FormatVersion) if isinstance(one, FormatVersion)]
        chosen = [rule for purpose in purposes for rule in registry.choose(purpose, versions[0])]
    else:
        chosen = [registry.followed(rule) for rule in registry.active(Rule) if rule.purpose in purposes]
    chosen = list(dict.fromkeys(chosen))
    counts = await _counts(settings)
    if options.json:
        _print_json([{**_fields(registry, rule), **_counted(counts, rule)} for rule in chosen])
    else:
        _print_table("rules", (_rule_row(registry, rule, _rate(counts, rule)) for rule in chosen))
    return OK


async def _counts(settings: Settings) -> Mapping[tuple[str, str], RuleCount]:
    """Read from the service's journal, if there is one, how often each rule was followed with each of its commands."""
    if not await asyncio.to_thread(settings.journal_path.exists):
        return {}
    journal = await ServiceJournal.open(settings.journal_path)
    try:
        return {(count.rule, count.command): count for count in await journal.rule_counts()}
    finally:
        await journal.close()


def _counted(counts: Mapping[tuple[str, str], RuleCount], rule: Rule) -> dict[str, int]:
    count = counts.get((rule.id, rule.command))
    return {
        "attempts": count.attempts if count else 0,
        "okay": count.okay if count else 0,
        "not_okay": count.not_okay if count else 0,
    }


def _rate(counts: Mapping[tuple[str, str], RuleCount], rule: Rule) -> str:
    """Say how many of a rule's runs did their work: rounded down, so that 100 % are all of them."""
    count = counts.get((rule.id, rule.command))
    return f"{100 * count.okay // count.attempts} % of {count.attempts}" if count else ""


def _purpose(text: str) -> Purpose:
    try:
        return Purpose(text)
    except ValueError as error:
        violation = Violation(path="--purpose", rule="unknown_purpose", expected=", ".join(Purpose), actual=text)
        raise RequestError(
            f"there is no purpose {text!r}", violations=(violation,), remediation="Name one of these."
        ) from error


def _rule_row(registry: Registry, rule: Rule, rate: str) -> Sequence[str]:
    version = registry.find(FormatVersion, rule.format)
    command = registry.command(rule.command)
    tool = registry.tool(command.tool) if command else None
    return (
        rule.purpose,
        rule.format,
        _described(version) if version else "",
        rule.command,
        tool.name if tool else "",
        rate,
        rule.id,
    )


def _described(version: FormatVersion) -> str:
    return premis.Format(name=version.description, version=version.version).words


async def formats(options: argparse.Namespace, settings: Settings) -> int:
    registry = await load(settings)
    purposes: dict[str, list[str]] = {}
    for rule in registry.active(Rule):
        version = registry.find(FormatVersion, rule.format)
        if version and rule.purpose.value not in purposes.setdefault(version.id, []):
            purposes[version.id].append(rule.purpose.value)
    wanted = options.text.casefold()
    found = [
        (version, group.name if group else "")
        for version in registry.active(FormatVersion)
        for group in [registry.group_of(version)]
        if wanted in _words(registry, version, group.name if group else "")
    ]
    if options.json:
        _print_json(
            [
                {**_fields(registry, version), "group": group, "purposes": purposes.get(version.id, [])}
                for version, group in found
            ]
        )
    else:
        _print_table(
            "formats",
            (
                (
                    version.puid or f"({version.id})",
                    _described(version),
                    group,
                    _kept_as(version),
                    ", ".join(purposes.get(version.id, [])),
                )
                for version, group in found
            ),
        )
    return OK


def _words(registry: Registry, version: FormatVersion, group: str) -> str:
    kept = registry.find(Format, version.format)
    return f"{version.puid} {_described(version)} {kept.name if kept else ''} {group}".casefold()


def _kept_as(version: FormatVersion) -> str:
    flags = {"preservation": version.preservation, "access": version.access}
    return ", ".join(name for name, flag in flags.items() if flag)


async def commands(options: argparse.Namespace, settings: Settings) -> int:
    from ingestd.fpr.commands import Commands
    from ingestd.tools import Toolbox

    registry = await load(settings)
    async with Toolbox(settings) as tools:
        runner = Commands(registry, tools.pool)
        active = list(registry.active(Command))
        had = {command.id: _to_be_had(registry, runner, command) for command in active}
    if options.json:
        _print_json([{**_fields(registry, command), "available": had[command.id]} for command in active])
    else:
        _print_table("commands", (_command_row(registry, command, had[command.id]) for command in active))
    return OK


def _command_row(registry: Registry, command: Command, had: str) -> Sequence[str]:
    tool = registry.tool(command.tool)
    return command.id, command.usage, tool.name if tool else command.tool, had, command.description


def _to_be_had(registry: Registry, runner: Commands, command: Command) -> str:
    """Say whether a command's tool is here, or what is run in its place, or what would bring it."""
    able = runner.resolve(command)
    if able is not None:
        return "yes" if able.id == command.id else f"{able.id} instead"
    tool = registry.tool(command.tool)
    package = (tool.debian or tool.pypi) if tool else ""
    return f"no; install {package}" if package else "no"


# --- history, diff, check ---------------------------------------------------------------------------------------------


async def history(options: argparse.Namespace, settings: Settings) -> int:
    registry = await load(settings)
    said = [(record, registry.history(record)) for record in find(registry, options.id)]
    if options.json:
        _print_json([{"kind": r.kind, "id": r.id, "history": [_said(item) for item in items]} for r, items in said])
        return OK
    for record, items in said:
        print(f"{record.kind} {record.id}{_state(registry, record)}")
        for item in items:
            print(f"  {item.layer}/{item.file}: {_in_words(item)}")
    return OK


def _said(item: Entry | Disabled) -> Mapping[str, Any]:
    where = {"layer": item.layer, "file": item.file}
    if isinstance(item, Disabled):
        return {**where, "disabled": item.id, "reason": item.reason}
    return {**where, "record": item.record.model_dump(mode="json")}


def _in_words(item: Entry | Disabled) -> str:
    if isinstance(item, Disabled):
        return f"disables {item.id}{f' ({item.reason})' if item.reason else ''}"
    record = item.record
    said = _short(record)
    if record.replaces:
        said += f", in place of {record.replaces}"
    return f"{said}, disabled" if not record.enabled else said


def _short(record: Record) -> str:
    """Give a record's own words in one line."""
    values = record.model_dump(mode="json", exclude_defaults=True, exclude={"id", "uuid", "replaces", "enabled"})
    words = [f"{name}={_one_line(value)}" for name, value in values.items()]
    return f"{record.id}: {', '.join(words)}"


def _one_line(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


async def diff(options: argparse.Namespace, settings: Settings) -> int:
    shipped = await asyncio.to_thread(Registry.load)
    changes = difference(shipped, await load(settings))
    if options.json:
        _print_json([_change(change) for change in changes])
        return OK
    for change in changes:
        for sign, record in (("-", change.before), ("+", change.after)):
            if record is not None:
                print(f"{sign} {change.kind} {_short(record)}")
    if not changes:
        print("Nothing of the shipped registry is changed.")
    return OK


def _change(change: Change) -> Mapping[str, Any]:
    before, after = change.before, change.after
    return {
        "kind": change.kind.value,
        "id": change.id,
        "before": before.model_dump(mode="json") if before else None,
        "after": after.model_dump(mode="json") if after else None,
    }


async def check(options: argparse.Namespace, settings: Settings) -> int:
    """Exit code 1 where something is wrong; every violation is printed."""
    folders = [*settings.fpr_folders, *([options.folder] if options.folder else [])]
    try:
        registry = await asyncio.to_thread(Registry.load, list(dict.fromkeys(folders)))
    except SystemFault as error:
        _print_violations(error.violations, as_json=options.json)
        return FAILED
    counts = {kind.value: sum(1 for _ in registry.active(record)) for kind, record in RECORDS.items()}
    if options.json:
        _print_json({"version": registry.version, "active": counts, "violations": []})
    else:
        print(f"sound: {', '.join(f'{count} {kind} records' for kind, count in counts.items())}")
        print(f"version {registry.version}")
    return OK


def _print_violations(violations: Iterable[Violation], *, as_json: bool) -> None:
    found = [{"path": v.path, "rule": v.rule, "expected": v.expected, "actual": v.actual} for v in violations]
    if as_json:
        _print_json({"violations": found})
        return
    for violation in found:
        words = [f"{name} {violation[name]}" for name in ("expected", "actual") if violation[name]]
        print(f"{violation['path']}: {violation['rule']}{': ' if words else ''}{'; '.join(words)}")
    print(f"{len(found)} thing(s) wrong")


# --- registries of others ---------------------------------------------------------------------------------------------


async def import_(options: argparse.Namespace, settings: Settings) -> int:
    """What could not come in as it was is said on stdout; the folder is checked before the word is success."""
    from ingestd.fpr.dump import read_dump

    try:
        content = await asyncio.to_thread(options.dump.read_bytes)
    except OSError as error:
        raise SourceError(f"{options.dump} cannot be read: {error.strerror or error}") from error
    shipped = await asyncio.to_thread(Registry.load)
    made = await asyncio.to_thread(read_dump, content, shipped)
    await asyncio.to_thread(made.write, options.folder)
    registry = await asyncio.to_thread(Registry.load, [options.folder])
    counts = {kind.value: sum(1 for _ in made.of(kind)) for kind in Kind}
    if options.json:
        _print_json(
            {"folder": str(options.folder), "records": counts, "notes": made.notes, "version": registry.version}
        )
        return OK
    for note in made.notes:
        print(note)
    print(f"{options.folder}: {', '.join(f'{count} {kind} records' for kind, count in counts.items() if count)}")
    print(f"To put it in force, name the folder in the setting fpr_folders. Version {registry.version}")
    return OK


async def export(options: argparse.Namespace, settings: Settings) -> int:
    from ingestd.fpr.export import export_dump

    registry = await load(settings)
    text = await asyncio.to_thread(lambda: json.dumps(export_dump(registry), indent=1, ensure_ascii=False))
    if options.file is None:
        print(text)
        return OK
    await asyncio.to_thread(options.file.write_text, f"{text}\n", encoding="utf-8")
    print(options.file)
    return OK


# --- printing ---------------------------------------------------------------------------------------------------------


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(name: str, rows: Iterable[Sequence[str]]) -> None:
    """Print rows below their heads, and how many there are; columns are as wide as what is in them."""
    head = _HEADS[name]
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    print(f"{len(table) - 1} {name}")
