"""Import of an Archivematica or a3m registry dump (a Django fixture) into a site folder, history and all.

A dump is a whole registry, so the folder switches the rules of the layers below off and brings its own. What the dump
has as the shipped registry has it, format versions above all, is recognized by its identifier, its PUID or its name and
keeps the id that it has there, so that rules of both speak of the same things.

What would not pass the checks is not dropped in silence: it is brought in disabled, and said in `Imported.notes`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from ingestd import premis
from ingestd.errors import Code, RequestError, SourceError, Violation
from ingestd.fpr.check import python_fault, script_faults
from ingestd.fpr.layers import violations
from ingestd.fpr.records import (
    NORMALIZATIONS,
    RECORDS,
    USAGE_OF,
    Command,
    Format,
    FormatVersion,
    Group,
    IdentificationCommand,
    IdentificationOutput,
    IdentificationRule,
    Kind,
    Purpose,
    Record,
    Rule,
    ScriptType,
    Tool,
    Usage,
)
from ingestd.fpr.registry import Registry
from ingestd.fpr.toml import table
from ingestd.fpr.unchanged import as_shipped
from ingestd.messages.values import unsound

SUPPLIED_VERIFICATION = "output-exists"
_Text = Annotated[str, BeforeValidator(lambda text: text.strip() if isinstance(text, str) else text or "")]


class _Fields(BaseModel):
    """A row of a dump. What else stands in it (counters, slugs of formats) has no record here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    uuid: UUID
    description: _Text = ""
    slug: str = ""
    version: _Text = ""
    enabled: bool = True
    replaces: UUID | None = None
    lastmodified: str = ""
    group: UUID | None = None
    format: UUID | None = None
    pronom_id: _Text = ""
    access_format: bool = False
    preservation_format: bool = False
    tool: UUID | None = None
    command: str = ""
    command_usage: str = ""
    script: str = ""
    script_type: str = ""
    config: str = ""
    output_location: _Text = ""
    output_format: UUID | None = None
    verification_command: UUID | None = None
    event_detail_command: UUID | None = None
    purpose: str = ""
    command_output: str = ""


