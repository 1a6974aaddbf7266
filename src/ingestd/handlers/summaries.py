"""What a person finds in an AIP beside its files: README.html, and the reports and the summary in `logs/`."""

from __future__ import annotations

import asyncio
import csv
import html
import io
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib import resources
from pathlib import Path
from string import Template
from typing import TextIO

from ingestd import __version__
from ingestd.job import Outcome, Services, Task
from ingestd.messages import EventCount, FormatCount, PackageSummary, ToolData, WarningData
from ingestd.mets.vocabulary import OBJECTS
from ingestd.oais import Facts, File, FileUse, escape_name
from ingestd.premis import Event, EventType

SUMMARY = "logs/summary.json"
_WINDOW = 64
_SAMPLES = 3
_LISTED = 50
_CHECKS = {
    EventType.VIRUS_CHECK: "virusScan.csv",
    EventType.VALIDATION: "validation.csv",
    EventType.FORMAT_IDENTIFICATION: "formatIdentification.csv",
    EventType.FIXITY_CHECK: "fixityChecks.csv",
    EventType.METADATA_EXTRACTION: "characterization.csv",
    EventType.FORENSIC_FEATURE_ANALYSIS: "examination.csv",
}
"""Checks of files that have a report of their own, a line for each file and check."""
_COLUMNS = ("file", "identifier", "at", "outcome", "by", "note")
_WARNINGS = "warnings.csv"
_USES = {
    FileUse.ORIGINAL: "originals: what was received",
    FileUse.SUBMISSION_DOCUMENTATION: "papers about the deposit",
    FileUse.PRESERVATION: "preservation copies, made in a format that lasts",
    FileUse.SERVICE: "service copies that came with the originals",
    FileUse.ACCESS: "access copies that came with the originals",
    FileUse.LICENSE: "licences",
    FileUse.TEXT_OCR: "texts that were read from pictures",
    FileUse.METADATA: "descriptions and lists",
    FileUse.DERIVATIVE: "other copies",
    FileUse.THUMBNAIL: "small pictures",
}
_HAPPENED = {
    "ingestion": "was received",
    "registration": "was entered under an accession number",
    "message digest calculation": "had its checksum calculated",
    "fixity check": "was compared with a checksum that came with it",
    "filename change": "was given a name that every computer can write; its old name is kept",
    "format identification": "had its format determined",
    "metadata extraction": "had technical details read from it",
    "forensic feature analysis": "was searched for personal data and other patterns",
    "unpacking": "was taken out of an archive",
    "file removed": "was removed",
    "validation": "was checked against the rules of its format",
    "normalization": "had a copy made in another format",
    "creation": "was made here, from another file",
    "transcription": "had its text read from the picture",
    "virus check": "was checked for malicious programs",
    "reingestion": "was taken up again for a later version of this package",
    "deletion": "was removed, since it was made anew",
}


async def write_logs(task: Task, services: Services) -> Outcome:
    """Write the reports in `logs/`: changed names, removed files, checks of files, warnings, and `summary.json` of all.

    A report that would be empty is not written. The package's fact `summary` gets the summary too.
    """
    folder = task.at("logs")
    await asyncio.to_thread(folder.mkdir, exist_ok=True)
    survey = _Survey()
    with ExitStack() as files:
        reports = _Reports(folder, files)
        async for window in task.history.files(window=_WINDOW):
            events = await task.history.events([file.id for file in window])
            survey.add(window, events)
            await asyncio.to_thread(reports.write, window, events)
        async for window in task.history.files(removed=True, window=_WINDOW):
            events = await task.history.events([file.id for file in window])
            survey.add_removed(window, events)
            await asyncio.to_thread(reports.removed, window, events)
        warnings = await _warnings(task, reports, [str(task.folder), str(services.settings.data_dir)])
    text = (await _summary(task, services, survey, warnings)).model_dump_json(indent=1, by_alias=True)
    await asyncio.to_thread(_write, task.at(SUMMARY), text + "\n")
    return Outcome(facts=Facts(package={"summary": text}))


