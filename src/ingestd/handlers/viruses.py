"""The scan for malware: a `virus check` event for every file, and a package with an infected file is refused.

Files are scanned in windows; a step of its own then counts what was found and decides, so that every infected file is
named and not only the first.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from ingestd.config import OnInfected, ScannerChoice
from ingestd.errors import Code, ContentError, ToolError, Violation
from ingestd.job import Outcome, Services, Task, ToolUse
from ingestd.oais import Facts, File, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, Program, since_reingestion
from ingestd.tools.clamav import Engine, Scanned, Verdict, find_scanner

NO_SCANNER = "no scanner is installed"
NO_SIGNATURES = "No supported database files"
"""What ClamAV says where freshclam never ran."""
_NO_DEFINITIONS = "ClamAV has no signatures (run freshclam): no file was scanned for malware"
_LISTED = 1000
_OUTCOMES = {
    Verdict.CLEAN: EventOutcome.CLEAN,
    Verdict.INFECTED: EventOutcome.INFECTED,
    Verdict.NOT_SCANNED: EventOutcome.NOT_SCANNED,
}


async def scan_for_viruses(task: Task, services: Services) -> Outcome:
    """Scan the files of the window that no earlier link has scanned.

    Each gets a `virus check` event: `Pass`; `Fail` with the signature's name; or `Not scanned` with the reason, and a
    warning (`policy.virus_not_scanned`). Where no scanner is installed, one warning (`tool.not_installed`) stands for
    all. Nothing happens where the setting `clamav.scanner` is `off`. Raises `DependencyError` when clamd goes away.
    """
    settings = services.settings.clamav
    if settings.scanner is ScannerChoice.OFF:
        return Outcome()
    files = await _unscanned(task)
    if not files:
        return Outcome()
    scanner = await find_scanner(settings, services.pool)
    if scanner is None:
        return _none(files, _missing("no clamd answers, and clamscan is not"))
    try:
        engine, found = await scanner.scan([task.at(file.path) for file in files])
    except ToolError as error:
        if error.code is Code.TOOL_NOT_INSTALLED:
            return _none(files, _missing("clamscan is not"))
        found = [Scanned(verdict=Verdict.NOT_SCANNED, note=f"{error.detail} {error.stderr_tail}".strip())] * len(files)
        engine = Engine(name="ClamAV", version="")
    if all(NO_SIGNATURES in one.note for one in found):
        return _none(files, _NO_DEFINITIONS)
    return _told(files, found, engine)


def _missing(what: str) -> str:
    return f"{what} installed: no file was scanned for malware"


async def _unscanned(task: Task) -> Sequence[File]:
    events = await task.history.events([file.id for file in task.at_hand])
    return [
        file
        for file in task.at_hand
        if not any(event.type is EventType.VIRUS_CHECK for event in since_reingestion(events.get(file.id, ())))
    ]


def _none(files: Sequence[File], why: str) -> Outcome:
    warning = Warning_(code=Code.TOOL_NOT_INSTALLED, detail=why)
    found = [Scanned(verdict=Verdict.NOT_SCANNED, note=NO_SCANNER)] * len(files)
    return Outcome(facts=Facts(events=_events(files, found), warnings=[warning]))


def _told(files: Sequence[File], found: Sequence[Scanned], engine: Engine) -> Outcome:
    detail = Program(engine.name, engine.version).words(virusDefinitions=engine.definitions)
    warnings = [
        Warning_(code=Code.POLICY_VIRUS_NOT_SCANNED, detail=one.note, path=escape_name(file.path))
        for file, one in zip(files, found, strict=True)
        if one.verdict is Verdict.NOT_SCANNED
    ]
    program = Program(engine.name, engine.version.removeprefix("ClamAV "))
    version = ", ".join(word for word in (program.version, engine.definitions) if word)
    use = ToolUse(name=engine.name, version=version, used_for="virus check")
    facts = Facts(events=_events(files, found, detail, [program]), warnings=warnings, package={"virus_scanner": detail})
    return Outcome(facts=facts, tools=[use], now_with=engine.name)


def _events(
    files: Sequence[File], found: Sequence[Scanned], detail: str = "", programs: Sequence[Program] = ()
) -> Sequence[Event]:
    return [
        Event(
            object=file.id,
            type=EventType.VIRUS_CHECK,
            at=one.at,
            detail=detail,
            outcome=_OUTCOMES[one.verdict],
            note=one.note,
            programs=programs,
        )
        for file, one in zip(files, found, strict=True)
    ]


@dataclass(kw_only=True, slots=True)
class _Count:
    """How the files of a package came out of the scan."""

    outcomes: Counter[str] = field(default_factory=Counter)
    infected: list[Violation] = field(default_factory=list)

    def add(self, file: File, event: Event) -> None:
        self.outcomes[event.outcome] += 1
        if event.outcome is EventOutcome.INFECTED and len(self.infected) < _LISTED:
            path = escape_name(file.original)
            violation = Violation(path=path, rule=Code.CONTENT_INFECTED, expected="no malware", actual=event.note)
            self.infected.append(violation)

    def facts(self) -> dict[str, str]:
        return {
            "virus_scan_clean": str(self.outcomes[EventOutcome.CLEAN]),
            "virus_scan_infected": str(self.outcomes[EventOutcome.INFECTED]),
            "virus_scan_not_scanned": str(self.outcomes[EventOutcome.NOT_SCANNED]),
        }


async def refuse_infected(task: Task, services: Services) -> AsyncIterator[Outcome]:
    """Count what the scan found, into facts of the package; refuse a package in which something was.

    `virus_scan_clean`, `virus_scan_infected` and `virus_scan_not_scanned` are numbers of files; `virus_scanner` names
    what scanned. A file's last `virus check` counts. Raises `ContentError` (`content.infected`) with a violation for
    each infected file. With `clamav.on_infected` = `quarantine`, the transfer's folder is closed to everybody else and
    the fact `quarantined` set, before that.
    """
    settings = services.settings.clamav
    count = _Count()
    async for files in task.history.files():
        events = await task.history.events([file.id for file in files])
        for file in files:
            checks = [event for event in events.get(file.id, ()) if event.type is EventType.VIRUS_CHECK]
            if checks:
                count.add(file, checks[-1])
    if not count.outcomes:
        return
    facts = count.facts()
    infected = count.outcomes[EventOutcome.INFECTED]
    if infected and settings.on_infected is OnInfected.QUARANTINE:
        await asyncio.to_thread(task.root.chmod, 0o700)
        facts["quarantined"] = "yes"
    yield Outcome(facts=Facts(package=facts, warnings=await _limits_warning(services, count)))
    if infected:
        raise ContentError(
            f"malware was found in {infected} of {count.outcomes.total()} files scanned",
            code=Code.CONTENT_INFECTED,
            violations=tuple(count.infected),
        )


async def _limits_warning(services: Services, count: _Count) -> Sequence[Warning_]:
    """Once for a package: whether a clean file may be one that the scanner did not read to its end."""
    if not count.outcomes[EventOutcome.CLEAN]:
        return []
    scanner = await find_scanner(services.settings.clamav, services.pool)
    if scanner is None or await scanner.tells_limits():
        return []
    detail = (
        "clamd does not say when a limit keeps it from reading everything in an archive or document: "
        "set AlertExceedsMax yes in clamd.conf"
    )
    return [Warning_(code=Code.POLICY_VIRUS_NOT_SCANNED, detail=detail)]
