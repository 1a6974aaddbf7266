"""The format policy registry in force: the shipped layer, a site's folders over it, a request's choices over those.

A record of an upper layer with the id of a lower one takes its place, as does a record that `replaces` it; both stay in
the history. A record is *active* that is enabled and not replaced. What refers to a replaced record means the one that
has its place now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self, TypeVar

from ingestd import premis
from ingestd.errors import Code, RequestError, SystemFault, Violation
from ingestd.fpr.check import check_layers, check_records
from ingestd.fpr.layers import ALL, Disabled, Entry, Layer, shipped_layer, site_layer
from ingestd.fpr.records import (
    DEFAULT_OF,
    NORMALIZATIONS,
    RECORDS,
    SINGLE,
    UNKNOWN,
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
    Tool,
)

R = TypeVar("R", bound=Record)


class Registry:
    """All records, and which of them are in force. It does not change once it is made."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        """Lay `layers` over one another, the lowest first.

        Raises `SystemFault` (`system.configuration`) with a violation for every record that is wrong.
        """
        self._layers = tuple(layers)
        self._entries: dict[Kind, dict[str, list[Entry]]] = {kind: {} for kind in Kind}
        self._records: dict[Kind, dict[str, Record]] = {kind: {} for kind in Kind}
        self._disabled: dict[tuple[Kind, str], Disabled] = {}
        problems = list(check_layers(layers))
        for layer in layers:
            self._lay(layer)
        self._replaced = {
            kind: {record.replaces: record.id for record in records.values() if record.replaces}
            for kind, records in self._records.items()
        }
        problems += check_records(self)
        _refuse(problems)
        versions = list(self.active(FormatVersion))
        self._puids = {version.puid: version for version in versions if version.puid}
        self._designations = {version.designation: version for version in versions if not version.puid}
        self._rules: dict[tuple[Purpose, str], list[Rule]] = {}
        for rule in self.active(Rule):
            version = self.find(FormatVersion, rule.format)
            if version and self.is_active(version):
                self._rules.setdefault((rule.purpose, version.id), []).append(self.followed(rule))
        self._outputs = {
            (command.id, rule.output): rule.format
            for rule in self.active(IdentificationRule)
            if (command := self.find(IdentificationCommand, rule.command))
        }
        self.version = hashlib.sha256(":".join(layer.digest for layer in layers).encode()).hexdigest()[:16]

    @classmethod
    def load(cls, site_folders: Sequence[Path] = ()) -> Self:
        """Read the shipped registry and the site's folders over it, the lowest first. Raises as the constructor."""
        return cls([shipped_layer(), *(site_layer(folder) for folder in site_folders)])

    def format_version(self, puid: str) -> FormatVersion | None:
        """Give the active format version of a PUID."""
        return self._puids.get(puid)

    def version_of(self, found: premis.Format | None) -> FormatVersion | None:
        """Give the active format version that a file was identified as, None for one that was not.

        It is found by its PUID or, where it has none, by what the METS says of it: its description and version.
        """
        if found is None:
            return None
        return self._puids.get(found.puid) if found.puid else self._designations.get((found.name, found.version))

    def group_of(self, version: FormatVersion) -> Group | None:
        """Give the group that the format of a version is in."""
        kept = self.find(Format, version.format)
        return self.find(Group, kept.group) if kept else None

    def rules(self, purpose: Purpose, version: FormatVersion | None) -> Sequence[Rule]:
        """Give the active rules of a purpose for exactly this format version, in the order of the registry."""
        return tuple(self._rules.get((purpose, version.id), ())) if version else ()

    def default_rules(self, purpose: Purpose) -> Sequence[Rule]:
        """Give the active rules that stand in where no rule of `purpose` is right, or where its command failed."""
        default = DEFAULT_OF.get(purpose)
        rules = self._rules.get((default, UNKNOWN), ()) if default else ()
        return tuple(rules[:1] if purpose in SINGLE else rules)

    def followed(self, rule: Rule) -> Rule:
        """Give a rule as it is followed: with the command that has the place of the one that it names."""
        command = self.find(Command, rule.command)
        if command is None or command.id == rule.command:
            return rule
        return rule.model_copy(update={"command": command.id})

    def choose(self, purpose: Purpose, version: FormatVersion | None) -> Sequence[Rule]:
        """Give the rules to run: the format version's own, or else the defaults; one, where a purpose runs only one.

        `version` is None for a file that was not identified, which only defaults can be for.
        """
        rules = self.rules(purpose, version)
        if not rules:
            return self.default_rules(purpose)
        return rules[:1] if purpose in SINGLE else rules

    def identified(self, command: IdentificationCommand, output: str) -> FormatVersion | None:
        """Give the format version that an identification command means by what it printed."""
        if ruled := self._outputs.get((command.id, output)):
            return self.find(FormatVersion, ruled)
        return self.format_version(output) if command.output is IdentificationOutput.PUID else None

    def command(self, id: str) -> Command | None:  # noqa: A002  the field's own word
        """Give the command of this id, or the one that has its place now."""
        return self.find(Command, id)

    def tool(self, id: str) -> Tool | None:  # noqa: A002
        """Give the tool of this id, or the one that has its place now."""
        return self.find(Tool, id)

    @property
    def groups(self) -> Sequence[Group]:
        return tuple(self.every(Group))

    @property
    def formats(self) -> Sequence[Format]:
        return tuple(self.every(Format))

    @property
    def versions(self) -> Sequence[FormatVersion]:
        return tuple(self.every(FormatVersion))

    @property
    def tools(self) -> Sequence[Tool]:
        return tuple(self.every(Tool))

    @property
    def commands(self) -> Sequence[Command]:
        return tuple(self.every(Command))

    @property
    def identification_commands(self) -> Sequence[IdentificationCommand]:
        return tuple(self.every(IdentificationCommand))

    def every(self, record: type[R]) -> Iterable[R]:
        """All records of a type, active or not, in the order in which they were read."""
        return (item for item in self._records[record.kind].values() if isinstance(item, record))

    def active(self, record: type[R]) -> Iterable[R]:
        """The active records of a type, in the order in which they were read."""
        return (item for item in self.every(record) if self.is_active(item))

    def find(self, record: type[R], id: str) -> R | None:  # noqa: A002
        """Give the record of this id, or the one that has its place now."""
        replaced, seen = self._replaced[record.kind], {id}
        while id in replaced and replaced[id] not in seen:
            id = replaced[id]  # noqa: A001
            seen.add(id)
        found = self._records[record.kind].get(id)
        return found if isinstance(found, record) else None

    def as_written(self, record: type[R], id: str) -> R | None:  # noqa: A002
        """Give the record of this very id, also one that was replaced."""
        found = self._records[record.kind].get(id)
        return found if isinstance(found, record) else None

    def is_active(self, record: Record) -> bool:
        return record.enabled and record.id not in self._replaced[record.kind]

    def where(self, record: Record) -> str:
        """Say which file of which layer the record in force stands in."""
        entry = self._entries[record.kind][record.id][-1]
        return f"{entry.layer}/{entry.file}"

    def over(self, layer: Layer) -> Self:
        """Lay a request's layer over this registry.

        A rule of it takes the place of whatever rule there is for the same normalization of the same format version.
        Raises `RequestError` with a violation for everything that is wrong with it.
        """
        displaced = [
            Disabled(layer=layer.name, file="rule", kind=Kind.RULE, id=rule.id, reason="the request has its own")
            for asked in (entry.record for entry in layer.entries)
            if isinstance(asked, Rule) and asked.purpose in NORMALIZATIONS
            for rule in self._rules.get((asked.purpose, self._version_id(asked.format)), ())
            if rule.id != asked.id
        ]
        try:
            return type(self)([*self._layers, replace(layer, disabled=[*layer.disabled, *displaced])])
        except SystemFault as error:
            raise RequestError(error.detail, violations=error.violations) from error

    def history(self, record: Record) -> Sequence[Entry | Disabled]:
        """Give everything that the layers say of a record and of those whose place it has, the newest first."""
        said: list[Entry | Disabled] = []
        at: Record | None = record
        while at and not any(isinstance(item, Entry) and item.record.id == at.id for item in said):
            disabled = self._disabled.get((at.kind, at.id))
            said += [disabled] if disabled else []
            said += reversed(self._entries[at.kind].get(at.id, []))
            at = self._records[at.kind].get(at.replaces) if at.replaces else None
        return tuple(said)

    def _version_id(self, name: str) -> str:
        version = self.find(FormatVersion, name)
        return version.id if version else name

    def _lay(self, layer: Layer) -> None:
        for item in layer.disabled:
            records = self._records[item.kind]
            for name in tuple(records) if item.id == ALL else (item.id,):
                if name in records and records[name].enabled:
                    records[name] = records[name].model_copy(update={"enabled": False})
                    self._disabled[item.kind, name] = item
        for entry in layer.entries:
            record = entry.record
            self._records[record.kind][record.id] = record
            self._entries[record.kind].setdefault(record.id, []).append(entry)
            self._disabled.pop((record.kind, record.id), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A record that two registries do not have alike; None where one of them has none. Neither is one that is off."""

    kind: Kind
    id: str
    before: Record | None
    after: Record | None


def difference(before: Registry, after: Registry) -> Sequence[Change]:
    """Say what is in force in only one of two registries, or is not the same in both; a date alone is no difference."""
    changes: list[Change] = []
    for kind, record in RECORDS.items():
        old = {item.id: item for item in before.active(record)}
        new = {item.id: item for item in after.active(record)}
        changes += [
            Change(kind=kind, id=name, before=old.get(name), after=new.get(name))
            for name in dict.fromkeys([*old, *new])
            if _substance(old.get(name)) != _substance(new.get(name))
        ]
    return changes


def _substance(record: Record | None) -> Record | None:
    return record.model_copy(update={"modified": "", "uuid": record.identifier}) if record else None


def _refuse(problems: Sequence[Violation]) -> None:
    if not problems:
        return
    first = problems[0]
    said = " ".join(filter(None, (first.path, first.rule, first.actual)))
    more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
    raise SystemFault(
        f"the format policy registry is not valid: {said}{more}",
        code=Code.SYSTEM_CONFIGURATION,
        violations=tuple(problems),
        remediation="Correct the records that the violations name; a site's are in its registry folders.",
    )