class _Survey:
    """Counts of what is in the AIP and of what happened to it."""

    def __init__(self) -> None:
        self.uses: Counter[str] = Counter()
        self.formats: Counter[tuple[str, str, str]] = Counter()
        self.bytes: Counter[tuple[str, str, str]] = Counter()
        self.events: Counter[tuple[str, str]] = Counter()
        self.removed = 0

    def add(self, files: Sequence[File], events: Mapping[uuid.UUID, Sequence[Event]]) -> None:
        for file in files:
            if not file.path.startswith(f"{OBJECTS}/"):
                continue
            found = (file.format.name, file.format.version, file.format.puid) if file.format else ("Unknown", "", "")
            self.uses[file.use.value] += 1
            self.formats[found] += 1
            self.bytes[found] += file.size_bytes
            self._count(events.get(file.id, ()))

    def add_removed(self, files: Sequence[File], events: Mapping[uuid.UUID, Sequence[Event]]) -> None:
        self.removed += len(files)
        for file in files:
            self._count(events.get(file.id, ()))

    def _count(self, events: Sequence[Event]) -> None:
        self.events.update((str(event.type), str(event.outcome)) for event in events)


class _Reports:
    """The reports that grow with the files; each is made when it has its first line. Methods block."""

    def __init__(self, folder: Path, files: ExitStack) -> None:
        self._folder = folder
        self._files = files
        self._open: dict[str, TextIO] = {}
        for name in (*_CHECKS.values(), _WARNINGS, "filenameChange.log", "removedFiles.log"):
            (folder / name).unlink(missing_ok=True)

    def write(self, files: Sequence[File], events: Mapping[uuid.UUID, Sequence[Event]]) -> None:
        for file in files:
            name, identifier = escape_name(file.path), str(file.id)
            if file.path != file.original:
                self._out("filenameChange.log").write(f"{escape_name(file.original)} -> {name}\n")
            for event in events.get(file.id, ()):
                report = _CHECKS.get(event.type) if isinstance(event.type, EventType) else None
                if report:
                    at = event.said_at or event.at.isoformat()
                    self._row(report, _COLUMNS, (name, identifier, at, event.outcome, event.detail, event.note))

    def removed(self, files: Sequence[File], events: Mapping[uuid.UUID, Sequence[Event]]) -> None:
        for file in files:
            for event in events.get(file.id, ())[-1:]:
                self._out("removedFiles.log").write(f"{event.at.isoformat()} {event.detail}\n")

    def warned(self, rows: Sequence[Sequence[str]]) -> None:
        for row in rows:
            self._row(_WARNINGS, ("file", "code", "detail", "job"), row)

    def _row(self, report: str, columns: Sequence[str], values: Sequence[str]) -> None:
        rows = [values] if report in self._open else [columns, values]
        csv.writer(self._out(report), lineterminator="\n").writerows(rows)

    def _out(self, name: str) -> TextIO:
        if name not in self._open:
            out = (self._folder / name).open("w", encoding="utf-8", errors="backslashreplace", newline="")
            self._open[name] = self._files.enter_context(out)
        return self._open[name]


async def _summary(task: Task, services: Services, survey: _Survey, warnings: Sequence[WarningData]) -> PackageSummary:
    package, settings = task.package, services.settings
    facts = await task.history.facts()
    totals = await task.history.totals(under=OBJECTS)
    return PackageSummary(
        id=package.id,
        name=package.name,
        label=package.label,
        accession=package.accession,
        external_identifier=package.external_identifier,
        organization=settings.organization.name,
        organization_identifier=settings.organization.identifier,
        software=f"ingestd {__version__}",
        requested_at=package.created_at,
        made_at=datetime.fromisoformat(facts["mets_created_at"]),
        files=totals.files,
        size_bytes=totals.bytes,
        directories=totals.directories,
        removed=survey.removed,
        uses=dict(survey.uses),
        formats=[
            FormatCount(
                name=name, version=version, puid=puid, files=count, size_bytes=survey.bytes[name, version, puid]
            )
            for (name, version, puid), count in survey.formats.most_common()
        ],
        events=[
            EventCount(type=kind, outcome=outcome, count=count)
            for (kind, outcome), count in sorted(survey.events.items())
        ],
        warnings=list(warnings),
        tools=[ToolData(name=n, version=v, used_for=u) for n, v, u in await task.history.tools()],
        processing=dict(package.processing),
        workflow_digest=package.workflow_digest,
        registry_digest=services.registry.version,
    )


