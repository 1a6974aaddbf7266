"""Export of a registry in the form of Archivematica's and a3m's dumps (a Django fixture), history and all.

Commands are told in that form's own means: what only ingestd fills in, asks or reads off is written out as script, so
that the exported registry works where it is loaded.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid5

from ingestd.fpr.layers import Entry
from ingestd.fpr.records import (
    Command,
    Format,
    FormatVersion,
    Group,
    IdentificationCommand,
    IdentificationRule,
    Reading,
    Record,
    Rule,
    ScriptType,
    Tool,
    Usage,
)
from ingestd.fpr.registry import Registry
from ingestd.fpr.substitution import quoted
from ingestd.fpr.variables import PLACEHOLDER

EPOCH = "2026-01-01T00:00:00Z"
"""The `lastmodified` of records of which it is not known."""
_OURS = {"threads": "1", "memory": "1024", "language": "eng"}
"""Variables that only ingestd has, and what is written in their place."""
_TOOL = re.compile("%tool(?:Name|Version)%")

Row = dict[str, Any]


def export_dump(registry: Registry) -> list[Row]:
    """Give the whole registry as the list that a fixture is; `json.dumps` makes the file of it."""
    return list(_Export(registry).rows())


@dataclass(slots=True)
class _Export:
    registry: Registry
    numbers: dict[str, int] = field(default_factory=dict)
    slugs: dict[str, set[str]] = field(default_factory=dict)
    worded: dict[tuple[str, str], str] = field(default_factory=dict)
    rewritten: dict[UUID, str] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        for group in self.registry.groups:
            yield self._row("formatgroup", group, {"description": group.name, "slug": self._slug("group", group.id)})
        for kept in self.registry.formats:
            slug = self._slug("format", kept.id)
            fields = {"description": kept.name, "group": self._uuid(Group, kept.group), "slug": slug}
            yield self._row("format", kept, fields)
        for version in self._all(FormatVersion):
            yield self._versioned("formatversion", version, self._version(version))
        yield from self._tools()
        for command in self._all(Command):
            yield from self._command(command)
        for rule in self._all(Rule):
            more: Row = {
                "purpose": rule.purpose.value,
                "format": self._meant(FormatVersion, rule, rule.format),
                "command": self._meant(Command, rule, rule.command),
                "count_attempts": 0,
                "count_okay": 0,
                "count_not_okay": 0,
            }
            yield self._versioned("fprule", rule, more)
        yield from self._identification()

    def _all(self, kind: type[Record]) -> Iterator[Any]:
        """Every record, and what upper layers wrote anew under the same id as rows that were replaced."""
        for record in self.registry.every(kind):
            entries = [item for item in self.registry.history(record) if isinstance(item, Entry)]
            former = [item.record for item in entries if item.record.id == record.id][1:]
            known = {record.identifier}
            latest = record
            for older in former:
                if older.identifier not in known and not latest.replaces:
                    known.add(older.identifier)
                    self.rewritten[latest.identifier] = str(older.identifier)
                    latest = older
                    yield older.model_copy(update={"enabled": False})
            yield record

    def _version(self, version: FormatVersion) -> Row:
        return {
            "format": self._uuid(Format, version.format),
            "version": version.version,
            "pronom_id": version.puid,
            "description": version.description,
            "access_format": version.access,
            "preservation_format": version.preservation,
            "slug": _slug(version.description) or _slug(version.id),
        }

    def _tools(self) -> Iterator[Row]:
        identifying = {command.tool for command in self.registry.identification_commands}
        acting = {command.tool for command in self.registry.commands}
        for tool in self.registry.tools:
            more = {"description": tool.name, "version": tool.noted_version, "enabled": tool.enabled}
            if tool.id in acting or tool.id not in identifying:
                yield self._row("fptool", tool, {**more, "slug": self._slug("fptool", tool.id)})
            if tool.id in identifying:
                row = self._row("idtool", tool, {**more, "slug": self._slug("idtool", tool.id)})
                row["fields"]["uuid"] = self._identifying(tool.id)
                yield row

    def _command(self, command: Command) -> Iterator[Row]:
        if command.usage is Usage.EVENT_DETAIL and _TOOL.search(command.script):
            return
        detail = self.registry.command(command.event_detail)
        event_detail: str | None = self._uuid(Command, command.event_detail)
        if detail and _TOOL.search(detail.script):
            yield from self._worded(detail, command.tool)
            event_detail = self.worded[detail.id, command.tool]
        script_type, script = told(command)
        yield self._versioned(
            "fpcommand",
            command,
            {
                "tool": self._uuid(Tool, command.tool),
                "description": command.description,
                "command": script,
                "script_type": script_type.value,
                "output_location": _constants(command.output_location),
                "output_format": self._uuid(FormatVersion, command.output_format),
                "command_usage": command.usage.value,
                "verification_command": self._uuid(Command, command.verification),
                "event_detail_command": event_detail,
            },
        )

    def _worded(self, detail: Command, name: str) -> Iterator[Row]:
        """Write the event detail command of one tool: it asks the tool for its version itself."""
        tool = self.registry.tool(name)
        if tool is None or (detail.id, name) in self.worded:
            return
        identifier = str(uuid5(detail.identifier, name))
        self.worded[detail.id, name] = identifier
        version = '""'
        if tool.version_command:
            version = f'"$({shlex.join(tool.version_command)} 2>&1 | head -n 1)"'
        script = f"""printf 'program="%s"; version="%s"' {shlex.quote(tool.name)} {version}"""
        row = self._versioned(
            "fpcommand",
            detail,
            {
                "tool": self._uuid(Tool, detail.tool),
                "description": f"{detail.description}: {tool.name}",
                "command": script,
                "script_type": ScriptType.BASH_SCRIPT.value,
                "output_location": "",
                "output_format": None,
                "command_usage": Usage.EVENT_DETAIL.value,
                "verification_command": None,
                "event_detail_command": None,
            },
        )
        row["fields"]["uuid"] = identifier
        yield row

    def _identification(self) -> Iterator[Row]:
        for command in self._all(IdentificationCommand):
            yield self._versioned(
                "idcommand",
                command,
                {
                    "description": command.description,
                    "config": command.output.value,
                    "script": command.script,
                    "script_type": command.script_type.value,
                    "tool": self._identifying(command.tool),
                },
            )
        for rule in self._all(IdentificationRule):
            more = {
                "command": self._uuid(IdentificationCommand, rule.command),
                "format": self._uuid(FormatVersion, rule.format),
                "command_output": rule.output,
            }
            yield self._versioned("idrule", rule, more)

    def _identifying(self, name: str) -> str | None:
        """Give the identifier of a tool as one that identifies: the form keeps these apart, here a tool may be both."""
        tool = self.registry.tool(name)
        both = tool and any(command.tool == name for command in self.registry.commands)
        return str(uuid5(tool.identifier, "idtool")) if tool and both else self._uuid(Tool, name)

    def _versioned(self, model: str, record: Record, more: Row) -> Row:
        replaces = self.rewritten.get(record.identifier) or self._exactly(type(record), record.replaces)
        more = {
            **more,
            "replaces": replaces,
            "enabled": self.registry.is_active(record) if record.enabled else False,
            "lastmodified": record.modified or EPOCH,
        }
        return self._row(model, record, more)

    def _row(self, model: str, record: Record, more: Row) -> Row:
        number = self.numbers[model] = self.numbers.get(model, 0) + 1
        return {"model": f"fpr.{model}", "pk": number, "fields": {"uuid": str(record.identifier), **more}}

    def _uuid(self, kind: type[Record], name: str) -> str | None:
        found = self.registry.find(kind, name) if name else None
        return str(found.identifier) if found else None

    def _meant(self, kind: type[Record], by: Record, name: str) -> str | None:
        """Give what a record means: history what it named then, an active record what has its place now."""
        return self._uuid(kind, name) if self.registry.is_active(by) else self._exactly(kind, name)

    def _exactly(self, kind: type[Record], name: str) -> str | None:
        """Give the identifier of the record of this very id, whatever has its place now."""
        found = self.registry.as_written(kind, name) if name else None
        return str(found.identifier) if found else None

    def _slug(self, kind: str, name: str) -> str:
        taken = self.slugs.setdefault(kind, set())
        slug, number = _slug(name) or kind, 2
        while slug in taken:
            slug, number = f"{_slug(name)[:45]}-{number}", number + 1
        taken.add(slug)
        return slug


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")[:50]


def _constants(text: str) -> str:
    return PLACEHOLDER.sub(lambda match: _OURS.get(match[1], match[0]), text)


def told(command: Command) -> tuple[ScriptType, str]:
    """Give a command's script type and script as they work without ingestd."""
    script = _constants(command.script)
    if command.script_type is ScriptType.BASH_SCRIPT:
        script = quoted(script)
    if command.outcome:
        return ScriptType.PYTHON_SCRIPT, _reader(command.script_type, script, command.outcome)
    if command.exit_codes != (0,) and command.script_type is ScriptType.COMMAND:
        codes = "|".join(str(code) for code in command.exit_codes)
        line = " ".join(_shell_word(token) for token in shlex.split(script))
        return ScriptType.BASH_SCRIPT, f"{line}\ncase $? in {codes}) exit 0 ;; esac\nexit 1\n"
    return command.script_type, script


