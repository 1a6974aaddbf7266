"""Format identification as facts: files with their formats, events, warnings. Several steps tell them alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from ingestd.errors import Code, RequestError, ToolError, ToolFailure, Violation
from ingestd.fpr.commands import Commands
from ingestd.fpr.contracts import identified_as
from ingestd.fpr.records import FormatVersion, IdentificationCommand, IdentificationOutput
from ingestd.fpr.registry import Registry
from ingestd.oais import File, Warning_, escape_name
from ingestd.premis import Event, EventOutcome, EventType, Format, Program, now
from ingestd.pronom import is_puid
from ingestd.together import side_by_side
from ingestd.tools.siegfried import Identification, Siegfried

OPTION = "identification_command"
"""The processing option that chooses a command."""
UNIDENTIFIED = Format(name="Unknown")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identified:
    """What was found of some files: themselves with their formats, an event for each, a warning where it failed.

    `program` is the one that identified them.
    """

    files: Sequence[File]
    events: Sequence[Event]
    warnings: Sequence[Warning_]
    program: Program


def command_of(options: Mapping[str, object], registry: Registry) -> IdentificationCommand:
    """Give the identification command that the processing options choose.

    Raises `RequestError` (`request.unknown_option`) that lists those that there are.
    """
    name = str(options.get(OPTION, "siegfried"))
    command = registry.find(IdentificationCommand, name)
    if command is None or not registry.is_active(command):
        known = ", ".join(item.id for item in registry.active(IdentificationCommand))
        violation = Violation(path=f"processing.{OPTION}", rule="unknown_command", expected=known, actual=name)
        raise RequestError(
            f"the registry has no identification command {name!r}",
            code=Code.REQUEST_UNKNOWN_OPTION,
            violations=(violation,),
        )
    return command


def check_installed(command: IdentificationCommand, commands: Commands) -> None:
    """Raise `ToolError` (`tool.not_installed`) where the command's tool cannot be had here."""
    tool = commands.registry.tool(command.tool)
    if command.adapter or (tool and commands.available(tool)):
        return
    name = tool.name if tool else command.tool
    package = (tool.debian or tool.pypi) if tool else ""
    raise ToolError(
        f"{name}, which {command.id} identifies formats with, is not installed",
        code=Code.TOOL_NOT_INSTALLED,
        tool=ToolFailure(name=name),
        remediation=f"Install {package}, or choose another {OPTION}." if package else f"Choose another {OPTION}.",
    )


async def identify(
    files: Sequence[File],
    paths: Sequence[Path],
    *,
    command: IdentificationCommand,
    commands: Commands,
    siegfried: Siegfried,
) -> Identified:
    """Identify `files`, which are at `paths`, with a command of the registry.

    Siegfried is asked for all at once, and what it does not know looked up by extension; any other command is run once
    for each file. Raises `ToolError` where Siegfried, or the tool, cannot be started.
    """
    if command.adapter:
        program = Program("Siegfried", await siegfried.version())
        detail = program.words(signature=await siegfried.signature())
        found = zip(files, await siegfried.identify(paths), strict=True)
        answers: Sequence[Identification] = [
            answer if answer.format or answer.error else _guessed(file, command, commands) for file, answer in found
        ]
    else:
        check_installed(command, commands)
        tool = commands.registry.tool(command.tool)
        program = Program(tool.name, await commands.version(tool)) if tool else Program(command.tool)
        detail = program.words(command=str(command.identifier))
        answers = await _run(command, commands, paths)
    return _told(files, [_named(answer, commands.registry) for answer in answers], program, detail)


def _guessed(file: File, command: IdentificationCommand, commands: Commands) -> Identification:
    """What Siegfried does not know may be named by a rule for the extension, such as `.dd` for a raw disk image."""
    extension = PurePosixPath(file.path).suffix.lower()
    version = commands.registry.identified(command, extension)
    return Identification(format=_format(version), extension=extension) if version else Identification(format=None)


async def _run(command: IdentificationCommand, commands: Commands, paths: Sequence[Path]) -> Sequence[Identification]:
    return await side_by_side(partial(_run_on, command, commands), paths, at_once=len(paths))


async def _run_on(command: IdentificationCommand, commands: Commands, path: Path) -> Identification:
    """A command that exits other than 0, or prints nothing, could not tell; one that was stopped has failed."""
    run = await commands.identify(command, path)
    if run.stopped or run.exit_code is None:
        return Identification(format=None, error=run.error(command.id).detail)
    output = identified_as(run.stdout) if run.ok else ""
    version = commands.registry.identified(command, output) if output else None
    if version is not None:
        return Identification(format=_format(version))
    if command.output is IdentificationOutput.PUID and is_puid(output):
        return Identification(format=Format(name=output, puid=output))  # newer than the registry
    return Identification(format=None)


def _told(files: Sequence[File], answers: Sequence[Identification], program: Program, detail: str) -> Identified:
    at = now()
    known = [replace(file, format=answer.format or UNIDENTIFIED) for file, answer in zip(files, answers, strict=True)]
    events = [
        Event(
            object=file.id,
            type=EventType.FORMAT_IDENTIFICATION,
            at=at,
            detail=f'{detail}; extension="{answer.extension}"' if answer.extension else detail,
            outcome=EventOutcome.POSITIVE if answer.format else EventOutcome.NOT_IDENTIFIED,
            note=(answer.format.puid or answer.format.name) if answer.format else "No Matching Format",
            programs=[program],
        )
        for file, answer in zip(files, answers, strict=True)
    ]
    warnings = [
        Warning_(code="tool.identification_failed", detail=answer.error, path=escape_name(file.path))
        for file, answer in zip(files, answers, strict=True)
        if answer.error
    ]
    return Identified(files=known, events=events, warnings=warnings, program=program)


def _named(answer: Identification, registry: Registry) -> Identification:
    """Name a format as the registry does where it knows it, else as the tool does."""
    known = registry.version_of(answer.format)
    if answer.format is None or known is None:
        return answer
    named = replace(answer.format, name=known.description, version=known.version or answer.format.version)
    return replace(answer, format=named)


def _format(version: FormatVersion) -> Format:
    return Format(name=version.description, version=version.version, puid=version.puid)
