"""Checks of the whole registry, every record against every other; each finding names its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Protocol, TypeVar

from ingestd.errors import Violation
from ingestd.fpr.layers import ALL, Disabled, Entry, Layer
from ingestd.fpr.records import (
    NORMALIZATIONS,
    USAGE_OF,
    Command,
    Format,
    FormatVersion,
    Group,
    IdentificationCommand,
    IdentificationRule,
    Kind,
    Purpose,
    Record,
    Rule,
    ScriptType,
    Tool,
    Usage,
)
from ingestd.fpr.substitution import QuotingError, arguments, bash, dangers, interpreter
from ingestd.fpr.variables import unknown_variables

R = TypeVar("R", bound=Record)


class Records(Protocol):
    """What the checks read: the registry, before anybody else may."""

    def every(self, record: type[R]) -> Iterable[R]: ...

    def find(self, record: type[R], id: str) -> R | None:  # noqa: A002  the field's own word
        ...

    def is_active(self, record: Record) -> bool: ...

    def where(self, record: Record) -> str: ...


def check_layers(layers: Sequence[Layer]) -> Iterator[Violation]:
    """What can be said of layers before they are laid over one another."""
    known: set[tuple[Kind, str]] = set()
    for layer in layers:
        yield from layer.problems
        yield from (_disables_nothing(item) for item in layer.disabled if not _is_below(item, known))
        seen: dict[tuple[Kind, str], Entry] = {}
        for entry in layer.entries:
            key = (entry.record.kind, entry.record.id)
            if key in seen:
                yield Violation(
                    path=f"{layer.name}/{entry.file}: {key[0]} {key[1]}",
                    rule="id-twice",
                    expected="one record of this id in a layer",
                    actual=f"also in {seen[key].file}",
                )
            seen[key] = entry
        known |= set(seen)


def _is_below(item: Disabled, known: AbstractSet[tuple[Kind, str]]) -> bool:
    return item.id == ALL or (item.kind, item.id) in known


def _disables_nothing(item: Disabled) -> Violation:
    return Violation(
        path=f"{item.layer}/{item.file}: disable {item.kind} {item.id}",
        rule="disables-nothing",
        expected=f"the id of a {item.kind} in a layer below",
        actual=item.id,
    )


def check_records(records: Records) -> Iterator[Violation]:
    """What is wrong with the registry as a whole, in the order of its kinds."""
    for check in _CHECKS:
        yield from check(records)


def _wrong(records: Records, record: Record, rule: str, *, expected: str = "", actual: str = "") -> Violation:
    path = f"{records.where(record)}: {record.kind} {record.id}"
    return Violation(path=path, rule=rule, expected=expected, actual=actual)


def _refers(
    records: Records, record: Record, field: str, target: type[Record], *, active: bool = False
) -> Iterator[Violation]:
    """`field` of a record must name a record of `target`; an empty one names none and is fine."""
    name: str = getattr(record, field)
    if not name:
        return
    found = records.find(target, name)
    if found is None or (active and not records.is_active(found)):
        said = name if found is None else f"{name}, which is disabled"
        yield _wrong(records, record, f"{field}-unknown", expected=f"the id of a {target.kind}", actual=said)


def _replacements(records: Records) -> Iterator[Violation]:
    for record_type in (Group, Format, FormatVersion, Tool, Command, Rule, IdentificationCommand, IdentificationRule):
        replaced: dict[str, Record] = {}
        ids = {record.id for record in records.every(record_type)}
        chain = {record.id: record.replaces for record in records.every(record_type) if record.replaces}
        for record in records.every(record_type):
            if not record.replaces:
                continue
            # What is replaced is looked for as such, not as what has its place now.
            if record.replaces not in ids:
                yield _wrong(records, record, "replaces-unknown", actual=record.replaces)
            if record.replaces in replaced and record.enabled and replaced[record.replaces].enabled:
                other = replaced[record.replaces].id
                yield _wrong(records, record, "replaced-twice", actual=f"{record.replaces}, as {other} does")
            replaced[record.replaces] = record
            if _circles(chain, record.id):
                yield _wrong(records, record, "replaces-itself", actual=record.replaces)


def _circles(chain: Mapping[str, str], start: str) -> bool:
    seen = {start}
    at = chain.get(start, "")
    while at:
        if at in seen:
            return True
        seen.add(at)
        at = chain.get(at, "")
    return False


def _formats(records: Records) -> Iterator[Violation]:
    for record in records.every(Format):
        yield from _refers(records, record, "group", Group)


def _versions(records: Records) -> Iterator[Violation]:
    puids: dict[str, str] = {}
    designations: dict[tuple[str, str], str] = {}
    for record in records.every(FormatVersion):
        yield from _refers(records, record, "format", Format)
        if not records.is_active(record):
            continue
        if record.puid and (other := puids.setdefault(record.puid, record.id)) != record.id:
            yield _wrong(records, record, "puid-twice", actual=f"{record.puid} is {other}'s too")
        if not record.puid and (other := designations.setdefault(record.designation, record.id)) != record.id:
            said = f"{other} is called that too, and neither has a PUID"
            yield _wrong(records, record, "designation-twice", actual=said)


def _commands(records: Records) -> Iterator[Violation]:
    for record in records.every(Command):
        yield from _refers(records, record, "tool", Tool)
        yield from _refers(records, record, "output_format", FormatVersion)
        yield from _same_usage(records, record, "verification", Usage.VERIFICATION)
        yield from _same_usage(records, record, "event_detail", Usage.EVENT_DETAIL)
        yield from _same_usage(records, record, "otherwise", record.usage)
        if records.is_active(record):
            yield from _script(records, record)
            if record.usage is Usage.NORMALIZATION:
                yield from _says_its_output(records, record)


def _same_usage(records: Records, record: Command, field: str, usage: Usage) -> Iterator[Violation]:
    yield from _refers(records, record, field, Command, active=records.is_active(record))
    found = records.find(Command, getattr(record, field))
    if found and found.usage is not usage and records.is_active(record):
        said = f"{found.id} is for {found.usage}"
        yield _wrong(records, record, f"{field}-usage", expected=usage, actual=said)


def _says_its_output(records: Records, record: Command) -> Iterator[Violation]:
    if not record.output_location:
        yield _wrong(records, record, "output-location-missing", expected="where the command writes")
    if not record.verification:
        yield _wrong(records, record, "verification-missing", expected="the id of a verification command")


def _script(records: Records, record: Command | IdentificationCommand) -> Iterator[Violation]:
    location = record.output_location if isinstance(record, Command) else ""
    for rule, said in script_faults(record.script_type, record.script, location):
        yield _wrong(records, record, rule, actual=said)


def script_faults(script_type: ScriptType, script: str, location: str = "") -> Iterator[tuple[str, str]]:
    """Find why a script, or the output location that goes with it, cannot be run: names of rules, and what is wrong."""
    if not script.strip():
        yield "script-missing", ""
        return
    filled = (script, location) if script_type in {ScriptType.COMMAND, ScriptType.BASH_SCRIPT} else (location,)
    unknown = sorted({name for text in filled for name in unknown_variables(text)})
    if unknown:
        yield "variable-unknown", ", ".join(f"%{name}%" for name in unknown)
    try:
        if script_type is ScriptType.COMMAND:
            arguments(script, {})
        elif script_type is ScriptType.BASH_SCRIPT:
            bash(script)
        elif script_type is ScriptType.AS_IS:
            interpreter(script)
    except QuotingError as error:
        yield "script-unreadable", str(error)
    if script_type is ScriptType.BASH_SCRIPT:
        yield from (("variable-as-code", danger) for danger in dangers(script))


def _rules(records: Records) -> Iterator[Violation]:
    taken: dict[tuple[Purpose, str], str] = {}
    for record in records.every(Rule):
        active = records.is_active(record)
        yield from _refers(records, record, "format", FormatVersion)
        yield from _refers(records, record, "command", Command, active=active)
        command = records.find(Command, record.command)
        if active and command and command.usage is not USAGE_OF[record.purpose]:
            said = f"{command.id} is for {command.usage}"
            yield _wrong(records, record, "command-usage", expected=USAGE_OF[record.purpose], actual=said)
        if not active or record.purpose not in NORMALIZATIONS:
            continue
        version = records.find(FormatVersion, record.format)
        key = (record.purpose, version.id if version else record.format)
        if key in taken:
            yield _wrong(
                records, record, "rule-twice", expected=f"one active {key[0]} rule for {key[1]}", actual=taken[key]
            )
        taken[key] = record.id


def _identification(records: Records) -> Iterator[Violation]:
    for command in records.every(IdentificationCommand):
        yield from _refers(records, command, "tool", Tool)
        if records.is_active(command):
            yield from _script(records, command)
    said: dict[tuple[str, str], str] = {}
    for rule in records.every(IdentificationRule):
        yield from _refers(records, rule, "command", IdentificationCommand)
        yield from _refers(records, rule, "format", FormatVersion)
        if not records.is_active(rule):
            continue
        key = (rule.command, rule.output)
        if key in said:
            yield _wrong(records, rule, "output-twice", actual=f"{rule.output} is what {said[key]} says too")
        said[key] = rule.id


_CHECKS: tuple[Callable[[Records], Iterator[Violation]], ...] = (
    _replacements,
    _formats,
    _versions,
    _commands,
    _rules,
    _identification,
)


def python_fault(script: str) -> str:
    """Say why a script is no Python 3; empty where it is."""
    try:
        compile(script, "script", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError) as error:
        return f"it is not Python 3: {type(error).__name__}: {error}"
    return ""