def _shell_word(token: str) -> str:
    return f'"{token}"' if PLACEHOLDER.search(token) and not re.search(r'["$`\\]', token) else shlex.quote(token)


def _reader(script_type: ScriptType, script: str, reading: Reading) -> str:
    """Write the Python script that runs a validation on its one argument and prints its outcome."""
    argv = ["bash", "-c", script] if script_type is ScriptType.BASH_SCRIPT else shlex.split(script)
    return _READER.format(
        argv=_spelled(argv),
        shell=script_type is ScriptType.BASH_SCRIPT,
        patterns=_spelled([reading.fail_pattern, reading.partial_pattern, reading.pass_pattern]),
        codes=_spelled([list(reading.pass_codes), list(reading.partial_codes)]),
        note=_spelled(reading.note_pattern or r"^(.*\S.*)$"),
    )


def _spelled(value: object) -> str:
    """Spell a value of texts, numbers and lists as Python reads it."""
    return repr(value)


_READER = """import html
import json
import re
import subprocess
import sys

ARGV = {argv}
SHELL = {shell}
PATTERNS = {patterns}
PASS_CODES, PARTIAL_CODES = {codes}
NOTE = {note}

path = sys.argv[1]
if SHELL:
    argv = ARGV[:2] + [re.sub('"%(inputFile|fileFullName)%"', '"$1"', ARGV[2]), "validate", path]
else:
    argv = [re.sub("%(inputFile|fileFullName)%", lambda match: path, part) for part in ARGV]
done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
said = done.stdout.decode("utf-8", "replace")
outcomes = ["fail", "partial pass", "pass"]
if any(PATTERNS):
    found = [name for name, pattern in zip(outcomes, PATTERNS) if pattern and re.search(pattern, said, re.MULTILINE)]
    if not found:
        sys.exit("no outcome was printed")
    outcome = found[0]
elif done.returncode in PASS_CODES:
    outcome = "pass"
else:
    outcome = "partial pass" if done.returncode in PARTIAL_CODES else "fail"
notes = [] if outcome == "pass" else [match.group(1).strip() for match in re.finditer(NOTE, said, re.MULTILINE)]
if "<?xml" in said:
    notes = [html.unescape(note) for note in notes]
print(json.dumps({{
    "eventOutcomeInformation": outcome,
    "eventOutcomeDetailNote": "; ".join(notes[:20]),
    "stdout": said,
}}))
"""