async def _warnings(task: Task, reports: _Reports, places: Sequence[str]) -> list[WarningData]:
    """Report every warning, and count them by code with a few in words; none names a place of this server."""
    counts: Counter[str] = Counter()
    samples: dict[str, list[str]] = {}
    async for window in task.history.warnings():
        rows = []
        for warning in window:
            path, words = escape_name(warning.path), warning.detail
            for place in places:
                words = words.replace(place, "")
            rows.append((path, warning.code, words, warning.link))
            counts[warning.code] += 1
            if counts[warning.code] <= _SAMPLES:
                samples.setdefault(warning.code, []).append((f"{path}: {words}" if path else words)[:300])
        await asyncio.to_thread(reports.warned, rows)
    return [WarningData(code=code, count=count, samples=samples[code]) for code, count in counts.items()]


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8", newline="\n")
    partial.replace(path)


# --- README -----------------------------------------------------------------------------------------------------------


async def add_readme(task: Task, services: Services) -> Outcome:
    """Write `README.html`: what this package is, for somebody who finds it in fifty years. Runs after `write_logs`."""
    summary = PackageSummary.model_validate_json((await task.history.facts())["summary"])
    template = Template(resources.files(__package__).joinpath("README.html").read_text(encoding="utf-8"))
    algorithm = services.settings.digest_algorithm
    text = template.substitute(
        name=html.escape(summary.name),
        id=summary.id,
        label=html.escape(summary.label),
        identifiers=_identifiers(summary),
        mets=f"METS.{summary.id}.xml",
        algorithm=algorithm,
        windows=algorithm.upper(),
        bits=algorithm.removeprefix("sha"),
        standard="RFC 1321" if algorithm == "md5" else "FIPS 180-4 of the United States' NIST",
        software=html.escape(summary.software),
        organization=html.escape(summary.organization),
        organization_identifier=html.escape(summary.organization_identifier),
        date=summary.made_at.date().isoformat(),
        requested=summary.requested_at.date().isoformat(),
        files=summary.files,
        size=f"{summary.size_bytes:,}",
        uses=_table(("files", "what they are"), [(count, _USES[FileUse(use)]) for use, count in summary.uses.items()]),
        formats=_formats(summary),
        events=_events(summary),
        warnings=_troubles(summary),
        removed=_removed(summary),
    )
    await asyncio.to_thread(_write, task.at("README.html"), text)
    return Outcome()


def _identifiers(summary: PackageSummary) -> str:
    said = [("accession", summary.accession), ("identifier elsewhere", summary.external_identifier)]
    known = [f"{name} <code>{html.escape(value)}</code>" for name, value in said if value]
    return f" Others know it by: {', '.join(known)}." if known else ""


def _formats(summary: PackageSummary) -> str:
    rows = [
        (one.files, _named(one), one.puid or "not known", f"{one.size_bytes:,}") for one in summary.formats[:_LISTED]
    ]
    more = len(summary.formats) - _LISTED
    note = f"<p>And {more} formats more; <code>{SUMMARY}</code> has all.</p>" if more > 0 else ""
    return _table(("files", "format", "PRONOM identifier", "bytes"), rows) + note


def _named(one: FormatCount) -> str:
    return one.name if one.name.endswith(one.version) else f"{one.name} {one.version}"


def _events(summary: PackageSummary) -> str:
    """Events in words; of how many, which ended how."""
    by_type: dict[str, list[str]] = {}
    counts: Counter[str] = Counter()
    for one in summary.events:
        counts[one.type] += one.count
        if one.outcome:
            by_type.setdefault(one.type, []).append(f"{one.outcome}: {one.count}")
    rows = [
        (
            count,
            f"a file {_HAPPENED[kind]}" if kind in _HAPPENED else "recorded by others",
            kind,
            "; ".join(by_type.get(kind, ())),
        )
        for kind, count in counts.items()
    ]
    return _table(("times", "what happened", "as the record calls it", "and how it ended"), rows)


def _troubles(summary: PackageSummary) -> str:
    if not summary.warnings:
        return "<p>Nothing went wrong that was noticed.</p>"
    rows = [(one.count, one.code, "; ".join(one.samples)) for one in summary.warnings]
    return _table(("times", "kind", "for instance"), rows)


def _removed(summary: PackageSummary) -> str:
    if not summary.removed:
        return ""
    return f"<p>{summary.removed} more files came and were removed; <code>logs/removedFiles.log</code> names them.</p>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    out = io.StringIO()
    out.write(f"<table><tr>{''.join(f'<th>{html.escape(head)}</th>' for head in heads)}</tr>\n")
    for row in rows:
        cells = "".join(f"<td>{html.escape(str(value))}</td>" for value in row)
        out.write(f"<tr>{cells}</tr>\n")
    out.write("</table>")
    return out.getvalue()