@dataclass(kw_only=True, slots=True)
class Imported:
    """What an import made: records, and a sentence for each that could not come in as it was."""

    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write the records as a site folder. Raises `RequestError` where there is one already."""
        try:
            folder.mkdir(parents=True)
        except FileExistsError as error:
            raise RequestError(f"{folder} is there already", remediation="Name a new folder.") from error
        off = 'kind = "rule"\nid = "*"\nreason = "the imported registry brings its own rules"\n'
        (folder / "00-import.toml").write_text(f"[[disable]]\n{off}", encoding="utf-8")
        for kind in Kind:
            tables = [
                table(kind.value, record.model_dump(mode="json", exclude_defaults=True)) for record in self.of(kind)
            ]
            if tables:
                (folder / f"{kind.value}s.toml").write_text("\n".join(tables), encoding="utf-8")

    def of(self, kind: Kind) -> Iterable[Record]:
        return (record for record in self.records if record.kind is kind)


def read_dump(content: bytes, shipped: Registry) -> Imported:
    """Read a dump beside the registry that it will lie over. Raises `SourceError` if it is no dump of a registry."""
    rows: dict[str, list[_Fields]] = {}
    problems: list[Violation] = []
    for model, fields in _items(content):
        try:
            rows.setdefault(model, []).append(_Fields.model_validate(fields))
        except ValidationError as error:
            problems += violations(f"{model} {fields.get('uuid')}", error)
    if problems or not rows:
        raise SourceError(
            "this is not a dump of a format policy registry",
            code=Code.REQUEST_SCHEMA_INVALID,
            violations=tuple(problems),
            remediation="Make it with `manage.py dumpdata fpr`.",
        )
    return _Import(shipped=shipped, rows=rows).run()


def _items(content: bytes) -> Iterable[tuple[str, Mapping[str, Any]]]:
    try:
        items = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"this is not JSON: {error}", code=Code.REQUEST_SCHEMA_INVALID) from error
    if found := unsound(items):
        raise SourceError(f"{found.path[:200]} is not {found.expected}", code=Code.REQUEST_SCHEMA_INVALID)
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict) or not isinstance(item.get("fields"), dict):
            raise SourceError("a dump is a list of models with fields", code=Code.REQUEST_SCHEMA_INVALID)
        model = str(item.get("model", ""))
        if model.startswith("fpr."):
            yield model.removeprefix("fpr."), item["fields"]


@dataclass(kw_only=True, slots=True)
class _Import:
    """One import. `ids` gives for the identifier of every row the id of its record."""

    shipped: Registry
    rows: Mapping[str, Sequence[_Fields]]
    ids: dict[UUID, str] = field(default_factory=dict)
    made: Imported = field(default_factory=Imported)
    commands: dict[str, Command] = field(default_factory=dict)
    versions: dict[str, FormatVersion] = field(default_factory=dict)
    replaced: set[UUID] = field(default_factory=set)
    known: dict[tuple[Kind, UUID], str] = field(default_factory=dict)

    def run(self) -> Imported:
        for kind, record_type in RECORDS.items():
            self.known |= {(kind, record.identifier): record.id for record in self.shipped.every(record_type)}
        self.replaced = {row.replaces for rows in self.rows.values() for row in rows if row.replaces}
        self._groups()
        self._formats()
        self._versions()
        self._tools()
        self._commands()
        self._rules()
        self._identification()
        self.made.records = [as_shipped(record, self.shipped) for record in self.made.records]
        return self.made

    def _of(self, model: str) -> Sequence[_Fields]:
        return self.rows.get(model, ())

    def _active(self, row: _Fields) -> bool:
        return row.enabled and row.uuid not in self.replaced

    def _groups(self) -> None:
        names = {group.name.strip(): group.id for group in self.shipped.groups}
        self._name(Kind.GROUP, self._of("formatgroup"), names)
        for row in self._of("formatgroup"):
            self.made.records.append(Group(id=self.ids[row.uuid], uuid=row.uuid, name=row.description))

    def _formats(self) -> None:
        names = {kept.name.strip(): kept.id for kept in self.shipped.formats}
        self._name(Kind.FORMAT, self._of("format"), names)
        for row in self._of("format"):
            name = row.description
            group = self._reference(row.group, "a format's group", name) or "unknown"
            self.made.records.append(Format(id=self.ids[row.uuid], uuid=row.uuid, name=name, group=group))

    def _name(self, kind: Kind, rows: Sequence[_Fields], names: Mapping[str, str]) -> None:
        """Give rows the ids of the shipped records that they are, by identifier or name, or ids of their own."""
        taken = set(names.values())
        used: set[str] = set()
        for row in rows:
            same = self.known.get((kind, row.uuid)) or names.get(row.description, "")
            self.ids[row.uuid] = _free(row, taken) if same in used or not same else same
            used.add(self.ids[row.uuid])

    def _versions(self) -> None:
        taken: set[str] = set()
        rows = sorted(self._of("formatversion"), key=lambda row: not self._active(row))
        for row in rows:
            found = premis.Format(name=row.description, version=row.version, puid=row.pronom_id)
            same = self.shipped.version_of(found)
            known = self.known.get((Kind.VERSION, row.uuid)) or (same.id if same else "")
            self.ids[row.uuid] = known if known and known not in taken else str(row.uuid)
            taken.add(self.ids[row.uuid])
        first: dict[str | tuple[str, str], str] = {}
        for row in rows:
            self._version(row, first)

    def _version(self, row: _Fields, first: dict[str | tuple[str, str], str]) -> None:
        name = self.ids[row.uuid]
        version = FormatVersion(
            id=name,
            puid=row.pronom_id,
            format=self._reference(row.format, "a version's format", name) or "unknown",
            description=row.description,
            version=row.version,
            preservation=row.preservation_format,
            access=row.access_format,
            **self._history(row, enabled=row.enabled),
        )
        other = first.setdefault(version.puid or version.designation, name) if self._active(row) else name
        if other != name:
            same = f"has the PUID {version.puid} too" if version.puid else "is called the same, without a PUID"
            self._say("format version", name, f"is off: {other} {same}")
            version = version.model_copy(update={"enabled": False})
        self.versions[name] = version
        self.made.records.append(version)

    def _tools(self) -> None:
        taken = {tool.id for tool in self.shipped.tools}
        for model in ("fptool", "idtool"):
            for row in self._of(model):
                same = self.known.get((Kind.TOOL, row.uuid))
                self.ids[row.uuid] = same or _free(row, taken)
                if not same:
                    self._tool(row)

    def _tool(self, row: _Fields) -> None:
        name = row.description
        ours = _tool_called(self.shipped, name)
        asked = ours.model_dump(include={"program", "version_command", "version_pattern"}) if ours else {}
        about = {"name": name, "enabled": row.enabled, "noted_version": row.version}
        self.made.records.append(Tool(id=self.ids[row.uuid], uuid=row.uuid, **about, **asked))

    def _commands(self) -> None:
        for row in self._of("fpcommand"):
            self.ids[row.uuid] = self.known.get((Kind.COMMAND, row.uuid)) or str(row.uuid)
        for row in self._of("fpcommand"):
            self._command(row)
        for command in tuple(self.commands.values()):
            if command.enabled and command.identifier not in self.replaced:
                self._follow_ups(command)
        self.made.records.extend(self.commands.values())

    def _command(self, row: _Fields) -> None:
        name = self.ids[row.uuid]
        usage = row.command_usage.strip().casefold()
        if usage not in list(Usage) or row.script_type not in list(ScriptType):
            self._say("command", name, f"was left out: its usage is {usage!r}, its script type {row.script_type!r}")
            return
        location = row.output_location
        wrong = _wrong(ScriptType(row.script_type), row.command, location)
        if usage == Usage.NORMALIZATION and not location:
            wrong = wrong or "it does not say where it writes"
        if wrong and self._active(row):
            self._say("command", name, f"is off: {wrong}")
        self.commands[name] = Command(
            id=name,
            tool=self._reference(row.tool, "a tool", name) or "ingestd",
            usage=Usage(usage),
            description=row.description,
            script_type=ScriptType(row.script_type),
            script=row.command.replace("\r\n", "\n"),
            output_location=location,
            output_format=self._reference(row.output_format, "an output format", name),
            verification=self._reference(row.verification_command, "a verification", name),
            event_detail=self._reference(row.event_detail_command, "an event detail", name),
            note=wrong,
            **self._history(row, enabled=row.enabled and not wrong),
        )

    def _follow_ups(self, command: Command) -> None:
        """See that an active command is followed by active ones, and that a normalization is verified."""
        verification = self._in_force(command.verification, Usage.VERIFICATION)
        detail = self._in_force(command.event_detail, Usage.EVENT_DETAIL)
        if command.event_detail and not detail:
            self._say("command", command.id, "has lost its event detail, which is off")
        if command.usage is Usage.NORMALIZATION and not verification:
            self._say("command", command.id, f"had no verification in force and was given {SUPPLIED_VERIFICATION}")
            verification = SUPPLIED_VERIFICATION
        update = {"verification": verification, "event_detail": detail}
        self.commands[command.id] = command.model_copy(update=update)

    def _in_force(self, name: str, usage: Usage) -> str:
        command = self._current(name)
        return name if command and command.enabled and command.usage is usage else ""

    def _current(self, name: str) -> Command | None:
        """Give the command of this id, or the one that has its place."""
        by = {command.replaces: command.id for command in self.commands.values() if command.replaces}
        seen: set[str] = set()
        while name in by and name not in seen:
            seen.add(name)
            name = by[name]
        return self.commands.get(name)

    def _rules(self) -> None:
        for row in self._of("fprule"):
            self.ids[row.uuid] = self.known.get((Kind.RULE, row.uuid)) or str(row.uuid)
        taken: dict[tuple[Purpose, str], str] = {}
        for row in self._of("fprule"):
            self._rule(row, taken)

    def _rule(self, row: _Fields, taken: dict[tuple[Purpose, str], str]) -> None:
        name = self.ids[row.uuid]
        version = self.ids.get(row.format) if row.format else None
        command = self._current(self.ids.get(_uuid(row.command), ""))
        if row.purpose not in list(Purpose) or version is None or command is None:
            self._say("rule", name, f"was left out: purpose {row.purpose!r}, format {version}, command {row.command}")
            return
        purpose, off = Purpose(row.purpose), ""
        if self._active(row):
            if not command.enabled:
                off = f"its command {command.id} is off"
            elif command.usage is not USAGE_OF[purpose]:
                off = f"its command {command.id} is for {command.usage}"
            elif purpose in NORMALIZATIONS and taken.setdefault((purpose, version), name) != name:
                off = f"{taken[purpose, version]} is for the same purpose and format"
        if off:
            self._say("rule", name, f"is off: {off}")
        self.made.records.append(
            Rule(
                id=name,
                purpose=purpose,
                format=version,
                command=self.ids[_uuid(row.command)],
                note=off,
                **self._history(row, enabled=row.enabled and not off),
            )
        )

    def _identification(self) -> None:
        outputs = {output.value.casefold(): output for output in IdentificationOutput}
        for row in self._of("idcommand"):
            name = self.known.get((Kind.IDENTIFICATION_COMMAND, row.uuid)) or str(row.uuid)
            kind = row.script_type or ScriptType.COMMAND
            if kind not in list(ScriptType):
                self._say("identification command", name, f"was left out: its script type is {kind!r}")
                continue
            self.ids[row.uuid] = name
            wrong = _wrong(ScriptType(kind), row.script, "")
            if wrong:
                self._say("identification command", name, f"is off: {wrong}")
            self.made.records.append(
                IdentificationCommand(
                    id=name,
                    tool=self._reference(row.tool, "a tool", name) or "ingestd",
                    description=row.description,
                    output=outputs.get(row.config.casefold(), IdentificationOutput.PUID),
                    script_type=ScriptType(kind),
                    script=row.script.replace("\r\n", "\n"),
                    note=wrong,
                    **self._history(row, enabled=row.enabled and not wrong),
                )
            )
        for row in self._of("idrule"):
            self.ids[row.uuid] = self.known.get((Kind.IDENTIFICATION_RULE, row.uuid)) or str(row.uuid)
        said: set[tuple[str, str]] = set()
        for row in self._of("idrule"):
            self._identification_rule(row, said)

    def _identification_rule(self, row: _Fields, said: set[tuple[str, str]]) -> None:
        name, command = self.ids[row.uuid], self.ids.get(_uuid(row.command))
        version = self.ids.get(row.format) if row.format else None
        if command is None or version is None:
            self._say("identification rule", name, f"was left out: command {row.command}, format {row.format}")
            return
        twice = self._active(row) and (command, row.command_output) in said
        if twice:
            self._say("identification rule", name, f"is off: another says what {row.command_output!r} means")
        elif self._active(row):
            said.add((command, row.command_output))
        self.made.records.append(
            IdentificationRule(
                id=name,
                command=command,
                format=version,
                output=row.command_output,
                **self._history(row, enabled=row.enabled and not twice),
            )
        )

    def _history(self, row: _Fields, *, enabled: bool) -> dict[str, Any]:
        replaces = self._reference(row.replaces, "what it replaces", str(row.uuid)) if row.replaces else ""
        own = self.ids.get(row.uuid)
        return {
            "uuid": row.uuid,
            "enabled": enabled,
            "replaces": "" if replaces == own else replaces,
            "modified": row.lastmodified,
        }

    def _reference(self, to: UUID | None, what: str, whose: str) -> str:
        if to is None:
            return ""
        if to not in self.ids:
            self._say("record", whose, f"names {what} that the dump does not have: {to}")
        return self.ids.get(to, "")

    def _say(self, what: str, name: str, said: str) -> None:
        self.made.notes.append(f"{what} {name} {said}")


def _wrong(script_type: ScriptType, script: str, location: str) -> str:
    """Say why the registry would refuse a script, or why it could not run; empty where neither is so."""
    faults = [": ".join(filter(None, fault)) for fault in script_faults(script_type, script, location)]
    if script_type is ScriptType.PYTHON_SCRIPT:
        faults.append(python_fault(script))
    return "; ".join(filter(None, faults))


def _tool_called(registry: Registry, name: str) -> Tool | None:
    word = re.sub(r"[^a-z0-9]", "", name.casefold())
    for tool in registry.tools:
        names = (tool.id, tool.program, tool.name.partition("(")[0])
        if word and word in {re.sub(r"[^a-z0-9]", "", each.casefold()) for each in names}:
            return tool
    return None


def _free(row: _Fields, taken: set[str]) -> str:
    """Give an id that no other record has: the slug, or else the identifier."""
    slug = row.slug.strip().lower()
    name = slug if re.fullmatch(r"[a-z0-9][a-z0-9_.-]*", slug) and slug not in taken else str(row.uuid)
    taken.add(name)
    return name


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        return UUID(int=0)
